//! Who holds a connection when there are more peers than room.
//!
//! A connection costs a peer nothing, so room alone protects nobody: whoever opens enough of them
//! and says nothing has all of it. Deadlines only make the attacker come again. While there is
//! room, all sit. When there is none, a newcomer takes a seat by what the others have shown:
//!
//! * *proven*: it carried a valid key ([`Standing::prove`]). Never sent away;
//! * *asking*: it has no key and a request in progress, an installer's download for one;
//! * *silent*: neither.
//!
//! A source at its limit pays with its own oldest silent connection. In a full house the source
//! with the most unproven connections pays: with its oldest silent one, or, when it only has asking
//! ones, with the oldest of those if it still keeps as many as the newcomer's source then has. So
//! equals never throw each other out in turns, and downloads come to their end; a source with few
//! connections is not made to pay for one with many; and a caller, who needs a few round trips from
//! its first packet to a valid key, is shut out only by a flood from so many sources that it turns
//! over the whole house within that time.
//!
//! When nobody can be sent away, newcomers wait in the kernel's queue ([`Seats::wait`]), which is
//! bounded too.
//!
//! Connections of trusted proxies have no source here: a proxy multiplexes many people, and what
//! it lets through is its operator's business. They take seats and are never sent away.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Seats for connections, all doors together.
pub(super) struct Seats {
    total: usize,
    per_source: usize,
    state: Mutex<State>,
    /// Rings when somebody may be seated who could not be before.
    freed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    taken: usize,
    next: u64,
    /// Connections of each source, those that were upgraded included.
    open: HashMap<IpAddr, usize>,
    silent: Crowds,
    /// The silent and the asking.
    unproven: Crowds,
}

/// Connections that may be sent away, by source.
#[derive(Default)]
struct Crowds {
    /// Oldest first; no source with none.
    members: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    sizes: BTreeSet<(usize, IpAddr)>,
}

/// A seat among all, given back when it is dropped.
pub(super) struct Seat(Arc<Place>);

/// A connection counted for its source, until it is dropped. It outlives its [`Seat`] when the
/// connection becomes something else than HTTP.
pub(super) struct Counted(Arc<Place>);

/// What a request knows of the connection it came over.
#[derive(Clone)]
pub struct Standing(Arc<Place>);

/// A request in progress, until it is dropped.
pub(super) struct Asking(Arc<Place>);

struct Place {
    seats: Arc<Seats>,
    source: Option<IpAddr>,
    number: u64,
    /// In progress; changed under the lock of the state alone.
    requests: AtomicUsize,
    /// Cancelled when the seat was given to somebody else, and only then.
    away: CancellationToken,
}

impl Seats {
    pub(super) fn new(total: usize, per_source: usize) -> Arc<Self> {
        Arc::new(Self {
            total: total.max(1),
            per_source: per_source.max(1),
            state: Mutex::default(),
            freed: watch::Sender::new(()),
        })
    }

    /// Returns once some newcomer could be seated.
    pub(super) async fn wait(&self) {
        let mut freed = self.freed.subscribe();
        while self.state().taken >= self.total && self.state().crowd_to_thin(0).is_none() {
            // The sender lives in `self`.
            let _ = freed.changed().await;
        }
    }

    /// Seats a newcomer; without a source it is exempt from the limit of one. Nothing when nobody
    /// may be sent away for it.
    pub(super) fn take(self: &Arc<Self>, source: Option<IpAddr>) -> Option<(Seat, Counted)> {
        let mut state = self.state();
        if let Some(source) = source
            && state
                .open
                .get(&source)
                .is_some_and(|open| *open >= self.per_source)
        {
            let oldest = state.silent.oldest(source)?;
            state.send_away(source, oldest);
        }
        if state.taken >= self.total {
            let own = source.map_or(0, |source| state.unproven.size(source));
            let crowd = state.crowd_to_thin(own)?;
            let silent = state.silent.oldest(crowd);
            let oldest = silent.or_else(|| state.unproven.oldest(crowd))?;
            state.send_away(crowd, oldest);
        }
        let number = state.next;
        state.next += 1;
        state.taken += 1;
        let away = CancellationToken::new();
        if let Some(source) = source {
            *state.open.entry(source).or_default() += 1;
            state.silent.insert(source, number, away.clone());
            state.unproven.insert(source, number, away.clone());
        }
        drop(state);
        let place = Arc::new(Place {
            seats: Arc::clone(self),
            source,
            number,
            requests: AtomicUsize::new(0),
            away,
        });
        Some((Seat(Arc::clone(&place)), Counted(place)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Who makes room for a newcomer whose source has `own` unproven connections.
    fn crowd_to_thin(&self, own: usize) -> Option<IpAddr> {
        let (size, source) = self.unproven.largest()?;
        if size > own + 1 || self.silent.size(source) > 0 {
            return Some(source);
        }
        self.silent.largest().map(|(_, source)| source)
    }

    fn send_away(&mut self, source: IpAddr, number: u64) {
        if let Some(away) = self.settle(source, number) {
            away.cancel();
            self.taken -= 1;
            self.leave(source);
        }
    }

    /// Nobody may send this connection away any more.
    fn settle(&mut self, source: IpAddr, number: u64) -> Option<CancellationToken> {
        self.silent.remove(source, number);
        self.unproven.remove(source, number)
    }

    fn leave(&mut self, source: IpAddr) {
        if let Some(open) = self.open.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&source);
            }
        }
    }
}

impl Crowds {
    fn size(&self, source: IpAddr) -> usize {
        self.members.get(&source).map_or(0, BTreeMap::len)
    }

    fn largest(&self) -> Option<(usize, IpAddr)> {
        self.sizes.last().copied()
    }

    fn insert(&mut self, source: IpAddr, number: u64, connection: CancellationToken) {
        self.edit(source, |members| members.insert(number, connection));
    }

    fn remove(&mut self, source: IpAddr, number: u64) -> Option<CancellationToken> {
        self.edit(source, |members| members.remove(&number))
    }

    fn oldest(&self, source: IpAddr) -> Option<u64> {
        let (number, _) = self.members.get(&source)?.first_key_value()?;
        Some(*number)
    }

    fn find(&self, source: IpAddr, number: u64) -> Option<&CancellationToken> {
        self.members.get(&source)?.get(&number)
    }

    /// Changes what `source` has, and its place by size.
    fn edit<T>(
        &mut self,
        source: IpAddr,
        change: impl FnOnce(&mut BTreeMap<u64, CancellationToken>) -> T,
    ) -> T {
        let members = self.members.entry(source).or_default();
        let before = members.len();
        let result = change(members);
        let after = members.len();
        self.sizes.remove(&(before, source));
        if after == 0 {
            self.members.remove(&source);
        } else {
            self.sizes.insert((after, source));
        }
        result
    }
}

impl Seat {
    /// For the requests of this connection.
    pub(super) fn standing(&self) -> Standing {
        Standing(Arc::clone(&self.0))
    }

    /// Returns when the seat was given to somebody else.
    pub(super) async fn lost(&self) {
        self.0.away.cancelled().await;
    }
}

impl Standing {
    /// The connection carried a valid key: it is not sent away for a newcomer.
    pub fn prove(&self) {
        self.0.settle();
    }

    /// A request begins.
    pub(super) fn ask(&self) -> Asking {
        let place = &self.0;
        let mut state = place.seats.state();
        place.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(source) = place.source {
            state.silent.remove(source, place.number);
        }
        drop(state);
        Asking(Arc::clone(place))
    }
}

impl Place {
    /// Nobody may send this connection away any more.
    fn settle(&self) {
        if let Some(source) = self.source {
            self.seats.state().settle(source, self.number);
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let place = &self.0;
        let mut state = place.seats.state();
        let others = place.requests.fetch_sub(1, Ordering::Relaxed) - 1;
        if others == 0
            && let Some(source) = place.source
            && let Some(connection) = state.unproven.find(source, place.number).cloned()
        {
            state.silent.insert(source, place.number, connection);
            drop(state);
            place.seats.freed.send_replace(());
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let place = &self.0;
        // Upgraded or ended: either way there is no seat to take from it.
        place.settle();
        let mut state = place.seats.state();
        if !place.away.is_cancelled() {
            state.taken -= 1;
        }
        drop(state);
        place.seats.freed.send_replace(());
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let place = &self.0;
        let mut state = place.seats.state();
        if let Some(source) = place.source
            && !place.away.is_cancelled()
        {
            state.leave(source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn address(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, last]))
    }

    fn is_lost(seat: &(Seat, Counted)) -> bool {
        seat.0.0.away.is_cancelled()
    }

    #[test]
    fn abuse_17_19_a_source_at_its_limit_pays_with_its_own_oldest_silent_connection() {
        let seats = Seats::new(100, 2);
        let first = seats.take(address(1)).unwrap();
        let second = seats.take(address(1)).unwrap();
        let other = seats.take(address(2)).unwrap();
        let third = seats.take(address(1)).unwrap();
        assert!(is_lost(&first) && !is_lost(&second) && !is_lost(&other));
        second.0.standing().prove();
        third.0.standing().prove();
        assert!(seats.take(address(1)).is_none(), "both are in use");
        drop(third);
        assert!(seats.take(address(1)).is_some());
    }

    #[test]
    fn abuse_17_19_a_full_house_makes_room_at_the_cost_of_the_largest_crowd() {
        let seats = Seats::new(4, 100);
        let small = seats.take(address(1)).unwrap();
        let crowd: Vec<_> = (0..3).map(|_| seats.take(address(2)).unwrap()).collect();
        crowd[0].0.standing().prove();
        let newcomer = seats.take(address(3)).unwrap();
        assert!(!is_lost(&small) && !is_lost(&crowd[0]) && !is_lost(&newcomer));
        assert!(is_lost(&crowd[1]) && !is_lost(&crowd[2]));
    }

    #[tokio::test]
    async fn when_all_have_proven_themselves_newcomers_wait() {
        let seats = Seats::new(1, 1);
        let only = seats.take(address(1)).unwrap();
        seats.wait().await;
        only.0.standing().prove();
        assert!(seats.take(address(2)).is_none());
        let waiting = seats.wait();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(only);
        waiting.await;
        assert!(seats.take(address(2)).is_some());
    }

    #[test]
    fn abuse_17_19_downloads_in_progress_come_to_their_end() {
        let seats = Seats::new(100, 2);
        let downloads: Vec<_> = (0..2).map(|_| seats.take(address(1)).unwrap()).collect();
        let asking: Vec<_> = downloads
            .iter()
            .map(|seat| seat.0.standing().ask())
            .collect();
        assert!(
            seats.take(address(1)).is_none(),
            "nobody of its own is silent"
        );
        assert!(!downloads.iter().any(is_lost));
        drop(asking);
        assert!(seats.take(address(1)).is_some());
        assert!(is_lost(&downloads[0]) && !is_lost(&downloads[1]));
    }

    #[test]
    fn abuse_17_19_readers_that_dawdle_share_a_full_house_with_the_others() {
        let seats = Seats::new(4, 100);
        let crowd: Vec<_> = (0..4).map(|_| seats.take(address(1)).unwrap()).collect();
        let _dawdling: Vec<_> = crowd.iter().map(|seat| seat.0.standing().ask()).collect();
        let newcomers: Vec<_> = (0..2).map(|_| seats.take(address(2)).unwrap()).collect();
        let _busy: Vec<_> = newcomers
            .iter()
            .map(|seat| seat.0.standing().ask())
            .collect();
        assert_eq!(crowd.iter().filter(|seat| is_lost(seat)).count(), 2);
        assert!(
            is_lost(&crowd[0]) && is_lost(&crowd[1]),
            "the oldest of them"
        );
        for equal in [1, 2] {
            assert!(seats.take(address(equal)).is_none(), "two and two is fair");
        }
        assert!(seats.take(address(3)).is_some(), "but it has none yet");
    }

    #[tokio::test]
    async fn newcomers_wait_until_somebody_falls_silent() {
        let seats = Seats::new(1, 1);
        let only = seats.take(address(1)).unwrap();
        let asking = only.0.standing().ask();
        let waiting = seats.wait();
        tokio::pin!(waiting);
        assert!(futures_util::poll!(&mut waiting).is_pending());
        drop(asking);
        waiting.await;
        assert!(seats.take(address(2)).is_some());
        assert!(is_lost(&only));
    }

    #[test]
    fn proxies_take_seats_and_lose_none() {
        let seats = Seats::new(2, 1);
        let held: Vec<_> = (0..2).map(|_| seats.take(None).unwrap()).collect();
        assert!(seats.take(None).is_none());
        assert!(held.iter().all(|seat| !is_lost(seat)));
    }

    #[test]
    fn an_upgraded_connection_counts_for_its_source_alone() {
        let seats = Seats::new(1, 1);
        let (seat, counted) = seats.take(address(1)).unwrap();
        drop(seat);
        assert!(seats.take(address(1)).is_none());
        assert!(seats.take(address(2)).is_some());
        drop(counted);
        assert!(seats.take(address(1)).is_some());
    }

    /// A connection of the property test.
    struct Held {
        who: u8,
        seat: Option<Seat>,
        counted: Counted,
        standing: Standing,
        asking: Vec<Asking>,
    }

    impl Held {
        fn is_there(&self) -> bool {
            !self.counted.0.away.is_cancelled()
        }
    }

    proptest! {
        /// Whatever comes, asks, proves itself and goes: the counts are those of who is there,
        /// limits hold, who is proven stays, and in the end nothing is remembered.
        #[test]
        fn counts_stay_true(steps in proptest::collection::vec((0u8..7, 0u8..4, 0usize..8), 1..200)) {
            let seats = Seats::new(6, 3);
            let mut held: Vec<Held> = Vec::new();
            let mut proven: BTreeSet<u64> = BTreeSet::new();
            for (what, who, which) in steps {
                match what {
                    0 | 1 => {
                        if let Some((seat, counted)) = seats.take(address(who)) {
                            let standing = seat.standing();
                            held.push(Held { who, seat: Some(seat), counted, standing, asking: Vec::new() });
                        }
                    }
                    _ if which >= held.len() => {}
                    2 => drop(held.swap_remove(which)),
                    3 => {
                        held[which].standing.prove();
                        if held[which].is_there() {
                            proven.insert(held[which].counted.0.number);
                        }
                    }
                    4 => held[which].seat = None,
                    5 => {
                        let asking = held[which].standing.ask();
                        held[which].asking.push(asking);
                    }
                    _ => drop(held[which].asking.pop()),
                }
                let state = seats.state();
                let there = || held.iter().filter(|one| one.is_there());
                prop_assert_eq!(state.taken, there().filter(|one| one.seat.is_some()).count());
                prop_assert!(state.taken <= 6);
                for who in 0..4 {
                    let source = address(who).unwrap();
                    let open = there().filter(|one| one.who == who).count();
                    prop_assert_eq!(state.open.get(&source).copied().unwrap_or(0), open);
                    prop_assert!(open <= 3);
                    let unproven = || there()
                        .filter(|one| one.who == who && one.seat.is_some())
                        .filter(|one| !proven.contains(&one.counted.0.number));
                    let silent = unproven().filter(|one| one.asking.is_empty());
                    prop_assert_eq!(state.silent.size(source), silent.count());
                    prop_assert_eq!(state.unproven.size(source), unproven().count());
                }
                for one in &held {
                    prop_assert!(one.is_there() || !proven.contains(&one.counted.0.number));
                }
            }
            drop(held);
            let state = seats.state();
            let left = (state.taken, state.open.len(), state.silent.members.len(), state.unproven.sizes.len());
            prop_assert_eq!(left, (0, 0, 0, 0));
        }
    }
}
