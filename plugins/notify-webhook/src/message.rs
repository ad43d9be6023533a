//! What is sent of an event.

use loopback_plugin_sdk::Error;
use loopback_plugin_sdk::notifier::Event;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::filter::Severity;

/// How events look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// A JSON object with everything there is.
    #[default]
    Generic,
    /// A message as Slack, Mattermost, Rocket.Chat and others take it.
    Slack,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
struct Generic<'a> {
    id: &'a str,
    sequence: u64,
    time_ms: u64,
    kind: &'a str,
    severity: &'a str,
    workspace: Option<&'a str>,
    host: Option<&'a str>,
    summary: &'a str,
    dedup_key: &'a str,
    /// As it is: numbers and the order of fields stay as the gateway wrote them.
    body: &'a RawValue,
}

#[derive(Serialize)]
struct Slack {
    text: String,
}

pub(crate) fn body(shape: Shape, event: &Event) -> Result<Vec<u8>, Error> {
    let bytes = match shape {
        Shape::Generic => serde_json::to_vec(&Generic {
            id: &event.id,
            sequence: event.sequence,
            time_ms: event.time_ms,
            kind: &event.kind,
            severity: &event.severity,
            workspace: event.workspace.as_deref(),
            host: event.host.as_deref(),
            summary: &event.summary,
            dedup_key: &event.dedup_key,
            body: serde_json::from_str(&event.body)?,
        }),
        Shape::Slack => serde_json::to_vec(&Slack { text: text(event) }),
    };
    Ok(bytes?)
}

/// One line. What comes from elsewhere (names of hosts, say) cannot make links or call people:
/// Slack reads `<`, `>` and `&`, and they are written as it asks.
fn text(event: &Event) -> String {
    let mark = match Severity::of(event) {
        Severity::Info | Severity::Notice => "",
        Severity::Warning => ":warning: ",
        Severity::Critical => ":rotating_light: ",
    };
    let escape = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
    };
    let place = match &event.workspace {
        Some(workspace) => format!(" ({})", escape(workspace)),
        None => String::new(),
    };
    format!("{mark}{}{place}", escape(&event.summary))
}
