//! In-memory indexes that follow the store.
//!
//! The store finds items by key and nothing else; every other question (which
//! hosts of this label, which token has this digest) is answered by an index in
//! memory. A [`Mirror`] keeps such an index current: it lists some prefixes,
//! watches them from there, and starts over when the history it needs is gone.
//!
//! The index sees whole commits of one prefix, in order. Between prefixes no
//! order is promised; [`Mirror::wait_for`] waits for all of them. That wait is
//! what makes a write visible to the reads that follow it: commit, wait for the
//! revision, answer.
//!
//! One task per prefix, spawned on the caller's tracker. They end with the
//! caller's token, with the `Mirror`, or when the store is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, future};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::WatchStream;
use crate::{
    Event, Item, Key, MAX_PAGE_ITEMS, Page, Prefix, Read, ReadError, Rev, Store, Unavailable,
};

/// While the store does not answer, it is asked again after this long, then
/// twice as long, up to [`RETRY_MOST`].
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(5);

/// One key that changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was written.
    Put {
        /// The key.
        key: Key,
        /// What is there now.
        item: Item,
    },
    /// Its item is gone.
    Delete {
        /// The key.
        key: Key,
        /// When.
        rev: Rev,
    },
}

/// What a [`Mirror`] keeps current. Called by one task per prefix.
///
/// These calls must not block: readers of the index see what they leave behind.
pub trait Index: Send + Sync + 'static {
    /// `items` are all there are under `prefix`; whatever else the index holds of
    /// this prefix is gone. Build anew, then swap: readers should see no gap.
    fn reset(&self, prefix: &Prefix, items: Vec<(Key, Item)>);

    /// One or more whole commits, in order.
    fn apply(&self, changes: Vec<Change>);
}

/// Follows some prefixes of a store for an [`Index`].
#[derive(Debug)]
pub struct Mirror {
    progress: Vec<watch::Receiver<Rev>>,
    _stop: DropGuard,
}

impl Mirror {
    /// Loads `index` and keeps it current from then on. Fails only if the first
    /// loading does.
    pub async fn start(
        store: Arc<dyn Store>,
        prefixes: Vec<Prefix>,
        index: Arc<dyn Index>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<Self, ReadError> {
        let stop = stop.child_token();
        let mut progress = Vec::with_capacity(prefixes.len());
        let mut followers = Vec::with_capacity(prefixes.len());
        for prefix in prefixes {
            let (told, rev) = watch::channel(Rev::ZERO);
            let (store, index) = (Arc::clone(&store), Arc::clone(&index));
            let follower = Follower {
                store,
                prefix,
                index,
                progress: told,
            };
            let events = follower.load().await?;
            progress.push(rev);
            followers.push((follower, events));
        }
        for (follower, events) in followers {
            let stop = stop.clone();
            tasks.spawn(async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = follower.run(events) => {}
                }
            });
        }
        Ok(Self {
            progress,
            _stop: stop.drop_guard(),
        })
    }

    /// Everything up to here is in the index.
    pub fn rev(&self) -> Rev {
        self.progress
            .iter()
            .map(|rev| *rev.borrow())
            .min()
            .unwrap_or(Rev::ZERO)
    }

    /// Waits until everything up to `rev` is in the index.
    pub async fn wait_for(&self, rev: Rev, most: Duration) -> Result<(), WaitError> {
        let reached = self.progress.iter().map(|progress| {
            let mut progress = progress.clone();
            async move { progress.wait_for(|now| *now >= rev).await.map(|_| ()) }
        });
        match tokio::time::timeout(most, future::try_join_all(reached)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(WaitError::Stopped),
            Err(_) => Err(WaitError::Late {
                wanted: rev,
                reached: self.rev(),
            }),
        }
    }
}

/// Why an index did not get there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WaitError {
    /// Not in time.
    #[error("the index is at revision {reached}, {wanted} was waited for")]
    Late {
        /// What was waited for.
        wanted: Rev,
        /// Where the index is.
        reached: Rev,
    },
    /// It no longer follows the store.
    #[error("the index no longer follows the store")]
    Stopped,
}

struct Follower {
    store: Arc<dyn Store>,
    prefix: Prefix,
    index: Arc<dyn Index>,
    progress: watch::Sender<Rev>,
}

impl Follower {
    /// Returns when the store is closed.
    async fn run(self, mut events: WatchStream) {
        loop {
            self.follow(&mut events).await;
            events = match self.load_again().await {
                Some(events) => events,
                None => return,
            };
        }
    }

    /// Applies what happens, one `Progress` at a time: changes before it are
    /// whole commits.
    async fn follow(&self, events: &mut WatchStream) {
        let mut changes = Vec::new();
        while let Some(event) = events.next().await {
            match event {
                Event::Put { key, item } => changes.push(Change::Put { key, item }),
                Event::Delete { key, rev } => changes.push(Change::Delete { key, rev }),
                Event::Progress(rev) => {
                    if !changes.is_empty() {
                        self.index.apply(std::mem::take(&mut changes));
                    }
                    self.progress.send_replace(rev);
                }
                Event::Resync => return,
            }
        }
    }

    async fn load_again(&self) -> Option<WatchStream> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.load().await {
                Ok(events) => return Some(events),
                Err(ReadError::Unavailable(Unavailable::Closed)) => return None,
                Err(error) => {
                    tracing::warn!(%error, prefix = %self.prefix, "an index cannot be loaded");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
            }
        }
    }

    /// Gives the index one consistent state, and the events that follow it.
    async fn load(&self) -> Result<WatchStream, ReadError> {
        loop {
            if let Some((items, rev, events)) = self.list().await? {
                self.index.reset(&self.prefix, items.into_iter().collect());
                self.progress.send_replace(rev);
                return Ok(events);
            }
        }
    }

    async fn page(&self, after: Option<&Key>) -> Result<Page, ReadError> {
        let limit = MAX_PAGE_ITEMS;
        self.store
            .list(&self.prefix, after, limit, Read::Linearizable)
            .await
    }

    /// Pages are of different times: what happened between the first and the last
    /// one is watched and put on top. `None` if that is no longer kept.
    async fn list(&self) -> Result<Option<(BTreeMap<Key, Item>, Rev, WatchStream)>, ReadError> {
        let mut items = BTreeMap::new();
        let mut first = None;
        let mut after = None;
        let last = loop {
            let page = self.page(after.as_ref()).await?;
            first.get_or_insert(page.rev);
            items.extend(page.items);
            if !page.more {
                break page.rev;
            }
            after = items.last_key_value().map(|(key, _)| key.clone());
        };
        let first = first.unwrap_or(last);
        let mut events = self.store.watch(&self.prefix, first).await?;
        let mut rev = first;
        while rev < last {
            match events.next().await {
                Some(Event::Put { key, item }) => {
                    items.insert(key, item);
                }
                Some(Event::Delete { key, .. }) => {
                    items.remove(&key);
                }
                Some(Event::Progress(upto)) => rev = upto,
                Some(Event::Resync) | None => return Ok(None),
            }
        }
        Ok(Some((items, rev, events)))
    }
}
