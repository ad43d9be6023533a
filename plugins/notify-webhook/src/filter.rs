//! Which events are sent.

use loopback_plugin_sdk::notifier::Event;
use schemars::JsonSchema;
use serde::Deserialize;

/// How bad an event is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Worth knowing.
    #[default]
    Info,
    /// Worth noticing.
    Notice,
    /// Something is not as it should be.
    Warning,
    /// Somebody must act.
    Critical,
}

impl Severity {
    /// Words of later gateways are read as `notice`, as the contract says.
    pub(crate) fn of(event: &Event) -> Self {
        match event.severity.as_str() {
            "info" => Self::Info,
            "warning" => Self::Warning,
            "critical" => Self::Critical,
            _ => Self::Notice,
        }
    }
}

pub(crate) fn wanted(kinds: &[String], least: Severity, event: &Event) -> bool {
    let of_kind = kinds.is_empty()
        || kinds.iter().any(|kind| {
            let rest = event.kind.strip_prefix(kind.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
    of_kind && Severity::of(event) >= least
}
