//! The embedded engine: redb, one file, one process.
//!
//! ```text
//!  commit ──> queue ──> writer thread: take all that waits ─> one transaction ─> fsync
//!                            ^                                                    │
//!                            └── meanwhile the next group gathers <───────────────┤
//!  get, list <── snapshot of the last fsynced transaction     history, answers <──┘
//! ```
//!
//! *One writer thread* (`writer`) owns all writing. It takes every batch that
//! waits, checks each against the transaction's own view (so a batch sees what
//! the one before it in the group did), and pays for one fsync. There is no
//! timer: a lone batch goes at once, and under load the group grows by itself
//! because the next one gathers while the disk is busy. A batch that conflicts
//! is answered alone and leaves no trace in the group.
//!
//! *Reads* go to a snapshot that the writer leaves behind after each commit, and
//! never wait for the next one. A point read is done where it is asked for (some
//! microseconds out of the page cache, measured by `a_point_read_is_microseconds`;
//! handing it to another thread costs more than the read); a listing goes to the
//! blocking pool.
//!
//! *Errors of the disk.* After the first one redb refuses all further use of the
//! open file, and so do we. A read or a write that failed (a full disk above all):
//! the writer closes the file, opens it again like after a crash, and reads from it
//! whether the group had become part of it. Only if that cannot be found out is a
//! batch answered with `Unknown`. An fsync that failed is another matter: what the
//! page cache says from then on proves nothing, and a second fsync that succeeds
//! proves nothing either. The store drops what is cached, stops for good and says
//! so ([`RedbStore::failed`]); its owner ends the process, and the next one reads
//! what the disk holds. In doubt that costs a restart, never an acknowledged write.
//!
//! Modules: `open` gets from a path to a checked file, `migrate` from an older
//! format to this one, `tables` is what lies in the file, `apply` is one batch
//! against one transaction, `writer` the thread, `backend` the disk underneath,
//! `export` the whole of it for a backup, and back.

mod apply;
mod backend;
mod export;
mod migrate;
mod open;
mod queue;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::{oneshot, watch};

pub use self::backend::Disk;
pub use self::export::{
    BadChunk, Export, ExportError, Import, ImportError, MAX_CHUNK_BYTES, Totals, check_chunk,
};
pub use self::migrate::FORMAT;
pub use self::open::{Identity, OpenError, OpenOptions, Verify};

use self::queue::{Job, Queue};
use self::tables::Snapshot;
use self::writer::Writer;
use crate::history::History;
use crate::lease::{LeaseControl, LeaseEnded, LeaseTable};
use crate::{
    Batch, Caps, CommitError, Item, Key, Lease, LeaseId, Page, Prefix, Read, ReadError, Rev, Store,
    Unavailable, WatchStream,
};

/// A store in one file.
///
/// [`close`](Self::close) it, or drop it; dropping waits for the group that is
/// being written. Everything committed is on disk either way.
pub struct RedbStore {
    shared: Arc<Shared>,
    identity: Identity,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the store's owner, its writer thread and its leases have in common.
struct Shared {
    /// The last committed state, or why there is none. The writer holds the lock
    /// for a moment after each commit, and as long as it takes to close the file
    /// and open it again.
    snapshot: RwLock<Result<Arc<Snapshot>, Unavailable>>,
    disk: Disk,
    queue: Queue,
    history: Arc<History>,
    leases: LeaseTable,
    counters: Counters,
    /// Why the store stopped for good.
    failed: watch::Sender<Option<Unavailable>>,
}

/// What the writer has done since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Transactions that reached the disk.
    pub groups: u64,
    /// Batches that were part of them.
    pub batches: u64,
    /// Batches refused because a condition did not hold.
    pub conflicts: u64,
    /// Time spent in transactions, fsync included.
    pub writing: Duration,
    /// Batches that wait for the writer now.
    pub queued: u64,
    /// How often the file was closed and opened again after an error.
    pub reopened: u64,
}

#[derive(Debug, Default)]
struct Counters {
    groups: AtomicU64,
    batches: AtomicU64,
    conflicts: AtomicU64,
    writing_us: AtomicU64,
    reopened: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl RedbStore {
    /// Opens the file at `path`, or makes it. Blocks: call it before the runtime
    /// is busy, or on a blocking thread.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, OpenError> {
        let path = path.as_ref();
        open::prepare_file(path, &options)?;
        Self::start(Disk::file(path), options)
    }

    /// A store that lives and dies with this value.
    pub fn open_in_memory(options: OpenOptions) -> Result<Self, OpenError> {
        Self::start(Disk::memory(), options)
    }

    /// A store on a disk of the caller's making: for tests of faults.
    pub fn open_on(disk: Disk, options: OpenOptions) -> Result<Self, OpenError> {
        Self::start(disk, options)
    }

    fn start(disk: Disk, options: OpenOptions) -> Result<Self, OpenError> {
        let opened = open::open(&disk, &options)?;
        let rev = opened.snapshot.rev();
        let shared = Arc::new(Shared {
            snapshot: RwLock::new(Ok(Arc::new(opened.snapshot))),
            disk,
            queue: Queue::new(),
            history: Arc::new(History::new(rev, options.history)),
            leases: LeaseTable::default(),
            counters: Counters::default(),
            failed: watch::Sender::new(None),
        });
        let writer = Writer::new(Arc::clone(&shared), opened.db, rev, options);
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|source| OpenError::Io {
                action: "start the writer thread",
                source,
            })?;
        Ok(Self {
            shared,
            identity: opened.identity,
            writer: Mutex::new(Some(thread)),
        })
    }

    /// When and for whom the file was made.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The revision of the last commit.
    pub fn rev(&self) -> Rev {
        self.shared.history.tip()
    }

    /// Waits until the store has stopped for good, and says why. Nothing but a new
    /// process helps then. Never answers while the store works or heals by itself.
    pub async fn failed(&self) -> Unavailable {
        let mut failed = self.shared.failed.subscribe();
        let stopped = failed.wait_for(Option::is_some).await;
        let why = stopped.ok().and_then(|why| why.clone());
        why.unwrap_or(Unavailable::Closed) // The sender lives as long as we do.
    }

    /// The latest committed state, to be read as a whole while writers go on.
    pub async fn export(&self) -> Result<Export, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(Job::Export(answer))?;
        answered.await.unwrap_or(Err(Unavailable::Closed))
    }

    /// The state of a store that no process serves, under its lock. Nothing in it is
    /// changed: the leases of its last process stay, and an older format stays what it
    /// is. Blocks.
    pub fn export_stopped(
        path: impl AsRef<Path>,
        options: &OpenOptions,
    ) -> Result<Export, OpenError> {
        open::open_stopped(path.as_ref(), options)
    }

    /// Writes what waits, ends every watch, closes the file.
    pub async fn close(&self) {
        self.shared.queue.close();
        if let Some(thread) = self.take_writer() {
            let joined = tokio::task::spawn_blocking(move || join(thread)).await;
            if let Err(error) = joined {
                tracing::error!(%error, "the store's writer could not be awaited");
            }
        }
    }

    fn take_writer(&self) -> Option<JoinHandle<()>> {
        self.writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Drop for RedbStore {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Some(thread) = self.take_writer() {
            join(thread);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("the store's writer panicked");
    }
}

impl fmt::Debug for RedbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedbStore")
            .field("disk", &self.shared.disk)
            .field("rev", &self.rev())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for RedbStore {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, ReadError> {
        self.shared.check_reached(read)?;
        // Worth handing to another thread only if there is something to wait for.
        if let Some(snapshot) = self.shared.try_snapshot() {
            match read_in(&snapshot, |snapshot| snapshot.get(key)) {
                Err(ReadError::Unavailable(_)) => {}
                found => return found,
            }
        }
        let key = key.clone();
        self.shared
            .blocking(move |snapshot| snapshot.get(&key))
            .await
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        read: Read,
    ) -> Result<Page, ReadError> {
        self.shared.check_reached(read)?;
        let (prefix, after) = (prefix.clone(), after.cloned());
        self.shared
            .blocking(move |snapshot| snapshot.list(&prefix, after.as_ref(), limit))
            .await
    }

    async fn commit(&self, batch: Batch) -> Result<Rev, CommitError> {
        batch.check_limits()?;
        let permit = self.shared.queue.reserve(batch.bytes()).await?;
        let (answer, answered) = oneshot::channel();
        self.shared.queue.push(Job::Commit {
            batch,
            answer,
            _permit: permit,
        })?;
        // The writer answers everything it takes; if it is gone, it may have been
        // between the two.
        answered.await.unwrap_or(Err(CommitError::Unknown))
    }

    async fn watch(&self, prefix: &Prefix, from: Rev) -> Result<WatchStream, ReadError> {
        if self.shared.queue.is_closed() {
            return Err(Unavailable::Closed.into());
        }
        Ok(self.shared.history.watch(prefix.clone(), from))
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, ReadError> {
        if self.shared.queue.is_closed() {
            return Err(Unavailable::Closed.into());
        }
        let id = self.shared.leases.grant(ttl, Instant::now());
        self.shared.queue.nudge(); // The writer may sleep past this lease's end.
        let control: Arc<dyn LeaseControl> = self.shared.clone();
        Ok(Lease::new(id, ttl, control))
    }

    fn caps(&self) -> Caps {
        Caps {
            engine: "redb",
            durable: self.shared.disk.is_durable(),
            shared: false,
        }
    }

    fn stats(&self) -> Stats {
        let counters = &self.shared.counters;
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            groups: of(&counters.groups),
            batches: of(&counters.batches),
            conflicts: of(&counters.conflicts),
            writing: Duration::from_micros(of(&counters.writing_us)),
            queued: self.shared.queue.len() as u64,
            reopened: of(&counters.reopened),
        }
    }
}

impl LeaseControl for Shared {
    fn renew(&self, id: LeaseId) -> Result<(), LeaseEnded> {
        self.leases.renew(id, Instant::now())
    }

    fn end(&self, id: LeaseId) {
        if self.leases.end(id) {
            // A closed queue means that the keys go when the file is opened next.
            let _ = self.queue.push(Job::EndLease(id));
        }
    }
}

impl Shared {
    /// A snapshot is always the latest commit, so both kinds of reads are the
    /// same, and a revision not reached was never ours.
    fn check_reached(&self, read: Read) -> Result<(), ReadError> {
        let Read::Cached {
            at_least: Some(wanted),
        } = read
        else {
            return Ok(());
        };
        let reached = self.history.tip();
        if wanted > reached {
            return Err(ReadError::Behind { wanted, reached });
        }
        Ok(())
    }

    /// The latest snapshot, unless the writer is just replacing it.
    fn try_snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.try_read().ok()?.as_ref().ok().cloned()
    }

    fn snapshot(&self) -> Result<Arc<Snapshot>, Unavailable> {
        self.snapshot
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl Fn(&Snapshot) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let shared = Arc::clone(self);
        let read = move || {
            let snapshot = shared.snapshot()?;
            match read_in(&snapshot, &read) {
                // The file may have been closed under our hands: look at the next one.
                Err(ReadError::Unavailable(why)) => match shared.snapshot()? {
                    same if Arc::ptr_eq(&same, &snapshot) => Err(why.into()),
                    next => read_in(&next, &read),
                },
                found => found,
            }
        };
        // The runtime may go down and take no more work.
        let joined = tokio::task::spawn_blocking(read).await;
        joined.unwrap_or_else(|_cancelled| Err(Unavailable::Closed.into()))
    }
}

/// Makes the store in the file at `path` claim to be of another format, as a later
/// release would have left it.
#[cfg(any(test, feature = "testing"))]
pub fn stamp_format(path: &Path, format: u32) -> Result<(), OpenError> {
    open::stamp_format(&Disk::file(path), format)
}

/// redb may panic on a page that is not what its checksums said at the start.
fn read_in<T>(
    snapshot: &Snapshot,
    read: impl Fn(&Snapshot) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    catch_unwind(AssertUnwindSafe(|| read(snapshot))).unwrap_or_else(|_panic| {
        Err(Unavailable::Corrupt("its pages do not fit together".to_owned()).into())
    })
}
