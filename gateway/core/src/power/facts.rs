//! What is known of a host's power: by the provider, and by the host's own agent.

use std::time::Duration;

use model::Timestamp;
use model::power::{Observability, PowerState};

use super::{Agent, Seen, Trouble};

/// A look is recent for this many of its intervals.
const FRESH_FOR: u32 = 3;
/// What a provider says may be this much older than what the agent proves.
const LAG: Duration = Duration::from_secs(120);

/// What is known of a target.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Whether the host has a provider.
    pub configured: bool,
    /// Whether the provider can tell; not known before it was asked.
    pub observable: Option<bool>,
    /// The last look that succeeded.
    pub seen: Option<Seen>,
    /// Since when looks have failed, and why.
    pub failing: Option<(Timestamp, Trouble)>,
}

/// How much is known.
pub fn observability(known: &Known, interval: Duration, now: Timestamp) -> Observability {
    if !known.configured {
        return Observability::Unconfigured;
    }
    if known.observable == Some(false) {
        return Observability::NotObservable;
    }
    if known.failing.is_some() {
        return Observability::Failing;
    }
    match &known.seen {
        None => Observability::NeverChecked,
        Some(seen) if now.since(seen.at) <= interval.saturating_mul(FRESH_FOR) => {
            Observability::Fresh
        }
        Some(_) => Observability::Stale,
    }
}

/// Provider and agent say what cannot both be true of one machine.
///
/// | provider | agent | |
/// |---|---|---|
/// | off, suspended, absent | linked, long since or for long | the provider looks at another machine |
/// | on | not linked | nothing: systems crash, networks fail |
/// | off | not linked | agree |
/// | in between, unknown | any | nothing can be said |
pub fn contradiction(seen: &Seen, agent: &Agent, now: Timestamp) -> Option<Trouble> {
    let down = match seen.state {
        PowerState::Off | PowerState::Suspended | PowerState::Absent => true,
        PowerState::On
        | PowerState::PoweringOn
        | PowerState::PoweringOff
        | PowerState::Rebooting
        | PowerState::Unknown => false,
    };
    let since = agent.since?;
    // What came back a moment ago may simply be newer than the look.
    let talks = agent.linked && now.since(since) > LAG && seen.at > since;
    (down && talks).then(|| {
        let message = format!(
            "the provider says {}, and the host's agent is there: is it the right target?",
            seen.state
        );
        Trouble::new("wrong_target", message)
    })
}
