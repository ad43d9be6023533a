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
//!
//! #[[exporter]]                                 # what can be scraped through the link
//! #name = "node"
//! #url = "http://127.0.0.1:9100/metrics"        # on this host's loopback only
//!
//! #[forward]                                    # what plugins may reach through this host: nothing
//! #networks = ["10.9.0.0/16"]                   # unless networks and ports are named here
//! #ports = [443, 623]
//! ```
//!
//! The installer writes this file anew each time. Exporters can stand in a file of their
//! own beside it, `exporters.toml`, which is the operator's, and so can `[forward]`, in
//! `forward.toml`.
//!
//! Without `runtime_dir` the socket is in /run/loopback-agent for the agent of the
//! machine, which has the default `state_dir`; any other agent (the demo's, a test's)
//! keeps it in its state folder, so that two agents never meet.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use agent_core::exporter::{Exporter, NotAnExporter};
use agent_core::forward::{Allow, NotAllow};
use link::dial::{NotATarget, Proxy, ProxyError, ProxyRules, Target};
use link::identity::{NotAPin, SpkiSha256};
use model::facts::MAX_EXPORTERS;
use model::file::{HostPath, NotAPath};
use release::Channel;
use serde::Deserialize;

/// Default of `state_dir`.
pub const STATE_DIR: &str = "/var/lib/loopback-agent";
/// Default of `runtime_dir` for the machine's own agent.
pub const RUNTIME_DIR: &str = "/run/loopback-agent";
/// Port of `gateway` when its URL has none.
const HTTPS_PORT: u16 = 443;
/// Beside the configuration: exporters that outlive the next installation.
const EXPORTERS: &str = "exporters.toml";
/// Beside the configuration: what may be reached through this host, which outlives the next
/// installation as well.
const FORWARD: &str = "forward.toml";
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
    /// What can be scraped through the link, beside the agent itself.
    pub exporters: Vec<Exporter>,
    /// What may be reached through this host.
    pub forward: Allow,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExporterText {
    name: String,
    url: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ForwardText {
    #[serde(default)]
    networks: Vec<String>,
    #[serde(default)]
    ports: Vec<u16>,
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
    #[serde(default, rename = "exporter")]
    exporters: Vec<ExporterText>,
    forward: Option<ForwardText>,
}

/// What may stand in [`FORWARD`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoreForward {
    forward: Option<ForwardText>,
}

/// What may stand in [`EXPORTERS`].
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MoreText {
    #[serde(default, rename = "exporter")]
    exporters: Vec<ExporterText>,
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
    /// Not an exporter of this host.
    #[error("`{name}`")]
    Exporter {
        /// Its name, as far as it can be shown.
        name: String,
        /// What is wrong.
        #[source]
        source: NotAnExporter,
    },
    /// Two exporters share a name.
    #[error("two have the name `{0}`")]
    SameName(String),
    /// More than anybody needs.
    #[error("at most {MAX_EXPORTERS} can be configured")]
    TooMany,
    /// Nothing that could be allowed.
    #[error(transparent)]
    Forward(#[from] NotAllow),
    /// Two places, of which one would be forgotten.
    #[error("stands here and in {FORWARD}; remove one of them")]
    ForwardTwice,
}

impl Config {
    /// Reads the file at `path`; `env` looks variables up.
    pub fn load(path: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            source,
        };
        let text = read_file(path).map_err(read)?;
        let beside = |name| {
            let path = path.with_file_name(name);
            match read_file(&path) {
                Ok(more) => Ok(more),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
                Err(source) => Err(ConfigError::Read { path, source }),
            }
        };
        Self::parse_all(&text, &beside(EXPORTERS)?, &beside(FORWARD)?, env)
    }

    /// Reads the text of a configuration.
    pub fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::parse_all(text, "", "", env)
    }

    fn parse_all(
        text: &str,
        more: &str,
        forward: &str,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let toml = |error: toml::de::Error| ConfigError::Toml(error.to_string());
        let mut text: Text = toml::from_str(text).map_err(toml)?;
        let more: MoreText = toml::from_str(more)
            .map_err(|error| ConfigError::Toml(format!("in {EXPORTERS}: {error}")))?;
        text.exporters.extend(more.exporters);
        let at = |key| move |source| ConfigError::Value { key, source };
        let beside: MoreForward = toml::from_str(forward)
            .map_err(|error| ConfigError::Toml(format!("in {FORWARD}: {error}")))?;
        let forward = match (text.forward, beside.forward) {
            (Some(_), Some(_)) => return Err(at("forward")(BadValue::ForwardTwice)),
            (Some(one), None) | (None, Some(one)) => Allow::new(&one.networks, &one.ports),
            (None, None) => Ok(Allow::default()),
        };
        let forward = forward.map_err(|error| at("forward")(error.into()))?;
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
            exporters: exporters(&text.exporters).map_err(at("exporter"))?,
            forward,
        })
    }
}

fn exporters(texts: &[ExporterText]) -> Result<Vec<Exporter>, BadValue> {
    if texts.len() > MAX_EXPORTERS {
        return Err(BadValue::TooMany);
    }
    let mut names = BTreeSet::new();
    texts
        .iter()
        .map(|text| {
            let name = || model::names::clean(&text.name, 64);
            if !names.insert(&text.name) {
                return Err(BadValue::SameName(name()));
            }
            Exporter::new(&text.name, &text.url).map_err(|source| BadValue::Exporter {
                name: name(),
                source,
            })
        })
        .collect()
}

fn read_file(path: &Path) -> io::Result<String> {
    if fs::metadata(path)?.len() > MAX_SIZE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    fs::read_to_string(path)
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
            (
                &format!("{gateway}[[exporter]]\nname = 'node'\nurl = 'http://192.0.2.1:9100/'"),
                "configuration key exporter: `node`: only exporters on this host are asked",
            ),
            (
                &format!("{gateway}[[exporter]]\nname = 'a b'\nurl = 'http://127.0.0.1/'"),
                "configuration key exporter: `a b`: a name has 1 to 64",
            ),
            (
                &format!(
                    "{gateway}{0}{0}",
                    "[[exporter]]\nname = 'a'\nurl = 'http://[::1]:1/'\n"
                ),
                "configuration key exporter: two have the name `a`",
            ),
            (
                &format!("{gateway}[forward]\nnetworks = ['10.9.0.1/16']\nports = [443]"),
                "configuration key forward: `10.9.0.1/16` is no network",
            ),
            (
                &format!("{gateway}[forward]\nnetworks = ['10.9.0.0/16']"),
                "configuration key forward: name networks and ports",
            ),
            (
                &format!("{gateway}[forward]\nnetworks = ['10.9.0.0/16']\nports = [70000]"),
                "expected u16",
            ),
            (
                &format!("{gateway}[forward]\nhosts = ['a']"),
                "unknown field `hosts`",
            ),
            (
                &format!("{gateway}[[exporter]]\nname = 'a'\nport = 1"),
                "unknown field `port`",
            ),
        ] {
            let said = parse(text).unwrap_err();
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn exporters_may_stand_in_a_file_of_their_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let one = |name: &str| format!("[[exporter]]\nname = '{name}'\nurl = 'http://[::1]:1/'\n");
        let gateway = "gateway = 'https://gw'\n".to_owned();
        fs::write(&path, gateway + &one("a")).unwrap();
        let names = || {
            let config = Config::load(&path, |_| None);
            let config = config.map_err(|error| model::error_chain(&error))?;
            Ok::<_, String>(
                config
                    .exporters
                    .iter()
                    .map(|it| it.name().to_owned())
                    .collect(),
            )
        };
        assert_eq!(names(), Ok(vec!["a".to_owned()]));
        fs::write(dir.path().join(EXPORTERS), one("b")).unwrap();
        assert_eq!(names(), Ok(vec!["a".to_owned(), "b".to_owned()]));
        fs::write(dir.path().join(EXPORTERS), one("a")).unwrap();
        assert!(names().unwrap_err().contains("two have the name `a`"));
        fs::write(dir.path().join(EXPORTERS), "gateway = 'https://other'").unwrap();
        assert!(names().unwrap_err().contains("in exporters.toml"));
    }

    #[test]
    fn what_may_be_reached_through_the_host_may_stand_in_a_file_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        let load = || {
            let config = Config::load(&path, |_| None);
            config
                .map(|config| config.forward)
                .map_err(|error| model::error_chain(&error))
        };
        let (gateway, section) = (
            "gateway = 'https://gw'\n",
            "[forward]\nnetworks = ['10.9.0.0/16']\nports = [443]\n",
        );
        let allow = Allow::new(&["10.9.0.0/16".to_owned()], &[443]).unwrap();
        fs::write(&path, gateway).unwrap();
        assert_eq!(load(), Ok(Allow::default()));
        fs::write(dir.path().join(FORWARD), section).unwrap();
        assert_eq!(load(), Ok(allow));
        fs::write(&path, format!("{gateway}{section}")).unwrap();
        assert!(
            load()
                .unwrap_err()
                .contains("stands here and in forward.toml")
        );
        fs::write(dir.path().join(FORWARD), "networks = []").unwrap();
        assert!(load().unwrap_err().contains("in forward.toml"));
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
