//! What ends by itself: maintenance, ephemeral hosts, remembered answers, old
//! history, old commands. And what is written down now and then: uses of keys, last-seen times.

use std::sync::Arc;
use std::time::Duration;

use gateway_store::{Batch, Key, Read, list};
use model::Timestamp;
use model::host::{Connectivity, HostEvent, Membership};
use model::ids::HostId;

use crate::app::App;
use crate::command::retention;
use crate::error::Result;
use crate::policy::records::ApprovalRecordV1;
use crate::power;
use crate::state::change::{Origin, history};
use crate::state::edit::{edit, edit_host};
use crate::state::records::{
    ApiKeyRecordV1, HistoryRecordV1, HostSeenRecordV1, IdempotencyRecordV1, all_of, key_of,
};

/// Expiries are seen within this.
const EVERY: Duration = Duration::from_secs(1);
/// Slow work: pruning, uses of keys.
const SLOWLY: Duration = Duration::from_secs(60);
/// A connected host's last-seen time on disk is at most this old.
const COARSE: Duration = Duration::from_secs(600);
/// Answers are remembered this long.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Approvals are kept this long after their end.
const APPROVALS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Entries kept of a host's history.
const HISTORY_KEPT: usize = 2000;
/// Deletes in one batch.
const DELETES: usize = 60;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut fast = tokio::time::interval(EVERY);
    let mut slow = tokio::time::interval(SLOWLY);
    loop {
        let outcome = tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => {
                if let Err(error) = key_uses(&app).await {
                    tracing::debug!(error = %error, "uses of keys were not written down");
                }
                return;
            }
            _ = fast.tick() => expire(&app).await,
            _ = slow.tick() => slowly(&app).await,
        };
        if let Err(error) = outcome {
            tracing::warn!(error = %error, "housekeeping did not finish; it begins again");
        }
    }
}

/// Ends what has reached its end.
async fn expire(app: &App) -> Result<()> {
    let now = app.now();
    let (over, gone): (Vec<_>, Vec<_>) = {
        let tables = app.catalog.read();
        let live = || {
            tables
                .hosts
                .values()
                .filter(|host| host.membership != Membership::Retired)
        };
        let over = live()
            .filter(|host| host.maintenance.as_ref().is_some_and(|it| it.until <= now))
            .map(|host| host.id);
        let after = app.config.agents.ephemeral_retire_after;
        let gone = live()
            .filter(|host| host.ephemeral && host.membership == Membership::Managed)
            .filter(|host| {
                tables.seen.get(&host.id).is_some_and(|seen| {
                    seen.connectivity == Connectivity::Unreachable && now.since(seen.since) >= after
                })
            });
        (over.collect(), gone.map(|host| host.id).collect())
    };
    for host in over {
        end_maintenance(app, host, now).await?;
    }
    // Retiring is an automatic action: not while the fault may be ours.
    if !app.frozen() {
        for host in gone {
            retire_ephemeral(app, host, now).await?;
        }
    }
    Ok(())
}

async fn end_maintenance(app: &App, host: HostId, now: Timestamp) -> Result<()> {
    edit_host(app, host, |found, batch| {
        let Some(over) = found.maintenance_over(now) else {
            return Ok(None);
        };
        let event = HostEvent::MaintenanceEnded { expired: true };
        history(batch, host, now, event, None)?;
        Ok(Some(over))
    })
    .await?;
    Ok(())
}

async fn retire_ephemeral(app: &App, host: HostId, now: Timestamp) -> Result<()> {
    if app.links.is_linked(host) {
        return Ok(());
    }
    edit_host(app, host, |found, batch| {
        let Some(gone) = found.expired(now) else {
            return Ok(None);
        };
        let reason = "ephemeral and unreachable".to_owned();
        history(batch, host, now, HostEvent::Retired { reason }, None)?;
        Origin::gateway()
            .entry(now, "host.retire")
            .on(host)
            .with("reason", "ephemeral")
            .in_workspace(found.workspace, batch);
        Ok(Some(gone))
    })
    .await?;
    Ok(())
}

async fn slowly(app: &App) -> Result<()> {
    key_uses(app).await?;
    last_seen(app).await?;
    prune_answers(app).await?;
    prune_approvals(app).await?;
    power::forget_old(app).await?;
    prune_histories(app).await?;
    retention::forget_old(app).await
}

async fn key_uses(app: &App) -> Result<()> {
    for (key, at) in app.key_uses.take() {
        edit::<ApiKeyRecordV1>(
            app,
            &key_of::<ApiKeyRecordV1>(key),
            |found, _: &mut Batch| {
                Ok(found
                    .filter(|record| record.last_used_at < Some(at))
                    .map(|record| ApiKeyRecordV1 {
                        last_used_at: Some(at),
                        ..record
                    }))
            },
        )
        .await?;
    }
    Ok(())
}

async fn last_seen(app: &App) -> Result<()> {
    let now = app.now();
    let stale: Vec<_> = {
        let tables = app.catalog.read();
        let linked = app.links.all().into_iter().map(|(host, _)| host);
        let old = |host: &HostId| {
            tables
                .seen
                .get(host)
                .is_some_and(|seen| seen.last_seen_at.is_none_or(|at| now.since(at) >= COARSE))
        };
        linked.filter(old).collect()
    };
    for host in stale {
        edit::<HostSeenRecordV1>(
            app,
            &key_of::<HostSeenRecordV1>(host),
            |found, _: &mut Batch| {
                Ok(found.map(|seen| HostSeenRecordV1 {
                    last_seen_at: Some(now),
                    ..seen
                }))
            },
        )
        .await?;
    }
    Ok(())
}

async fn prune_answers(app: &App) -> Result<()> {
    let horizon = app.now().saturating_sub(REMEMBERED);
    let mut after: Option<Key> = None;
    loop {
        let page = list::<IdempotencyRecordV1>(
            &*app.store,
            &all_of::<IdempotencyRecordV1>(),
            after.as_ref(),
            500,
            Read::Linearizable,
        )
        .await?;
        after = page.records.last().map(|(key, _)| key.clone());
        let old = page
            .records
            .iter()
            .filter(|(_, stored)| stored.record.at < horizon)
            .map(|(key, _)| key.clone());
        delete(app, &old.collect::<Vec<_>>()).await?;
        if !page.more {
            return Ok(());
        }
    }
}

async fn prune_approvals(app: &App) -> Result<()> {
    let horizon = app.now().saturating_sub(APPROVALS_KEPT);
    let old: Vec<Key> = {
        let tables = app.catalog.read();
        let old = tables
            .approvals
            .values()
            .filter(|approval| approval.expires_at < horizon);
        old.map(|approval| key_of::<ApprovalRecordV1>(approval.id))
            .collect()
    };
    delete(app, &old).await
}

/// Cuts histories that have grown long. Only linked hosts' histories grow; a
/// sixtieth of them is looked at every minute.
async fn prune_histories(app: &App) -> Result<()> {
    let turn = app.uptime().as_secs() / SLOWLY.as_secs() % 60;
    let due = |host: &HostId| host.to_string().bytes().map(u64::from).sum::<u64>() % 60 == turn;
    for (host, _) in app.links.all().into_iter().filter(|(host, _)| due(host)) {
        let prefix = HistoryRecordV1::prefix_of(host);
        let mut keys: Vec<Key> = Vec::new();
        let mut after: Option<Key> = None;
        loop {
            let page = app
                .store
                .list(
                    &prefix,
                    after.as_ref(),
                    1000,
                    Read::Cached { at_least: None },
                )
                .await?;
            after = page.items.last().map(|(key, _)| key.clone());
            keys.extend(page.items.into_iter().map(|(key, _)| key));
            if !page.more {
                break;
            }
        }
        if keys.len() > HISTORY_KEPT {
            let too_many = keys.len() - HISTORY_KEPT;
            delete(app, &keys[..too_many]).await?;
        }
    }
    Ok(())
}

/// Deletes records, some at a time.
pub(crate) async fn delete(app: &App, keys: &[Key]) -> Result<()> {
    for some in keys.chunks(DELETES) {
        let mut batch = Batch::new();
        for key in some {
            batch.delete(key);
        }
        app.commit(batch).await?;
    }
    Ok(())
}
