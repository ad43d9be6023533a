//! Room for peers that have proven nothing yet: connections that ask for enrolment, and
//! WebSockets of the carrier in which no host has shown itself.
//!
//! Each costs memory and a deadline's time, and none of them has shown a secret. So there
//! are only so many at a time, in all and of one source; whoever proves something gives
//! its place back. A fleet that enrols from behind one address is through in
//! milliseconds a host, and its agents come again.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::rate::source_of;

/// Strangers at a time.
pub const ALL: usize = 1024;
/// Of these, from one source.
pub const PER_SOURCE: usize = 128;

/// See the module's head. Clones share the room.
#[derive(Clone, Debug)]
pub struct Strangers(Arc<Room>);

#[derive(Debug)]
struct Room {
    all: usize,
    per_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

impl Strangers {
    /// Room for `all`, of these `per_source` from one source.
    pub fn new(all: usize, per_source: usize) -> Self {
        Self(Arc::new(Room {
            all,
            per_source,
            taken: Mutex::default(),
        }))
    }

    /// A place for one more from `address`, until the result is dropped.
    pub fn seat(&self, address: IpAddr) -> Option<Place> {
        let source = source_of(address);
        let mut taken = self.0.taken();
        let own = taken.of.get(&source).copied().unwrap_or(0);
        if taken.all >= self.0.all || own >= self.0.per_source {
            return None;
        }
        taken.all += 1;
        taken.of.insert(source, own + 1);
        drop(taken);
        Some(Place {
            room: Arc::clone(&self.0),
            source,
        })
    }

    /// How many there are.
    pub fn seated(&self) -> usize {
        self.0.taken().all
    }
}

impl Default for Strangers {
    fn default() -> Self {
        Self::new(ALL, PER_SOURCE)
    }
}

impl Room {
    /// Only counting runs under this lock.
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stranger's place.
#[derive(Debug)]
pub struct Place {
    room: Arc<Room>,
    source: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.room.taken();
        taken.all -= 1;
        if let Some(own) = taken.of.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                taken.of.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abuse_19_strangers_have_so_much_room_in_all_and_each_source_its_share() {
        let strangers = Strangers::new(3, 2);
        let seat = |address: &str| strangers.seat(address.parse().unwrap());
        let first = seat("192.0.2.1").unwrap();
        let _second = seat("192.0.2.1").unwrap();
        assert!(seat("192.0.2.1").is_none(), "its share");
        let third = seat("2001:db8::1").unwrap();
        assert!(seat("192.0.2.9").is_none(), "all of it");
        drop(third);
        let _fourth = seat("192.0.2.9").unwrap();
        drop(first);
        assert_eq!(strangers.seated(), 2);
        assert!(seat("192.0.2.1").is_some());
        assert_eq!(strangers.seated(), 2, "a place is given back");
        assert_eq!(strangers.0.taken().of.len(), 2, "nothing is remembered");
    }
}
