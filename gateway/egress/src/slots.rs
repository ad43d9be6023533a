//! How many requests may be at one server at a time.
//!
//! A server that takes a connection and then says nothing would hold as many requests as there
//! are calls. Those for it wait here, each until its own deadline, and those for others pass.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::target::Host;

type Key = (Host, u16);

/// Slots for each server.
pub(crate) struct Slots {
    each: usize,
    servers: Mutex<HashMap<Key, Arc<Semaphore>>>,
}

/// A request's place at a server.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    key: Key,
    permit: Option<OwnedSemaphorePermit>,
}

impl Slots {
    pub(crate) fn new(each: usize) -> Arc<Self> {
        Arc::new(Self {
            each,
            servers: Mutex::default(),
        })
    }

    /// Waits for a place. Whoever must not wait for ever drops the future.
    pub(crate) async fn take(self: &Arc<Self>, host: &Host, port: u16) -> Slot {
        let key = (host.clone(), port);
        let semaphore = {
            let mut servers = self.lock();
            Arc::clone(
                servers
                    .entry(key.clone())
                    .or_insert_with(|| Arc::new(Semaphore::new(self.each))),
            )
        };
        // Made before waiting: a waiter that gives up tidies as well.
        let mut slot = Slot {
            slots: Arc::clone(self),
            key,
            permit: None,
        };
        // A semaphore that is never closed always gives in the end.
        slot.permit = semaphore.acquire_owned().await.ok();
        slot
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Arc<Semaphore>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // Under the lock: nobody takes a semaphore out of the map between the look and the removal.
        // Permits hold a reference, and so do waiters, so one reference means nobody is there.
        let mut servers = self.slots.lock();
        drop(self.permit.take());
        if servers
            .get(&self.key)
            .is_some_and(|semaphore| Arc::strong_count(semaphore) == 1)
        {
            servers.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_server_is_full_and_another_is_not_and_nothing_stays() {
        let slots = Slots::new(1);
        let (a, b) = (Host::Name("a".into()), Host::Name("b".into()));
        let first = slots.take(&a, 443).await;
        let other = slots.take(&b, 443).await;
        let mut second = Box::pin(slots.take(&a, 443));
        assert!(
            tokio::time::timeout(std::time::Duration::from_millis(20), &mut second)
                .await
                .is_err()
        );
        drop(first);
        let second = second.await;
        drop((other, second));
        assert_eq!(slots.len(), 0);
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing() {
        let slots = Slots::new(1);
        let a = Host::Name("a".into());
        let first = slots.take(&a, 443).await;
        let wait = slots.take(&a, 443);
        let _ = tokio::time::timeout(std::time::Duration::from_millis(20), wait).await;
        drop(first);
        assert_eq!(slots.len(), 0);
    }
}
