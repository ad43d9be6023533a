//! Newcomers that wait until a handshake ends.
//!
//! Sources take turns: a site with thousands of hosts behind one address, or a machine that
//! begins handshakes and never finishes them, waits behind itself and not before others.
//! Within a source it is first come, first served. Who has waited for longer than its agent
//! has patience left is not worth a handshake any more.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many may wait, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimits {
    /// Of everybody.
    pub all: usize,
    /// Of one source.
    pub of_source: usize,
    /// A newcomer that has waited this long is forgotten.
    pub patience: Duration,
}

#[derive(Debug)]
pub(super) struct Queue<T> {
    limits: QueueLimits,
    length: usize,
    of: HashMap<IpAddr, VecDeque<(Instant, T)>>,
    /// Sources with somebody waiting, whose turn it is first.
    turns: VecDeque<IpAddr>,
}

/// What [`Queue::take`] found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T, C> {
    /// It has its place.
    Next(T, C),
    /// It has waited too long.
    Late(T),
    /// Nobody can be let in now.
    Nobody,
}

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Full {
    /// For anybody.
    All,
    /// For this source.
    Source,
}

impl<T> Queue<T> {
    pub(super) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            length: 0,
            of: HashMap::new(),
            turns: VecDeque::new(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Has `newcomer` wait, or gives it back when too many do.
    pub(super) fn push(&mut self, source: IpAddr, newcomer: T, now: Instant) -> Result<(), T> {
        if self.length >= self.limits.all {
            return Err(newcomer);
        }
        match self.of.entry(source) {
            Entry::Occupied(own) if own.get().len() >= self.limits.of_source => {
                return Err(newcomer);
            }
            Entry::Occupied(mut own) => own.get_mut().push_back((now, newcomer)),
            Entry::Vacant(own) => {
                own.insert(VecDeque::from([(now, newcomer)]));
                self.turns.push_back(source);
            }
        }
        self.length += 1;
        Ok(())
    }

    /// The next one for which `place` finds a place.
    pub(super) fn take<C>(
        &mut self,
        now: Instant,
        mut place: impl FnMut(IpAddr) -> Result<C, Full>,
    ) -> Taken<T, C> {
        for _ in 0..self.turns.len() {
            let Some(source) = self.turns.front().copied() else {
                break;
            };
            let waiting = self.of.get(&source).and_then(VecDeque::front);
            let late = waiting.is_some_and(|(since, _)| {
                now.saturating_duration_since(*since) >= self.limits.patience
            });
            if late {
                return match self.pop(source) {
                    Some(newcomer) => Taken::Late(newcomer),
                    None => Taken::Nobody,
                };
            }
            match place(source) {
                Ok(counted) => {
                    return match self.pop(source) {
                        Some(newcomer) => Taken::Next(newcomer, counted),
                        None => Taken::Nobody,
                    };
                }
                Err(Full::All) => return Taken::Nobody,
                Err(Full::Source) => self.turns.rotate_left(1),
            }
        }
        Taken::Nobody
    }

    /// The first of the source at the front, whose turn is over by that.
    fn pop(&mut self, source: IpAddr) -> Option<T> {
        self.turns.pop_front();
        let own = self.of.get_mut(&source)?;
        let (_, newcomer) = own.pop_front()?;
        self.length -= 1;
        if own.is_empty() {
            self.of.remove(&source);
        } else {
            self.turns.push_back(source);
        }
        Some(newcomer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: QueueLimits = QueueLimits {
        all: 5,
        of_source: 3,
        patience: Duration::from_secs(8),
    };
    const ANYBODY: fn(IpAddr) -> Result<(), Full> = |_| Ok(());

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn sources_take_turns_and_each_keeps_its_order() {
        let mut queue = Queue::new(LIMITS);
        let now = Instant::now();
        for (last, newcomer) in [(1, "a1"), (1, "a2"), (2, "b1"), (1, "a3"), (3, "c1")] {
            queue.push(address(last), newcomer, now).unwrap();
        }
        for expected in ["a1", "b1", "c1", "a2", "a3"] {
            assert_eq!(queue.take(now, ANYBODY), Taken::Next(expected, ()));
        }
        assert_eq!(queue.take(now, ANYBODY), Taken::Nobody);
        assert!(queue.is_empty() && queue.of.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn one_source_fills_its_share_and_everybody_the_whole() {
        let mut queue = Queue::new(LIMITS);
        let now = Instant::now();
        for newcomer in 0..3 {
            queue.push(address(1), newcomer, now).unwrap();
        }
        assert_eq!(queue.push(address(1), 3, now), Err(3));
        queue.push(address(2), 4, now).unwrap();
        queue.push(address(3), 5, now).unwrap();
        assert_eq!(queue.push(address(4), 6, now), Err(6));
    }

    #[test]
    fn a_source_without_a_place_is_passed_over_and_keeps_its_newcomers() {
        let mut queue = Queue::new(LIMITS);
        let now = Instant::now();
        queue.push(address(1), "stuck", now).unwrap();
        queue.push(address(2), "free", now).unwrap();
        let place = |source| (source != address(1)).then_some(()).ok_or(Full::Source);
        assert_eq!(queue.take(now, place), Taken::Next("free", ()));
        assert_eq!(queue.take(now, place), Taken::Nobody);
        assert_eq!(queue.take(now, |_| Err::<(), _>(Full::All)), Taken::Nobody);
        assert_eq!(queue.take(now, ANYBODY), Taken::Next("stuck", ()));
    }

    #[test]
    fn who_has_waited_too_long_is_given_back_as_late() {
        let mut queue = Queue::new(LIMITS);
        let now = Instant::now();
        queue.push(address(1), "early", now).unwrap();
        let later = now + LIMITS.patience;
        queue.push(address(1), "fresh", later).unwrap();
        assert_eq!(queue.take(later, ANYBODY), Taken::Late("early"));
        assert_eq!(queue.take(later, ANYBODY), Taken::Next("fresh", ()));
    }
}
