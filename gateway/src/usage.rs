//! When API keys were last used. A write per request would make every read a
//! write: uses are collected here and written down once a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use model::Timestamp;
use model::ids::ApiKeyId;

/// Uses since they were last written down.
#[derive(Debug, Default)]
pub struct KeyUses(Mutex<HashMap<ApiKeyId, Timestamp>>);

impl KeyUses {
    /// Notes a use.
    pub fn note(&self, key: ApiKeyId, now: Timestamp) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, now);
    }

    /// Hands over what has been noted.
    pub fn take(&self) -> HashMap<ApiKeyId, Timestamp> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest use of a key that is not written down yet.
    pub fn pending(&self, key: ApiKeyId) -> Option<Timestamp> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
            .copied()
    }
}
