//! The manifest: what a release is, in JSON.
//!
//! Grows by adding fields (unknown ones are ignored); a change of meaning gets
//! a new `format` word, which older readers refuse by name. Everything in it is
//! checked against a narrow alphabet although it is signed: file names reach
//! paths and a shell script, and a signing mistake must not become an exploit.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The format word this build writes and reads.
pub const MANIFEST_FORMAT: &str = "loopback-agent-release/1";

/// No agent is larger; a manifest that says so is wrong.
const MAX_FILE_SIZE: u64 = 512 << 20;
const MAX_FILES: usize = 64;

/// Who a release is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channel {
    /// For everybody.
    Stable,
    /// For those who asked for it.
    Unstable,
}

impl Channel {
    /// The word in manifests, URLs and configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Unstable => "unstable",
        }
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Channel {
    type Err = InvalidManifest;
    fn from_str(text: &str) -> Result<Self, InvalidManifest> {
        match text {
            "stable" => Ok(Self::Stable),
            "unstable" => Ok(Self::Unstable),
            _ => Err(InvalidManifest {
                field: "channel",
                rule: "stable or unstable",
            }),
        }
    }
}

/// A field that breaks its rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}")]
pub struct InvalidManifest {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub rule: &'static str,
}

/// One release, as signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_FORMAT`].
    pub format: String,
    /// Who it is for.
    pub channel: Channel,
    /// For people: `1.2.3`, `1.3.0-rc.1`.
    pub version: String,
    /// For machines: grows with every release of any channel; what hosts
    /// compare, because version texts do not sort.
    pub number: u64,
    /// When it was made.
    #[serde(with = "rfc3339")]
    pub created: Timestamp,
    /// When hosts stop accepting it.
    #[serde(with = "rfc3339")]
    pub expires: Timestamp,
    /// One per platform.
    pub files: Vec<FileEntry>,
}

/// One binary of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// `linux`.
    pub os: String,
    /// `x86_64`, `aarch64`: what `uname -m` says.
    pub arch: String,
    /// Its name inside the folder; never a path.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Lower-case hex.
    pub sha256: String,
}

impl Manifest {
    /// The bytes to sign and to publish.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes =
            serde_json::to_vec_pretty(self).expect("strings and numbers always become JSON");
        bytes.push(b'\n');
        bytes
    }

    /// The binary for a platform.
    pub fn file(&self, os: &str, arch: &str) -> Option<&FileEntry> {
        self.files
            .iter()
            .find(|file| file.os == os && file.arch == arch)
    }

    /// Whether every field keeps its rule. Both ends ask: the signer before
    /// signing, the reader after the signature.
    pub fn validate(&self) -> Result<(), InvalidManifest> {
        let rule = |holds: bool, field, rule| {
            if holds {
                Ok(())
            } else {
                Err(InvalidManifest { field, rule })
            }
        };
        rule(self.format == MANIFEST_FORMAT, "format", MANIFEST_FORMAT)?;
        rule(
            is_version(&self.version),
            "version",
            "like 1.2.3 or 1.3.0-rc.1, at most 64 characters",
        )?;
        rule(self.number > 0, "number", "at least 1")?;
        rule(self.expires > self.created, "expires", "later than created")?;
        rule(
            (1..=MAX_FILES).contains(&self.files.len()),
            "files",
            "between 1 and 64 entries",
        )?;
        for (index, file) in self.files.iter().enumerate() {
            rule(is_word(&file.os), "os", "1 to 16 of a-z 0-9 _")?;
            rule(is_word(&file.arch), "arch", "1 to 16 of a-z 0-9 _")?;
            rule(
                is_name(&file.name),
                "name",
                "1 to 64 of a-z 0-9 . _ -, beginning with a letter, not a manifest's",
            )?;
            rule(
                (1..=MAX_FILE_SIZE).contains(&file.size),
                "size",
                "between 1 byte and 512 MiB",
            )?;
            rule(
                is_sha256(&file.sha256),
                "sha256",
                "64 lower-case hex digits",
            )?;
            let before = &self.files[..index];
            rule(
                !before.iter().any(|f| f.name == file.name),
                "name",
                "used once",
            )?;
            rule(
                !before
                    .iter()
                    .any(|f| (&f.os, &f.arch) == (&file.os, &file.arch)),
                "files",
                "one for each platform",
            )?;
        }
        Ok(())
    }
}

fn is_version(text: &str) -> bool {
    let (core, pre) = text
        .split_once('-')
        .map_or((text, None), |(core, pre)| (core, Some(pre)));
    let number =
        |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    text.len() <= 64
        && core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|pre| {
            !pre.is_empty()
                && pre
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
        })
}

fn is_word(text: &str) -> bool {
    (1..=16).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.as_bytes()[0].is_ascii_lowercase()
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && !text.starts_with("manifest.")
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && HEXLOWER.decode(text.as_bytes()).is_ok()
}

/// Timestamps as RFC 3339 text.
mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(from)?;
        text.parse().map_err(D::Error::custom)
    }
}
