//! Commands at work: the one task that dispatches them, and what others see of it.
//!
//! ```text
//! catalog ── look at commands ──┐
//! links, catalog ── look at H ──┤► the dispatcher (pure, in gateway-core)
//! streams ── reports ───────────┤        │ writes, all that came together in one go
//! timers ───────────────────────┘        ▼
//!                                   the store ── then: open streams, tell them
//! ```
//!
//! A new command's first runs are written with it ([`Commands::begin`]): a request then
//! leaves after one write, not after two in a row.
//!
//! The dispatcher lives in a lock that is held for the time of a look; handlers read
//! from it what is not in the store yet. Nothing is done before what it rests on is
//! written: when the disk refuses, everything here waits for it.

mod actor;
pub mod check;
pub mod output;
pub mod retention;
mod stream;
pub mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gateway_core::command::active::Active;
use gateway_core::command::dispatch::{Dispatcher, Key, Report};
use gateway_core::command::run::Run;
use gateway_store::{ObjectError, Objects};
use model::Timestamp;
use model::command::RunState;
use model::ids::{CommandId, HostId};
use protocol::v1::RunSpec;
use tokio::sync::{mpsc, oneshot, watch};

use self::output::{Folder, OutputLog};
use crate::state::command_records::OutputV1;

pub use actor::run;

/// Messages that wait for the dispatcher; senders wait when it is full.
const MESSAGES: usize = 1024;
/// Runs that are written with their command: it must fit into one batch of the store.
const RUNS_WITH_IT: usize = 32;

/// What others share of the commands at work.
#[derive(Debug)]
pub struct Commands {
    /// Logs that are finished and long.
    pub objects: Objects,
    folder: Folder,
    mailbox: mpsc::Sender<Message>,
    /// Taken by the task when it starts.
    inbox: Mutex<Option<mpsc::Receiver<Message>>>,
    shared: Mutex<Shared>,
    /// Moves when a command comes to be at work.
    arrivals: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    dispatcher: Dispatcher,
    live: HashMap<CommandId, Live>,
    /// Commands that are being written, or were a moment ago.
    begun: HashMap<CommandId, Made>,
}

/// A command at work, beside what the dispatcher knows.
#[derive(Debug)]
struct Live {
    spec: Arc<RunSpec>,
    logs: HashMap<HostId, Arc<OutputLog>>,
    changed: watch::Sender<u64>,
}

/// What the dispatcher's task is told.
#[derive(Debug)]
pub enum Message {
    /// Cancel a command, or its runs on these hosts; answers when it is written down.
    Cancel(CommandId, Option<BTreeSet<HostId>>, oneshot::Sender<()>),
    /// A stream says something.
    Report(Box<Reported>),
}

/// A command to be dispatched.
#[derive(Debug)]
pub(crate) struct Made {
    /// Its id.
    pub id: CommandId,
    /// For the dispatcher.
    pub active: Active,
    /// For the hosts.
    pub spec: RunSpec,
}

/// A command that is being written. What was set aside for it is let go of with this,
/// unless it was [written](Self::written).
#[derive(Debug)]
pub(crate) struct Begun<'a> {
    commands: &'a Commands,
    id: CommandId,
    /// Runs that are to be written with it.
    pub runs: Vec<(HostId, Run)>,
    written: bool,
}

impl Begun<'_> {
    /// It is on the disk with its runs. The dispatcher's task takes it from here.
    pub(crate) fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.written {
            // Who asked may have gone while it was written: then the dispatcher reads it
            // from the store, if it is there.
            let mut shared = self.commands.lock();
            shared.begun.remove(&self.id);
            shared.dispatcher.release(self.id);
        }
    }
}

/// Something that a stream says.
#[derive(Debug)]
pub struct Reported {
    key: Key,
    report: Report,
    output: Option<OutputV1>,
}

/// A run of a command at work.
#[derive(Clone, Debug)]
pub struct LiveRun {
    /// The host.
    pub host: HostId,
    /// What is known of the run.
    pub run: Run,
    /// Its output so far, if it has been sent.
    pub log: Option<Arc<OutputLog>>,
}

impl Commands {
    /// No commands yet. Objects lie in the state folder.
    pub async fn open(state_dir: &Path) -> Result<Self, ObjectError> {
        let (mailbox, inbox) = mpsc::channel(MESSAGES);
        Ok(Self {
            objects: Objects::local(state_dir.join("objects")).await?,
            folder: Folder::at(state_dir),
            mailbox,
            inbox: Mutex::new(Some(inbox)),
            shared: Mutex::default(),
            arrivals: watch::Sender::new(0),
        })
    }

    /// Cancels a command, or its runs on these hosts. Returns when it is written down.
    pub async fn cancel(&self, command: CommandId, hosts: Option<BTreeSet<HostId>>) {
        let (reply, done) = oneshot::channel();
        let message = Message::Cancel(command, hosts, reply);
        if self.mailbox.send(message).await.is_ok() {
            let _ = done.await;
        }
    }

    /// Sets aside what a command needs that is about to be written, and gives its first runs
    /// the room there is.
    pub(crate) fn begin(&self, mut made: Made, now: Timestamp) -> Begun<'_> {
        let id = made.id;
        let mut shared = self.lock();
        let sent = shared
            .dispatcher
            .reserve(id, &mut made.active, RUNS_WITH_IT, now);
        let run = |host| Some((host, made.active.run(host)?.clone()));
        let runs = sent.into_iter().filter_map(run).collect();
        shared.begun.insert(id, made);
        Begun {
            commands: self,
            id,
            runs,
            written: false,
        }
    }

    /// Moves when a command comes to be at work.
    pub fn arrivals(&self) -> watch::Receiver<u64> {
        self.arrivals.subscribe()
    }

    /// Something of a command has changed: who follows it shall look.
    fn touch(&self, command: CommandId) {
        if let Some(live) = self.lock().live.get(&command) {
            live.changed.send_modify(|changed| *changed += 1);
        }
    }

    /// Moves with every change of a command at work, and closes when it is finished.
    pub fn changes(&self, command: CommandId) -> Option<watch::Receiver<u64>> {
        let shared = self.lock();
        shared
            .live
            .get(&command)
            .map(|live| live.changed.subscribe())
    }

    /// Asks something of a command at work.
    pub fn look<T>(&self, command: CommandId, ask: impl FnOnce(&Active) -> T) -> Option<T> {
        self.lock().dispatcher.command(command).map(ask)
    }

    /// One run of a command at work.
    pub fn run(&self, command: CommandId, host: HostId) -> Option<LiveRun> {
        let shared = self.lock();
        let run = shared.dispatcher.command(command)?.run(host)?.clone();
        let log = shared.live.get(&command);
        let log = log.and_then(|live| live.logs.get(&host)).cloned();
        Some(LiveRun { host, run, log })
    }

    /// The runs of a command at work, by host.
    pub fn runs(&self, command: CommandId) -> Option<Vec<LiveRun>> {
        let shared = self.lock();
        let active = shared.dispatcher.command(command)?;
        let logs = shared.live.get(&command).map(|live| &live.logs);
        let runs = active.runs().map(|(host, run)| LiveRun {
            host,
            run: run.clone(),
            log: logs.and_then(|logs| logs.get(&host)).cloned(),
        });
        Some(runs.collect())
    }

    /// How many commands are at work, and their runs by state.
    pub fn counts(&self) -> (usize, BTreeMap<RunState, u64>) {
        let shared = self.lock();
        let mut runs = BTreeMap::new();
        let mut commands = 0;
        for active in shared.dispatcher.commands() {
            commands += 1;
            for (state, count) in active.counts() {
                *runs.entry(*state).or_default() += u64::from(*count);
            }
        }
        (commands, runs)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
