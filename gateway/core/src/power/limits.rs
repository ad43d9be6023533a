//! How many hosts are interrupted in a minute: of a workspace, and of those that share a label's
//! value.
//!
//! Whatever asks for it, whoever it is: a script with a wrong selector, and a hundred people that
//! do not know of each other. Turning on is not limited, so that repairs never wait. An operation
//! takes a slot before it looks at its host, and another one when it was refused and tries again:
//! see [`super::operation::Operation::wants_slot`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::Timestamp;
use model::ids::WorkspaceId;

/// What limits are about.
pub const WINDOW: Duration = Duration::from_secs(60);

/// What interruptions are counted under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counted {
    /// All of a workspace.
    Workspace(WorkspaceId),
    /// Those of a workspace's hosts with this label and value.
    Label(WorkspaceId, String, String),
}

/// How many there may be in a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of what.
    pub counted: Counted,
    /// So many.
    pub most: u32,
}

/// Slots that were taken in the last minute, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Recent(BTreeMap<Counted, VecDeque<Timestamp>>);

impl Recent {
    /// When one more may be; `now`, if it may be at once.
    pub fn next_at(&self, limits: &[Limit], now: Timestamp) -> Timestamp {
        let each = limits.iter().filter_map(|limit| {
            let times = self.0.get(&limit.counted)?;
            let most = usize::try_from(limit.most).unwrap_or(usize::MAX);
            // As soon as the one that makes it too many is a minute old.
            let frees = times.len().checked_sub(most)?;
            Some(times.get(frees)?.saturating_add(WINDOW))
        });
        each.fold(now, Timestamp::max)
    }

    /// One is taken.
    pub fn count(&mut self, limits: &[Limit], at: Timestamp) {
        for limit in limits {
            let times = self.0.entry(limit.counted.clone()).or_default();
            times.push_back(at);
        }
    }

    /// Forgets what no limit is about any more. What was counted by a clock that was set back since
    /// counts as of now: nothing is blocked for longer than a minute.
    pub fn forget(&mut self, now: Timestamp) {
        self.0.retain(|_, times| {
            for time in times.iter_mut() {
                *time = (*time).min(now);
            }
            while times
                .front()
                .is_some_and(|first| first.saturating_add(WINDOW) <= now)
            {
                times.pop_front();
            }
            !times.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn workspace(byte: u8) -> WorkspaceId {
        WorkspaceId::new(Timestamp::from_millis(1), [byte; 10])
    }

    fn limits(rack: &str) -> [Limit; 2] {
        [
            Limit {
                counted: Counted::Workspace(workspace(1)),
                most: 5,
            },
            Limit {
                counted: Counted::Label(workspace(1), "rack".into(), rack.into()),
                most: 2,
            },
        ]
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000 + seconds * 1000)
    }

    #[test]
    fn each_limit_counts_its_own() {
        let mut recent = Recent::default();
        for second in [0, 1] {
            assert_eq!(recent.next_at(&limits("a"), at(second)), at(second));
            recent.count(&limits("a"), at(second));
        }
        assert_eq!(recent.next_at(&limits("a"), at(2)), at(60), "a rack of two");
        assert_eq!(recent.next_at(&limits("b"), at(2)), at(2), "another rack");
        for rack in ["b", "b", "c"] {
            recent.count(&limits(rack), at(2));
        }
        assert_eq!(recent.next_at(&limits("d"), at(3)), at(60), "all together");
        recent.forget(at(61));
        assert_eq!(recent.next_at(&limits("a"), at(61)), at(61));
        assert_eq!(recent.next_at(&limits("b"), at(61)), at(62));
        recent.forget(at(200));
        assert!(recent.0.is_empty());
    }

    #[test]
    fn a_clock_that_is_set_back_blocks_for_a_minute_at_most() {
        let mut recent = Recent::default();
        for _ in 0..5 {
            recent.count(&limits("a"), at(100_000));
        }
        recent.forget(at(0));
        assert_eq!(recent.next_at(&limits("a"), at(0)), at(60));
    }

    proptest! {
        #[test]
        fn no_minute_has_more(steps in prop::collection::vec((0u64..30_000, 0usize..3), 1..80)) {
            let (mut recent, mut now) = (Recent::default(), at(0));
            let mut done = Vec::new();
            for (gap, rack) in steps {
                now = now.saturating_add(Duration::from_millis(gap));
                recent.forget(now);
                let limits = limits(["a", "b", "c"][rack]);
                now = recent.next_at(&limits, now);
                recent.count(&limits, now);
                done.push((now, rack));
            }
            let apart = |times: &[Timestamp], most: usize| {
                times.windows(most + 1).all(|some| some[most] >= some[0].saturating_add(WINDOW))
            };
            let all: Vec<_> = done.iter().map(|(at, _)| *at).collect();
            prop_assert!(apart(&all, 5));
            for rack in 0..3 {
                let of_rack = done.iter().filter(|(_, it)| *it == rack);
                let of_rack: Vec<_> = of_rack.map(|(at, _)| *at).collect();
                prop_assert!(apart(&of_rack, 2));
            }
        }
    }
}
