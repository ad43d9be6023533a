//! The whole store as a stream, and a store made of such a stream.
//!
//! An export is one read transaction: one committed state, whatever is written
//! meanwhile, and nobody waits for it. (The file grows while it lasts, because pages
//! that it may still read are not used again.) It is a listing and not a copy of
//! pages: a tenth of the size of a file with free pages, and a damaged page is met
//! while the backup is made and not when it is needed.
//!
//! ```text
//! chunk := entry*                     at most MAX_CHUNK_BYTES, entries are not cut
//! entry := kind (1) key length (4, BE) value length (4, BE) key value
//! kind  := 1 a name of `meta` | 2 a key of `kv` | 3 a request id, with its rev and age
//! ```
//!
//! Keys and values are those of the file's format (see `tables`), which is among the
//! meta entries: an import makes a file of the format that was exported, and opening
//! it migrates it. Keys under a lease stay out, since a lease ends with its process.
//!
//! *The revision of an import jumps* to the microseconds of the epoch. What was
//! committed between the export and the import is lost, and its revisions may live
//! on outside: in entity tags, in cursors, on machines. No store commits a million
//! times a second, so the clock is ahead of every revision that a life of this store
//! has ever given out, however often it was imported before, and no old revision can
//! be mistaken for one to come. (2^53, up to which JSON numbers are exact, is
//! reached in the year 2255.)

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use redb::{Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, WriteTransaction};

use super::backend::Disk;
use super::open::OpenError;
use super::tables::{
    self, KV, META, REQUEST_AGES, REQUESTS, Stored, meta, meta_bytes, unavailable,
};
use crate::{Item, Key, ReadError, Rev, Unavailable};

/// A chunk ends after the entry that reaches this size: large enough for the disk,
/// small enough for a queue of some.
const CHUNK_BYTES: usize = 256 * 1024;

/// No chunk is larger. A value is part of one batch, so it has a megabyte at most.
pub const MAX_CHUNK_BYTES: usize = 4 * 1024 * 1024;

/// So many bytes are one transaction of an import: memory, and not more fsyncs than
/// needed.
const IMPORT_GROUP_BYTES: usize = 32 * 1024 * 1024;

const HEADER: usize = 9;

const META_ENTRY: u8 = 1;
const KV_ENTRY: u8 = 2;
const REQUEST_ENTRY: u8 = 3;

/// One committed state of a store, ready to be read from beginning to end.
pub struct Export {
    rev: Rev,
    format: u32,
    deployment: Option<[u8; 16]>,
    meta: ReadOnlyTable<&'static str, &'static [u8]>,
    kv: ReadOnlyTable<&'static [u8], &'static [u8]>,
    requests: ReadOnlyTable<[u8; 16], (u64, u64)>,
    /// Of a store that nobody serves: keeps it locked. Dropped after the tables.
    _db: Option<Database>,
}

/// What an export or import went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// Entries.
    pub entries: u64,
    /// Their bytes, as exported.
    pub bytes: u64,
}

/// Why an export did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store cannot be read.
    #[error("read the store")]
    Unavailable(#[from] Unavailable),
    /// Whoever takes the chunks has no use for more.
    #[error("hand on what was read")]
    Sink(#[source] io::Error),
}

impl Export {
    /// Of the latest committed state of an open database.
    pub(super) fn begin(db: &Database) -> Result<Self, Unavailable> {
        let txn = db.begin_read().map_err(unavailable)?;
        let meta = txn.open_table(META).map_err(unavailable)?;
        let format = meta_bytes(&meta, meta::FORMAT)?.map_or(0, u32::from_be_bytes);
        Ok(Self {
            rev: tables::meta_rev(&meta)?,
            format,
            deployment: meta_bytes(&meta, meta::DEPLOYMENT)?,
            meta,
            kv: txn.open_table(KV).map_err(unavailable)?,
            requests: txn.open_table(REQUESTS).map_err(unavailable)?,
            _db: None,
        })
    }

    /// Of a store that no process has open; it stays locked as long as this lives.
    pub(super) fn of_stopped(db: Database) -> Result<Self, Unavailable> {
        let mut export = Self::begin(&db)?;
        export._db = Some(db);
        Ok(export)
    }

    /// The state this is of.
    pub fn rev(&self) -> Rev {
        self.rev
    }

    /// The format of the tables.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// Whose store it is, if it was ever told.
    pub fn deployment(&self) -> Option<[u8; 16]> {
        self.deployment
    }

    /// The item under `key` in this state.
    pub fn get(&self, key: &Key) -> Result<Option<Item>, ReadError> {
        let found = self.kv.get(key.as_bytes()).map_err(unavailable)?;
        let item = found.map(|found| Ok(tables::decode(key.as_bytes(), found.value())?.to_item()));
        item.transpose()
    }

    /// Hands everything to `sink`, chunk by chunk. Blocks.
    pub fn write(
        self,
        mut sink: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<Totals, ExportError> {
        let mut chunks = Chunks {
            chunk: Vec::with_capacity(CHUNK_BYTES + HEADER),
            totals: Totals::default(),
            sink: &mut sink,
        };
        // redb may panic on a page that is not what its checksums said at the start.
        let read = AssertUnwindSafe(|| self.read(&mut chunks));
        catch_unwind(read).unwrap_or_else(|_panic| {
            let what = "its pages do not fit together".to_owned();
            Err(Unavailable::Corrupt(what).into())
        })?;
        chunks.flush()?;
        Ok(chunks.totals)
    }

    fn read(&self, chunks: &mut Chunks<'_>) -> Result<(), ExportError> {
        for entry in self.meta.iter().map_err(unavailable)? {
            let (name, value) = entry.map_err(unavailable)?;
            chunks.push(META_ENTRY, name.value().as_bytes(), value.value())?;
        }
        for entry in self.kv.iter().map_err(unavailable)? {
            let (key, value) = entry.map_err(unavailable)?;
            let leased = Stored::decode(value.value()).is_some_and(|stored| stored.lease.is_some());
            if !leased {
                chunks.push(KV_ENTRY, key.value(), value.value())?;
            }
        }
        for entry in self.requests.iter().map_err(unavailable)? {
            let (id, about) = entry.map_err(unavailable)?;
            let (rev, seconds) = about.value();
            let mut value = [0; 16];
            value[..8].copy_from_slice(&rev.to_be_bytes());
            value[8..].copy_from_slice(&seconds.to_be_bytes());
            chunks.push(REQUEST_ENTRY, &id.value(), &value)?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export")
            .field("rev", &self.rev)
            .finish_non_exhaustive()
    }
}

struct Chunks<'a> {
    chunk: Vec<u8>,
    totals: Totals,
    sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
}

impl Chunks<'_> {
    fn push(&mut self, kind: u8, key: &[u8], value: &[u8]) -> Result<(), ExportError> {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes();
        let size = HEADER + key.len() + value.len();
        if size > MAX_CHUNK_BYTES {
            let what = format!("an entry of {size} bytes, which no batch can have written");
            return Err(Unavailable::Corrupt(what).into());
        }
        if self.chunk.len() + size > CHUNK_BYTES {
            self.flush()?;
        }
        self.chunk.push(kind);
        self.chunk.extend_from_slice(&length(key));
        self.chunk.extend_from_slice(&length(value));
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(value);
        self.totals.entries += 1;
        self.totals.bytes += size as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if !self.chunk.is_empty() {
            (self.sink)(&self.chunk).map_err(ExportError::Sink)?;
            self.chunk.clear();
        }
        Ok(())
    }
}

/// The bytes are not a chunk of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what an export of a store holds: {0}")]
pub struct BadChunk(&'static str);

/// Looks through a chunk without importing it; answers how many entries it has.
pub fn check_chunk(chunk: &[u8]) -> Result<u64, BadChunk> {
    let mut count = 0;
    for entry in Entries(chunk) {
        entry?;
        count += 1;
    }
    Ok(count)
}

enum Entry<'a> {
    Meta(&'a str, &'a [u8]),
    Kv(&'a [u8], &'a [u8]),
    Request([u8; 16], (u64, u64)),
}

/// Ends after the first fault.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, BadChunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let entry = self.entry();
        if entry.is_err() {
            self.0 = &[];
        }
        Some(entry)
    }
}

impl<'a> Entries<'a> {
    fn entry(&mut self) -> Result<Entry<'a>, BadChunk> {
        let cut = BadChunk("an entry is cut");
        let (kind, rest) = self.0.split_first().ok_or(cut)?;
        let (key_length, rest) = rest.split_first_chunk().ok_or(cut)?;
        let (value_length, rest) = rest.split_first_chunk().ok_or(cut)?;
        let length = |bytes: &[u8; 4]| usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| cut);
        let (key, rest) = rest.split_at_checked(length(key_length)?).ok_or(cut)?;
        let (value, rest) = rest.split_at_checked(length(value_length)?).ok_or(cut)?;
        self.0 = rest;
        match *kind {
            META_ENTRY => str::from_utf8(key)
                .map(|name| Entry::Meta(name, value))
                .map_err(|_| BadChunk("a name is not text")),
            KV_ENTRY if Stored::decode(value).is_none() => {
                Err(BadChunk("a value is shorter than its header"))
            }
            KV_ENTRY => Ok(Entry::Kv(key, value)),
            REQUEST_ENTRY => {
                let wrong = BadChunk("a request has the wrong length");
                let id = key.try_into().map_err(|_| wrong)?;
                let (rev, seconds) = value.split_first_chunk().ok_or(wrong)?;
                let seconds = seconds.try_into().map_err(|_| wrong)?;
                let about = (u64::from_be_bytes(*rev), u64::from_be_bytes(seconds));
                Ok(Entry::Request(id, about))
            }
            _ => Err(BadChunk("an entry is of an unknown kind")),
        }
    }
}

/// Why an import did not happen. What was made so far is no store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The chunks do not make a store.
    #[error(transparent)]
    Chunk(#[from] BadChunk),
    /// The file cannot be made or written.
    #[error("make the store")]
    Make(#[from] OpenError),
}

impl From<Unavailable> for ImportError {
    fn from(error: Unavailable) -> Self {
        Self::Make(error.into())
    }
}

/// A store in the making.
pub struct Import {
    path: PathBuf,
    txn: Option<WriteTransaction>,
    in_txn: usize,
    totals: Totals,
    // After the transaction: it is dropped first.
    db: Database,
}

impl Import {
    /// Begins with an empty file at `path`, where nothing may be.
    pub fn create(path: &Path) -> Result<Self, ImportError> {
        let io = |action| move |source| OpenError::Io { action, source };
        File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io("make the store's file"))?;
        let backend = Disk::file(path).backend();
        let db = Database::builder()
            .create_with_backend(backend.map_err(io("open the store's file"))?)
            .map_err(unavailable)?;
        let txn = db.begin_write().map_err(unavailable)?;
        tables::create_all(&txn)?;
        Ok(Self {
            path: path.to_owned(),
            txn: Some(txn),
            in_txn: 0,
            totals: Totals::default(),
            db,
        })
    }

    /// Takes the next chunk. Blocks.
    pub fn chunk(&mut self, chunk: &[u8]) -> Result<(), ImportError> {
        let txn = match self.txn.take() {
            Some(txn) => txn,
            None => self.db.begin_write().map_err(unavailable)?,
        };
        self.totals.entries += insert(&txn, chunk)?;
        self.totals.bytes += chunk.len() as u64;
        self.in_txn += chunk.len();
        if self.in_txn < IMPORT_GROUP_BYTES {
            self.txn = Some(txn);
        } else {
            self.in_txn = 0;
            txn.commit().map_err(unavailable)?;
        }
        Ok(())
    }

    /// Ends the import: the revision jumps (see the head of the module), and the file
    /// is complete and on disk. Answers the new revision.
    pub fn finish(mut self, now: SystemTime) -> Result<(Rev, Totals), ImportError> {
        let mut txn = match self.txn.take() {
            Some(txn) => txn,
            None => self.db.begin_write().map_err(unavailable)?,
        };
        txn.set_quick_repair(true);
        let micros = now
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros());
        let table = txn.open_table(META).map_err(unavailable)?;
        if meta_bytes::<4>(&table, meta::FORMAT)?.is_none() {
            return Err(BadChunk("it names no format").into());
        }
        let before = tables::meta_rev(&table)?.0;
        drop(table);
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        let rev = micros.max(before.saturating_add(1));
        let mut table = txn.open_table(META).map_err(unavailable)?;
        table
            .insert(meta::REV, rev.to_be_bytes().as_slice())
            .map_err(unavailable)?;
        drop(table);
        txn.commit().map_err(unavailable)?;
        let Self {
            path, totals, db, ..
        } = self;
        db.close().map_err(unavailable)?;
        let sync = File::open(&path).and_then(|file| file.sync_all());
        sync.map_err(|source| OpenError::Io {
            action: "sync the new store",
            source,
        })?;
        Ok((Rev(rev), totals))
    }
}

impl std::fmt::Debug for Import {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Import")
            .field("path", &self.path)
            .field("totals", &self.totals)
            .finish_non_exhaustive()
    }
}

fn insert(txn: &WriteTransaction, chunk: &[u8]) -> Result<u64, ImportError> {
    let mut meta = txn.open_table(META).map_err(unavailable)?;
    let mut kv = txn.open_table(KV).map_err(unavailable)?;
    let mut requests = txn.open_table(REQUESTS).map_err(unavailable)?;
    let mut ages = txn.open_table(REQUEST_AGES).map_err(unavailable)?;
    let mut count = 0;
    for entry in Entries(chunk) {
        match entry? {
            Entry::Meta(name, value) => {
                meta.insert(name, value).map_err(unavailable)?;
            }
            Entry::Kv(key, value) => {
                kv.insert(key, value).map_err(unavailable)?;
            }
            Entry::Request(id, about) => {
                requests.insert(id, about).map_err(unavailable)?;
                ages.insert((about.1, id), ()).map_err(unavailable)?;
            }
        }
        count += 1;
    }
    Ok(count)
}
