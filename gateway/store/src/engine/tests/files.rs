//! Files: made, opened, refused, migrated.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use redb::{
    Database, ReadableDatabase as _, ReadableTable as _, TableDefinition, WriteTransaction,
};

use super::super::migrate::{MIGRATIONS, Migration, format_after, migrate};
use super::super::tables::{KV, META, meta};
use super::*;

fn refusal(path: &Path) -> OpenError {
    RedbStore::open(path, options()).unwrap_err()
}

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
async fn abuse_43_damage_anywhere_in_use_is_found_when_opening_or_harmless() {
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
async fn abuse_47_migrations_run_once_each_in_order_and_a_newer_file_is_refused() {
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
    // The file is as old as it is: what it remembers must not depend on today.
    let age = Duration::from_secs(1000 * 365 * 24 * 3600);
    let options = options().deployment([3; 16]).request_memory(10, age);
    let store = RedbStore::open(&path, options).unwrap();
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
