//! The one spawner.
//!
//! Every task has a name, an owner (this), and a way to stop: the stop token that
//! [`Tasks::stop`] hands out. The order of an end is: the token is cancelled, tasks
//! finish what they must, and those that have not when the time is up are dropped
//! and named.
//!
//! Policy for panics, and for tasks that end although they should not:
//! * any panic is caught, logged with the task's name and counted;
//! * an ordinary task's panic costs that task;
//! * a *critical* task ([`Tasks::spawn_critical`]) is one without which the gateway
//!   only pretends to work. When it panics or ends before the stop, the whole process
//!   stops in order and reports [`Failure`], so that its supervisor starts it afresh.
//!   Restarting a task inside a process whose state a panic may have bent is a gamble.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::Metrics;

/// The spawner. Clones share it.
#[derive(Clone, Debug)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tracker: TaskTracker,
    stop: CancellationToken,
    /// Cancelled when the time to stop in order is over.
    abandon: CancellationToken,
    metrics: Metrics,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<&'static str, usize>,
    failure: Option<Failure>,
}

/// A critical task ended before its time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It panicked.
    #[error("task {task} panicked: {message}")]
    Panicked {
        /// Its name.
        task: &'static str,
        /// What it said.
        message: String,
    },
    /// It found out that it cannot go on, and why.
    #[error("{why}")]
    Reported {
        /// Its name.
        task: &'static str,
        /// What a person should know and do.
        why: String,
    },
    /// It returned.
    #[error("task {task} ended by itself")]
    Ended {
        /// Its name.
        task: &'static str,
    },
}

/// Work on a blocking thread panicked; it has been logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} panicked")]
pub struct Panicked(pub &'static str);

impl Tasks {
    /// Counts panics in `metrics`.
    pub fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Inner {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            abandon: CancellationToken::new(),
            metrics,
            state: Mutex::default(),
        }))
    }

    /// Cancelled when everything is to stop. Cancel it to begin that.
    pub fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// Whether everything is stopping.
    pub fn stopping(&self) -> bool {
        self.0.stop.is_cancelled()
    }

    /// Runs `task` to its end. Dropping the handle does not stop it.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        let running = Running::new(self, name);
        // Each layer below would keep room for a copy of what it was given: boxed, a
        // task's size is its own, once.
        let task = Box::pin(task);
        self.0.tracker.spawn(async move {
            let _running = running;
            let _ = tasks.watch(name, task).await;
        })
    }

    /// Runs `task`, whose end before the stop stops everything.
    pub fn spawn_critical(
        &self,
        name: &'static str,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let tasks = self.clone();
        let running = Running::new(self, name);
        self.0.tracker.spawn(async move {
            let _running = running;
            let failure = match tasks.watch(name, task).await {
                Ok(()) if tasks.stopping() => return,
                Ok(()) => Failure::Ended { task: name },
                Err(message) => Failure::Panicked {
                    task: name,
                    message,
                },
            };
            tracing::error!(task = name, "stopping: a task that must not end has ended");
            tasks.fail(failure);
        })
    }

    /// Stops everything in order, for this reason unless there is an earlier one.
    pub fn fail(&self, failure: Failure) {
        self.state().failure.get_or_insert(failure);
        self.0.stop.cancel();
    }

    /// Runs `work` on a thread that may block and waits for it. Work that has begun
    /// goes on even when the waiting is given up.
    pub async fn blocking<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let caught = move || std::panic::catch_unwind(AssertUnwindSafe(work));
        match self.0.tracker.spawn_blocking(caught).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                self.report_panic(name, &*panic);
                Err(Panicked(name))
            }
            // Only a runtime that is going away cancels blocking work.
            Err(_) => Err(Panicked(name)),
        }
    }

    /// Logs and counts a panic that was caught elsewhere; returns its message.
    pub fn report_panic(&self, name: &'static str, panic: &(dyn Any + Send)) -> String {
        let message = panic_message(panic);
        self.0.metrics.panic(name);
        tracing::error!(task = name, panic = %message, "task panicked");
        message
    }

    /// Waits for the tasks after the stop token was cancelled, at most `limit`; what
    /// still runs then is dropped. Returns its names, none after an orderly end.
    pub async fn finish(&self, limit: Duration) -> Vec<&'static str> {
        self.0.stop.cancel();
        self.0.tracker.close();
        if tokio::time::timeout(limit, self.0.tracker.wait())
            .await
            .is_ok()
        {
            return Vec::new();
        }
        let late: Vec<_> = self.state().running.keys().copied().collect();
        tracing::warn!(tasks = ?late, "tasks did not stop in time and are dropped");
        self.0.abandon.cancel();
        // Blocking work cannot be dropped; it gets a moment and no more.
        let _ = tokio::time::timeout(Duration::from_secs(1), self.0.tracker.wait()).await;
        late
    }

    /// Why everything was stopped, if it was a critical task's fault.
    pub fn failure(&self) -> Option<Failure> {
        self.state().failure.clone()
    }

    /// How many tasks of `name` run.
    pub fn running(&self, name: &str) -> usize {
        self.state().running.get(name).copied().unwrap_or(0)
    }

    async fn watch(
        &self,
        name: &'static str,
        task: impl Future<Output = ()>,
    ) -> Result<(), String> {
        let task = AssertUnwindSafe(self.0.abandon.run_until_cancelled(task)).catch_unwind();
        match task.await {
            Ok(_ended_or_abandoned) => Ok(()),
            Err(panic) => Err(self.report_panic(name, &*panic)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// hyper runs the streams of an HTTP/2 connection as tasks.
#[derive(Clone, Debug)]
pub struct Named(pub Tasks, pub &'static str);

impl<F> hyper::rt::Executor<F> for Named
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(self.1, async move {
            task.await;
        });
    }
}

/// Counts a task as running, however it ends.
struct Running {
    tasks: Tasks,
    name: &'static str,
}

impl Running {
    fn new(tasks: &Tasks, name: &'static str) -> Self {
        *tasks.state().running.entry(name).or_default() += 1;
        Self {
            tasks: tasks.clone(),
            name,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut state = self.tasks.state();
        if let Some(count) = state.running.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                state.running.remove(self.name);
            }
        }
    }
}

/// What a panic said.
fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn tasks() -> (Tasks, Metrics) {
        let metrics = Metrics::new();
        (Tasks::new(metrics.clone()), metrics)
    }

    #[tokio::test]
    async fn a_panic_costs_its_task_and_is_counted() {
        let (tasks, metrics) = tasks();
        tasks
            .spawn("clumsy", async { panic!("dropped {}", "it") })
            .await
            .unwrap();
        assert!(
            metrics
                .encode()
                .contains("loopback_panics_total{task=\"clumsy\"} 1")
        );
        assert!(!tasks.stop().is_cancelled());
        assert_eq!(tasks.running("clumsy"), 0);
        assert_eq!(tasks.finish(LIMIT).await, Vec::<&str>::new());
        assert_eq!(tasks.failure(), None);
    }

    #[tokio::test]
    async fn a_critical_panic_stops_everything_with_its_reason() {
        let (tasks, _) = tasks();
        let stop = tasks.stop().clone();
        let other = tasks.spawn("other", async move { stop.cancelled().await });
        tasks.spawn_critical("heart", async { panic!("broke") });
        other.await.unwrap();
        assert_eq!(
            tasks.failure(),
            Some(Failure::Panicked {
                task: "heart",
                message: "broke".to_owned()
            })
        );
    }

    #[tokio::test]
    async fn a_critical_task_may_end_only_after_the_stop() {
        let (orderly, _) = tasks();
        let stop = orderly.stop().clone();
        orderly.spawn_critical("heart", async move { stop.cancelled().await });
        assert!(orderly.finish(LIMIT).await.is_empty());
        assert_eq!(orderly.failure(), None);

        let (early, _) = tasks();
        early.spawn_critical("heart", async {});
        early.stop().cancelled().await;
        assert_eq!(early.failure(), Some(Failure::Ended { task: "heart" }));
    }

    #[tokio::test]
    async fn tasks_that_do_not_stop_are_dropped_and_named() {
        let (tasks, _) = tasks();
        let stubborn = tasks.spawn("stubborn", std::future::pending());
        assert_eq!(tasks.finish(Duration::from_millis(1)).await, ["stubborn"]);
        stubborn.await.unwrap();
        assert_eq!(tasks.running("stubborn"), 0);
    }

    #[tokio::test]
    async fn blocking_work_returns_its_value_or_its_panic() {
        let (tasks, _) = tasks();
        assert_eq!(tasks.blocking("sum", || 1 + 1).await, Ok(2));
        assert_eq!(
            tasks
                .blocking("sum", || panic!("no"))
                .await
                .map(|(): ()| ()),
            Err(Panicked("sum"))
        );
    }
}
