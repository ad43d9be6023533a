//! Notices that this very process did not run.
//!
//! A stopped process (SIGSTOP, a frozen virtual machine, a debugger, a machine that
//! swaps itself to death) wakes up and finds that everybody has been silent. That
//! silence is its own. So the gateway takes its pulse twice a second, by the
//! monotonic clock, and before it judges anybody's silence: a pulse that is late by
//! seconds is a pause, and the pause is not held against hosts.
//!
//! ```text
//!  pulse ─ 0.5 s ─ pulse ───────── nothing ───────── pulse     now: a pause
//!                    └────────────────────────────────┘
//!                        hosts' silence does not count
//! ```
//!
//! Short pauses leave the agents' links alive, and silence goes on counting where it
//! stood. After a long one agents have given up and come back one by one as after a
//! restart, so they get the grace period that a restart gives them.

use std::time::Duration;

/// How often the pulse is taken.
pub const BEAT: Duration = Duration::from_millis(500);

/// A pulse this late is a pause. A busy machine delays a task by tens of
/// milliseconds; the shortest silence that counts is 500 ms.
pub const LATE: Duration = Duration::from_secs(2);

/// Pauses shorter than this leave links alive. An agent ends its link 45 seconds
/// after the last packet, and asks for one every 15.
pub const LINKS_SURVIVE: Duration = Duration::from_secs(30);

/// When this process last knew that it runs. Times are since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pulse {
    last: Duration,
    paused: Duration,
}

impl Pulse {
    /// The first one, at `now`.
    pub fn beginning(now: Duration) -> Self {
        Self {
            last: now,
            paused: Duration::ZERO,
        }
    }

    /// Takes the pulse at `now`; the pause that lies behind, if there was one.
    pub fn take(&mut self, now: Duration) -> Option<Duration> {
        let gap = now.saturating_sub(self.last);
        self.last = self.last.max(now);
        let pause = gap.checked_sub(BEAT).filter(|late| *late >= LATE)?;
        self.paused += pause;
        Some(pause)
    }

    /// All pauses together.
    pub fn paused(&self) -> Duration {
        self.paused
    }
}

/// From when on the silence of a host counts that was last heard at `last`, after a
/// `pause` that ended at `now`.
pub fn excuse(last: Duration, pause: Duration, now: Duration, grace: Duration) -> Duration {
    if pause < LINKS_SURVIVE {
        // Heard during the very first moments after the pause: no excuse needed.
        last.saturating_add(pause).min(now.max(last))
    } else {
        now.saturating_add(grace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::liveness::{Heard, connectivity};
    use model::host::Connectivity;
    use model::tenancy::LivenessThresholds;
    use proptest::prelude::*;

    const GRACE: Duration = Duration::from_secs(60);

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn a_busy_machine_is_no_pause_and_a_stopped_process_is() {
        let mut pulse = Pulse::default();
        assert_eq!(pulse.take(BEAT), None);
        assert_eq!(pulse.take(BEAT + secs(2)), None, "late, but not by much");
        assert_eq!(pulse.take(secs(30) + secs(2) + BEAT), Some(secs(30) - BEAT));
        assert_eq!(pulse.take(secs(33)), None, "one pause is told once");
        assert_eq!(pulse.paused(), secs(30) - BEAT);
    }

    fn judged(last: Duration, linked: bool, now: Duration) -> Connectivity {
        let heard = Heard {
            last: Some(last),
            linked,
            before: Connectivity::Connected,
        };
        connectivity(heard, &LivenessThresholds::default(), now, GRACE)
    }

    #[test]
    fn abuse_45_a_stopped_gateway_does_not_call_its_hosts_unreachable() {
        for pause in [25, 30, 300] {
            let now = secs(100 + pause);
            assert_eq!(
                judged(secs(99), true, now),
                match pause {
                    25 => Connectivity::Late,
                    _ => Connectivity::Unreachable,
                }
            );
            let last = excuse(secs(99), secs(pause), now, GRACE);
            assert_eq!(judged(last, true, now), Connectivity::Connected);
            assert_ne!(
                judged(last, false, now + secs(20)),
                Connectivity::Unreachable
            );
        }
        // One that stays away is found missing all the same.
        let last = excuse(secs(99), secs(300), secs(400), GRACE);
        let much_later = secs(400) + GRACE + secs(28);
        assert_eq!(judged(last, false, much_later), Connectivity::Unreachable);
    }

    proptest! {
        #[test]
        fn an_excuse_never_makes_silence_longer(
            last in 0u64..1000, pause in 2u64..1000, more in 0u64..1000
        ) {
            let now = secs(last + pause + more);
            let excused = excuse(secs(last), secs(pause), now, GRACE);
            prop_assert!(excused >= secs(last));
            prop_assert!(excused <= now + GRACE);
        }
    }
}
