//! Uploads that are not finished.
//!
//! What has come of one lies in `.loopback-<transfer>.part` beside its final name, where
//! the rename that finishes it is atomic. Nobody would find such a file who does not know
//! of it, so it is noted in the agent's own state before it is made: one small file per
//! transfer, which says in which directory the part is.
//!
//! [`sweep`] looks at the notes. A part that nobody has written to for a day is removed
//! with its note; a note whose part is gone goes too. Only files of exactly that name are
//! ever removed, in the directory that was noted, opened as any request's would be.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use data_encoding::HEXLOWER;
use model::file::HostPath;
use protocol::v1::FileRefusal;
use rustix::fs::{AtFlags, FileType, FlockOperation, OFlags};
use serde::{Deserialize, Serialize};

use super::Settings;
use super::place::{Place, Spot};
use super::refusal::{Refusal, to};

/// How often to sweep.
pub const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// How long to wait for the rest of an upload: over a night, say.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// Unfinished uploads at a time. Each was begun by somebody who may write files anyway;
/// this keeps notes from growing without anybody's notice.
const MOST: usize = 256;
/// A note is a path.
const MAX_NOTE: u64 = 64 << 10;
const FOLDER: &str = "uploads";

/// Names a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transfer(String);

#[derive(Serialize, Deserialize)]
struct Note {
    directory: HostPath,
}

impl Transfer {
    pub(super) fn of(bytes: &[u8]) -> Result<Self, Refusal> {
        if bytes.len() == 16 {
            Ok(Self(HEXLOWER.encode(bytes)))
        } else {
            Err(super::invalid("a transfer is named by 16 bytes"))
        }
    }

    /// The name of its part.
    pub(super) fn part(&self) -> String {
        format!(".loopback-{}.part", self.0)
    }

    fn of_note(name: &OsStr) -> Option<Self> {
        let bytes = HEXLOWER.decode(name.as_encoded_bytes()).ok()?;
        Self::of(&bytes).ok()
    }

    fn note(&self, state: &Path) -> PathBuf {
        state.join(FOLDER).join(&self.0)
    }
}

/// Notes that the part of `transfer` will be beside `path`.
pub(super) fn note(state: &Path, transfer: &Transfer, path: &HostPath) -> Result<(), Refusal> {
    let place = transfer.note(state);
    if place.exists() {
        return Ok(());
    }
    let directory = path
        .as_str()
        .rsplit_once('/')
        .map_or("", |(parents, _)| parents);
    let directory = if directory.is_empty() { "/" } else { directory };
    let directory = directory.parse().map_err(super::invalid)?;
    let write = || -> io::Result<bool> {
        let folder = state.join(FOLDER);
        fs::create_dir_all(&folder)?;
        if fs::read_dir(&folder)?.count() >= MOST {
            return Ok(false);
        }
        let unfinished = folder.join(format!("{}.new", transfer.0));
        let mut file = fs::File::create(&unfinished)?;
        serde_json::to_writer(&mut file, &Note { directory })?;
        file.flush()?;
        file.sync_all()?;
        fs::rename(&unfinished, &place)?;
        fs::File::open(&folder)?.sync_all()?;
        Ok(true)
    };
    if write().map_err(to("note the upload"))? {
        Ok(())
    } else {
        Err(Refusal::new(
            FileRefusal::Busy,
            "too many uploads to this host were begun and not finished; finish some, or wait a day",
        ))
    }
}

/// Forgets a transfer whose part is gone.
pub(super) fn forget(state: &Path, transfer: &Transfer) {
    // The next sweep finds that there is no part.
    let _ = fs::remove_file(transfer.note(state));
}

/// Whether there is anything to sweep.
pub fn has_notes(state_dir: &Path) -> bool {
    fs::read_dir(state_dir.join(FOLDER)).is_ok_and(|mut notes| notes.next().is_some())
}

/// Removes what was given up. To be run where files can be removed: what cannot be is
/// forgotten in the end.
pub fn sweep(settings: &Settings) {
    let Ok(notes) = fs::read_dir(settings.state_dir.join(FOLDER)) else {
        return;
    };
    for entry in notes.filter_map(Result::ok) {
        let Some(transfer) = Transfer::of_note(&entry.file_name()) else {
            // A note that was being written when the power went.
            if is_old(entry.metadata().and_then(|it| it.modified()).ok()) {
                let _ = fs::remove_file(entry.path());
            }
            continue;
        };
        let noted = entry.metadata().and_then(|it| it.modified()).ok();
        if is_over(settings, &transfer, noted) {
            forget(&settings.state_dir, &transfer);
        }
    }
}

/// Whether there is nothing to remember of a transfer, its part being gone.
fn is_over(settings: &Settings, transfer: &Transfer, noted: Option<SystemTime>) -> bool {
    let path = transfer.note(&settings.state_dir);
    let note = fs::metadata(&path)
        .is_ok_and(|it| it.len() <= MAX_NOTE)
        .then(|| fs::read(&path).ok())
        .flatten()
        .and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    let Some(Note { directory }) = note else {
        return is_old(noted);
    };
    match remove_if_old(settings, transfer, &directory) {
        Ok(gone) => gone && is_old(noted),
        // Not given out any more, not mounted, read-only: there is nothing to be done.
        Err(refusal) => {
            tracing::debug!(why = %refusal.message, %directory, "cannot look for an abandoned upload");
            is_old(noted)
        }
    }
}

fn remove_if_old(
    settings: &Settings,
    transfer: &Transfer,
    directory: &HostPath,
) -> Result<bool, Refusal> {
    let part = transfer.part();
    let path = format!("{}/{part}", directory.as_str().trim_end_matches('/'));
    let path = path.parse().map_err(super::invalid)?;
    let spot = Place::find(&settings.roots, &path, settings.resolver)?.spot(false)?;
    let Some(stat) = spot.look(&part)? else {
        return Ok(true);
    };
    let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
    let written = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    let ours = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !ours || !is_old(written) || is_in_use(&spot, &part) {
        return Ok(false);
    }
    remove(&spot, &part)?;
    tracing::info!(%directory, "removed what was left of an upload that was given up");
    Ok(true)
}

fn is_in_use(spot: &Spot, part: &str) -> bool {
    let Ok(file) = spot.open_own(part, OFlags::empty()) else {
        return true;
    };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Removes a part.
pub(super) fn remove(spot: &Spot, part: &str) -> Result<(), Refusal> {
    rustix::fs::unlinkat(&spot.directory, part, AtFlags::empty())
        .map_err(to("remove what was left of an upload"))
}

/// A clock that went back makes nothing old.
fn is_old(since: Option<SystemTime>) -> bool {
    since
        .and_then(|since| since.elapsed().ok())
        .is_some_and(|age| age > KEPT)
}
