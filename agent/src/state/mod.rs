//! What the agent must not forget.
//!
//! ```text
//! <state_dir>/            0700, locked by the running agent
//!   identity.json         ids, certificate, trust, counter, and which key is in force
//!   key-<16 hex>.pem      a private key, named by its public half
//!   pid                   who holds the lock, for the message to whoever comes second
//! ```
//!
//! `identity.json` names the key it belongs to, so that one rename swaps key and
//! certificate together. A key file that it does not name is *pending*: made and on
//! disk before anybody saw it, waiting for the gateway's certificate. Without an
//! `identity.json` the only key is the one to enrol with. So a crash at any step
//! leaves either the old identity or the new one, and an answer that got lost is
//! asked for again with the same key:
//!
//! | crash after | found at the next start | what happens |
//! |---|---|---|
//! | pending key written | old identity, pending key | the same key is offered again |
//! | identity renamed | new identity, old key file | the old key file is deleted |
//!
//! A file that is there and makes no sense is an error for a person, never a reason
//! for a new identity: that would hide a broken disk behind a second host.
//!
//! The lock is on the folder itself, so it works on a read-only disk, too.

mod disk;
mod key;
mod record;

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use link::trust::{TrustBundle, TrustError};
use link::verify::VerifyError;
use model::Timestamp;
use protocol::v1::{Grant, Trust};
use rustix::fs::{FlockOperation, flock};
use rustls_pki_types::CertificateDer;

pub use disk::Disk;
pub use key::{HostKey, KeyError};
pub use record::Identity;

const IDENTITY: &str = "identity.json";
const PID: &str = "pid";
/// The largest certificate and bundle with room to spare.
const MAX_SIZE: u64 = 1 << 20;

/// The state, locked.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    disk: Disk,
    /// Open as long as the lock is ours.
    _lock: File,
    identity: Option<Identity>,
    key: Option<HostKey>,
    pending: Option<HostKey>,
}

/// Why the state cannot be used or changed.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An operation of the system failed.
    #[error("{what} {path}")]
    Io {
        /// The verb.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("{dir} is in use by another agent{}", holder(.pid))]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// Who holds it, as far as known.
        pid: Option<u32>,
    },
    /// A file is there and makes no sense.
    #[error(
        "{path} is damaged ({reason}); restore it from a backup, or give this host's identity up \
         with `loopback-agent reset` and join again"
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A key could not be made.
    #[error("make a key")]
    Key(#[source] KeyError),
    /// What the gateway sent is no identity for us.
    #[error("the gateway's answer is not usable")]
    Grant(#[source] GrantError),
    /// There is no identity to change.
    #[error("this host has not joined")]
    NotEnrolled,
}

/// Why a grant is not an identity for us.
#[derive(Debug, thiserror::Error)]
pub enum GrantError {
    /// No authorities came, and none are known.
    #[error("it names no authorities")]
    NoTrust,
    /// The authorities make no sense.
    #[error("its authorities are not usable")]
    Trust(#[source] TrustError),
    /// The certificate does not hold.
    #[error("its certificate does not hold")]
    Certificate(#[source] VerifyError),
    /// The ids beside the certificate say something else.
    #[error("its ids are not those in the certificate")]
    Ids,
    /// For a key that we never had.
    #[error("its certificate is for a key that is not ours")]
    ForeignKey,
}

fn holder(pid: &Option<u32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl State {
    /// Locks `dir`, made when absent, and reads what is in it.
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let io = |what| {
            move |source| StateError::Io {
                what,
                path: dir.to_owned(),
                source,
            }
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(io("make"))?;
        let lock = File::open(dir).map_err(io("open"))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(StateError::Locked {
                dir: dir.to_owned(),
                pid: read_pid(dir),
            });
        }
        let mode = lock.metadata().map_err(io("look at"))?.permissions().mode();
        if mode & 0o077 != 0 {
            fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(io("make private"))?;
        }
        let (identity, key, pending) = load(dir)?;
        let state = Self {
            dir: dir.to_owned(),
            disk: Disk::default(),
            _lock: lock,
            identity,
            key,
            pending,
        };
        // A service for people only: a disk that is full or read-only takes none.
        let _ = state
            .disk
            .write(dir, PID, std::process::id().to_string().as_bytes());
        state.tidy();
        Ok(state)
    }

    /// The identity, if the host has joined.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The key in force; before joining, the one to join with, made now if need be.
    pub fn key(&mut self) -> Result<&HostKey, StateError> {
        if self.key.is_none() {
            self.key = Some(self.make_key()?);
        }
        // Just made if it was not there.
        self.key.as_ref().ok_or(StateError::NotEnrolled)
    }

    /// A key beside the one in force, on disk before anybody sees it; the same one
    /// until the gateway has certified it.
    pub fn pending_key(&mut self) -> Result<&HostKey, StateError> {
        if self.pending.is_none() {
            self.pending = Some(self.make_key()?);
        }
        self.pending.as_ref().ok_or(StateError::NotEnrolled)
    }

    fn make_key(&self) -> Result<HostKey, StateError> {
        let key = HostKey::generate().map_err(StateError::Key)?;
        self.write(&key.file_name(), key.pem().as_bytes())?;
        Ok(key)
    }

    /// Takes what a gateway granted as this host's identity: checked, then stored as
    /// a whole, then in force. `first_trust` counts when neither the grant nor an
    /// earlier one names authorities.
    pub fn store_grant(
        &mut self,
        grant: &Grant,
        first_trust: Option<&TrustBundle>,
    ) -> Result<&Identity, StateError> {
        let known = self
            .identity
            .as_ref()
            .map(|identity| &identity.trust)
            .or(first_trust);
        let trust = record::trust_of(grant, known).map_err(StateError::Grant)?;
        let certificate = CertificateDer::from(grant.certificate.clone());
        let peer = record::judge(&certificate, &trust)
            .map_err(|error| StateError::Grant(GrantError::Certificate(error)))?;
        let is_pending = self
            .pending
            .as_ref()
            .is_some_and(|key| key.spki() == peer.spki_sha256);
        let key = if is_pending {
            self.pending.as_ref()
        } else {
            self.key.as_ref()
        };
        let key = key
            .filter(|key| key.spki() == peer.spki_sha256)
            .ok_or(StateError::Grant(GrantError::ForeignKey))?;
        let before = self.identity.as_ref();
        let identity = record::identity_of(grant, certificate, trust, &peer, key, before)
            .map_err(StateError::Grant)?;
        self.write(IDENTITY, &identity.to_json())?;
        if is_pending {
            self.key = self.pending.take();
        }
        self.tidy();
        Ok(self.identity.insert(identity))
    }

    /// Moves the counter on.
    pub fn store_counter(&mut self, counter: u64, at: Timestamp) -> Result<(), StateError> {
        self.change(|identity| {
            identity.counter = identity.counter.max(counter);
            identity.server_time = identity.server_time.max(at);
        })
    }

    /// Takes other authorities.
    pub fn store_trust(&mut self, trust: &Trust) -> Result<TrustBundle, StateError> {
        let bundle =
            record::bundle(trust).map_err(|error| StateError::Grant(GrantError::Trust(error)))?;
        let stored = bundle.clone();
        self.change(|identity| identity.trust = stored)?;
        Ok(bundle)
    }

    fn change(&mut self, change: impl FnOnce(&mut Identity)) -> Result<(), StateError> {
        let mut identity = self.identity.clone().ok_or(StateError::NotEnrolled)?;
        change(&mut identity);
        self.write(IDENTITY, &identity.to_json())?;
        self.identity = Some(identity);
        Ok(())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.dir.join(name);
        self.disk
            .write(&self.dir, name, bytes)
            .map_err(|source| StateError::Io {
                what: "store",
                path,
                source,
            })
    }

    /// Deletes what no start would look at again. Best effort: it is tried at every
    /// start.
    fn tidy(&self) {
        let keep: Vec<_> = [&self.key, &self.pending]
            .into_iter()
            .flatten()
            .map(HostKey::file_name)
            .collect();
        for name in names(&self.dir).unwrap_or_default() {
            let old_key = name.starts_with(key::PREFIX) && !keep.contains(&name);
            if old_key || name.starts_with(disk::TEMPORARY) {
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
    }
}

/// Who the host in `dir` is, without locking and without changing anything.
pub fn peek(dir: &Path) -> Result<Option<Identity>, StateError> {
    load_identity(dir)
}

/// Forgets everything in `dir`, damaged or not; refuses while an agent runs on it.
/// Identity first: keys without one are keys to enrol with, and they go, too.
pub fn reset(dir: &Path) -> Result<(), StateError> {
    let io = |what| {
        move |source| StateError::Io {
            what,
            path: dir.to_owned(),
            source,
        }
    };
    let lock = File::open(dir).map_err(io("open"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(StateError::Locked {
            dir: dir.to_owned(),
            pid: read_pid(dir),
        });
    }
    reset_locked(dir)
}

fn reset_locked(dir: &Path) -> Result<(), StateError> {
    let io = |path: PathBuf, what| move |source| StateError::Io { what, path, source };
    let mut names = names(dir).map_err(io(dir.to_owned(), "list"))?;
    names.sort_by_key(|name| name != IDENTITY);
    for name in names {
        let ours = name == IDENTITY
            || name == PID
            || name.starts_with(key::PREFIX)
            || name.starts_with(disk::TEMPORARY);
        if ours {
            let path = dir.join(name);
            fs::remove_file(&path).map_err(io(path, "delete"))?;
        }
    }
    disk::sync_dir(dir).map_err(io(dir.to_owned(), "sync"))
}

/// Who holds the lock, as they wrote it.
fn read_pid(dir: &Path) -> Option<u32> {
    fs::read_to_string(dir.join(PID)).ok()?.trim().parse().ok()
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

type Loaded = (Option<Identity>, Option<HostKey>, Option<HostKey>);

fn load(dir: &Path) -> Result<Loaded, StateError> {
    let listed = names(dir).map_err(|source| StateError::Io {
        what: "list",
        path: dir.to_owned(),
        source,
    })?;
    let keys = listed.iter().filter(|name| name.starts_with(key::PREFIX));
    let Some(identity) = load_identity(dir)? else {
        // The key to enrol with. An answer may have been lost, so it is as precious
        // as a joined host's.
        let key = keys
            .take(1)
            .map(|name| load_key(dir, name))
            .next()
            .transpose()?;
        return Ok((None, key, None));
    };
    let key = load_key(dir, &identity.key)?;
    if key.spki() != identity.spki {
        let reason = format!("its certificate is not for {}", identity.key);
        return Err(StateError::Corrupt {
            path: dir.join(IDENTITY),
            reason,
        });
    }
    // A damaged pending key was certified for nobody yet: another will do.
    let pending = keys
        .filter(|name| **name != identity.key)
        .find_map(|name| load_key(dir, name).ok());
    Ok((Some(identity), Some(key), pending))
}

fn load_identity(dir: &Path) -> Result<Option<Identity>, StateError> {
    let Some(bytes) = read(&dir.join(IDENTITY))? else {
        return Ok(None);
    };
    Identity::from_json(&bytes)
        .map(Some)
        .map_err(|reason| StateError::Corrupt {
            path: dir.join(IDENTITY),
            reason,
        })
}

fn load_key(dir: &Path, name: &str) -> Result<HostKey, StateError> {
    let path = dir.join(name);
    let corrupt = |reason: String| StateError::Corrupt {
        path: path.clone(),
        reason,
    };
    let bytes = read(&path)?.ok_or_else(|| corrupt("it is missing".to_owned()))?;
    let key = str::from_utf8(&bytes)
        .map_err(|_| corrupt("it is not text".to_owned()))
        .and_then(|pem| HostKey::from_pem(pem).map_err(|error| corrupt(error.to_string())))?;
    if key.file_name() == name {
        Ok(key)
    } else {
        Err(corrupt("it holds another key".to_owned()))
    }
}

fn read(path: &Path) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, StateError> {
    let io = |source| StateError::Io {
        what: "read",
        path: path.to_owned(),
        source,
    };
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_SIZE => Err(StateError::Corrupt {
            path: path.to_owned(),
            reason: "it is far too large".to_owned(),
        }),
        Ok(_) => fs::read(path).map(|bytes| Some(bytes.into())).map_err(io),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io(error)),
    }
}

#[cfg(test)]
mod tests;
