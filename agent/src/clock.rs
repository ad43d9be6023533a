//! What time it is.
//!
//! Timers go by the boot clock: nobody can set it, and it counts through suspend.
//! Certificates are judged by the *best* time known, because a machine without a
//! battery starts in 1970 and would otherwise refuse every gateway for ever. How is
//! said at [`WallClock`]; the time that has certainly passed is the last one on
//! record, or when this program was written.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use agent_core::time::Sample;
use agent_core::time::WallClock;
use agent_core::{Mono, Now};
use link::verify::system_clock;
use model::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// No correct clock has shown less: 2026-11-01.
const WRITTEN: i64 = 1_793_491_200_000;

/// The clock. Clones share what they learn.
#[derive(Clone, Debug)]
pub struct Clock(Arc<Mutex<WallClock>>);

impl Clock {
    /// A clock that knows it is later than `last_known`.
    pub fn new(last_known: Timestamp) -> Self {
        let floor = last_known.max(Timestamp::from_millis(WRITTEN));
        Self(Arc::new(Mutex::new(WallClock::new(floor))))
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
        self.known().best(self.system(), self.mono())
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
        let (system, mono) = (self.system(), self.mono());
        self.known().learn(gateway_ms, system, mono);
    }

    /// The latest reading of the gateway's time.
    pub fn sample(&self) -> Option<Sample> {
        self.known().sample()
    }

    /// For verifying certificates.
    pub fn for_verifier(&self) -> link::verify::Clock {
        let clock = self.clone();
        Arc::new(move || clock.best())
    }

    fn known(&self) -> std::sync::MutexGuard<'_, WallClock> {
        // Every critical section is a plain assignment or copy.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_goes_on() {
        let clock = Clock::new(Timestamp::default());
        assert!(clock.mono() > Mono::default());
        assert!(clock.best() >= Timestamp::from_millis(WRITTEN));
        clock.learn(0);
        assert_eq!(clock.sample(), None);
    }
}
