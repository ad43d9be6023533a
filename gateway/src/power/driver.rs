//! Takes operations on, one turn at a time.
//!
//! A turn asks one question and writes down what was answered. Each operation has at most one
//! under way; how many an endpoint has is limited, and so is how fast it is told to do something,
//! and how many hosts of a workspace or a label are interrupted in a minute.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use gateway_core::power::bulk::{self, Step as BulkStep, Tally};
use gateway_core::power::limits::{self, Counted, Limit, Recent};
use gateway_core::power::operation::{Failure, Heard, Next, Operation, Phase, View};
use gateway_core::power::pace::Bucket;
use gateway_core::power::plan::{By, Support};
use gateway_core::power::{Seen, Trouble};
use gateway_store::Batch;
use model::Timestamp;
use model::ids::{CommandId, HostId, PowerBulkId, PowerOperationId, WorkspaceId};
use model::names::Name;
use model::power::PowerOperationState;

use super::provider::{Machine, Submission, waits};
use super::records::{PowerBulkRecordV1, PowerOperationRecordV1, PowerTargetRecordV1};
use super::{agent, agent_of, ask, watch};
use crate::app::App;
use crate::error::Result;
use crate::state::catalog::Tables;
use crate::state::change::Origin;
use crate::state::edit::edit;
use crate::state::records::key_of;

/// Looked at this often without a reason, for what could not be written.
const IDLE: Duration = Duration::from_secs(15);
/// And no more often than this, whatever moves.
const REST: Duration = Duration::from_millis(20);
/// Questions to one endpoint at a time, unless its provider has an opinion.
const AT_ONCE: u32 = 4;
/// An answer is given up after this: above what any call of a plugin may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);

/// What all machines behind one address share.
struct Endpoint {
    gate: Arc<Mutex<Gate>>,
    asking: u32,
}

/// When an endpoint may be told something.
struct Gate {
    bucket: Bucket,
    /// Somebody is about to tell it something, once that is written down.
    reserved: bool,
}

/// The right to submit something. An endpoint's pace counts from when it is used, and not from when
/// it was given: what is told is written down first, which takes as long as the disk likes.
struct Permit {
    /// None where an agent is asked.
    gate: Option<Arc<Mutex<Gate>>>,
}

impl Permit {
    fn used(self, now: Timestamp) {
        if let Some(gate) = &self.gate {
            locked(gate).bucket.take(now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(gate) = &self.gate {
            locked(gate).reserved = false;
        }
    }
}

fn locked(gate: &Mutex<Gate>) -> MutexGuard<'_, Gate> {
    gate.lock().unwrap_or_else(PoisonError::into_inner)
}

type Turns = FuturesUnordered<BoxFuture<'static, (PowerOperationId, String)>>;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let mut moved = app.catalog.power_epoch();
    let mut links = app.links.changes();
    let mut turns = Turns::new();
    let mut busy = HashSet::new();
    let mut endpoints = HashMap::new();
    let mut recent = taken_lately(&app, app.now());
    loop {
        moved.borrow_and_update();
        links.borrow_and_update();
        let now = app.now();
        recent.forget(now);
        let next = begin(&app, &mut busy, &mut endpoints, &mut recent, &turns, now);
        if let Err(error) = bulks(&app, &recent, now).await {
            tracing::warn!(error = %error, "many hosts' power cannot be taken on yet");
        }
        let wait = next.since(now).clamp(REST, IDLE);
        tokio::select! {
            biased;
            () = app.tasks.stop().cancelled() => return,
            Some((id, endpoint)) = turns.next() => {
                busy.remove(&id);
                if let Some(endpoint) = endpoints.get_mut(&endpoint) {
                    endpoint.asking = endpoint.asking.saturating_sub(1);
                }
                // One that has rested is like one that was never heard of.
                let now = app.now();
                endpoints.retain(|_, it| it.asking > 0 || !locked(&it.gate).bucket.is_full(now));
            }
            () = tokio::time::sleep(wait) => {}
            () = settled(&mut moved, &mut links) => {}
        }
    }
}

/// Something moved; what moves together is looked at together.
async fn settled(
    moved: &mut tokio::sync::watch::Receiver<u64>,
    links: &mut tokio::sync::watch::Receiver<u64>,
) {
    tokio::select! {
        _ = moved.changed() => {}
        _ = links.changed() => {}
    }
    tokio::time::sleep(REST).await;
}

/// Slots that a gateway that was started again must not forget: of what was submitted in the last
/// minute, and of what is about to be.
fn taken_lately(app: &App, now: Timestamp) -> Recent {
    let tables = app.catalog.read();
    let all = tables.power.operations.values();
    let interrupting = all.filter(|it| it.operation.action.interrupts());
    let taken = interrupting.filter_map(|record| {
        let at = if record.operation.holds_slot() {
            now
        } else {
            record.last_submitted()?
        };
        (at.saturating_add(limits::WINDOW) > now).then_some((at.min(now), record))
    });
    let mut taken: Vec<_> = taken.collect();
    taken.sort_by_key(|(at, _)| *at);
    let mut recent = Recent::default();
    for (at, record) in taken {
        let limits = limits_of(app, &tables, record.workspace, record.host);
        recent.count(&limits, at);
    }
    recent
}

/// What limits the interruption of a host.
pub(crate) fn limits_of(
    app: &App,
    tables: &Tables,
    workspace: WorkspaceId,
    host: HostId,
) -> Vec<Limit> {
    let configured = &app.config.power;
    let mut limits = Vec::new();
    if configured.interruptions_per_minute > 0 {
        limits.push(Limit {
            counted: Counted::Workspace(workspace),
            most: configured.interruptions_per_minute,
        });
    }
    let host = tables.hosts.get(&host);
    for (key, most) in &configured.interruptions_per_label {
        if let Some(value) = host.and_then(|host| host.labels.value(key)) {
            limits.push(Limit {
                counted: Counted::Label(workspace, key.clone(), value.to_owned()),
                most: *most,
            });
        }
    }
    limits
}

/// Begins a turn of each operation that can have one; answers when the next one can.
fn begin(
    app: &Arc<App>,
    busy: &mut HashSet<PowerOperationId>,
    endpoints: &mut HashMap<String, Endpoint>,
    recent: &mut Recent,
    turns: &Turns,
    now: Timestamp,
) -> Timestamp {
    let mut next = now.saturating_add(IDLE);
    let tables = app.catalog.read();
    let mut open: Vec<_> = tables.power.open().collect();
    // Who has waited longest has the next slot.
    open.sort_by_key(|(_, record)| record.id);
    for (first, record) in open {
        if busy.contains(&record.id) {
            continue;
        }
        let target = tables.power.targets.get(&record.host);
        let name = target.map_or_else(|| record.host.to_string(), |target| target.shares());
        let endpoint = endpoints.entry(name.clone()).or_insert_with(|| Endpoint {
            gate: Arc::new(Mutex::new(Gate {
                bucket: Bucket::new(
                    app.config.power.endpoint_burst,
                    app.config.power.endpoint_interval,
                ),
                reserved: false,
            })),
            asking: 0,
        });
        let permit_at = {
            let gate = locked(&endpoint.gate);
            if gate.reserved {
                now.saturating_add(REST)
            } else {
                gate.bucket.next_at()
            }
        };
        let wants_slot = record.operation.wants_slot();
        let limits = if wants_slot {
            limits_of(app, &tables, record.workspace, record.host)
        } else {
            Vec::new()
        };
        let turns_come = TurnsCome {
            permit_at,
            interrupt_at: recent.next_at(&limits, now),
        };
        let view = view(app, &tables, record.host, first, turns_come);
        let mut operation = record.operation.clone();
        let changed = operation.advance(&view, now);
        let question = operation.next(&view, now);
        if let Next::Wait(until) = question
            && !changed
        {
            next = next.min(until);
            continue;
        }
        let submits = question == Next::Submit;
        let most = match operation.support.max_parallel {
            0 => AT_ONCE,
            most => most,
        };
        if endpoint.asking >= most {
            continue;
        }
        if submits || operation.holds_slot() {
            recent.count(&limits, now);
        }
        let permit = submits.then(|| {
            let by_provider = operation.step().is_some_and(|it| it.by == By::Provider);
            let gate = by_provider.then(|| Arc::clone(&endpoint.gate));
            if let Some(gate) = &gate {
                locked(gate).reserved = true;
            }
            Permit { gate }
        });
        endpoint.asking += 1;
        busy.insert(record.id);
        let (app, id) = (Arc::clone(app), record.id);
        turns.push(Box::pin(async move {
            if let Err(error) = turn(&app, id, first, permit).await {
                tracing::warn!(operation = %id, error = %error, "an operation on power cannot be taken on yet");
            }
            (id, name)
        }));
    }
    next
}

/// When something may be done that others share.
#[derive(Clone, Copy)]
struct TurnsCome {
    permit_at: Timestamp,
    interrupt_at: Timestamp,
}

impl TurnsCome {
    /// Where it was decided before that they have.
    fn already(now: Timestamp) -> Self {
        Self {
            permit_at: now,
            interrupt_at: now,
        }
    }
}

fn view(app: &App, tables: &Tables, host: HostId, first: bool, turns_come: TurnsCome) -> View {
    View {
        first,
        permit_at: turns_come.permit_at,
        interrupt_at: turns_come.interrupt_at,
        frozen: app.frozen(),
        agent: agent_of(app, tables, host),
        roll: u32::from_be_bytes(crate::keys::random()),
    }
}

/// One question, and what was answered.
async fn turn(
    app: &Arc<App>,
    id: PowerOperationId,
    first: bool,
    permit: Option<Permit>,
) -> Result<()> {
    let Some((record, target)) = found(app, id) else {
        return Ok(());
    };
    // What may be submitted was decided when the turn began.
    let now = app.now();
    let come = TurnsCome::already(now);
    let seen = view(app, &app.catalog.read(), record.host, first, come);
    let mut ahead = record.operation.clone();
    let changed = ahead.advance(&seen, now);
    let question = ahead.next(&seen, now);
    if question == Next::Submit {
        let Some(permit) = permit else {
            // It has come to this only now, and is looked at again at once.
            return Ok(());
        };
        if ask::never_off(&app.catalog.read(), record.host, ahead.action).is_err() {
            // Somebody marked the host while it waited.
            let orphan = |operation: &mut Operation, now| {
                operation.orphan(ask::marked_never_off(), now);
            };
            return change(app, id, orphan).await.map(drop);
        }
        let Some(written) = submit(app, id, &seen).await? else {
            return Ok(());
        };
        permit.used(app.now());
        let heard = question_to(app, &written, target.as_deref(), &question).await;
        return hear(app, id, heard, first).await;
    }
    let heard = match question {
        Next::Wait(_) | Next::Over => None,
        _ => Some(question_to(app, &record, target.as_deref(), &question).await),
    };
    match heard {
        Some(heard) => hear(app, id, heard, first).await,
        None if changed => change(app, id, |operation, now| {
            operation.advance(&seen, now);
        })
        .await
        .map(drop),
        None => Ok(()),
    }
}

fn found(
    app: &App,
    id: PowerOperationId,
) -> Option<(
    Arc<PowerOperationRecordV1>,
    Option<Arc<PowerTargetRecordV1>>,
)> {
    let tables = app.catalog.read();
    let record = Arc::clone(&tables.power.operations.get(&id)?.record);
    let target = tables.power.targets.get(&record.host);
    Some((record, target.map(|target| Arc::clone(&target.record))))
}

/// Writes down that it is about to be submitted; nothing if it is not to be any more.
async fn submit(
    app: &App,
    id: PowerOperationId,
    view: &View,
) -> Result<Option<PowerOperationRecordV1>> {
    let key = key_of::<PowerOperationRecordV1>(id);
    edit::<PowerOperationRecordV1>(app, &key, |found, batch| {
        let Some(mut record) = found else {
            return Ok(None);
        };
        let now = app.now();
        record.operation.advance(view, now);
        if record.operation.next(view, now) != Next::Submit {
            return Ok(None);
        }
        record.operation.submit(now);
        let step = record.operation.step();
        if step.is_some_and(|step| step.by == By::Agent) {
            record.command = Some(app.new_id(CommandId::new));
        }
        record.remember(now);
        if let Some(step) = step {
            let mut entry = Origin::gateway()
                .entry(now, "power.submit")
                .on(record.host)
                .with("operation", record.id)
                .with("action", step.action)
                .with("attempt", record.operation.attempt);
            if step.by == By::Provider
                && let Some(secrets) = versions(&app.catalog.read(), record.host)
            {
                entry = entry.with("secrets", secrets);
            }
            entry.in_workspace(record.workspace, batch);
        }
        Ok(Some(record))
    })
    .await
}

/// The secrets that a host's operations are submitted with, each with its version: `bmc@3`.
fn versions(tables: &Tables, host: HostId) -> Option<String> {
    let target = tables.power.targets.get(&host)?;
    let kept = |name: &Name| {
        let mut secrets = tables.secrets_of(target.workspace);
        secrets.find(|secret| secret.name == *name)
    };
    let each = target.secrets.values().filter_map(|name| {
        let version = kept(name)?.version;
        Some(format!("{name}@{version}"))
    });
    let all: Vec<_> = each.collect();
    (!all.is_empty()).then(|| all.join(" "))
}

async fn hear(app: &App, id: PowerOperationId, heard: Heard, first: bool) -> Result<()> {
    let host = found(app, id).map(|(record, _)| record.host);
    let Some(host) = host else { return Ok(()) };
    let come = TurnsCome::already(app.now());
    let seen = view(app, &app.catalog.read(), host, first, come);
    note(app, host, &heard).await;
    let written = change(app, id, |operation, now| {
        // What was asked came of this, and is not written down by itself.
        operation.advance(&seen, now);
        operation.hear(heard.clone(), &seen, now);
        operation.advance(&seen, now);
    });
    written.await.map(drop)
}

/// What a look is good for beyond the operation.
async fn note(app: &App, host: HostId, heard: &Heard) {
    let (seen, support) = match heard {
        Heard::Checked(Ok((support, Some(seen)))) => (seen, Some(support.clone())),
        Heard::Looked(Ok(seen)) => (seen, None),
        _ => return,
    };
    if let Err(error) = watch::saw(app, host, seen.clone(), support).await {
        tracing::warn!(host = %host, error = %error, "what a power provider saw cannot be written down yet");
    }
}

/// Changes an operation, and tells of its end.
pub(crate) async fn change(
    app: &App,
    id: PowerOperationId,
    mut how: impl FnMut(&mut Operation, Timestamp) + Send,
) -> Result<Option<PowerOperationRecordV1>> {
    let key = key_of::<PowerOperationRecordV1>(id);
    edit::<PowerOperationRecordV1>(app, &key, |found, batch| {
        let Some(mut record) = found else {
            return Ok(None);
        };
        let now = app.now();
        let before = record.operation.clone();
        how(&mut record.operation, now);
        if record.operation == before {
            return Ok(None);
        }
        record.remember(now);
        if record.operation.is_over() && !before.is_over() {
            ended(&record, now, batch);
        }
        Ok(Some(record))
    })
    .await
}

fn ended(record: &PowerOperationRecordV1, now: Timestamp, batch: &mut Batch) {
    let Phase::Ended(outcome) = &record.operation.phase else {
        return;
    };
    let mut entry = Origin::gateway()
        .entry(now, "power.end")
        .on(record.host)
        .with("operation", record.id)
        .with("action", record.operation.action)
        .with("state", outcome.state);
    if let Some(confirmation) = outcome.confirmation {
        entry = entry.with("confirmation", confirmation);
    }
    if let Some(trouble) = record.operation.trouble.as_ref() {
        entry = entry.with("code", &trouble.code);
        entry = entry.with("message", &trouble.message);
    }
    if outcome.state != PowerOperationState::Succeeded {
        entry = entry.noticed();
    }
    entry.in_workspace(record.workspace, batch);
}

/// Asks whoever is to be asked.
async fn question_to(
    app: &App,
    record: &PowerOperationRecordV1,
    target: Option<&PowerTargetRecordV1>,
    question: &Next,
) -> Heard {
    let lost = |what: &str| Failure {
        outcome_unknown: *question == Next::Submit,
        ..waits("no_answer", format!("{what} does not answer"))
    };
    let answered = tokio::time::timeout(ANSWER_WITHIN, asked(app, record, target, question)).await;
    match answered {
        Ok(heard) => heard,
        Err(_) => failed(question, lost("the power provider")),
    }
}

fn failed(question: &Next, failure: Failure) -> Heard {
    match question {
        Next::Check => Heard::Checked(Err(failure)),
        Next::Submit => Heard::Begun(Err(failure)),
        Next::Resume => Heard::Resumed(Err(failure)),
        Next::Poll => Heard::Polled(Err(failure)),
        Next::Look => Heard::Looked(Err(failure)),
        Next::CallOff | Next::Wait(_) | Next::Over => Heard::CalledOff(Err(failure)),
    }
}

async fn asked(
    app: &App,
    record: &PowerOperationRecordV1,
    target: Option<&PowerTargetRecordV1>,
    question: &Next,
) -> Heard {
    let operation = &record.operation;
    let step = operation.step();
    if let Some(step) = step.filter(|step| step.by == By::Agent) {
        match question {
            Next::Submit => return Heard::Begun(agent::begin(app, record, step.action).await),
            Next::Resume => return Heard::Resumed(agent::resume(app, record, step.action).await),
            Next::Poll => return Heard::Polled(agent::poll(app, record).await),
            _ => {}
        }
    }
    let Some(target) = target else {
        return without_provider(operation, question);
    };
    let provider = match app.power.providers.get(&target.plugin, record.workspace) {
        Ok(provider) => provider,
        Err(failure) => return failed(question, failure),
    };
    let machine = Machine::from(target);
    let what = Submission {
        id: record.id,
        step: operation.at,
        attempt: operation.attempt,
        action: step.map_or(operation.action, |step| step.action),
        boot: operation
            .boot
            .clone()
            .filter(|_| step.is_some_and(|step| step.action.boots())),
        deadline: operation.deadline,
        before: operation.before.seen.clone(),
    };
    let cursor = match &operation.phase {
        Phase::Submitted { cursor, .. } => cursor.clone(),
        _ => Vec::new(),
    };
    match question {
        Next::Check => Heard::Checked(check(&*provider, &machine).await),
        Next::Submit => Heard::Begun(provider.begin(&machine, &what).await),
        Next::Resume => Heard::Resumed(provider.resume(&machine, &what).await),
        Next::Poll => Heard::Polled(provider.poll(&machine, &what, cursor).await),
        Next::Look => Heard::Looked(provider.observe(&machine).await),
        Next::CallOff | Next::Wait(_) | Next::Over => {
            Heard::CalledOff(provider.cancel(&machine, &what, cursor).await)
        }
    }
}

/// What a provider can do for a machine, and how it is, where that can be told.
pub(crate) async fn check(
    provider: &dyn super::provider::Provider,
    machine: &Machine,
) -> std::result::Result<(Support, Option<Seen>), Failure> {
    let support = provider.inspect(machine).await?;
    let seen = if support.observable {
        Some(provider.observe(machine).await?)
    } else {
        None
    };
    Ok((support, seen))
}

/// A host without a provider can be asked by its agent, and by nobody else.
fn without_provider(operation: &Operation, question: &Next) -> Heard {
    match question {
        Next::Check => Heard::Checked(Ok((Support::default(), None))),
        _ if operation.known.submitted_at.is_some() => failed(
            question,
            waits("no_target", "the host's power provider was taken away"),
        ),
        question => failed(
            question,
            Failure {
                trouble: Trouble::new("no_target", "the host has no power provider"),
                transient: false,
                retry_after: None,
                outcome_unknown: false,
            },
        ),
    }
}

/// How many of these hosts have a slot now, one after the other, beside those that wait for one
/// already. An operation is made when its host has its turn, so that it does not spend its time
/// waiting.
fn with_slots(
    app: &App,
    recent: &Recent,
    bulk: &PowerBulkRecordV1,
    more: u32,
    now: Timestamp,
) -> u32 {
    let configured = &app.config.power;
    let limited =
        configured.interruptions_per_minute > 0 || !configured.interruptions_per_label.is_empty();
    if !limited || !bulk.action.interrupts() {
        return more;
    }
    let tables = app.catalog.read();
    let slots = |host| limits_of(app, &tables, bulk.workspace, host);
    let mut ahead = recent.clone();
    let waiting = tables.power.open().map(|(_, record)| record);
    for record in waiting.filter(|record| record.operation.wants_slot()) {
        ahead.count(&slots(record.host), now);
    }
    let begun = usize::try_from(bulk.begun).unwrap_or(usize::MAX);
    let next = bulk.hosts.iter().skip(begun);
    let next = next.take(usize::try_from(more).unwrap_or(usize::MAX));
    let free = next.take_while(|host| {
        let limits = slots(**host);
        let free = ahead.next_at(&limits, now) <= now;
        ahead.count(&limits, now);
        free
    });
    u32::try_from(free.count()).unwrap_or(more)
}

/// Takes on what is to be done to many hosts.
async fn bulks(app: &App, recent: &Recent, now: Timestamp) -> Result<()> {
    let due: Vec<_> = {
        let tables = app.catalog.read();
        tables
            .power
            .open_bulks()
            .map(|bulk| (Arc::clone(&bulk.record), tally(&tables, bulk)))
            .collect()
    };
    for (bulk, tally) in due {
        let cancelled = bulk.cancelled
            || bulk
                .permitted_until
                .is_some_and(|permitted| now > permitted);
        match bulk::step(tally, bulk.at_once, bulk.canary, bulk.stop_after, cancelled) {
            BulkStep::Wait => {}
            BulkStep::Begin(more) => {
                let more = with_slots(app, recent, &bulk, more, now);
                if more > 0 {
                    ask::more(app, &bulk, more, now).await?;
                }
            }
            BulkStep::Over(ending) => over(app, bulk.id, ending, tally, now).await?,
        }
    }
    Ok(())
}

/// How far a bulk is.
pub(crate) fn tally(tables: &Tables, bulk: &PowerBulkRecordV1) -> Tally {
    let mut tally = Tally {
        hosts: u32::try_from(bulk.hosts.len()).unwrap_or(u32::MAX),
        ..Tally::default()
    };
    let mut states: BTreeMap<HostId, PowerOperationState> = BTreeMap::new();
    for record in tables.power.of_bulk(bulk.id) {
        states.insert(record.host, record.operation.state());
    }
    for state in states.into_values() {
        tally.count(state);
    }
    tally
}

async fn over(
    app: &App,
    id: PowerBulkId,
    ending: bulk::Ending,
    tally: Tally,
    now: Timestamp,
) -> Result<()> {
    let key = key_of::<PowerBulkRecordV1>(id);
    let written = edit::<PowerBulkRecordV1>(app, &key, |found, batch| {
        let Some(mut record) = found.filter(|record| record.ended.is_none()) else {
            return Ok(None);
        };
        record.ended = Some((ending, now));
        Origin::gateway()
            .entry(now, "power.bulk_end")
            .on(record.id)
            .with("action", record.action)
            .with("hosts", tally.hosts)
            .with("succeeded", tally.succeeded)
            .with("failed", tally.failed)
            .with("not_begun", tally.waiting())
            .in_workspace(record.workspace, batch);
        Ok(Some(record))
    });
    written.await.map(drop)
}
