//! The real engine: [`plugin_host`] with the gateway's own surroundings.
//!
//! It is made when the first component needs it. A gateway without plugins reserves no memory
//! for them, and one whose machine cannot give it starts all the same.
//!
//! Compiling is a child process, this very program with `compile-plugin`: a compiler that hangs
//! or grows on a stranger's component is ended, and takes nothing with it.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;

use api::v1::plugin::{FindingSeverity, PluginFinding, PluginLogLine};
use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use gateway_store::Store;
use model::names::{Name, clean};
use plugin_host::ports::{Egress, Services};
use plugin_host::{CallError, Diagnostic, Invocation, Level, Loaded, Options, Platform, Severity};
use tokio::sync::OnceCell;

use super::engine::{Component, Engine, Fault, Inspected, Instance, LogLines, Settings};
use super::secrets::StoredSecrets;
use super::values::StoredValues;
use crate::config::Config;
use crate::keys::ServerKeys;

/// Words of a plugin that are passed on.
const MOST_LETTERS: usize = 1024;
/// Findings that are passed on.
const MOST_FINDINGS: usize = 50;
/// The hidden command of this program that compiles.
pub const COMPILE: &str = "compile-plugin";

/// Where an engine works.
pub struct Place<'a> {
    /// As read at start.
    pub config: &'a Config,
    /// The durable state.
    pub store: Arc<dyn Store>,
    /// Server secrets.
    pub keys: &'a Arc<ServerKeys>,
}

/// The real engine, whose plugins reach others through `egress`.
pub fn engine(place: &Place<'_>, egress: Arc<dyn Egress>) -> anyhow::Result<Arc<dyn Engine>> {
    let program = std::env::current_exe()?;
    let cache = place.config.state_dir.join("plugins");
    let mut options = Options::new(
        cache,
        *place.keys.plugin_cache_key(),
        vec![program.into(), COMPILE.into()],
    );
    options.concurrency = u32::try_from(place.config.plugins.calls).unwrap_or(u32::MAX);
    options.concurrency_per_plugin = options.concurrency.div_ceil(2);
    Ok(Arc::new(Host {
        options,
        platform: OnceCell::new(),
        services: Services {
            secrets: Arc::new(StoredSecrets::new(
                Arc::clone(&place.store),
                Arc::clone(place.keys),
            )),
            egress,
            state: Arc::new(StoredValues::new(Arc::clone(&place.store))),
        },
    }))
}

struct Host {
    options: Options,
    platform: OnceCell<Arc<Platform>>,
    services: Services,
}

impl Host {
    async fn platform(&self) -> Result<&Arc<Platform>, Fault> {
        let made = self.platform.get_or_try_init(|| async {
            let options = self.options.clone();
            let made = tokio::task::spawn_blocking(move || Platform::new(options)).await;
            made.map_err(|error| error.to_string())
                .and_then(|made| made.map_err(|error| model::error_chain(&error).to_string()))
        });
        made.await
            .map_err(|why| Fault::new("no_engine", format!("plugins cannot be run here: {why}")))
    }

    /// A plugin that nobody calls but for its opinion. It has no name that others see, and no
    /// grant: what it is asked needs none.
    fn asked(&self, component: &Component) -> Result<Arc<plugin_host::Plugin>, Fault> {
        let loaded = loaded(component)?;
        let platform = self
            .platform
            .get()
            .ok_or_else(|| Fault::new("no_engine", "the component was not loaded here"))?;
        Ok(plugin_host::Plugin::new(
            Arc::clone(platform),
            loaded.manifest.name.clone(),
            loaded.clone(),
            plugin_host::Settings::default(),
            self.services.clone(),
        ))
    }
}

fn loaded(component: &Component) -> Result<&Loaded, Fault> {
    component
        .inner
        .downcast_ref::<Loaded>()
        .ok_or_else(|| Fault::new("no_engine", "the component was loaded elsewhere"))
}

#[async_trait]
impl Engine for Host {
    fn inspect(&self, bytes: &[u8]) -> Result<Inspected, Fault> {
        let found =
            plugin_host::inspect(bytes).map_err(|error| Fault::new(error.code(), said(&error)))?;
        Ok(Inspected {
            digest: found.digest,
            kind: found.kind,
            manifest: found.manifest,
        })
    }

    async fn load(&self, bytes: Bytes) -> Result<Component, Fault> {
        let platform = self.platform().await?;
        let bytes: Arc<[u8]> = Arc::from(&bytes[..]);
        let loaded = platform.load(bytes).await;
        let loaded = loaded.map_err(|error| Fault::new(error.code(), said(&error)))?;
        Ok(Component {
            digest: loaded.digest,
            schema: loaded.descriptor.config_schema.clone(),
            inner: Arc::new(loaded),
        })
    }

    async fn check_config(
        &self,
        component: &Component,
        configuration: &str,
    ) -> Result<Vec<PluginFinding>, Fault> {
        let found = self.asked(component)?.check_config(configuration).await;
        found.map(findings).map_err(|error| fault(&error))
    }

    async fn migrate_config(
        &self,
        component: &Component,
        from_version: &str,
        configuration: &str,
    ) -> Result<String, Fault> {
        let plugin = self.asked(component)?;
        let migrated = plugin.migrate_config(from_version, configuration).await;
        migrated.map_err(|error| fault(&error))
    }

    fn start(
        &self,
        name: &Name,
        component: &Component,
        settings: Settings,
    ) -> Result<Arc<dyn Instance>, Fault> {
        let loaded = loaded(component)?.clone();
        let platform = self
            .platform
            .get()
            .ok_or_else(|| Fault::new("no_engine", "the component was not loaded here"))?;
        let configuration = ArcSwap::from_pointee(settings.configuration.clone());
        let plugin = plugin_host::Plugin::new(
            Arc::clone(platform),
            name.clone(),
            loaded,
            of(settings),
            self.services.clone(),
        );
        Ok(Arc::new(Running {
            plugin,
            configuration,
        }))
    }
}

fn of(settings: Settings) -> plugin_host::Settings {
    plugin_host::Settings {
        grant: settings.grant,
        config: settings.configuration,
        config_revision: settings.revision,
    }
}

/// A plugin of this engine: what [`Instance::as_any`] leads to.
pub struct Running {
    /// The plugin itself.
    pub plugin: Arc<plugin_host::Plugin>,
    configuration: ArcSwap<String>,
}

#[async_trait]
impl Instance for Running {
    fn replace(&self, component: &Component, settings: Settings) -> Result<(), Fault> {
        let loaded = loaded(component)?.clone();
        let configuration = Arc::new(settings.configuration.clone());
        self.plugin.replace(loaded, of(settings));
        self.configuration.store(configuration);
        Ok(())
    }

    async fn probe(&self) -> Result<Vec<PluginFinding>, Fault> {
        let found = if self.plugin.tells_health() {
            self.plugin.probe(Invocation::default()).await
        } else {
            let configuration = self.configuration.load_full();
            self.plugin.check_config(&configuration).await
        };
        found.map(findings).map_err(|error| fault(&error))
    }

    fn logs(&self, after: u64, limit: usize) -> LogLines {
        let page = self.plugin.logs(after, limit);
        let line = |line: plugin_host::LogLine| PluginLogLine {
            sequence: line.sequence,
            at: line.time,
            level: level(line.level).to_owned(),
            call: line.call,
            message: line.message,
            fields: line.fields.into_iter().collect(),
        };
        LogLines {
            lines: page.lines.into_iter().map(line).collect(),
            oldest: page.oldest,
        }
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let counts = self.plugin.counts();
        let millis =
            |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut counters = BTreeMap::from([
            ("answered".to_owned(), counts.answered),
            ("running".to_owned(), counts.running),
            ("cpu_ms".to_owned(), millis(counts.cpu)),
            ("wall_ms".to_owned(), millis(counts.wall)),
            ("log_lines_dropped".to_owned(), counts.lines_dropped),
        ]);
        let within = plugin_host::WITHIN.iter().zip(counts.within);
        counters.extend(
            within.map(|(bound, count)| (format!("within_ms.{}", bound.as_millis()), count)),
        );
        let failed = counts.failed.into_iter();
        counters.extend(failed.map(|(code, count)| (format!("failed.{code}"), count)));
        counters
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

fn level(level: Level) -> &'static str {
    match level {
        Level::Trace => "trace",
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// Findings, as the API shows them.
pub(super) fn findings(found: Vec<Diagnostic>) -> Vec<PluginFinding> {
    let finding = |found: Diagnostic| PluginFinding {
        severity: match found.severity {
            Severity::Info => FindingSeverity::Info,
            Severity::Warning => FindingSeverity::Warning,
            Severity::Error => FindingSeverity::Error,
        },
        at: clean(&found.path, MOST_LETTERS),
        message: clean(&found.message, MOST_LETTERS),
    };
    found.into_iter().take(MOST_FINDINGS).map(finding).collect()
}

/// A call that failed, as the gateway takes it.
pub fn fault(error: &CallError) -> Fault {
    Fault {
        quarantine: error.quarantine,
        ..Fault::new(error.reason.code(), said(error))
    }
}

fn said(error: &(dyn std::error::Error + 'static)) -> String {
    clean(&model::error_chain(error).to_string(), MOST_LETTERS)
}
