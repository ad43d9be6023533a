//! What a session is asked by others, until it has time for it.
//!
//! Not a channel: the smallest one that tokio has takes 1.2 KiB, in every idle session, for
//! what is nearly always nothing. Two of the three requests are also the same however often
//! they are made, so that they are flags, and only who waits for a sign of life is counted.

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

/// Who waits for a sign of life at a time. A session that lets this many pile up is stuck, and
/// more of them would learn nothing new.
const PROBES: usize = 16;

/// What a session can be asked.
#[derive(Debug)]
pub enum ToSession {
    /// Something that concerns this host has changed: look again.
    Look,
    /// Ask the agent for a sign of life.
    Probe(oneshot::Sender<()>),
    /// End: another link of this host has taken over.
    TakenOver,
}

/// Requests to one session.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    taken_over: bool,
    look: bool,
    probes: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl Mailbox {
    /// Leaves a request. False when it will not be answered.
    pub(super) fn put(&self, request: ToSession) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        match request {
            ToSession::Look => waiting.look = true,
            ToSession::TakenOver => waiting.taken_over = true,
            ToSession::Probe(_) if waiting.probes.len() >= PROBES => return false,
            ToSession::Probe(reply) => waiting.probes.push(reply),
        }
        drop(waiting);
        // Kept for the session if it does not wait at this moment.
        self.arrived.notify_one();
        true
    }

    /// The next request. One reader at a time; may be cancelled, in a `select!` say, without
    /// losing any.
    pub(super) async fn next(&self) -> ToSession {
        loop {
            if let Some(request) = self.lock().take() {
                return request;
            }
            self.arrived.notified().await;
        }
    }

    /// Refuses everything from now on; who waits for a sign of life learns that there is none.
    pub(super) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.probes = Vec::new();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The end comes first: after it nothing else matters.
    fn take(&mut self) -> Option<ToSession> {
        if mem::take(&mut self.taken_over) {
            return Some(ToSession::TakenOver);
        }
        if let Some(reply) = self.probes.pop() {
            return Some(ToSession::Probe(reply));
        }
        mem::take(&mut self.look).then_some(ToSession::Look)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt as _;

    use super::*;

    fn name(request: Option<ToSession>) -> &'static str {
        match request {
            Some(ToSession::Look) => "look",
            Some(ToSession::Probe(_)) => "probe",
            Some(ToSession::TakenOver) => "taken over",
            None => "nothing",
        }
    }

    fn take(mailbox: &Mailbox) -> &'static str {
        name(mailbox.next().now_or_never())
    }

    #[test]
    fn looks_are_one_and_the_end_comes_first() {
        let mailbox = Mailbox::default();
        let (probe, _answer) = oneshot::channel();
        for request in [
            ToSession::Look,
            ToSession::Look,
            ToSession::Probe(probe),
            ToSession::TakenOver,
        ] {
            assert!(mailbox.put(request));
        }
        let taken: Vec<_> = (0..4).map(|_| take(&mailbox)).collect();
        assert_eq!(taken, ["taken over", "probe", "look", "nothing"]);
    }

    #[tokio::test]
    async fn who_waits_is_woken_and_a_cancelled_wait_loses_nothing() {
        let mailbox = Arc::new(Mailbox::default());
        assert_eq!(take(&mailbox), "nothing");
        let mut waiting = tokio::task::JoinSet::new();
        let theirs = Arc::clone(&mailbox);
        waiting.spawn(async move { name(Some(theirs.next().await)) });
        tokio::task::yield_now().await;
        assert!(mailbox.put(ToSession::Look));
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), "look");
    }

    #[test]
    fn a_closed_mailbox_refuses_and_lets_nobody_wait() {
        let mailbox = Mailbox::default();
        let (probe, mut answer) = oneshot::channel();
        assert!(mailbox.put(ToSession::Probe(probe)));
        mailbox.close();
        assert_eq!(answer.try_recv(), Err(oneshot::error::TryRecvError::Closed));
        assert!(!mailbox.put(ToSession::Look));
    }

    #[test]
    fn a_stuck_session_collects_no_probes_without_end() {
        let mailbox = Mailbox::default();
        let kept: Vec<_> = (0..PROBES + 4)
            .map(|_| {
                let (probe, answer) = oneshot::channel();
                (mailbox.put(ToSession::Probe(probe)), answer)
            })
            .collect();
        assert_eq!(kept.iter().filter(|(put, _)| *put).count(), PROBES);
    }
}
