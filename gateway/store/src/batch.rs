//! A batch: everything one commit does, built first and handed over whole.
//!
//! Conditions, changes, audit entries and the request's id travel together, so
//! that an engine needs no open transaction between two awaits and a batch can
//! be sent to another machine as it is.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::{CommitError, Key, LeaseId, Rev};

/// The most changes and audit entries in one batch, and the most conditions. An
/// intent touches a handful of keys; what needs more is a job with its own state.
pub const MAX_BATCH_KEYS: usize = 64;

/// The most bytes in one batch: keys, values and audit bodies together. Larger
/// values belong into [`Objects`](crate::Objects).
pub const MAX_BATCH_BYTES: usize = 1024 * 1024;

/// What a batch demands of the state it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key has no item.
    Absent,
    /// The key has an item.
    Present,
    /// The key has an item, and it was last written at this revision.
    RevIs(Rev),
}

/// One audit entry before the store gives it its number and MAC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditDraft {
    /// The chain it is appended to: 1 to 256 bytes.
    pub chain: String,
    /// What is recorded. The store does not look inside.
    pub body: Vec<u8>,
}

/// Names one intent, so that committing it twice does it once. 16 bytes chosen
/// at random by whoever has the intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub [u8; 16]);

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Put {
        value: Bytes,
        lease: Option<LeaseId>,
    },
    Delete,
}

/// Conditions and changes that happen together or not at all.
///
/// A key is changed at most once: the last call for a key wins.
#[derive(Clone, Debug, Default)]
#[must_use = "a batch does nothing until it is committed"]
pub struct Batch {
    pub(crate) conditions: Vec<(Key, Condition)>,
    pub(crate) ops: BTreeMap<Key, Op>,
    pub(crate) audit: Vec<AuditDraft>,
    pub(crate) request_id: Option<RequestId>,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition. All must hold.
    pub fn require(&mut self, key: &Key, condition: Condition) -> &mut Self {
        self.conditions.push((key.clone(), condition));
        self
    }

    /// Writes `value`. If the key hung on a lease, it no longer does.
    pub fn put(&mut self, key: &Key, value: impl Into<Bytes>) -> &mut Self {
        self.put_op(key, value.into(), None)
    }

    /// Writes `value` under `lease`: it vanishes when the lease ends, and the
    /// commit is [`Fenced`](CommitError::Fenced) if it has ended already.
    pub fn put_leased(&mut self, key: &Key, value: impl Into<Bytes>, lease: LeaseId) -> &mut Self {
        self.put_op(key, value.into(), Some(lease))
    }

    /// Deletes the key's item, if there is one.
    pub fn delete(&mut self, key: &Key) -> &mut Self {
        self.ops.insert(key.clone(), Op::Delete);
        self
    }

    /// Appends an audit entry. Entries of one batch keep their order.
    pub fn audit(&mut self, draft: AuditDraft) -> &mut Self {
        self.audit.push(draft);
        self
    }

    /// Makes the commit idempotent: while the store remembers `id`, committing
    /// any batch with it again changes nothing and answers the first revision.
    pub fn request_id(&mut self, id: RequestId) -> &mut Self {
        self.request_id = Some(id);
        self
    }

    /// Whether the batch changes nothing and records nothing.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty() && self.audit.is_empty()
    }

    /// How many keys it changes.
    pub fn keys(&self) -> usize {
        self.ops.len()
    }

    /// What it writes, in the order of the keys.
    pub fn puts(&self) -> impl Iterator<Item = (&Key, &Bytes)> {
        self.ops.iter().filter_map(|(key, op)| match op {
            Op::Put { value, .. } => Some((key, value)),
            Op::Delete => None,
        })
    }

    /// The audit entries, in order.
    pub fn audited(&self) -> impl Iterator<Item = &AuditDraft> {
        self.audit.iter()
    }

    /// How many audit entries it has.
    pub fn audit_entries(&self) -> usize {
        self.audit.len()
    }

    fn put_op(&mut self, key: &Key, value: Bytes, lease: Option<LeaseId>) -> &mut Self {
        self.ops.insert(key.clone(), Op::Put { value, lease });
        self
    }

    /// Keys, values and audit bodies together.
    pub fn bytes(&self) -> usize {
        let op_bytes = |(key, op): (&Key, &Op)| {
            key.as_bytes().len()
                + match op {
                    Op::Put { value, .. } => value.len(),
                    Op::Delete => 0,
                }
        };
        let ops: usize = self.ops.iter().map(op_bytes).sum();
        let conditions: usize = self
            .conditions
            .iter()
            .map(|(key, _)| key.as_bytes().len())
            .sum();
        let audit: usize = self
            .audit
            .iter()
            .map(|draft| draft.chain.len() + draft.body.len())
            .sum();
        ops + conditions + audit
    }

    /// Every engine calls this before it looks at a batch.
    pub(crate) fn check_limits(&self) -> Result<(), CommitError> {
        let keys = (self.ops.len() + self.audit.len()).max(self.conditions.len());
        let bytes = self.bytes();
        if keys > MAX_BATCH_KEYS || bytes > MAX_BATCH_BYTES {
            return Err(CommitError::TooLarge { keys, bytes });
        }
        for draft in &self.audit {
            crate::audit::check_chain_name(&draft.chain)?;
        }
        Ok(())
    }
}
