//! Plugins in this gateway: what is loaded, and how it came to be.
//!
//! ```text
//! handlers ──one batch──► store ──watch──► catalog ──epoch──► reconciler (reconcile)
//!                           objects ◄── bytes by digest ──────────┤ load, replace, drop
//!                                                                 ▼
//!                                     engine: compiles, starts ── instances ──► who calls them
//! ```
//!
//! A record says what should run; the [`reconcile`] loop compares and acts. It takes the bytes
//! by the digest in the record and looks at the signature again, so that neither a changed file
//! nor a policy that has become stricter is missed. The start of the gateway does not wait for
//! plugins, and one that does not load costs nothing but itself.
//!
//! Whoever calls plugins gets them from [`Plugins::ready`], and tells [`outcome::report`] what
//! became of a call that failed.

pub mod engine;
pub mod host;
pub mod metrics;
pub mod outcome;
pub mod package;
pub mod reconcile;
pub mod registries;
pub mod roles;
pub mod routes;
pub mod schema;
pub mod secrets;
pub mod values;
pub mod view;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::v1::plugin::{LastHealth, RunningStatus};
use model::names::Name;
use model::plugin::{Grant, PluginDigest};
use release::PublicKey;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::config::{Config, ConfigError};
use crate::error::{Error, Result};
use engine::{Engine, Instance};
use registries::Registries;

/// Components that are received and compiled at a time. Each may take 64 MiB before it is
/// known to be one.
const INSTALLS: usize = 2;

/// Plugins in this gateway.
pub struct Plugins {
    engine: Arc<dyn Engine>,
    registries: Registries,
    keys: Vec<PublicKey>,
    signed_only: bool,
    most: usize,
    installs: Semaphore,
    running: Mutex<BTreeMap<Name, Running>>,
}

/// How an enabled plugin is.
#[derive(Clone)]
struct Running {
    status: RunningStatus,
    reason: Option<String>,
    loaded: Option<Loaded>,
    health: Option<LastHealth>,
    /// Attempts that failed, one after the other, at what is wanted now.
    failures: u32,
    wanted: Option<Wanted>,
    retry_at: Duration,
}

#[derive(Clone)]
struct Loaded {
    instance: Arc<dyn Instance>,
    as_wanted: Wanted,
}

/// What decides about what is loaded.
#[derive(Clone, Debug, PartialEq)]
struct Wanted {
    digest: PluginDigest,
    grant: Grant,
    configuration: [u8; 32],
    revision: u64,
}

impl Plugins {
    /// Nothing is loaded yet.
    pub fn new(config: &Config, engine: Arc<dyn Engine>) -> Result<Self, ConfigError> {
        Ok(Self {
            engine,
            registries: Registries::new(config),
            keys: config.trusted_plugin_keys()?,
            signed_only: config.plugins.signed_only,
            most: config.plugins.installed,
            installs: Semaphore::new(INSTALLS),
            running: Mutex::default(),
        })
    }

    /// What runs them.
    pub fn engine(&self) -> &Arc<dyn Engine> {
        &self.engine
    }

    /// Where components are fetched from.
    pub fn registries(&self) -> &Registries {
        &self.registries
    }

    /// The plugin of this name, while it can be called.
    pub fn ready(&self, name: &Name) -> Option<Arc<dyn Instance>> {
        let running = self.running();
        let loaded = running.get(name)?.loaded.as_ref()?;
        Some(Arc::clone(&loaded.instance))
    }

    /// Notes what a plugin said of how it is.
    pub fn note_health(&self, name: &Name, health: LastHealth) {
        if let Some(entry) = self.running().get_mut(name) {
            entry.health = Some(health);
        }
    }

    /// How many may be installed.
    pub fn most(&self) -> usize {
        self.most
    }

    /// Room for one component on its way in. Nobody waits for it: memory is what is short.
    pub fn turn(&self) -> Result<SemaphorePermit<'_>> {
        self.installs.try_acquire().map_err(|_| {
            let detail = "other plugins are being installed; try again in a moment";
            Error::unavailable(detail, Duration::from_secs(5))
        })
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
