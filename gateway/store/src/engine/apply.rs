//! One batch against one transaction.
//!
//! First everything that can refuse a batch is looked at, then it is written:
//! a refused batch has touched nothing, so the transaction can go on with the
//! next one. An error of the disk ends the whole transaction.

use std::time::Instant;

use bytes::Bytes;
use model::audit_chain::{AuditChainKey, Head};
use redb::{ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction};

use super::open::RequestMemory;
use super::tables::{self, KV, LEASED, META, REQUEST_AGES, REQUESTS, Stored, meta, unavailable};
use crate::audit::{self, Sealer};
use crate::batch::Op;
use crate::history::Change;
use crate::lease::LeaseTable;
use crate::{Batch, CommitError, Condition, Key, LeaseId, ReadError, RequestId, Rev, Unavailable};

/// How many old request ids one commit forgets at most, so that a full table
/// shrinks and no single commit pays for it.
const FORGET_AT_ONCE: usize = 8;

/// What batches are judged by besides the tables.
pub(super) struct Context<'a> {
    pub(super) audit_key: &'a AuditChainKey,
    pub(super) leases: &'a LeaseTable,
    pub(super) requests: RequestMemory,
    pub(super) now: Instant,
    /// Seconds of the epoch: ages of request ids outlive the process.
    pub(super) seconds: u64,
}

/// Why a batch was not applied.
pub(super) enum Refused {
    /// Its own fault; the transaction is as before.
    Batch(CommitError),
    /// The transaction is lost.
    Disk(Unavailable),
}

impl From<Unavailable> for Refused {
    fn from(error: Unavailable) -> Self {
        Self::Disk(error)
    }
}

/// The tables of one open transaction, and what was done to them so far.
pub(super) struct Applier<'txn> {
    kv: Table<'txn, &'static [u8], &'static [u8]>,
    leased: Table<'txn, (u64, &'static [u8]), ()>,
    requests: Table<'txn, [u8; 16], (u64, u64)>,
    request_ages: Table<'txn, (u64, [u8; 16]), ()>,
    meta: Table<'txn, &'static str, &'static [u8]>,
    rev: Rev,
    changes: Vec<Change>,
    remembered: bool,
}

/// What a transaction amounts to.
pub(super) struct Applied {
    pub(super) rev: Rev,
    pub(super) changes: Vec<Change>,
    /// Whether there is anything to commit.
    pub(super) dirty: bool,
}

impl<'txn> Applier<'txn> {
    pub(super) fn new(txn: &'txn WriteTransaction) -> Result<Self, Unavailable> {
        let meta = txn.open_table(META).map_err(unavailable)?;
        Ok(Self {
            kv: txn.open_table(KV).map_err(unavailable)?,
            leased: txn.open_table(LEASED).map_err(unavailable)?,
            requests: txn.open_table(REQUESTS).map_err(unavailable)?,
            request_ages: txn.open_table(REQUEST_AGES).map_err(unavailable)?,
            rev: tables::meta_rev(&meta)?,
            meta,
            changes: Vec::new(),
            remembered: false,
        })
    }

    /// Applies one batch; answers its revision.
    pub(super) fn apply(&mut self, context: &Context<'_>, batch: &Batch) -> Result<Rev, Refused> {
        if let Some(id) = batch.request_id
            && let Some(rev) = self.recall(context, id)?
        {
            return Ok(rev);
        }
        for (key, condition) in &batch.conditions {
            if !self.holds(key, *condition)? {
                return Err(Refused::Batch(CommitError::Conflict { key: key.clone() }));
            }
        }
        let ended = |op: &Op| match op {
            Op::Put {
                lease: Some(lease), ..
            } => !context.leases.is_live(*lease, context.now),
            Op::Put { lease: None, .. } | Op::Delete => false,
        };
        if batch.ops.values().any(ended) {
            return Err(Refused::Batch(CommitError::Fenced));
        }
        let sealed = self.seal(context, batch)?;

        let rev = Rev(self.rev.0 + 1);
        let before = self.changes.len();
        for (key, op) in &batch.ops {
            match op {
                Op::Put { value, lease } => self.put(key, value.clone(), *lease, rev)?,
                Op::Delete => self.delete(key, rev)?,
            }
        }
        for (key, value) in sealed {
            self.put(&key, value, None, rev)?;
        }
        if self.changes.len() > before {
            self.rev = rev;
        }
        if let Some(id) = batch.request_id {
            self.remember(context, id)?;
        }
        Ok(self.rev)
    }

    /// Deletes everything that hangs on `lease`, as one commit.
    pub(super) fn end_lease(&mut self, lease: LeaseId) -> Result<(), Unavailable> {
        let rev = Rev(self.rev.0 + 1);
        let mut keys = Vec::new();
        for entry in self
            .leased
            .range((lease.0, [].as_slice())..)
            .map_err(unavailable)?
        {
            let (name, _) = entry.map_err(unavailable)?;
            let (id, key) = name.value();
            if id != lease.0 {
                break;
            }
            keys.push(Key::trusted(key.to_vec()));
        }
        for key in &keys {
            self.delete(key, rev)?;
        }
        if !keys.is_empty() {
            self.rev = rev;
        }
        Ok(())
    }

    /// Writes the new revision and lets go of the tables.
    pub(super) fn finish(mut self) -> Result<Applied, Unavailable> {
        if !self.changes.is_empty() {
            let rev = self.rev.0.to_be_bytes();
            self.meta
                .insert(meta::REV, rev.as_slice())
                .map_err(unavailable)?;
        }
        let dirty = self.remembered || !self.changes.is_empty();
        Ok(Applied {
            rev: self.rev,
            changes: self.changes,
            dirty,
        })
    }

    fn holds(&self, key: &Key, condition: Condition) -> Result<bool, Unavailable> {
        let found = self.kv.get(key.as_bytes()).map_err(unavailable)?;
        Ok(match condition {
            Condition::Absent => found.is_none(),
            Condition::Present => found.is_some(),
            Condition::RevIs(rev) => found
                .is_some_and(|found| Stored::decode(found.value()).is_some_and(|it| it.rev == rev)),
        })
    }

    /// Gives each draft its place. Several drafts of one chain follow each other.
    fn seal(
        &self,
        context: &Context<'_>,
        batch: &Batch,
    ) -> Result<impl Iterator<Item = (Key, Bytes)> + use<>, Unavailable> {
        let mut sealer = Sealer::new(context.audit_key);
        for draft in &batch.audit {
            sealer.seal(draft, |key| self.head(key))?;
        }
        Ok(sealer.finish())
    }

    fn head(&self, key: &Key) -> Result<Head, Unavailable> {
        let Some(found) = self.kv.get(key.as_bytes()).map_err(unavailable)? else {
            return Ok(Head::EMPTY);
        };
        let head = tables::decode(key.as_bytes(), found.value())
            .and_then(|stored| audit::decode_head(key, stored.value));
        head.map_err(|error: ReadError| Unavailable::Corrupt(error.to_string()))
    }

    fn put(
        &mut self,
        key: &Key,
        value: Bytes,
        lease: Option<LeaseId>,
        rev: Rev,
    ) -> Result<(), Unavailable> {
        self.detach(key)?;
        let stored = Stored {
            rev,
            lease,
            value: &value,
        };
        stored.write(&mut self.kv, key).map_err(unavailable)?;
        if let Some(lease) = lease {
            self.leased
                .insert((lease.0, key.as_bytes()), ())
                .map_err(unavailable)?;
        }
        self.changes.push(Change {
            key: key.clone(),
            rev,
            value: Some(value),
        });
        Ok(())
    }

    fn delete(&mut self, key: &Key, rev: Rev) -> Result<(), Unavailable> {
        if self.detach(key)? {
            self.kv.remove(key.as_bytes()).map_err(unavailable)?;
            self.changes.push(Change {
                key: key.clone(),
                rev,
                value: None,
            });
        }
        Ok(())
    }

    /// Takes `key` off the lease it hangs on, if any; whether there is an item.
    fn detach(&mut self, key: &Key) -> Result<bool, Unavailable> {
        let Some(found) = self.kv.get(key.as_bytes()).map_err(unavailable)? else {
            return Ok(false);
        };
        if let Some(lease) = Stored::decode(found.value()).and_then(|stored| stored.lease) {
            self.leased
                .remove((lease.0, key.as_bytes()))
                .map_err(unavailable)?;
        }
        Ok(true)
    }

    fn recall(&self, context: &Context<'_>, id: RequestId) -> Result<Option<Rev>, Unavailable> {
        let Some(found) = self.requests.get(id.0).map_err(unavailable)? else {
            return Ok(None);
        };
        let (rev, at) = found.value();
        let fresh = context.seconds.saturating_sub(at) <= context.requests.age.as_secs();
        Ok(fresh.then_some(Rev(rev)))
    }

    fn remember(&mut self, context: &Context<'_>, id: RequestId) -> Result<(), Unavailable> {
        let entry = (self.rev.0, context.seconds);
        let old = self
            .requests
            .insert(id.0, entry)
            .map_err(unavailable)?
            .map(|old| old.value().1);
        if let Some(at) = old {
            self.request_ages.remove((at, id.0)).map_err(unavailable)?;
        }
        self.request_ages
            .insert((context.seconds, id.0), ())
            .map_err(unavailable)?;
        self.remembered = true;
        for _ in 0..FORGET_AT_ONCE {
            let Some((oldest, _)) = self.request_ages.first().map_err(unavailable)? else {
                break;
            };
            let (at, id) = oldest.value();
            drop(oldest);
            let old = context.seconds.saturating_sub(at) > context.requests.age.as_secs();
            let many = self.requests.len().map_err(unavailable)? > context.requests.count;
            if !(old || many) {
                break;
            }
            self.request_ages.remove((at, id)).map_err(unavailable)?;
            self.requests.remove(id).map_err(unavailable)?;
        }
        Ok(())
    }
}
