//! Private files: written whole or not at all, readable by this program's user alone.
//!
//! Everything secret that the gateway keeps (server keys, authorities, the owner's
//! secret) goes through here. A write is: temporary file beside the target, mode
//! 0600 from the moment it exists, fsync, rename, fsync of the folder. After a crash
//! the old content or the new one is there, never a mixture and never nothing; a
//! temporary left behind is replaced by the next write.
//!
//! A file that others can read is refused rather than repaired: whoever changed the
//! mode may have read it already, and a person must decide what that means. Only an
//! empty folder, in which there was nothing to read, is closed without a word.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Why a private file or folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{verb} {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it did not work.
        #[source]
        source: io::Error,
    },
    /// Others can read or change it.
    #[error(
        "{path} is open to others (mode {mode:o}): find out who has read it, then set it with \
         chmod {wanted:o}"
    )]
    TooOpen {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// Not what this program wrote.
    #[error(
        "{path} has more than {limit} bytes, so it is not what belongs there: restore it from a backup"
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// A folder, a pipe, a device.
    #[error("{path} is not a regular {wanted}: move it away or name another path")]
    WrongKind {
        /// What stands there.
        path: PathBuf,
        /// What should.
        wanted: &'static str,
    },
}

/// Makes `path` and its missing parents with mode 0700, or makes sure that an
/// existing folder is private. An empty one that is open is closed.
pub fn ensure_private_dir(path: &Path) -> Result<(), FileError> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err(FileError::WrongKind {
            path: path.to_owned(),
            wanted: "folder",
        }),
        Ok(found) if found.permissions().mode() & 0o077 != 0 && is_empty(path)? => {
            // Nothing was in it that anybody could have read: made by hand a moment ago.
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(path, private).map_err(io_error("close to others", path))
        }
        Ok(found) => check_mode(path, found.permissions().mode(), 0o077, 0o700),
        Err(error) if error.kind() == io::ErrorKind::NotFound => DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .and_then(|()| sync_dir(parent_of(path)))
            .map_err(io_error("create folder", path)),
        Err(error) => Err(io_error("look at", path)(error)),
    }
}

fn is_empty(dir: &Path) -> Result<bool, FileError> {
    let mut entries = fs::read_dir(dir).map_err(io_error("list", dir))?;
    Ok(entries.next().is_none())
}

/// Puts `bytes` at `path`, in place of what is there.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let temporary = write_temporary(path, bytes)?;
    fs::rename(&temporary, path).map_err(io_error("put in place", path))?;
    sync_dir(parent_of(path)).map_err(io_error("sync the folder of", path))
}

/// Puts `bytes` at `path` unless something is there; says whether it did. Of several
/// processes that try, exactly one does.
pub fn create_private(path: &Path, bytes: &[u8]) -> Result<bool, FileError> {
    let temporary = write_temporary(path, bytes)?;
    // A link, unlike a rename, does not replace.
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary).map_err(io_error("remove", &temporary))?;
    match linked {
        Ok(()) => {
            sync_dir(parent_of(path)).map_err(io_error("sync the folder of", path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(io_error("create", path)(error)),
    }
}

/// The content of a file of this program's own; nothing when it is absent.
pub fn read_private(path: &Path, limit: u64) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    read(path, limit, 0o077, 0o600)
}

/// The content of a secret file that an operator made. Readable by a group is fine:
/// that is how distributions share TLS keys among services.
pub fn read_operator_secret(path: &Path, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    read(path, limit, 0o027, 0o640)?.ok_or_else(|| absent(path))
}

/// The content of a file that is no secret.
pub fn read_public(path: &Path, limit: u64) -> Result<Vec<u8>, FileError> {
    // Changed by others would still be a way in.
    let mut bytes = read(path, limit, 0o002, 0o644)?.ok_or_else(|| absent(path))?;
    Ok(std::mem::take(&mut *bytes))
}

/// Removes `path` durably; says whether it was there.
pub fn remove_private(path: &Path) -> Result<bool, FileError> {
    match fs::remove_file(path) {
        Ok(()) => {
            sync_dir(parent_of(path)).map_err(io_error("sync the folder of", path))?;
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io_error("remove", path)(error)),
    }
}

fn read(
    path: &Path,
    limit: u64,
    forbidden: u32,
    wanted: u32,
) -> Result<Option<Zeroizing<Vec<u8>>>, FileError> {
    // A pipe in its place must not block the start.
    let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("open", path)(error)),
    };
    let found = file.metadata().map_err(io_error("look at", path))?;
    if !found.is_file() {
        return Err(FileError::WrongKind {
            path: path.to_owned(),
            wanted: "file",
        });
    }
    check_mode(path, found.permissions().mode(), forbidden, wanted)?;
    if found.len() > limit {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    // Room for all of it at once: a growing buffer would leave copies in freed memory.
    let room = usize::try_from(found.len()).unwrap_or(0).saturating_add(1);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    file.take(limit)
        .read_to_end(&mut bytes)
        .map_err(io_error("read", path))?;
    Ok(Some(bytes))
}

fn check_mode(path: &Path, mode: u32, forbidden: u32, wanted: u32) -> Result<(), FileError> {
    if mode & forbidden == 0 {
        Ok(())
    } else {
        Err(FileError::TooOpen {
            path: path.to_owned(),
            mode: mode & 0o7777,
            wanted,
        })
    }
}

fn write_temporary(path: &Path, bytes: &[u8]) -> Result<PathBuf, FileError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    // What an earlier crash left may have any mode and owner.
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &temporary)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(io_error("create", &temporary))?;
    file.write_all(bytes)
        .map_err(io_error("write", &temporary))?;
    file.sync_all().map_err(io_error("sync", &temporary))?;
    Ok(temporary)
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn absent(path: &Path) -> FileError {
    io_error("open", path)(io::ErrorKind::NotFound.into())
}

fn io_error(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FileError {
    move |source| FileError::Io {
        verb,
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_is_written_is_private_and_replaces_the_old() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("a/b");
        ensure_private_dir(&dir).unwrap();
        assert_eq!(mode(&dir), 0o700);
        let path = dir.join("secret");
        write_private(&path, b"old").unwrap();
        write_private(&path, b"new").unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(
            read_private(&path, 100).unwrap().unwrap().as_slice(),
            b"new"
        );
        assert_eq!(
            fs::read_dir(&dir).unwrap().count(),
            1,
            "no temporary is left"
        );
    }

    #[test]
    fn a_temporary_of_an_earlier_crash_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        fs::write(root.path().join(".secret.tmp"), "half").unwrap();
        write_private(&path, b"whole").unwrap();
        assert_eq!(
            read_private(&path, 100).unwrap().unwrap().as_slice(),
            b"whole"
        );
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn creating_never_replaces() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        assert!(create_private(&path, b"first").unwrap());
        assert!(!create_private(&path, b"second").unwrap());
        assert_eq!(
            read_private(&path, 100).unwrap().unwrap().as_slice(),
            b"first"
        );
        assert!(remove_private(&path).unwrap());
        assert!(!remove_private(&path).unwrap());
        assert!(read_private(&path, 100).unwrap().is_none());
    }

    #[test]
    fn files_open_to_others_are_refused_by_name_and_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        write_private(&path, b"x").unwrap();
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        set(0o640);
        let text = read_private(&path, 100).unwrap_err().to_string();
        assert!(
            text.contains("secret is open to others (mode 640)"),
            "{text}"
        );
        assert!(text.contains("chmod 600"), "{text}");
        assert!(
            read_operator_secret(&path, 100).is_ok(),
            "a group may share a TLS key"
        );
        set(0o644);
        assert!(matches!(
            read_operator_secret(&path, 100),
            Err(FileError::TooOpen { .. })
        ));
        assert!(read_public(&path, 100).is_ok());
        set(0o646);
        assert!(matches!(
            read_public(&path, 100),
            Err(FileError::TooOpen { .. })
        ));

        let dir = root.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let open = || fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        open();
        ensure_private_dir(&dir).expect("there was nothing to read in it");
        assert_eq!(mode(&dir), 0o700);
        open();
        fs::write(dir.join("state"), "x").unwrap();
        assert!(matches!(
            ensure_private_dir(&dir),
            Err(FileError::TooOpen { .. })
        ));
        assert_eq!(mode(&dir), 0o755, "for a person to look at");
    }

    #[test]
    fn what_is_too_large_or_no_file_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("secret");
        write_private(&path, &[0; 101]).unwrap();
        assert!(matches!(
            read_private(&path, 100),
            Err(FileError::TooLarge { .. })
        ));
        assert!(read_private(&path, 101).is_ok());
        assert!(matches!(
            read_private(root.path(), 100),
            Err(FileError::WrongKind { .. })
        ));
        assert!(matches!(
            ensure_private_dir(&path),
            Err(FileError::WrongKind { .. })
        ));
        assert!(matches!(
            read_public(&root.path().join("no"), 9),
            Err(FileError::Io { .. })
        ));
    }
}
