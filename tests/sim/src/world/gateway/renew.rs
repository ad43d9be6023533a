//! Certificates for machines that have one: the next, a first one in quarantine, or
//! another host's by an operator's decision.

use gateway_core::host::{Host, MOST_CLONES};
use gateway_core::identity::{Asking, Identity, Proven, place};
use gateway_core::refuse::{LONG, refusal};
use gateway_core::seen::Seen;
use model::host::CloneRepair;
use model::ids::HostId;
use protocol::v1::{Grant, RefusalCode, Renew, gateway_frame};

use super::{not_after, trust};
use crate::queue::HOUR;
use crate::wire::{Certificate, Key};
use crate::world::{AUTHORITY, Ev, World};

impl World {
    /// Signs.
    pub(super) fn issue(
        &mut self,
        host: HostId,
        generation: u64,
        key: Key,
        counter: u64,
    ) -> (Identity, Grant) {
        self.check_generation(host, generation, key);
        let now = self.wall();
        let certificate = Certificate {
            key,
            not_before: now,
            not_after: not_after(now),
        };
        let identity = Identity {
            generation,
            spki_sha256: key.spki(),
            not_after: certificate.not_after,
            issuer: AUTHORITY,
            previous: None,
        };
        let grant = Grant {
            deployment: String::new(),
            workspace: self.gateway.workspace.to_string(),
            host: host.to_string(),
            generation,
            certificate: certificate.encode(),
            trust: Some(trust()),
            counter,
            server_time_ms: now.as_millis(),
        };
        (identity, grant)
    }

    /// The live host whose identity has this key.
    pub(in crate::world) fn by_key(&self, key: Key) -> Option<Host> {
        let hosts = self.gateway.store.hosts.values();
        let has_key = |host: &&Host| {
            host.is_live() && host.identity.is_some_and(|it| it.spki_sha256 == key.spki())
        };
        hosts.copied().find(|host| has_key(&host))
    }

    /// A suspected copy shows a key of its own.
    pub(super) fn quarantine(&mut self, l: usize, proven: &Proven, renew: &Renew) {
        let Some(key) = Key::of_request(&renew.csr) else {
            return;
        };
        let known = self
            .by_key(key)
            .filter(|host| host.clone_of == Some(proven.host));
        let held = self.gateway.store.hosts.values();
        let held = held.filter(|host| host.clone_of == Some(proven.host));
        if known.is_none() && held.count() >= MOST_CLONES {
            return self.refuse(l, refusal(RefusalCode::Superseded, "", LONG, self.wall()));
        }
        let original = self.gateway.store.hosts.get(&proven.host).copied();
        let suspect = known.unwrap_or_else(|| {
            let id = HostId::new(self.wall(), self.rng.bytes());
            Host::suspect(id, proven, original.as_ref())
        });
        let fence = self.gateway.fence;
        let place = place(suspect.identity.as_ref(), &key.spki(), Asking::Heir, fence);
        let Some(place) = place else { return };
        let (identity, grant) = self.issue(suspect.id, place.generation, key, 1);
        let Some(named) = suspect.named(identity) else {
            return;
        };
        let now = self.wall();
        let store = &mut self.gateway.store;
        store.hosts.insert(named.id, named);
        store
            .seen
            .entry(named.id)
            .or_insert_with(|| Seen::never(now));
        self.tell(l, gateway_frame::Body::Renewed(grant));
        self.will_decide(named.id);
    }

    /// An operator will look at this suspect.
    pub(super) fn will_decide(&mut self, suspect: HostId) {
        let decision = match self.rng.below(10) {
            0..=1 => CloneRepair::Replace,
            2..=3 => CloneRepair::Merge,
            _ => CloneRepair::Split,
        };
        let when = self.now + self.rng.between(HOUR / 60, HOUR);
        self.queue.push(when, Ev::Decide(suspect, decision));
    }

    /// A certificate for the same host, or for the one it was decided to become.
    pub(super) fn renew(&mut self, l: usize, proven: &Proven, renew: &Renew, issued: u64) {
        let (Some(key), Some(own)) = (
            Key::of_request(&renew.csr),
            self.gateway.store.hosts.get(&proven.host).copied(),
        ) else {
            return;
        };
        let (target, asking) = match own.pending_adoption {
            Some(original) => (original, Asking::Heir),
            None => (
                proven.host,
                Asking::Holder {
                    generation: proven.generation,
                },
            ),
        };
        let Some(host) = self.gateway.store.hosts.get(&target).copied() else {
            return;
        };
        if !host.is_live() {
            let refused = refusal(RefusalCode::Invalid, "", LONG, self.wall());
            return self.tell(l, gateway_frame::Body::RenewRefused(refused));
        }
        let fence = self.gateway.fence;
        let Some(place) = place(host.identity.as_ref(), &key.spki(), asking, fence) else {
            let refused = refusal(RefusalCode::Invalid, "", LONG, self.wall());
            return self.tell(l, gateway_frame::Body::RenewRefused(refused));
        };
        let counter = match asking {
            Asking::Heir => self.inherit(l, target, place.again),
            Asking::Holder { .. } => issued,
        };
        let (identity, grant) = self.issue(target, place.generation, key, counter);
        let identity = Identity {
            previous: place.previous,
            ..identity
        };
        let store = &mut self.gateway.store;
        store.hosts.insert(
            target,
            Host {
                identity: Some(identity),
                ..host
            },
        );
        if asking == Asking::Heir
            && let Some(own) = store.hosts.get_mut(&proven.host)
        {
            own.adopting_generation = Some(place.generation);
        }
        self.tell(l, gateway_frame::Body::Renewed(grant));
        // The holder of what it took over is sent away.
        self.nudge(target);
    }

    /// The counter with which a machine begins its life as another host.
    fn inherit(&mut self, l: usize, target: HostId, again: bool) -> u64 {
        let Some(seen) = self.gateway.store.seen.get(&target).cloned() else {
            return 1;
        };
        if again {
            return seen.issued;
        }
        let seen = seen.taken_over();
        let counter = seen.issued;
        let branch = self.machines[self.links[l].machine].disk.branch;
        self.truth.proof.insert(target, (branch, counter));
        self.write(target, seen);
        counter
    }
}
