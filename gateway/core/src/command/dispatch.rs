//! Every command that is not finished, and what to send next.
//!
//! ```text
//!            ┌ batch not reached, or nobody's turn
//!   queued ──┤ its host has no link ── delivery time over ─► expired
//!            └ ready: batch reached, host linked, room ─► sending ─► a stream
//!                                                                       │
//!   stream ended, run not final: open another while the host is linked ◄┘
//! ```
//!
//! A new command need not wait for a write of its own before its first requests leave:
//! [`Dispatcher::reserve`] gives its runs what room there is, so that they are written as
//! `sending` together with the command, and are sent once that is on disk.
//!
//! [`Dispatcher::handle`] takes note of what happened, [`Dispatcher::dispatch`] fills
//! the room that is left. Both collect in an [`Outcome`] what must be written, and
//! what to do once it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::Timestamp;
use model::command::RunState;
use model::ids::{CommandId, HostId};
use protocol::v1::{RunEnded, RunRefused};

use super::active::{Active, Asking};
use super::run::{Refusal, Run, UNANSWERED};

/// Most runs under way on one host, of all commands. Fewer than a host takes, so that
/// its refusal is the exception.
pub const PER_HOST: u32 = 16;
/// Most runs under way altogether: a stream and its buffers each.
pub const ALTOGETHER: u32 = 4096;
/// Before a stream that ended is opened again.
const REOPEN_AFTER: Duration = Duration::from_millis(250);

/// A run's name.
pub type Key = (CommandId, HostId);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// There is a new command, or one that was not finished when the gateway stopped.
    Made(CommandId, Box<Active>),
    /// A host that commands may run on has a link.
    Linked(HostId),
    /// It has none any more.
    Unlinked(HostId),
    /// A host has left the fleet.
    Gone(HostId),
    /// Somebody cancels a command, or its runs on these hosts.
    Cancel(CommandId, Option<BTreeSet<HostId>>),
    /// Something about a run, from its stream.
    Report(Key, Report),
}

/// What a stream says about its run.
#[derive(Debug)]
pub enum Report {
    /// It is in the host's journal.
    Accepted,
    /// Its process was started.
    Started(Timestamp),
    /// It asked for a reboot, which follows or is `done`.
    Reboot {
        /// How many of its reboots that is.
        count: u32,
        /// Whether the host is back.
        done: bool,
    },
    /// It has ended; the output is complete.
    Ended(Box<RunEnded>),
    /// It will not be started.
    Refused(Box<RunRefused>),
    /// The stream has ended.
    Detached,
}

/// What to write, and what to do once it is written.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Runs that have changed in a way that must outlive the gateway.
    pub writes: BTreeSet<Key>,
    /// Commands of which something was said to followers.
    pub touched: BTreeSet<CommandId>,
    /// Commands that are finished.
    pub finished: BTreeSet<CommandId>,
    /// In this order, after the writes.
    pub steps: Vec<Step>,
}

/// Something to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a stream for a run.
    Open(Key, Asking),
    /// Tell the stream of a run that it is cancelled.
    Cancel(Key),
    /// Tell the host of a run that its result is stored.
    Taken(Key),
}

/// All commands that are not finished.
#[derive(Debug, Default)]
pub struct Dispatcher {
    active: BTreeMap<CommandId, Active>,
    /// Commands with runs on a host that are not final.
    of_host: BTreeMap<HostId, BTreeSet<CommandId>>,
    linked: BTreeSet<HostId>,
    /// Runs that have a stream.
    streams: BTreeSet<Key>,
    reopen: BTreeSet<(Timestamp, Key)>,
    out_of: BTreeMap<HostId, u32>,
    out: u32,
    /// Hosts on which commands that are being written have room already.
    reserved: BTreeMap<CommandId, Vec<HostId>>,
}

impl Dispatcher {
    /// A command that is not finished.
    pub fn command(&self, command: CommandId) -> Option<&Active> {
        self.active.get(&command)
    }

    /// All commands that are not finished.
    pub fn commands(&self) -> impl Iterator<Item = &Active> {
        self.active.values()
    }

    /// Hosts with runs that are not final.
    pub fn hosts(&self) -> impl Iterator<Item = HostId> {
        self.of_host.keys().copied()
    }

    /// Forgets a command that is finished and written down.
    pub fn forget(&mut self, command: CommandId) {
        if self.active.get(&command).is_some_and(Active::is_finished) {
            self.active.remove(&command);
        }
    }

    /// Takes note of something.
    pub fn handle(&mut self, event: Event, now: Timestamp, outcome: &mut Outcome) {
        match event {
            Event::Made(command, active) => self.made(command, *active, outcome),
            Event::Linked(host) => self.linked(host, now, outcome),
            Event::Unlinked(host) => self.unlinked(host, now, outcome),
            Event::Gone(host) => self.gone(host, now, outcome),
            Event::Cancel(command, hosts) => self.cancel(command, hosts, now, outcome),
            Event::Report(key, report) => self.report(key, report, now, outcome),
        }
    }

    /// Takes room for a command that is about to be written, and makes up to `most` of its
    /// runs `sending`: those that [`Self::dispatch`] would send if it were there. They are to
    /// be written with it. The room is kept until the command is made, or is let go of with
    /// [`Self::release`].
    pub fn reserve(
        &mut self,
        command: CommandId,
        active: &mut Active,
        most: usize,
        now: Timestamp,
    ) -> Vec<HostId> {
        let room = active
            .plan
            .concurrency
            .unwrap_or(u32::MAX)
            .min(ALTOGETHER.saturating_sub(self.out));
        let most = most.min(usize::try_from(room).unwrap_or(usize::MAX));
        let first = active.queued.iter().take_while(|place| place.0 == 0);
        let free = first
            .map(|place| place.2)
            .filter(|host| self.is_free(*host));
        let chosen: Vec<HostId> = free.take(most).collect();
        for host in &chosen {
            active.change(*host, |run| run.sends(now));
            self.out += 1;
            *self.out_of.entry(*host).or_default() += 1;
        }
        if !chosen.is_empty() {
            self.reserved.insert(command, chosen.clone());
        }
        chosen
    }

    /// Gives back the room of a command that was not written, or has been made.
    pub fn release(&mut self, command: CommandId) {
        for host in self.reserved.remove(&command).unwrap_or_default() {
            self.leave(host);
        }
    }

    /// Whether a host is linked and has room that no other command waits for.
    fn is_free(&self, host: HostId) -> bool {
        let waits = |command: &CommandId| {
            let active = self.active.get(command);
            active.is_some_and(|active| {
                let place = active.place_of(host);
                place.is_some_and(|place| active.ready.contains(&place))
            })
        };
        self.linked.contains(&host)
            && self.out_of.get(&host).copied().unwrap_or(0) < PER_HOST
            && !self
                .of_host
                .get(&host)
                .is_some_and(|it| it.iter().any(waits))
    }

    fn made(&mut self, command: CommandId, mut active: Active, outcome: &mut Outcome) {
        self.release(command);
        let mut places = Vec::new();
        for (host, run) in active.runs() {
            if run.is_final() {
                continue;
            }
            self.of_host.entry(host).or_default().insert(command);
            if run.is_out() {
                self.out += 1;
                *self.out_of.entry(host).or_default() += 1;
                if self.linked.contains(&host) {
                    self.reopen
                        .insert((Timestamp::from_millis(0), (command, host)));
                }
            } else if self.linked.contains(&host) {
                places.extend(active.place_of(host));
            }
        }
        active.ready.extend(places);
        if active.is_finished() {
            outcome.finished.insert(command);
        }
        outcome.touched.insert(command);
        self.active.insert(command, active);
    }

    fn linked(&mut self, host: HostId, now: Timestamp, outcome: &mut Outcome) {
        if !self.linked.insert(host) {
            return;
        }
        let commands = self.of_host.get(&host).cloned().unwrap_or_default();
        for command in commands {
            let Some(active) = self.active.get_mut(&command) else {
                continue;
            };
            let Some(place) = active.place_of(host) else {
                continue;
            };
            if active.queued.contains(&place) {
                active.ready.insert(place);
            } else {
                self.open(command, host, now, outcome);
            }
        }
    }

    fn unlinked(&mut self, host: HostId, now: Timestamp, outcome: &mut Outcome) {
        self.linked.remove(&host);
        for command in self.of_host.get(&host).cloned().unwrap_or_default() {
            let Some(active) = self.active.get_mut(&command) else {
                continue;
            };
            let Some(place) = active.place_of(host) else {
                continue;
            };
            active.ready.remove(&place);
            if active.delivery_over && active.queued.contains(&place) && place.0 <= active.batch {
                self.settle(
                    (command, host),
                    RunState::Expired,
                    NOT_REACHED,
                    now,
                    outcome,
                );
            }
        }
    }

    fn gone(&mut self, host: HostId, now: Timestamp, outcome: &mut Outcome) {
        self.linked.remove(&host);
        for command in self.of_host.get(&host).cloned().unwrap_or_default() {
            let Some(run) = self.active.get(&command).and_then(|it| it.run(host)) else {
                continue;
            };
            let key = (command, host);
            if run.is_out() {
                let why = "the host was retired before it said how it went";
                self.settle(key, RunState::Lost, why, now, outcome);
            } else if !run.is_final() {
                self.settle(key, RunState::Refused, "the host is retired", now, outcome);
            }
        }
    }

    fn cancel(
        &mut self,
        command: CommandId,
        hosts: Option<BTreeSet<HostId>>,
        now: Timestamp,
        outcome: &mut Outcome,
    ) {
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        active.cancelled |= hosts.is_none();
        let concerned: Vec<HostId> = match hosts {
            Some(hosts) => hosts.into_iter().collect(),
            None => active.runs.keys().copied().collect(),
        };
        for host in concerned {
            let Some(active) = self.active.get_mut(&command) else {
                return;
            };
            let Some(run) = active.run(host) else {
                continue;
            };
            let key = (command, host);
            if run.state == RunState::Queued {
                self.settle(key, RunState::Cancelled, CANCELLED_BEFORE, now, outcome);
            } else if run.is_out() && !run.cancelling {
                active.change(host, |run| run.cancelling = true);
                outcome.writes.insert(key);
                outcome.touched.insert(command);
                if self.streams.contains(&key) {
                    outcome.steps.push(Step::Cancel(key));
                }
            }
        }
    }

    fn report(&mut self, key: Key, report: Report, now: Timestamp, outcome: &mut Outcome) {
        let (command, host) = key;
        if matches!(report, Report::Detached) {
            self.streams.remove(&key);
        }
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        let Some(before) = active.run(host).map(|run| (run.state, run.is_out())) else {
            return;
        };
        outcome.touched.insert(command);
        match report {
            Report::Detached => {
                if before.1 && self.linked.contains(&host) {
                    self.reopen.insert((now.saturating_add(REOPEN_AFTER), key));
                }
            }
            // What is final stays. A host may tell a result again: its word is good for
            // being let go.
            Report::Ended(_) | Report::Refused(_) if !before.1 => {
                outcome.writes.insert(key);
                outcome.steps.push(Step::Taken(key));
            }
            Report::Accepted => {
                active.change(host, Run::accepted);
            }
            Report::Started(at) => {
                active.change(host, |run| run.started(at));
            }
            Report::Reboot { count, done } => {
                active.change(host, |run| run.reboots(count, done));
            }
            Report::Ended(ended) => {
                active.change(host, |run| run.ended(&ended, now));
                self.came_back(key, outcome);
                outcome.steps.push(Step::Taken(key));
            }
            Report::Refused(refused) => {
                let refusal = active.change(host, |run| run.refused(&refused, now));
                self.came_back(key, outcome);
                outcome.steps.push(Step::Taken(key));
                if refusal == Some(Refusal::AskAgain) {
                    self.ask_again(key, now, outcome);
                }
            }
        }
    }

    /// A busy host has declined: the run waits again, for the next time there is room.
    fn ask_again(&mut self, key: Key, now: Timestamp, outcome: &mut Outcome) {
        let (command, host) = key;
        self.of_host.entry(host).or_default().insert(command);
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        if active.run(host).is_some_and(|run| run.cancelling) {
            self.settle(key, RunState::Cancelled, CANCELLED_BEFORE, now, outcome);
            return;
        }
        self.reopen.insert((now.saturating_add(REOPEN_AFTER), key));
    }

    /// A run that was out is final, or waits again.
    fn came_back(&mut self, key: Key, outcome: &mut Outcome) {
        let (command, host) = key;
        self.leave(host);
        self.let_go(command, host);
        outcome.writes.insert(key);
    }

    /// One run less is under way on a host.
    fn leave(&mut self, host: HostId) {
        self.out = self.out.saturating_sub(1);
        if let Some(out) = self.out_of.get_mut(&host) {
            *out = out.saturating_sub(1);
            if *out == 0 {
                self.out_of.remove(&host);
            }
        }
    }

    fn let_go(&mut self, command: CommandId, host: HostId) {
        if let Some(commands) = self.of_host.get_mut(&host) {
            commands.remove(&command);
            if commands.is_empty() {
                self.of_host.remove(&host);
            }
        }
    }

    /// Makes a run final without its host.
    fn settle(
        &mut self,
        key: Key,
        state: RunState,
        why: &str,
        now: Timestamp,
        outcome: &mut Outcome,
    ) {
        let (command, host) = key;
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        let was_out = active.run(host).is_some_and(Run::is_out);
        active.change(host, |run| run.settle(state, why, now));
        outcome.touched.insert(command);
        if was_out {
            self.came_back(key, outcome);
        } else {
            self.let_go(command, host);
            outcome.writes.insert(key);
        }
    }

    /// Opens a stream for a run that is out.
    fn open(&mut self, command: CommandId, host: HostId, now: Timestamp, outcome: &mut Outcome) {
        let key = (command, host);
        let Some(active) = self.active.get(&command) else {
            return;
        };
        let Some(run) = active.run(host).filter(|run| run.is_out()) else {
            return;
        };
        if self.linked.contains(&host) && self.streams.insert(key) {
            let asking = active.asking(run, now);
            outcome.steps.push(Step::Open(key, asking));
        }
    }

    /// Lets timers run out, and gives every run its turn for which there is room.
    pub fn dispatch(&mut self, now: Timestamp, outcome: &mut Outcome) {
        while let Some((at, key)) = self.reopen.first().copied() {
            if at > now {
                break;
            }
            self.reopen.pop_first();
            let (command, host) = key;
            let linked = self.linked.contains(&host);
            if let Some(active) = self.active.get_mut(&command)
                && let Some(place) = active.place_of(host)
                && active.queued.contains(&place)
                && linked
            {
                active.ready.insert(place);
            }
            self.open(command, host, now, outcome);
        }
        let mut order: Vec<_> = self
            .active
            .iter()
            .map(|(id, active)| (std::cmp::Reverse(active.plan.priority), *id))
            .collect();
        order.sort_unstable();
        for (_, command) in order {
            self.look_at(command, now, outcome);
        }
    }

    fn look_at(&mut self, command: CommandId, now: Timestamp, outcome: &mut Outcome) {
        self.stop_if_failing(command, now, outcome);
        self.expire(command, now, outcome);
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        if active.turn(now) {
            self.expire(command, now, outcome);
        }
        self.send(command, now, outcome);
        if self.active.get(&command).is_some_and(Active::is_finished) {
            outcome.finished.insert(command);
        }
    }

    fn send(&mut self, command: CommandId, now: Timestamp, outcome: &mut Outcome) {
        let Some(active) = self.active.get(&command) else {
            return;
        };
        let most = active.plan.concurrency.unwrap_or(u32::MAX);
        let mut room = most
            .saturating_sub(active.out)
            .min(ALTOGETHER.saturating_sub(self.out));
        if room == 0 || active.ready.is_empty() {
            return;
        }
        let batch = active.batch;
        let mut chosen = Vec::new();
        for place in &active.ready {
            if room == 0 || place.0 > batch {
                break;
            }
            if self.out_of.get(&place.2).copied().unwrap_or(0) < PER_HOST {
                chosen.push(place.2);
                room -= 1;
            }
        }
        for host in chosen {
            let Some(active) = self.active.get_mut(&command) else {
                return;
            };
            active.change(host, |run| run.sends(now));
            self.out += 1;
            *self.out_of.entry(host).or_default() += 1;
            outcome.writes.insert((command, host));
            outcome.touched.insert(command);
            self.open(command, host, now, outcome);
        }
    }

    fn stop_if_failing(&mut self, command: CommandId, now: Timestamp, outcome: &mut Outcome) {
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        let cancelled = active.counts.get(&RunState::Cancelled).copied();
        let failures = active.failures - cancelled.unwrap_or(0);
        let enough = active.plan.stop_after.is_some_and(|most| failures >= most);
        if !enough || active.stopped.is_some() || active.is_finished() {
            return;
        }
        let why = format!("stopped after {failures} runs did not succeed");
        active.stopped = Some(why.clone());
        let waiting: Vec<_> = active.queued.iter().map(|place| place.2).collect();
        for host in waiting {
            self.settle((command, host), RunState::Cancelled, &why, now, outcome);
        }
    }

    fn expire(&mut self, command: CommandId, now: Timestamp, outcome: &mut Outcome) {
        let Some(active) = self.active.get_mut(&command) else {
            return;
        };
        let over = now >= active.timers.valid_until;
        let delivery_over = !active.delivery_over && now >= active.deliver_until();
        active.delivery_over |= delivery_over;
        let mut waiting: Vec<HostId> = Vec::new();
        if over {
            waiting.extend(active.queued.iter().map(|place| place.2));
        } else if delivery_over {
            let batch = active.batch;
            let unreached = active.queued.difference(&active.ready);
            waiting.extend(unreached.filter(|place| place.0 <= batch).map(|it| it.2));
        }
        for host in waiting {
            let why = if over { NO_LONGER_VALID } else { NOT_REACHED };
            self.settle((command, host), RunState::Expired, why, now, outcome);
        }
        if over {
            self.give_up(command, now, outcome);
        }
    }

    /// Runs whose hosts have not answered for so long that they have nothing to tell.
    fn give_up(&mut self, command: CommandId, now: Timestamp, outcome: &mut Outcome) {
        let Some(active) = self.active.get(&command) else {
            return;
        };
        if now < active.timers.valid_until.saturating_add(UNANSWERED) {
            return;
        }
        let away: Vec<_> = active
            .runs()
            .filter(|(host, run)| run.is_out() && !self.linked.contains(host))
            .map(|(host, _)| host)
            .collect();
        for host in away {
            let why = "the host has not been back to say how it went";
            self.settle((command, host), RunState::Lost, why, now, outcome);
        }
    }

    /// When [`Dispatcher::dispatch`] has something to do though nothing happened.
    pub fn next_look(&self, now: Timestamp) -> Option<Timestamp> {
        let reopen = self.reopen.first().map(|(at, _)| *at);
        let timers = self.active.values().flat_map(|active| {
            let delivery = (!active.delivery_over && !active.queued.is_empty())
                .then(|| active.deliver_until());
            let validity = active.timers.valid_until;
            let forgotten = validity.saturating_add(UNANSWERED);
            let later = [validity, forgotten].into_iter().find(|at| *at > now);
            [delivery, later].into_iter().flatten()
        });
        timers.chain(reopen).min()
    }
}

const CANCELLED_BEFORE: &str = "cancelled before it was started";
const NOT_REACHED: &str = "the host was not reached in time";
const NO_LONGER_VALID: &str = "the command was no longer valid when the run's turn came";

#[cfg(test)]
mod tests;
