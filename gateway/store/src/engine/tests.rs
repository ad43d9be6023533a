//! What only the embedded engine promises: files, crashes, groups, migrations.

mod crash;
mod export;
mod faults;
mod files;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use model::audit_chain::AuditChainKey;

use super::*;
use crate::RequestId;

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
