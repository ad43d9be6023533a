//! From a path to a store that may be used.
//!
//! A new file is made under another name, stamped, closed, and only then moved
//! to its place: a file that lies there is complete, and an empty one is not a
//! store that has not begun but one that was lost. Making a fresh store in its
//! place would be the worst answer, so it is refused.
//!
//! Before a file is used it is checked in this order: is it ours alone, is it
//! whole, is its format known, is it sealed with our audit key, does it belong to
//! this deployment. Then the keys of leases that died with the last process go.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::audit_chain::AuditChainKey;
use redb::{
    Database, DatabaseError, ReadableDatabase as _, ReadableTable as _, StorageBackend as _,
    StorageError, TableHandle as _,
};

use super::backend::{Backend, Disk};
use super::export::Export;
use super::migrate::{MIGRATIONS, format_after, format_of, migrate};
use super::tables::{
    self, KV, LEASED, META, Snapshot, io_unavailable, meta, meta_bytes, unavailable,
};
use crate::Unavailable;
use crate::history::HistoryLimits;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    pub(super) audit_key: AuditChainKey,
    pub(super) deployment: Option<[u8; 16]>,
    pub(super) cache_bytes: usize,
    pub(super) verify: Verify,
    pub(super) history: HistoryLimits,
    pub(super) requests: RequestMemory,
    pub(super) clock: fn() -> u64,
}

/// How long request ids are remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestMemory {
    pub(super) count: u64,
    pub(super) age: Duration,
}

/// Whether opening a file reads all of it and checks every checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verify {
    /// Whatever its size.
    Always,
    /// If it has at most so many bytes. Larger files are read in full only when
    /// the last process did not record what it had allocated.
    UpTo(u64),
}

impl OpenOptions {
    /// The defaults, and the key that audit chains are sealed with.
    pub fn new(audit_key: AuditChainKey) -> Self {
        Self {
            audit_key,
            deployment: None,
            // The whole of a usual store, a few percent of a small machine.
            cache_bytes: 64 * 1024 * 1024,
            // 350 MiB take 0.6 s in a debug build on a small machine: under the
            // limit the check is not noticed.
            verify: Verify::UpTo(256 * 1024 * 1024),
            history: HistoryLimits {
                changes: 16 * 1024,
                bytes: 32 * 1024 * 1024,
            },
            // A client that retries a request after a day has other problems.
            requests: RequestMemory {
                count: 100_000,
                age: Duration::from_secs(24 * 3600),
            },
            clock: seconds_of_the_epoch,
        }
    }

    /// Whose store this is: written into a new file, compared in an old one.
    #[must_use]
    pub fn deployment(mut self, id: [u8; 16]) -> Self {
        self.deployment = Some(id);
        self
    }

    /// How much of the file is kept in memory.
    #[must_use]
    pub fn cache_bytes(mut self, bytes: usize) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// When to check the whole file.
    #[must_use]
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = verify;
        self
    }

    /// How many recent changes, and how many bytes of them, watchers can catch up
    /// on before they have to list again.
    #[must_use]
    pub fn history(mut self, changes: usize, bytes: usize) -> Self {
        self.history = HistoryLimits { changes, bytes };
        self
    }

    /// How many request ids are remembered, and how long.
    #[must_use]
    pub fn request_memory(mut self, count: u64, age: Duration) -> Self {
        self.requests = RequestMemory { count, age };
        self
    }

    #[cfg(test)]
    pub(super) fn clock(mut self, clock: fn() -> u64) -> Self {
        self.clock = clock;
        self
    }
}

/// When and for whom a store was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// When, by the clock of the machine that made it.
    pub created: SystemTime,
    /// For whom, if it was ever told.
    pub deployment: Option<[u8; 16]>,
    /// The format of the file.
    pub format: u32,
}

/// Why a store was not opened. Nothing that it holds was changed; redb may have
/// recovered the file from a crash first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else has it.
    #[error("another process has the store open; stop it first")]
    Locked,
    /// A later release wrote it.
    #[error(
        "the store has format {found}, this build knows up to {supported}; \
         run the release that wrote it or a later one, or restore a copy made before the upgrade"
    )]
    Newer {
        /// The file's format.
        found: u32,
        /// The newest format this build knows.
        supported: u32,
    },
    /// The file belongs to something else.
    #[error("the file is not a store of this gateway")]
    NotAStore,
    /// The file is damaged.
    #[error(
        "the store is damaged ({what}) and was left as it is; keep the file, and put the latest \
         backup in its place with `loopback-gateway restore`"
    )]
    Corrupt {
        /// How it shows.
        what: String,
    },
    /// The key given is not the one the file was made with.
    #[error(
        "the audit chains of this store are sealed with another key; \
         restore the audit key that belongs to it"
    )]
    OtherAuditKey,
    /// The file belongs to another deployment.
    #[error("the store belongs to another deployment; check the data directory")]
    OtherDeployment,
    /// A step from an older format to this one did not happen.
    #[error("migrate the store to format {to}")]
    Migrate {
        /// The format after the step.
        to: u32,
        /// Why not.
        source: Unavailable,
    },
    /// The store cannot be read or written.
    #[error("use the store")]
    Unavailable(#[source] Unavailable),
    /// The operating system refused.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl From<Unavailable> for OpenError {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Corrupt(what) => Self::Corrupt { what },
            other => Self::Unavailable(other),
        }
    }
}

pub(super) struct Opened {
    pub(super) db: Database,
    pub(super) snapshot: Snapshot,
    pub(super) identity: Identity,
}

/// Opens and checks the store on `disk`; stamps it first if it is new.
pub(super) fn open(disk: &Disk, options: &OpenOptions) -> Result<Opened, OpenError> {
    let db = open_database(disk, options, options.verify)?;
    if is_blank(&db)? {
        stamp(&db, options)?;
    }
    migrate(&db, MIGRATIONS)?;
    let identity = check_identity(&db, options)?;
    end_leases(&db)?;
    let snapshot = Snapshot::new(&db)?;
    Ok(Opened {
        db,
        snapshot,
        identity,
    })
}

/// Opens the file again after an error: the same file, already checked.
pub(super) fn reopen(
    disk: &Disk,
    options: &OpenOptions,
    verify: Verify,
) -> Result<(Database, Snapshot), Unavailable> {
    let db = open_database(disk, options, verify).map_err(|error| match error {
        OpenError::Corrupt { what } => Unavailable::Corrupt(what),
        OpenError::Unavailable(why) => why,
        OpenError::Io { source, .. } => io_unavailable(&source),
        other => Unavailable::Io(other.to_string()),
    })?;
    let snapshot = Snapshot::new(&db)?;
    Ok((db, snapshot))
}

/// Opens the store at `path` to read all of it, and changes nothing in it.
pub(super) fn open_stopped(path: &Path, options: &OpenOptions) -> Result<Export, OpenError> {
    let metadata = fs::metadata(path).map_err(|source| OpenError::Io {
        action: "look at the store's file",
        source,
    })?;
    if !metadata.is_file() {
        return Err(OpenError::NotAStore);
    }
    if metadata.len() == 0 {
        return Err(OpenError::Corrupt {
            what: "the file is empty".to_owned(),
        });
    }
    let db = open_database(&Disk::file(path), options, options.verify)?;
    if is_blank(&db)? {
        return Err(OpenError::NotAStore);
    }
    let (found, supported) = (format_of(&db)?, format_after(MIGRATIONS));
    if found > supported {
        return Err(OpenError::Newer { found, supported });
    }
    check_audit_key(&db, options)?;
    Ok(Export::of_stopped(db)?)
}

/// Makes the file if there is none, and keeps others out of it.
pub(super) fn prepare_file(path: &Path, options: &OpenOptions) -> Result<(), OpenError> {
    let io = |action| move |source| OpenError::Io { action, source };
    let metadata = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return create(path, options),
        found => found.map_err(io("look at the store's file"))?,
    };
    if !metadata.is_file() {
        return Err(OpenError::NotAStore);
    }
    if metadata.len() == 0 {
        return Err(OpenError::Corrupt {
            what: "the file is empty".to_owned(),
        });
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the store; closing it to them");
        let private = fs::Permissions::from_mode(0o600);
        fs::set_permissions(path, private).map_err(io("close the store's file to others"))?;
    }
    Ok(())
}

fn create(path: &Path, options: &OpenOptions) -> Result<(), OpenError> {
    let io = |action| move |source| OpenError::Io { action, source };
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io("remove a half-made store")(error));
        }
        Ok(()) | Err(_) => {}
    }
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new);
    let file = file.map_err(io("make the store's file"))?;
    let db = open_database(&Disk::file(&new), options, options.verify)?;
    stamp(&db, options)?;
    db.close().map_err(|error| refused(error, true))?;
    file.sync_all().map_err(io("sync the new store"))?;
    fs::rename(&new, path).map_err(io("move the new store to its place"))?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
    folder.map_err(io("sync the store's folder"))
}

/// redb promises errors for the damage it looks for, and may panic on the rest.
fn open_database(
    disk: &Disk,
    options: &OpenOptions,
    verify: Verify,
) -> Result<Database, OpenError> {
    let backend = disk.backend().map_err(|source| OpenError::Io {
        action: "open the store's file",
        source,
    })?;
    let len = backend.len().map_err(|source| OpenError::Io {
        action: "size the store's file",
        source,
    })?;
    let whole = match verify {
        Verify::Always => true,
        Verify::UpTo(most) => len <= most,
    };
    let build = |backend: Backend| {
        Database::builder()
            .set_cache_size(options.cache_bytes)
            .set_check_integrity_on_open(whole)
            .create_with_backend(backend)
    };
    match catch_unwind(AssertUnwindSafe(|| build(backend))) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(error)) => Err(refused(error, len == 0)),
        Err(_panic) => Err(OpenError::Corrupt {
            what: "its pages do not fit together".to_owned(),
        }),
    }
}

fn refused(error: DatabaseError, new: bool) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => {
            OpenError::Locked
        }
        DatabaseError::UpgradeRequired(_) => OpenError::NotAStore,
        // redb's word for a file that does not begin like a database.
        DatabaseError::Storage(StorageError::Io(error))
            if error.kind() == io::ErrorKind::InvalidData && !new =>
        {
            OpenError::Corrupt {
                what: error.to_string(),
            }
        }
        other => unavailable(other).into(),
    }
}

/// No tables at all: a database made this moment.
fn is_blank(db: &Database) -> Result<bool, OpenError> {
    let snapshot = db.begin_read().map_err(unavailable)?;
    let mut tables = snapshot.list_tables().map_err(unavailable)?.peekable();
    if tables.peek().is_none() {
        return Ok(true);
    }
    if tables.any(|table| table.name() == META.name()) {
        return Ok(false);
    }
    Err(OpenError::NotAStore)
}

fn stamp(db: &Database, options: &OpenOptions) -> Result<(), OpenError> {
    let mut txn = db.begin_write().map_err(unavailable)?;
    txn.set_quick_repair(true);
    tables::create_all(&txn)?;
    let mut table = txn.open_table(META).map_err(unavailable)?;
    let format = format_after(MIGRATIONS).to_be_bytes();
    let created = (options.clock)().to_be_bytes();
    table
        .insert(meta::FORMAT, format.as_slice())
        .map_err(unavailable)?;
    table
        .insert(meta::CREATED, created.as_slice())
        .map_err(unavailable)?;
    let fingerprint = options.audit_key.fingerprint();
    table
        .insert(meta::AUDIT_KEY, fingerprint.as_slice())
        .map_err(unavailable)?;
    drop(table);
    txn.commit().map_err(unavailable)?;
    Ok(())
}

#[cfg(any(test, feature = "testing"))]
pub(super) fn stamp_format(disk: &Disk, format: u32) -> Result<(), OpenError> {
    let options = OpenOptions::new(AuditChainKey::new([0; 32]));
    let db = open_database(disk, &options, Verify::Always)?;
    let mut txn = db.begin_write().map_err(unavailable)?;
    txn.set_quick_repair(true);
    let mut table = txn.open_table(META).map_err(unavailable)?;
    table
        .insert(meta::FORMAT, format.to_be_bytes().as_slice())
        .map_err(unavailable)?;
    drop(table);
    txn.commit().map_err(unavailable)?;
    Ok(())
}

fn check_audit_key(db: &Database, options: &OpenOptions) -> Result<(), OpenError> {
    let snapshot = db.begin_read().map_err(unavailable)?;
    let table = snapshot.open_table(META).map_err(unavailable)?;
    if meta_bytes(&table, meta::AUDIT_KEY)? == Some(options.audit_key.fingerprint()) {
        Ok(())
    } else {
        Err(OpenError::OtherAuditKey)
    }
}

fn check_identity(db: &Database, options: &OpenOptions) -> Result<Identity, OpenError> {
    check_audit_key(db, options)?;
    let snapshot = db.begin_read().map_err(unavailable)?;
    let table = snapshot.open_table(META).map_err(unavailable)?;
    let created = meta_bytes(&table, meta::CREATED)?.map_or(0, u64::from_be_bytes);
    let mut deployment = meta_bytes(&table, meta::DEPLOYMENT)?;
    match (deployment, options.deployment) {
        (Some(theirs), Some(ours)) if theirs != ours => return Err(OpenError::OtherDeployment),
        (None, Some(ours)) => {
            write_deployment(db, &ours)?;
            deployment = Some(ours);
        }
        (Some(_) | None, _) => {}
    }
    Ok(Identity {
        created: UNIX_EPOCH
            .checked_add(Duration::from_secs(created))
            .unwrap_or(UNIX_EPOCH),
        deployment,
        format: format_after(MIGRATIONS),
    })
}

fn write_deployment(db: &Database, id: &[u8; 16]) -> Result<(), Unavailable> {
    let mut txn = db.begin_write().map_err(unavailable)?;
    txn.set_quick_repair(true);
    let mut table = txn.open_table(META).map_err(unavailable)?;
    table
        .insert(meta::DEPLOYMENT, id.as_slice())
        .map_err(unavailable)?;
    drop(table);
    txn.commit().map_err(unavailable)
}

/// Deletes what hung on the leases of the last process. Nobody watches yet, but
/// the revision moves on: the state is no longer the one it named.
fn end_leases(db: &Database) -> Result<(), Unavailable> {
    let snapshot = db.begin_read().map_err(unavailable)?;
    let leased = snapshot.open_table(LEASED).map_err(unavailable)?;
    if leased.first().map_err(unavailable)?.is_none() {
        return Ok(());
    }
    drop((leased, snapshot));

    let mut txn = db.begin_write().map_err(unavailable)?;
    txn.set_quick_repair(true);
    {
        let mut leased = txn.open_table(LEASED).map_err(unavailable)?;
        let mut kv = txn.open_table(KV).map_err(unavailable)?;
        let mut table = txn.open_table(META).map_err(unavailable)?;
        while let Some((name, _)) = leased.pop_first().map_err(unavailable)? {
            kv.remove(name.value().1).map_err(unavailable)?;
        }
        let rev = tables::meta_rev(&table)?.0 + 1;
        table
            .insert(meta::REV, rev.to_be_bytes().as_slice())
            .map_err(unavailable)?;
    }
    txn.commit().map_err(unavailable)
}

fn seconds_of_the_epoch() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
