//! How many connections each source holds.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Counts connections by source. Bounded by the number of open connections.
pub(super) struct Sources {
    limit: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// One connection, counted until it is dropped.
pub(super) struct SourceGuard(Option<(Arc<Sources>, IpAddr)>);

impl Sources {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            open: Mutex::default(),
        })
    }

    /// Counts a connection from `source`, unless it has too many; without a source it
    /// is exempt.
    pub(super) fn enter(self: &Arc<Self>, source: Option<IpAddr>) -> Option<SourceGuard> {
        let Some(source) = source else {
            return Some(SourceGuard(None));
        };
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(source).or_default();
        if *count >= self.limit {
            return None;
        }
        *count += 1;
        Some(SourceGuard(Some((Arc::clone(self), source))))
    }
}

impl Drop for SourceGuard {
    fn drop(&mut self) {
        let Some((sources, source)) = &self.0 else {
            return;
        };
        let mut open = sources.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(source) {
            *count -= 1;
            if *count == 0 {
                open.remove(source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_has_its_own_limit_and_gets_it_back() {
        let sources = Sources::new(2);
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Some(text.parse().unwrap()));
        let first = sources.enter(one).unwrap();
        let _second = sources.enter(one).unwrap();
        assert!(sources.enter(one).is_none());
        assert!(sources.enter(other).is_some());
        drop(first);
        assert!(sources.enter(one).is_some());
        for _ in 0..9 {
            assert!(sources.enter(None).is_some());
        }
        assert_eq!(
            sources.open.lock().unwrap().len(),
            1,
            "who is gone is forgotten"
        );
    }
}
