//! When to ask again, and how often an endpoint may be asked to do something.

use std::time::Duration;

use model::Timestamp;

/// The first look comes this long after; each next one half as long again later.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Looks are never further apart.
const LAST_LOOK: Duration = Duration::from_secs(15);
/// What a provider may ask for.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// After a failure, doubled with each.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// Retries are never further apart.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// What somebody may ask to be left alone for.
const REST: Duration = Duration::from_secs(3600);

/// How long until the next look, after so many; spread by up to a quarter, so that what was begun
/// together is not looked at together.
pub fn look_after(looks: u32, asked: Option<Duration>, roll: u32) -> Duration {
    let usual = FIRST_LOOK.mul_f64(1.5_f64.powi(i32::try_from(looks.min(16)).unwrap_or(16)));
    let wait = match asked {
        Some(asked) if !asked.is_zero() => asked.clamp(POLL.0, POLL.1),
        _ => usual.min(LAST_LOOK),
    };
    spread(wait, roll)
}

/// How long until the next attempt, after so many failures.
pub fn back_off(failures: u32, asked: Option<Duration>, roll: u32) -> Duration {
    let usual = FIRST_RETRY
        .saturating_mul(1 << failures.min(6))
        .min(LAST_RETRY);
    spread(
        asked.map_or(usual, |asked| asked.min(REST)).max(POLL.0),
        roll,
    )
}

fn spread(wait: Duration, roll: u32) -> Duration {
    wait + wait.mul_f64(f64::from(roll) / f64::from(u32::MAX) / 4.0)
}

/// Submissions to one endpoint: so many at once after a rest, then one each `interval`.
#[derive(Clone, Debug)]
pub struct Bucket {
    burst: u32,
    interval: Duration,
    /// When the bucket is full again.
    full_at: Timestamp,
}

impl Bucket {
    /// A full one.
    pub fn new(burst: u32, interval: Duration) -> Self {
        Self {
            burst: burst.max(1),
            interval,
            full_at: Timestamp::from_millis(0),
        }
    }

    /// When the next submission may be; past, if it may be now.
    pub fn next_at(&self) -> Timestamp {
        self.full_at
            .saturating_sub(self.interval.saturating_mul(self.burst - 1))
    }

    /// Whether it has rested long enough to be like new.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now
    }

    /// Takes one.
    pub fn take(&mut self, now: Timestamp) {
        self.full_at = self.full_at.max(now).saturating_add(self.interval);
    }
}
