//! Who is there: connectivity of hosts from what the gateway itself received.
//!
//! ```text
//!                 heartbeat                  heartbeat
//!       never ──────────────► connected ◄────────────── unconfirmed
//!                              │  ▲  ▲                       │
//!          quiet > late, or    │  │  │ heartbeat             │ grace period over
//!          the link closed     ▼  │  │                       ▼
//!                             late ─┼──────────────────► unreachable
//!                                   quiet > unreachable
//! ```
//!
//! Times are monotonic durations since the gateway started; a host's clock plays
//! no part. After a start nothing is known: hosts that were linked are
//! *unconfirmed* and stay so until they are heard, or until the grace period ends
//! and their silence means something.
//!
//! Mass loss: when many hosts of a deployment fall silent together, the fault is
//! most likely on this side. They still become unreachable, because that is what
//! is observed, but as one event, and automatic actions stand still until most of
//! them are back.

use std::time::Duration;

use model::host::Connectivity;
use model::tenancy::LivenessThresholds;

/// What is known of one host's link. Times are since the gateway started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// When something last arrived from it, in this life of the gateway.
    pub last: Option<Duration>,
    /// Whether a link is open.
    pub linked: bool,
    /// What it was before this moment.
    pub before: Connectivity,
}

/// What a host's connectivity is at `now`.
pub fn connectivity(
    heard: Heard,
    thresholds: &LivenessThresholds,
    now: Duration,
    grace: Duration,
) -> Connectivity {
    let Some(last) = heard.last else {
        return silent_since_start(heard.before, now, grace);
    };
    let quiet = now.saturating_sub(last);
    if quiet >= millis(thresholds.unreachable_ms) {
        Connectivity::Unreachable
    } else if quiet >= millis(thresholds.late_ms) || !heard.linked {
        // A link that closed is a fact, but a reconnect is seconds away: late.
        Connectivity::Late
    } else {
        Connectivity::Connected
    }
}

fn silent_since_start(before: Connectivity, now: Duration, grace: Duration) -> Connectivity {
    match before {
        Connectivity::Never | Connectivity::Unreachable => before,
        Connectivity::Connected | Connectivity::Late | Connectivity::Unconfirmed => {
            if now < grace {
                Connectivity::Unconfirmed
            } else {
                Connectivity::Unreachable
            }
        }
    }
}

/// When to look at a host again: the earliest moment at which silence alone
/// changes its connectivity.
pub fn next_look(
    heard: Heard,
    thresholds: &LivenessThresholds,
    now: Duration,
    grace: Duration,
) -> Option<Duration> {
    let Some(last) = heard.last else {
        let waiting = matches!(
            heard.before,
            Connectivity::Connected | Connectivity::Late | Connectivity::Unconfirmed
        );
        return waiting.then_some(grace);
    };
    let late = last.saturating_add(millis(thresholds.late_ms));
    let unreachable = last.saturating_add(millis(thresholds.unreachable_ms));
    [late, unreachable].into_iter().find(|at| *at > now)
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

/// What looking at one host found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// Its connectivity.
    pub connectivity: Connectivity,
    /// What the look before found, in this life of the gateway.
    pub before: Option<Connectivity>,
    /// What is written down.
    pub written: Connectivity,
    /// Whether its absence is planned.
    pub planned: bool,
    /// When silence alone will change something.
    pub next: Option<Duration>,
}

/// What to write down about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It went quiet past the threshold.
    Unreachable,
    /// It is heard on a link that never ended, and written down as quiet.
    HeardAgain,
}

/// One look at every host, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    connected: usize,
    unreachable: usize,
    lost: usize,
    next: Option<Duration>,
}

impl Survey {
    /// Takes a host in; what to write down about it.
    ///
    /// A loss counts towards a mass loss when it is first seen, not each time that
    /// writing it down fails: a full disk must not make many losses of one.
    pub fn see(&mut self, sight: &Sight) -> Option<Note> {
        self.next = [self.next, sight.next].into_iter().flatten().min();
        match sight.connectivity {
            Connectivity::Connected => self.connected += 1,
            Connectivity::Unreachable => self.unreachable += 1,
            Connectivity::Never | Connectivity::Late | Connectivity::Unconfirmed => {}
        }
        match (sight.connectivity, sight.written) {
            (Connectivity::Unreachable, written) if written != Connectivity::Unreachable => {
                let news = sight.before != Some(Connectivity::Unreachable);
                self.lost += usize::from(news && !sight.planned);
                Some(Note::Unreachable)
            }
            (Connectivity::Connected, Connectivity::Unreachable | Connectivity::Late) => {
                Some(Note::HeardAgain)
            }
            _ => None,
        }
    }

    /// When silence will next change something.
    pub fn next(&self) -> Option<Duration> {
        self.next
    }

    /// What the brake makes of it.
    pub fn storm(
        &self,
        brake: &mut StormBrake,
        rule: &MassLossRule,
        now: Duration,
    ) -> Option<Storm> {
        brake.observe(rule, self.lost, self.connected, self.unreachable, now)
    }
}

/// What counts as a mass loss.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MassLossRule {
    /// Never with fewer hosts lost than this.
    pub minimum: usize,
    /// Lost hosts as a share of those that were connected.
    pub fraction: f64,
    /// Losses this close together count as one.
    pub window: Duration,
}

/// Watches for mass losses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StormBrake {
    /// Moments of recent losses, oldest first.
    losses: std::collections::VecDeque<Duration>,
    pulled: Option<Pulled>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pulled {
    /// How many hosts were lost together.
    hosts: usize,
    /// How many had been unreachable before: a fleet has its dead, and they must not
    /// hold the brake for ever.
    others: usize,
}

/// What a storm brake does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storm {
    /// A mass loss has begun.
    Began {
        /// How many hosts.
        hosts: usize,
    },
    /// It is over.
    Ended,
}

impl StormBrake {
    /// Whether automatic actions must stand still.
    pub fn pulled(&self) -> bool {
        self.pulled.is_some()
    }

    /// Takes in that `lost` hosts became unreachable at `now`, while `connected`
    /// still are and `unreachable` are not.
    pub fn observe(
        &mut self,
        rule: &MassLossRule,
        lost: usize,
        connected: usize,
        unreachable: usize,
        now: Duration,
    ) -> Option<Storm> {
        self.losses.extend(std::iter::repeat_n(now, lost));
        let horizon = now.saturating_sub(rule.window);
        while self.losses.front().is_some_and(|at| *at < horizon) {
            self.losses.pop_front();
        }
        match self.pulled {
            None => {
                let recent = self.losses.len();
                let before = (recent + connected).max(1);
                let much = recent as f64 / before as f64 >= rule.fraction;
                (recent >= rule.minimum && much).then(|| {
                    self.pulled = Some(Pulled {
                        hosts: recent,
                        others: unreachable.saturating_sub(recent),
                    });
                    Storm::Began { hosts: recent }
                })
            }
            // Over once half of what was lost is back.
            Some(Pulled { hosts, others }) => (unreachable.saturating_sub(others) * 2 <= hosts)
                .then(|| {
                    self.pulled = None;
                    self.losses.clear();
                    Storm::Ended
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn heard(last: Option<u64>, linked: bool, before: Connectivity) -> Heard {
        Heard {
            last: last.map(secs),
            linked,
            before,
        }
    }

    #[test]
    fn silence_becomes_late_then_unreachable_within_three_beats() {
        let thresholds = LivenessThresholds::default();
        let at = |now| {
            connectivity(
                heard(Some(100), true, Connectivity::Connected),
                &thresholds,
                secs(now),
                GRACE,
            )
        };
        assert_eq!(at(110), Connectivity::Connected);
        assert_eq!(at(115), Connectivity::Late);
        assert_eq!(at(127), Connectivity::Late);
        assert_eq!(at(128), Connectivity::Unreachable);
    }

    #[test]
    fn after_a_gateway_restart_hosts_are_unconfirmed_until_the_grace_period_ends() {
        let thresholds = LivenessThresholds::default();
        let at =
            |now, before| connectivity(heard(None, false, before), &thresholds, secs(now), GRACE);
        assert_eq!(at(1, Connectivity::Connected), Connectivity::Unconfirmed);
        assert_eq!(at(59, Connectivity::Unconfirmed), Connectivity::Unconfirmed);
        assert_eq!(at(60, Connectivity::Unconfirmed), Connectivity::Unreachable);
        assert_eq!(at(1, Connectivity::Unreachable), Connectivity::Unreachable);
        assert_eq!(at(100, Connectivity::Never), Connectivity::Never);
    }

    #[test]
    fn one_lost_host_is_no_storm_and_many_are_one() {
        let rule = MassLossRule {
            minimum: 5,
            fraction: 0.3,
            window: secs(30),
        };
        let mut brake = StormBrake::default();
        assert_eq!(brake.observe(&rule, 1, 99, 1, secs(1)), None);
        assert_eq!(
            brake.observe(&rule, 40, 59, 41, secs(2)),
            Some(Storm::Began { hosts: 41 })
        );
        assert_eq!(brake.observe(&rule, 10, 49, 51, secs(3)), None);
        assert!(brake.pulled());
        assert_eq!(brake.observe(&rule, 0, 80, 20, secs(9)), Some(Storm::Ended));
        assert!(!brake.pulled());
    }

    #[test]
    fn a_storm_ends_in_a_fleet_that_has_its_dead() {
        let rule = MassLossRule {
            minimum: 5,
            fraction: 0.3,
            window: secs(30),
        };
        let mut brake = StormBrake::default();
        // 100 hosts were scrapped and never retired.
        let began = brake.observe(&rule, 40, 60, 140, secs(1));
        assert_eq!(began, Some(Storm::Began { hosts: 40 }));
        assert_eq!(brake.observe(&rule, 0, 70, 130, secs(2)), None);
        assert_eq!(
            brake.observe(&rule, 0, 80, 120, secs(3)),
            Some(Storm::Ended)
        );
    }

    #[test]
    fn one_loss_that_cannot_be_written_down_stays_one_loss() {
        let rule = MassLossRule {
            minimum: 3,
            fraction: 0.3,
            window: secs(30),
        };
        let mut brake = StormBrake::default();
        let mut before = Some(Connectivity::Late);
        for second in 0..10 {
            let mut survey = Survey::default();
            let note = survey.see(&Sight {
                connectivity: Connectivity::Unreachable,
                before,
                written: Connectivity::Late,
                planned: false,
                next: None,
            });
            assert_eq!(note, Some(Note::Unreachable));
            assert_eq!(survey.storm(&mut brake, &rule, secs(second)), None);
            before = Some(Connectivity::Unreachable);
        }
    }

    #[test]
    fn a_host_that_is_heard_after_its_silence_was_written_down_is_written_down_too() {
        let mut sight = Sight {
            connectivity: Connectivity::Connected,
            before: Some(Connectivity::Unreachable),
            written: Connectivity::Unreachable,
            planned: false,
            next: None,
        };
        assert_eq!(Survey::default().see(&sight), Some(Note::HeardAgain));
        sight.written = Connectivity::Connected;
        assert_eq!(Survey::default().see(&sight), None);
    }

    proptest! {
        /// Looking only when [`next_look`] says is as good as looking always.
        #[test]
        fn nothing_changes_between_looks(
            last in proptest::option::of(0u64..200),
            linked: bool,
            now in 200u64..400,
            later in 0u64..100,
        ) {
            let thresholds = LivenessThresholds::default();
            let before = if last.is_some() { Connectivity::Connected } else { Connectivity::Unconfirmed };
            let heard = heard(last, linked, before);
            let grace = secs(300);
            let look = next_look(heard, &thresholds, secs(now), grace);
            let then = secs(now + later);
            if look.is_none_or(|look| then < look) && (last.is_some() || then < grace || secs(now) >= grace) {
                prop_assert_eq!(
                    connectivity(heard, &thresholds, secs(now), grace),
                    connectivity(heard, &thresholds, then, grace),
                );
            }
        }
    }
}
