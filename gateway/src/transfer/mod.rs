//! Files on their way between an HTTP request and a host.
//!
//! ```text
//! client ◄── HTTP body ──► task ◄── QUIC stream ──► host
//! ```
//!
//! Nothing is stored here. A piece leaves when the next one may come, so that the slower
//! side sets the pace: what is in memory is a few pieces and the windows of the stream.
//! What an upload has come to is on its host ([`protocol::v1::FileHeld`]); a gateway that
//! is started again has lost nothing but the streams.
//!
//! A host is believed about its own files and about nothing else. Its text is cleaned, its
//! sizes are held against what it announced, and one that talks nonsense, goes on for ever
//! or falls silent ends its stream ([`stream`]).

pub mod download;
pub mod stream;
pub mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::ids::HostId;

/// For either side to take or bring a piece. A person's line may hang for a while; an
/// agent says every few seconds that it is at work.
pub const STALLED: Duration = Duration::from_secs(60);

/// Files of one host at a time: fewer than it takes itself, so that there is room for the
/// streams of a gateway that it has not noticed to be gone.
const PER_HOST: usize = 4;

/// Files under way.
#[derive(Debug, Default)]
pub struct Transfers(Mutex<HashMap<HostId, usize>>);

/// A file under way, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    transfers: Arc<Transfers>,
    host: HostId,
}

impl Transfers {
    /// Room for one more, if there is.
    pub fn take(self: &Arc<Self>, host: HostId) -> Option<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(host).or_default();
        if *count >= PER_HOST {
            return None;
        }
        *count += 1;
        Some(Seat {
            transfers: Arc::clone(self),
            host,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self
            .transfers
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.host);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_room_for_some_and_gets_it_back() {
        let transfers = Arc::new(Transfers::default());
        let host = |number| HostId::new(model::Timestamp::from_millis(1), [number; 10]);
        let mut seats: Vec<_> = (0..PER_HOST).map(|_| transfers.take(host(1))).collect();
        assert!(seats.iter().all(Option::is_some));
        assert!(transfers.take(host(1)).is_none());
        assert!(transfers.take(host(2)).is_some());
        seats.pop();
        assert!(transfers.take(host(1)).is_some());
        seats.clear();
        assert!(transfers.0.lock().unwrap().is_empty());
    }
}
