//! The key that verifies a chain, as `loopback audit key` writes it, and heads
//! as people note them.

use std::fmt;

use api::v1::audit::AuditKey;
use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use model::audit_chain::{ChainKey, Head};

/// A key file: the gateway's own answer, or just 64 hex digits.
#[derive(Clone)]
pub struct KeyFile {
    /// The key.
    pub key: ChainKey,
    /// Its chain, where the file says.
    pub chain: Option<String>,
    /// The chain's head when the key was fetched, where the file says.
    pub head: Option<Head>,
}

/// The text is not a key. It is not repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it holds no audit key; write one with `loopback audit key -o FILE`")]
pub struct BadKeyFile;

impl KeyFile {
    /// Reads the content of a key file.
    pub fn parse(text: &str) -> Result<Self, BadKeyFile> {
        let hex32 = |text: &str| {
            HEXLOWER_PERMISSIVE
                .decode(text.as_bytes())
                .ok()
                .and_then(|bytes| bytes.try_into().ok())
        };
        let text = text.trim();
        if let Some(bytes) = hex32(text) {
            return Ok(Self {
                key: ChainKey::from_bytes(bytes),
                chain: None,
                head: None,
            });
        }
        let file: AuditKey = serde_json::from_str(text).map_err(|_| BadKeyFile)?;
        let key = hex32(&file.key).ok_or(BadKeyFile)?;
        let mac = hex32(&file.head_mac).ok_or(BadKeyFile)?;
        Ok(Self {
            key: ChainKey::from_bytes(key),
            chain: Some(file.chain),
            head: Some(Head {
                seq: file.head_seq,
                mac,
            }),
        })
    }
}

impl fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyFile")
            .field("chain", &self.chain)
            .field("head", &self.head)
            .finish_non_exhaustive()
    }
}

/// The text is not a head.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a head looks like 42:<64 hex digits>, as `loopback audit verify` prints it")]
pub struct BadHead;

/// Reads `SEQ:MAC`.
pub fn parse_head(text: &str) -> Result<Head, BadHead> {
    let (seq, mac) = text.trim().split_once(':').ok_or(BadHead)?;
    let mac = HEXLOWER_PERMISSIVE
        .decode(mac.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(BadHead)?;
    Ok(Head {
        seq: seq.parse().map_err(|_| BadHead)?,
        mac,
    })
}

/// `SEQ:MAC` of a head.
pub(crate) fn head_text(head: &Head) -> String {
    format!("{}:{}", head.seq, HEXLOWER.encode(&head.mac))
}
