//! Feeds followers: hosts that changed in the catalog, and what was added to
//! hosts' histories.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::v1::event::WorkspaceEvent;
use futures_util::StreamExt as _;
use gateway_store::{Event, Record as _};
use model::ids::HostId;
use tokio::sync::broadcast::error::RecvError;

use crate::app::App;
use crate::state::records::{HistoryRecordV1, all_of};

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut changes = app.catalog.host_changes();
    loop {
        let history = app
            .store
            .watch(&all_of::<HistoryRecordV1>(), app.mirror.rev())
            .await;
        let Ok(mut history) = history else { return };
        loop {
            tokio::select! {
                biased;
                () = app.tasks.stop().cancelled() => return,
                changed = changes.recv() => match changed {
                    Ok(host) => {
                        let mut hosts = BTreeSet::from([host]);
                        while let Ok(host) = changes.try_recv() {
                            hosts.insert(host);
                        }
                        tell_changed(&app, hosts);
                    }
                    Err(RecvError::Lagged(_)) => {
                        let all = app.catalog.read().hosts.keys().copied().collect();
                        tell_changed(&app, all);
                    }
                    Err(RecvError::Closed) => return,
                },
                event = history.next() => match event {
                    Some(Event::Put { key, item }) => tell_history(&app, key.as_bytes(), &item.value),
                    Some(Event::Delete { .. } | Event::Progress(_)) => {}
                    // What was missed stays in the store; followers hear of what is new.
                    Some(Event::Resync) => break,
                    None => return,
                },
            }
        }
    }
}

fn tell_changed(app: &App, hosts: BTreeSet<HostId>) {
    let tables = app.catalog.read();
    for id in hosts {
        if let Some(host) = tables.hosts.get(&id) {
            app.events.tell_changed(host.workspace, id);
        }
    }
}

fn tell_history(app: &App, key: &[u8], value: &[u8]) {
    let key = String::from_utf8_lossy(key);
    let host = key
        .split('/')
        .nth(1)
        .and_then(|id| id.parse::<HostId>().ok());
    let (Some(host), Ok(record)) = (host, HistoryRecordV1::decode(value)) else {
        return;
    };
    let workspace = app
        .catalog
        .read()
        .hosts
        .get(&host)
        .map(|host| host.workspace);
    if let Some(workspace) = workspace {
        app.events.tell(
            workspace,
            WorkspaceEvent::HostHistory {
                host,
                at: record.at,
                event: record.event,
            },
        );
    }
}
