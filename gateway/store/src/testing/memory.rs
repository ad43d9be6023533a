//! The model: the store's contract in a map and a list, written to be read.
//!
//! It shares nothing with the embedded engine but the types, the layout of audit
//! entries and the watch log. Request ids are never forgotten, history neither.
//! A lease that runs out is noticed by the next call.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use model::audit_chain::{AuditChainKey, Head};

use crate::audit::{self, Sealer};
use crate::batch::Op;
use crate::history::{Change, History, HistoryLimits};
use crate::lease::{LeaseControl, LeaseEnded, LeaseTable};
use crate::store::{MAX_PAGE_BYTES, MAX_PAGE_ITEMS};
use crate::{
    Batch, Caps, CommitError, Condition, Item, Key, Lease, LeaseId, Page, Prefix, Read, ReadError,
    RequestId, Rev, Store, WatchStream,
};

/// A store in memory.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    audit_key: AuditChainKey,
    state: Mutex<State>,
    history: Arc<History>,
    leases: LeaseTable,
}

#[derive(Default)]
struct State {
    rev: u64,
    items: BTreeMap<Key, (Item, Option<LeaseId>)>,
    requests: BTreeMap<RequestId, Rev>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new(audit_key: AuditChainKey) -> Self {
        let limits = HistoryLimits {
            changes: usize::MAX,
            bytes: usize::MAX,
        };
        Self(Arc::new(Inner {
            audit_key,
            state: Mutex::default(),
            history: Arc::new(History::new(Rev::ZERO, limits)),
            leases: LeaseTable::default(),
        }))
    }

    /// The state, after leases that have run out.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.lock();
        for id in self.0.leases.take_expired(Instant::now()) {
            self.0.end_lease(&mut state, id);
        }
        state
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn get(&self, key: &Key, read: Read) -> Result<Option<Item>, ReadError> {
        let state = self.state();
        state.check_reached(read)?;
        Ok(state.items.get(key).map(|(item, _)| item.clone()))
    }

    async fn list(
        &self,
        prefix: &Prefix,
        after: Option<&Key>,
        limit: usize,
        read: Read,
    ) -> Result<Page, ReadError> {
        let state = self.state();
        state.check_reached(read)?;
        let mut page = Page {
            items: Vec::new(),
            rev: Rev(state.rev),
            more: false,
        };
        let mut bytes = 0;
        for (key, (item, _)) in &state.items {
            if !prefix.contains(key.as_bytes()) || after.is_some_and(|after| key <= after) {
                continue;
            }
            if page.items.len() == limit.clamp(1, MAX_PAGE_ITEMS) || bytes >= MAX_PAGE_BYTES {
                page.more = true;
                break;
            }
            bytes += item.value.len();
            page.items.push((key.clone(), item.clone()));
        }
        Ok(page)
    }

    async fn commit(&self, batch: Batch) -> Result<Rev, CommitError> {
        batch.check_limits()?;
        let mut state = self.state();
        let state = &mut *state;
        if let Some(rev) = batch.request_id.and_then(|id| state.requests.get(&id)) {
            return Ok(*rev);
        }
        for (key, condition) in &batch.conditions {
            let item = state.items.get(key).map(|(item, _)| item);
            let holds = match condition {
                Condition::Absent => item.is_none(),
                Condition::Present => item.is_some(),
                Condition::RevIs(rev) => item.is_some_and(|item| item.rev == *rev),
            };
            if !holds {
                return Err(CommitError::Conflict { key: key.clone() });
            }
        }
        let mut changes = Vec::new();
        let rev = Rev(state.rev + 1);
        let mut items = state.items.clone();
        for (key, op) in batch.ops {
            match op {
                Op::Put {
                    lease: Some(id), ..
                } if !self.0.leases.is_live(id, Instant::now()) => {
                    return Err(CommitError::Fenced);
                }
                Op::Put { value, lease } => {
                    changes.push(Change {
                        key: key.clone(),
                        rev,
                        value: Some(value.clone()),
                    });
                    items.insert(key, (Item { value, rev }, lease));
                }
                Op::Delete => {
                    if items.remove(&key).is_some() {
                        changes.push(Change {
                            key,
                            rev,
                            value: None,
                        });
                    }
                }
            }
        }
        let mut sealer = Sealer::new(&self.0.audit_key);
        for draft in &batch.audit {
            let head = |key: &Key| match items.get(key) {
                Some((item, _)) => audit::decode_head(key, &item.value),
                None => Ok(Head::EMPTY),
            };
            sealer
                .seal(draft, head)
                .expect("only this store writes heads");
        }
        for (key, value) in sealer.finish() {
            changes.push(Change {
                key: key.clone(),
                rev,
                value: Some(value.clone()),
            });
            items.insert(key, (Item { value, rev }, None));
        }
        state.items = items;
        if !changes.is_empty() {
            state.rev = rev.0;
            self.0.history.publish(changes, rev);
        }
        if let Some(id) = batch.request_id {
            state.requests.insert(id, Rev(state.rev));
        }
        Ok(Rev(state.rev))
    }

    async fn watch(&self, prefix: &Prefix, from: Rev) -> Result<WatchStream, ReadError> {
        Ok(self.0.history.watch(prefix.clone(), from))
    }

    async fn lease(&self, ttl: Duration) -> Result<Lease, ReadError> {
        let id = self.0.leases.grant(ttl, Instant::now());
        let control: Arc<dyn LeaseControl> = self.0.clone();
        Ok(Lease::new(id, ttl, control))
    }

    fn caps(&self) -> Caps {
        Caps {
            engine: "memory",
            durable: false,
            shared: false,
        }
    }
}

impl State {
    fn check_reached(&self, read: Read) -> Result<(), ReadError> {
        match read {
            Read::Cached {
                at_least: Some(wanted),
            } if wanted.0 > self.rev => Err(ReadError::Behind {
                wanted,
                reached: Rev(self.rev),
            }),
            Read::Cached { .. } | Read::Linearizable => Ok(()),
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_lease(&self, state: &mut State, id: LeaseId) {
        let rev = Rev(state.rev + 1);
        let hangs = |(_, lease): &(Item, Option<LeaseId>)| *lease == Some(id);
        let gone: Vec<Key> = state
            .items
            .iter()
            .filter(|(_, it)| hangs(it))
            .map(|(key, _)| key.clone())
            .collect();
        if gone.is_empty() {
            return;
        }
        state.items.retain(|_, it| !hangs(it));
        state.rev = rev.0;
        let changes = gone
            .into_iter()
            .map(|key| Change {
                key,
                rev,
                value: None,
            })
            .collect();
        self.history.publish(changes, rev);
    }
}

impl LeaseControl for Inner {
    fn renew(&self, id: LeaseId) -> Result<(), LeaseEnded> {
        self.leases.renew(id, Instant::now())
    }

    fn end(&self, id: LeaseId) {
        let mut state = self.lock();
        if self.leases.end(id) {
            self.end_lease(&mut state, id);
        }
    }
}
