//! What followers of a workspace are told.
//!
//! One ring of recent events for all workspaces, numbered. A follower holds the
//! number it has seen and asks for what came after; nothing is pushed at it, so a
//! slow one costs nothing and learns that it has missed something by asking for a
//! number that has left the ring. Numbers of different lives of a gateway cannot
//! be mistaken: an event's id begins with the life's own random epoch.
//!
//! That a host changed is kept as its id alone, and the host is put together for
//! whoever asks: with its facts it takes some 2 KB, and a mass reconnect that nobody
//! watches would make several of them for each host and keep them all.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use api::v1::event::WorkspaceEvent;
use model::ids::{HostId, WorkspaceId};
use tokio::sync::watch;

/// Events kept: a minute of a busy deployment, so that a follower that reconnects
/// soon goes on where it was.
const KEPT: usize = 16_384;

/// One event.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its number.
    pub seq: u64,
    /// Whose.
    pub workspace: WorkspaceId,
    /// What.
    pub news: News,
}

/// What followers are told.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// This host is not what it was: look at it.
    HostChanged(HostId),
    /// Something that happened once.
    Happened(Arc<WorkspaceEvent>),
}

/// The ring.
#[derive(Debug)]
pub struct EventHub {
    epoch: u64,
    ring: Mutex<VecDeque<Told>>,
    newest: watch::Sender<u64>,
}

impl EventHub {
    /// Empty. `epoch` names this life of the gateway.
    pub fn new(epoch: u64) -> Self {
        Self {
            epoch,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
        }
    }

    /// Tells everybody who follows `workspace`.
    pub fn tell(&self, workspace: WorkspaceId, event: WorkspaceEvent) {
        self.push(workspace, News::Happened(Arc::new(event)));
    }

    /// Tells everybody who follows `workspace` that a host has changed.
    pub fn tell_changed(&self, workspace: WorkspaceId, host: HostId) {
        self.push(workspace, News::HostChanged(host));
    }

    fn push(&self, workspace: WorkspaceId, news: News) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let seq = ring.back().map_or(*self.newest.borrow(), |last| last.seq) + 1;
        ring.push_back(Told {
            seq,
            workspace,
            news,
        });
        if ring.len() > KEPT {
            ring.pop_front();
        }
        // Inside the lock, so that numbers are announced in order.
        self.newest.send_replace(seq);
    }

    /// The number of the newest event.
    pub fn newest(&self) -> u64 {
        *self.newest.borrow()
    }

    /// Moves with every event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// What followed `after` in `workspace`, and the number to ask with next; or
    /// nothing when some of it is no longer kept.
    pub fn since(
        &self,
        workspace: WorkspaceId,
        after: u64,
        most: usize,
    ) -> Option<(Vec<Told>, u64)> {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.front().map_or(self.newest() + 1, |told| told.seq);
        if after + 1 < oldest || after > self.newest() {
            return None;
        }
        let skip = usize::try_from(after + 1 - oldest).unwrap_or(usize::MAX);
        let mut told = Vec::new();
        let mut upto = self.newest().max(after);
        for item in ring.iter().skip(skip) {
            if item.workspace == workspace {
                if told.len() == most {
                    upto = item.seq - 1;
                    break;
                }
                told.push(item.clone());
            }
        }
        Some((told, upto))
    }

    /// The id of an event, for `Last-Event-ID`.
    pub fn id(&self, seq: u64) -> String {
        format!("{:016x}-{seq}", self.epoch)
    }

    /// The number in an id of this life.
    pub fn seq_of(&self, id: &str) -> Option<u64> {
        let (epoch, seq) = id.split_once('-')?;
        (u64::from_str_radix(epoch, 16).ok()? == self.epoch).then_some(())?;
        seq.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Timestamp;

    fn workspace(n: u8) -> WorkspaceId {
        WorkspaceId::new(Timestamp::from_millis(1), [n; 10])
    }

    fn event(hosts: u64) -> WorkspaceEvent {
        WorkspaceEvent::SnapshotEnd { hosts }
    }

    fn happened(hosts: u64) -> News {
        News::Happened(Arc::new(event(hosts)))
    }

    #[test]
    fn a_follower_gets_its_own_events_once_and_in_order() {
        let hub = EventHub::new(7);
        let mut at = hub.newest();
        hub.tell(workspace(1), event(1));
        hub.tell(workspace(2), event(2));
        hub.tell(workspace(1), event(3));
        let (first, next) = hub.since(workspace(1), at, 1).unwrap();
        assert_eq!(first[0].news, happened(1));
        at = next;
        let (rest, next) = hub.since(workspace(1), at, 10).unwrap();
        assert_eq!(rest[0].news, happened(3));
        assert_eq!(hub.since(workspace(1), next, 10).unwrap().0.len(), 0);
    }

    #[test]
    fn what_has_left_the_ring_is_told_apart_from_nothing_new() {
        let hub = EventHub::new(7);
        for n in 0..KEPT as u64 + 10 {
            hub.tell(workspace(1), event(n));
        }
        assert!(hub.since(workspace(1), 5, 10).is_none());
        assert!(hub.since(workspace(1), 10, 10).is_some());
        assert!(hub.since(workspace(1), hub.newest() + 1, 10).is_none());
    }

    #[test]
    fn ids_of_another_life_are_not_understood() {
        let hub = EventHub::new(7);
        assert_eq!(hub.seq_of(&hub.id(42)), Some(42));
        assert_eq!(EventHub::new(8).seq_of(&hub.id(42)), None);
        assert_eq!(hub.seq_of("x"), None);
    }
}
