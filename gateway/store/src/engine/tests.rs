//! What only the embedded engine promises: files, crashes, groups, migrations.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use futures_util::{FutureExt as _, StreamExt as _};
use model::audit_chain::AuditChainKey;
use redb::backends::InMemoryBackend;
use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, StorageBackend, TableDefinition,
    WriteTransaction,
};

use super::migrate::{MIGRATIONS, Migration, format_after, migrate};
use super::tables::{KV, META, meta};
use super::*;
use crate::{Condition, Event, RequestId};

const LIMIT: Duration = Duration::from_secs(20);

fn options() -> OpenOptions {
    OpenOptions::new(AuditChainKey::new([1; 32]))
}

fn key(text: &str) -> Key {
    Key::new(text).unwrap()
}

fn put(at: &str, value: &str) -> Batch {
    let mut batch = Batch::new();
    batch.put(&key(at), value.to_owned());
    batch
}

async fn value(store: &RedbStore, at: &str) -> Option<String> {
    let item = store.get(&key(at), Read::Linearizable).await.unwrap();
    item.map(|item| String::from_utf8(item.value.to_vec()).unwrap())
}

fn folder() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.redb");
    (folder, path)
}

fn refusal(path: &Path) -> OpenError {
    RedbStore::open(path, options()).unwrap_err()
}

// Files.

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let (_folder, path) = folder();
    let store = RedbStore::open(&path, options()).unwrap();
    let rev = store.commit(put("a", "1")).await.unwrap();
    store.close().await;
    let store = RedbStore::open(&path, options()).unwrap();
    assert_eq!(
        (value(&store, "a").await.as_deref(), store.rev()),
        (Some("1"), rev)
    );
    assert!(store.commit(put("a", "2")).await.unwrap() > rev);
}

#[test]
fn a_new_file_is_private_and_an_open_one_is_closed_to_others() {
    let (_folder, path) = folder();
    drop(RedbStore::open(&path, options()).unwrap());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    drop(RedbStore::open(&path, options()).unwrap());
    assert_eq!(mode(&path), 0o600);
    assert!(!path.with_extension("redb.new").exists());
}

#[test]
fn a_second_opener_is_told_that_the_store_is_in_use() {
    let (_folder, path) = folder();
    let first = RedbStore::open(&path, options()).unwrap();
    assert!(matches!(refusal(&path), OpenError::Locked));
    drop(first);
    RedbStore::open(&path, options()).unwrap();
}

#[test]
fn a_half_made_file_does_not_stand_in_the_way() {
    let (folder, path) = folder();
    fs::write(folder.path().join("state.redb.new"), b"half").unwrap();
    RedbStore::open(&path, options()).unwrap();
}

#[test]
fn an_empty_foreign_or_cut_file_is_refused_and_left_alone() {
    let (folder, path) = folder();
    fs::write(&path, b"").unwrap();
    assert!(matches!(refusal(&path), OpenError::Corrupt { .. }));
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);

    fs::write(&path, vec![b'x'; 100_000]).unwrap();
    assert!(matches!(refusal(&path), OpenError::Corrupt { .. }));

    fs::remove_file(&path).unwrap();
    let other = Database::create(&path).unwrap();
    let txn = other.begin_write().unwrap();
    txn.open_table(TableDefinition::<u64, u64>::new("theirs"))
        .unwrap();
    txn.commit().unwrap();
    drop(other);
    assert!(matches!(refusal(&path), OpenError::NotAStore));

    assert!(matches!(refusal(folder.path()), OpenError::NotAStore));
}

#[tokio::test]
async fn damage_anywhere_in_use_is_found_when_opening_or_harmless() {
    let (folder, path) = folder();
    let store = RedbStore::open(&path, options()).unwrap();
    for n in 0..300 {
        store
            .commit(put(&format!("k{n:03}"), &"v".repeat(400)))
            .await
            .unwrap();
    }
    store.close().await;
    let good = fs::read(&path).unwrap();
    let damaged = folder.path().join("damaged.redb");
    let mut found = 0;
    // A prime stride hits headers, branches and leaves alike.
    for at in (0..good.len()).step_by(7919) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        fs::write(&damaged, &bytes).unwrap();
        match RedbStore::open(&damaged, options()) {
            Err(_) => found += 1,
            Ok(store) => {
                for n in 0..300 {
                    let value = value(&store, &format!("k{n:03}")).await;
                    assert_eq!(value, Some("v".repeat(400)), "flipped {at}, silently wrong");
                }
            }
        }
    }
    assert!(found > 0);
    for len in [100, 4096, good.len() / 2, good.len() - 4096] {
        fs::write(&damaged, &good[..len]).unwrap();
        let error = RedbStore::open(&damaged, options()).expect_err("a cut file");
        assert!(
            matches!(error, OpenError::Corrupt { .. }),
            "cut to {len}: {error}"
        );
    }
}

#[test]
fn a_file_sealed_with_another_key_or_of_another_deployment_is_refused() {
    let (_folder, path) = folder();
    drop(RedbStore::open(&path, options()).unwrap());
    let other = OpenOptions::new(AuditChainKey::new([2; 32]));
    assert!(matches!(
        RedbStore::open(&path, other),
        Err(OpenError::OtherAuditKey)
    ));

    let ours = RedbStore::open(&path, options().deployment([7; 16])).unwrap();
    assert_eq!(ours.identity().deployment, Some([7; 16]));
    drop(ours);
    let theirs = RedbStore::open(&path, options().deployment([8; 16]));
    assert!(matches!(theirs, Err(OpenError::OtherDeployment)));
    let unasked = RedbStore::open(&path, options()).unwrap();
    assert_eq!(unasked.identity().deployment, Some([7; 16]));
}

// Formats.

fn format_of(path: &Path) -> u32 {
    let db = Database::open(path).unwrap();
    let table = db.begin_read().unwrap().open_table(META).unwrap();
    let bytes = table.get(meta::FORMAT).unwrap().unwrap().value().to_vec();
    u32::from_be_bytes(bytes.try_into().unwrap())
}

/// A step as a later release might have one.
const SHOUT: Migration = |txn: &WriteTransaction| {
    let mut kv = txn.open_table(KV).map_err(tables::unavailable)?;
    let old = kv
        .get(b"greeting".as_slice())
        .map_err(tables::unavailable)?;
    let mut new = old.expect("the fixture has it").value().to_vec();
    new.make_ascii_uppercase();
    kv.insert(b"greeting".as_slice(), new.as_slice())
        .map_err(tables::unavailable)?;
    Ok(())
};

const FAIL: Migration = |txn| {
    SHOUT(txn)?;
    Err(Unavailable::StorageFull)
};

#[tokio::test]
async fn migrations_run_once_each_in_order_and_a_newer_file_is_refused() {
    let (_folder, path) = folder();
    let store = RedbStore::open(&path, options()).unwrap();
    store.commit(put("greeting", "hello")).await.unwrap();
    store.close().await;
    assert_eq!(format_of(&path), format_after(MIGRATIONS));

    let db = Database::open(&path).unwrap();
    let failed = migrate(&db, &[FAIL]).unwrap_err();
    assert!(matches!(
        failed,
        OpenError::Migrate {
            to: 2,
            source: Unavailable::StorageFull
        }
    ));
    drop(db);
    assert_eq!(
        format_of(&path),
        1,
        "a failed step leaves the file as it was"
    );

    let db = Database::open(&path).unwrap();
    migrate(&db, &[SHOUT]).unwrap();
    // The first step would fail if it ran again.
    migrate(&db, &[FAIL, |_| Ok(())]).unwrap();
    let snapshot = Snapshot::new(&db).unwrap();
    let item = snapshot.get(&key("greeting")).unwrap().unwrap();
    assert_eq!(item.value, "HELLO");
    drop((snapshot, db));
    assert_eq!(format_of(&path), 3);

    let before = fs::read(&path).unwrap();
    let error = refusal(&path);
    assert!(matches!(
        error,
        OpenError::Newer {
            found: 3,
            supported: 1
        }
    ));
    assert!(
        error.to_string().contains("run the release that wrote it"),
        "{error}"
    );
    assert!(fs::read(&path).unwrap().len() == before.len());
}

/// Files written by every released format stay readable. `UPDATE_GOLDEN=1`
/// writes the newest one anew.
#[tokio::test]
async fn a_file_of_format_1_opens() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/format-1.redb");
    if std::env::var_os("UPDATE_GOLDEN").is_some() && format_after(MIGRATIONS) == 1 {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&golden);
        let store = RedbStore::open(&golden, options().deployment([3; 16])).unwrap();
        let mut batch = put("greeting", "hello");
        batch.audit(crate::AuditDraft {
            chain: "c".to_owned(),
            body: b"greeted".to_vec(),
        });
        batch.request_id(RequestId([9; 16]));
        store.commit(batch).await.unwrap();
        store.close().await;
    }
    let (_folder, path) = folder();
    fs::copy(&golden, &path).unwrap();
    let store = RedbStore::open(&path, options().deployment([3; 16])).unwrap();
    assert_eq!(value(&store, "greeting").await.as_deref(), Some("hello"));
    assert_eq!(crate::audit_head(&store, "c").await.unwrap().seq, 1);
    let mut again = put("greeting", "again");
    again.request_id(RequestId([9; 16]));
    assert_eq!(
        store.commit(again).await,
        Ok(Rev(1)),
        "the request is remembered"
    );
}

// Requests and leases across processes.

#[tokio::test]
async fn a_request_id_is_remembered_across_a_restart_until_it_is_old_or_one_of_many() {
    static NOW: AtomicU64 = AtomicU64::new(1_000);
    let disk = Disk::memory();
    let options = || {
        let age = Duration::from_secs(60);
        options()
            .clock(|| NOW.load(Ordering::Relaxed))
            .request_memory(2, age)
    };
    let with_id = |id: u8| {
        let mut batch = put("k", "v");
        batch.request_id(RequestId([id; 16]));
        batch
    };
    let store = RedbStore::open_on(disk.clone(), options()).unwrap();
    let first = store.commit(with_id(1)).await.unwrap();
    store.close().await;

    let store = RedbStore::open_on(disk, options()).unwrap();
    assert_eq!(store.commit(with_id(1)).await, Ok(first));
    NOW.store(1_061, Ordering::Relaxed);
    let second = store.commit(with_id(1)).await.unwrap();
    assert!(second > first, "a minute later it is a new request");
    store.commit(with_id(2)).await.unwrap();
    assert_eq!(store.commit(with_id(1)).await, Ok(second));
    NOW.store(1_062, Ordering::Relaxed);
    store.commit(with_id(3)).await.unwrap();
    assert!(
        store.commit(with_id(1)).await.unwrap() > second,
        "two others came since"
    );
}

#[tokio::test]
async fn leased_keys_of_a_dead_process_are_gone_when_the_file_is_opened() {
    let disk = Disk::memory();
    let store = RedbStore::open_on(disk.clone(), options()).unwrap();
    let lease = store.lease(Duration::from_secs(3600)).await.unwrap();
    let mut batch = put("kept", "1");
    batch.put_leased(&key("leased"), "1", lease.id());
    let rev = store.commit(batch).await.unwrap();
    store.close().await;
    std::mem::forget(lease);

    let store = RedbStore::open_on(disk, options()).unwrap();
    assert_eq!(value(&store, "leased").await, None);
    assert_eq!(value(&store, "kept").await.as_deref(), Some("1"));
    assert!(store.rev() > rev);
}

// Groups.

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
        Err(io::Error::other("sync lost"))
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
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

// Faults.

#[tokio::test]
async fn a_full_disk_refuses_writes_serves_reads_and_recovers_by_itself() {
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
async fn a_commit_whose_first_sync_fails_did_not_happen() {
    let (faults, disk) = Faults::disk();
    let store = settled(disk).await;
    faults.fail_syncs(0, 1);
    let answer = store.commit(put("k", "new")).await;
    assert_eq!(answer, Err(Unavailable::Io("sync lost".to_owned()).into()));
    assert_eq!(value(&store, "k").await.as_deref(), Some("old"));
}

#[tokio::test]
async fn a_commit_whose_last_sync_fails_happened_if_the_reopened_file_says_so() {
    let (faults, disk) = Faults::disk();
    let store = settled(disk).await;
    let mut events = store.watch(&Prefix::all(), store.rev()).await.unwrap();
    faults.fail_syncs(1, 1);
    let rev = store.commit(put("k", "new")).await.unwrap();
    assert_eq!(store.stats().reopened, 1);
    assert_eq!(value(&store, "k").await.as_deref(), Some("new"));
    assert!(matches!(events.next().await, Some(Event::Put { item, .. }) if item.rev == rev));
}

#[tokio::test]
async fn an_unknown_outcome_is_settled_by_the_request_id() {
    for (good_syncs, happened) in [(0, false), (1, true)] {
        let (faults, disk) = Faults::disk();
        let store = settled(disk).await;
        let before = store.rev();
        let mut events = store.watch(&Prefix::all(), before).await.unwrap();
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
async fn a_disk_that_went_away_comes_back_without_a_restart() {
    let (faults, disk) = Faults::disk();
    let store = RedbStore::open_on(disk, options()).unwrap();
    store.commit(put("k", "v")).await.unwrap();
    faults.dead.store(true, Ordering::SeqCst);
    faults.fail_syncs(0, u64::MAX);
    store.commit(put("k", "w")).await.unwrap_err();
    let read = store.get(&key("k"), Read::Linearizable).await;
    assert!(matches!(
        read,
        Err(ReadError::Unavailable(Unavailable::Io(_)))
    ));

    faults.dead.store(false, Ordering::SeqCst);
    faults.fail_syncs(0, 0);
    wait_until("reads by themselves", async || {
        store.get(&key("k"), Read::Linearizable).await.is_ok()
    })
    .await;
    store.commit(put("k", "x")).await.unwrap();
    assert_eq!(value(&store, "k").await.as_deref(), Some("x"));
}

#[tokio::test]
async fn a_point_read_is_microseconds() {
    let (_folder, path) = folder();
    let store = RedbStore::open(&path, options()).unwrap();
    let commits = (0..200).map(|n| store.commit(put(&format!("k{n}"), &"v".repeat(200))));
    join_all(commits).await;
    let start = Instant::now();
    const READS: u32 = 2_000;
    for n in 0..READS {
        assert!(value(&store, &format!("k{}", n % 200)).await.is_some());
    }
    let each = start.elapsed() / READS;
    println!("a point read takes {each:?}");
    assert!(each < Duration::from_millis(1), "{each:?}");
}
