//! What can go wrong, sorted by what the caller can do about it.

use crate::{Key, Rev};

/// Why a commit did not answer with a revision.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommitError {
    /// A condition does not hold; nothing was changed. Read again and decide.
    #[error("the condition on `{key}` does not hold")]
    Conflict {
        /// The first key whose condition failed.
        key: Key,
    },
    /// The batch is beyond the limits; nothing was changed. Retrying is useless.
    #[error(
        "the batch has {keys} keys and {bytes} bytes, {} and {} are allowed",
        crate::MAX_BATCH_KEYS,
        crate::MAX_BATCH_BYTES
    )]
    TooLarge {
        /// Changes plus audit entries, or conditions if there are more of them.
        keys: usize,
        /// Keys, values and audit bodies together.
        bytes: usize,
    },
    /// The name of an audit chain is empty or longer than 256 bytes; nothing was
    /// changed.
    #[error("`{chain}` cannot name an audit chain: 1 to 256 bytes are allowed")]
    BadChainName {
        /// The name.
        chain: String,
    },
    /// Nothing was changed, and nothing will be before the cause goes away.
    #[error("the store is unavailable")]
    Unavailable(#[from] Unavailable),
    /// Nobody can say whether the batch happened. Commit it again with the same
    /// request id to find out and have it happen exactly once.
    #[error("the outcome of the commit is unknown")]
    Unknown,
    /// The lease that the batch writes under has ended: whoever held it no longer
    /// owns what it stood for. Nothing was changed.
    #[error("the lease of this batch has ended")]
    Fenced,
}

/// Why a read, a watch or a lease was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The store cannot answer before the cause goes away.
    #[error("the store is unavailable")]
    Unavailable(#[from] Unavailable),
    /// The caller has seen a revision that this store has not reached: another
    /// store, or one restored from an older copy.
    #[error("revision {wanted} was asked for, the store is at {reached}")]
    Behind {
        /// The revision asked for.
        wanted: Rev,
        /// Where the store is.
        reached: Rev,
    },
    /// What was read is not what the store writes.
    #[error("the item `{key}` is damaged: {what}")]
    Damaged {
        /// Its key.
        key: Key,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Why the store cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The disk or quota is full. Reads go on; writes work again, without a
    /// restart, once there is room.
    #[error("the disk is full")]
    StorageFull,
    /// The disk answered with an error. The store closes its file and opens it
    /// again before it does anything else.
    #[error("disk error: {0}")]
    Io(String),
    /// The disk did not confirm what was written. What the operating system now
    /// says the file holds proves nothing, so the store is of no further use: it
    /// must be opened anew by a process that has seen none of it.
    #[error(
        "the disk did not confirm a write ({0}); everything acknowledged before is safe, \
         what was being written may be lost: look at the disk (dmesg, SMART) and start again"
    )]
    SyncFailed(String),
    /// The file is damaged.
    #[error("the store is corrupt: {0}")]
    Corrupt(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}
