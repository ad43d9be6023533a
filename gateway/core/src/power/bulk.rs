//! Many hosts at once, some at a time.
//!
//! Which hosts was decided when it was asked for. An operation is made for a host when it has its
//! turn, so that calling the rest off is to make no more of them.

use std::time::Duration;

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

/// How long telling all of them takes at least: by the pace of endpoints, of each of which that many
/// are told, and by limits, each of that many and of how many in a minute.
pub fn at_least(
    endpoints: impl IntoIterator<Item = u32>,
    (burst, interval): (u32, Duration),
    limits: impl IntoIterator<Item = (u32, u32)>,
) -> Duration {
    let paced = endpoints
        .into_iter()
        .map(|hosts| interval.saturating_mul(hosts.saturating_sub(burst.max(1))));
    let limited = limits.into_iter().map(|(hosts, most)| {
        let minutes = hosts.saturating_sub(1).checked_div(most).unwrap_or(0);
        super::limits::WINDOW.saturating_mul(minutes)
    });
    paced.chain(limited).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_of_paces_and_limits_decides() {
        let pace = (2, Duration::from_secs(1));
        let seconds = |endpoints: &[u32], limits: &[(u32, u32)]| {
            at_least(endpoints.iter().copied(), pace, limits.iter().copied()).as_secs()
        };
        assert_eq!(seconds(&[], &[]), 0);
        assert_eq!(seconds(&[2, 1], &[]), 0);
        assert_eq!(seconds(&[10, 12], &[]), 10);
        assert_eq!(seconds(&[10], &[(5, 5)]), 8);
        assert_eq!(seconds(&[10], &[(5, 5), (11, 5)]), 120);
        assert_eq!(seconds(&[1], &[(11, 0)]), 0);
    }
}
