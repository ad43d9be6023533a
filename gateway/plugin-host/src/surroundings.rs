//! What is around one call: for whom it is, what it may use, and what time it is.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use model::ids::WorkspaceId;
use model::names::Name;
use model::plugin::SecretBinding;

use crate::breaker::{Breakers, CREDENTIAL, TARGET};
use crate::ports::{CallContext, Services};

/// For whom a plugin is called, and what may be said about the call.
#[derive(Clone, Default)]
pub struct Invocation {
    /// For which workspace; none for the deployment itself.
    pub workspace: Option<WorkspaceId>,
    /// The call's id; made if there is none. Given when a recorded call is made again.
    pub call: Option<String>,
    /// What the call is part of: the same when it is tried again. The call's id if there is none.
    pub operation: Option<String>,
    /// Secrets of this call alone, by the plugin's names, before those of the grant: a target's own.
    pub secrets: BTreeMap<Name, SecretBinding>,
    /// Asks the plugin to end early.
    pub cancel: Cancel,
    /// The time that the plugin is told; the real one if there is none.
    pub clock: Option<Arc<dyn Clock>>,
}

impl Invocation {
    /// For a workspace, with nothing else to say.
    pub fn of(workspace: Option<WorkspaceId>) -> Self {
        Self {
            workspace,
            ..Self::default()
        }
    }
}

/// Asks a plugin to end early. It need not; dropping the call's future ends it at once.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a plugin is told of the time.
pub trait Clock: Send + Sync {
    /// Milliseconds since the epoch.
    fn now_ms(&self) -> u64;
    /// Milliseconds left of the call, which really are `actual`.
    fn remaining_ms(&self, actual: u64) -> u64;
}

/// The real time.
pub(crate) struct RealClock;

impl Clock for RealClock {
    fn now_ms(&self) -> u64 {
        now_ms()
    }

    fn remaining_ms(&self, actual: u64) -> u64 {
        actual
    }
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_millis()).ok())
        .unwrap_or(0)
}

/// What is around one call.
pub(crate) struct Surroundings {
    pub(crate) context: CallContext,
    pub(crate) operation: String,
    pub(crate) config: Arc<str>,
    pub(crate) config_revision: u64,
    pub(crate) services: Services,
    pub(crate) guards: Arc<Guards>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cancel: Cancel,
}

/// A credential: a version of a secret of a workspace. Not the plugin's name for it, by which each
/// target may have another one.
pub(crate) type CredentialKey = (WorkspaceId, Name, u64);

/// Breakers for what a plugin uses, through all its calls.
pub(crate) struct Guards {
    targets: Mutex<Breakers<String>>,
    credentials: Mutex<Breakers<CredentialKey>>,
}

impl Guards {
    pub(crate) fn new() -> Self {
        Self {
            targets: Mutex::new(Breakers::new(TARGET)),
            credentials: Mutex::new(Breakers::new(CREDENTIAL)),
        }
    }

    pub(crate) fn targets(&self) -> MutexGuard<'_, Breakers<String>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn credentials(&self) -> MutexGuard<'_, Breakers<CredentialKey>> {
        self.credentials
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
