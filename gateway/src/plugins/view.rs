//! Plugins as the API shows them.

use api::v1::plugin::{
    PendingUpgrade, Plugin, PluginEvent, PluginState, PluginVersion, Quarantine, RunningPlugin,
    RunningStatus,
};
use model::plugin::ungranted;

use super::Plugins;
use crate::state::plugin_records::{ComponentV1, PluginRecordV1, PluginStateV1};

/// A plugin.
pub fn plugin(plugins: &Plugins, record: &PluginRecordV1) -> Plugin {
    let (state, quarantine) = match &record.state {
        PluginStateV1::Installed => (PluginState::Installed, None),
        PluginStateV1::Enabled => (PluginState::Enabled, None),
        PluginStateV1::Disabled => (PluginState::Disabled, None),
        PluginStateV1::Quarantined { reason, since } => (
            PluginState::Quarantined,
            Some(Quarantine {
                reason: reason.clone(),
                since: *since,
            }),
        ),
    };
    Plugin {
        name: record.name.clone(),
        kind: record.present.kind,
        present: version(&record.present),
        previous: record.previous.as_ref().map(version),
        pending: record.pending.as_ref().map(|pending| PendingUpgrade {
            version: version(&pending.component),
            widening: pending.widening.clone(),
            ungranted: ungranted(&pending.component.manifest.needs, &record.grant),
        }),
        ungranted: ungranted(&record.present.manifest.needs, &record.grant),
        grant: record.grant.clone(),
        configured: record.accepted_by == Some(record.present.digest),
        configuration_revision: record.configuration_revision,
        running: (state == PluginState::Enabled).then(|| running(plugins, record)),
        state,
        quarantine,
        created_at: record.created_at,
        history: record
            .history
            .iter()
            .map(|event| PluginEvent {
                at: event.at,
                what: event.what.clone(),
                by: event.by.clone(),
                digest: event.digest,
            })
            .collect(),
    }
}

fn version(component: &ComponentV1) -> PluginVersion {
    PluginVersion {
        digest: component.digest,
        name: component.manifest.name.clone(),
        version: component.manifest.version.clone(),
        description: component.manifest.description.clone(),
        size_bytes: component.size_bytes,
        signed_by: component.signed_by.clone(),
        source: component.source.clone(),
        installed_at: component.installed_at,
        installed_by: component.installed_by.clone(),
        needs: component.manifest.needs.clone(),
    }
}

fn running(plugins: &Plugins, record: &PluginRecordV1) -> RunningPlugin {
    let entry = plugins.running().get(&record.name).cloned();
    let Some(entry) = entry else {
        return RunningPlugin {
            status: RunningStatus::Loading,
            digest: None,
            reason: None,
            health: None,
            counters: Default::default(),
        };
    };
    let loaded = entry.loaded.as_ref();
    RunningPlugin {
        status: entry.status,
        digest: loaded.map(|loaded| loaded.as_wanted.digest),
        reason: entry.reason.clone(),
        health: entry.health.clone(),
        counters: loaded
            .map(|loaded| loaded.instance.counters())
            .unwrap_or_default(),
    }
}
