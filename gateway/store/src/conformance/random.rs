//! The same random operations on an engine and on the model.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt as _, StreamExt as _};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{Engine, audit_key, check_chain, eventually, runtime};
use crate::testing::MemoryStore;
use crate::{
    AuditDraft, Batch, CommitError, Condition, Event, Key, Lease, Page, Prefix, Read, RequestId,
    Rev, Store, WatchStream, audit_list,
};

/// No lease runs out by itself here.
const LONG: Duration = Duration::from_secs(3600);

pub(super) fn random_operations(engine: &dyn Engine, cases: u32) {
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
    streams: Vec<WatchStream>,
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

    async fn list(&self, prefix: &Prefix, after: Option<&Key>, limit: usize) -> Page {
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
