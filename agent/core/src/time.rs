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
