//! The configuration file.
//!
//! ```toml
//! gateway = "https://gateway.example.com:8443"  # HTTPS by TCP, QUIC by UDP on the same port
//! #link = "edge.example.com:4433"               # another place for QUIC over UDP
//! state_dir = "/var/lib/loopback-agent"         # identity; private, must survive reboots
//! #runtime_dir = "/run/loopback-agent"          # socket for `status`
//! token_file = "/etc/loopback-agent/token"      # deleted once the host has joined
//! ca_file = "/etc/loopback-agent/ca.pem"        # whom to trust until the host has joined
//! file_roots = ["/"]                            # where files are read and written for the gateway; [] for none
//! channel = "stable"                            # releases that this host follows
//! verbose = false
//! #https_pin = "sha256//..."                    # lets `doctor` tell a proxy that opens TLS
//! #proxy = "http://proxy.example.com:3128"      # else HTTPS_PROXY and its kin
//! #log_file = "/var/log/loopback-agent/agent.log"  # where there is no journal
//! #log_max_bytes = 10485760
//! ```
//!
//! Without `runtime_dir` the socket is in /run/loopback-agent for the agent of the
//! machine, which has the default `state_dir`; any other agent (the demo's, a test's)
//! keeps it in its state folder, so that two agents never meet.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use link::dial::{NotATarget, Proxy, ProxyError, ProxyRules, Target};
use link::identity::{NotAPin, SpkiSha256};
use model::file::{HostPath, NotAPath};
use release::Channel;
use serde::Deserialize;

/// Default of `state_dir`.
pub const STATE_DIR: &str = "/var/lib/loopback-agent";
/// Default of `runtime_dir` for the machine's own agent.
pub const RUNTIME_DIR: &str = "/run/loopback-agent";
/// Port of `gateway` when its URL has none.
const HTTPS_PORT: u16 = 443;
/// A configuration is a dozen lines.
const MAX_SIZE: u64 = 64 << 10;

/// The configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// HTTPS, and so the WebSocket.
    pub gateway: Target,
    /// QUIC over UDP.
    pub link: Target,
    /// Where the identity is kept.
    pub state_dir: PathBuf,
    /// Where the socket for `status` is, in order of preference.
    pub runtime_dirs: Vec<PathBuf>,
    /// Where the agent token is, until joined.
    pub token_file: Option<PathBuf>,
    /// Whom to trust until joined.
    pub ca_file: Option<PathBuf>,
    /// Where files may be read and written for the gateway.
    pub file_roots: Vec<PathBuf>,
    /// Releases that this host follows.
    pub channel: Channel,
    /// Log decisions, too.
    pub verbose: bool,
    /// Key of the gateway's HTTPS certificate, for `doctor`.
    pub https_pin: Option<SpkiSha256>,
    /// How to get out.
    pub proxy: ProxyRules,
    /// Log to a file.
    pub log_file: Option<PathBuf>,
    /// Most that the log files take.
    pub log_max_bytes: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    gateway: String,
    link: Option<String>,
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    token_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    file_roots: Option<Vec<String>>,
    channel: Option<String>,
    #[serde(default)]
    verbose: bool,
    https_pin: Option<String>,
    proxy: Option<String>,
    log_file: Option<PathBuf>,
    log_max_bytes: Option<u64>,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Far larger than any configuration.
    #[error("{0} is too large for a configuration")]
    TooLarge(PathBuf),
    /// Not TOML, or a key that is unknown, missing or of another type.
    #[error("understand the configuration: {0}")]
    Toml(String),
    /// A value does not fit its key.
    #[error("configuration key {key}")]
    Value {
        /// The key.
        key: &'static str,
        /// What is wrong.
        #[source]
        source: BadValue,
    },
    /// The environment's proxy.
    #[error("use the proxy of the environment")]
    Environment(#[source] ProxyError),
}

/// Why a value does not fit.
#[derive(Debug, thiserror::Error)]
pub enum BadValue {
    /// Not an address.
    #[error(transparent)]
    Target(#[from] NotATarget),
    /// Plain HTTP or another scheme.
    #[error("must begin with https://")]
    Scheme,
    /// Not a pin.
    #[error(transparent)]
    Pin(#[from] NotAPin),
    /// Not a proxy.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// Not a place.
    #[error(transparent)]
    Path(#[from] NotAPath),
    /// Not a channel.
    #[error("must be stable or unstable")]
    Channel,
    /// Relative: the agent's working folder is nobody's business.
    #[error("must be an absolute path")]
    Relative,
    /// Too small to hold anything.
    #[error("must be at least 65536")]
    LogSize,
}

impl Config {
    /// Reads the file at `path`; `env` looks variables up.
    pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(read)?.len() > MAX_SIZE {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        Self::parse(&fs::read_to_string(path).map_err(read)?, env)
    }

    /// Reads the text of a configuration.
    pub fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let text: Text =
            toml::from_str(text).map_err(|error| ConfigError::Toml(error.to_string()))?;
        let at = |key| move |source| ConfigError::Value { key, source };
        let gateway = parse_gateway(&text.gateway).map_err(at("gateway"))?;
        let link = match &text.link {
            Some(link) => {
                Target::parse(link, gateway.port()).map_err(|error| at("link")(error.into()))?
            }
            None => gateway.clone(),
        };
        let https_pin = text
            .https_pin
            .map(|pin| {
                pin.parse()
                    .map_err(|error: NotAPin| at("https_pin")(error.into()))
            })
            .transpose()?;
        let proxy = match &text.proxy {
            Some(url) => {
                let proxy = Proxy::parse(url).map_err(|error| at("proxy")(error.into()))?;
                let spared = env("NO_PROXY")
                    .or_else(|| env("no_proxy"))
                    .unwrap_or_default();
                ProxyRules::new(proxy, &spared)
            }
            None => ProxyRules::from_env(&env).map_err(ConfigError::Environment)?,
        };
        let roots = text.file_roots.unwrap_or_else(|| vec!["/".to_owned()]);
        let root = |root: String| root.parse().map(|root: HostPath| root.as_str().into());
        let file_roots = roots.into_iter().map(root).collect::<Result<_, NotAPath>>();
        let file_roots = file_roots.map_err(|error| at("file_roots")(error.into()))?;
        let channel = text.channel.as_deref().unwrap_or("stable");
        let channel = channel
            .parse()
            .map_err(|_| at("channel")(BadValue::Channel))?;
        let log_max_bytes = text.log_max_bytes.unwrap_or(10 << 20);
        if log_max_bytes < 64 << 10 {
            return Err(at("log_max_bytes")(BadValue::LogSize));
        }
        let absolute = |path: Option<PathBuf>, key| match path {
            Some(path) if !path.is_absolute() => Err(at(key)(BadValue::Relative)),
            path => Ok(path),
        };
        let state_dir = absolute(text.state_dir, "state_dir")?;
        let state_dir = state_dir.unwrap_or_else(|| STATE_DIR.into());
        let runtime_dir = absolute(text.runtime_dir, "runtime_dir")?;
        Ok(Self {
            gateway,
            link,
            runtime_dirs: runtime_dirs(runtime_dir, &state_dir),
            state_dir,
            token_file: absolute(text.token_file, "token_file")?,
            ca_file: absolute(text.ca_file, "ca_file")?,
            file_roots,
            channel,
            verbose: text.verbose,
            https_pin,
            proxy,
            log_file: absolute(text.log_file, "log_file")?,
            log_max_bytes,
        })
    }
}

fn parse_gateway(text: &str) -> Result<Target, BadValue> {
    if !text.starts_with("https://") {
        return Err(BadValue::Scheme);
    }
    Ok(Target::parse(text, HTTPS_PORT)?)
}

/// The folder asked for, or the machine's; the state folder where that cannot be
/// written.
fn runtime_dirs(asked: Option<PathBuf>, state_dir: &Path) -> Vec<PathBuf> {
    let machine = (state_dir == Path::new(STATE_DIR)).then(|| PathBuf::from(RUNTIME_DIR));
    asked
        .or(machine)
        .into_iter()
        .chain([state_dir.to_owned()])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, |_| None).map_err(|error| model::error_chain(&error))
    }

    #[test]
    fn a_gateway_is_all_that_is_needed() {
        let config = parse("gateway = 'https://gw.example.com'").unwrap();
        assert_eq!(config.gateway.to_string(), "gw.example.com:443");
        assert_eq!(config.link, config.gateway);
        assert_eq!(config.state_dir, Path::new(STATE_DIR));
        assert_eq!(
            config.runtime_dirs,
            [Path::new(RUNTIME_DIR), Path::new(STATE_DIR)]
        );
        assert_eq!(config.channel, Channel::Stable);
        assert_eq!(config.file_roots, [Path::new("/")]);
        assert_eq!(config.proxy, ProxyRules::DIRECT);
    }

    #[test]
    fn an_agent_with_its_own_state_keeps_its_socket_there() {
        let config = parse("gateway = 'https://gw:8443'\nstate_dir = '/tmp/a'").unwrap();
        assert_eq!(config.runtime_dirs, [Path::new("/tmp/a")]);
    }

    #[test]
    fn bad_values_are_named_with_their_key() {
        let gateway = "gateway = 'https://gw'\n";
        for (text, expected) in [
            (
                "gateway = 'http://gw'",
                "configuration key gateway: must begin with https://",
            ),
            (
                "gateway = 'https://gw:0'",
                "configuration key gateway: `https://gw:0` is not a gateway's address",
            ),
            (
                "gateway = 'https://gw/path'",
                "configuration key gateway: `https://gw/path` is not a gateway's address",
            ),
            ("", "missing field `gateway`"),
            (&format!("{gateway}colour = 1"), "unknown field `colour`"),
            (&format!("{gateway}verbose = 'yes'"), "invalid type"),
            (
                &format!("{gateway}state_dir = 'state'"),
                "configuration key state_dir: must be an absolute path",
            ),
            (
                &format!("{gateway}https_pin = 'x'"),
                "configuration key https_pin: not a public key pin",
            ),
            (
                &format!("{gateway}proxy = 'socks5://x'"),
                "configuration key proxy: proxy scheme `socks5`",
            ),
            (
                &format!("{gateway}file_roots = ['srv']"),
                "configuration key file_roots: a path on a host begins with `/`",
            ),
            (
                &format!("{gateway}file_roots = ['/srv/../etc']"),
                "configuration key file_roots: a path is written without `.` and `..`",
            ),
            (
                &format!("{gateway}channel = 'beta'"),
                "configuration key channel: must be stable or unstable",
            ),
            (
                &format!("{gateway}log_max_bytes = 1"),
                "configuration key log_max_bytes: must be at least 65536",
            ),
            ("gateway = ", "TOML parse error at line 1"),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn the_proxy_of_the_environment_is_used_unless_one_is_configured() {
        let env = |name: &str| (name == "HTTPS_PROXY").then(|| "http://outer:1".to_owned());
        let load = |text: &str| Config::parse(text, env).unwrap();
        let proxy = |config: &Config| {
            config
                .proxy
                .for_target(&config.gateway)
                .unwrap()
                .target()
                .to_string()
        };
        assert_eq!(proxy(&load("gateway = 'https://gw'")), "outer:1");
        assert_eq!(
            proxy(&load("gateway = 'https://gw'\nproxy = 'http://own:2'")),
            "own:2"
        );
    }
}
