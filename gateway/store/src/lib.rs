//! What the gateway remembers: one trait, its engines, and what sits on top.
//!
//! Read in this order: `store` is the contract and `batch` what one commit
//! carries; `engine` fulfils it in one file. On top: `record` gives values
//! types and versions, [`update()`] is the one read-modify-write, `mirror` keeps
//! in-memory indexes current, `audit` reads the chains that commits extend,
//! `objects` holds what is too large for a value.
//!
//! This crate is the only user of redb and knows nothing of HTTP, links or
//! plugins. What hosts report every few seconds never comes here: only
//! transitions do.

mod audit;
mod batch;
mod engine;
mod error;
mod history;
mod key;
mod lease;
mod mirror;
mod objects;
mod record;
mod store;
mod update;

#[cfg(test)]
mod conformance;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use audit::{AuditPage, audit_chains, audit_head, audit_list};
pub use batch::{AuditDraft, Batch, Condition, MAX_BATCH_BYTES, MAX_BATCH_KEYS, RequestId};
pub use engine::{
    BadChunk, Disk, Export, ExportError, FORMAT, Identity, Import, ImportError, MAX_CHUNK_BYTES,
    OpenError, OpenOptions, RedbStore, Stats, Totals, Verify, check_chunk,
};
pub use error::{CommitError, ReadError, Unavailable};
pub use key::{Key, KeyError, Prefix};
pub use lease::{Lease, LeaseEnded, LeaseId};
pub use mirror::{Change, Index, Mirror, WaitError};
pub use objects::{Digest, DigestError, ObjectError, ObjectInfo, Objects};
pub use record::{
    DecodeError, EncodeError, Record, RecordError, RecordPage, Stored, UpdateRecordError, fetch,
    list, update_record,
};
pub use store::{
    Caps, Event, Item, MAX_PAGE_BYTES, MAX_PAGE_ITEMS, Page, Read, Rev, Store, WatchStream,
};
pub use update::{UpdateError, update};
