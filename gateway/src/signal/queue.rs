//! Events that wait for notifiers, in the order in which they were committed.
//!
//! Keys sort by time, and a batch with an earlier time may be committed after one with a later:
//! a position among keys would skip it. Revisions are given in the order of commits, so the
//! place of an event is its revision, and within one batch its key.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use gateway_store::{Item, Key, Record};

use super::records::SignalRecordV1;

/// The place of an event: the revision it was committed at, and its key behind `signal/`.
pub type Place = (u64, String);

/// The queue, mirrored from the store.
#[derive(Debug, Default)]
pub struct Queue {
    events: BTreeMap<Place, Arc<SignalRecordV1>>,
    revisions: HashMap<String, u64>,
}

impl Queue {
    /// Puts one in, or takes one out. `id` is the key behind `signal/`.
    pub fn take_in(&mut self, id: &str, item: Option<&Item>) {
        if let Some(revision) = self.revisions.remove(id) {
            self.events.remove(&(revision, id.to_owned()));
        }
        let Some(item) = item else { return };
        match SignalRecordV1::decode(&item.value) {
            Ok(record) => {
                self.revisions.insert(id.to_owned(), item.rev.number());
                self.events
                    .insert((item.rev.number(), id.to_owned()), Arc::new(record));
            }
            Err(error) => {
                tracing::error!(signal.id = %id, error = %model::error_chain(&error), "an event cannot be read; notifiers do not hear of it");
            }
        }
    }

    /// Keys of all.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.revisions.keys().filter_map(|id| key_of(id))
    }

    /// What comes after a place, oldest first.
    pub fn after(&self, place: &Place) -> impl Iterator<Item = (&Place, &Arc<SignalRecordV1>)> {
        self.events
            .range((Bound::Excluded(place.clone()), Bound::Unbounded))
    }

    /// What lies up to a place, that included, oldest first.
    pub fn up_to(&self, place: &Place) -> impl Iterator<Item = &Place> {
        self.events
            .range((Bound::Unbounded, Bound::Included(place.clone())))
            .map(|(place, _)| place)
    }

    /// The place of the newest.
    pub fn last(&self) -> Option<&Place> {
        self.events.last_key_value().map(|(place, _)| place)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }
}

/// The key of the event with this id.
pub fn key_of(id: &str) -> Option<Key> {
    <SignalRecordV1 as Record>::key(&[id]).ok()
}
