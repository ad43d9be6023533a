//! Groups and faults, on a disk that is slow, full or broken when told to be.

use std::collections::HashSet;
use std::io;
use std::sync::Condvar;
use std::sync::atomic::AtomicBool;

use futures_util::{FutureExt as _, StreamExt as _};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use super::*;
use crate::{Condition, Event};

/// A disk in memory that can be slow, full or broken.
#[derive(Debug, Default)]
struct Faults {
    memory: InMemoryBackend,
    /// Syncs wait while this is set.
    held: Mutex<bool>,
    released: Condvar,
    syncs: AtomicU64,
    full: AtomicBool,
    /// Places that were written before; a full disk has room for no others.
    written: Mutex<HashSet<u64>>,
    /// Syncs that still work; the next `sync_failures` do not.
    good_syncs: AtomicU64,
    sync_failures: AtomicU64,
    /// Even opening fails.
    dead: AtomicBool,
    /// Writes fail with an error of the device.
    broken: AtomicBool,
    /// What a failing sync says; "sync lost" when empty.
    sync_full: AtomicBool,
}

#[derive(Debug)]
struct FaultyDisk(Arc<Faults>);

impl Faults {
    fn disk() -> (Arc<Self>, Disk) {
        let faults = Arc::new(Self::default());
        let on = Arc::clone(&faults);
        let open = move || match on.dead.load(Ordering::SeqCst) {
            true => Err(io::Error::other("unplugged")),
            false => Ok(Box::new(FaultyDisk(Arc::clone(&on))) as Box<dyn StorageBackend>),
        };
        (faults, Disk::custom(open))
    }

    fn fail_syncs(&self, after: u64, times: u64) {
        self.good_syncs.store(after, Ordering::SeqCst);
        self.sync_failures.store(times, Ordering::SeqCst);
    }

    fn hold_syncs(&self, held: bool) {
        *self.held.lock().unwrap() = held;
        self.released.notify_all();
    }
}

/// Takes one off, if there is one.
fn count_down(counter: &AtomicU64) -> bool {
    counter
        .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
        .is_ok()
}

impl StorageBackend for FaultyDisk {
    fn len(&self) -> Result<u64, io::Error> {
        self.0.memory.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        self.0.memory.read(offset, out)
    }

    fn set_len(&self, len: u64) -> Result<(), io::Error> {
        self.0.memory.set_len(len)
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        // Bounded, so that a test that fails in between also ends.
        let held = self.0.held.lock().unwrap();
        drop(
            self.0
                .released
                .wait_timeout_while(held, LIMIT, |held| *held)
                .unwrap(),
        );
        if self.0.sync_failures.load(Ordering::SeqCst) == 0 || count_down(&self.0.good_syncs) {
            return Ok(());
        }
        count_down(&self.0.sync_failures);
        match self.0.sync_full.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Err(io::Error::other("sync lost")),
        }
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        if self.0.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("no answer"));
        }
        let new = self.0.written.lock().unwrap().insert(offset / 4096);
        if new && self.0.full.load(Ordering::SeqCst) {
            self.0.written.lock().unwrap().remove(&(offset / 4096));
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.memory.write(offset, data)
    }
}

async fn wait_until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn batches_that_come_during_a_sync_share_the_next_one_and_reads_do_not_wait() {
    let (faults, disk) = Faults::disk();
    let store = RedbStore::open_on(disk, options()).unwrap();
    store.commit(put("k", "old")).await.unwrap();
    let before = store.stats();

    faults.hold_syncs(true);
    let syncs = faults.syncs.load(Ordering::SeqCst);
    let mut first = Box::pin(store.commit(put("k", "new")));
    assert!(first.as_mut().now_or_never().is_none());
    wait_until("the first group syncs", async || {
        faults.syncs.load(Ordering::SeqCst) > syncs
    })
    .await;
    let mut conflicting = put("z", "never");
    conflicting.require(&key("n05"), Condition::Absent);
    let mut rest: Vec<_> = (0..20)
        .map(|n| store.commit(put(&format!("n{n:02}"), "x")))
        .collect();
    rest.push(store.commit(conflicting));
    rest.push(store.commit(put("last", "x")));
    let mut rest = Box::pin(join_all(rest));
    assert!(rest.as_mut().now_or_never().is_none());
    assert_eq!(store.stats().queued, 22);

    assert_eq!(
        value(&store, "k").await.as_deref(),
        Some("old"),
        "seen only when it is durable"
    );
    let page = store
        .list(&Prefix::all(), None, 10, Read::Linearizable)
        .await
        .unwrap();
    assert_eq!(page.items.len(), 1);

    faults.hold_syncs(false);
    first.await.unwrap();
    let answers = rest.await;
    let conflicts: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert_eq!(conflicts, [&Err(CommitError::Conflict { key: key("n05") })]);
    assert_eq!(value(&store, "z").await, None);
    assert_eq!(value(&store, "last").await.as_deref(), Some("x"));
    let after = store.stats();
    assert_eq!(
        after.groups - before.groups,
        2,
        "one for the first, one for the rest"
    );
    assert_eq!(after.conflicts - before.conflicts, 1);
}

#[tokio::test]
async fn a_group_without_changes_does_not_touch_the_disk() {
    let (faults, disk) = Faults::disk();
    let store = RedbStore::open_on(disk, options()).unwrap();
    let rev = store.commit(put("k", "v")).await.unwrap();
    let syncs = faults.syncs.load(Ordering::SeqCst);
    let mut nothing = Batch::new();
    nothing
        .require(&key("k"), Condition::RevIs(rev))
        .delete(&key("absent"));
    assert_eq!(store.commit(nothing).await, Ok(rev));
    assert_eq!(faults.syncs.load(Ordering::SeqCst), syncs);
}

#[tokio::test]
async fn closing_writes_what_waits_and_refuses_what_comes_later() {
    let (faults, disk) = Faults::disk();
    let store = RedbStore::open_on(disk.clone(), options()).unwrap();
    faults.hold_syncs(true);
    let mut waiting = Box::pin(join_all(
        (0..3).map(|n| store.commit(put(&format!("k{n}"), "v"))),
    ));
    assert!(waiting.as_mut().now_or_never().is_none());
    let mut events = store.watch(&Prefix::all(), store.rev()).await.unwrap();
    let mut close = Box::pin(store.close());
    assert!(close.as_mut().now_or_never().is_none());
    faults.hold_syncs(false);
    assert!(waiting.await.iter().all(Result::is_ok));
    close.await;

    let closed = Unavailable::Closed;
    assert_eq!(
        store.commit(put("k", "v")).await,
        Err(closed.clone().into())
    );
    let read = store.get(&key("k0"), Read::Linearizable).await;
    assert_eq!(read, Err(closed.clone().into()));
    assert!(store.watch(&Prefix::all(), store.rev()).await.is_err());
    let mut told = 0;
    while let Some(event) = events.next().await {
        told += u32::from(matches!(event, Event::Put { .. }));
    }
    assert_eq!(told, 3, "a watch tells everything before it ends");
    drop(store);
    let store = RedbStore::open_on(disk, options()).unwrap();
    assert_eq!(value(&store, "k2").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn abuse_41_a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
    let (faults, disk) = Faults::disk();
    let store = RedbStore::open_on(disk, options()).unwrap();
    store.commit(put("k", "old")).await.unwrap();
    faults.full.store(true, Ordering::SeqCst);
    // Some commits fit into pages used before.
    let large = "v".repeat(100_000);
    for _ in 0..3 {
        let answer = store.commit(put("k", &large)).await;
        assert_eq!(answer, Err(Unavailable::StorageFull.into()));
        assert_eq!(value(&store, "k").await.as_deref(), Some("old"));
    }
    faults.full.store(false, Ordering::SeqCst);
    store.commit(put("k", "new")).await.unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some("new"));
    assert!(store.stats().reopened > 0);
}

/// A store whose next commit needs two syncs and no larger file.
async fn settled(disk: Disk) -> RedbStore {
    let store = RedbStore::open_on(disk, options()).unwrap();
    for _ in 0..10 {
        store.commit(put("k", "old")).await.unwrap();
    }
    store
}

#[tokio::test]
async fn abuse_42_a_failed_sync_stops_the_store_for_good_and_the_next_process_finds_all() {
    for good_syncs in [0, 1] {
        let (faults, disk) = Faults::disk();
        let store = settled(disk.clone()).await;
        let acknowledged = store.rev();
        faults.fail_syncs(good_syncs, 1);
        let mut batch = put("k", "new");
        batch.request_id(RequestId([4; 16]));
        let unknown = store.commit(batch.clone()).await;
        assert_eq!(unknown, Err(CommitError::Unknown), "{good_syncs}");

        // The next sync would work. It is not asked.
        let syncs = faults.syncs.load(Ordering::SeqCst);
        let stopped = Unavailable::SyncFailed("sync lost".to_owned());
        assert_eq!(store.failed().await, stopped);
        let refused = store.commit(put("z", "never")).await;
        assert_eq!(refused, Err(stopped.clone().into()));
        let read = store.get(&key("k"), Read::Linearizable).await;
        assert_eq!(read, Err(stopped.into()));
        assert_eq!(faults.syncs.load(Ordering::SeqCst), syncs);
        store.close().await;

        let store = RedbStore::open_on(disk, options()).unwrap();
        assert!(store.rev() >= acknowledged);
        let before = store.rev();
        let rev = store.commit(batch.clone()).await.unwrap();
        assert_eq!(store.commit(batch).await, Ok(rev));
        assert!(rev.0 - before.0 <= 1, "it happened once");
        assert_eq!(rev.0 - acknowledged.0, 1);
        assert_eq!(value(&store, "k").await.as_deref(), Some("new"));
        assert_eq!(value(&store, "z").await, None);
    }
}

#[tokio::test]
async fn a_store_that_works_never_says_that_it_failed() {
    let (faults, disk) = Faults::disk();
    let store = settled(disk).await;
    faults.full.store(true, Ordering::SeqCst);
    store
        .commit(put("k", &"v".repeat(100_000)))
        .await
        .unwrap_err();
    assert!(store.failed().now_or_never().is_none());
}

#[tokio::test]
async fn abuse_41_a_sync_without_room_heals_and_says_what_became_of_the_commit() {
    for (good_syncs, happened) in [(0, false), (1, true)] {
        let (faults, disk) = Faults::disk();
        let store = settled(disk).await;
        let mut events = store.watch(&Prefix::all(), store.rev()).await.unwrap();
        faults.sync_full.store(true, Ordering::SeqCst);
        faults.fail_syncs(good_syncs, 1);
        let answer = store.commit(put("k", "new")).await;
        assert_eq!(store.stats().reopened, 1);
        match happened {
            false => {
                assert_eq!(answer, Err(Unavailable::StorageFull.into()));
                assert_eq!(value(&store, "k").await.as_deref(), Some("old"));
            }
            true => {
                let rev = answer.unwrap();
                assert_eq!(value(&store, "k").await.as_deref(), Some("new"));
                let told = events.next().await;
                assert!(matches!(told, Some(Event::Put { item, .. }) if item.rev == rev));
            }
        }
        store.commit(put("k", "newer")).await.unwrap();
    }
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_the_request_id() {
    for (good_syncs, happened) in [(0, false), (1, true)] {
        let (faults, disk) = Faults::disk();
        let store = settled(disk).await;
        let before = store.rev();
        let mut events = store.watch(&Prefix::all(), before).await.unwrap();
        faults.sync_full.store(true, Ordering::SeqCst);
        faults.fail_syncs(good_syncs, u64::MAX);
        let mut batch = put("k", "new");
        batch.request_id(RequestId([4; 16]));
        assert_eq!(store.commit(batch.clone()).await, Err(CommitError::Unknown));
        faults.fail_syncs(0, 0);

        let rev = store.commit(batch.clone()).await.unwrap();
        assert_eq!(store.commit(batch).await, Ok(rev));
        assert_eq!(rev.0 - before.0, 1, "it happened once");
        let told = events.next().await.unwrap();
        match happened {
            true => assert_eq!(told, Event::Resync, "nobody knows what changed"),
            false => assert!(matches!(told, Event::Put { item, .. } if item.rev == rev)),
        }
    }
}

#[tokio::test]
async fn abuse_42_a_disk_that_went_away_comes_back_without_a_restart() {
    let (faults, disk) = Faults::disk();
    let store = RedbStore::open_on(disk, options()).unwrap();
    store.commit(put("k", "v")).await.unwrap();
    faults.dead.store(true, Ordering::SeqCst);
    faults.broken.store(true, Ordering::SeqCst);
    store.commit(put("k", "w")).await.unwrap_err();
    let read = store.get(&key("k"), Read::Linearizable).await;
    assert!(matches!(
        read,
        Err(ReadError::Unavailable(Unavailable::Io(_)))
    ));

    faults.dead.store(false, Ordering::SeqCst);
    faults.broken.store(false, Ordering::SeqCst);
    wait_until("reads by themselves", async || {
        store.get(&key("k"), Read::Linearizable).await.is_ok()
    })
    .await;
    store.commit(put("k", "x")).await.unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some("x"));
}
