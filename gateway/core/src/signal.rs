//! Carrying events to a sink: in order, again after failures, never lost silently.
//!
//! Events wait in the store until every sink is past them. A sink is a position in that queue
//! and what is known of its failures. At each attempt it gets a batch from its position on; what
//! it answers *settles* a prefix of the batch: delivered, or given up and kept as a dead letter.
//! The first event that is to be tried again ends the prefix, so that no event overtakes another.
//!
//! ```text
//!            due(sink, now)                settle(outcomes)
//!  waiting ────────────────► delivering ──────────────────► waiting, further on
//!     ▲                                          │
//!     └───────── not before a growing pause ◄────┘ the first is to be tried again
//! ```
//!
//! What the plugin says of a failure decides: a request that makes no sense will make none
//! tomorrow, a server that is down comes back. Whatever fails for [`GIVE_UP`] long is given up,
//! so that one poisonous event cannot hold up all that follow for ever.

use std::time::Duration;

use model::Timestamp;

/// Events of one attempt, at most: what the contract promises to sinks.
pub const BATCH: usize = 100;

/// How long an event is tried. A weekend without the receiver loses nothing.
pub const GIVE_UP: Duration = Duration::from_secs(3 * 24 * 3600);

/// Pauses between attempts: the first, doubling up to the last. A receiver that was away for a
/// minute has what it missed within half a minute of its return.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(5 * 60);
/// While the failures are younger than this, pauses stay below [`SHORT_PAUSE`].
const SHORT_WHILE: Duration = Duration::from_secs(10 * 60);
const SHORT_PAUSE: Duration = Duration::from_secs(15);

/// What is known of a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sink {
    /// The number that its next event gets, from 1 on.
    pub next_sequence: u64,
    /// Failed attempts in a row.
    pub failures: u32,
    /// When the first of them was.
    pub failing_since: Option<Timestamp>,
    /// No attempt before this.
    pub not_before: Option<Timestamp>,
}

/// How it went for one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has it.
    Delivered,
    /// It never will.
    Hopeless {
        /// A stable word.
        code: String,
    },
    /// Not this time.
    Again {
        /// A stable word.
        code: String,
        /// Not before this much later.
        after: Option<Duration>,
    },
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// The sink has it.
    Delivered,
    /// Given up: a dead letter.
    Dead {
        /// Why.
        code: String,
    },
}

/// When the next attempt is due; nothing while nothing waits.
pub fn due(sink: &Sink, waiting: usize, now: Timestamp) -> Option<Timestamp> {
    (waiting > 0).then(|| sink.not_before.unwrap_or(now).max(now))
}

/// What an attempt with `count` events came to. `outcomes` may be fewer than there were events,
/// or more: what is missing is to be tried again, what is more is ignored. `jitter` is 0 to 1.
pub fn settle(
    sink: &Sink,
    count: usize,
    outcomes: impl IntoIterator<Item = Outcome>,
    now: Timestamp,
    jitter: f64,
) -> (Sink, Vec<Settled>) {
    let mut settled = Vec::new();
    let mut again = None;
    let long = sink
        .failing_since
        .is_some_and(|since| now.since(since) >= GIVE_UP);
    let mut outcomes = outcomes.into_iter();
    for number in 0..count {
        match outcomes.next() {
            Some(Outcome::Delivered) => settled.push(Settled::Delivered),
            Some(Outcome::Hopeless { code }) => settled.push(Settled::Dead { code }),
            // Only the oldest event has been tried for that long.
            Some(Outcome::Again { code, .. }) if long && number == 0 => {
                settled.push(Settled::Dead { code });
            }
            Some(Outcome::Again { after, .. }) => {
                again = Some(after);
                break;
            }
            None => {
                again = Some(None);
                break;
            }
        }
    }
    let next_sequence = sink.next_sequence.max(1) + settled.len() as u64;
    let Some(asked) = again else {
        let sink = Sink {
            next_sequence,
            ..Sink::default()
        };
        return (sink, settled);
    };
    // Progress is no failure in a row, and the pause begins anew.
    let (failures, since) = if settled.is_empty() {
        (sink.failures.saturating_add(1), sink.failing_since)
    } else {
        (1, None)
    };
    let since = since.unwrap_or(now);
    let pause = pause(failures, now.since(since), jitter).max(asked.unwrap_or_default());
    let sink = Sink {
        next_sequence,
        failures,
        failing_since: Some(since),
        not_before: Some(now.saturating_add(pause.min(LAST_PAUSE))),
    };
    (sink, settled)
}

fn pause(failures: u32, failing: Duration, jitter: f64) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16));
    let most = if failing < SHORT_WHILE {
        SHORT_PAUSE
    } else {
        LAST_PAUSE
    };
    // Between half of it and all of it: sinks that failed together come back apart.
    doubled
        .min(most)
        .mul_f64(0.5 + 0.5 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn again() -> Outcome {
        Outcome::Again {
            code: "down".into(),
            after: None,
        }
    }

    fn hopeless() -> Outcome {
        Outcome::Hopeless { code: "bad".into() }
    }

    #[test]
    fn what_follows_a_failure_waits() {
        let outcomes = [Outcome::Delivered, hopeless(), again(), Outcome::Delivered];
        let (sink, settled) = settle(&Sink::default(), 4, outcomes, at(0), 1.0);
        let dead = Settled::Dead { code: "bad".into() };
        assert_eq!(settled, [Settled::Delivered, dead]);
        assert_eq!(sink.next_sequence, 3);
        assert_eq!(due(&sink, 2, at(0)), Some(at(1)));
    }

    #[test]
    fn a_sink_that_is_away_for_a_minute_is_asked_soon_after_its_return() {
        let mut sink = Sink::default();
        let mut now = at(0);
        while now < at(60) {
            (sink, _) = settle(&sink, 1, [again()], now, 1.0);
            now = due(&sink, 1, now).expect("something waits");
        }
        assert!(now <= at(75), "{now:?}");
        let (sink, settled) = settle(&sink, 1, [Outcome::Delivered], now, 1.0);
        assert_eq!(settled, [Settled::Delivered]);
        assert_eq!(
            sink,
            Sink {
                next_sequence: 2,
                ..Sink::default()
            }
        );
    }

    #[test]
    fn an_event_is_given_up_after_days_and_those_behind_it_are_tried() {
        let sink = Sink {
            next_sequence: 7,
            failures: 900,
            failing_since: Some(at(0)),
            not_before: None,
        };
        let late = at(0).saturating_add(GIVE_UP);
        let (sink, settled) = settle(&sink, 3, [again(), Outcome::Delivered, again()], late, 0.0);
        assert_eq!(settled.len(), 2);
        assert_eq!(settled[1], Settled::Delivered);
        assert_eq!((sink.next_sequence, sink.failures), (9, 1));
    }

    #[test]
    fn a_receiver_may_ask_for_a_longer_pause_within_reason() {
        let wait = |secs| Outcome::Again {
            code: "throttled".into(),
            after: Some(Duration::from_secs(secs)),
        };
        let (sink, _) = settle(&Sink::default(), 1, [wait(90)], at(0), 0.0);
        assert_eq!(sink.not_before, Some(at(90)));
        let (sink, _) = settle(&Sink::default(), 1, [wait(1 << 40)], at(0), 0.0);
        assert_eq!(sink.not_before, Some(at(300)));
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            3 => Just(Outcome::Delivered),
            1 => Just(hopeless()),
            2 => Just(again()),
        ]
    }

    proptest! {
        /// Whatever sinks answer, each event is settled once, in order, and numbered without gaps.
        #[test]
        fn every_event_is_settled_once_and_in_order(
            total in 1_usize..40,
            attempts in prop::collection::vec(prop::collection::vec(any_outcome(), 0..8), 1..60),
            jitter in 0.0_f64..1.0,
        ) {
            let mut sink = Sink::default();
            let mut done = 0_usize;
            let mut now = at(0);
            for outcomes in attempts {
                let waiting = total - done;
                let Some(next) = due(&sink, waiting, now) else { break };
                prop_assert!(next >= now && next.since(now) <= LAST_PAUSE);
                now = next;
                let count = waiting.min(5);
                let (after, settled) = settle(&sink, count, outcomes, now, jitter);
                prop_assert!(settled.len() <= count);
                prop_assert_eq!(after.next_sequence, sink.next_sequence.max(1) + settled.len() as u64);
                done += settled.len();
                sink = after;
            }
            prop_assert!(done <= total);
        }
    }
}
