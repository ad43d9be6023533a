//! Limits on how often somebody may do something, per source or per key.
//!
//! A token bucket in its leanest form (GCRA): the only state of a key is one moment,
//! *when its bucket is full again*. A key whose moment has passed has a full bucket,
//! which is the same as never having been seen; so forgetting it costs nothing, and
//! that is how memory stays bounded. Should every remembered key be owing when room
//! is needed, the ones that owe least are forgotten: an attacker who forges sources
//! can win back what the least active ones have spent, never push out the account of
//! the busiest.
//!
//! The core is pure: ([`Quota`], moment, now) decides. [`Limits`] keeps the moments
//! behind a lock that is held for one look-up. Moments are durations since some fixed
//! start on the monotonic clock.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use ::link::accept::source_of;

/// How much is allowed: `burst` at once, and in the long run one per `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    burst: u32,
    interval: Duration,
}

impl Quota {
    /// `count` per `period`, all of them at once if need be. A count of zero allows
    /// nothing for a period after the first.
    pub fn per(count: u32, period: Duration) -> Self {
        let burst = count.max(1);
        Self {
            burst,
            interval: (period / burst).max(Duration::from_nanos(1)),
        }
    }

    /// One per `interval` in the long run, with room for `burst` at once.
    pub const fn every(interval: Duration, burst: u32) -> Self {
        Self { burst, interval }
    }

    /// The same long-run rate with room for `burst` at once.
    pub fn with_burst(self, burst: u32) -> Self {
        Self {
            burst: burst.max(1),
            ..self
        }
    }

    /// Decides about one more at `now`, for a bucket that is full again at `full_at`.
    /// Allowed: the new moment. Refused: how long until it would be allowed.
    pub fn take(self, full_at: Option<Duration>, now: Duration) -> Result<Duration, Duration> {
        let from = full_at.map_or(now, |at| at.max(now));
        let next = from.saturating_add(self.interval);
        let owed = next.saturating_sub(now);
        let wait = owed.saturating_sub(self.interval.saturating_mul(self.burst));
        if wait.is_zero() { Ok(next) } else { Err(wait) }
    }
}

/// The buckets of many keys under one quota.
#[derive(Debug)]
pub struct Limits<K> {
    quota: Quota,
    capacity: usize,
    bucket_of: fn(&K) -> K,
    full_at: Mutex<HashMap<K, Duration>>,
}

impl<K: Eq + Hash + Clone> Limits<K> {
    /// One bucket per key. Remembers at most `capacity` keys.
    pub fn new(quota: Quota, capacity: usize) -> Self {
        Self {
            quota,
            capacity: capacity.max(1),
            bucket_of: K::clone,
            full_at: Mutex::default(),
        }
    }

    /// Takes one from the bucket of `key`. Refused: how long to wait.
    pub fn take(&self, key: &K, now: Duration) -> Result<(), Duration> {
        let key = (self.bucket_of)(key);
        let mut full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = full_at.get_mut(&key) {
            *at = self.quota.take(Some(*at), now)?;
            return Ok(());
        }
        if full_at.len() >= self.capacity {
            make_room(&mut full_at, self.capacity, now);
        }
        full_at.insert(key, self.quota.take(None, now)?);
        Ok(())
    }

    /// Whether [`take`](Self::take) would succeed, without taking: for limits on
    /// failures, asked before the attempt and charged after it failed.
    pub fn check(&self, key: &K, now: Duration) -> Result<(), Duration> {
        let key = (self.bucket_of)(key);
        let full_at = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        self.quota.take(full_at.get(&key).copied(), now).map(drop)
    }

    /// How long until `key` may again, if it may not.
    pub fn exhausted(&self, key: &K, now: Duration) -> Option<Duration> {
        self.check(key, now).err()
    }

    /// How many keys are remembered.
    pub fn remembered(&self) -> usize {
        self.full_at
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }
}

impl Limits<IpAddr> {
    /// One bucket per [`source_of`] an address.
    pub fn by_source(quota: Quota, capacity: usize) -> Self {
        Self {
            bucket_of: |address| source_of(*address),
            ..Self::new(quota, capacity)
        }
    }
}

/// Frees at least an eighth, so that the walk over all keys is paid for by many
/// insertions.
fn make_room<K: Eq + Hash>(full_at: &mut HashMap<K, Duration>, capacity: usize, now: Duration) {
    full_at.retain(|_, at| *at > now);
    let keep = capacity - capacity.div_ceil(8);
    let Some(surplus) = full_at
        .len()
        .checked_sub(keep)
        .filter(|surplus| *surplus > 0)
    else {
        return;
    };
    let mut moments: Vec<Duration> = full_at.values().copied().collect();
    let (_, threshold, _) = moments.select_nth_unstable(surplus - 1);
    let threshold = *threshold;
    let mut left = surplus;
    full_at.retain(|_, at| {
        let forget = left > 0 && *at <= threshold;
        left -= usize::from(forget);
        !forget
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_burst_passes_and_then_one_per_interval() {
        let start = Duration::from_secs(1000);
        let limiter = Limits::new(Quota::per(6, MINUTE), 10);
        for _ in 0..6 {
            assert_eq!(limiter.take(&"a", start), Ok(()));
        }
        assert_eq!(limiter.take(&"a", start), Err(Duration::from_secs(10)));
        assert_eq!(limiter.take(&"b", start), Ok(()), "others are not affected");
        let later = start + Duration::from_secs(10);
        assert_eq!(limiter.take(&"a", later), Ok(()), "as announced");
        assert!(limiter.take(&"a", later).is_err());
    }

    #[test]
    fn checking_costs_nothing() {
        let now = Duration::from_secs(1000);
        let limiter = Limits::new(Quota::per(1, MINUTE), 10);
        assert_eq!(limiter.check(&1, now), Ok(()));
        assert_eq!(limiter.check(&1, now), Ok(()));
        assert_eq!(limiter.remembered(), 0);
        assert_eq!(limiter.take(&1, now), Ok(()));
        assert_eq!(limiter.check(&1, now), Err(MINUTE));
    }

    #[test]
    fn abuse_14_a_flood_of_keys_neither_grows_memory_nor_frees_the_busiest() {
        let now = Duration::from_secs(1000);
        let limiter = Limits::new(Quota::per(10, MINUTE), 64);
        while limiter.take(&u32::MAX, now).is_ok() {}
        for key in 0..10_000 {
            assert_eq!(limiter.take(&key, now), Ok(()));
            assert!(limiter.remembered() <= 64);
        }
        assert!(limiter.take(&u32::MAX, now).is_err());
    }

    #[test]
    fn full_buckets_are_forgotten_first() {
        let now = Duration::from_secs(1000);
        let limiter = Limits::new(Quota::per(10, MINUTE), 4);
        for key in 0..4 {
            limiter.take(&key, now).unwrap();
        }
        limiter.take(&4, now + MINUTE).unwrap();
        assert_eq!(limiter.remembered(), 1);
    }

    #[test]
    fn abuse_14_neighbours_in_one_ipv6_network_share_a_bucket() {
        let source = |text: &str| source_of(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        let limiter = Limits::by_source(Quota::per(1, MINUTE), 9);
        let now = Duration::ZERO;
        assert_eq!(limiter.take(&"2001:db8::1".parse().unwrap(), now), Ok(()));
        assert!(limiter.take(&"2001:db8::2".parse().unwrap(), now).is_err());
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate_allow(
            burst in 1u32..20,
            steps in proptest::collection::vec(0u64..5_000, 1..200),
        ) {
            let quota = Quota::per(1, Duration::from_secs(1)).with_burst(burst);
            let start = Duration::from_secs(1000);
            let (mut full_at, mut now, mut allowed) = (None, start, 0u64);
            for step in steps {
                now += Duration::from_millis(step);
                match quota.take(full_at, now) {
                    Ok(at) => { full_at = Some(at); allowed += 1; }
                    Err(wait) => {
                        prop_assert!(quota.take(full_at, now + wait).is_ok());
                    }
                }
            }
            prop_assert!(allowed <= u64::from(burst) + (now - start).as_secs());
        }
    }
}
