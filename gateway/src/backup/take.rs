//! Takes a backup: one state of the store, and the files that belong to it.
//!
//! Keys and authorities are files beside the store, so they are read before and after
//! the store's state is fixed, until both readings agree: what is taken was true at one
//! moment. Objects are never changed, and are read last: those that the state refers
//! to are among them.

use std::fs;
use std::io::{self, Read as _, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use gateway_store::{Export, OpenOptions, Record as _, RedbStore};
use model::Timestamp;
use zeroize::Zeroizing;

use super::BackupError;
use super::format::{Head, Writer};
use super::part::{OBJECTS, Part};
use crate::files;
use crate::keys::ServerKeys;
use crate::state::records::RestoredRecordV1;

/// Far above what any of the files has.
const FILE_LIMIT: u64 = 1 << 20;
/// Rotations and backups that meet: once is bad luck.
const ATTEMPTS: usize = 5;
/// Data of objects is read in such pieces.
const PIECE: usize = 256 * 1024;

/// A state, fixed, and ready to be written.
#[derive(Debug)]
pub struct Taken {
    head: Head,
    state: PathBuf,
    files: Vec<(Part, Secret)>,
    export: Export,
}

/// Bytes that no `Debug` shows.
#[derive(PartialEq, Eq)]
struct Secret(Zeroizing<Vec<u8>>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("hidden")
    }
}

/// Of a gateway that runs, on its own store.
pub async fn of_running(
    store: &RedbStore,
    state: &Path,
    now: Timestamp,
) -> Result<Taken, BackupError> {
    let mut before = read_files(state)?;
    for _ in 0..ATTEMPTS {
        let export = store.export().await?;
        let after = read_files(state)?;
        if before == after {
            return Taken::new(state, after, export, now, true);
        }
        before = after;
    }
    Err(BackupError::Unsteady)
}

/// Of a gateway that does not run. The store is locked until the backup is written.
/// Blocks.
pub fn of_stopped(state: &Path, now: Timestamp) -> Result<Taken, BackupError> {
    super::restore::refuse_unfinished(state)?;
    let store = Part::Store.path(state);
    if !store.exists() {
        return Err(BackupError::NoState {
            dir: state.to_owned(),
        });
    }
    let keys = ServerKeys::load(&state.join("keys"))?;
    let options = OpenOptions::new(keys.audit_key());
    let export = RedbStore::export_stopped(store, &options)?;
    Taken::new(state, read_files(state)?, export, now, false)
}

impl Taken {
    fn new(
        state: &Path,
        files: Vec<(Part, Secret)>,
        export: Export,
        made_at: Timestamp,
        running: bool,
    ) -> Result<Self, BackupError> {
        let deployment = files
            .iter()
            .find(|(part, _)| *part == Part::Deployment)
            .and_then(|(_, bytes)| str::from_utf8(&bytes.0).ok()?.trim().parse().ok());
        let Some(deployment) = deployment else {
            return Err(BackupError::NoState {
                dir: state.to_owned(),
            });
        };
        let restored = export
            .get(&RestoredRecordV1::the_key())
            .map_err(fence_unreadable)?
            .map(|item| RestoredRecordV1::decode(&item.value))
            .transpose()
            .map_err(fence_unreadable)?;
        Ok(Self {
            head: Head {
                deployment,
                made_at,
                product: env!("CARGO_PKG_VERSION").to_owned(),
                store_format: export.format(),
                revision: export.rev().number(),
                incarnation: restored.map_or(0, |restored| restored.incarnation),
                running,
            },
            state: state.to_owned(),
            files,
            export,
        })
    }

    /// What this is of.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Writes the backup. Blocks.
    pub fn write<W: Write>(self, sink: W) -> Result<W, BackupError> {
        let mut writer = Writer::new(sink, &self.head)?;
        for (part, bytes) in &self.files {
            writer.part(*part, |data| data(&bytes.0).map_err(stream))?;
        }
        let export = self.export;
        writer.part(Part::Store, |data| {
            export.write(data).map(drop).map_err(BackupError::from)
        })?;
        for digest in objects(&self.state)? {
            let part = Part::Object(digest);
            let path = part.path(&self.state);
            writer.part(part, |data| copy(&path, data))?;
        }
        writer.finish()
    }
}

fn copy(path: &Path, data: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), BackupError> {
    let mut file = fs::File::open(path).map_err(BackupError::io("open", path))?;
    let mut piece = vec![0; PIECE];
    loop {
        match file
            .read(&mut piece)
            .map_err(BackupError::io("read", path))?
        {
            0 => return Ok(()),
            length => data(&piece[..length]).map_err(stream)?,
        }
    }
}

fn read_files(state: &Path) -> Result<Vec<(Part, Secret)>, BackupError> {
    let mut files = Vec::new();
    for part in Part::FILES {
        let found = files::read_private(&part.path(state), FILE_LIMIT)?;
        match found {
            Some(bytes) => files.push((part, Secret(bytes))),
            // The operator's own certificate is in use.
            None if part == Part::HttpsKey => {}
            None => {
                return Err(BackupError::NoState {
                    dir: state.to_owned(),
                });
            }
        }
    }
    Ok(files)
}

/// The objects in the state folder, in order. What has another name is none: staged
/// bytes, for one.
fn objects(state: &Path) -> Result<Vec<[u8; 32]>, BackupError> {
    let mut found = Vec::new();
    for folder in entries(&state.join(OBJECTS))? {
        if !folder.is_dir() {
            continue;
        }
        for file in entries(&folder)? {
            let name = file.file_name().unwrap_or_default().as_encoded_bytes();
            let digest = HEXLOWER.decode(name).ok();
            if let Some(digest) = digest.and_then(|digest| digest.try_into().ok())
                && Part::Object(digest).path(state) == file
            {
                found.push(digest);
            }
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Nothing where there is no folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let list = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        list => list.map_err(BackupError::io("list", folder))?,
    };
    list.map(|entry| entry.map(|entry| entry.path()))
        .collect::<io::Result<_>>()
        .map_err(BackupError::io("list", folder))
}

fn stream(source: io::Error) -> BackupError {
    BackupError::Stream {
        action: "write",
        source,
    }
}

fn fence_unreadable(error: impl std::error::Error + Send + Sync + 'static) -> BackupError {
    BackupError::Fence(Box::new(error))
}
