//! Leases: keys that vanish together with whoever put them.
//!
//! A [`Lease`] lives as long as its holder renews it, and ends at once when it
//! is dropped. All keys put under it and not overwritten since are deleted in
//! one commit, whatever their number. On an embedded engine no lease outlives
//! the process; the keys of the last process are deleted when the file is opened.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Names a lease in batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub(crate) u64);

/// Why a lease was not renewed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the lease has ended")]
pub struct LeaseEnded;

/// What an engine gives a [`Lease`] to reach it by.
pub(crate) trait LeaseControl: Send + Sync {
    fn renew(&self, id: LeaseId) -> Result<(), LeaseEnded>;
    /// Must not block: it is called from `Drop`.
    fn end(&self, id: LeaseId);
}

/// A lease held. Dropping it ends it.
pub struct Lease {
    id: LeaseId,
    ttl: Duration,
    control: Arc<dyn LeaseControl>,
}

impl Lease {
    pub(crate) fn new(id: LeaseId, ttl: Duration, control: Arc<dyn LeaseControl>) -> Self {
        Self { id, ttl, control }
    }

    /// What to write into batches.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// How long it lasts from each renewal. Renew every third of it.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Starts the time anew; fails if it had run out.
    pub async fn renew(&self) -> Result<(), LeaseEnded> {
        // The embedded engines answer at once; a distributed one has to ask.
        std::future::ready(self.control.renew(self.id)).await
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.control.end(self.id);
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.id)
            .field("ttl", &self.ttl)
            .finish()
    }
}

/// The leases of one process and when each runs out.
#[derive(Debug, Default)]
pub(crate) struct LeaseTable(Mutex<Leases>);

#[derive(Debug, Default)]
struct Leases {
    last: u64,
    live: HashMap<LeaseId, Live>,
}

#[derive(Debug)]
struct Live {
    ttl: Duration,
    deadline: Instant,
}

impl LeaseTable {
    pub(crate) fn grant(&self, ttl: Duration, now: Instant) -> LeaseId {
        let mut leases = self.lock();
        leases.last += 1;
        let id = LeaseId(leases.last);
        leases.live.insert(
            id,
            Live {
                ttl,
                deadline: far(now, ttl),
            },
        );
        id
    }

    pub(crate) fn renew(&self, id: LeaseId, now: Instant) -> Result<(), LeaseEnded> {
        let mut leases = self.lock();
        let live = leases
            .live
            .get_mut(&id)
            .filter(|live| live.deadline > now)
            .ok_or(LeaseEnded)?;
        live.deadline = far(now, live.ttl);
        Ok(())
    }

    pub(crate) fn is_live(&self, id: LeaseId, now: Instant) -> bool {
        self.lock()
            .live
            .get(&id)
            .is_some_and(|live| live.deadline > now)
    }

    /// Forgets a lease; whether it was there.
    pub(crate) fn end(&self, id: LeaseId) -> bool {
        self.lock().live.remove(&id).is_some()
    }

    /// Forgets the leases that have run out and names them.
    pub(crate) fn take_expired(&self, now: Instant) -> Vec<LeaseId> {
        let mut leases = self.lock();
        let expired: Vec<_> = leases
            .live
            .iter()
            .filter(|(_, live)| live.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in &expired {
            leases.live.remove(id);
        }
        expired
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lock().live.values().map(|live| live.deadline).min()
    }

    fn lock(&self) -> MutexGuard<'_, Leases> {
        // No code panics while it holds this lock half-changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `now + ttl`, or a century for a time to live that cannot be added.
fn far(now: Instant, ttl: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now.checked_add(ttl).unwrap_or_else(|| now + CENTURY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_lasts_from_its_last_renewal_and_cannot_be_revived() {
        let table = LeaseTable::default();
        let start = Instant::now();
        let id = table.grant(2 * SECOND, start);
        assert_eq!(table.renew(id, start + SECOND), Ok(()));
        assert!(table.is_live(id, start + 2 * SECOND));
        assert_eq!(table.take_expired(start + 2 * SECOND), []);
        assert_eq!(table.renew(id, start + 3 * SECOND), Err(LeaseEnded));
        assert_eq!(table.take_expired(start + 3 * SECOND), [id]);
        assert_eq!(table.next_deadline(), None);
    }

    #[test]
    fn an_endless_time_to_live_does_not_overflow() {
        let table = LeaseTable::default();
        let id = table.grant(Duration::MAX, Instant::now());
        assert!(table.is_live(id, Instant::now() + SECOND));
    }
}
