//! One command that is not finished: its runs, their figures, whose turn it is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use model::Timestamp;
use model::command::{CommandState, RunState};
use model::ids::HostId;

use super::fan_out::Plan;
use super::run::Run;

/// When to give up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timers {
    /// How long to try to reach a host from its turn on; `None` until `valid_until`.
    pub delivery: Option<Duration>,
    /// No run starts after this.
    pub valid_until: Timestamp,
    /// For a host that has the run to start it.
    pub start: Duration,
}

/// How a host is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// To run it, before then.
    Run {
        /// Not to be started at or after this.
        start_before: Timestamp,
    },
    /// How it went, and never to start it any more.
    Settle {
        /// Whether to end it if it runs.
        cancel: bool,
    },
}

/// A command that is not finished.
#[derive(Clone, Debug)]
pub struct Active {
    pub(super) plan: Plan,
    pub(super) timers: Timers,
    pub(super) runs: BTreeMap<HostId, Placed>,
    pub(super) counts: BTreeMap<RunState, u32>,
    /// Runs of each batch that are not final.
    open: Vec<u32>,
    pub(super) queued: BTreeSet<Place>,
    /// Those of them whose host is linked.
    pub(super) ready: BTreeSet<Place>,
    pub(super) batch: u32,
    turn_at: Timestamp,
    /// The time to reach hosts of the current batch is over.
    pub(super) delivery_over: bool,
    pub(super) out: u32,
    pub(super) failures: u32,
    pub(super) cancelled: bool,
    pub(super) stopped: Option<String>,
}

/// Batch, place among the targets, host.
pub(super) type Place = (u32, u32, HostId);

#[derive(Clone, Debug)]
pub(super) struct Placed {
    place: u32,
    run: Run,
}

impl Active {
    /// A command with its targets in order, and what is known of runs already.
    pub fn new(
        plan: Plan,
        timers: Timers,
        targets: impl IntoIterator<Item = HostId>,
        mut known: BTreeMap<HostId, Run>,
        now: Timestamp,
    ) -> Self {
        let mut active = Self {
            timers,
            runs: BTreeMap::new(),
            counts: BTreeMap::new(),
            open: Vec::new(),
            queued: BTreeSet::new(),
            ready: BTreeSet::new(),
            batch: 0,
            turn_at: now,
            delivery_over: false,
            out: 0,
            failures: 0,
            cancelled: false,
            stopped: None,
            plan,
        };
        for (place, host) in (0u32..).zip(targets) {
            let batch = active.plan.batch_of(place);
            let run = known.remove(&host).unwrap_or_else(|| Run::queued(batch));
            active
                .open
                .resize(active.open.len().max(batch as usize + 1), 0);
            active.runs.insert(host, Placed { place, run });
            active.count_in(host);
        }
        active
    }

    /// Its runs, by host.
    pub fn runs(&self) -> impl Iterator<Item = (HostId, &Run)> {
        self.runs.iter().map(|(host, placed)| (*host, &placed.run))
    }

    /// The run on one host.
    pub fn run(&self, host: HostId) -> Option<&Run> {
        self.runs.get(&host).map(|placed| &placed.run)
    }

    /// How many runs are in which state.
    pub fn counts(&self) -> &BTreeMap<RunState, u32> {
        &self.counts
    }

    /// Runs that are final and did not succeed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Why it starts nothing more.
    pub fn stopped(&self) -> Option<&str> {
        self.stopped.as_deref()
    }

    /// Whether somebody cancelled it as a whole.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled
    }

    /// Where it is as a whole.
    pub fn state(&self) -> CommandState {
        if !self.is_finished() {
            CommandState::Running
        } else if self.cancelled {
            CommandState::Cancelled
        } else if self.failures == 0 {
            CommandState::Succeeded
        } else {
            CommandState::Failed
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.open.iter().all(|open| *open == 0)
    }

    pub(super) fn place_of(&self, host: HostId) -> Option<Place> {
        let placed = self.runs.get(&host)?;
        Some((placed.run.batch, placed.place, host))
    }

    /// Adds a run to everything that is counted.
    fn count_in(&mut self, host: HostId) {
        let Some(place) = self.place_of(host) else {
            return;
        };
        let run = &self.runs[&host].run;
        *self.counts.entry(run.state).or_default() += 1;
        if !run.is_final()
            && let Some(open) = self.open.get_mut(run.batch as usize)
        {
            *open += 1;
        }
        if run.state == RunState::Queued {
            self.queued.insert(place);
        }
        self.out += u32::from(run.is_out());
        self.failures += u32::from(run.is_final() && !run.succeeded());
    }

    fn count_out(&mut self, host: HostId) {
        let Some(place) = self.place_of(host) else {
            return;
        };
        let run = &self.runs[&host].run;
        if let Some(count) = self.counts.get_mut(&run.state) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&run.state);
            }
        }
        if !run.is_final()
            && let Some(open) = self.open.get_mut(run.batch as usize)
        {
            *open -= 1;
        }
        self.queued.remove(&place);
        self.ready.remove(&place);
        self.out -= u32::from(run.is_out());
        self.failures -= u32::from(run.is_final() && !run.succeeded());
    }

    /// Changes a run and keeps every count right.
    pub(super) fn change<T>(
        &mut self,
        host: HostId,
        change: impl FnOnce(&mut Run) -> T,
    ) -> Option<T> {
        self.runs.contains_key(&host).then_some(())?;
        self.count_out(host);
        let answer = self
            .runs
            .get_mut(&host)
            .map(|placed| change(&mut placed.run));
        self.count_in(host);
        answer
    }

    /// Until when a host of the current batch is tried.
    pub(super) fn deliver_until(&self) -> Timestamp {
        match self.timers.delivery {
            Some(delivery) => self
                .turn_at
                .saturating_add(delivery)
                .min(self.timers.valid_until),
            None => self.timers.valid_until,
        }
    }

    pub(super) fn asking(&self, run: &Run, now: Timestamp) -> Asking {
        if run.rebooted && !run.cancelling {
            // It was in time when it started first.
            return Asking::Run {
                start_before: now.saturating_add(self.timers.start),
            };
        }
        let sent = run.sent_at.unwrap_or(now);
        let in_time = now < self.deliver_until() || now < sent.saturating_add(self.timers.start);
        if run.cancelling || !in_time || now >= self.timers.valid_until {
            return Asking::Settle {
                cancel: run.cancelling,
            };
        }
        let start_before = now.saturating_add(self.timers.start);
        Asking::Run {
            start_before: start_before.min(self.timers.valid_until),
        }
    }

    /// Goes on to the next batch when this one is final.
    pub(super) fn turn(&mut self, now: Timestamp) -> bool {
        let mut turned = false;
        while self.open.get(self.batch as usize) == Some(&0)
            && (self.batch as usize) + 1 < self.open.len()
        {
            self.batch += 1;
            self.turn_at = now;
            self.delivery_over = false;
            turned = true;
        }
        turned
    }
}
