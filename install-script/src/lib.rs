//! The installer: a shell script for hosts, rendered from a few settings.
//!
//! The script itself is static text (`script/*.sh`, `loopback-agent.service`);
//! what differs between gateways is one block of assignments near its top. A
//! template engine was rejected: with one block there is exactly one place
//! where a hostile value could break out, and no escaping is needed there,
//! because every value first passes the narrow alphabet of its field
//! (`alphabet`) and none of them contains a quote. So what a value looks like
//! in the configuration is what it looks like in the script, and anything
//! surprising is refused with the field's name instead of being made harmless.
//!
//! The agent token is not among the settings: the script is public, tokens
//! reach it on the host by environment or file.
//!
//! Pure: nothing here reads a file or a clock. Two programs share it: the plugin
//! that is the built-in installer (`plugins/install-default`), and the gateway,
//! which falls back to it while no plugin has answered yet.
//!
//! # What the script promises
//!
//! * POSIX sh: runs under dash, bash and busybox, without a terminal, without jq.
//! * A cut download runs nothing: functions only, called by the last line.
//! * Preflight prints a line for each obstacle and changes nothing.
//! * Nothing is installed whose size, digest and signature do not hold.
//! * Same version and linked: no-op; another: upgrade; damaged: repair.
//! * It succeeds when the gateway has seen the host, and not before; when it
//!   fails, the host is as it was.
//!
//! # What it asks of the agent's program
//!
//! | command | meaning |
//! |---|---|
//! | `--version` | `loopback-agent 1.2.3`, exit 0 |
//! | `run --config FILE` | the service |
//! | `status --wait SECONDS` | exit 0 as soon as the gateway has acknowledged this host |
//! | `doctor [--rung udp]` | what works and what does not; exit 0 when all (or that rung) does |
//! | `verify-release --manifest F --signature F --key-file F --file F` | exit 0 when `F` is the signed agent for this platform |
//! | `deregister` | tells the gateway goodbye; exit 0 when it heard |

mod alphabet;

use std::fmt::Write as _;

use alphabet::{Joined, Quotable};

/// Where the gateway serves a release's files: `{base_url}/v1/agent/releases/{channel}/{version}/{name}`
/// with the binary's name, `manifest.json` or `manifest.json.sig` as name.
pub const RELEASES_PATH: &str = "/v1/agent/releases";

/// Where the gateway serves the script, unless a workspace has one of its own.
pub const SCRIPT_PATH: &str = "/v1/agent/install.sh";

/// What a line of every installer begins with; the version and the channel follow. Whoever reads a
/// script on a host, or checks one that a plugin wrote, sees by it what it installs.
pub const MARKER: &str = "# loopback-installer: ";

/// What the script needs to know.
#[derive(Clone, Copy, Debug)]
pub struct InstallParams<'a> {
    /// The gateway as hosts reach it: `https://host[:port]`, no path. Plain HTTP
    /// only to the loopback interface.
    pub base_url: &'a str,
    /// `stable` or `unstable`.
    pub channel: &'a str,
    /// Whether the agent logs more. Refused in production.
    pub verbose: bool,
    /// Whether this deployment is a production one.
    pub production: bool,
    /// Where the gateway serves this script: a path. A script that must become root fetches
    /// itself again from there with `?channel=` (and `&verbose=true`).
    pub script_path: &'a str,
    /// The release's version.
    pub version: &'a str,
    /// One for each platform of the release.
    pub binaries: &'a [Binary<'a>],
    /// The authority behind the link (and HTTPS, when there is no pin):
    /// certificates in PEM, several while one replaces the other.
    pub ca_pem: &'a str,
    /// The HTTPS key in curl's form, `sha256//<base64>`.
    pub https_pin: Option<&'a str>,
    /// Public keys that releases are signed with, in the `release` crate's text form.
    pub release_keys: &'a [&'a str],
}

/// A binary of the release, as its manifest lists it.
#[derive(Clone, Copy, Debug)]
pub struct Binary<'a> {
    /// `x86_64` or `aarch64`; others are left out.
    pub arch: &'a str,
    /// The file's name.
    pub name: &'a str,
    /// Lower-case hex.
    pub sha256: &'a str,
    /// Bytes.
    pub size: u64,
}

/// Why there is no script. The refused value is not repeated: it may be an attack
/// on whatever prints it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstallRefused {
    /// A value outside its alphabet.
    #[error("installer setting {field} must be {rule}")]
    Field {
        /// Which setting.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Verbose agents are for finding faults, not for production.
    #[error("verbose installation is not available in production")]
    VerboseInProduction,
    /// The same platform twice.
    #[error("installer setting binaries names {arch} twice")]
    ArchTwice {
        /// Which platform (one of the known ones).
        arch: String,
    },
}

/// Processors that agents are built for: `uname -m`'s word, and how the
/// settings of its binary begin.
const ARCHES: [(&str, &str); 2] = [("x86_64", "LB_X86_64"), ("aarch64", "LB_AARCH64")];

/// The script for a host, or which setting does not fit.
pub fn render(params: &InstallParams<'_>) -> Result<String, InstallRefused> {
    let mut script = include_str!("script/10-head.sh").to_owned();
    let settings = settings(params)?;
    writeln!(script, "{MARKER}{} {}", params.version, params.channel)
        .expect("a String takes any text");
    script.push_str(&settings);
    script.push_str(include_str!("script/20-base.sh"));
    script.push_str(include_str!("script/30-fetch.sh"));
    script.push_str(include_str!("script/40-preflight.sh"));
    script.push_str(include_str!("script/50-install.sh"));
    script.push_str("\nunit_text() {\n  cat <<'UNIT'\n");
    script.push_str(UNIT);
    script.push_str("UNIT\n}\n");
    script.push_str(include_str!("script/60-uninstall.sh"));
    script.push_str(include_str!("script/90-main.sh"));
    Ok(script)
}

const UNIT: &str = include_str!("loopback-agent.service");

/// The one block that holds values from outside.
fn settings(params: &InstallParams<'_>) -> Result<String, InstallRefused> {
    if params.verbose && params.production {
        return Err(InstallRefused::VerboseInProduction);
    }
    let (url, host) = alphabet::base_url(params.base_url)?;
    let pin = params
        .https_pin
        .map_or(Ok(Quotable::EMPTY), alphabet::https_pin)?;
    let keys = alphabet::release_keys(params.release_keys)?;

    let mut block = Block("settings() {\n".to_owned());
    block.set("LB_URL", url);
    block.set("LB_HOST", host);
    block.set("LB_SCRIPT", alphabet::path(params.script_path)?);
    block.set("LB_CHANNEL", alphabet::channel(params.channel)?);
    block.set("LB_VERSION", alphabet::version(params.version)?);
    block.set("LB_VERBOSE", Quotable::flag(params.verbose));
    block.set("LB_PIN", pin);
    binaries(&mut block, params.binaries)?;
    block.set("LB_RELEASE_KEYS", keys.as_quotable());
    block.set("LB_CA_PEM", alphabet::ca_pem(params.ca_pem)?);
    block.0.push_str("}\n");
    Ok(block.0)
}

fn binaries(block: &mut Block, binaries: &[Binary<'_>]) -> Result<(), InstallRefused> {
    for binary in binaries {
        alphabet::arch(binary.arch)?;
    }
    // A release may have more platforms than this script knows: they are left out.
    if !binaries
        .iter()
        .any(|binary| ARCHES.iter().any(|(arch, _)| *arch == binary.arch))
    {
        return Err(alphabet::refused(
            "binaries",
            "at least one for x86_64 or aarch64",
        ));
    }
    for (arch, prefix) in ARCHES {
        let mut of_arch = binaries.iter().filter(|binary| binary.arch == arch);
        let binary = of_arch.next();
        if of_arch.next().is_some() {
            return Err(InstallRefused::ArchTwice {
                arch: arch.to_owned(),
            });
        }
        let (name, sha256, size) = match binary {
            Some(binary) => (
                alphabet::file_name(binary.name)?,
                alphabet::sha256(binary.sha256)?,
                alphabet::file_size(binary.size)?,
            ),
            None => (Quotable::EMPTY, Quotable::EMPTY, 0),
        };
        block.set(&format!("{prefix}_NAME"), name);
        block.set(&format!("{prefix}_SHA256"), sha256);
        block.set(
            &format!("{prefix}_SIZE"),
            Joined::number(size).as_quotable(),
        );
    }
    Ok(())
}

/// Assignments, each value in single quotes.
struct Block(String);

impl Block {
    fn set(&mut self, name: &str, value: Quotable<'_>) {
        writeln!(self.0, "  {name}='{}'", value.as_str()).expect("a String takes any text");
    }
}

#[cfg(test)]
mod tests;
