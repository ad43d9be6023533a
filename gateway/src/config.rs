//! The gateway's configuration: a TOML file, then flags on top.
//!
//! Every key has a default that works for a first start, so an empty file and no file
//! are the same. Unknown keys are errors: a misspelt limit must not silently be no
//! limit. What contradicts itself is refused here, with the key's name, before
//! anything is touched; whether files exist and ports are free is found out by those
//! who use them.
//!
//! `docs/configuration.md` is the reference; a test holds its block to the defaults
//! here and to the list of keys.

mod check;
pub mod duration;
mod network;
mod registry;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use model::tenancy::LivenessThresholds;
use release::PublicKey;
use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::rate::Quota;

pub use network::{AddressRange, NotAPublicUrl, NotARange, PublicUrl};
pub use registry::Registry;

const FILE_LIMIT: u64 = 1 << 20;

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of everything the gateway keeps; private to its user.
    pub state_dir: PathBuf,
    /// HTTPS on this TCP port, agents' QUIC on the UDP port of the same number.
    pub listen: SocketAddr,
    /// How agents, browsers and the installer reach this gateway.
    pub public_url: Option<PublicUrl>,
    /// Whether hosts of this deployment matter: no verbose agents.
    pub production: bool,
    /// The operator's certificate chain for HTTPS, PEM.
    pub https_certificate: Option<PathBuf>,
    /// Its key, PEM.
    pub https_key: Option<PathBuf>,
    /// Plain HTTP, on a loopback address only.
    pub insecure_http_listen: Option<SocketAddr>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<AddressRange>,
    /// Folder with one agent release per channel; `STATE/releases` when absent.
    pub releases_dir: Option<PathBuf>,
    /// Keys whose releases are handed out: the keys themselves or files of them.
    pub release_keys: Vec<String>,
    /// How long requests may finish after a stop was asked for.
    #[serde(with = "duration")]
    pub shutdown_drain: Duration,
    /// Agents.
    pub agents: Agents,
    /// Agent tokens.
    pub agent_tokens: AgentTokens,
    /// When many hosts fall silent at once.
    pub mass_loss: MassLoss,
    /// Limits on peers.
    pub limits: Limits,
    /// Plugins.
    pub plugins: Plugins,
    /// Hosts' power.
    pub power: Power,
    /// Logs.
    pub log: Log,
}

/// Agents and their certificates.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agents {
    /// Time between heartbeats where a workspace does not say otherwise.
    #[serde(with = "duration")]
    pub heartbeat: Duration,
    /// After a start, hosts count as unconfirmed and not as unreachable for this long.
    #[serde(with = "duration")]
    pub grace_after_start: Duration,
    /// Life of a host's certificate; renewed from half of it on.
    #[serde(with = "duration")]
    pub certificate_lifetime: Duration,
    /// A host away for this much longer than its certificate can still come back.
    #[serde(with = "duration")]
    pub late_return: Duration,
    /// An ephemeral host is retired after being unreachable for this long.
    #[serde(with = "duration")]
    pub ephemeral_retire_after: Duration,
}

/// Agent tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentTokens {
    /// Validity of an ordinary token.
    #[serde(with = "duration")]
    pub short_validity: Duration,
    /// Validity of a token made as long-living.
    #[serde(with = "duration")]
    pub long_validity: Duration,
}

/// A mass loss is one alarm, and automatic actions stand still.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MassLoss {
    /// Share of the connected hosts that must be lost.
    pub fraction: f64,
    /// And at least this many.
    pub minimum_hosts: usize,
    /// Within this time.
    #[serde(with = "duration")]
    pub window: Duration,
}

/// Limits on what a peer may do to the gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests per second of one API key or session, in the long run.
    pub requests_per_key_per_second: u32,
    /// And at once.
    pub requests_per_key_burst: u32,
    /// Failed authentications per minute from one source.
    pub failed_auth_per_source_per_minute: u32,
    /// Enrolment attempts per minute from one source.
    pub enrolments_per_source_per_minute: u32,
    /// Bytes in a request's body.
    pub body_bytes: usize,
    /// Bytes in a file to or from a host.
    pub file_bytes: usize,
    /// Bytes in a request's head.
    pub header_bytes: usize,
    /// Bytes of metrics that one scrape of a host may bring.
    pub scrape_bytes: usize,
    /// HTTP connections.
    pub connections: usize,
    /// HTTP connections of one source.
    pub connections_per_source: usize,
}

/// Plugins: whose are taken, and how many are at work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Plugins {
    /// Keys whose plugins are taken: the keys themselves or files of them.
    pub trusted_keys: Vec<String>,
    /// Whether only plugins with a signature by one of them are taken.
    pub signed_only: bool,
    /// Plugins that may be installed.
    pub installed: usize,
    /// Calls of plugins at a time.
    pub calls: usize,
    /// Registries that plugins come from, by `host[:port]` as in references.
    pub registries: BTreeMap<String, Registry>,
}

/// Hosts' power.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Power {
    /// Providers are asked this often how each host is.
    #[serde(with = "duration")]
    pub observe_interval: Duration,
    /// Actions that one endpoint (a management controller, an account) is told in a row after a rest.
    pub endpoint_burst: u32,
    /// Time between two actions after that.
    #[serde(with = "duration")]
    pub endpoint_interval: Duration,
    /// Hosts of one workspace that are turned off or restarted in a minute. 0: as many as are asked for.
    pub interruptions_per_minute: u32,
    /// The same, of those with the same value of a label, by the label's key.
    pub interruptions_per_label: BTreeMap<String, u32>,
}

/// Logs, on standard error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// For people or for machines.
    pub format: LogFormat,
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub filter: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What flags say; they win over the file.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each is the key of the same name")]
pub struct Overrides {
    pub state_dir: Option<PathBuf>,
    pub listen: Option<SocketAddr>,
    pub public_url: Option<PublicUrl>,
    pub insecure_http_listen: Option<SocketAddr>,
    pub releases_dir: Option<PathBuf>,
    pub log_format: Option<LogFormat>,
    pub log_filter: Option<String>,
}

/// Why a configuration is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration")]
    Read(#[source] FileError),
    /// The file is not what the reference describes.
    #[error("read the configuration {path}: {reason}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the line.
        reason: String,
    },
    /// A value cannot be used.
    #[error("configuration key {key}: {reason}")]
    Invalid {
        /// Which key.
        key: &'static str,
        /// What it must be.
        reason: String,
    },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/loopback-gateway".into(),
            listen: SocketAddr::from(([0u16; 8], 8443)),
            public_url: None,
            production: true,
            https_certificate: None,
            https_key: None,
            insecure_http_listen: None,
            trusted_proxies: Vec::new(),
            releases_dir: None,
            release_keys: Vec::new(),
            shutdown_drain: seconds(10),
            agents: Agents::default(),
            agent_tokens: AgentTokens::default(),
            mass_loss: MassLoss::default(),
            limits: Limits::default(),
            plugins: Plugins::default(),
            power: Power::default(),
            log: Log::default(),
        }
    }
}

impl Default for Agents {
    fn default() -> Self {
        Self {
            heartbeat: seconds(10),
            // Twice the time after which a silent host is unreachable: 10,000 agents
            // coming back at a bounded rate are through by then.
            grace_after_start: seconds(60),
            certificate_lifetime: days(30),
            late_return: days(730),
            ephemeral_retire_after: seconds(3600),
        }
    }
}

impl Default for AgentTokens {
    fn default() -> Self {
        // A working day with its time zones; a year of image building.
        Self {
            short_validity: days(1),
            long_validity: days(365),
        }
    }
}

impl Default for MassLoss {
    fn default() -> Self {
        // Below 5 hosts a share says nothing. A rack is some 30 % of a small site.
        Self {
            fraction: 0.3,
            minimum_hosts: 5,
            window: seconds(60),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_key_per_second: 50,
            requests_per_key_burst: 200,
            failed_auth_per_source_per_minute: 20,
            // A whole site enrols from behind one address.
            enrolments_per_source_per_minute: 300,
            body_bytes: 1 << 20,
            file_bytes: 4 << 30,
            header_bytes: 32 << 10,
            // Ten times what a busy host with a large exporter has.
            scrape_bytes: 4 << 20,
            connections: 4096,
            connections_per_source: 512,
        }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            trusted_keys: Vec::new(),
            // Who wants to run what nobody vouches for says so.
            signed_only: true,
            installed: 64,
            // Each may take its limit of memory, 128 MiB unless a grant says otherwise.
            calls: 32,
            registries: BTreeMap::new(),
        }
    }
}

impl Default for Power {
    fn default() -> Self {
        Self {
            observe_interval: seconds(300),
            endpoint_burst: 2,
            endpoint_interval: seconds(1),
            interruptions_per_minute: 0,
            interruptions_per_label: BTreeMap::new(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Keys as a list in the configuration names them.
fn keys(key: &'static str, entries: &[String]) -> Result<Vec<PublicKey>, ConfigError> {
    let mut keys = Vec::new();
    for entry in entries {
        // The text of a key has colons and its own prefix; a path that looks like
        // that can be written with ./ in front.
        let text = if entry.starts_with("loopback-release-") {
            entry.clone()
        } else {
            let bytes =
                files::read_public(Path::new(entry), FILE_LIMIT).map_err(ConfigError::Read)?;
            String::from_utf8(bytes).map_err(|_| invalid(key, format!("{entry} is not text")))?
        };
        let found = PublicKey::parse_list(&text)
            .map_err(|error| invalid(key, format!("{entry}: {error}")))?;
        keys.extend(found);
    }
    Ok(keys)
}

impl Config {
    /// The file at `path` (defaults without one), then `overrides`, then the checks.
    pub fn load(path: Option<&Path>, overrides: Overrides) -> Result<Self, ConfigError> {
        let mut config = match path {
            None => Self::default(),
            Some(path) => Self::read(path)?,
        };
        config.apply(overrides);
        config.check()?;
        Ok(config)
    }

    /// The address agents and people are told when none is configured can only be
    /// this machine's own.
    pub fn public_url_or_local(&self, bound: SocketAddr) -> PublicUrl {
        self.public_url
            .clone()
            .unwrap_or_else(|| PublicUrl::localhost(bound.port()))
    }

    /// Folder of the releases.
    pub fn releases_dir(&self) -> PathBuf {
        self.releases_dir
            .clone()
            .unwrap_or_else(|| self.state_dir.join("releases"))
    }

    /// Heartbeats and thresholds where a workspace does not say otherwise.
    pub fn default_thresholds(&self) -> LivenessThresholds {
        LivenessThresholds::for_heartbeat(self.agents.heartbeat)
    }

    /// The keys of [`release_keys`](Self::release_keys), files read.
    pub fn trusted_release_keys(&self) -> Result<Vec<PublicKey>, ConfigError> {
        keys("release_keys", &self.release_keys)
    }

    /// The keys of [`trusted_keys`](Plugins::trusted_keys), files read.
    pub fn trusted_plugin_keys(&self) -> Result<Vec<PublicKey>, ConfigError> {
        keys("plugins.trusted_keys", &self.plugins.trusted_keys)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read_public(path, FILE_LIMIT).map_err(ConfigError::Read)?;
        let refuse = |reason: String| ConfigError::Parse {
            path: path.to_owned(),
            reason,
        };
        let text = str::from_utf8(&bytes).map_err(|_| refuse("it is not UTF-8".to_owned()))?;
        toml::from_str(text).map_err(|error| refuse(error.to_string()))
    }

    fn apply(&mut self, overrides: Overrides) {
        let Overrides {
            state_dir,
            listen,
            public_url,
            insecure_http_listen,
            releases_dir,
            log_format,
            log_filter,
        } = overrides;
        replace(&mut self.state_dir, state_dir);
        replace(&mut self.listen, listen);
        replace(&mut self.log.format, log_format);
        replace(&mut self.log.filter, log_filter);
        self.public_url = public_url.or(self.public_url.take());
        self.insecure_http_listen = insecure_http_listen.or(self.insecure_http_listen);
        self.releases_dir = releases_dir.or(self.releases_dir.take());
    }
}

impl Limits {
    /// For requests of one key.
    pub fn requests_per_key(&self) -> Quota {
        Quota::per(self.requests_per_key_per_second, seconds(1))
            .with_burst(self.requests_per_key_burst)
    }

    /// For failed authentications of one source.
    pub fn failed_auth_per_source(&self) -> Quota {
        Quota::per(self.failed_auth_per_source_per_minute, seconds(60))
    }

    /// For enrolment attempts of one source.
    pub fn enrolments_per_source(&self) -> Quota {
        Quota::per(self.enrolments_per_source_per_minute, seconds(60))
    }
}

fn replace<T>(value: &mut T, by: Option<T>) {
    if let Some(by) = by {
        *value = by;
    }
}

fn invalid(key: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Invalid {
        key,
        reason: reason.into(),
    }
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

#[cfg(test)]
mod tests;
