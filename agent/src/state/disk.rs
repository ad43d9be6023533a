//! Writing a file so that a crash leaves the old content or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What unfinished files begin with.
pub(super) const TEMPORARY: &str = ".new-";

/// The disk. In tests it can be made to fail at a chosen step.
#[derive(Debug, Default)]
pub struct Disk {
    #[cfg(test)]
    steps_left: std::cell::Cell<Option<u32>>,
}

impl Disk {
    /// Puts `bytes` into `dir/name`, readable by its owner only.
    pub(super) fn write(&self, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = dir.join(format!("{TEMPORARY}{name}"));
        let written = self.write_temporary(&temporary, bytes).and_then(|()| {
            self.step()?;
            fs::rename(&temporary, dir.join(name))
        });
        if written.is_err() {
            // A full disk wants its space back.
            let _ = fs::remove_file(&temporary);
            return written;
        }
        self.step()?;
        sync_dir(dir)
    }

    fn write_temporary(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.step()?;
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)?;
        self.step()?;
        file.write_all(bytes)?;
        self.step()?;
        file.sync_all()
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self, reason = "the twin for tests counts")]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        match self.steps_left.get() {
            None => Ok(()),
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                self.steps_left.set(Some(left - 1));
                Ok(())
            }
        }
    }

    /// Fails for ever after `steps` steps.
    #[cfg(test)]
    pub(super) fn fail_after(&self, steps: u32) {
        self.steps_left.set(Some(steps));
    }

    #[cfg(test)]
    pub(super) fn repair(&self) {
        self.steps_left.set(None);
    }
}

/// A rename is on disk when its folder is.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
