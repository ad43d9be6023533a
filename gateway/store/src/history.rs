//! Recent changes, kept once for all watchers.
//!
//! A queue per watcher would need a bound per watcher and memory for each.
//! Here every watcher is only a cursor, the revision it has told last, over one
//! shared log of bounded size. It pulls; a watcher that falls behind the log's
//! beginning is told to list again. Writers never wait for watchers, an idle
//! watcher costs nothing, and because the wake-up is a level (the tip's
//! revision), not an edge, it cannot be lost.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

use crate::{Event, Item, Key, Prefix, Rev, WatchStream};

/// A watcher looks at this many changes at a time (and at the rest of the commit
/// it stopped in), so that one lock is short and a client gets its first events
/// before it has caught up. A guess.
const CHUNK: usize = 256;

/// One key changed by one commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) key: Key,
    pub(crate) rev: Rev,
    /// What is there now, if anything.
    pub(crate) value: Option<Bytes>,
}

impl Change {
    fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.value.as_ref().map_or(0, Bytes::len)
    }

    fn into_event(self) -> Event {
        let Self { key, rev, value } = self;
        match value {
            Some(value) => Event::Put {
                key,
                item: Item { value, rev },
            },
            None => Event::Delete { key, rev },
        }
    }
}

/// How much history is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistoryLimits {
    pub(crate) changes: usize,
    pub(crate) bytes: usize,
}

#[derive(Debug)]
pub(crate) struct History {
    log: Mutex<Log>,
    /// `None` once closed.
    tip: watch::Sender<Option<Rev>>,
}

#[derive(Debug)]
struct Log {
    /// In commit order.
    changes: VecDeque<Change>,
    bytes: usize,
    /// Changes up to and including this revision are not kept.
    floor: Rev,
    tip: Rev,
    limits: HistoryLimits,
}

enum Next {
    Changes { events: Vec<Event>, upto: Rev },
    Gone,
}

impl History {
    /// A history that knows nothing before `tip`.
    pub(crate) fn new(tip: Rev, limits: HistoryLimits) -> Self {
        let log = Log {
            changes: VecDeque::new(),
            bytes: 0,
            floor: tip,
            tip,
            limits,
        };
        Self {
            log: Mutex::new(log),
            tip: watch::Sender::new(Some(tip)),
        }
    }

    /// The latest revision published.
    pub(crate) fn tip(&self) -> Rev {
        self.lock().tip
    }

    /// Appends whole commits that end at `tip` and wakes the watchers.
    pub(crate) fn publish(&self, changes: Vec<Change>, tip: Rev) {
        self.lock().append(changes, tip);
        self.tip.send_if_modified(|now| {
            let wake = now.is_some_and(|now| now < tip);
            if wake {
                *now = Some(tip);
            }
            wake
        });
    }

    /// Forgets everything before `tip`: what happened since is not known, and
    /// every watcher that has not told `tip` must list again.
    pub(crate) fn forget(&self, tip: Rev) {
        let mut log = self.lock();
        log.changes.clear();
        log.bytes = 0;
        log.floor = tip;
        log.tip = tip;
        drop(log);
        self.tip.send_modify(|now| *now = now.map(|_| tip));
    }

    /// Ends every stream once it has told what there is.
    pub(crate) fn close(&self) {
        self.tip.send_replace(None);
    }

    pub(crate) fn watch(self: &Arc<Self>, prefix: Prefix, from: Rev) -> WatchStream {
        let watcher = Watcher {
            prefix,
            cursor: from,
            tip: self.tip.subscribe(),
            resync: false,
        };
        let history = Arc::clone(self);
        stream::unfold((watcher, history), |(mut watcher, history)| async move {
            let events = watcher.next(&history).await?;
            Some((stream::iter(events), (watcher, history)))
        })
        .flatten()
        .fuse()
        .boxed()
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // No code panics while it holds this lock half-changed.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Log {
    fn append(&mut self, changes: Vec<Change>, tip: Rev) {
        self.bytes += changes.iter().map(Change::bytes).sum::<usize>();
        self.changes.extend(changes);
        self.tip = self.tip.max(tip);
        while self.changes.len() > self.limits.changes || self.bytes > self.limits.bytes {
            let Some(dropped) = self.changes.pop_front() else {
                break;
            };
            self.bytes -= dropped.bytes();
            self.floor = dropped.rev;
        }
        // A commit is kept whole or not at all.
        while self
            .changes
            .front()
            .is_some_and(|change| change.rev <= self.floor)
        {
            self.bytes -= self.changes.pop_front().map_or(0, |change| change.bytes());
        }
    }

    fn after(&self, cursor: Rev, prefix: &Prefix) -> Next {
        if cursor < self.floor || cursor > self.tip {
            return Next::Gone;
        }
        let start = self.changes.partition_point(|change| change.rev <= cursor);
        let upto = match self.changes.get(start + CHUNK - 1) {
            Some(last) => last.rev,
            None => self.tip,
        };
        let events = self
            .changes
            .range(start..)
            .take_while(|change| change.rev <= upto)
            .filter(|change| prefix.contains(change.key.as_bytes()))
            .map(|change| change.clone().into_event())
            .collect();
        Next::Changes { events, upto }
    }
}

struct Watcher {
    prefix: Prefix,
    /// Everything up to here has been told.
    cursor: Rev,
    tip: watch::Receiver<Option<Rev>>,
    /// `Resync` was told: the stream is over.
    resync: bool,
}

impl Watcher {
    async fn next(&mut self, history: &History) -> Option<Vec<Event>> {
        if self.resync {
            return None;
        }
        loop {
            // Marked as seen before the log is read: a commit in between wakes us again.
            let closed = self.tip.borrow_and_update().is_none();
            match history.lock().after(self.cursor, &self.prefix) {
                Next::Gone => {
                    self.resync = true;
                    return Some(vec![Event::Resync]);
                }
                Next::Changes { mut events, upto } if upto > self.cursor => {
                    self.cursor = upto;
                    events.push(Event::Progress(upto));
                    return Some(events);
                }
                Next::Changes { .. } if closed => return None,
                Next::Changes { .. } => {}
            }
            self.tip.changed().await.ok()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn history(changes: usize) -> Arc<History> {
        Arc::new(History::new(
            Rev(10),
            HistoryLimits {
                changes,
                bytes: 1 << 20,
            },
        ))
    }

    fn put(key: &str, rev: u64) -> Change {
        let value = Some(Bytes::copy_from_slice(key.as_bytes()));
        Change {
            key: Key::new(key).unwrap(),
            rev: Rev(rev),
            value,
        }
    }

    /// What a stream tells without waiting: `a@11` put, `-a@11` deleted, `|11` progress.
    fn told(stream: &mut WatchStream) -> String {
        let mut words = Vec::new();
        while let Some(Some(event)) = stream.next().now_or_never() {
            words.push(match event {
                Event::Put { key, item } => format!("{key}@{}", item.rev),
                Event::Delete { key, rev } => format!("-{key}@{rev}"),
                Event::Progress(rev) => format!("|{rev}"),
                Event::Resync => "resync".to_owned(),
            });
        }
        words.join(" ")
    }

    #[test]
    fn a_watcher_is_told_its_own_changes_and_everybodys_progress() {
        let history = history(100);
        let mut stream = history.watch(Prefix::new("a").unwrap(), Rev(10));
        assert_eq!(told(&mut stream), "");
        history.publish(vec![put("a1", 11), put("b1", 11)], Rev(11));
        let gone = Change {
            value: None,
            ..put("a1", 12)
        };
        history.publish(vec![gone], Rev(12));
        history.publish(vec![put("b2", 13)], Rev(13));
        assert_eq!(told(&mut stream), "a1@11 -a1@12 |13");
    }

    #[test]
    fn a_slow_watcher_is_sent_to_list_again_and_costs_the_others_nothing() {
        let history = history(2);
        let mut slow = history.watch(Prefix::all(), Rev(10));
        for rev in 11..=13 {
            history.publish(vec![put("a", rev)], Rev(rev));
        }
        assert_eq!(told(&mut slow), "resync");
        assert_eq!(slow.next().now_or_never(), Some(None), "the stream is over");
        let mut quick = history.watch(Prefix::all(), Rev(11));
        assert_eq!(told(&mut quick), "a@12 a@13 |13");
    }

    #[test]
    fn a_commit_larger_than_the_history_is_dropped_whole() {
        let history = history(2);
        history.publish(vec![put("a", 11), put("b", 11), put("c", 11)], Rev(11));
        assert_eq!(told(&mut history.watch(Prefix::all(), Rev(10))), "resync");
        let mut stream = history.watch(Prefix::all(), Rev(11));
        history.publish(vec![put("d", 12)], Rev(12));
        assert_eq!(told(&mut stream), "d@12 |12");
    }

    #[test]
    fn a_revision_from_another_life_is_sent_to_list_again() {
        let history = history(2);
        assert_eq!(told(&mut history.watch(Prefix::all(), Rev(9))), "resync");
        assert_eq!(told(&mut history.watch(Prefix::all(), Rev(11))), "resync");
    }

    #[test]
    fn chunks_end_between_commits() {
        let history = history(10_000);
        let wide: Vec<_> = (0..CHUNK + 10).map(|n| put(&format!("k{n}"), 11)).collect();
        history.publish(wide, Rev(11));
        history.publish(vec![put("z", 12)], Rev(12));
        let mut stream = history.watch(Prefix::all(), Rev(10));
        let all = told(&mut stream);
        let progress: Vec<_> = all
            .split(' ')
            .filter(|word| word.starts_with('|'))
            .collect();
        assert_eq!(progress, ["|11", "|12"]);
    }

    #[test]
    fn closing_ends_the_streams_after_what_there_is() {
        let history = history(100);
        let mut stream = history.watch(Prefix::all(), Rev(10));
        history.publish(vec![put("a", 11)], Rev(11));
        history.close();
        assert_eq!(told(&mut stream), "a@11 |11");
        assert_eq!(stream.next().now_or_never(), Some(None));
    }
}
