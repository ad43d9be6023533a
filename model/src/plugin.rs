//! Plugins: what they ask for, and what they were given.
//!
//! A [`Manifest`] lies inside the component (custom section [`MANIFEST_SECTION`], JSON), so that
//! one file is the whole package and one digest and one signature cover all of it. Its [`Needs`]
//! are the author's words; nothing follows from them. A [`Grant`] is a record of the operator's
//! own: it names needs of the manifest and says, concretely, what each is given. What no rule of
//! the grant covers does not happen.
//!
//! ```text
//! manifest.needs.http[name=webhook]  "hooks of your chat, as you configure them"
//! grant.http[need=webhook]           hosts chat.example.com, port 443, profile chat-ca
//! ```
//!
//! [`widening`] tells what a new version needs beyond what an operator has seen, which is what
//! stops an upgrade until somebody has looked at it.

/// Serialises a type as its text.
macro_rules! as_text {
    ($type:ident, $name:literal, $schema:tt) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!($schema)
            }
        }
    };
}

mod address;
mod grant;
mod limits;
mod manifest;
pub mod reach;
pub mod wake;

pub use address::{Cidr, HostPattern, NotACidr, NotAHostPattern};
pub use grant::{
    DatagramRule, Grant, HttpRule, Pin, Route, SecretBinding, StateGrant, TlsProfile, Ungranted,
    Workspaces, ungranted,
};
pub use limits::{Limits, LimitsWish};
pub use manifest::{
    DatagramNeed, HttpNeed, InvalidManifest, MANIFEST_FORMAT, MANIFEST_SECTION, Manifest, Needs,
    SecretNeed, StateNeed, Widening, widening,
};

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a plugin is for, known by the interface that it exports.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum PluginKind {
    /// Writes the installer for hosts (`loopback:install`).
    Installer,
    /// Tells other systems what happened (`loopback:signal`).
    Notifier,
    /// Judges whether something may be done now (`loopback:policy`).
    Policy,
    /// Turns machines on and off from the outside (`loopback:power`).
    Power,
}

impl PluginKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Installer, Self::Notifier, Self::Policy, Self::Power];

    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Installer => "installer",
            Self::Notifier => "notifier",
            Self::Policy => "policy",
            Self::Power => "power",
        }
    }
}

impl fmt::Display for PluginKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a digest is `sha256:` and 64 lower-case hexadecimal digits")]
pub struct NotADigest;

/// SHA-256 of a component's bytes: `sha256:…`. What is installed, signed and pinned.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PluginDigest([u8; 32]);

impl PluginDigest {
    /// Of these bytes.
    pub fn of(component: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(component).into())
    }

    /// The 32 bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits alone.
    pub fn hex(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }
}

impl From<[u8; 32]> for PluginDigest {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for PluginDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for PluginDigest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        text.strip_prefix("sha256:")
            .and_then(|hex| data_encoding::HEXLOWER.decode(hex.as_bytes()).ok())
            .and_then(|bytes| bytes.try_into().ok())
            .map(Self)
            .ok_or(NotADigest)
    }
}

as_text!(PluginDigest, "PluginDigest", {
    "type": "string",
    "pattern": "^sha256:[0-9a-f]{64}$",
});

#[cfg(test)]
mod tests;
