//! Notices silence.
//!
//! Looks at every managed host when a link came or went, when a threshold
//! changed, and when silence alone would change something. What it finds is kept
//! in the registry; only "unreachable" is written down here (a link that ends
//! writes that itself), in batches, so that the loss of a whole fleet is some
//! hundred commits and one event.

use std::sync::Arc;
use std::time::Duration;

use api::v1::event::WorkspaceEvent;
use gateway_core::liveness::{MassLossRule, Storm, StormBrake};
use gateway_store::{Batch, Condition};
use model::host::{Connectivity, HostEvent, Membership};
use model::ids::{HostId, WorkspaceId};

use crate::app::App;
use crate::error::Result;
use crate::state::change::{Origin, history};
use crate::state::records::{HostSeenRecordV1, key_of};

/// Changes close together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// Nothing waits longer than this for a look, whatever was missed.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// Two puts a host; well within a batch.
const HOSTS_A_BATCH: usize = 24;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut links = app.links.changes();
    let mut hosts = app.catalog.hosts_epoch();
    let mut brake = StormBrake::default();
    loop {
        let next = pass(&app, &mut brake).await;
        let wait = next.map_or(AT_LEAST_EVERY, |at| {
            at.saturating_sub(app.uptime())
                .clamp(Duration::from_millis(10), AT_LEAST_EVERY)
        });
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            () = tokio::time::sleep(wait) => continue,
            Ok(()) = links.changed() => {}
            Ok(()) = hosts.changed() => {}
        }
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            () = tokio::time::sleep(SETTLE) => {}
        }
    }
}

struct Lost {
    host: HostId,
    workspace: WorkspaceId,
}

/// One look at every host. Answers when silence will next change something.
async fn pass(app: &Arc<App>, brake: &mut StormBrake) -> Option<Duration> {
    let now = app.now();
    let mut next: Option<Duration> = None;
    let (mut lost, mut connected, mut unreachable) = (Vec::new(), 0, 0);
    {
        let tables = app.catalog.read();
        for record in tables
            .hosts
            .values()
            .filter(|record| record.membership != Membership::Retired)
        {
            let seen = tables.seen.get(&record.id).map(|kept| &*kept.record);
            let thresholds = tables
                .workspaces
                .get(&record.workspace)
                .map(|workspace| workspace.thresholds)
                .unwrap_or_default();
            let looked = app.links.observe(record.id, seen, &thresholds, now);
            next = [next, looked.next].into_iter().flatten().min();
            match looked.connectivity {
                Connectivity::Connected => connected += 1,
                Connectivity::Unreachable => unreachable += 1,
                Connectivity::Never | Connectivity::Late | Connectivity::Unconfirmed => {}
            }
            let written = seen.map_or(Connectivity::Never, |seen| seen.connectivity);
            let planned = seen.is_some_and(|seen| seen.said_goodbye)
                || record.maintenance.as_ref().is_some_and(|it| now < it.until);
            if looked.connectivity == Connectivity::Unreachable
                && written != Connectivity::Unreachable
            {
                lost.push((
                    Lost {
                        host: record.id,
                        workspace: record.workspace,
                    },
                    planned,
                ));
            }
            if looked
                .before
                .is_some_and(|before| before != looked.connectivity)
                && let Some(host) = crate::view::host(&tables, &app.links, record.id, now)
            {
                app.events.tell(
                    record.workspace,
                    WorkspaceEvent::HostChanged {
                        host: Box::new(host),
                    },
                );
            }
        }
    }
    let rule = MassLossRule {
        minimum: app.config.mass_loss.minimum_hosts,
        fraction: app.config.mass_loss.fraction,
        window: app.config.mass_loss.window,
    };
    let unplanned = lost.iter().filter(|(_, planned)| !planned).count();
    let storm = brake.observe(&rule, unplanned, connected, unreachable, app.uptime());
    app.freeze(brake.pulled());
    if let Some(storm) = storm {
        announce(app, storm).await;
    }
    for some in lost.chunks(HOSTS_A_BATCH) {
        if let Err(error) = write_down(app, some, brake.pulled()).await {
            tracing::warn!(error = %error, "unreachable hosts were not written down; trying again");
            return Some(app.uptime() + Duration::from_secs(1));
        }
    }
    next
}

async fn write_down(app: &App, lost: &[(Lost, bool)], mass_loss: bool) -> Result<()> {
    let now = app.now();
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        for (lost, _) in lost {
            let Some(kept) = tables.seen.get(&lost.host) else {
                continue;
            };
            let key = key_of::<HostSeenRecordV1>(lost.host);
            let seen = HostSeenRecordV1 {
                connectivity: Connectivity::Unreachable,
                since: now,
                ..(*kept.record).clone()
            };
            batch.require(&key, Condition::RevIs(kept.rev));
            batch.put_record(&key, &seen)?;
            history(
                &mut batch,
                lost.host,
                now,
                HostEvent::Unreachable { mass_loss },
                None,
            )?;
        }
    }
    for (lost, planned) in lost {
        tracing::info!(host.id = %lost.host, workspace.id = %lost.workspace, planned, mass_loss, "host unreachable");
    }
    match app.try_commit(batch).await? {
        // One of them came back at this very moment: the next pass sees it.
        Ok(_) | Err(gateway_store::CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn announce(app: &App, storm: Storm) {
    let now = app.now();
    let mut batch = Batch::new();
    let entry = |action| Origin::gateway().entry(now, action).noticed();
    let workspaces: Vec<_> = app.catalog.read().workspaces.keys().copied().collect();
    match storm {
        Storm::Began { hosts } => {
            tracing::warn!(
                hosts,
                "many hosts were lost together; automatic actions stand still"
            );
            entry("host.mass_loss")
                .with("hosts", hosts)
                .in_deployment(&mut batch);
            for workspace in workspaces {
                app.events.tell(
                    workspace,
                    WorkspaceEvent::MassLoss {
                        hosts: hosts as u64,
                        at: now,
                    },
                );
            }
        }
        Storm::Ended => {
            tracing::info!("most hosts are back; automatic actions go on");
            entry("host.mass_loss_over").in_deployment(&mut batch);
            for workspace in workspaces {
                app.events
                    .tell(workspace, WorkspaceEvent::MassLossOver { at: now });
            }
        }
    }
    if let Err(error) = app.commit(batch).await {
        tracing::warn!(error = %error, "a mass loss could not be written to the audit trail");
    }
}
