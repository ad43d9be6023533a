//! Power, mirrored in memory: a part of the catalog.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use gateway_store::{Item, Key, Record as _};
use model::ids::{HostId, PowerBulkId, PowerOperationId, WorkspaceId};
use model::power::PowerState;

use super::records::{
    PowerBulkRecordV1, PowerOperationRecordV1, PowerSeenRecordV1, PowerTargetRecordV1,
};
use crate::state::catalog::{Kept, keep};
use crate::state::records::key_of;

/// See the module's head.
#[derive(Debug, Default)]
pub struct PowerTables {
    /// By which provider hosts are turned on and off.
    pub targets: HashMap<HostId, Kept<PowerTargetRecordV1>>,
    /// What providers saw.
    pub seen: HashMap<HostId, Kept<PowerSeenRecordV1>>,
    /// Operations.
    pub operations: BTreeMap<PowerOperationId, Kept<PowerOperationRecordV1>>,
    /// Many hosts at once.
    pub bulks: BTreeMap<PowerBulkId, Kept<PowerBulkRecordV1>>,
    /// Operations that go on, by host, oldest first.
    open: BTreeMap<HostId, BTreeSet<PowerOperationId>>,
    of_bulk: HashMap<PowerBulkId, BTreeSet<PowerOperationId>>,
    open_bulks: BTreeSet<PowerBulkId>,
}

impl PowerTables {
    /// What goes on or waits on a host, oldest first.
    pub fn open_on(&self, host: HostId) -> impl Iterator<Item = &Kept<PowerOperationRecordV1>> {
        let ids = self.open.get(&host).into_iter().flatten();
        ids.filter_map(|id| self.operations.get(id))
    }

    /// Whether a host's silence is no surprise: it is being turned off or restarted, or is off.
    pub fn explains_absence(&self, host: HostId) -> bool {
        let is_down = |state| matches!(state, PowerState::Off | PowerState::PoweringOff);
        let seen = self.seen.get(&host).and_then(|kept| kept.seen.as_ref());
        seen.is_some_and(|seen| is_down(seen.state))
            || self.open_on(host).any(|record| {
                record.operation.action.interrupts() && !record.operation.is_untouched()
            })
    }

    /// Everything that goes on or waits; what is first on its host comes with `true`.
    pub fn open(&self) -> impl Iterator<Item = (bool, &Kept<PowerOperationRecordV1>)> {
        self.open.values().flat_map(|ids| {
            let of_host = ids.iter().filter_map(|id| self.operations.get(id));
            of_host.enumerate().map(|(place, kept)| (place == 0, kept))
        })
    }

    /// Operations of a bulk.
    pub fn of_bulk(
        &self,
        bulk: PowerBulkId,
    ) -> impl Iterator<Item = &Kept<PowerOperationRecordV1>> {
        let ids = self.of_bulk.get(&bulk).into_iter().flatten();
        ids.filter_map(|id| self.operations.get(id))
    }

    /// Bulks that go on.
    pub fn open_bulks(&self) -> impl Iterator<Item = &Kept<PowerBulkRecordV1>> {
        self.open_bulks.iter().filter_map(|id| self.bulks.get(id))
    }

    /// An operation of a workspace; those elsewhere look absent.
    pub fn operation_in(
        &self,
        workspace: WorkspaceId,
        id: PowerOperationId,
    ) -> Option<&Kept<PowerOperationRecordV1>> {
        let found = self.operations.get(&id);
        found.filter(|kept| kept.workspace == workspace)
    }

    /// A bulk of a workspace; those elsewhere look absent.
    pub fn bulk_in(
        &self,
        workspace: WorkspaceId,
        id: PowerBulkId,
    ) -> Option<&Kept<PowerBulkRecordV1>> {
        self.bulks
            .get(&id)
            .filter(|kept| kept.workspace == workspace)
    }

    /// Puts one item in, or takes it out. Answers whether its kind is one of these.
    pub(crate) fn take_in(&mut self, kind: &str, key: &Key, id: &str, item: Option<&Item>) -> bool {
        match kind {
            PowerTargetRecordV1::KIND => {
                keep(&mut self.targets, key, id, item);
            }
            PowerSeenRecordV1::KIND => {
                keep(&mut self.seen, key, id, item);
            }
            PowerOperationRecordV1::KIND => {
                let (old, new) = keep(&mut self.operations, key, id, item);
                let gone = old.as_ref().filter(|_| new.is_none());
                if let Some((id, bulk)) = gone.and_then(|old| Some((old.id, old.bulk?))) {
                    self.of_bulk.entry(bulk).or_default().remove(&id);
                }
                let is_open = |record: &PowerOperationRecordV1| !record.operation.is_over();
                match new {
                    Some(new) => {
                        if let Some(bulk) = new.bulk {
                            self.of_bulk.entry(bulk).or_default().insert(new.id);
                        }
                        if is_open(&new) {
                            self.open.entry(new.host).or_default().insert(new.id);
                        } else {
                            self.close(new.host, new.id);
                        }
                    }
                    None => {
                        if let Some(old) = old {
                            self.close(old.host, old.id);
                        }
                    }
                }
            }
            PowerBulkRecordV1::KIND => {
                let (old, new) = keep(&mut self.bulks, key, id, item);
                match new {
                    Some(new) if new.ended.is_none() => {
                        self.open_bulks.insert(new.id);
                    }
                    Some(new) => {
                        self.open_bulks.remove(&new.id);
                    }
                    None => {
                        if let Some(old) = old {
                            self.open_bulks.remove(&old.id);
                            self.of_bulk.remove(&old.id);
                        }
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Keys of everything held of a kind; nothing if it is none of these.
    pub(crate) fn keys_of_kind(&self, kind: &str) -> Vec<Key> {
        match kind {
            PowerTargetRecordV1::KIND => self
                .targets
                .keys()
                .map(key_of::<PowerTargetRecordV1>)
                .collect(),
            PowerSeenRecordV1::KIND => self.seen.keys().map(key_of::<PowerSeenRecordV1>).collect(),
            PowerOperationRecordV1::KIND => self
                .operations
                .keys()
                .map(key_of::<PowerOperationRecordV1>)
                .collect(),
            PowerBulkRecordV1::KIND => self.bulks.keys().map(key_of::<PowerBulkRecordV1>).collect(),
            _ => Vec::new(),
        }
    }

    fn close(&mut self, host: HostId, id: PowerOperationId) {
        if let Some(open) = self.open.get_mut(&host) {
            open.remove(&id);
            if open.is_empty() {
                self.open.remove(&host);
            }
        }
    }
}
