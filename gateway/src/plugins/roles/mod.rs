//! What enabled plugins do for the gateway, by their kind.
//!
//! ```text
//! installer ──► app.installers     who writes scripts for hosts
//! policy    ──► app.policies       who may take away what permissions give
//! notifier  ──► app.notifiers      who is told what happens
//! power     ──► app.power          who turns machines on and off
//! ```
//!
//! A role is given by the record, not by what is loaded: a policy that is enabled and still being
//! compiled, or quarantined for its failures, has its say as "no answer", which is a no; a notifier
//! in that state keeps its place in the queue. So what an operator enabled never goes missing in
//! silence, and roles are there before the first request is served.

mod audit;
mod installer;
mod notifier;
mod policy;
mod power;

use std::sync::{Arc, Weak};
use std::time::Duration;

use model::names::Name;
use model::plugin::{Grant, PluginKind};

pub use audit::{Requests, write_requests};

use super::engine::Fault;
use super::{host, outcome};
use crate::app::App;
use crate::policy::Policy;
use crate::power::provider::Provider;
use crate::signal::delivery::Notifier;
use crate::state::plugin_records::PluginStateV1;

/// Gives roles and keeps giving them until the gateway stops. The first time before it returns.
pub fn spawn(app: &Arc<App>) {
    let mut changed = app.catalog.plugins_epoch();
    changed.borrow_and_update();
    give(app);
    let task = Arc::clone(app);
    app.tasks.spawn_critical("plugins.roles", async move {
        loop {
            tokio::select! {
                biased;
                () = task.tasks.stop().cancelled() => return,
                moved = changed.changed() => if moved.is_err() { return },
            }
            changed.borrow_and_update();
            give(&task);
        }
    });
}

/// Gives each plugin that should run the role of its kind.
fn give(app: &Arc<App>) {
    let mut installers = crate::installer::Renderers::new();
    let mut policies = std::collections::BTreeMap::<Name, Arc<dyn Policy>>::new();
    let mut notifiers = crate::signal::delivery::Notifiers::new();
    let mut providers = std::collections::BTreeMap::<Name, Arc<dyn Provider>>::new();
    {
        let tables = app.catalog.read();
        let meant = tables.plugins.values().filter(|plugin| {
            matches!(
                plugin.state,
                PluginStateV1::Enabled | PluginStateV1::Quarantined { .. }
            )
        });
        for plugin in meant {
            let name = plugin.name.clone();
            let role = Role {
                app: Arc::downgrade(app),
                name: name.clone(),
                grant: plugin.grant.clone(),
            };
            match plugin.present.kind {
                PluginKind::Installer => drop(installers.insert(name, Arc::new(role))),
                PluginKind::Policy => drop(policies.insert(name, Arc::new(role))),
                PluginKind::Power => drop(providers.insert(name, Arc::new(role))),
                PluginKind::Notifier => {
                    let notifier: Arc<dyn Notifier> = Arc::new(role);
                    notifiers.insert(name, notifier);
                }
            }
        }
    }
    app.installers.set(installers);
    app.policies.set(policies);
    app.power.providers.set(providers);
    app.notifiers.send_replace(Some(notifiers));
}

/// A plugin in the role of its kind.
struct Role {
    /// The app holds its roles.
    app: Weak<App>,
    name: Name,
    grant: Grant,
}

impl Role {
    /// The plugin, while it can be called; why not, in a stable word.
    fn plugin(&self) -> Result<(Arc<App>, Arc<plugin_host::Plugin>), &'static str> {
        let app = self.app.upgrade().ok_or("stopping")?;
        let instance = app.plugins.ready(&self.name).ok_or("not_loaded")?;
        let running = instance
            .as_any()
            .downcast_ref::<host::Running>()
            .ok_or("not_loaded")?;
        let plugin = Arc::clone(&running.plugin);
        Ok((app, plugin))
    }

    /// What follows from a failed call; the fault, to be told on.
    async fn failed(&self, app: &App, error: &plugin_host::CallError) -> Fault {
        let fault = host::fault(error);
        tracing::debug!(plugin = %self.name, call.id = %error.call, code = fault.code, "a call of a plugin failed");
        if let Err(error) = outcome::report(app, &self.name, &fault).await {
            tracing::warn!(plugin = %self.name, error = %error, "a plugin could not be quarantined");
        }
        fault
    }
}

/// Milliseconds as the contract counts them.
fn millis(at: model::Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0)
}

/// The other way around.
fn timestamp(millis: u64) -> model::Timestamp {
    model::Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

/// A duration that a plugin asks for, within reason.
fn within_reason(asked: Option<Duration>) -> Option<Duration> {
    asked.map(|asked| asked.min(Duration::from_secs(3600)))
}
