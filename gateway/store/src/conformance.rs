//! One suite for every engine: what the trait promises, checked from outside.
//!
//! `random` runs the same random operations on an engine and on the
//! [model](crate::testing::MemoryStore) and compares every answer, every listing
//! and everything a watch tells. `promises` are about what the random ones leave out. An engine joins by a module like those at the end.

mod promises;
mod random;

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, future::BoxFuture};
use model::audit_chain::{AuditChainKey, Head, verify};

use crate::testing::MemoryStore;
use crate::{Store, audit_chains, audit_head, audit_list};

const LIMIT: Duration = Duration::from_secs(20);

fn audit_key() -> AuditChainKey {
    AuditChainKey::new([5; 32])
}

/// Makes stores, and opens one again on the same state where that means anything.
trait Engine {
    fn make(&self) -> Arc<dyn Store>;
    /// Ends `store` and opens what it left. Engines without durable state return it.
    fn reopen(&self, store: Arc<dyn Store>) -> BoxFuture<'_, Arc<dyn Store>>;
}

async fn check_chain(store: &dyn Store, chain: &str) {
    let head = audit_head(store, chain).await.unwrap();
    let mut entries = Vec::new();
    loop {
        let page = audit_list(store, chain, entries.len() as u64, 3)
            .await
            .unwrap();
        entries.extend(page.entries);
        if !page.more {
            break;
        }
    }
    let key = audit_key().chain_key(chain);
    assert_eq!(
        verify(&key, chain, &entries, Head::EMPTY, Some(head)),
        Ok(head)
    );
    let chains = audit_chains(store, None, 10).await.unwrap();
    assert_eq!(chains.contains(&chain.to_owned()), head.seq > 0);
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < LIMIT, "waited for: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
}

/// The suite as tests of one engine.
macro_rules! suite {
    ($name:ident, $engine:expr, $cases:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn random_operations_answer_like_the_model() {
                random::random_operations(&$engine, $cases);
            }

            suite!(@ $engine;
                limits_are_refused,
                large_pages_are_cut_short,
                a_revision_from_elsewhere_is_noticed,
                a_lease_that_runs_out_takes_its_keys_along,
                of_many_who_want_to_be_first_one_is,
                audit_entries_of_refused_batches_do_not_exist,
            );
        }
    };
    (@ $engine:expr; $($check:ident,)*) => {
        $(#[test]
        fn $check() {
            runtime().block_on(promises::$check(&$engine));
        })*
    };
}

mod engines {
    use std::path::PathBuf;
    use std::sync::Mutex;

    use super::*;
    use crate::{Disk, OpenOptions, RedbStore};

    pub(super) struct Model;

    impl Engine for Model {
        fn make(&self) -> Arc<dyn Store> {
            Arc::new(MemoryStore::new(audit_key()))
        }

        fn reopen(&self, store: Arc<dyn Store>) -> BoxFuture<'_, Arc<dyn Store>> {
            std::future::ready(store).boxed()
        }
    }

    /// redb on memory or on a file; the last store made is the one opened again.
    pub(super) struct Redb {
        folder: Option<tempfile::TempDir>,
        made: Mutex<Made>,
    }

    #[derive(Default)]
    struct Made {
        files: usize,
        last: Option<Place>,
    }

    #[derive(Clone)]
    enum Place {
        Memory(Disk),
        File(PathBuf),
    }

    impl Redb {
        pub(super) fn in_memory() -> Self {
            Self {
                folder: None,
                made: Mutex::default(),
            }
        }

        pub(super) fn on_file() -> Self {
            Self {
                folder: Some(tempfile::tempdir().unwrap()),
                made: Mutex::default(),
            }
        }

        fn open(place: &Place) -> Arc<dyn Store> {
            let options = OpenOptions::new(audit_key());
            let store = match place {
                Place::Memory(disk) => RedbStore::open_on(disk.clone(), options),
                Place::File(path) => RedbStore::open(path, options),
            };
            Arc::new(store.unwrap())
        }
    }

    impl Engine for Redb {
        fn make(&self) -> Arc<dyn Store> {
            let mut made = self.made.lock().unwrap();
            made.files += 1;
            let place = match &self.folder {
                Some(folder) => Place::File(folder.path().join(format!("{}.redb", made.files))),
                None => Place::Memory(Disk::memory()),
            };
            made.last = Some(place.clone());
            Self::open(&place)
        }

        fn reopen(&self, store: Arc<dyn Store>) -> BoxFuture<'_, Arc<dyn Store>> {
            // The only handle: the file is closed when this returns.
            assert_eq!(Arc::strong_count(&store), 1);
            drop(store);
            let place = self.made.lock().unwrap().last.clone().unwrap();
            std::future::ready(Self::open(&place)).boxed()
        }
    }
}

suite!(the_model, engines::Model, 32);
suite!(redb_in_memory, engines::Redb::in_memory(), 96);
suite!(redb_on_file, engines::Redb::on_file(), 16);
