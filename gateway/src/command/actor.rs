//! The dispatcher's hands: gathers what happened, writes, then acts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gateway_core::command::active::Active;
use gateway_core::command::dispatch::{Event, Key, Outcome, Step};
use gateway_store::{Batch, CommitError, Condition, Key as StoreKey, Read, list};
use model::host::Membership;
use model::ids::{CommandId, HostId};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::output::{OutputLog, Writer};
use super::stream::{Order, Task};
use super::{Live, Made, Message, Reported, check};
use crate::app::App;
use crate::error::{Error, Result};
use crate::state::change::Origin;
use crate::state::command_records::{
    CommandDefinitionRecordV1, CommandRecordV1, CommandTargetsRecordV1, FinishedV1, OutputV1,
    RunRecordV1,
};
use crate::state::edit::edit;
use crate::state::records::key_of;

/// Messages handled before what they changed is written: they share its fsync.
const AT_ONCE: usize = 1024;
/// Runs in one batch of the store.
const IN_ONE_BATCH: usize = 50;
/// Before a store that refused is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Longest sleep: clocks jump.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Orders that wait for a stream: it is told to cancel once and of its result once.
const ORDERS: usize = 4;

/// Runs until the gateway stops.
pub async fn run(app: Arc<App>) {
    let inbox = app
        .commands
        .inbox
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    let Some(inbox) = inbox else { return };
    let actor = Actor {
        hosts: app.catalog.host_changes(),
        commands: app.catalog.commands_epoch(),
        links: app.links.host_changes(),
        inbox,
        linked: HashMap::new(),
        streams: HashMap::new(),
        outputs: HashMap::new(),
        replies: Vec::new(),
        cancels: Vec::new(),
        unreadable: BTreeSet::new(),
        app,
    };
    actor.run().await;
}

struct Actor {
    app: Arc<App>,
    inbox: mpsc::Receiver<Message>,
    hosts: broadcast::Receiver<HostId>,
    links: broadcast::Receiver<HostId>,
    commands: watch::Receiver<u64>,
    /// Hosts that commands may run on at this moment, as the dispatcher was told.
    linked: HashMap<HostId, ()>,
    streams: HashMap<Key, mpsc::Sender<Order>>,
    /// Output of runs that are final, until they are written.
    outputs: HashMap<Key, OutputV1>,
    /// Who waits for what was asked to be written.
    replies: Vec<oneshot::Sender<()>>,
    /// Who wants what cancelled.
    cancels: Vec<(CommandId, Option<BTreeSet<HostId>>, oneshot::Sender<()>)>,
    /// Commands that could not be read, so that the log says so once.
    unreadable: BTreeSet<CommandId>,
}

impl Actor {
    async fn run(mut self) {
        let stop = self.app.tasks.stop().clone();
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = self.work() => {}
        }
    }

    async fn work(&mut self) {
        let mut outcome = Outcome::default();
        self.look_at_everybody(&mut outcome);
        self.sweep().await;
        loop {
            self.look_at_commands(&mut outcome).await;
            // After the look: it may be of a command made a moment ago.
            for (command, hosts, reply) in std::mem::take(&mut self.cancels) {
                self.handle(Event::Cancel(command, hosts), &mut outcome);
                self.replies.push(reply);
            }
            self.dispatch(&mut outcome);
            self.settle(&mut outcome).await;
            outcome = Outcome::default();
            self.wait(&mut outcome).await;
        }
    }

    /// Waits for something to happen, and takes what else is there.
    async fn wait(&mut self, outcome: &mut Outcome) {
        let now = self.app.now();
        let next = self.app.commands.lock().dispatcher.next_look(now);
        let sleep = next.map_or(LOOK_AGAIN, |at| at.since(now).min(LOOK_AGAIN));
        tokio::select! {
            biased;
            message = self.inbox.recv() => {
                if let Some(message) = message {
                    self.take(message, outcome);
                }
            }
            changed = self.links.recv() => self.changed(changed, outcome),
            changed = self.hosts.recv() => self.changed(changed, outcome),
            // Looked at before the next dispatch, whatever woke us.
            Ok(()) = self.commands.changed() => {}
            () = tokio::time::sleep(sleep) => {}
        }
        for _ in 0..AT_ONCE {
            match self.inbox.try_recv() {
                Ok(message) => self.take(message, outcome),
                Err(_) => break,
            }
        }
        for _ in 0..AT_ONCE {
            match self.links.try_recv() {
                Ok(host) => self.look_at(host, outcome),
                Err(broadcast::error::TryRecvError::Lagged(_)) => self.look_at_everybody(outcome),
                Err(_) => break,
            }
        }
    }

    fn changed(&mut self, changed: Result<HostId, RecvError>, outcome: &mut Outcome) {
        match changed {
            Ok(host) => self.look_at(host, outcome),
            Err(RecvError::Lagged(_)) => self.look_at_everybody(outcome),
            Err(RecvError::Closed) => {}
        }
    }

    fn handle(&self, event: Event, outcome: &mut Outcome) {
        let now = self.app.now();
        let mut shared = self.app.commands.lock();
        shared.dispatcher.handle(event, now, outcome);
    }

    fn dispatch(&self, outcome: &mut Outcome) {
        let now = self.app.now();
        self.app.commands.lock().dispatcher.dispatch(now, outcome);
    }

    fn take(&mut self, message: Message, outcome: &mut Outcome) {
        match message {
            Message::Cancel(command, hosts, reply) => {
                self.cancels.push((command, hosts, reply));
            }
            Message::Report(reported) => {
                let Reported {
                    key,
                    report,
                    output,
                } = *reported;
                if let Some(output) = output {
                    self.outputs.insert(key, output);
                }
                if matches!(report, gateway_core::command::dispatch::Report::Detached) {
                    self.streams.remove(&key);
                }
                self.handle(Event::Report(key, report), outcome);
            }
        }
    }

    fn make(&self, made: Made, outcome: &mut Outcome) {
        let live = Live {
            spec: Arc::new(made.spec),
            logs: HashMap::new(),
            changed: watch::Sender::new(0),
        };
        self.app.commands.lock().live.insert(made.id, live);
        self.handle(Event::Made(made.id, Box::new(made.active)), outcome);
        self.app.commands.arrivals.send_modify(|it| *it += 1);
    }

    /// Compares a host's link and membership with what the dispatcher was told.
    fn look_at(&mut self, host: HostId, outcome: &mut Outcome) {
        let link = self.app.links.live(host);
        let linked = link.is_some_and(|link| !link.renewal_only);
        let membership = self
            .app
            .catalog
            .read()
            .hosts
            .get(&host)
            .map(|record| record.membership);
        let usable = linked && membership == Some(Membership::Managed);
        match (usable, self.linked.contains_key(&host)) {
            (true, false) => {
                self.linked.insert(host, ());
                self.handle(Event::Linked(host), outcome);
            }
            (false, true) => {
                self.linked.remove(&host);
                self.handle(Event::Unlinked(host), outcome);
            }
            (true, true) | (false, false) => {}
        }
        if matches!(membership, None | Some(Membership::Retired)) {
            self.handle(Event::Gone(host), outcome);
        }
    }

    fn look_at_everybody(&mut self, outcome: &mut Outcome) {
        let linked = self.app.links.all().into_iter().map(|(host, _)| host);
        let known = self.linked.keys().copied();
        let mut hosts: Vec<HostId> = linked.chain(known).collect();
        hosts.extend(self.app.commands.lock().dispatcher.hosts());
        hosts.sort_unstable();
        hosts.dedup();
        for host in hosts {
            self.look_at(host, outcome);
        }
    }

    /// Writes what has changed, however long the store takes; then does what follows.
    async fn settle(&mut self, outcome: &mut Outcome) {
        let ended = loop {
            match self.write(outcome).await {
                Ok(ended) => break ended,
                Err(error) => {
                    tracing::warn!(error = %error, "runs of commands cannot be written down; nothing is sent until they are");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        };
        for key in &outcome.writes {
            if self
                .outputs
                .remove(key)
                .is_some_and(|output| output.object.is_some())
            {
                let log = {
                    let shared = self.app.commands.lock();
                    let live = shared.live.get(&key.0);
                    live.and_then(|live| live.logs.get(&key.1)).cloned()
                };
                if let Some(log) = log {
                    Writer::tidy(&log).await;
                }
            }
        }
        for command in &outcome.touched {
            self.app.commands.touch(*command);
        }
        for step in outcome.steps.drain(..) {
            self.step(step);
        }
        for command in std::mem::take(&mut outcome.finished) {
            if !ended.contains(&command) {
                self.finish(command).await;
            }
            self.let_go(command);
        }
        for reply in self.replies.drain(..) {
            // Who asked may have gone.
            let _ = reply.send(());
        }
    }

    /// Writes runs, and with them the end of commands where both fit into one batch.
    /// Answers which of those have their end.
    async fn write(&self, outcome: &Outcome) -> Result<BTreeSet<CommandId>> {
        let mut batches = self.batches(outcome)?;
        if let [batch] = &mut batches[..]
            && !outcome.finished.is_empty()
            && outcome.writes.len() + 2 * outcome.finished.len() <= gateway_store::MAX_BATCH_KEYS
        {
            let ended = self.add_ends(&outcome.finished, batch)?;
            match self.app.try_commit(std::mem::take(batch)).await? {
                Ok(_) => return Ok(ended),
                // Somebody cancels one of them: its end is decided upon anew.
                Err(CommitError::Conflict { .. }) => batches = self.batches(outcome)?,
                Err(error) => return Err(error.into()),
            }
        }
        // All at once: they share an fsync. Each says the same when it is said again.
        let written = batches
            .into_iter()
            .map(|batch| self.app.store.commit(batch));
        for written in futures_util::future::join_all(written).await {
            written?;
        }
        Ok(BTreeSet::new())
    }

    /// The runs that have changed; no batch if there are none.
    fn batches(&self, outcome: &Outcome) -> Result<Vec<Batch>> {
        let mut batches: Vec<Batch> = Vec::new();
        let shared = self.app.commands.lock();
        let (mut in_this, mut bytes) = (0, 0);
        for key @ (command, host) in &outcome.writes {
            let active = shared.dispatcher.command(*command);
            let Some(run) = active.and_then(|active| active.run(*host)) else {
                continue;
            };
            let output = self.outputs.get(key).cloned().unwrap_or_default();
            let record = RunRecordV1::of(*host, run, output);
            let size = record.output.inline.len() + 1024;
            let full = in_this == IN_ONE_BATCH || bytes + size > gateway_store::MAX_BATCH_BYTES / 2;
            if full || batches.is_empty() {
                batches.push(Batch::new());
                (in_this, bytes) = (0, 0);
            }
            in_this += 1;
            bytes += size;
            if let Some(batch) = batches.last_mut() {
                batch.put_record(&RunRecordV1::key(*command, *host), &record)?;
            }
        }
        Ok(batches)
    }

    /// Adds the ends of these commands, on condition that they are what the catalog shows;
    /// which of them have one.
    fn add_ends(
        &self,
        commands: &BTreeSet<CommandId>,
        batch: &mut Batch,
    ) -> Result<BTreeSet<CommandId>> {
        let mut ended = BTreeSet::new();
        for command in commands {
            let kept = self.app.catalog.read().commands.get(command).cloned();
            let (Some(kept), Some(finished)) = (kept, self.finished(*command)) else {
                continue;
            };
            let Some(record) = end_of((*kept.record).clone(), &finished, batch) else {
                continue;
            };
            let key = key_of::<CommandRecordV1>(*command);
            batch.require(&key, Condition::RevIs(kept.rev));
            batch.put_record(&key, &record)?;
            ended.insert(*command);
        }
        Ok(ended)
    }

    /// How a command came out.
    fn finished(&self, command: CommandId) -> Option<FinishedV1> {
        self.app.commands.look(command, |active| FinishedV1 {
            at: self.app.now(),
            state: active.state(),
            runs: active.counts().clone(),
            failures: active.failures(),
            stopped: active.stopped().map(str::to_owned),
        })
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Open(key, asking) => {
                let (give, orders) = mpsc::channel(ORDERS);
                let task = self.app.links.live(key.1).and_then(|link| {
                    let mut shared = self.app.commands.lock();
                    let folder = &self.app.commands.folder;
                    let live = shared.live.get_mut(&key.0)?;
                    let log = live
                        .logs
                        .entry(key.1)
                        .or_insert_with(|| OutputLog::new(folder, key.0, key.1));
                    Some(Task {
                        app: Arc::clone(&self.app),
                        key,
                        asking,
                        link,
                        spec: Arc::clone(&live.spec),
                        log: Arc::clone(log),
                        orders,
                        reports: self.app.commands.mailbox.clone(),
                    })
                });
                match task {
                    Some(task) => {
                        self.streams.insert(key, give);
                        self.app.tasks.spawn("run", task.run());
                    }
                    None => {
                        // Its link went at this moment. What follows is written with the
                        // next look.
                        let mut outcome = Outcome::default();
                        let detached = gateway_core::command::dispatch::Report::Detached;
                        self.handle(Event::Report(key, detached), &mut outcome);
                    }
                }
            }
            Step::Cancel(key) => self.order(key, Order::Cancel),
            Step::Taken(key) => self.order(key, Order::Taken),
        }
    }

    fn order(&self, key: Key, order: Order) {
        if let Some(stream) = self.streams.get(&key) {
            // Room for all that there is to say; a stream that is gone says so itself.
            let _ = stream.try_send(order);
        }
    }

    /// Writes down how a command came out.
    async fn finish(&self, command: CommandId) {
        let Some(finished) = self.finished(command) else {
            return;
        };
        loop {
            let key = key_of::<CommandRecordV1>(command);
            let written = edit::<CommandRecordV1>(&self.app, &key, |found, batch| {
                Ok(found.and_then(|record| end_of(record, &finished, batch)))
            });
            match written.await {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(error = %error, command.id = %command, "the end of a command cannot be written down yet");
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Forgets a command whose end is written down.
    fn let_go(&self, command: CommandId) {
        let mut shared = self.app.commands.lock();
        if let Some(active) = shared.dispatcher.command(command) {
            let state = active.state();
            tracing::info!(command.id = %command, %state, "command finished");
        }
        shared.dispatcher.forget(command);
        // Followers see their channel close, and read the rest from the store.
        shared.live.remove(&command);
    }

    /// Takes up commands that the catalog has and the dispatcher has not, made a moment ago
    /// or before the gateway started, and cancels what was cancelled.
    async fn look_at_commands(&mut self, outcome: &mut Outcome) {
        self.commands.borrow_and_update();
        let open: Vec<Arc<CommandRecordV1>> = {
            let tables = self.app.catalog.read();
            let open = tables.open_commands();
            open.map(|kept| Arc::clone(&kept.record)).collect()
        };
        for record in open {
            let cancelled = self.app.commands.look(record.id, Active::is_cancelled);
            match cancelled {
                Some(false) if record.cancelled => {
                    self.handle(Event::Cancel(record.id, None), outcome);
                }
                Some(_) => {}
                None => self.take_up(&record, outcome).await,
            }
        }
    }

    async fn take_up(&mut self, record: &CommandRecordV1, outcome: &mut Outcome) {
        let begun = self.app.commands.lock().begun.remove(&record.id);
        let made = match begun {
            Some(made) => Ok(made),
            None => restore(&self.app, record).await,
        };
        match made {
            Ok(made) => {
                self.unreadable.remove(&record.id);
                self.make(made, outcome);
                if record.cancelled {
                    self.handle(Event::Cancel(record.id, None), outcome);
                }
            }
            Err(error) => {
                if self.unreadable.insert(record.id) {
                    tracing::error!(error = %error, command.id = %record.id, "a command cannot be read; it stands still until it can");
                }
            }
        }
    }

    /// Deletes output on disk that belongs to no command at work.
    async fn sweep(&self) {
        let keep: BTreeSet<String> = {
            let tables = self.app.catalog.read();
            tables.open_commands().map(|it| it.id.to_string()).collect()
        };
        let folder = &self.app.commands.folder;
        if let Err(error) = folder.sweep(|name| keep.contains(name)).await {
            tracing::warn!(error = %error, "old output cannot be swept");
        }
    }
}

/// A command's record with its end, and what the audit trail says of it. Nothing if it has
/// one already.
fn end_of(
    record: CommandRecordV1,
    finished: &FinishedV1,
    batch: &mut Batch,
) -> Option<CommandRecordV1> {
    if record.finished.is_some() {
        return None;
    }
    let mut entry = Origin::gateway()
        .entry(finished.at, "command.finish")
        .on(record.id)
        .with("state", finished.state);
    for (state, count) in &finished.runs {
        entry = entry.with(state.as_str(), count);
    }
    entry.in_workspace(record.workspace, batch);
    Some(CommandRecordV1 {
        finished: Some(finished.clone()),
        ..record
    })
}

/// A command as the store has it.
async fn restore(app: &App, record: &CommandRecordV1) -> Result<Made> {
    let read = Read::Cached { at_least: None };
    let key = key_of::<CommandDefinitionRecordV1>(record.id);
    let definition =
        gateway_store::fetch::<CommandDefinitionRecordV1>(&*app.store, &key, read).await?;
    let definition = definition.ok_or_else(|| Error::not_found("definition"))?;
    let definition = definition.record;
    let targets = targets_of(app, record.id).await?;
    let mut known = BTreeMap::new();
    for run in runs_of(app, record.id).await? {
        known.insert(run.host, run.run());
    }
    check::made(app, record, &definition, targets, known, app.now())
}

/// The hosts of a command, in order.
pub(super) async fn targets_of(app: &App, command: CommandId) -> Result<Vec<HostId>> {
    let prefix = CommandTargetsRecordV1::prefix_of(command);
    let mut hosts = Vec::new();
    let mut after: Option<StoreKey> = None;
    loop {
        let read = Read::Cached { at_least: None };
        let page =
            list::<CommandTargetsRecordV1>(&*app.store, &prefix, after.as_ref(), 64, read).await?;
        after = page.records.last().map(|(key, _)| key.clone());
        for (_, stored) in page.records {
            hosts.extend(stored.record.hosts);
        }
        if !page.more {
            return Ok(hosts);
        }
    }
}

/// The records of a command's runs.
pub(super) async fn runs_of(app: &App, command: CommandId) -> Result<Vec<RunRecordV1>> {
    let prefix = RunRecordV1::prefix_of(command);
    let mut runs = Vec::new();
    let mut after: Option<StoreKey> = None;
    loop {
        let read = Read::Cached { at_least: None };
        let page = list::<RunRecordV1>(&*app.store, &prefix, after.as_ref(), 500, read).await?;
        after = page.records.last().map(|(key, _)| key.clone());
        runs.extend(page.records.into_iter().map(|(_, stored)| stored.record));
        if !page.more {
            return Ok(runs);
        }
    }
}
