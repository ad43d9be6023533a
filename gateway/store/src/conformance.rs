//! One suite for every engine: what the trait promises, checked from outside.
//!
//! [`random_operations`] runs the same random operations on an engine and on the
//! [model](crate::testing::MemoryStore) and compares every answer, every listing
//! and everything a watch tells. The other checks are about time, which the
//! random ones leave out. An engine joins by a module like those at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture};
use model::audit_chain::{AuditChainKey, Head, verify};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::testing::MemoryStore;
use crate::{
    AuditDraft, Batch, CommitError, Condition, Event, Key, Lease, Prefix, Read, ReadError,
    RequestId, Rev, Store, audit_chains, audit_head, audit_list,
};

const LIMIT: Duration = Duration::from_secs(20);
const LONG: Duration = Duration::from_secs(3600);

pub(crate) fn audit_key() -> AuditChainKey {
    AuditChainKey::new([5; 32])
}

/// Makes stores, and opens one again on the same state where that means anything.
pub(crate) trait Engine {
    fn make(&self) -> Arc<dyn Store>;
    /// Ends `store` and opens what it left. Engines without durable state return it.
    fn reopen(&self, store: Arc<dyn Store>) -> BoxFuture<'_, Arc<dyn Store>>;
}

// Random operations.

#[derive(Clone, Debug)]
enum Op {
    Commit(Commit),
    /// Drops the lease in this slot and takes a new one.
    Lease(usize),
    List {
        prefix: usize,
        after: Option<usize>,
        limit: usize,
    },
    Audit {
        chain: usize,
        after: u64,
        limit: usize,
    },
    Reopen,
}

#[derive(Clone, Debug)]
struct Commit {
    conditions: Vec<(usize, Want)>,
    changes: Vec<(usize, Change)>,
    audit: Vec<(usize, u8)>,
    request: Option<u8>,
}

#[derive(Clone, Debug)]
enum Want {
    Absent,
    Present,
    /// The revision the key has, if it has one.
    Current,
    /// The revision of an earlier commit.
    Earlier(usize),
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8),
    Leased(u8, usize),
    Delete,
}

const KEYS: [&[u8]; 7] = [b"a", b"a/", b"a/1", b"a/2", b"ab", b"b/\xff", b"b/\xff\x00"];
const PREFIXES: [&[u8]; 6] = [b"", b"a", b"a/", b"b/\xff", b"c", b"\x00"];
const CHAINS: [&str; 3] = ["w", "w1", "x"];
const LEASES: usize = 2;

fn operations() -> impl Strategy<Value = Vec<Op>> {
    let want = prop_oneof![
        1 => Just(Want::Absent),
        1 => Just(Want::Present),
        3 => Just(Want::Current),
        1 => (0..20_usize).prop_map(Want::Earlier),
    ];
    let change = prop_oneof![
        4 => any::<u8>().prop_map(Change::Put),
        2 => (any::<u8>(), 0..LEASES).prop_map(|(value, lease)| Change::Leased(value, lease)),
        3 => Just(Change::Delete),
    ];
    let commit = (
        prop::collection::vec((0..KEYS.len(), want), 0..2),
        prop::collection::vec((0..KEYS.len(), change), 0..4),
        prop::collection::vec((0..CHAINS.len(), any::<u8>()), 0..3),
        prop::option::weighted(0.2, 0..4_u8),
    );
    let commit = commit.prop_map(|(conditions, changes, audit, request)| {
        Op::Commit(Commit {
            conditions,
            changes,
            audit,
            request,
        })
    });
    let list = (
        0..PREFIXES.len(),
        prop::option::of(0..KEYS.len()),
        0..5_usize,
    )
        .prop_map(|(prefix, after, limit)| Op::List {
            prefix,
            after,
            limit,
        });
    let audit =
        (0..CHAINS.len(), 0..4_u64, 1..4_usize).prop_map(|(chain, after, limit)| Op::Audit {
            chain,
            after,
            limit,
        });
    let op = prop_oneof![
        12 => commit,
        1 => (0..LEASES).prop_map(Op::Lease),
        3 => list,
        1 => audit,
        1 => Just(Op::Reopen),
    ];
    prop::collection::vec(op, 1..40)
}

/// One store, its leases and its revisions in the order they were answered.
struct Side {
    store: Arc<dyn Store>,
    leases: Vec<Lease>,
    revs: Vec<Rev>,
    /// Watched from the start of `store`: one stream per prefix.
    streams: Vec<crate::WatchStream>,
}

impl Side {
    async fn new(store: Arc<dyn Store>) -> Self {
        let mut side = Self {
            store,
            leases: Vec::new(),
            revs: vec![Rev::ZERO],
            streams: Vec::new(),
        };
        side.begin().await;
        side
    }

    /// Leases and watches belong to a store while it is open.
    async fn begin(&mut self) {
        let page = self.list(&Prefix::all(), None, 1).await;
        self.streams.clear();
        for prefix in PREFIXES {
            let prefix = Prefix::new(prefix).unwrap();
            self.streams
                .push(self.store.watch(&prefix, page.rev).await.unwrap());
        }
        self.leases.clear();
        for _ in 0..LEASES {
            self.leases.push(self.store.lease(LONG).await.unwrap());
        }
    }

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> crate::Page {
        self.store
            .list(prefix, after, limit, Read::Linearizable)
            .await
            .unwrap()
    }

    async fn batch(&self, commit: &Commit) -> Batch {
        let mut batch = Batch::new();
        for (key, want) in &commit.conditions {
            let key = Key::new(KEYS[*key]).unwrap();
            let found = self.store.get(&key, Read::Linearizable).await.unwrap();
            let condition = match want {
                Want::Absent => Condition::Absent,
                Want::Present => Condition::Present,
                Want::Current => found.map_or(Condition::Absent, |it| Condition::RevIs(it.rev)),
                Want::Earlier(n) => Condition::RevIs(self.revs[n % self.revs.len()]),
            };
            batch.require(&key, condition);
        }
        for (key, change) in &commit.changes {
            let key = Key::new(KEYS[*key]).unwrap();
            match change {
                Change::Put(value) => batch.put(&key, vec![*value]),
                Change::Leased(value, lease) => {
                    batch.put_leased(&key, vec![*value], self.leases[*lease].id())
                }
                Change::Delete => batch.delete(&key),
            };
        }
        for (chain, body) in &commit.audit {
            batch.audit(AuditDraft {
                chain: CHAINS[*chain].to_owned(),
                body: vec![*body],
            });
        }
        if let Some(id) = commit.request {
            batch.request_id(RequestId([id; 16]));
        }
        batch
    }

    /// What happened to a commit, with the revision's place instead of itself:
    /// engines count as they like.
    async fn commit(&mut self, commit: &Commit) -> Result<usize, CommitError> {
        let rev = self.store.commit(self.batch(commit).await).await?;
        Ok(self.place(rev))
    }

    fn place(&mut self, rev: Rev) -> usize {
        let place = self.revs.binary_search(&rev);
        place.unwrap_or_else(|_| {
            assert!(
                self.revs.last().is_none_or(|last| *last < rev),
                "revisions only grow"
            );
            self.revs.push(rev);
            self.revs.len() - 1
        })
    }

    async fn page(&mut self, prefix: usize, after: Option<usize>, limit: usize) -> String {
        let prefix = Prefix::new(PREFIXES[prefix]).unwrap();
        let after = after.map(|after| Key::new(KEYS[after]).unwrap());
        let page = self.list(&prefix, after.as_ref(), limit).await;
        self.place(page.rev);
        self.words(
            &page
                .items
                .into_iter()
                .map(|(key, item)| Event::Put { key, item })
                .collect::<Vec<_>>(),
        ) + if page.more { " ..." } else { "" }
    }

    /// All changes each watch has told up to the current revision.
    async fn told(&mut self) -> Vec<String> {
        let now = self.list(&Prefix::all(), None, 1).await.rev;
        let mut all = Vec::new();
        for mut stream in std::mem::take(&mut self.streams) {
            let mut events = Vec::new();
            let mut progress = Rev::ZERO;
            while let Some(event) = stream.next().now_or_never() {
                match event.expect("an open store's watch goes on") {
                    Event::Progress(rev) => progress = rev,
                    event => events.push(event),
                }
            }
            // Nothing happened at all, or everything was told.
            assert!(
                progress == now || progress == Rev::ZERO,
                "told up to {progress} of {now}"
            );
            all.push(self.words(&events));
            self.streams.push(stream);
        }
        all
    }

    fn words(&mut self, events: &[Event]) -> String {
        let word = |event: &Event| match event {
            Event::Put { key, item } => {
                let place = self.place(item.rev);
                format!("{key}={}@{place}", item.value.escape_ascii())
            }
            Event::Delete { key, rev } => format!("-{key}@{}", self.place(*rev)),
            Event::Progress(_) => "progress".to_owned(),
            Event::Resync => "resync".to_owned(),
        };
        events.iter().map(word).collect::<Vec<_>>().join(" ")
    }
}

async fn random_run(engine: &dyn Engine, ops: Vec<Op>) {
    let mut real = Side::new(engine.make()).await;
    let mut model = Side::new(Arc::new(MemoryStore::new(audit_key()))).await;
    for op in ops {
        match op {
            Op::Commit(commit) => {
                let (got, want) = (real.commit(&commit).await, model.commit(&commit).await);
                assert_eq!(got, want, "{commit:?}");
            }
            Op::Lease(slot) => {
                for side in [&mut real, &mut model] {
                    side.leases[slot] = side.store.lease(LONG).await.unwrap();
                }
                settle(&real, &model).await;
            }
            Op::List {
                prefix,
                after,
                limit,
            } => {
                let got = real.page(prefix, after, limit).await;
                assert_eq!(got, model.page(prefix, after, limit).await);
            }
            Op::Audit {
                chain,
                after,
                limit,
            } => {
                let chain = CHAINS[chain];
                let got = audit_list(&*real.store, chain, after, limit).await;
                assert_eq!(got, audit_list(&*model.store, chain, after, limit).await);
            }
            Op::Reopen => {
                assert_eq!(real.told().await, model.told().await);
                // The model's leases end as those of a closed store do.
                real.leases.clear();
                model.leases.clear();
                settle(&real, &model).await;
                real.streams.clear();
                let store = std::mem::replace(&mut real.store, model.store.clone());
                real.store = engine.reopen(store).await;
                real.begin().await;
                model.begin().await;
            }
        }
        for prefix in 0..PREFIXES.len() {
            let all = usize::MAX;
            assert_eq!(
                real.page(prefix, None, all).await,
                model.page(prefix, None, all).await
            );
        }
    }
    assert_eq!(real.told().await, model.told().await);
    for chain in CHAINS {
        check_chain(&*real.store, chain).await;
    }
}

/// The keys of a dropped lease go soon, not at once.
async fn settle(real: &Side, model: &Side) {
    let all = Prefix::all();
    let want = model.list(&all, None, usize::MAX).await.items.len();
    eventually("leased keys vanish", async || {
        real.list(&all, None, usize::MAX).await.items.len() == want
    })
    .await;
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

pub(crate) fn random_operations(engine: &dyn Engine, cases: u32) {
    let runtime = runtime();
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let run = |ops| {
        runtime.block_on(random_run(engine, ops));
        Ok(())
    };
    TestRunner::new(config)
        .run(&operations(), run)
        .unwrap_or_else(|error| panic!("{error}"));
}

// What random operations do not reach.

pub(crate) async fn limits_are_refused(engine: &dyn Engine) {
    let store = engine.make();
    let key = |n: usize| Key::new(format!("k{n}")).unwrap();
    let mut batch = Batch::new();
    for n in 0..65 {
        batch.put(&key(n), "v");
    }
    let answer = store.commit(batch).await;
    assert!(
        matches!(answer, Err(CommitError::TooLarge { keys: 65, .. })),
        "{answer:?}"
    );

    let mut batch = Batch::new();
    batch.put(&key(0), vec![0; 1024 * 1024]);
    let answer = store.commit(batch).await;
    assert!(
        matches!(answer, Err(CommitError::TooLarge { .. })),
        "{answer:?}"
    );

    let mut batch = Batch::new();
    batch.audit(AuditDraft {
        chain: String::new(),
        body: Vec::new(),
    });
    assert_eq!(
        store.commit(batch).await,
        Err(CommitError::BadChainName {
            chain: String::new()
        })
    );
    assert_eq!(
        store
            .list(&Prefix::all(), None, 9, Read::Linearizable)
            .await
            .unwrap()
            .items,
        []
    );

    let mut largest = Batch::new();
    largest.put(&key(0), vec![0; 1024 * 1024 - 2]);
    store.commit(largest).await.unwrap();
}

pub(crate) async fn large_pages_are_cut_short(engine: &dyn Engine) {
    let store = engine.make();
    for n in 0..6 {
        let mut batch = Batch::new();
        batch.put(&Key::new([b'a' + n]).unwrap(), vec![n; 1024 * 1024 - 1]);
        store.commit(batch).await.unwrap();
    }
    let mut after = None;
    let mut seen = Vec::new();
    loop {
        let page = store
            .list(&Prefix::all(), after.as_ref(), 99, Read::Linearizable)
            .await
            .unwrap();
        assert!(page.items.len() <= 5);
        seen.extend(page.items.iter().map(|(key, _)| key.to_string()));
        after = page.items.last().map(|(key, _)| key.clone());
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, ["a", "b", "c", "d", "e", "f"]);
}

pub(crate) async fn a_revision_from_elsewhere_is_noticed(engine: &dyn Engine) {
    let store = engine.make();
    let key = Key::new("k").unwrap();
    let mut batch = Batch::new();
    batch.put(&key, "v");
    let rev = store.commit(batch).await.unwrap();
    let seen = Read::Cached {
        at_least: Some(rev),
    };
    assert!(store.get(&key, seen).await.unwrap().is_some());
    let wanted = Rev(rev.0 + 1);
    let ahead = Read::Cached {
        at_least: Some(wanted),
    };
    let behind = ReadError::Behind {
        wanted,
        reached: rev,
    };
    assert_eq!(store.get(&key, ahead).await, Err(behind.clone()));
    assert_eq!(
        store.list(&Prefix::all(), None, 9, ahead).await,
        Err(behind)
    );
    let mut stream = store.watch(&Prefix::all(), wanted).await.unwrap();
    assert_eq!(stream.next().await, Some(Event::Resync));
    assert_eq!(stream.next().await, None);
}

pub(crate) async fn a_lease_that_runs_out_takes_its_keys_along(engine: &dyn Engine) {
    let store = engine.make();
    let keys: Vec<_> = (0..100)
        .map(|n| Key::new(format!("lease/{n:03}")).unwrap())
        .collect();
    let lease = store.lease(Duration::from_millis(500)).await.unwrap();
    lease.renew().await.unwrap();
    let mut rev = Rev::ZERO;
    for some in keys.chunks(64) {
        let mut batch = Batch::new();
        for key in some {
            batch.put_leased(key, "v", lease.id());
        }
        rev = store.commit(batch).await.unwrap();
    }
    let mut detach = Batch::new();
    detach.put(&keys[7], "mine now");
    rev = rev.max(store.commit(detach).await.unwrap());
    let mut stream = store
        .watch(&Prefix::new("lease/").unwrap(), rev)
        .await
        .unwrap();

    let prefix = Prefix::new("lease/").unwrap();
    eventually("the lease runs out", async || {
        let page = store
            .list(&prefix, None, 200, Read::Linearizable)
            .await
            .unwrap();
        assert!(matches!(page.items.len(), 100 | 1), "all together");
        page.items.len() == 1
    })
    .await;
    let mut gone = BTreeMap::new();
    loop {
        match stream.next().await.unwrap() {
            Event::Delete { key, rev } => drop(gone.insert(key, rev)),
            Event::Progress(_) => break,
            event => panic!("{event:?}"),
        }
    }
    assert!(!gone.contains_key(&keys[7]) && gone.len() == 99);
    assert!(
        gone.values().all(|rev| Some(rev) == gone.values().next()),
        "in one commit"
    );

    lease.renew().await.unwrap_err();
    let mut late = Batch::new();
    late.put(&Key::new("other").unwrap(), "v")
        .put_leased(&keys[0], "v", lease.id());
    assert_eq!(store.commit(late).await, Err(CommitError::Fenced));
    let other = store
        .get(&Key::new("other").unwrap(), Read::Linearizable)
        .await
        .unwrap();
    assert_eq!(other, None);
}

pub(crate) async fn of_many_who_want_to_be_first_one_is(engine: &dyn Engine) {
    let store = engine.make();
    let key = Key::new("leader").unwrap();
    let claims = (0..50_u8).map(|n| {
        let mut batch = Batch::new();
        batch.require(&key, Condition::Absent).put(&key, vec![n]);
        let name = Key::new([b'n', n + 1]).unwrap();
        batch.put(&name, "was first");
        store.commit(batch)
    });
    let answers = futures_util::future::join_all(claims).await;
    let winners: Vec<_> = (0_u8..)
        .zip(&answers)
        .filter(|(_, answer)| answer.is_ok())
        .collect();
    assert_eq!(winners.len(), 1);
    let leader = store.get(&key, Read::Linearizable).await.unwrap().unwrap();
    assert_eq!(leader.value, [winners[0].0].as_slice());
    let names = store
        .list(&Prefix::new("n").unwrap(), None, 99, Read::Linearizable)
        .await
        .unwrap();
    assert_eq!(names.items.len(), 1, "the losers left nothing");
}

pub(crate) async fn audit_entries_of_refused_batches_do_not_exist(engine: &dyn Engine) {
    let store = engine.make();
    let draft = |body: &str| AuditDraft {
        chain: "c".to_owned(),
        body: body.as_bytes().to_vec(),
    };
    let mut good = Batch::new();
    good.audit(draft("1")).audit(draft("2"));
    let mut refused = Batch::new();
    refused
        .require(&Key::new("k").unwrap(), Condition::Present)
        .audit(draft("never"));
    let mut last = Batch::new();
    last.audit(draft("3"));
    let all = [good, refused, last].map(|batch| store.commit(batch));
    let answers = futures_util::future::join_all(all).await;
    assert_eq!(
        answers.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [true, false, true]
    );
    let page = audit_list(&*store, "c", 0, 10).await.unwrap();
    let bodies: Vec<_> = page
        .entries
        .iter()
        .map(|entry| entry.body.as_slice())
        .collect();
    assert_eq!(bodies, [b"1", b"2", b"3"]);
    check_chain(&*store, "c").await;
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

impl fmt::Debug for dyn Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

/// The suite as tests of one engine.
macro_rules! suite {
    ($name:ident, $engine:expr, $cases:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn random_operations_answer_like_the_model() {
                random_operations(&$engine, $cases);
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
            runtime().block_on(super::$check(&$engine));
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
