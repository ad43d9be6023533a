//! Records of installer scripts.
//!
//! ```text
//! install_render/DIGEST      the last good script for an input, by the input's digest
//! ```
//!
//! A handful: an input changes with the release, the URL and the authorities. Old ones are
//! forgotten by housekeeping.

use gateway_store::{Key, KeyError, Record};
use model::Timestamp;
use model::names::Name;
use serde::{Deserialize, Serialize};

/// A script that was fit for hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderRecordV1 {
    /// Which plugin wrote it.
    pub plugin: Name,
    /// The script.
    pub script: String,
    /// When it was written.
    pub at: Timestamp,
}

impl Record for RenderRecordV1 {
    const KIND: &'static str = "install_render";
    const VERSION: u16 = 1;
}

impl RenderRecordV1 {
    /// By the digest of the input.
    pub fn key(digest: &[u8; 32]) -> Result<Key, KeyError> {
        <Self as Record>::key(&[&data_encoding::HEXLOWER.encode(digest)])
    }
}
