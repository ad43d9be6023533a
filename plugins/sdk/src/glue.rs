//! What the export macros put between the contract and the traits. Not for authors.

use std::marker::PhantomData;
use std::sync::Once;

use crate::bindings::types::Descriptor;
use crate::log::{self, Level};
use crate::{Diagnostic, Error, Plugin, config};

pub use crate::bindings::{health, plugin};

#[cfg(feature = "installer")]
pub use crate::bindings::installer;
#[cfg(feature = "notifier")]
pub use crate::bindings::notifier;
#[cfg(feature = "policy")]
pub use crate::bindings::policy;
#[cfg(feature = "power")]
pub use crate::bindings::power;

/// Answers as the contract asks, for a plugin.
pub struct Adapter<P>(PhantomData<P>);

/// Has panics tell the operator what happened and where: the trap that follows tells nothing.
/// Every export begins with it.
pub(crate) fn prepare() {
    static ONCE: Once = Once::new();
    // Not in native tests: there the test harness reports.
    if cfg!(target_family = "wasm") {
        ONCE.call_once(|| std::panic::set_hook(Box::new(report)));
    }
}

fn report(info: &std::panic::PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message");
    let place = info
        .location()
        .map(|place| format!("{}:{}:{}", place.file(), place.line(), place.column()))
        .unwrap_or_default();
    log::write(
        Level::Error,
        &format!("panicked: {message}"),
        &[("location", &place)],
    );
}

pub(crate) fn describe<P: Plugin>() -> Descriptor {
    prepare();
    let schema = schemars::generate::SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<P::Config>();
    Descriptor {
        config_schema: schema.as_value().to_string(),
        features: P::FEATURES.iter().map(|&name| name.to_owned()).collect(),
        extra: Vec::new(),
    }
}

pub(crate) fn check_config<P: Plugin>(json: &str) -> Vec<Diagnostic> {
    prepare();
    match config::read::<P::Config>(json) {
        Ok(config) => P::check(&config),
        Err(found) => vec![found],
    }
}

pub(crate) fn migrate_config<P: Plugin>(from_version: &str, json: &str) -> Result<String, Error> {
    prepare();
    let before = serde_json::from_str(json)
        .map_err(|error| Error::invalid("config.not_json", error.to_string()))?;
    Ok(P::migrate(from_version, before)?.to_string())
}

impl<P: Plugin> plugin::exports::loopback::base::plugin::Guest for Adapter<P> {
    fn describe() -> Descriptor {
        describe::<P>()
    }

    fn check_config(json: String) -> Vec<Diagnostic> {
        check_config::<P>(&json)
    }

    fn migrate_config(from_version: String, json: String) -> Result<String, Error> {
        migrate_config::<P>(&from_version, &json)
    }
}
