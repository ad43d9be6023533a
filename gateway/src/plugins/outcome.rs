//! What follows from a plugin's failures.

use model::names::Name;

use super::engine::Fault;
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
