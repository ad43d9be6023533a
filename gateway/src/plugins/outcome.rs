//! What follows from a plugin's failures.

use api::v1::plugin::{FindingSeverity, LastHealth, PluginFinding};
use gateway_core::plugin::Accepts;
use model::names::Name;

use super::engine::{Fault, Instance};
use super::package;
use crate::app::App;
use crate::error::Result;
use crate::state::change::Origin;
use crate::state::edit::edit;
use crate::state::plugin_records::{PluginEventV1, PluginRecordV1};

/// Tells of a call that failed. A plugin that fails again and again is turned off, with the
/// reason, until somebody has looked at it.
pub async fn report(app: &App, name: &Name, fault: &Fault) -> Result<()> {
    if fault.quarantine {
        let reason = format!("[{}] {}", fault.code, fault.message);
        quarantine(app, name, &reason).await?;
    }
    Ok(())
}

/// Asks a plugin how it is, and keeps the answer for those who look at the plugin. What it says,
/// and that it says nothing, turns no plugin off by itself.
pub async fn ask(app: &App, name: &Name, instance: &dyn Instance) -> Result<LastHealth> {
    let answer = instance.probe().await;
    let (healthy, findings) = match &answer {
        Ok(findings) => (package::accepts(findings) == Accepts::Yes, findings.clone()),
        Err(fault) => {
            let finding = PluginFinding {
                severity: FindingSeverity::Error,
                at: String::new(),
                message: format!("[{}] {}", fault.code, fault.message),
            };
            (false, vec![finding])
        }
    };
    let health = LastHealth {
        at: app.now(),
        healthy,
        findings,
    };
    app.plugins.note_health(name, health.clone());
    if let Err(fault) = &answer {
        tracing::info!(plugin = %name, code = fault.code, reason = %fault, "a plugin does not say how it is");
        report(app, name, fault).await?;
    }
    Ok(health)
}

/// Turns a plugin off.
pub(super) async fn quarantine(app: &App, name: &Name, reason: &str) -> Result<()> {
    let reason = model::names::clean(reason, 512);
    let now = app.now();
    let key = PluginRecordV1::key_of(name)?;
    let written = edit::<PluginRecordV1>(app, &key, |found, batch| {
        let Some(record) = found.filter(|record| record.decided().enabled()) else {
            return Ok(None);
        };
        let decided = record.decided().quarantine(reason.clone(), now);
        let mut record = record.with(decided, &[]);
        record.note(PluginEventV1 {
            at: now,
            what: "plugin.quarantine".into(),
            by: None,
            digest: record.present.digest,
        });
        Origin::gateway()
            .entry(now, "plugin.quarantine")
            .on(name)
            .with("digest", record.present.digest)
            .with("why", &reason)
            .in_deployment(batch);
        Ok(Some(record))
    });
    if written.await?.is_some() {
        tracing::warn!(plugin = %name, reason, "a plugin was quarantined; see `loopback plugin show`");
    }
    Ok(())
}
