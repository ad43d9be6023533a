//! Brings events to notifiers.
//!
//! One task for all notifiers; each has at most one delivery under way, so that its events stay
//! in order, and a slow one holds up nobody else. What an attempt came to is decided in
//! `gateway_core::signal` and written (how far the notifier is, dead letters) before the next
//! attempt begins. After a crash an attempt is made again: notifiers see an event at least once,
//! with the same id.
//!
//! Events leave the store when every notifier is past them. A notifier that is disabled is
//! forgotten, and starts with what happens after it is enabled again; one that fails holds up to
//! [`QUEUE`] events back, and those above are skipped for it, loudly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gateway_core::signal::{BATCH, Outcome, Settled, due, settle};
use gateway_store::{Batch, Condition};
use model::Timestamp;
use model::ids::{HostId, WorkspaceId};
use model::names::Name;
use tokio::sync::watch;

use super::queue::{Place, key_of as event_key};
use super::records::{DeadLetterRecordV1, SignalRecordV1, SignalSinkRecordV1};
use crate::app::App;
use crate::error::Result;
use crate::state::catalog::Tables;
use crate::state::change::Origin;
use crate::state::records::key_of;

/// Events that are held back for a notifier that fails: days of a quiet deployment, some 50 MB.
const QUEUE: usize = 100_000;
/// Deletes in one batch.
const DELETES: usize = 60;
/// Dead letters in one batch.
const LETTERS: usize = 40;
/// Looked at this often without a reason, for what could not be written.
const IDLE: Duration = Duration::from_secs(30);

/// An event as a notifier gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The same at every attempt.
    pub id: String,
    /// Without gaps, for this notifier.
    pub sequence: u64,
    /// What.
    pub event: Arc<SignalRecordV1>,
    /// The workspace.
    pub workspace_id: Option<WorkspaceId>,
    /// Its name.
    pub workspace: Option<String>,
    /// The host's id and name.
    pub host: Option<(HostId, String)>,
}

/// A notifier plugin that is enabled.
#[async_trait]
pub trait Notifier: Send + Sync {
    /// Whether events of this workspace (or the deployment's own) are for it.
    fn covers(&self, workspace: Option<WorkspaceId>) -> bool;

    /// Delivers events, oldest first. Fewer outcomes than events: the rest failed.
    async fn deliver(&self, events: Vec<Event>) -> Vec<Outcome>;
}

/// The notifiers that are enabled, by name.
pub type Notifiers = BTreeMap<Name, Arc<dyn Notifier>>;

/// What is under way for a notifier.
struct Attempt {
    notifier: Name,
    /// The places of the events delivered, and what lies between them.
    batch: Vec<(Place, Event)>,
    outcomes: Vec<Outcome>,
}

type Attempts = FuturesUnordered<BoxFuture<'static, Attempt>>;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>, mut notifiers: watch::Receiver<Option<Notifiers>>) {
    let mut events = app.catalog.signals_epoch();
    let mut attempts = Attempts::new();
    let mut busy = BTreeSet::new();
    loop {
        let now = app.now();
        let present = notifiers.borrow_and_update().clone();
        events.borrow_and_update();
        let next = match &present {
            None => None,
            Some(present) => match begin(&app, present, &mut busy, &mut attempts, now).await {
                Ok(next) => next,
                Err(error) => {
                    tracing::warn!(error = %error, "notifiers cannot be looked after yet");
                    None
                }
            },
        };
        let wait = next.map_or(IDLE, |next| next.since(now).min(IDLE));
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            Some(attempt) = attempts.next() => {
                busy.remove(&attempt.notifier);
                if let Err(error) = finish(&app, attempt).await {
                    tracing::warn!(error = %error, "what came of a delivery cannot be written down yet; it is made again");
                }
            }
            _ = notifiers.changed() => {}
            _ = events.changed() => {}
            () = tokio::time::sleep(wait.max(Duration::from_millis(5))) => {}
        }
    }
}

/// Begins what is due; answers when something will be.
async fn begin(
    app: &Arc<App>,
    present: &Notifiers,
    busy: &mut BTreeSet<Name>,
    attempts: &mut Attempts,
    now: Timestamp,
) -> Result<Option<Timestamp>> {
    introduce(app, present).await?;
    let mut next: Option<Timestamp> = None;
    for (name, notifier) in present {
        if busy.contains(name) {
            continue;
        }
        let Some((sink, batch, passed)) = look(app, name, &**notifier) else {
            continue;
        };
        if let Some(passed) = passed {
            pass_over(app, name, passed).await?;
        }
        let Some(at) = due(&sink.sink(), batch.len(), now) else {
            continue;
        };
        if at > now {
            next = Some(next.map_or(at, |next| next.min(at)));
            continue;
        }
        busy.insert(name.clone());
        let (name, notifier) = (name.clone(), Arc::clone(notifier));
        attempts.push(Box::pin(async move {
            let events = batch.iter().map(|(_, event)| event.clone()).collect();
            let outcomes = notifier.deliver(events).await;
            Attempt {
                notifier: name,
                batch,
                outcomes,
            }
        }));
    }
    forget(app, present).await?;
    Ok(next)
}

/// Gives new notifiers their place, and takes that of those that are gone.
async fn introduce(app: &App, present: &Notifiers) -> Result<()> {
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        let place = tables.signals.last().cloned().unwrap_or_default();
        for name in present
            .keys()
            .filter(|name| !tables.sinks.contains_key(*name))
        {
            let key = key_of::<SignalSinkRecordV1>(name);
            batch.require(&key, Condition::Absent);
            batch.put_record(&key, &SignalSinkRecordV1::starting_at(place.clone()))?;
        }
        for name in tables
            .sinks
            .keys()
            .filter(|name| !present.contains_key(*name))
        {
            batch.delete(&key_of::<SignalSinkRecordV1>(name));
        }
    }
    if !batch.is_empty() {
        app.commit(batch).await?;
    }
    app.outbox.set_wanted(!present.is_empty());
    Ok(())
}

type Looked = (
    SignalSinkRecordV1,
    Vec<(Place, Event)>,
    Option<(Place, u64)>,
);

/// What waits for a notifier: its record, the next events, and up to where there is nothing for
/// it (with how many it should have got).
fn look(app: &App, name: &Name, notifier: &dyn Notifier) -> Option<Looked> {
    let tables = app.catalog.read();
    let sink = tables.sinks.get(name)?;
    let mut place = sink.position.clone();
    let mut passed = None;
    let waiting = tables.signals.len().saturating_sub(QUEUE);
    if waiting > 0 && tables.signals.after(&place).count() > QUEUE {
        let skipped = tables.signals.after(&place).take(waiting);
        let (last, count) = skipped.fold((place.clone(), 0), |(_, count), (place, _)| {
            (place.clone(), count + 1)
        });
        place = last;
        passed = Some((place.clone(), count));
    }
    let mut batch = Vec::new();
    for (place, event) in tables.signals.after(&place) {
        let workspace = workspace_of(&tables, event);
        if !notifier.covers(workspace) {
            // Only at the front: behind an event that waits, places are passed with it.
            if batch.is_empty() {
                let skipped = passed.take().map_or(0, |(_, count)| count);
                passed = Some((place.clone(), skipped));
            }
            continue;
        }
        // A plugin is called for one workspace at a time.
        if batch
            .first()
            .is_some_and(|(_, first): &(Place, Event)| first.workspace_id != workspace)
        {
            break;
        }
        let id = format!("evt_{}-{:x}", place.1, place.0);
        let sequence = sink.next_sequence.max(1) + batch.len() as u64;
        let event = addressed(&tables, id, sequence, Arc::clone(event));
        batch.push((place.clone(), event));
        if batch.len() == BATCH {
            break;
        }
    }
    Some(((*sink.record).clone(), batch, passed))
}

/// Whose an event is.
fn workspace_of(tables: &Tables, event: &SignalRecordV1) -> Option<WorkspaceId> {
    event.workspace.or_else(|| {
        let host = tables.hosts.get(&event.host?)?;
        Some(host.workspace)
    })
}

/// An event as a notifier gets it, with the names that things have now.
pub(super) fn addressed(
    tables: &Tables,
    id: String,
    sequence: u64,
    event: Arc<SignalRecordV1>,
) -> Event {
    let workspace = workspace_of(tables, &event);
    let host = event.host.and_then(|id| Some((id, tables.hosts.get(&id)?)));
    Event {
        id,
        sequence,
        workspace_id: workspace,
        workspace: workspace
            .and_then(|id| tables.workspaces.get(&id))
            .map(|record| record.name.to_string()),
        host: host.map(|(id, record)| {
            let hostname = crate::view::hostname_of(tables, record);
            (id, crate::view::name_of(record, hostname))
        }),
        event,
    }
}

/// Writes that there is nothing for a notifier up to a place.
async fn pass_over(app: &App, name: &Name, (place, skipped): (Place, u64)) -> Result<()> {
    if skipped > 0 {
        tracing::error!(plugin = %name, skipped, "a notifier is so far behind that events are skipped for it");
    }
    let key = key_of::<SignalSinkRecordV1>(name);
    crate::state::edit::edit::<SignalSinkRecordV1>(app, &key, |found, batch| {
        let Some(sink) = found.filter(|sink| sink.position < place) else {
            return Ok(None);
        };
        if skipped > 0 {
            Origin::gateway()
                .entry(app.now(), "plugin.events_skipped")
                .on(name)
                .with("events", skipped)
                .noticed()
                .in_deployment(batch);
        }
        Ok(Some(SignalSinkRecordV1 {
            position: place.clone(),
            dead: sink.dead + skipped,
            ..sink
        }))
    })
    .await?;
    Ok(())
}

/// Writes down what an attempt came to.
async fn finish(app: &App, attempt: Attempt) -> Result<()> {
    let now = app.now();
    let jitter = f64::from(u16::from_be_bytes(crate::keys::random())) / f64::from(u16::MAX);
    let key = key_of::<SignalSinkRecordV1>(&attempt.notifier);
    let failure = attempt.outcomes.iter().find_map(|outcome| match outcome {
        Outcome::Delivered => None,
        Outcome::Hopeless { code } | Outcome::Again { code, .. } => Some(code.clone()),
    });
    crate::state::edit::edit::<SignalSinkRecordV1>(app, &key, |found, batch| {
        let Some(mut record) = found else {
            return Ok(None);
        };
        let outcomes = attempt.outcomes.iter().cloned();
        // What one batch can hold; the rest is found at the next attempt.
        let count = attempt
            .outcomes
            .iter()
            .enumerate()
            .filter(|(_, outcome)| matches!(outcome, Outcome::Hopeless { .. }))
            .nth(LETTERS)
            .map_or(attempt.batch.len(), |(number, _)| number);
        let (sink, settled) = settle(&record.sink(), count, outcomes, now, jitter);
        for ((place, event), settled) in attempt.batch.iter().zip(&settled) {
            record.position.clone_from(place);
            let Settled::Dead { code } = settled else {
                continue;
            };
            record.dead += 1;
            let letter = DeadLetterRecordV1 {
                sequence: event.sequence,
                id: event.id.clone(),
                event: (*event.event).clone(),
                code: code.clone(),
                given_up_at: now,
            };
            let key = DeadLetterRecordV1::key(&attempt.notifier, &event.id)?;
            batch.put_record(&key, &letter)?;
            Origin::gateway()
                .entry(now, "plugin.dead_letter")
                .on(&attempt.notifier)
                .with("event", &event.id)
                .with("code", code)
                .noticed()
                .in_deployment(batch);
        }
        record.last_error = match sink.failing_since {
            Some(_) => failure.clone().unwrap_or_else(|| "no answer".into()),
            None => String::new(),
        };
        Ok(Some(record.with(&sink)))
    })
    .await?;
    Ok(())
}

/// Deletes events that every notifier is past.
async fn forget(app: &App, present: &Notifiers) -> Result<()> {
    loop {
        let mut batch = Batch::new();
        {
            let tables = app.catalog.read();
            let last = tables.signals.last().cloned();
            let floor = tables
                .sinks
                .iter()
                .filter(|(name, _)| present.contains_key(*name))
                .map(|(_, sink)| sink.position.clone())
                .min()
                .or(last);
            let Some(floor) = floor else { return Ok(()) };
            for place in tables.signals.up_to(&floor).take(DELETES) {
                if let Some(key) = event_key(&place.1) {
                    batch.delete(&key);
                }
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        app.commit(batch).await?;
    }
}
