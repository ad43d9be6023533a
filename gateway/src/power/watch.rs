//! Looks at providers now and then, and at what was desired.
//!
//! What is seen is written down when it is something else than before; that it was looked at all
//! the same is remembered in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gateway_core::power::facts::contradiction;
use gateway_core::power::operation::Failure;
use gateway_core::power::plan::Support;
use gateway_core::power::{Seen, Trouble};
use gateway_store::{Batch, Condition};
use model::Timestamp;
use model::ids::HostId;
use model::power::{PowerAction, PowerMode, PowerState};

use super::agent_of;
use super::ask::{self, Wanted};
use super::provider::Machine;
use super::records::{PowerOperationRecordV1, PowerSeenRecordV1, PowerTargetRecordV1};
use crate::app::App;
use crate::error::Result;
use crate::state::change::Origin;
use crate::state::edit::edit;
use crate::state::records::key_of;

/// Looks at a time, of all hosts together.
const AT_ONCE: usize = 8;
/// Between two glances at what is due.
const GLANCE: Duration = Duration::from_secs(5);
/// A look is given up after this.
const WITHIN: Duration = Duration::from_secs(60);
/// Times in an hour that a host is brought back to what is desired: more is a fight with somebody.
const ENFORCED_AN_HOUR: usize = 3;
/// Who asks for what is desired.
const BY: &str = "gateway";

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut looks: FuturesUnordered<BoxFuture<'static, HostId>> = FuturesUnordered::new();
    let mut looking = HashSet::new();
    let mut next: HashMap<HostId, Timestamp> = HashMap::new();
    loop {
        let now = app.now();
        let interval = app.config.power.observe_interval;
        let due: Vec<_> = {
            let tables = app.catalog.read();
            next.retain(|host, _| tables.power.targets.contains_key(host));
            let hosts = tables.power.targets.keys().copied();
            hosts
                .filter(|host| !looking.contains(host))
                .filter(|host| {
                    // After a start not all at once, and what is new soon.
                    let first = now.saturating_add(share(Duration::from_secs(30)));
                    *next.entry(*host).or_insert(first) <= now
                })
                .take(AT_ONCE - looking.len().min(AT_ONCE))
                .collect()
        };
        for host in due {
            next.insert(host, now.saturating_add(interval + share(interval / 4)));
            looking.insert(host);
            let app = Arc::clone(&app);
            looks.push(Box::pin(async move {
                if let Err(error) = look(&app, host).await {
                    tracing::warn!(host = %host, error = %error, "a power provider cannot be looked at yet");
                }
                host
            }));
        }
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            Some(host) = looks.next() => {
                looking.remove(&host);
            }
            () = tokio::time::sleep(GLANCE) => {}
        }
    }
}

fn share(of: Duration) -> Duration {
    of.mul_f64(f64::from(u32::from_be_bytes(crate::keys::random())) / f64::from(u32::MAX))
}

/// Asks a host's provider how it is, and writes down what is new.
pub async fn look(app: &App, host: HostId) -> Result<()> {
    let (target, knows) = {
        let tables = app.catalog.read();
        let Some(target) = tables.power.targets.get(&host) else {
            return Ok(());
        };
        let seen = tables.power.seen.get(&host);
        let knows = seen.is_some_and(|seen| seen.support.is_some());
        (Arc::clone(&target.record), knows)
    };
    match tokio::time::timeout(WITHIN, ask_provider(app, &target, knows)).await {
        Ok(Ok((seen, support))) => match seen {
            Some(seen) => saw(app, host, seen, support).await,
            None => able(app, host, support).await,
        },
        Ok(Err(failure)) => fails(app, host, failure.trouble).await,
        Err(_) => {
            let what = "the power provider does not answer";
            fails(app, host, Trouble::new("no_answer", what)).await
        }
    }
}

async fn ask_provider(
    app: &App,
    target: &PowerTargetRecordV1,
    knows: bool,
) -> std::result::Result<(Option<Seen>, Option<Support>), Failure> {
    let provider = app.power.providers.get(&target.plugin, target.workspace)?;
    let machine = Machine::from(target);
    let support = if knows {
        None
    } else {
        Some(provider.inspect(&machine).await?)
    };
    let observable = match &support {
        Some(support) => support.observable,
        None => app
            .catalog
            .read()
            .power
            .seen
            .get(&target.host)
            .and_then(|seen| seen.support.as_ref().map(|support| support.observable))
            .unwrap_or(true),
    };
    let seen = if observable {
        Some(provider.observe(&machine).await?)
    } else {
        None
    };
    Ok((seen, support))
}

/// Takes note of what a provider saw.
pub(crate) async fn saw(
    app: &App,
    host: HostId,
    seen: Seen,
    support: Option<Support>,
) -> Result<()> {
    let now = app.now();
    app.power.looked(host, now);
    let (agent, target, busy) = {
        let tables = app.catalog.read();
        let Some(target) = tables.power.targets.get(&host) else {
            return Ok(());
        };
        let busy = tables.power.open_on(host).next().is_some();
        (
            agent_of(app, &tables, host),
            Arc::clone(&target.record),
            busy,
        )
    };
    let odd = contradiction(&seen, &agent, now);
    let key = key_of::<PowerSeenRecordV1>(host);
    let written = edit::<PowerSeenRecordV1>(app, &key, |found, batch| {
        let before = found.unwrap_or_else(|| nothing(host));
        let same_state = before.seen.as_ref().is_some_and(|it| {
            it.state == seen.state && it.raw == seen.raw && it.boot_mark == seen.boot_mark
        });
        let after = PowerSeenRecordV1 {
            host,
            seen: if same_state {
                before.seen.clone()
            } else {
                Some(seen.clone())
            },
            support: support.clone().or_else(|| before.support.clone()),
            failing: None,
            contradiction: odd.clone(),
        };
        if after == before {
            return Ok(None);
        }
        if let Some(odd) = after
            .contradiction
            .as_ref()
            .filter(|_| before.contradiction.is_none())
        {
            Origin::gateway()
                .entry(now, "power.wrong_target")
                .on(host)
                .with("message", &odd.message)
                .noticed()
                .in_workspace(target.workspace, batch);
        }
        let differs = |state: Option<&Seen>| {
            let state = state.map(|seen| seen.state);
            matches!(state, Some(PowerState::On | PowerState::Off)) && state != target.desired
        };
        let told = target.mode != PowerMode::Observe && target.desired.is_some() && !busy;
        if told && differs(after.seen.as_ref()) && !differs(before.seen.as_ref()) {
            Origin::gateway()
                .entry(now, "power.drift")
                .on(host)
                .with("desired", target.desired.map_or("", PowerState::as_str))
                .with("observed", seen.state)
                .noticed()
                .in_workspace(target.workspace, batch);
        }
        Ok(Some(after))
    });
    written.await?;
    if !busy && odd.is_none() {
        enforce(app, &target, seen.state, now).await?;
    }
    Ok(())
}

async fn able(app: &App, host: HostId, support: Option<Support>) -> Result<()> {
    app.power.looked(host, app.now());
    let Some(support) = support else {
        return Ok(());
    };
    let key = key_of::<PowerSeenRecordV1>(host);
    let written = edit::<PowerSeenRecordV1>(app, &key, |found, _| {
        let mut record = found.unwrap_or_else(|| nothing(host));
        record.support = Some(support.clone());
        record.failing = None;
        Ok(Some(record))
    });
    written.await.map(drop)
}

async fn fails(app: &App, host: HostId, trouble: Trouble) -> Result<()> {
    let now = app.now();
    let key = key_of::<PowerSeenRecordV1>(host);
    let written = edit::<PowerSeenRecordV1>(app, &key, |found, _| {
        let mut record = found.unwrap_or_else(|| nothing(host));
        if record
            .failing
            .as_ref()
            .is_some_and(|(_, before)| before.code == trouble.code)
        {
            return Ok(None);
        }
        let since = record.failing.as_ref().map_or(now, |(since, _)| *since);
        record.failing = Some((since, trouble.clone()));
        Ok(Some(record))
    });
    written.await.map(drop)
}

fn nothing(host: HostId) -> PowerSeenRecordV1 {
    PowerSeenRecordV1 {
        host,
        seen: None,
        support: None,
        failing: None,
        contradiction: None,
    }
}

/// Brings a host back to what is desired, if it is to be, within limits.
async fn enforce(
    app: &App,
    target: &PowerTargetRecordV1,
    state: PowerState,
    now: Timestamp,
) -> Result<()> {
    let action = match (target.mode, target.desired, state) {
        (PowerMode::Enforce, Some(PowerState::On), PowerState::Off) => PowerAction::On,
        (PowerMode::Enforce, Some(PowerState::Off), PowerState::On) => PowerAction::Shutdown,
        _ => return Ok(()),
    };
    if app.frozen() {
        return Ok(());
    }
    {
        let tables = app.catalog.read();
        if ask::never_off(&tables, target.host, action).is_err() {
            return Ok(());
        }
        let hour_ago = now.saturating_sub(Duration::from_secs(3600));
        let recent = tables.power.operations.values().rev();
        let recent = recent.take_while(|record| record.created_at > hour_ago);
        let own = recent.filter(|it| it.host == target.host && it.created_by == BY);
        if own.count() >= ENFORCED_AN_HOUR {
            return Ok(());
        }
    }
    let wanted = Wanted {
        action,
        escalate_after: None,
        boot: None,
        timeout: ask::USUAL,
    };
    let by = (BY.to_owned(), None);
    let record = ask::record(app, target.host, target.workspace, &wanted, by, now);
    let mut batch = Batch::new();
    let key = key_of::<PowerOperationRecordV1>(record.id);
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &record)?;
    Origin::gateway()
        .entry(now, "power.enforce")
        .on(target.host)
        .with("operation", record.id)
        .with("action", action)
        .in_workspace(target.workspace, &mut batch);
    app.commit(batch).await.map(drop)
}
