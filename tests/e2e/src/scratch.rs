//! Temporary folders that do not outlive their process, not even when it is killed.
//!
//! A scratch folder holds a file lock as long as its process lives. Dropping it removes it; making
//! one first removes those whose lock nobody holds any more. Whatever was in them, sockets, keys or
//! a gateway's state, belonged to a run that is over.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

const PREFIX: &str = "loopback-scratch-";
const LOCK: &str = "in-use.lock";

/// A folder of this process.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// An empty folder, only for this user.
    pub fn new() -> Result<Self> {
        Self::below(&std::env::temp_dir())
    }

    fn below(parent: &Path) -> Result<Self> {
        sweep(parent);
        let folder = tempfile::Builder::new()
            .prefix(PREFIX)
            .tempdir_in(parent)
            .with_context(|| format!("make a folder in {}", parent.display()))?;
        // Locked before it has its name: a sweep in between would take it for a dead one.
        let fresh = folder.path().join("in-use.new");
        let lock = File::create_new(&fresh).context("create the folder's lock")?;
        lock.lock().context("lock the folder")?;
        fs::rename(&fresh, folder.path().join(LOCK)).context("name the folder's lock")?;
        Ok(Self {
            folder,
            _lock: lock,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Removes folders of dead processes, as far as this user may.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // No lock file: it is being made this very moment.
        if File::open(entry.path().join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok()) {
            // Somebody else's folder stays theirs.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_folder_is_removed_and_a_live_one_stays() {
        let parent = tempfile::tempdir().unwrap();
        let live = Scratch::below(parent.path()).unwrap();
        let dead = parent.path().join(format!("{PREFIX}dead"));
        fs::create_dir_all(dead.join("state")).unwrap();
        fs::write(dead.join(LOCK), "").unwrap();
        let other = parent.path().join("of-somebody-else");
        fs::create_dir(&other).unwrap();
        fs::write(other.join(LOCK), "").unwrap();

        let second = Scratch::below(parent.path()).unwrap();
        assert!(!dead.exists());
        assert!(live.path().exists() && second.path().exists() && other.exists());

        let gone = live.path().to_owned();
        drop(live);
        assert!(!gone.exists());
    }
}
