//! What an author says of a plugin.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{HostPattern, LimitsWish};
use crate::names::{Name, Text};

/// The custom section of a component that holds the manifest, as JSON.
pub const MANIFEST_SECTION: &str = "loopback-manifest";

/// The only format there is.
pub const MANIFEST_FORMAT: u32 = 1;

/// Most of each sort of need.
const MAX_NEEDS: usize = 32;

/// What an author says of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: u32,
    /// The plugin's name; what it is installed as unless the operator says otherwise.
    pub name: Name,
    /// As in `1.4.0` or `1.4.0-rc.1` (semver.org, without build metadata).
    pub version: String,
    /// What it does, in a line.
    pub description: Text,
    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub authors: Vec<Text>,
    /// An SPDX expression.
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub license: Text,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub homepage: Text,
    /// What it asks for.
    #[serde(default)]
    pub needs: Needs,
}

/// What a plugin asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Needs {
    /// Servers to speak HTTP with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpNeed>,
    /// Secrets to use.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretNeed>,
    /// Peers to exchange datagrams with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub datagrams: Vec<DatagramNeed>,
    /// Values to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateNeed>,
    /// More than the usual limits.
    pub limits: LimitsWish,
}

/// A server, or a kind of servers, to speak HTTP with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpNeed {
    /// What the grant calls it.
    pub name: Name,
    /// Why, for the operator.
    pub purpose: Text,
    /// Which hosts. Empty: only the operator knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostPattern>,
    /// Whether it may have to do without TLS.
    #[serde(default)]
    pub plain: bool,
}

/// A secret to use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretNeed {
    /// By which the plugin opens it.
    pub name: Name,
    /// Why, for the operator.
    pub purpose: Text,
    /// Whether the plugin does without.
    #[serde(default)]
    pub optional: bool,
    /// Whether the plugin must read it, and not only use it.
    #[serde(default)]
    pub reveal: bool,
    /// Whether each target brings its own, from its own workspace, as management controllers with
    /// different passwords do. Only power providers have targets.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub per_target: bool,
}

/// A kind of peers to exchange datagrams with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatagramNeed {
    /// What the grant calls it.
    pub name: Name,
    /// Why, for the operator.
    pub purpose: Text,
    /// UDP ports. Empty: only the operator knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
}

/// Values to keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateNeed {
    /// How many, in each workspace. 1 to 10,000.
    pub keys: u32,
}

/// Why a manifest does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// Written for another gateway.
    #[error("the manifest has format {0}, and this gateway reads {MANIFEST_FORMAT}")]
    Format(u32),
    /// Not a version.
    #[error("version must be three numbers as in `1.4.0`, with `-` and words behind it if need be")]
    Version,
    /// Too much is asked.
    #[error("needs.{0} has more than {MAX_NEEDS} entries")]
    TooMany(&'static str),
    /// Two needs of one sort have the same name.
    #[error("needs.{sort} names `{name}` twice")]
    Twice {
        /// Which sort.
        sort: &'static str,
        /// Which name.
        name: Name,
    },
    /// More values than there can be.
    #[error("needs.state.keys must be 1 to 10000")]
    StateKeys,
    /// Nobody would know what for.
    #[error("needs.{sort} `{name}` must say its purpose")]
    NoPurpose {
        /// Which sort.
        sort: &'static str,
        /// Which name.
        name: Name,
    },
}

impl Manifest {
    /// Checks what its type does not say.
    pub fn check(&self) -> Result<(), InvalidManifest> {
        if self.format != MANIFEST_FORMAT {
            return Err(InvalidManifest::Format(self.format));
        }
        if !is_version(&self.version) {
            return Err(InvalidManifest::Version);
        }
        let needs = &self.needs;
        distinct(
            "http",
            needs.http.iter().map(|need| (&need.name, &need.purpose)),
        )?;
        distinct(
            "secrets",
            needs.secrets.iter().map(|need| (&need.name, &need.purpose)),
        )?;
        distinct(
            "datagrams",
            needs
                .datagrams
                .iter()
                .map(|need| (&need.name, &need.purpose)),
        )?;
        if needs
            .state
            .is_some_and(|state| !(1..=10_000).contains(&state.keys))
        {
            return Err(InvalidManifest::StateKeys);
        }
        Ok(())
    }
}

fn distinct<'a>(
    sort: &'static str,
    needs: impl ExactSizeIterator<Item = (&'a Name, &'a Text)>,
) -> Result<(), InvalidManifest> {
    if needs.len() > MAX_NEEDS {
        return Err(InvalidManifest::TooMany(sort));
    }
    let mut seen = std::collections::BTreeSet::new();
    for (name, purpose) in needs {
        if purpose.is_empty() {
            let name = name.clone();
            return Err(InvalidManifest::NoPurpose { sort, name });
        }
        if !seen.insert(name) {
            let name = name.clone();
            return Err(InvalidManifest::Twice { sort, name });
        }
    }
    Ok(())
}

fn is_version(text: &str) -> bool {
    let (numbers, words) = match text.split_once('-') {
        Some((numbers, words)) => (numbers, Some(words)),
        None => (text, None),
    };
    let number = |part: &str| {
        part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u32>().is_ok()
            && (part == "0" || !part.starts_with('0'))
    };
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    text.len() <= 64
        && numbers.split('.').count() == 3
        && numbers.split('.').all(number)
        && words.is_none_or(|words| words.split('.').all(word))
}

/// Something that a new version needs and an old one did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Widening {
    /// As in `needs.http.webhook`.
    pub need: String,
    /// What is more about it, for the operator.
    pub what: String,
}

/// What `new` needs beyond `old`, in the manifest's order.
pub fn widening(old: &Needs, new: &Needs) -> Vec<Widening> {
    let mut found = Vec::new();
    let mut add = |need: String, what: String| found.push(Widening { need, what });
    for need in &new.http {
        let key = format!("needs.http.{}", need.name);
        let Some(before) = old.http.iter().find(|before| before.name == need.name) else {
            add(
                key,
                format!("speaks HTTP with {}: {}", hosts(&need.hosts), need.purpose),
            );
            continue;
        };
        if need.plain && !before.plain {
            add(key.clone(), "may do without TLS".into());
        }
        let more: Vec<_> = need
            .hosts
            .iter()
            .filter(|host| !before.hosts.contains(host))
            .cloned()
            .collect();
        if !before.hosts.is_empty() && (need.hosts.is_empty() || !more.is_empty()) {
            add(key, format!("speaks HTTP with {}", hosts(&more)));
        }
    }
    for need in &new.secrets {
        let key = format!("needs.secrets.{}", need.name);
        match old.secrets.iter().find(|before| before.name == need.name) {
            None if need.reveal => add(key, format!("reads a secret: {}", need.purpose)),
            None => add(key, format!("uses a secret: {}", need.purpose)),
            Some(before) if need.reveal && !before.reveal => {
                add(key, "reads the secret, and does not only use it".into());
            }
            Some(before) if before.optional && !need.optional => {
                add(key, "does not do without the secret any more".into());
            }
            Some(before) if need.per_target && !before.per_target => {
                add(key, "uses a secret of each target".into());
            }
            Some(_) => {}
        }
    }
    for need in &new.datagrams {
        let key = format!("needs.datagrams.{}", need.name);
        match old.datagrams.iter().find(|before| before.name == need.name) {
            None => add(key, format!("exchanges datagrams: {}", need.purpose)),
            Some(before) if before.ports != need.ports && !before.ports.is_empty() => {
                add(
                    key,
                    format!("exchanges datagrams with ports {:?}", need.ports),
                );
            }
            Some(_) => {}
        }
    }
    if let Some(state) = new.state {
        let before = old.state.map_or(0, |state| state.keys);
        if state.keys > before {
            add(
                "needs.state".into(),
                format!("keeps {} values, before {before}", state.keys),
            );
        }
    }
    limits(&old.limits, &new.limits, &mut add);
    found
}

fn limits(old: &LimitsWish, new: &LimitsWish, add: &mut impl FnMut(String, String)) {
    let pairs = [
        (
            "wall_ms",
            old.wall_ms.map(u64::from),
            new.wall_ms.map(u64::from),
        ),
        (
            "cpu_ms",
            old.cpu_ms.map(u64::from),
            new.cpu_ms.map(u64::from),
        ),
        ("memory_bytes", old.memory_bytes, new.memory_bytes),
        (
            "http_requests",
            old.http_requests.map(u64::from),
            new.http_requests.map(u64::from),
        ),
    ];
    for (name, old, new) in pairs {
        match (old, new) {
            (Some(old), Some(new)) if new > old => {
                add(
                    format!("needs.limits.{name}"),
                    format!("wants {new}, before {old}"),
                );
            }
            (None, Some(new)) => {
                add(
                    format!("needs.limits.{name}"),
                    format!("wants {new}, before the usual"),
                );
            }
            _ => {}
        }
    }
}

fn hosts(patterns: &[HostPattern]) -> String {
    if patterns.is_empty() {
        return "hosts that you choose".into();
    }
    let texts: Vec<_> = patterns.iter().map(ToString::to_string).collect();
    texts.join(", ")
}
