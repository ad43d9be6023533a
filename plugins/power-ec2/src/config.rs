//! What the operator writes: for the plugin, and for a target.

use loopback_plugin_sdk::power::Target;
use loopback_plugin_sdk::{Diagnostic, Error};
use schemars::JsonSchema;
use serde::Deserialize;

/// In `endpoint`, where the region goes.
const MARKER: &str = "{region}";

/// Which region, and how its API is reached.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The region, as in `eu-central-1`. Targets may name another.
    #[schemars(length(min = 1, max = 32))]
    pub(crate) region: String,
    /// The API's address; `{region}` in it is replaced by the region.
    #[serde(default = "default_endpoint")]
    #[schemars(length(max = 2048))]
    endpoint: String,
    /// The credentials are temporary, and the secret `session-token` belongs to them.
    #[serde(default)]
    pub(crate) session_token: bool,
    /// Have `off` pass over the operating system (`SkipOsShutdown`). Otherwise EC2 asks it first,
    /// and cuts the power some minutes later when it has not followed.
    #[serde(default)]
    pub(crate) skip_os_shutdown: bool,
    /// How long a request may take.
    #[serde(default = "default_timeout_ms")]
    #[schemars(range(min = 100, max = 30_000))]
    pub(crate) timeout_ms: u32,
    /// How the API proves itself when machines are listed: a profile's name from the grant.
    /// Targets have their own.
    #[serde(default)]
    pub(crate) tls_profile: Option<String>,
    /// Through which agents machines are listed: a route's name from the grant. Targets have
    /// their own.
    #[serde(default)]
    pub(crate) route: Option<String>,
}

/// What may be written for a target.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Params {
    #[serde(default)]
    region: Option<String>,
}

fn default_endpoint() -> String {
    format!("https://ec2.{MARKER}.amazonaws.com/")
}

/// A request has to end within a call, and a call of `begin` has two.
fn default_timeout_ms() -> u32 {
    4_000
}

/// Where an API is, and as what it signs.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) url: String,
    pub(crate) region: String,
}

impl Config {
    pub(crate) fn check(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        if !is_region(&self.region) {
            let message = "is not a region: small letters, digits and - are";
            found.push(Diagnostic::error("/region", message));
        }
        let (scheme, rest) = self.endpoint.split_once("://").unwrap_or(("", ""));
        if !matches!(scheme, "https" | "http") || rest.is_empty() {
            found.push(Diagnostic::error(
                "/endpoint",
                "must be an https:// address",
            ));
        }
        if scheme == "http" {
            let message = "without TLS everybody on the way can change what is asked and answered";
            found.push(Diagnostic::warning("/endpoint", message));
        }
        if rest.contains(['@', '?', '#']) {
            let message = "must not have a user, a query or a fragment";
            found.push(Diagnostic::error("/endpoint", message));
        }
        found
    }

    /// Where machines are listed.
    pub(crate) fn own_place(&self) -> Place {
        self.place(&self.region)
    }

    /// Where a target is.
    pub(crate) fn place_of(&self, target: &Target) -> Result<Place, Error> {
        let params: Params = target.read_params()?;
        let Some(region) = params.region.filter(|region| *region != self.region) else {
            return Ok(self.own_place());
        };
        // It becomes part of a host's name.
        if !is_region(&region) {
            return Err(
                Error::invalid("target.params", "that is not a region").detail("path", "region")
            );
        }
        if !self.endpoint.contains(MARKER) {
            let message = "the configured endpoint is of one region, and the target names another";
            return Err(Error::invalid("target.params", message).detail("path", "region"));
        }
        Ok(self.place(&region))
    }

    fn place(&self, region: &str) -> Place {
        let mut url = self.endpoint.replace(MARKER, region);
        // What is signed has a path, so what is sent must have one.
        let path = url
            .split_once("://")
            .is_some_and(|(_, rest)| rest.contains('/'));
        if !path {
            url.push('/');
        }
        Place {
            url,
            region: region.to_owned(),
        }
    }
}

fn is_region(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(plain)
}

/// The id in a target's address.
pub(crate) fn instance(target: &Target) -> Result<&str, Error> {
    let id = target.address.as_str();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if id.starts_with("i-") && id.len() <= 64 && id.bytes().all(plain) {
        return Ok(id);
    }
    let message = "the address of a target is an instance's id, as in i-0123456789abcdef0";
    Err(Error::invalid("target.address", message))
}
