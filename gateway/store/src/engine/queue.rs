//! What waits for the writer.
//!
//! Bounded by bytes: a batch is let in when there is room for it, and whoever
//! brings one waits until then. A condition variable instead of a channel,
//! because the writer waits for batches *and* for the next lease to run out, and
//! takes all that waits in one go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::export::Export;
use crate::{Batch, CommitError, LeaseId, Rev, Unavailable};

/// Room for batches that wait, in KiB: 64 full batches, or thousands of usual
/// ones. On a slow disk this is what the process pays in memory.
const ROOM_KIB: usize = 64 * 1024;

/// A group ends after the batch that reaches this size, so that one transaction
/// stays short even when the queue is full.
const GROUP_BYTES: usize = 8 * 1024 * 1024;

pub(super) type Answer = oneshot::Sender<Result<Rev, CommitError>>;

pub(super) enum Job {
    Commit {
        batch: Batch,
        answer: Answer,
        _permit: OwnedSemaphorePermit,
    },
    /// Delete the keys of a lease that was dropped.
    EndLease(LeaseId),
    /// Begin to read everything.
    Export(oneshot::Sender<Result<Export, Unavailable>>),
}

pub(super) struct Queue {
    room: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    closed: AtomicBool,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    nudged: bool,
}

/// What the writer takes at once.
pub(super) struct Taken {
    pub(super) jobs: Vec<Job>,
    /// The queue is closed and empty.
    pub(super) over: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(ROOM_KIB)),
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            closed: AtomicBool::new(false),
        }
    }

    /// Waits until there is room for a batch of this size.
    pub(super) async fn reserve(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Unavailable> {
        let kib = u32::try_from(1 + bytes / 1024).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).acquire_many_owned(kib).await;
        permit.map_err(|_closed| Unavailable::Closed)
    }

    pub(super) fn push(&self, job: Job) -> Result<(), Unavailable> {
        let mut waiting = self.lock();
        // Under the lock: `close` is ordered against it, so what gets in is written.
        if self.is_closed() {
            return Err(Unavailable::Closed);
        }
        waiting.jobs.push_back(job);
        self.arrived.notify_one();
        Ok(())
    }

    /// Makes the writer look at the clock again.
    pub(super) fn nudge(&self) {
        self.lock().nudged = true;
        self.arrived.notify_one();
    }

    pub(super) fn close(&self) {
        let _waiting = self.lock();
        self.closed.store(true, Ordering::Release);
        self.room.close();
        self.arrived.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn len(&self) -> usize {
        self.lock().jobs.len()
    }

    /// Waits for jobs, a nudge, the deadline or the end; takes a group's worth.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Taken {
        let mut waiting = self.lock();
        while waiting.jobs.is_empty() && !waiting.nudged && !self.is_closed() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            waiting = match left {
                None => self
                    .arrived
                    .wait(waiting)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => break,
                Some(left) => {
                    let waited = self.arrived.wait_timeout(waiting, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        waiting.nudged = false;
        let mut jobs = Vec::new();
        let mut bytes = 0;
        while bytes < GROUP_BYTES
            && let Some(job) = waiting.jobs.pop_front()
        {
            if let Job::Commit { batch, .. } = &job {
                bytes += batch.bytes();
            }
            jobs.push(job);
        }
        let over = jobs.is_empty() && self.is_closed();
        Taken { jobs, over }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No code panics while it holds this lock half-changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
