//! Time and chance, as arguments.
//!
//! Timers run on [`Mono`], which the edge takes from the kernel's boot clock: it does
//! not jump when somebody sets the time, and it goes on counting while the machine
//! is suspended. Wall time only judges certificates.

use std::time::Duration;

use model::Timestamp;

/// An instant on the monotonic clock: time since some fixed origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(Duration);

impl Mono {
    /// The instant `elapsed` after the clock's origin.
    pub fn from_origin(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// The instant `by` later.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }

    /// Time passed since `earlier`, zero when that lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// When an event happened.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For timers.
    pub mono: Mono,
    /// For certificates: the best guess of true time, never behind what the gateway
    /// last said.
    pub wall: Timestamp,
}

/// What is known of true time.
///
/// A machine without a battery starts in 1970 and would otherwise refuse every
/// gateway for ever. What the gateway said on an authenticated link, carried on by
/// the monotonic clock, is believed; before the first link of a process, the system's
/// time but never less than a time that has certainly passed.
///
/// A gateway whose own clock leaps contradicts what it said before. Of the two, what is
/// nearer to the system's time is believed: following it ten years ahead would have
/// this host renew its certificate there and refuse every gateway of the present.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    floor: Timestamp,
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

impl WallClock {
    /// A clock that knows it is later than `floor`.
    pub fn new(floor: Timestamp) -> Self {
        Self {
            floor,
            sample: None,
        }
    }

    /// The best guess of true time.
    pub fn best(&self, system: Timestamp, mono: Mono) -> Timestamp {
        match self.sample {
            Some(sample) => sample.gateway.saturating_add(mono.since(sample.at)),
            None => system.max(self.floor),
        }
    }

    /// Learns the gateway's time. Zero is a gateway that did not say.
    pub fn learn(&mut self, gateway_ms: i64, system: Timestamp, mono: Mono) {
        if gateway_ms <= 0 {
            return;
        }
        let gateway = Timestamp::from_millis(gateway_ms);
        if self.sample.is_some() {
            let expected = self.best(system, mono);
            let leapt = apart(gateway, expected) > LEAP;
            if leapt && apart(gateway, system) > apart(expected, system) {
                return;
            }
        }
        self.sample = Some(Sample {
            gateway,
            system,
            at: mono,
        });
    }

    /// The latest reading of the gateway's time.
    pub fn sample(&self) -> Option<Sample> {
        self.sample
    }
}

/// Clocks drift and are corrected by seconds; this is somebody's mistake.
const LEAP: Duration = Duration::from_secs(3600);

fn apart(one: Timestamp, other: Timestamp) -> Duration {
    one.since(other).max(other.since(one))
}

/// A small generator (splitmix64) that spreads one random seed over the few choices
/// an event may need. Jitter only: nothing secret comes from here.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice loaded with `seed`, fresh for every event.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any duration between the two, all alike, in whole milliseconds.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let width = high.saturating_sub(low).as_millis();
        let width = u64::try_from(width).unwrap_or(u64::MAX).saturating_add(1);
        let drawn = (u128::from(self.roll()) * u128::from(width)) >> 64;
        // Smaller than `width`, which fits.
        low + Duration::from_millis(u64::try_from(drawn).unwrap_or(0))
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
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
        let mut clock = WallClock::new(at(5_000));
        assert_eq!(clock.best(at(1_000), mono), at(5_000));
        assert_eq!(clock.best(at(9_000), mono), at(9_000));
        clock.learn(0, at(1_000), mono);
        assert_eq!(clock.sample(), None);
        clock.learn(7_000, at(1_000), mono);
        let later = mono.after(Duration::from_secs(3));
        assert_eq!(clock.best(at(999_999), later), at(10_000));
    }

    #[test]
    fn abuse_44_a_gateway_that_leaps_ten_years_is_not_followed_and_may_come_back() {
        const YEARS: i64 = 10 * 365 * 86_400_000;
        let now = 1_800_000_000_000;
        let mono = Mono::from_origin(Duration::from_secs(100));
        for system in [now, 0] {
            let mut clock = WallClock::new(at(0));
            clock.learn(now, at(system), mono);
            clock.learn(now + YEARS, at(system), mono);
            assert_eq!(clock.best(at(system), mono), at(now), "system at {system}");
            clock.learn(now + 60_000, at(system), mono);
            assert_eq!(clock.best(at(system), mono), at(now + 60_000), "no leap");

            // One that was wrong from the start is corrected.
            let mut clock = WallClock::new(at(0));
            clock.learn(now + YEARS, at(system), mono);
            clock.learn(now, at(system), mono);
            assert_eq!(clock.best(at(system), mono), at(now), "system at {system}");
        }
    }
}
