//! What lies in the file, and the reading of it.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | name | see [`meta`] |
//! | `kv` | key | rev (8, BE), lease (8, BE, 0 for none), value |
//! | `leased` | lease, key | |
//! | `requests` | request id | rev, when (seconds of the epoch) |
//! | `request_ages` | when, request id | |
//!
//! This layout is the promise behind the format number (see `migrate`): change
//! it only together with a migration.

use std::io;
use std::ops::Bound;

use bytes::Bytes;
use redb::{
    Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable, StorageError, Table,
    TableDefinition, WriteTransaction,
};

use crate::store::{MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use crate::{Item, Key, LeaseId, Page, Prefix, ReadError, Rev, Unavailable};

pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
pub(super) const KV: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("kv");
pub(super) const LEASED: TableDefinition<'_, (u64, &[u8]), ()> = TableDefinition::new("leased");
pub(super) const REQUESTS: TableDefinition<'_, [u8; 16], (u64, u64)> =
    TableDefinition::new("requests");
pub(super) const REQUEST_AGES: TableDefinition<'_, (u64, [u8; 16]), ()> =
    TableDefinition::new("request_ages");

/// The names in the `meta` table.
pub(super) mod meta {
    /// The format's number: 4 bytes BE. Never changes its place or shape.
    pub(in super::super) const FORMAT: &str = "format";
    /// When the file was made: seconds of the epoch, 8 bytes BE.
    pub(in super::super) const CREATED: &str = "created";
    /// Whose file it is: 16 bytes, absent until told.
    pub(in super::super) const DEPLOYMENT: &str = "deployment";
    /// The fingerprint of the key that the audit chains are sealed with: 32 bytes.
    pub(in super::super) const AUDIT_KEY: &str = "audit_key";
    /// The revision of the last commit: 8 bytes BE.
    pub(in super::super) const REV: &str = "rev";
}

const HEADER: usize = 16;

/// What is stored under a key.
pub(super) struct Stored<'a> {
    pub(super) rev: Rev,
    pub(super) lease: Option<LeaseId>,
    pub(super) value: &'a [u8],
}

impl<'a> Stored<'a> {
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (rev, rest) = bytes.split_first_chunk()?;
        let (lease, value) = rest.split_first_chunk()?;
        let lease = u64::from_be_bytes(*lease);
        Some(Self {
            rev: Rev(u64::from_be_bytes(*rev)),
            lease: (lease != 0).then_some(LeaseId(lease)),
            value,
        })
    }

    pub(super) fn write(
        &self,
        kv: &mut Table<'_, &'static [u8], &'static [u8]>,
        key: &Key,
    ) -> Result<(), StorageError> {
        let mut place = kv.insert_reserve(key.as_bytes(), HEADER + self.value.len())?;
        let (header, value) = place.as_mut().split_at_mut(HEADER);
        header[..8].copy_from_slice(&self.rev.0.to_be_bytes());
        header[8..].copy_from_slice(&self.lease.map_or(0, |lease| lease.0).to_be_bytes());
        value.copy_from_slice(self.value);
        Ok(())
    }

    pub(super) fn to_item(&self) -> Item {
        Item {
            value: Bytes::copy_from_slice(self.value),
            rev: self.rev,
        }
    }
}

pub(super) fn decode<'a>(key: &[u8], bytes: &'a [u8]) -> Result<Stored<'a>, ReadError> {
    Stored::decode(bytes).ok_or_else(|| ReadError::Damaged {
        key: Key::trusted(key.to_vec()),
        what: "shorter than its header",
    })
}

/// One committed state. Reading it takes no lock that a commit holds, which
/// beginning a new read transaction may: redb syncs under it when the file grows.
pub(super) struct Snapshot {
    rev: Rev,
    /// Keeps its transaction alive.
    kv: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Snapshot {
    /// The latest state.
    pub(super) fn new(db: &Database) -> Result<Self, Unavailable> {
        let txn = db.begin_read().map_err(unavailable)?;
        let rev = meta_rev(&txn.open_table(META).map_err(unavailable)?)?;
        Ok(Self {
            rev,
            kv: txn.open_table(KV).map_err(unavailable)?,
        })
    }

    pub(super) fn rev(&self) -> Rev {
        self.rev
    }

    pub(super) fn get(&self, key: &Key) -> Result<Option<Item>, ReadError> {
        let found = self.kv.get(key.as_bytes()).map_err(unavailable)?;
        let Some(found) = found else { return Ok(None) };
        Ok(Some(decode(key.as_bytes(), found.value())?.to_item()))
    }

    pub(super) fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
    ) -> Result<Page, ReadError> {
        let from = match after.map(Key::as_bytes) {
            Some(after) if after >= prefix.as_bytes() => Bound::Excluded(after),
            Some(_) | None => Bound::Included(prefix.as_bytes()),
        };
        let limit = limit.clamp(1, MAX_PAGE_ITEMS);
        let mut page = Page {
            items: Vec::new(),
            rev: self.rev,
            more: false,
        };
        let mut bytes = 0;
        for entry in self
            .kv
            .range::<&[u8]>((from, Bound::Unbounded))
            .map_err(unavailable)?
        {
            let (key, stored) = entry.map_err(unavailable)?;
            if !prefix.contains(key.value()) {
                break;
            }
            if page.items.len() == limit || bytes >= MAX_PAGE_BYTES {
                page.more = true;
                break;
            }
            let item = decode(key.value(), stored.value())?.to_item();
            bytes += item.value.len();
            page.items.push((Key::trusted(key.value().to_vec()), item));
        }
        Ok(page)
    }
}

/// The revision in the `meta` table. A file without one was made this moment.
pub(super) fn meta_rev(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Rev, Unavailable> {
    match meta_bytes(meta, meta::REV)? {
        Some(bytes) => Ok(Rev(u64::from_be_bytes(bytes))),
        None => Ok(Rev::ZERO),
    }
}

/// A value of fixed size in the `meta` table.
pub(super) fn meta_bytes<const N: usize>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    name: &str,
) -> Result<Option<[u8; N]>, Unavailable> {
    let Some(found) = meta.get(name).map_err(unavailable)? else {
        return Ok(None);
    };
    let bytes = found.value().try_into().map_err(|_| {
        Unavailable::Corrupt(format!(
            "`{name}` has {} bytes, not {N}",
            found.value().len()
        ))
    })?;
    Ok(Some(bytes))
}

/// Makes all tables, so that a snapshot always finds them.
pub(super) fn create_all(txn: &WriteTransaction) -> Result<(), Unavailable> {
    txn.open_table(META).map_err(unavailable)?;
    txn.open_table(KV).map_err(unavailable)?;
    txn.open_table(LEASED).map_err(unavailable)?;
    txn.open_table(REQUESTS).map_err(unavailable)?;
    txn.open_table(REQUEST_AGES).map_err(unavailable)?;
    Ok(())
}

/// Sorts redb's errors by what can be done about them.
pub(super) fn unavailable(error: impl Into<redb::Error>) -> Unavailable {
    let error = error.into();
    match &error {
        redb::Error::Io(io) => io_unavailable(io),
        redb::Error::DatabaseClosed => Unavailable::Closed,
        redb::Error::Corrupted(_)
        | redb::Error::TableTypeMismatch { .. }
        | redb::Error::TableIsMultimap(_)
        | redb::Error::TypeDefinitionChanged { .. }
        | redb::Error::TableDoesNotExist(_) => Unavailable::Corrupt(error.to_string()),
        _ => Unavailable::Io(error.to_string()),
    }
}

pub(super) fn io_unavailable(error: &io::Error) -> Unavailable {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Unavailable::StorageFull,
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Unavailable::Corrupt(error.to_string())
        }
        _ => Unavailable::Io(error.to_string()),
    }
}
