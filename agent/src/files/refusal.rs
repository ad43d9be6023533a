//! Why a file is not read or written, from what the kernel says.

use std::io;

use protocol::v1::{FileRefusal, FileRefused, file_reply};
use rustix::io::Errno;

/// A refusal in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: FileRefusal,
    pub(super) message: String,
}

/// How work on a file can end early.
#[derive(Debug)]
pub(super) enum Answer {
    /// With a refusal.
    Refused(Refusal),
    /// Nobody is there to be told.
    Gone,
}

impl Refusal {
    pub(super) fn new(code: FileRefusal, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// What `error` means for somebody who wanted to `verb` something.
    pub(super) fn of(verb: &str, error: io::Error) -> Self {
        let errno = Errno::from_io_error(&error);
        let (code, why) = match errno {
            Some(Errno::NOENT | Errno::NOTDIR) => {
                (FileRefusal::NotFound, "there is no such file or directory")
            }
            Some(Errno::ACCESS | Errno::PERM) => (
                FileRefusal::Permission,
                "the agent may not; it may run as another user than root, or the file may be immutable",
            ),
            Some(Errno::ROFS) => (FileRefusal::Permission, "the file system is read-only"),
            Some(Errno::EXIST) => (FileRefusal::Exists, "there is a file of that name"),
            Some(Errno::ISDIR) => (FileRefusal::IsDirectory, "it is a directory"),
            Some(Errno::NOSPC | Errno::DQUOT) => (FileRefusal::DiskFull, "the host's disk is full"),
            Some(Errno::FBIG) => (
                FileRefusal::TooLarge,
                "it is larger than the file system takes",
            ),
            Some(Errno::XDEV | Errno::LOOP) => (
                FileRefusal::Outside,
                "a link on the way leads out of what this host gives out, or in circles",
            ),
            Some(Errno::NXIO | Errno::NODEV) => (FileRefusal::NotAFile, "it is not a file"),
            Some(Errno::NAMETOOLONG) => (FileRefusal::Invalid, "a name in it is too long"),
            Some(Errno::TXTBSY | Errno::BUSY) => (FileRefusal::Busy, "it is in use"),
            Some(Errno::AGAIN) => (
                FileRefusal::Changed,
                "directories on the way are being renamed all the time",
            ),
            _ => return Self::new(FileRefusal::Io, format!("{verb}: {error}")),
        };
        Self::new(code, format!("{verb}: {why}"))
    }

    pub(super) fn into_body(self) -> file_reply::Body {
        file_reply::Body::Refused(FileRefused {
            code: self.code.into(),
            message: self.message,
        })
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// For `map_err` on calls into the kernel.
pub(super) fn to<E: Into<io::Error>>(verb: &str) -> impl FnOnce(E) -> Refusal {
    move |error| Refusal::of(verb, error.into())
}
