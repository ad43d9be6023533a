//! Checks an audit export without a gateway.
//!
//! An export is lines of JSON: a header that names the chain and its head at the
//! time of export, then every entry with its seal. [`verify`] reads it once, line
//! by line, in constant memory, and names the first entry that is wrong.
//!
//! What is checked, and by what:
//!
//! | tampering | what notices |
//! |---|---|
//! | a byte of an entry changed | the entry's seal, or its line is no longer in the exact form it was written in |
//! | an entry deleted, doubled or moved | numbers without gaps; each entry carries the seal before it |
//! | the tail cut off | the head in the header |
//! | the tail cut off and the header adjusted | a head noted elsewhere: `--head`, or the one in the key file |
//! | everything written anew by somebody with the key | a head noted elsewhere |
//!
//! Lines must be byte for byte what the gateway writes. JSON has many forms of
//! one value (`\u00e9` and `\u00E9`, spaces, key order); accepting them would
//! mean that a changed file passes. The header's `exported_at` is not sealed by
//! anything and decides nothing here.

mod key;

use std::io::{self, BufRead, Read as _};

use api::v1::audit::{AuditRecord, ExportHeader};
use data_encoding::HEXLOWER;
use model::Timestamp;
use model::audit_chain::{self, ChainError, ChainKey, Head, SealedEntry};

pub(crate) use key::head_text;
pub use key::{BadHead, BadKeyFile, KeyFile, parse_head};

/// `kind` of an export's header.
pub const EXPORT_KIND: &str = "loopback-audit-export";
/// The export format this version reads.
pub const EXPORT_FORMAT: u16 = 1;

/// Longest line. Entries are a few hundred bytes.
const MAX_LINE: u64 = 1 << 20;

/// An export that is whole and unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// The chain's name: a workspace id, or `deployment`.
    pub chain: String,
    /// The last entry's number and seal: keep them away from the gateway.
    pub head: Head,
    /// When the header says it was exported.
    pub exported_at: Timestamp,
}

/// Why an export does not pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The file cannot be read.
    #[error("read the export")]
    Read(#[source] io::Error),
    /// The first line is not the header of an export.
    #[error("line 1 is not the header of an audit export{}", .0.as_deref().map(|why| format!(": {why}")).unwrap_or_default())]
    NoHeader(Option<String>),
    /// A newer gateway wrote it.
    #[error("the export has format {0}, this version reads {EXPORT_FORMAT}: use a newer loopback")]
    NewerFormat(u16),
    /// The export is of another chain than the key.
    #[error("the export is of chain `{export}`, the key is for `{key}`")]
    OtherKey {
        /// The chain in the header.
        export: String,
        /// The chain of the key.
        key: String,
    },
    /// A line is not an entry in the exact form it was written in.
    #[error("line {line}, where entry {seq} belongs, is not as it was written: {why}")]
    Altered {
        /// Number of the line, from 1.
        line: u64,
        /// The entry expected there.
        seq: u64,
        /// What is wrong with it.
        why: String,
    },
    /// The chain does not hold.
    #[error("line {line}")]
    Broken {
        /// Number of the line, from 1.
        line: u64,
        /// How it does not hold.
        source: ChainError,
    },
    /// There are entries after the one the header calls the last.
    #[error("entry {seq} follows the head: the header ends the export at entry {head}")]
    AfterHead {
        /// The first entry too many.
        seq: u64,
        /// The header's last.
        head: u64,
    },
    /// Entries are missing at the end.
    #[error("the export ends at entry {last}, but entry {expected} must follow{}", if *.noted { " according to the head that was noted" } else { "" })]
    CutTail {
        /// The last entry found.
        last: u64,
        /// The entry that must be there.
        expected: u64,
        /// Whether a noted head says so, rather than the header.
        noted: bool,
    },
}

impl VerifyError {
    /// Whether the export was judged and found bad, rather than not judged.
    pub fn is_verdict(&self) -> bool {
        !matches!(
            self,
            Self::Read(_) | Self::NewerFormat(_) | Self::OtherKey { .. }
        )
    }

    /// The first entry that is wrong or missing.
    pub fn first_bad_entry(&self) -> Option<u64> {
        match self {
            Self::Read(_) | Self::NoHeader(_) | Self::NewerFormat(_) | Self::OtherKey { .. } => {
                None
            }
            Self::Altered { seq, .. } | Self::AfterHead { seq, .. } => Some(*seq),
            Self::CutTail { last, .. } => Some(last.saturating_add(1)),
            Self::Broken { source, .. } => match source {
                ChainError::Gap { after, .. } => Some(after.saturating_add(1)),
                ChainError::OtherChain { seq, .. }
                | ChainError::NotLinked { seq }
                | ChainError::BadMac { seq }
                | ChainError::NotTheExpectedHead { seq } => Some(*seq),
                ChainError::CutTail { last, .. } => Some(last.saturating_add(1)),
                _ => None,
            },
        }
    }
}

/// Checks `export` with `key`, which is for `key_chain` where that is known.
/// Every head in `noted` must lie on the chain.
pub fn verify(
    export: impl BufRead,
    key: &ChainKey,
    key_chain: Option<&str>,
    noted: &[Head],
) -> Result<Verified, VerifyError> {
    let mut lines = Lines {
        input: export,
        number: 0,
    };
    let header = read_header(&mut lines)?;
    if let Some(chain) = key_chain
        && chain != header.chain
    {
        return Err(VerifyError::OtherKey {
            export: header.chain,
            key: chain.to_owned(),
        });
    }
    let end = Head {
        seq: header.head_seq,
        mac: hex32(&header.head_mac)
            .ok_or_else(|| VerifyError::NoHeader(Some("its head is no seal".to_owned())))?,
    };
    let mut head = Head::EMPTY;
    let on_chain = |head: &Head| {
        noted
            .iter()
            .chain([&end])
            .all(|noted| noted.seq != head.seq || noted.mac == head.mac)
    };
    let rewritten = |line, seq| VerifyError::Broken {
        line,
        source: ChainError::NotTheExpectedHead { seq },
    };
    if !on_chain(&head) {
        return Err(rewritten(1, 0));
    }
    while let Some(text) = lines.next_line().map_err(VerifyError::Read)? {
        let line = lines.number;
        if head.seq >= end.seq {
            return Err(VerifyError::AfterHead {
                seq: head.seq.saturating_add(1),
                head: end.seq,
            });
        }
        let entry = read_entry(&text, &header.chain).map_err(|why| VerifyError::Altered {
            line,
            seq: head.seq.saturating_add(1),
            why,
        })?;
        head = audit_chain::verify(key, &header.chain, [&entry], head, None)
            .map_err(|source| VerifyError::Broken { line, source })?;
        if !on_chain(&head) {
            return Err(rewritten(line, head.seq));
        }
    }
    let furthest_noted = noted.iter().map(|head| head.seq).max().unwrap_or(0);
    if head.seq < end.seq {
        return Err(VerifyError::CutTail {
            last: head.seq,
            expected: end.seq,
            noted: false,
        });
    }
    if head.seq < furthest_noted {
        return Err(VerifyError::CutTail {
            last: head.seq,
            expected: furthest_noted,
            noted: true,
        });
    }
    Ok(Verified {
        chain: header.chain,
        head,
        exported_at: header.exported_at,
    })
}

fn read_header(lines: &mut Lines<impl BufRead>) -> Result<ExportHeader, VerifyError> {
    let text = lines
        .next_line()
        .map_err(VerifyError::Read)?
        .ok_or(VerifyError::NoHeader(None))?;
    let header = parse_header(&text).map_err(|why| VerifyError::NoHeader(Some(why)))?;
    if header.kind != EXPORT_KIND {
        return Err(VerifyError::NoHeader(None));
    }
    if header.format > EXPORT_FORMAT {
        return Err(VerifyError::NewerFormat(header.format));
    }
    if header.format != EXPORT_FORMAT {
        return Err(VerifyError::NoHeader(Some(
            "there is no format 0".to_owned(),
        )));
    }
    if serde_json::to_vec(&header).is_ok_and(|exact| exact == text) {
        Ok(header)
    } else {
        Err(VerifyError::NoHeader(Some(
            "it is not in the exact form that a gateway writes".to_owned(),
        )))
    }
}

/// The header in a line, not yet held to its exact form: a newer format may
/// have fields that this version does not know.
pub(crate) fn parse_header(text: &[u8]) -> Result<ExportHeader, String> {
    serde_json::from_slice(text).map_err(|error| error.to_string())
}

fn read_entry(text: &[u8], chain: &str) -> Result<SealedEntry, String> {
    let record: AuditRecord = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if serde_json::to_vec(&record).is_ok_and(|exact| exact != text) {
        return Err("it is not in the exact form that a gateway writes".to_owned());
    }
    let seal =
        |text: &str| hex32(text).ok_or_else(|| "a seal has 64 hex digits in lower case".to_owned());
    Ok(SealedEntry {
        chain: chain.to_owned(),
        seq: record.seq,
        prev_mac: seal(&record.prev_mac)?,
        mac: seal(&record.mac)?,
        body: record.body.into_bytes(),
    })
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    HEXLOWER.decode(text.as_bytes()).ok()?.try_into().ok()
}

struct Lines<R> {
    input: R,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    /// The next line without its line feed, which the last one may lack.
    fn next_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        if (&mut self.input)
            .take(MAX_LINE)
            .read_until(b'\n', &mut line)?
            == 0
        {
            return Ok(None);
        }
        self.number += 1;
        if line.pop_if(|last| *last == b'\n').is_none() && line.len() as u64 == MAX_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is longer than 1 MiB",
            ));
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests;
