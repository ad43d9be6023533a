//! Loads what is enabled, replaces what has changed, drops what is not enabled any more.
//!
//! Input-free: it reads the catalog, compares it with what is loaded and acts; what moved the
//! epoch does not matter. Plugins of one pass are loaded side by side, and a pass ends when all
//! have come out one way or the other, within [`LOAD_WITHIN`]. While a new version is being
//! compiled, the one before goes on to be called.
//!
//! What does not load is tried again, later each time, and quarantined after [`ATTEMPTS`]: a
//! disk may have been full, a machine without memory. Once a minute everything that is loaded
//! is asked how it is.
//!
//! [`LOAD_WITHIN`]: super::engine::LOAD_WITHIN

use std::sync::Arc;
use std::time::Duration;

use api::v1::plugin::RunningStatus;
use futures_util::future::join_all;
use model::names::Name;

use super::engine::{Fault, Settings};
use super::{Loaded, Plugins, Running, Wanted, outcome, package};
use crate::app::App;
use crate::state::plugin_records::{PluginRecordV1, PluginStateV1};

/// Attempts at loading before a plugin is quarantined: some five minutes.
const ATTEMPTS: u32 = 6;
/// The pause after the first failure; twice as long after each.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// Between looks when nothing changes: retries are due then.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Between questions how a plugin is.
const PROBE_EVERY: Duration = Duration::from_secs(60);

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut changed = app.catalog.plugins_epoch();
    let mut probe = tokio::time::interval(PROBE_EVERY);
    probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    probe.tick().await;
    let stop = app.tasks.stop().clone();
    loop {
        changed.borrow_and_update();
        let pass = stop.run_until_cancelled(pass(&app)).await;
        if pass.is_none() {
            return;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            _ = probe.tick() => {
                if stop.run_until_cancelled(ask_all(&app)).await.is_none() {
                    return;
                }
            }
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

async fn pass(app: &App) {
    let enabled: Vec<_> = {
        let tables = app.catalog.read();
        let enabled = tables
            .plugins
            .values()
            .filter(|plugin| plugin.state == PluginStateV1::Enabled);
        enabled.map(|plugin| Arc::clone(&plugin.record)).collect()
    };
    let due: Vec<_> = {
        let mut running = app.plugins.running();
        running.retain(|name, _| enabled.iter().any(|plugin| plugin.name == *name));
        let now = app.uptime();
        let due = enabled.iter().filter_map(|plugin| {
            let wanted = wanted(plugin)?;
            let entry = running
                .entry(plugin.name.clone())
                .or_insert_with(Running::new);
            entry.due(&wanted, now).then_some((plugin, wanted))
        });
        due.collect()
    };
    join_all(
        due.into_iter()
            .map(|(plugin, wanted)| bring(app, plugin, wanted)),
    )
    .await;
}

fn wanted(plugin: &PluginRecordV1) -> Option<Wanted> {
    Some(Wanted {
        digest: plugin.present.digest,
        grant: plugin.grant.clone(),
        configuration: plugin.configuration?.digest,
        revision: plugin.configuration_revision,
    })
}

impl Running {
    fn new() -> Self {
        Self {
            status: RunningStatus::Loading,
            reason: None,
            loaded: None,
            health: None,
            failures: 0,
            wanted: None,
            retry_at: Duration::ZERO,
        }
    }

    /// Whether there is something to do at `now`.
    fn due(&mut self, wanted: &Wanted, now: Duration) -> bool {
        let is_loaded = self.loaded.as_ref().map(|loaded| &loaded.as_wanted) == Some(wanted);
        if is_loaded {
            return false;
        }
        if self.wanted.as_ref() != Some(wanted) {
            self.wanted = Some(wanted.clone());
            self.failures = 0;
            self.retry_at = now;
        }
        if self.retry_at > now {
            return false;
        }
        self.status = RunningStatus::Loading;
        true
    }
}

/// Loads a plugin as wanted, or notes why not.
async fn bring(app: &App, plugin: &PluginRecordV1, wanted: Wanted) {
    let name = &plugin.name;
    let loaded = match load(app, plugin).await {
        Ok((component, settings)) => app.plugins.put(name, &component, settings, wanted),
        Err(fault) => Err(fault),
    };
    let failures = match loaded {
        Ok(()) => {
            // What it wrote before, it may write differently.
            app.installers.forget();
            tracing::info!(plugin = %name, digest = %plugin.present.digest, version = plugin.present.manifest.version, "a plugin is loaded");
            return;
        }
        Err(fault) => {
            tracing::warn!(plugin = %name, digest = %plugin.present.digest, code = fault.code, reason = %fault, "a plugin cannot be loaded");
            app.plugins.failed(app, name, &fault)
        }
    };
    if failures >= ATTEMPTS {
        let reason = format!("it could not be loaded {failures} times in a row");
        if let Err(error) = outcome::quarantine(app, name, &reason).await {
            tracing::warn!(plugin = %name, error = %error, "a plugin could not be quarantined");
        }
    }
}

async fn load(
    app: &App,
    plugin: &PluginRecordV1,
) -> Result<(super::engine::Component, Settings), Fault> {
    let configuration = plugin
        .configuration
        .ok_or_else(|| Fault::new("not_configured", "it has no configuration"))?;
    let configuration = package::read_configuration(app, &configuration).await?;
    let component = package::load_recorded(app, &plugin.present).await?;
    let settings = Settings {
        grant: plugin.grant.clone(),
        configuration,
        revision: plugin.configuration_revision,
    };
    Ok((component, settings))
}

impl Plugins {
    fn put(
        &self,
        name: &Name,
        component: &super::engine::Component,
        settings: Settings,
        wanted: Wanted,
    ) -> Result<(), Fault> {
        let mut running = self.running();
        // Whoever disabled it meanwhile is noticed by the next pass, which takes it away.
        let entry = running.entry(name.clone()).or_insert_with(Running::new);
        let instance = match &entry.loaded {
            Some(loaded) => {
                loaded.instance.replace(component, settings)?;
                Arc::clone(&loaded.instance)
            }
            None => self.engine.start(name, component, settings)?,
        };
        *entry = Running {
            status: RunningStatus::Ready,
            loaded: Some(Loaded {
                instance,
                as_wanted: wanted,
            }),
            ..Running::new()
        };
        Ok(())
    }

    /// Notes a failure, and answers how many there were in a row.
    fn failed(&self, app: &App, name: &Name, fault: &Fault) -> u32 {
        let mut running = self.running();
        let Some(entry) = running.get_mut(name) else {
            return 0;
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << entry.failures.min(8));
        entry.failures += 1;
        entry.retry_at = app.uptime() + pause;
        entry.status = RunningStatus::Failed;
        entry.reason = Some(format!("[{}] {}", fault.code, fault.message));
        entry.failures
    }
}

/// Asks everything that is loaded how it is.
async fn ask_all(app: &App) {
    let loaded: Vec<_> = {
        let running = app.plugins.running();
        let loaded = running.iter().filter_map(|(name, entry)| {
            let loaded = entry.loaded.as_ref()?;
            Some((name.clone(), Arc::clone(&loaded.instance)))
        });
        loaded.collect()
    };
    let asked = loaded.into_iter().map(|(name, instance)| async move {
        if let Err(error) = outcome::ask(app, &name, &*instance).await {
            tracing::warn!(plugin = %name, error = %error, "a plugin could not be quarantined");
        }
    });
    join_all(asked).await;
}
