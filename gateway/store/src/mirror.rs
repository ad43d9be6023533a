//! In-memory indexes that follow the store.
//!
//! The store finds items by key and nothing else; every other question (which
//! hosts of this label, which token has this digest) is answered by an index in
//! memory. A [`Mirror`] keeps such an index current: it lists some prefixes,
//! watches them from there, and starts over when the history it needs is gone.
//!
//! The index sees whole commits, in order. [`Mirror::wait_for`] waits until it has
//! seen one, which is what makes a write visible to the reads that follow it: commit,
//! wait for the revision, answer.
//!
//! One task and one watch for all prefixes. With one of each per prefix, every commit
//! woke all of them and whoever waited for it was woken once by each: a dozen wakeups
//! for a write that concerns one prefix. The task is spawned on the caller's tracker
//! and ends with the caller's token, with the `Mirror`, or when the store is closed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
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

/// What a [`Mirror`] keeps current. One call at a time.
///
/// These calls must not wait for anything: readers of the index see what they leave
/// behind.
pub trait Index: Send + Sync + 'static {
    /// `items` are all there are under `prefix`, in the order of their keys; whatever
    /// else the index holds of this prefix is gone. Build anew, then swap: readers
    /// should see no gap. Called where it may take its time.
    fn reset(&self, prefix: &Prefix, items: Vec<(Key, Item)>);

    /// One or more whole commits, in order.
    fn apply(&self, changes: Vec<Change>);
}

/// Follows some prefixes of a store for an [`Index`].
#[derive(Debug)]
pub struct Mirror {
    progress: watch::Receiver<Rev>,
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
        let (told, progress) = watch::channel(Rev::ZERO);
        let follower = Follower {
            store,
            prefixes,
            index,
            progress: told,
        };
        let loaded = follower.load().await?;
        let child = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                biased;
                () = child.cancelled() => {}
                () = follower.run(loaded) => {}
            }
        });
        Ok(Self {
            progress,
            _stop: stop.drop_guard(),
        })
    }

    /// Everything up to here is in the index.
    pub fn rev(&self) -> Rev {
        *self.progress.borrow()
    }

    /// Waits until everything up to `rev` is in the index.
    pub async fn wait_for(&self, rev: Rev, most: Duration) -> Result<(), WaitError> {
        let mut progress = self.progress.clone();
        let reached = progress.wait_for(|now| *now >= rev);
        match tokio::time::timeout(most, reached).await {
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
    prefixes: Vec<Prefix>,
    index: Arc<dyn Index>,
    progress: watch::Sender<Rev>,
}

/// What the index was given, and what comes next.
struct Loaded {
    /// What each prefix was loaded at, in the order of the prefixes.
    revs: Vec<Rev>,
    /// Everything since the earliest of them.
    events: WatchStream,
}

impl Follower {
    /// Returns when the store is closed.
    async fn run(self, mut loaded: Loaded) {
        loop {
            self.follow(&mut loaded, None).await;
            loaded = match self.load_again().await {
                Some(loaded) => loaded,
                None => return,
            };
        }
    }

    /// Applies what happens, one `Progress` at a time: changes before it are whole
    /// commits. Returns once `until` is reached, or when the stream has ended.
    async fn follow(&self, loaded: &mut Loaded, until: Option<Rev>) {
        let mut changes = Vec::new();
        while let Some(event) = loaded.events.next().await {
            match event {
                Event::Put { key, item } => {
                    if self.is_news(&loaded.revs, &key, item.rev) {
                        changes.push(Change::Put { key, item });
                    }
                }
                Event::Delete { key, rev } => {
                    if self.is_news(&loaded.revs, &key, rev) {
                        changes.push(Change::Delete { key, rev });
                    }
                }
                Event::Progress(rev) => {
                    if !changes.is_empty() {
                        self.index.apply(std::mem::take(&mut changes));
                    }
                    match until {
                        Some(until) if rev < until => {}
                        Some(_) => {
                            self.progress.send_replace(rev);
                            return;
                        }
                        None => drop(self.progress.send_replace(rev)),
                    }
                }
                Event::Resync => return,
            }
        }
    }

    /// Whether a change concerns a prefix of ours, and was not loaded with it.
    fn is_news(&self, revs: &[Rev], key: &Key, rev: Rev) -> bool {
        let mine = self
            .prefixes
            .iter()
            .zip(revs)
            .find(|(prefix, _)| prefix.contains(key.as_bytes()));
        mine.is_some_and(|(_, loaded)| rev > *loaded)
    }

    async fn load_again(&self) -> Option<Loaded> {
        let mut pause = RETRY_FIRST;
        loop {
            match self.load().await {
                Ok(loaded) => return Some(loaded),
                Err(ReadError::Unavailable(Unavailable::Closed)) => return None,
                Err(error) => {
                    tracing::warn!(%error, "an index cannot be loaded");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MOST);
                }
            }
        }
    }

    /// Gives the index a consistent state of each prefix, and answers what follows.
    /// While the index takes one prefix in, the next is read: two at a time, so that
    /// two cores are used and not everything is in memory twice.
    async fn load(&self) -> Result<Loaded, ReadError> {
        let mut revs = Vec::with_capacity(self.prefixes.len());
        let mut resetting = None;
        for prefix in &self.prefixes {
            let (items, rev) = loop {
                if let Some(listed) = self.list(prefix).await? {
                    break listed;
                }
            };
            revs.push(rev);
            if let Some(before) = resetting.replace(self.reset(prefix, items)) {
                finished(before).await?;
            }
        }
        if let Some(last) = resetting {
            finished(last).await?;
        }
        let from = revs.iter().copied().min().unwrap_or(Rev::ZERO);
        let last = revs.iter().copied().max().unwrap_or(from);
        let mut loaded = Loaded {
            events: self.store.watch(&Prefix::all(), from).await?,
            revs,
        };
        if from == last {
            self.progress.send_replace(last);
        } else {
            // Every prefix is brought to where the last one was loaded. Should the
            // history not reach back to the first, the stream ends with this, and
            // everything is loaded again.
            self.follow(&mut loaded, Some(last)).await;
        }
        Ok(loaded)
    }

    /// Has the index take in a prefix, on another thread.
    fn reset(&self, prefix: &Prefix, items: Vec<(Key, Item)>) -> JoinHandle<()> {
        let (index, prefix) = (Arc::clone(&self.index), prefix.clone());
        tokio::task::spawn_blocking(move || index.reset(&prefix, items))
    }

    async fn page(&self, prefix: &Prefix, after: Option<&Key>) -> Result<Page, ReadError> {
        let limit = MAX_PAGE_ITEMS;
        self.store
            .list(prefix, after, limit, Read::Linearizable)
            .await
    }

    /// Pages are of different times: what happened between the first and the last
    /// one is watched and put on top. `None` if that is no longer kept.
    async fn list(&self, prefix: &Prefix) -> Result<Option<(Vec<(Key, Item)>, Rev)>, ReadError> {
        // In the order of their keys, as the pages are.
        let mut items = Vec::new();
        let mut first = None;
        let mut after = None;
        let last = loop {
            let page = self.page(prefix, after.as_ref()).await?;
            first.get_or_insert(page.rev);
            items.extend(page.items);
            if !page.more {
                break page.rev;
            }
            after = items.last().map(|(key, _): &(Key, Item)| key.clone());
        };
        let first = first.unwrap_or(last);
        let mut rev = first;
        if rev == last {
            return Ok(Some((items, rev)));
        }
        let mut items: BTreeMap<Key, Item> = items.into_iter().collect();
        let mut events = self.store.watch(prefix, first).await?;
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
        Ok(Some((items.into_iter().collect(), rev)))
    }
}

/// A panic of the index goes on where it would have been; a runtime that goes down
/// takes the store with it.
async fn finished(resetting: JoinHandle<()>) -> Result<(), ReadError> {
    match resetting.await {
        Ok(()) => Ok(()),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_cancelled) => Err(Unavailable::Closed.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, MutexGuard};

    use model::audit_chain::AuditChainKey;

    use super::*;
    use crate::{Batch, OpenOptions, RedbStore};

    const LIMIT: Duration = Duration::from_secs(20);

    /// An index that is what it was told, and how often it was told everything.
    #[derive(Default)]
    struct Copy(Mutex<Copied>);

    #[derive(Default)]
    struct Copied {
        items: BTreeMap<Key, Item>,
        resets: usize,
        applied: Vec<usize>,
    }

    impl Copy {
        fn see(&self) -> MutexGuard<'_, Copied> {
            self.0.lock().unwrap()
        }
    }

    impl Index for Copy {
        fn reset(&self, prefix: &Prefix, items: Vec<(Key, Item)>) {
            let mut copied = self.see();
            copied
                .items
                .retain(|key, _| !prefix.contains(key.as_bytes()));
            copied.items.extend(items);
            copied.resets += 1;
        }

        fn apply(&self, changes: Vec<Change>) {
            let mut copied = self.see();
            copied.applied.push(changes.len());
            for change in changes {
                match change {
                    Change::Put { key, item } => drop(copied.items.insert(key, item)),
                    Change::Delete { key, .. } => drop(copied.items.remove(&key)),
                }
            }
        }
    }

    struct Scene {
        store: Arc<RedbStore>,
        index: Arc<Copy>,
        tasks: TaskTracker,
        stop: CancellationToken,
    }

    impl Scene {
        fn new(history: usize) -> Self {
            let options = OpenOptions::new(AuditChainKey::new([1; 32])).history(history, 1 << 20);
            Self {
                store: Arc::new(RedbStore::open_in_memory(options).unwrap()),
                index: Arc::default(),
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }
        }

        async fn mirror(&self, prefixes: &[&str]) -> Mirror {
            let prefixes = prefixes
                .iter()
                .map(|prefix| Prefix::new(prefix).unwrap())
                .collect();
            let (store, index) = (Arc::clone(&self.store), Arc::clone(&self.index));
            Mirror::start(store, prefixes, index, &self.tasks, &self.stop)
                .await
                .unwrap()
        }

        async fn put(&self, keys: &[&str]) -> Rev {
            let mut batch = Batch::new();
            for key in keys {
                batch.put(&Key::new(key).unwrap(), "v");
            }
            self.store.commit(batch).await.unwrap()
        }

        /// The mirrored keys, after comparing every item with the store's.
        async fn keys(&self, prefixes: &[&str]) -> Vec<String> {
            let mut items = BTreeMap::new();
            for prefix in prefixes {
                let prefix = Prefix::new(prefix).unwrap();
                let page = self
                    .store
                    .list(&prefix, None, 1000, Read::Linearizable)
                    .await
                    .unwrap();
                items.extend(page.items);
            }
            assert_eq!(self.index.see().items, items);
            items.keys().map(Key::to_string).collect()
        }

        async fn end(&self) {
            self.tasks.close();
            tokio::time::timeout(LIMIT, self.tasks.wait())
                .await
                .expect("the tasks end");
        }
    }

    #[tokio::test]
    async fn what_was_committed_is_in_the_index_after_waiting_for_it() {
        let scene = Scene::new(1000);
        scene.put(&["a/1", "b/1", "c/1"]).await;
        let mirror = scene.mirror(&["a/", "b/"]).await;
        assert_eq!(scene.keys(&["a/", "b/"]).await, ["a/1", "b/1"]);

        let mut batch = Batch::new();
        batch
            .delete(&Key::new("b/1").unwrap())
            .put(&Key::new("a/2").unwrap(), "v");
        let rev = scene.store.commit(batch).await.unwrap();
        mirror.wait_for(rev, LIMIT).await.unwrap();
        assert_eq!(scene.keys(&["a/", "b/"]).await, ["a/1", "a/2"]);

        let elsewhere = scene.put(&["c/2"]).await;
        mirror.wait_for(elsewhere, LIMIT).await.unwrap();
        assert!(mirror.rev() >= elsewhere);
        assert_eq!(scene.index.see().resets, 2, "one per prefix, at the start");
    }

    #[tokio::test]
    async fn a_commit_is_applied_whole() {
        let scene = Scene::new(1000);
        let mirror = scene.mirror(&["a/"]).await;
        let rev = scene.put(&["a/1", "a/2", "a/3", "b/1"]).await;
        mirror.wait_for(rev, LIMIT).await.unwrap();
        assert_eq!(scene.index.see().applied, [3]);
    }

    #[tokio::test]
    async fn after_a_gap_the_index_is_loaded_again() {
        let scene = Scene::new(2);
        scene.put(&["a/0"]).await;
        let mirror = scene.mirror(&["a/"]).await;
        // More than the history keeps, before the mirror's task can run: this
        // runtime has one thread and committing does not wait for the mirror.
        let rev = scene.put(&["a/1", "a/2", "a/3", "a/4"]).await;
        mirror.wait_for(rev, LIMIT).await.unwrap();
        assert_eq!(scene.keys(&["a/"]).await.len(), 5);
        assert_eq!(scene.index.see().resets, 2);
    }

    #[tokio::test]
    async fn a_listing_of_many_pages_is_one_state_even_while_it_changes() {
        let scene = Scene::new(100_000);
        let names: Vec<_> = (0..2500).map(|n| format!("a/{n:04}")).collect();
        for some in names.chunks(64) {
            scene
                .put(&some.iter().map(String::as_str).collect::<Vec<_>>())
                .await;
        }
        let changing = async {
            for n in 0..50 {
                let mut batch = Batch::new();
                batch.delete(&Key::new(&names[n * 40]).unwrap());
                batch.put(&Key::new(format!("a/new{n}")).unwrap(), "v");
                scene.store.commit(batch).await.unwrap();
            }
            scene.store.rev()
        };
        let (mirror, rev) = tokio::join!(scene.mirror(&["a/"]), changing);
        mirror.wait_for(rev, LIMIT).await.unwrap();
        let mut stored = BTreeMap::new();
        let mut after = None;
        loop {
            let prefix = Prefix::new("a/").unwrap();
            let read = Read::Linearizable;
            let page = scene
                .store
                .list(&prefix, after.as_ref(), 1000, read)
                .await
                .unwrap();
            after = page.items.last().map(|(key, _)| key.clone());
            stored.extend(page.items);
            if !page.more {
                break;
            }
        }
        assert_eq!(stored.len(), 2500);
        assert_eq!(scene.index.see().items, stored);
    }

    #[tokio::test]
    async fn a_revision_that_does_not_come_is_not_waited_for_for_ever() {
        let scene = Scene::new(1000);
        let mirror = scene.mirror(&["a/"]).await;
        let reached = scene.store.rev();
        let wanted = Rev(reached.0 + 1);
        let answer = mirror.wait_for(wanted, Duration::from_millis(1)).await;
        assert_eq!(answer, Err(WaitError::Late { wanted, reached }));
    }

    #[tokio::test]
    async fn its_tasks_end_with_the_token_the_mirror_or_the_store() {
        let scene = Scene::new(1000);
        let mirror = scene.mirror(&["a/", "b/"]).await;
        scene.stop.cancel();
        scene.end().await;
        let answer = mirror.wait_for(Rev(99), LIMIT).await;
        assert_eq!(answer, Err(WaitError::Stopped));

        let scene = Scene::new(1000);
        drop(scene.mirror(&["a/"]).await);
        scene.end().await;
        assert!(!scene.stop.is_cancelled());

        let scene = Scene::new(1000);
        let _mirror = scene.mirror(&["a/"]).await;
        scene.store.close().await;
        scene.end().await;
    }
}
