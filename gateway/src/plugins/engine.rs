//! What the gateway asks of whatever runs plugins.
//!
//! Two implementations: [`super::host`], which is the real one, and a twin in the tests of the
//! API, where what matters is who may do what and when, and compiling would take the time of a
//! hundred such tests.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::v1::plugin::{PluginFinding, PluginLogLine};
use async_trait::async_trait;
use bytes::Bytes;
use model::names::Name;
use model::plugin::{Grant, Manifest, PluginDigest, PluginKind};

/// What a component says of itself.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// SHA-256 of its bytes.
    pub digest: PluginDigest,
    /// What it exports.
    pub kind: PluginKind,
    /// Its manifest, checked.
    pub manifest: Manifest,
}

/// A component that has been compiled and tried.
#[derive(Clone)]
pub struct Component {
    /// SHA-256 of its bytes.
    pub digest: PluginDigest,
    /// The schema of its configuration.
    pub schema: String,
    /// What the engine that loaded it knows of it.
    pub inner: Arc<dyn Any + Send + Sync>,
}

/// With what a plugin runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it may do.
    pub grant: Grant,
    /// Its configuration, JSON.
    pub configuration: String,
    /// Grows with each configuration.
    pub revision: u64,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Fault {
    /// A stable word.
    pub code: &'static str,
    /// For people.
    pub message: String,
    /// The plugin has failed so often that it is to be turned off.
    pub quarantine: bool,
}

impl Fault {
    /// Of a component, or a call of it.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            quarantine: false,
        }
    }
}

/// Log lines and what is known of those that are not there.
#[derive(Clone, Debug, Default)]
pub struct LogLines {
    /// The lines, oldest first.
    pub lines: Vec<PluginLogLine>,
    /// The number of the oldest line that is kept.
    pub oldest: u64,
}

/// What runs plugins.
#[async_trait]
pub trait Engine: Send + Sync {
    /// Reads a component without compiling it.
    fn inspect(&self, bytes: &[u8]) -> Result<Inspected, Fault>;

    /// Compiles a component, or finds it compiled, and tries whether it starts.
    async fn load(&self, bytes: Bytes) -> Result<Component, Fault>;

    /// Has a component look at a configuration.
    async fn check_config(
        &self,
        component: &Component,
        configuration: &str,
    ) -> Result<Vec<PluginFinding>, Fault>;

    /// The configuration of an earlier version, as a component wants it.
    async fn migrate_config(
        &self,
        component: &Component,
        from_version: &str,
        configuration: &str,
    ) -> Result<String, Fault>;

    /// Makes a component callable under a name.
    fn start(
        &self,
        name: &Name,
        component: &Component,
        settings: Settings,
    ) -> Result<Arc<dyn Instance>, Fault>;
}

/// A plugin that can be called.
#[async_trait]
pub trait Instance: Send + Sync {
    /// Other code, or other settings. Calls under way end on what they began with.
    fn replace(&self, component: &Component, settings: Settings) -> Result<(), Fault>;

    /// Asks how it is, in its own words if it has any; else, whether it still stands by its present
    /// configuration.
    async fn probe(&self) -> Result<Vec<PluginFinding>, Fault>;

    /// At most `limit` lines after the one with this number.
    fn logs(&self, after: u64, limit: usize) -> LogLines;

    /// Counters of its calls.
    fn counters(&self) -> BTreeMap<String, u64>;

    /// The plugin itself, for those who call what its kind is for.
    fn as_any(&self) -> &dyn Any;
}

/// How long a component may take to be compiled and tried. The slowest that are known,
/// interpreters of dynamic languages, take a tenth of it on a slow machine.
pub const LOAD_WITHIN: Duration = Duration::from_secs(180);
