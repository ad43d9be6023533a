//! Many hosts at once, some at a time.
//!
//! Which hosts was decided when it was asked for. An operation is made for a host when it has its
//! turn, so that calling the rest off is to make no more of them.

use model::power::PowerOperationState;
use serde::{Deserialize, Serialize};

/// How many there are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Hosts in all.
    pub hosts: u32,
    /// Operations that go on.
    pub active: u32,
    /// That worked.
    pub succeeded: u32,
    /// That ended otherwise.
    pub failed: u32,
}

impl Tally {
    /// Counts an operation.
    pub fn count(&mut self, state: PowerOperationState) {
        if !state.is_final() {
            self.active += 1;
        } else if state == PowerOperationState::Succeeded {
            self.succeeded += 1;
        } else {
            self.failed += 1;
        }
    }

    /// Hosts that have not had their turn.
    pub fn waiting(&self) -> u32 {
        self.hosts
            .saturating_sub(self.active)
            .saturating_sub(self.succeeded)
            .saturating_sub(self.failed)
    }
}

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Begin with so many more hosts.
    Begin(u32),
    /// Wait for those that go on.
    Wait,
    /// It is over.
    Over(Ending),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Every host had its turn.
    Complete,
    /// Too many failed.
    Stopped,
    /// Somebody called it off.
    Cancelled,
}

/// `at_once` hosts at a time; the first alone if `canary`; no more after `stop_after` failures (0:
/// never).
pub fn step(tally: Tally, at_once: u32, canary: bool, stop_after: u32, cancelled: bool) -> Step {
    let stopped = stop_after > 0 && tally.failed >= stop_after;
    let ending = if cancelled {
        Some(Ending::Cancelled)
    } else if stopped {
        Some(Ending::Stopped)
    } else if tally.waiting() == 0 {
        Some(Ending::Complete)
    } else {
        None
    };
    if let Some(ending) = ending {
        return if tally.active == 0 {
            Step::Over(ending)
        } else {
            Step::Wait
        };
    }
    let first = canary && tally.succeeded == 0;
    let room = if first { 1 } else { at_once.max(1) };
    match room.saturating_sub(tally.active).min(tally.waiting()) {
        0 => Step::Wait,
        more => Step::Begin(more),
    }
}
