//! Exports and imports: one state, whole, whatever happens meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use proptest::prelude::*;

use super::super::export::{ExportError, Import, ImportError};
use super::*;
use crate::{AuditDraft, audit_list};

fn chunks_of(export: Export) -> Vec<Vec<u8>> {
    let mut chunks = Vec::new();
    let totals = export
        .write(|chunk| {
            chunks.push(chunk.to_vec());
            Ok(())
        })
        .unwrap();
    let entries: u64 = chunks.iter().map(|chunk| check_chunk(chunk).unwrap()).sum();
    assert_eq!(totals.entries, entries);
    chunks
}

fn import(path: &Path, chunks: &[Vec<u8>], now: SystemTime) -> Rev {
    let mut import = Import::create(path).unwrap();
    for chunk in chunks {
        import.chunk(chunk).unwrap();
    }
    import.finish(now).unwrap().0
}

async fn everything(store: &RedbStore) -> BTreeMap<Vec<u8>, (Vec<u8>, Rev)> {
    let mut all = BTreeMap::new();
    for first in 0..=u8::MAX {
        let prefix = Prefix::trusted(vec![first]);
        let mut after: Option<Key> = None;
        loop {
            let page = store
                .list(&prefix, after.as_ref(), 1000, Read::Linearizable)
                .await
                .unwrap();
            for (key, item) in &page.items {
                all.insert(key.as_bytes().to_vec(), (item.value.to_vec(), item.rev));
            }
            after = page.items.last().map(|(key, _)| key.clone());
            if !page.more {
                break;
            }
        }
    }
    all
}

#[tokio::test]
async fn an_imported_store_has_what_was_exported_and_goes_on_after_it() {
    let (folder, path) = folder();
    let store = RedbStore::open(&path, options().deployment([7; 16])).unwrap();
    let lease = store.lease(Duration::from_secs(600)).await.unwrap();
    for n in 0..500_usize {
        let mut id = [9; 16];
        id[..8].copy_from_slice(&n.to_be_bytes());
        let mut batch = put(&format!("k/{n:03}"), &"x".repeat(n * 7));
        batch.request_id(RequestId(id));
        batch.audit(AuditDraft {
            chain: "c".to_owned(),
            body: format!("entry {n}").into_bytes(),
        });
        store.commit(batch).await.unwrap();
    }
    let before = everything(&store).await;
    let mut leased = Batch::new();
    leased.put_leased(&key("leased"), "v", lease.id());
    store.commit(leased).await.unwrap();
    let mut repeated = put("again", "first");
    repeated.request_id(RequestId([77; 16]));
    let first = store.commit(repeated).await.unwrap();

    let export = store.export().await.unwrap();
    assert_eq!(
        (export.rev(), export.format(), export.deployment()),
        (store.rev(), 1, Some([7; 16]))
    );
    store.commit(put("later", "not in it")).await.unwrap();
    let chunks = chunks_of(export);

    let other = folder.path().join("other.redb");
    let rev = import(&other, &chunks, SystemTime::now());
    let imported = RedbStore::open(&other, options().deployment([7; 16])).unwrap();
    assert_eq!(imported.rev(), rev);
    assert_eq!(
        imported.identity().created,
        store.identity().created,
        "it is the same store"
    );
    let mut after = everything(&imported).await;
    assert!(after.remove(key("again").as_bytes()).is_some());
    assert_eq!(
        after, before,
        "all of it, and neither leased keys nor later ones"
    );
    let mut repeated = put("again", "second");
    repeated.request_id(RequestId([77; 16]));
    assert_eq!(imported.commit(repeated).await, Ok(first), "done already");

    let mut next = put("new", "v");
    next.audit(AuditDraft {
        chain: "c".to_owned(),
        body: b"after".to_vec(),
    });
    assert!(imported.commit(next).await.unwrap() > rev);
    let chain = AuditChainKey::new([1; 32]).chain_key("c");
    let entries = audit_list(&imported, "c", 0, 1000).await.unwrap().entries;
    assert_eq!(entries.len(), 501);
    let start = model::audit_chain::Head::EMPTY;
    model::audit_chain::verify(&chain, "c", &entries, start, None).unwrap();
}

#[tokio::test]
async fn revisions_rise_from_import_to_import_of_the_same_export() {
    let (folder, path) = folder();
    let store = RedbStore::open(&path, options()).unwrap();
    let exported = store.commit(put("a", "1")).await.unwrap();
    let chunks = chunks_of(store.export().await.unwrap());
    let mut newest = exported;
    for life in 0..3 {
        let path = folder.path().join(format!("{life}.redb"));
        let rev = import(&path, &chunks, SystemTime::now());
        assert!(rev > newest, "{rev} is after everything before, {newest}");
        let imported = RedbStore::open(&path, options()).unwrap();
        for n in 0..100 {
            newest = imported.commit(put("a", &n.to_string())).await.unwrap();
        }
    }
    let stopped_clock = folder.path().join("1970.redb");
    assert!(import(&stopped_clock, &chunks, SystemTime::UNIX_EPOCH) > exported);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_under_writers_is_one_state_and_holds_nobody_up() {
    let (folder, path) = folder();
    let store = Arc::new(RedbStore::open(&path, options()).unwrap());
    // Each commit writes the same number twice: a torn state shows two numbers.
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let (store, stop) = (Arc::clone(&store), Arc::clone(&stop));
        writers.spawn(async move {
            let mut n = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let mut batch = put(&format!("a/{writer}"), &n.to_string());
                batch.put(&key(&format!("z/{writer}")), n.to_string());
                store.commit(batch).await.unwrap();
            }
            n
        });
    }
    for round in 0..10 {
        let before = store.rev();
        let export = store.export().await.unwrap();
        let mut slow = Vec::new();
        let sink = |chunk: &[u8]| {
            slow.push(chunk.to_vec());
            Ok(())
        };
        // Begun before, read after others have written on.
        wait_until(|| store.rev() > before).await;
        tokio::task::block_in_place(|| export.write(sink)).unwrap();
        let path = folder.path().join(format!("{round}.redb"));
        import(&path, &slow, SystemTime::now());
        let imported = RedbStore::open(&path, options()).unwrap();
        for writer in 0..4 {
            assert_eq!(
                value(&imported, &format!("a/{writer}")).await,
                value(&imported, &format!("z/{writer}")).await
            );
        }
    }
    stop.store(true, Ordering::Relaxed);
    for written in writers.join_all().await {
        assert!(written > 0);
    }
}

async fn wait_until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LIMIT, "waited too long");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_stopped_store_is_exported_without_a_change_and_under_its_lock() {
    let (_folder, path) = folder();
    let store = RedbStore::open(&path, options()).unwrap();
    assert!(matches!(
        RedbStore::export_stopped(&path, &options()),
        Err(OpenError::Locked)
    ));
    let rev = store.commit(put("a", "1")).await.unwrap();
    store.close().await;
    drop(store);
    let other_key = OpenOptions::new(AuditChainKey::new([2; 32]));
    assert!(matches!(
        RedbStore::export_stopped(&path, &other_key),
        Err(OpenError::OtherAuditKey)
    ));
    let export = RedbStore::export_stopped(&path, &options()).unwrap();
    assert_eq!(export.rev(), rev);
    assert!(matches!(
        RedbStore::open(&path, options()),
        Err(OpenError::Locked)
    ));
    assert!(!chunks_of(export).is_empty());
    assert_eq!(RedbStore::open(&path, options()).unwrap().rev(), rev);
}

#[tokio::test]
async fn a_sink_that_fails_ends_the_export_and_hurts_nothing() {
    let store = RedbStore::open_in_memory(options()).unwrap();
    store.commit(put("a", "1")).await.unwrap();
    let full = |_: &[u8]| Err(io::Error::from(io::ErrorKind::StorageFull));
    let error = store.export().await.unwrap().write(full).unwrap_err();
    assert!(matches!(error, ExportError::Sink(_)));
    store.commit(put("a", "2")).await.unwrap();
    store.close().await;
    assert!(store.export().await.is_err(), "closed");
}

#[test]
fn an_import_without_a_format_is_no_store() {
    let (_folder, path) = folder();
    let import = Import::create(&path).unwrap();
    let error = import.finish(SystemTime::now()).unwrap_err();
    assert!(matches!(error, ImportError::Chunk(_)), "{error}");
    assert!(Import::create(&path).is_err(), "nothing is overwritten");
}

proptest! {
    /// Chunks come out of files that somebody may have damaged.
    #[test]
    fn arbitrary_chunks_are_refused_or_understood(chunk in proptest::collection::vec(0..4_u8, 0..64)) {
        let _ = check_chunk(&chunk);
    }
}
