//! What calls of a plugin came to, as plain numbers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::reason::{CODES, Reason};

/// See the module's head.
#[derive(Default)]
pub(crate) struct Counters {
    answered: AtomicU64,
    failed: [AtomicU64; CODES.len()],
    running: AtomicU64,
    cpu_ns: AtomicU64,
    wall_ns: AtomicU64,
    within: [AtomicU64; WITHIN.len()],
}

/// Times that calls are counted by.
pub const WITHIN: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(1000),
];

/// What calls of a plugin came to, since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that answered.
    pub answered: u64,
    /// Calls that did not, by the code of the reason; those that there were.
    pub failed: Vec<(&'static str, u64)>,
    /// Calls going on.
    pub running: u64,
    /// What all calls computed.
    pub cpu: Duration,
    /// What all calls took.
    pub wall: Duration,
    /// Calls that answered within each of [`WITHIN`]; each holds those before it.
    pub within: [u64; WITHIN.len()],
    /// Lines of the log that were dropped.
    pub lines_dropped: u64,
}

impl Counters {
    /// A call begins; it ends with what is returned.
    pub(crate) fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::Relaxed);
        Running {
            counters: self,
            told: false,
        }
    }

    pub(crate) fn computed(&self, cpu: Duration) {
        let ns = u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX);
        self.cpu_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self, lines_dropped: u64) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            answered: read(&self.answered),
            failed: CODES
                .iter()
                .zip(&self.failed)
                .map(|(code, count)| (*code, read(count)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            running: read(&self.running),
            cpu: Duration::from_nanos(read(&self.cpu_ns)),
            wall: Duration::from_nanos(read(&self.wall_ns)),
            within: std::array::from_fn(|place| read(&self.within[place])),
            lines_dropped,
        }
    }
}

/// A call that is going on. Dropped without a word, it counts as cancelled: its caller went away.
pub(crate) struct Running<'a> {
    counters: &'a Counters,
    told: bool,
}

impl Running<'_> {
    pub(crate) fn end(mut self, reason: Option<&Reason>, took: Duration) {
        let counter = match reason {
            None => &self.counters.answered,
            Some(reason) => &self.counters.failed[reason.index()],
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if reason.is_none() {
            let kept = WITHIN.iter().zip(&self.counters.within);
            for (_, count) in kept.filter(|(bound, _)| took <= **bound) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.counters.wall_ns.fetch_add(ns, Ordering::Relaxed);
        self.told = true;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.counters.running.fetch_sub(1, Ordering::Relaxed);
        if !self.told {
            self.counters.failed[Reason::Cancelled.index()].fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_goes_away_is_counted_as_cancelled() {
        let counters = Counters::default();
        drop(counters.begin());
        let running = counters.begin();
        assert_eq!(counters.counts(0).running, 1);
        running.end(Some(&Reason::Stack), Duration::from_secs(1));
        counters.begin().end(None, Duration::ZERO);
        let counts = counters.counts(7);
        assert_eq!(counts.failed, [("stack", 1), ("cancelled", 1)]);
        assert_eq!((counts.answered, counts.running), (1, 0));
        assert_eq!(counts.within, [1; WITHIN.len()]);
        assert_eq!(counts.lines_dropped, 7);
    }
}
