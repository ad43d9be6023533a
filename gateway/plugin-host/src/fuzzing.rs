//! For searches and their replay alone: what becomes of an answer once a component has given it.
//!
//! A component answers with values of the contract's types, whatever they hold; from there on the
//! way is the same in a gateway and here. Values are read by serde, so whoever searches decides
//! how bytes become values.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::contract::base::{CheckConfig, Describe, MigrateConfig, Probe};
use crate::contract::installer::Render;
use crate::contract::notifier::Deliver;
use crate::contract::policy::Decide;
use crate::contract::power::{Begin, Cancel, Check, Discover, Inspect, Observe, Poll, Resume};
use crate::platform::Descriptor;
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::store::Operation;

/// All functions that a gateway calls.
pub const FUNCTIONS: [&str; 15] = [
    Describe::FUNCTION,
    CheckConfig::FUNCTION,
    MigrateConfig::FUNCTION,
    Probe::FUNCTION,
    Render::FUNCTION,
    Deliver::FUNCTION,
    Decide::FUNCTION,
    Inspect::FUNCTION,
    Check::FUNCTION,
    Observe::FUNCTION,
    Begin::FUNCTION,
    Poll::FUNCTION,
    Resume::FUNCTION,
    Cancel::FUNCTION,
    Discover::FUNCTION,
];

/// A value that calls opened, by the name that is shown in its place.
pub type OpenedSecret<'a> = (&'a str, &'a [u8]);

/// What a caller of `function` gets when a component answers `answer` and may answer with
/// `return_bytes`.
pub fn finish<'de, D: Deserializer<'de>>(
    function: &str,
    answer: D,
    return_bytes: usize,
    secrets: &[OpenedSecret<'_>],
) -> Result<Result<Value, Reason>, D::Error> {
    let mut scrubber = Scrubber::default();
    for (name, value) in secrets {
        scrubber.add(name, value);
    }
    let end = End {
        return_bytes,
        scrubber,
    };
    match function {
        Describe::FUNCTION => end.describe(answer),
        CheckConfig::FUNCTION => end.of::<CheckConfig, D>(answer),
        MigrateConfig::FUNCTION => end.of::<MigrateConfig, D>(answer),
        Probe::FUNCTION => end.of::<Probe, D>(answer),
        Render::FUNCTION => end.of::<Render, D>(answer),
        Deliver::FUNCTION => end.of::<Deliver, D>(answer),
        Decide::FUNCTION => end.of::<Decide, D>(answer),
        Inspect::FUNCTION => end.of::<Inspect, D>(answer),
        Check::FUNCTION => end.of::<Check, D>(answer),
        Observe::FUNCTION => end.of::<Observe, D>(answer),
        Begin::FUNCTION => end.of::<Begin, D>(answer),
        Poll::FUNCTION => end.of::<Poll, D>(answer),
        Resume::FUNCTION => end.of::<Resume, D>(answer),
        Cancel::FUNCTION => end.of::<Cancel, D>(answer),
        Discover::FUNCTION => end.of::<Discover, D>(answer),
        _ => Ok(Err(Reason::WrongKind)),
    }
}

struct End {
    return_bytes: usize,
    scrubber: Scrubber,
}

impl End {
    fn finish<O: Operation>(&self, raw: O::Raw) -> Result<O::Output, Reason> {
        if O::weight(&raw) > self.return_bytes {
            let limit = u64::try_from(self.return_bytes).unwrap_or(u64::MAX);
            return Err(Reason::ReturnSize { limit });
        }
        O::finish(raw, &self.scrubber)
    }

    fn of<'de, O, D>(&self, answer: D) -> Result<Result<Value, Reason>, D::Error>
    where
        O: Operation<Raw: Deserialize<'de>>,
        D: Deserializer<'de>,
    {
        let raw = O::Raw::deserialize(answer)?;
        Ok(self.finish::<O>(raw).map(|output| {
            let _ = O::credentials(&output);
            O::output(&output)
        }))
    }

    fn describe<'de, D: Deserializer<'de>>(
        &self,
        answer: D,
    ) -> Result<Result<Value, Reason>, D::Error> {
        let raw = Deserialize::deserialize(answer)?;
        Ok(self.finish::<Describe>(raw).and_then(|described| {
            let kept = Descriptor::of(described)
                .map_err(|error| Reason::WrongContract(error.to_string()))?;
            Ok(serde_json::json!({
                "config_schema": kept.config_schema,
                "features": kept.features,
            }))
        }))
    }
}
