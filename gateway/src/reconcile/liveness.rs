//! Notices silence.
//!
//! Looks at every managed host when a link came or went, when a threshold
//! changed, and when silence alone would change something. What it finds is kept
//! in the registry; only "unreachable" is written down here, and its end on a link
//! that lived on (a link that begins or ends writes that itself), in batches, so that
//! the loss of a whole fleet is some hundred commits and one event.

use std::sync::Arc;
use std::time::Duration;

use api::v1::event::WorkspaceEvent;
use gateway_core::liveness::{MassLossRule, Note, Sight, Storm, StormBrake, Survey};
use gateway_core::seen::Seen;
use gateway_store::{Batch, Condition};
use model::host::{Carrier, Connectivity, Membership};
use model::ids::{HostId, WorkspaceId};

use crate::app::App;
use crate::error::Result;
use crate::state::change::{Origin, history};
use crate::state::records::{HostSeenRecordV1, key_of};

/// Changes close together are looked at together.
const SETTLE: Duration = Duration::from_millis(50);
/// While hosts come and go all the time, looking takes one part in this many of a core: a look
/// at tens of thousands takes about as long as [`SETTLE`], just when they all come back.
const SHARE: u32 = 10;
/// However long a look takes, the next one is not put off for longer.
const SETTLE_MOST: Duration = Duration::from_secs(1);
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
        let looked = pass(&app, &mut brake).await;
        let wait = looked.next.map_or(AT_LEAST_EVERY, |at| {
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
            () = tokio::time::sleep(settle(looked.took)) => {}
        }
    }
}

/// How long changes are gathered after a look that took `took`.
fn settle(took: Duration) -> Duration {
    (took * (SHARE - 1)).clamp(SETTLE, SETTLE_MOST)
}

/// What a look at every host found out for the next one.
struct Look {
    /// When silence will next change something, since the gateway started.
    next: Option<Duration>,
    /// How long the looking itself took, without writing anything down.
    took: Duration,
}

/// Something to write down.
struct Transition {
    host: HostId,
    workspace: WorkspaceId,
    planned: bool,
    what: What,
}

enum What {
    Unreachable,
    HeardAgain { carrier: Carrier, address: String },
}

/// One look at every host.
async fn pass(app: &Arc<App>, brake: &mut StormBrake) -> Look {
    let began = app.uptime();
    let now = app.now();
    let mut survey = Survey::default();
    let mut transitions = Vec::new();
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
            let planned = seen.is_some_and(|seen| seen.said_goodbye)
                || record.maintenance.as_ref().is_some_and(|it| now < it.until)
                || tables.power.explains_absence(record.id);
            let note = survey.see(&Sight {
                connectivity: looked.connectivity,
                before: looked.before,
                written: seen.map_or(Connectivity::Never, |seen| seen.connectivity),
                planned,
                next: looked.next,
            });
            let what = match note {
                Some(Note::Unreachable) => Some(What::Unreachable),
                Some(Note::HeardAgain) => app.links.live(record.id).map(|link| What::HeardAgain {
                    carrier: link.carrier,
                    address: link.address.ip().to_string(),
                }),
                None => None,
            };
            transitions.extend(what.map(|what| Transition {
                host: record.id,
                workspace: record.workspace,
                planned,
                what,
            }));
            if looked
                .before
                .is_some_and(|before| before != looked.connectivity)
            {
                app.events.tell_changed(record.workspace, record.id);
            }
        }
    }
    let rule = MassLossRule {
        minimum: app.config.mass_loss.minimum_hosts,
        fraction: app.config.mass_loss.fraction,
        window: app.config.mass_loss.window,
    };
    let storm = survey.storm(brake, &rule, app.uptime());
    let took = app.uptime().saturating_sub(began);
    app.freeze(brake.pulled());
    if let Some(storm) = storm {
        announce(app, storm).await;
    }
    for some in transitions.chunks(HOSTS_A_BATCH) {
        if let Err(error) = write_down(app, some, brake.pulled()).await {
            tracing::warn!(error = %error, "transitions of hosts were not written down; trying again");
            let next = Some(app.uptime() + Duration::from_secs(1));
            return Look { next, took };
        }
    }
    let next = survey.next();
    Look { next, took }
}

async fn write_down(app: &App, transitions: &[Transition], mass_loss: bool) -> Result<()> {
    let now = app.now();
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        for transition in transitions {
            let Some(kept) = tables.seen.get(&transition.host) else {
                continue;
            };
            let seen = Seen::from((*kept.record).clone());
            let (seen, event) = match &transition.what {
                What::Unreachable => seen.unreachable(mass_loss, now),
                What::HeardAgain { carrier, address } => seen.heard_again(*carrier, address, now),
            };
            let key = key_of::<HostSeenRecordV1>(transition.host);
            batch.require(&key, Condition::RevIs(kept.rev));
            batch.put_record(&key, &HostSeenRecordV1::from(seen))?;
            history(&mut batch, transition.host, now, event, None)?;
        }
    }
    for Transition {
        host,
        workspace,
        planned,
        what,
    } in transitions
    {
        match what {
            What::Unreachable => {
                tracing::info!(host.id = %host, workspace.id = %workspace, planned, mass_loss, "host unreachable")
            }
            What::HeardAgain { .. } => {
                tracing::info!(host.id = %host, workspace.id = %workspace, "host heard again")
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looking_leaves_most_of_a_core_to_others_and_is_never_put_off_for_long() {
        let ms = Duration::from_millis;
        assert_eq!(settle(ms(1)), SETTLE);
        assert_eq!(settle(ms(20)), ms(180));
        assert_eq!(settle(ms(60_000)), SETTLE_MOST);
    }
}
