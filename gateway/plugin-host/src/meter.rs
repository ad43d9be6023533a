//! How long a call computes.
//!
//! Epochs count time that passes, not time that is used: a plugin that waits for a server, or
//! whose machine is busy with others, would be stopped for it. So each poll of a call's future is
//! measured by the thread's own clock, and at each epoch the sum decides. At each epoch a call also
//! gives way to others: a spinning plugin does not hold a thread of the gateway for its whole time,
//! and the limit by the wall clock gets a chance to see that it has passed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Time computed by one call.
#[derive(Clone, Default)]
pub(crate) struct Meter(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// In polls that have ended, in nanoseconds.
    used: AtomicU64,
    /// The thread's clock when the present poll began.
    began: AtomicU64,
}

impl Meter {
    /// What was computed so far. Only right on the thread of the present poll, and between polls.
    pub(crate) fn used(&self) -> Duration {
        let began = self.0.began.load(Ordering::Relaxed);
        let now = if began == 0 {
            0
        } else {
            thread_clock().saturating_sub(began)
        };
        Duration::from_nanos(self.0.used.load(Ordering::Relaxed) + now)
    }

    /// A future whose polls are measured.
    pub(crate) fn measure<F: Future>(&self, inner: F) -> Measured<F> {
        Measured {
            inner: Box::pin(inner),
            meter: self.clone(),
        }
    }
}

/// See [`Meter::measure`].
pub(crate) struct Measured<F> {
    inner: Pin<Box<F>>,
    meter: Meter,
}

impl<F: Future> Future for Measured<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let began = thread_clock();
        let meter = Arc::clone(&self.meter.0);
        meter.began.store(began, Ordering::Relaxed);
        let polled = self.inner.as_mut().poll(cx);
        meter.began.store(0, Ordering::Relaxed);
        let took = thread_clock().saturating_sub(began);
        meter.used.fetch_add(took, Ordering::Relaxed);
        polled
    }
}

fn thread_clock() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let secs = u64::try_from(time.tv_sec).unwrap_or(0);
    // Never 0, which stands for "not in a poll".
    secs * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0) + 1
}
