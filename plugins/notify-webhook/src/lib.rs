//! Sends events to a web address, one request each, oldest first.
//!
//! A receiver may get an event more than once (an answer was lost, say): `Loopback-Event` carries
//! its id. With `signing`, `Loopback-Signature: t=SECONDS,v1=HEX` is the HMAC-SHA256 of
//! `SECONDS.BODY`; whoever checks it refuses times far from its own, so that what was recorded
//! cannot be sent again later.

mod filter;
mod message;

use loopback_plugin_sdk::host::{Hash, Host};
use loopback_plugin_sdk::http::{Placement, Request};
use loopback_plugin_sdk::notifier::{Event, Notifier};
use loopback_plugin_sdk::{Diagnostic, Error, ErrorKind, Plugin};
use schemars::JsonSchema;
use serde::Deserialize;

use filter::Severity;
use message::Shape;

/// In `url`, where the secret `address` goes.
const MARKER: &str = "{address}";

/// Where events go, which, and how they look.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Config {
    /// The address. `{address}` in its path is replaced by the secret `address`.
    #[schemars(length(max = 2048))]
    url: String,
    /// How events look.
    #[serde(default)]
    shape: Shape,
    /// Kinds of events, or what they begin with, as in `host`. Empty: all.
    #[serde(default)]
    kinds: Vec<String>,
    /// Events below this are not sent.
    #[serde(default)]
    min_severity: Severity,
    /// Show the secret `token` as a bearer token.
    #[serde(default)]
    bearer: bool,
    /// Sign with the secret `signing`.
    #[serde(default)]
    sign: bool,
    /// How long a request may take.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 100, max = 30_000))]
    timeout_ms: u32,
    /// How the server proves itself: a profile's name from the grant.
    #[serde(default)]
    tls_profile: Option<String>,
    /// Through which agents requests leave: a route's name from the grant.
    #[serde(default)]
    route: Option<String>,
}

fn default_timeout_ms() -> u32 {
    5_000
}

struct Webhook;

impl Plugin for Webhook {
    type Config = Config;

    fn check(config: &Config) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        let rest = config.url.split_once("://");
        let (scheme, rest) = rest.unwrap_or(("", ""));
        if !matches!(scheme, "https" | "http") || rest.is_empty() {
            found.push(Diagnostic::error("/url", "must be an https:// address"));
        }
        if scheme == "http" {
            let message = "without TLS everybody on the way reads the events";
            found.push(Diagnostic::warning("/url", message));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if authority.contains('@') {
            let message = "must not contain a user or password: use the secrets";
            found.push(Diagnostic::error("/url", message));
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if path.matches(MARKER).count() > 1 || (authority.to_owned() + query).contains(MARKER) {
            let message = "{address} may stand once, and in the path only";
            found.push(Diagnostic::error("/url", message));
        }
        if config.url.contains("hooks.slack.com/services/") && !config.url.contains(MARKER) {
            let message = "the address is a secret: put what follows services/ into the secret \
                           `address` and write {address} here";
            found.push(Diagnostic::warning("/url", message));
        }
        found
    }
}

impl Notifier for Webhook {
    fn deliver(host: &dyn Host, config: &Config, event: &Event) -> Result<(), Error> {
        if !filter::wanted(&config.kinds, config.min_severity, event) {
            return Ok(());
        }
        let body = message::body(config.shape, event)?;
        let mut request = Request::post(&config.url, "application/json", body)
            .header("loopback-event", &event.id)
            .header("user-agent", "loopback-notify-webhook");
        request.timeout_ms = config.timeout_ms;
        request.tls_profile.clone_from(&config.tls_profile);
        request.route.clone_from(&config.route);
        if config.url.contains(MARKER) {
            request = request.secret("address", Placement::Path(MARKER.to_owned()));
        }
        if config.bearer {
            request = request.secret("token", Placement::Bearer);
        }
        if config.sign {
            let signature = signature(host, &request.body)?;
            request = request.header("loopback-signature", &signature);
        }
        let answer = host.send(&request).map_err(again)?;
        answer.success("webhook", host.now_ms()).map(drop)
    }
}

/// Receivers know an event that they get again by its id, so one that may have arrived is sent
/// again all the same.
fn again(mut error: Error) -> Error {
    if error.kind != ErrorKind::Denied {
        error.outcome_unknown = false;
    }
    error
}

fn signature(host: &dyn Host, body: &[u8]) -> Result<String, Error> {
    use std::fmt::Write as _;
    let seconds = host.now_ms() / 1000;
    let mut signed = format!("{seconds}.").into_bytes();
    signed.extend_from_slice(body);
    let mac = host.hmac("signing", Hash::Sha256, &signed)?;
    let mut header = format!("t={seconds},v1=");
    for byte in mac {
        let _ = write!(header, "{byte:02x}");
    }
    Ok(header)
}

loopback_plugin_sdk::export_notifier!(Webhook);

#[cfg(test)]
mod tests;
