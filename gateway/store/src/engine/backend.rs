//! The disk under the embedded engine, as something that can be opened again.
//!
//! redb consumes its backend and, after an error, must be given a new one on the
//! same bytes. A [`Disk`] is where new ones come from: a path, memory, or a
//! test's own device that fails where the test wants it to.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use redb::backends::{FileBackend, InMemoryBackend};
use redb::{BackendError, StorageBackend};

/// Where a store's bytes are.
#[derive(Clone)]
pub struct Disk {
    kind: Kind,
    seen: Arc<Seen>,
}

/// What went through all backends of one disk.
#[derive(Debug, Default)]
struct Seen {
    header_writes: AtomicU64,
    /// What the last sync that failed said.
    failed_sync: Mutex<Option<FailedSync>>,
}

/// A sync that failed.
#[derive(Clone, Debug)]
pub(super) struct FailedSync {
    /// Why, as the system says it.
    pub(super) why: String,
    /// Only for want of room. That is known to pass.
    pub(super) full: bool,
}

/// redb's header is at the start of the first page. A commit is nothing before
/// it is written there.
const HEADER_END: u64 = 4096;

#[derive(Clone)]
enum Kind {
    File(PathBuf),
    Memory(Arc<InMemoryBackend>),
    Custom(Arc<dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync>),
}

impl Disk {
    pub(super) fn file(path: &Path) -> Self {
        Self::new(Kind::File(path.to_owned()))
    }

    /// Memory that can be opened again: what one store wrote, the next one finds.
    pub fn memory() -> Self {
        Self::new(Kind::Memory(Arc::new(InMemoryBackend::new())))
    }

    /// Backends made by `open`, each on the same bytes as the one before.
    pub fn custom(
        open: impl Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync + 'static,
    ) -> Self {
        Self::new(Kind::Custom(Arc::new(open)))
    }

    fn new(kind: Kind) -> Self {
        Self {
            kind,
            seen: Arc::default(),
        }
    }

    /// How often somebody tried to write the header. What did not move this did
    /// not commit.
    pub(super) fn header_writes(&self) -> u64 {
        self.seen.header_writes.load(Ordering::SeqCst)
    }

    /// The sync that failed since this was last asked.
    pub(super) fn take_failed_sync(&self) -> Option<FailedSync> {
        self.seen.lock().take()
    }

    /// Has the next reader read the disk instead of memory. After a failed sync the
    /// kernel calls pages clean that never reached the disk (Linux since 4.13, most
    /// file systems), and would show them to whoever opens the file until it needs
    /// the memory: a commit would be seen today and be gone tomorrow.
    pub(super) fn forget_cached(&self) {
        let Kind::File(path) = &self.kind else { return };
        let forgotten = File::open(path).and_then(|file| {
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
            Ok(())
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "cached pages of the store could not be dropped");
        }
    }

    pub(super) fn is_durable(&self) -> bool {
        !matches!(self.kind, Kind::Memory(_))
    }

    pub(super) fn backend(&self) -> io::Result<Backend> {
        let backend: Arc<dyn StorageBackend> = match &self.kind {
            Kind::File(path) => {
                let file = File::options().read(true).write(true).open(path)?;
                Arc::new(FileBackend::new(file).map_err(io::Error::other)?)
            }
            Kind::Memory(memory) => Arc::clone(memory) as _,
            Kind::Custom(open) => open()?.into(),
        };
        Ok(Backend {
            backend,
            seen: Arc::clone(&self.seen),
        })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::File(path) => fmt::Debug::fmt(path, f),
            Kind::Memory(_) => f.write_str("memory"),
            Kind::Custom(_) => f.write_str("custom"),
        }
    }
}

/// Any backend behind one type, which redb asks for.
#[derive(Debug)]
pub(super) struct Backend {
    backend: Arc<dyn StorageBackend>,
    seen: Arc<Seen>,
}

impl Seen {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<FailedSync>> {
        self.failed_sync
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl StorageBackend for Backend {
    fn len(&self) -> Result<u64, io::Error> {
        self.backend.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.backend.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.backend.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.backend.sync_data().inspect_err(|error| {
            *self.seen.lock() = Some(FailedSync {
                why: error.to_string(),
                full: matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ),
            });
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        if offset < HEADER_END {
            self.seen.header_writes.fetch_add(1, Ordering::SeqCst);
        }
        self.backend.write(offset, data)
    }

    fn close(&self) -> Result<(), io::Error> {
        self.backend.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.backend.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.backend.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.backend.query_lock_range(start, end)
    }
}
