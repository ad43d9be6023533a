//! The store as it was, and a gateway that goes on with it.

use std::collections::BTreeMap;

use gateway_core::identity::Fence;
use model::host::Membership;
use model::ids::HostId;

use super::Store;
use crate::world::World;

/// A backup, and what was true when it was made.
#[derive(Clone)]
pub(super) struct Backup {
    store: Store,
    proof: BTreeMap<HostId, (usize, u64)>,
}

impl World {
    /// An operator makes one; the one before is thrown away.
    pub(in crate::world) fn back_up(&mut self) {
        self.gateway.backup = Some(Backup {
            store: self.gateway.store.clone(),
            proof: self.truth.proof.clone(),
        });
        self.note(|| "a backup is made".into());
    }

    /// The gateway is lost with its disk, and what the backup holds is put in place. Whatever
    /// was decided since is undone, tokens that were made since are gone.
    pub(in crate::world) fn restore(&mut self) {
        let Some(backup) = self.gateway.backup.clone() else {
            return;
        };
        self.gateway.store = backup.store;
        self.truth.restored(&self.gateway.store, backup.proof);
        // Revisions are microseconds after a restore, and fewer before: no store commits a
        // million times a second.
        let micros = self.true_time().as_millis().unsigned_abs() * 1_000;
        self.gateway.fence = Fence::after(micros);
        self.note(|| "restored from the backup".into());
        self.new_token();
        let hosts = self.gateway.store.hosts.values();
        let suspects = hosts.filter(|host| host.membership == Membership::Quarantined);
        for suspect in suspects.map(|host| host.id).collect::<Vec<_>>() {
            self.will_decide(suspect);
        }
    }
}
