//! Tells sessions that something about their host has changed. It does not say
//! what: a session looks for itself, so a missed message can do no harm that the
//! next one does not repair.

use std::collections::HashMap;
use std::sync::Arc;

use model::ids::WorkspaceId;
use model::tenancy::LivenessThresholds;
use tokio::sync::broadcast::error::RecvError;

use super::registry::ToSession;
use crate::app::App;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut hosts = app.catalog.host_changes();
    let mut trust = app.links.trust_epoch();
    let mut epoch = app.catalog.hosts_epoch();
    let mut thresholds = thresholds_of(&app);
    loop {
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            changed = hosts.recv() => match changed {
                Ok(host) => {
                    if let Some(link) = app.links.live(host) {
                        link.tell(ToSession::Look);
                    }
                }
                Err(RecvError::Lagged(_)) => everybody(&app),
                Err(RecvError::Closed) => return,
            },
            Ok(()) = trust.changed() => everybody(&app),
            Ok(()) = epoch.changed() => {
                let now = thresholds_of(&app);
                if now != thresholds {
                    thresholds = now;
                    everybody(&app);
                }
            }
        }
    }
}

fn everybody(app: &App) {
    for (_, link) in app.links.all() {
        link.tell(ToSession::Look);
    }
}

fn thresholds_of(app: &App) -> HashMap<WorkspaceId, LivenessThresholds> {
    app.catalog
        .read()
        .workspaces
        .values()
        .map(|workspace| (workspace.id, workspace.thresholds))
        .collect()
}
