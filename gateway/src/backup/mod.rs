//! Backup and restore of a whole deployment: one file, taken while the gateway runs.
//!
//! ```text
//! loopback-gateway backup FILE ──admin socket──► gateway ─► one read transaction ─┐
//!        ▲                                                  keys, authorities ────┤
//!        └───────────────── the file's bytes, checked as they arrive ◄────────────┘
//!
//! loopback-gateway restore FILE ─► DIR/.restore/… ─► checked ─► fenced ─► put in place
//! ```
//!
//! *What is in it*: the store, the server's keys, the certificate authorities, the key
//! of the internal HTTPS certificate, the deployment's id, objects. Not the
//! configuration, the operator's own HTTPS certificate and agent releases: they are
//! files that somebody else owns. The owner's secret of a deployment without an owner
//! is made anew.
//!
//! *A backup holds every secret of the deployment* and is not encrypted: `-` writes it
//! to a pipe, where any program can encrypt it (docs/backup.md shows age). The `age`
//! crate was looked at and left out: it brings a translation framework and some sixty
//! crates into a process that listens to the world, for what a pipe does.
//!
//! *What a restore must not undo.* The world has gone on since the backup, so whatever
//! is compared with something outside must not repeat:
//! * revisions of the store jump ahead of all that were ever given out
//!   (`gateway_store`'s export says why that holds), and the revision at which the
//!   restored life begins is the *incarnation* ([`crate::state::records::RestoredRecordV1`]):
//!   whoever sends something to a host that must not happen twice puts a number on
//!   it that is no less;
//! * the version of the trust bundle jumps likewise, so that hosts take the bundle of
//!   the restored gateway and every later one;
//! * the audit chain goes on, with the entry `system.restored`.
//!
//! Hosts keep their identity; one that is newer than the backup is taken in again
//! (`link/session/admit.rs`), and a counter that is ahead of ours is believed
//! (`gateway_core::clone`).
//!
//! Modules: [`mod@format`] is the file, [`part`] the names of what is in it, [`take`]
//! makes one, [`restore`] puts one in place.

pub mod format;
pub mod part;
pub mod restore;
pub mod take;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};

use gateway_store::{ExportError, ImportError, OpenError, Unavailable};

use crate::ca::CaError;
use crate::files::FileError;
use crate::keys::KeysError;

/// Why there is no backup, or why one is not used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else.
    #[error("this is not a backup of a gateway")]
    NotABackup,
    /// A later release wrote it.
    #[error(
        "the backup has format {found}, this build reads up to {supported}: use the release that \
         made it, or a later one"
    )]
    Newer {
        /// The file's.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// A later release wrote what is in it.
    #[error(
        "the backup was made by release {product}, whose store has format {found}; this build knows \
         up to {supported}: restore it with that release or a later one"
    )]
    NewerStore {
        /// Who made it.
        product: String,
        /// The format of its store.
        found: u32,
        /// Ours.
        supported: u32,
    },
    /// It ends too early.
    #[error(
        "the backup is cut off after {at} bytes: it was not written or copied to its end; use \
         another one"
    )]
    Truncated {
        /// How far it goes.
        at: u64,
    },
    /// It is not what was written.
    #[error("the backup is damaged near byte {at} ({what}): use another one")]
    Damaged {
        /// Where that shows.
        at: u64,
        /// How.
        what: String,
    },
    /// There is something where the state should go.
    #[error(
        "{dir} is not empty ({found} lies there): restore into an empty folder; nothing was changed"
    )]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
        /// Something in it.
        found: String,
    },
    /// A restore was cut short there.
    #[error(
        "a restore into {dir} did not come to its end, so what is there is no state: restore the \
         backup into it again"
    )]
    Unfinished {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder to restore into is unusable.
    #[error("use the folder to restore into")]
    Folder(#[from] FileError),
    /// The file to write is there already.
    #[error("{path} is there already: name another file; nothing was overwritten")]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The backup cannot be read, or cannot be handed on.
    #[error("{action} the backup")]
    Stream {
        /// What was tried.
        action: &'static str,
        /// What it said.
        #[source]
        source: io::Error,
    },
    /// The store does not open.
    #[error("open the store")]
    Open(#[from] OpenError),
    /// The store cannot be read.
    #[error("read the store")]
    Export(#[from] ExportError),
    /// The store cannot be made.
    #[error("make the store anew")]
    Import(#[from] ImportError),
    /// The restored store cannot be written to.
    #[error("write down that the state was restored")]
    Fence(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The keys in the state folder, or in the backup, are unusable.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The authorities are unusable.
    #[error(transparent)]
    Authorities(#[from] CaError),
    /// There is no state to back up.
    #[error("{dir} holds no state of a gateway: check --state-dir, or the configuration")]
    NoState {
        /// The folder.
        dir: PathBuf,
    },
    /// Keys or authorities kept changing.
    #[error("keys or authorities changed again and again meanwhile; try again in a minute")]
    Unsteady,
    /// The gateway that runs does not make one.
    #[error("the gateway makes no backup: {0}")]
    Refused(String),
}

impl BackupError {
    /// A word for scripts: stable, never reworded.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotABackup => "backup_not_recognised",
            Self::Newer { .. } | Self::NewerStore { .. } => "backup_newer",
            Self::Truncated { .. } => "backup_truncated",
            Self::Damaged { .. } => "backup_damaged",
            Self::NotEmpty { .. } => "state_dir_not_empty",
            Self::Unfinished { .. } => "restore_unfinished",
            Self::Folder(_) => "state_dir_unusable",
            Self::Exists { .. } => "file_exists",
            Self::Io { source, .. } | Self::Stream { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "disk_full",
                _ => "io_error",
            },
            Self::Open(OpenError::Locked) => "store_locked",
            Self::Open(_)
            | Self::Export(_)
            | Self::Import(_)
            | Self::Fence(_)
            | Self::Keys(_)
            | Self::Authorities(_) => "state_unusable",
            Self::NoState { .. } => "state_missing",
            Self::Unsteady => "state_changing",
            Self::Refused(_) => "gateway_refused",
        }
    }

    pub(crate) fn io(
        action: &'static str,
        path: impl AsRef<Path>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

impl From<Unavailable> for BackupError {
    fn from(error: Unavailable) -> Self {
        Self::Export(error.into())
    }
}
