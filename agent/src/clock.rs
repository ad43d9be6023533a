//! What time it is.
//!
//! Timers go by the boot clock: nobody can set it, and it counts through suspend.
//! Certificates are judged by the *best* time known, because a machine without a
//! battery starts in 1970 and would otherwise refuse every gateway for ever: what
//! the gateway said on an authenticated link, carried on by the boot clock; before
//! the first link of this process, the system's time but never less than the last
//! time on record or than when this program was written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent_core::{Mono, Now};
use link::verify::system_clock;
use model::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// No correct clock has shown less: 2026-11-01.
const WRITTEN: i64 = 1_793_491_200_000;

/// The clock. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<Known>>);

#[derive(Debug)]
struct Known {
    floor: Timestamp,
    /// The gateway's time, the boot clock's and the system's at that moment.
    sample: Option<Sample>,
}

/// One reading of the gateway's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What the gateway said.
    pub gateway: Timestamp,
    /// What the system's clock said then.
    pub system: Timestamp,
    at: Mono,
}

impl Sample {
    /// How far the system's clock is ahead, in milliseconds.
    pub fn skew_ms(&self) -> i64 {
        self.system
            .as_millis()
            .saturating_sub(self.gateway.as_millis())
    }
}

impl Clock {
    /// A clock that knows it is later than `last_known`.
    pub fn new(last_known: Timestamp) -> Self {
        let floor = last_known.max(Timestamp::from_millis(WRITTEN));
        Self(Arc::new(Mutex::new(Known {
            floor,
            sample: None,
        })))
    }

    /// Time since boot, suspend included.
    pub fn mono(&self) -> Mono {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
        let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
        Mono::from_origin(Duration::new(seconds, nanos))
    }

    /// The system's wall clock.
    pub fn system(&self) -> Timestamp {
        system_clock()()
    }

    /// The best guess of true time.
    pub fn best(&self) -> Timestamp {
        best(&self.known(), self.system(), self.mono())
    }

    /// For the core.
    pub fn now(&self) -> Now {
        Now {
            mono: self.mono(),
            wall: self.best(),
        }
    }

    /// Learns the gateway's time. Zero is a gateway that did not say.
    pub fn learn(&self, gateway_ms: i64) {
        if gateway_ms > 0 {
            let gateway = Timestamp::from_millis(gateway_ms);
            let sample = Sample {
                gateway,
                system: self.system(),
                at: self.mono(),
            };
            self.known().sample = Some(sample);
        }
    }

    /// The latest reading of the gateway's time.
    pub fn sample(&self) -> Option<Sample> {
        self.known().sample
    }

    /// For verifying certificates.
    pub fn for_verifier(&self) -> link::verify::Clock {
        let clock = self.clone();
        Arc::new(move || clock.best())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        // Every critical section is a plain assignment or copy.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn best(known: &Known, system: Timestamp, mono: Mono) -> Timestamp {
    match known.sample {
        Some(sample) => sample.gateway.saturating_add(mono.since(sample.at)),
        None => system.max(known.floor),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    #[test]
    fn a_clock_in_1970_is_not_believed_and_a_gateway_is() {
        let mono = Mono::from_origin(Duration::from_secs(100));
        let mut known = Known {
            floor: at(5_000),
            sample: None,
        };
        assert_eq!(best(&known, at(1_000), mono), at(5_000));
        assert_eq!(best(&known, at(9_000), mono), at(9_000));
        known.sample = Some(Sample {
            gateway: at(7_000),
            system: at(1_000),
            at: mono,
        });
        let later = mono.after(Duration::from_secs(3));
        assert_eq!(best(&known, at(999_999), later), at(10_000));
    }

    #[test]
    fn the_boot_clock_goes_on() {
        let clock = Clock::new(at(0));
        assert!(clock.mono() > Mono::default());
        assert!(clock.best() >= at(WRITTEN));
        clock.learn(0);
        assert_eq!(clock.sample(), None);
    }
}
