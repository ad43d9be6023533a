//! The names of what is in a backup, and where each belongs.
//!
//! A closed list: a name in a file decides where bytes are written, so it is never
//! used as a path.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::HEXLOWER;

/// Objects, in the state folder.
pub const OBJECTS: &str = "objects/sha256";

/// One part of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The deployment's id.
    Deployment,
    /// The server's keys.
    ServerKey,
    /// The certificate authorities with their keys.
    Authorities,
    /// The key of the internal HTTPS certificate. Absent where the operator has one.
    HttpsKey,
    /// The store, as an export of it.
    Store,
    /// An object, by its digest.
    Object([u8; 32]),
}

impl Part {
    /// Small files that are read whole, in the order in which they are written.
    pub const FILES: [Self; 4] = [
        Self::Deployment,
        Self::ServerKey,
        Self::Authorities,
        Self::HttpsKey,
    ];

    /// What no backup is without.
    pub const NEEDED: [Self; 4] = [
        Self::Deployment,
        Self::ServerKey,
        Self::Authorities,
        Self::Store,
    ];

    /// Its place under `state`, the state folder.
    pub fn path(self, state: &Path) -> PathBuf {
        match self {
            Self::Deployment => state.join("deployment"),
            Self::ServerKey => state.join("keys/server.key"),
            Self::Authorities => state.join("ca/authorities.json"),
            Self::HttpsKey => state.join("ca/https.key"),
            Self::Store => state.join(crate::serve::STORE_FILE),
            Self::Object(digest) => {
                let hex = HEXLOWER.encode(&digest);
                state.join(OBJECTS).join(&hex[..2]).join(&hex)
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deployment => f.write_str("deployment"),
            Self::ServerKey => f.write_str("server-key"),
            Self::Authorities => f.write_str("authorities"),
            Self::HttpsKey => f.write_str("https-key"),
            Self::Store => f.write_str("store"),
            Self::Object(digest) => write!(f, "object:sha256:{}", HEXLOWER.encode(digest)),
        }
    }
}

/// The name is none that this build knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a part of it is unknown to this build")]
pub struct UnknownPart;

impl FromStr for Part {
    type Err = UnknownPart;

    fn from_str(text: &str) -> Result<Self, UnknownPart> {
        if let Some(hex) = text.strip_prefix("object:sha256:") {
            let digest = HEXLOWER.decode(hex.as_bytes()).map_err(|_| UnknownPart)?;
            return digest.try_into().map(Self::Object).map_err(|_| UnknownPart);
        }
        Self::FILES
            .into_iter()
            .chain([Self::Store])
            .find(|part| part.to_string() == text)
            .ok_or(UnknownPart)
    }
}
