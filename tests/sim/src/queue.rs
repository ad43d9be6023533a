//! What happens next: events by time, and at one time in the order of their making.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Milliseconds since the world began.
pub(crate) type Ms = u64;
/// A second.
pub(crate) const SECOND: Ms = 1000;
/// A minute.
pub(crate) const MINUTE: Ms = 60 * SECOND;
/// An hour.
pub(crate) const HOUR: Ms = 60 * MINUTE;

/// The queue. The heap holds small keys; events lie still in a slab.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(Ms, u64, u32)>>,
    slab: Vec<Option<E>>,
    free: Vec<u32>,
    sequence: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self {
            heap: BinaryHeap::new(),
            slab: Vec::new(),
            free: Vec::new(),
            sequence: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Puts an event in.
    pub(crate) fn push(&mut self, at: Ms, event: E) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.slab.push(None);
            u32::try_from(self.slab.len() - 1).unwrap_or(u32::MAX)
        });
        self.slab[place as usize] = Some(event);
        self.heap.push(Reverse((at, self.sequence, place)));
        self.sequence += 1;
    }

    /// Takes the next event out, if it is due by `until`.
    pub(crate) fn pop(&mut self, until: Ms) -> Option<(Ms, E)> {
        let Reverse((at, _, _)) = self.heap.peek()?;
        if *at > until {
            return None;
        }
        let Reverse((at, _, place)) = self.heap.pop()?;
        self.free.push(place);
        self.slab[place as usize].take().map(|event| (at, event))
    }
}
