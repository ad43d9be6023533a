//! Where the audit chains lie, and how to read them back.
//!
//! The chain itself is pure and lives in [`model::audit_chain`]; here is its
//! layout over keys and values, the same on every engine:
//!
//! ```text
//! 0 'a' 'e' len(chain) chain seq   ->  1 (layout) prev_mac[32] mac[32] body
//! 0 'a' 'h' len(chain) chain       ->  1 (layout) seq mac[32]
//! ```
//!
//! `len` is 2 bytes and `seq` 8 bytes, big endian, so that entries lie in order
//! and no chain's name is a prefix of another's range. The engine seals while it
//! commits: only there is the head known for certain.

use std::collections::BTreeMap;

use bytes::{Buf as _, BufMut as _, Bytes};
use model::audit_chain::{AuditChainKey, Head, SealedEntry};

use crate::{AuditDraft, CommitError, Item, Key, Prefix, Read, ReadError, Store, key::RESERVED};

const LAYOUT: u8 = 1;
const MAX_CHAIN_NAME: usize = 256;

/// A page of a chain's entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditPage {
    /// Consecutive entries.
    pub entries: Vec<SealedEntry>,
    /// Whether there are more: ask again after the last entry's number.
    pub more: bool,
}

/// Entries of `chain` after number `after_seq`, oldest first.
pub async fn audit_list(
    store: &dyn Store,
    chain: &str,
    after_seq: u64,
    limit: usize,
) -> Result<AuditPage, ReadError> {
    if check_chain_name(chain).is_err() {
        return Ok(AuditPage {
            entries: Vec::new(),
            more: false,
        });
    }
    let after = (after_seq > 0).then(|| entry_key(chain, after_seq));
    let page = store
        .list(
            &entry_prefix(chain),
            after.as_ref(),
            limit,
            Read::Linearizable,
        )
        .await?;
    let decode = |(key, item): &(Key, Item)| decode_entry(chain, key, &item.value);
    let entries = page.items.iter().map(decode).collect::<Result<_, _>>()?;
    Ok(AuditPage {
        entries,
        more: page.more,
    })
}

/// How far `chain` goes; [`Head::EMPTY`] if it has no entries.
pub async fn audit_head(store: &dyn Store, chain: &str) -> Result<Head, ReadError> {
    if check_chain_name(chain).is_err() {
        return Ok(Head::EMPTY);
    }
    let key = head_key(chain);
    match store.get(&key, Read::Linearizable).await? {
        Some(item) => decode_head(&key, &item.value),
        None => Ok(Head::EMPTY),
    }
}

/// The names of all chains, after `after` in the store's order.
pub async fn audit_chains(
    store: &dyn Store,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, ReadError> {
    let after = after
        .filter(|chain| check_chain_name(chain).is_ok())
        .map(head_key);
    let prefix = Prefix::trusted(HEAD_SPACE.to_vec());
    let page = store
        .list(&prefix, after.as_ref(), limit, Read::Linearizable)
        .await?;
    let name = |(key, _): (Key, Item)| {
        let name = key
            .as_bytes()
            .get(HEAD_SPACE.len() + 2..)
            .map(<[u8]>::to_vec);
        let name = name.and_then(|name| String::from_utf8(name).ok());
        name.ok_or(ReadError::Damaged {
            key,
            what: "not the key of an audit chain's head",
        })
    };
    page.items.into_iter().map(name).collect()
}

const ENTRY_SPACE: [u8; 3] = [RESERVED, b'a', b'e'];
const HEAD_SPACE: [u8; 3] = [RESERVED, b'a', b'h'];

pub(crate) fn check_chain_name(chain: &str) -> Result<(), CommitError> {
    if chain.is_empty() || chain.len() > MAX_CHAIN_NAME {
        return Err(CommitError::BadChainName {
            chain: chain.chars().take(64).collect(),
        });
    }
    Ok(())
}

/// Seals the drafts of one batch, several of one chain one after the other.
pub(crate) struct Sealer<'a> {
    key: &'a AuditChainKey,
    heads: BTreeMap<String, Head>,
    sealed: Vec<(Key, Bytes)>,
}

impl<'a> Sealer<'a> {
    pub(crate) fn new(key: &'a AuditChainKey) -> Self {
        Self {
            key,
            heads: BTreeMap::new(),
            sealed: Vec::new(),
        }
    }

    /// Seals one draft; `stored` reads the head that lies under a key.
    pub(crate) fn seal<E>(
        &mut self,
        draft: &AuditDraft,
        stored: impl FnOnce(&Key) -> Result<Head, E>,
    ) -> Result<(), E> {
        let AuditDraft { chain, body } = draft;
        let head = match self.heads.get(chain) {
            Some(head) => *head,
            None => stored(&head_key(chain))?,
        };
        let entry = self.key.chain_key(chain).seal(chain, &head, body.clone());
        self.heads.insert(chain.clone(), entry.head());
        self.sealed
            .push((entry_key(chain, entry.seq), encode_entry(&entry)));
        Ok(())
    }

    /// The entries in order, then each chain's new head.
    pub(crate) fn finish(self) -> impl Iterator<Item = (Key, Bytes)> + use<> {
        let heads = self
            .heads
            .into_iter()
            .map(|(chain, head)| (head_key(&chain), encode_head(&head)));
        self.sealed.into_iter().chain(heads)
    }
}

fn encode_entry(entry: &SealedEntry) -> Bytes {
    let mut value = Vec::with_capacity(65 + entry.body.len());
    value.put_u8(LAYOUT);
    value.put_slice(&entry.prev_mac);
    value.put_slice(&entry.mac);
    value.put_slice(&entry.body);
    value.into()
}

fn encode_head(head: &Head) -> Bytes {
    let mut value = Vec::with_capacity(41);
    value.put_u8(LAYOUT);
    value.put_u64(head.seq);
    value.put_slice(&head.mac);
    value.into()
}

pub(crate) fn head_key(chain: &str) -> Key {
    Key::trusted(chain_bytes(HEAD_SPACE, chain))
}

pub(crate) fn decode_head(key: &Key, value: &[u8]) -> Result<Head, ReadError> {
    let damaged = || ReadError::Damaged {
        key: key.clone(),
        what: "not an audit chain's head",
    };
    let mut value = value;
    if value.len() != 41 || value.get_u8() != LAYOUT {
        return Err(damaged());
    }
    let seq = value.get_u64();
    let mac = value.try_into().map_err(|_| damaged())?;
    Ok(Head { seq, mac })
}

fn decode_entry(chain: &str, key: &Key, value: &[u8]) -> Result<SealedEntry, ReadError> {
    let damaged = || ReadError::Damaged {
        key: key.clone(),
        what: "not an audit entry",
    };
    let seq = key
        .as_bytes()
        .last_chunk()
        .map(|seq| u64::from_be_bytes(*seq));
    let (layout, value) = value.split_first().ok_or_else(damaged)?;
    let (prev_mac, value) = value.split_first_chunk().ok_or_else(damaged)?;
    let (mac, body) = value.split_first_chunk().ok_or_else(damaged)?;
    match seq {
        Some(seq) if *layout == LAYOUT => Ok(SealedEntry {
            chain: chain.to_owned(),
            seq,
            prev_mac: *prev_mac,
            body: body.to_vec(),
            mac: *mac,
        }),
        Some(_) | None => Err(damaged()),
    }
}

fn entry_key(chain: &str, seq: u64) -> Key {
    let mut bytes = chain_bytes(ENTRY_SPACE, chain);
    bytes.put_u64(seq);
    Key::trusted(bytes)
}

fn entry_prefix(chain: &str) -> Prefix {
    Prefix::trusted(chain_bytes(ENTRY_SPACE, chain))
}

fn chain_bytes(space: [u8; 3], chain: &str) -> Vec<u8> {
    let len =
        u16::try_from(chain.len()).expect("a chain's name was checked to be 256 bytes at most");
    let mut bytes = Vec::with_capacity(space.len() + 2 + chain.len() + 8);
    bytes.put_slice(&space);
    bytes.put_u16(len);
    bytes.put_slice(chain.as_bytes());
    bytes
}
