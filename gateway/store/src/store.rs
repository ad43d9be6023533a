//! The trait every engine fulfils, shaped so that an embedded engine loses
//! nothing and a distributed one fits.
//!
//! What is missing is missing on purpose. No transaction stays open between two
//! calls: a [`Batch`] carries its conditions with it. No range deletes and no
//! queries: keys are found through in-memory indexes (see
//! [`Mirror`](crate::Mirror)) built from [`list`](Store::list) and
//! [`watch`](Store::watch). No counters, no read-modify-write: the one retry loop
//! is [`update`](crate::update()). Heartbeats never come here.
//!
//! A commit that returned `Ok` is on disk, is seen by every later read, and is
//! in every watch in commit order.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{Batch, CommitError, Key, Lease, Prefix, ReadError, Stats};

/// The most items in one page of [`Store::list`].
pub const MAX_PAGE_ITEMS: usize = 1000;

/// A page ends after the item that reaches this many bytes of values.
pub const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// A revision: when something was written, as the store counts.
///
/// Opaque: later commits have greater revisions, and that is all. The text form
/// round-trips and may be handed to clients, as an entity tag or a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rev(pub(crate) u64);

impl Rev {
    /// Before everything.
    pub const ZERO: Self = Self(0);

    /// As a number, for a record that has to tell one life of a store from another.
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Rev {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for Rev {
    type Err = ParseIntError;

    fn from_str(text: &str) -> Result<Self, ParseIntError> {
        text.parse().map(Self)
    }
}

/// A value and when it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The bytes.
    pub value: Bytes,
    /// The revision of the commit that wrote them.
    pub rev: Rev,
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// What is at hand, but nothing older than `at_least`.
    Cached {
        /// A revision the caller has seen.
        at_least: Option<Rev>,
    },
    /// The latest committed state at the time of the call.
    Linearizable,
}

/// One page of a listing, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The items.
    pub items: Vec<(Key, Item)>,
    /// The state this page was read from. Later pages may have later ones.
    pub rev: Rev,
    /// Whether there are more: ask again with `after` the last key.
    pub more: bool,
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key was written.
    Put {
        /// The key.
        key: Key,
        /// What is there now.
        item: Item,
    },
    /// The key's item is gone.
    Delete {
        /// The key.
        key: Key,
        /// When.
        rev: Rev,
    },
    /// Everything up to this revision has been told.
    Progress(Rev),
    /// The changes after what has been told are no longer kept: list again and
    /// watch from there. This is the last event of a stream.
    Resync,
}

/// What an engine is and can do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// The engine's name, for logs and the health page.
    pub engine: &'static str,
    /// Whether what was committed survives the process.
    pub durable: bool,
    /// Whether other processes may write to the same state.
    pub shared: bool,
}

/// A stream of [`Event`]s. It ends after `Resync` and when the store closes.
pub type WatchStream = BoxStream<'static, Event>;

/// Keys and values with revisions, conditions, watches and leases.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// The item under `key`.
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, ReadError>;

    /// Items under `prefix` in key order, beginning after `after`. `limit` is
    /// brought into 1..=[`MAX_PAGE_ITEMS`]; a page may be shorter and still have
    /// `more`.
    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        read: Read,
    ) -> Result<Page, ReadError>;

    /// Does all of `batch` or nothing. The revision answered is the one its
    /// changes carry; a batch that changes nothing answers the current one.
    ///
    /// Dropping the future does not call the batch back.
    async fn commit(&self, batch: Batch) -> Result<Rev, CommitError>;

    /// Every change under `prefix` after `from`, in commit order, each once. A
    /// `Progress` never stands between two changes of one commit.
    ///
    /// An idle stream costs no memory. One that is read too slowly, or begins
    /// before the kept history, gets `Resync`.
    async fn watch(&self, prefix: &Prefix, from: Rev) -> Result<WatchStream, ReadError>;

    /// A new lease that ends `ttl` after its last renewal, or when dropped.
    async fn lease(&self, ttl: Duration) -> Result<Lease, ReadError>;

    /// What this engine is.
    fn caps(&self) -> Caps;

    /// What its writer has done and what waits for it. An engine whose writing is
    /// elsewhere answers zeros.
    fn stats(&self) -> Stats {
        Stats::default()
    }
}
