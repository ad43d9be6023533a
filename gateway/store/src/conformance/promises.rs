//! What random operations do not reach: limits, races, and time.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt as _;

use super::{Engine, check_chain, eventually};
use crate::{
    AuditDraft, Batch, CommitError, Condition, Event, Key, Prefix, Read, ReadError, Rev, audit_list,
};

pub(super) async fn limits_are_refused(engine: &dyn Engine) {
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

pub(super) async fn large_pages_are_cut_short(engine: &dyn Engine) {
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

pub(super) async fn a_revision_from_elsewhere_is_noticed(engine: &dyn Engine) {
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

pub(super) async fn a_lease_that_runs_out_takes_its_keys_along(engine: &dyn Engine) {
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

pub(super) async fn of_many_who_want_to_be_first_one_is(engine: &dyn Engine) {
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

pub(super) async fn audit_entries_of_refused_batches_do_not_exist(engine: &dyn Engine) {
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
