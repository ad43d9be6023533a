//! What only the world knows, and the invariants that hold the product against it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use agent_core::{Agent, Standing, Waiting, bounds};
use gateway_core::clone::Evidence;
use gateway_core::host::Host;
use gateway_core::identity::Proven;
use gateway_core::seen::Seen;
use model::host::HostEvent;
use model::ids::{AgentTokenId, HostId};
use protocol::v1::Hello;

use super::gateway::Store;
use super::{GRACE, LOOK, World};
use crate::Violation;
use crate::queue::{HOUR, Ms};
use crate::wire::Key;

/// Grants that one machine stores in an hour, at most: its certificate, a key of its own
/// in quarantine, another host's identity, and answers that came twice.
const GRANTS_AN_HOUR: u32 = 5;
/// The longest "come back in" of a refusal.
const LONGEST_RETRY: Duration = Duration::from_secs(300);

/// What is true, whatever anybody believes.
#[derive(Default)]
pub(super) struct Truth {
    /// Disks: which each was copied from.
    disks: Vec<Option<usize>>,
    /// Whether any was.
    copied: bool,
    /// Which key has which generation, for ever.
    keys: BTreeMap<(HostId, u64), Key>,
    /// On which disk a host's newest counter was confirmed, and which.
    pub(super) proof: BTreeMap<HostId, (usize, u64)>,
    /// Tokens that an operator has revoked.
    pub(super) revoked: BTreeSet<AgentTokenId>,
    /// Hosts that have left the fleet.
    pub(super) retired: BTreeSet<HostId>,
    /// Hosts whose retirement a restore has undone. Their agents were told, and ask
    /// again only now and then.
    reinstated: BTreeSet<HostId>,
    /// What was found broken first.
    pub(super) broken: Option<Violation>,
}

impl Truth {
    /// A disk, new or copied.
    pub(super) fn disk(&mut self, from: Option<usize>) -> usize {
        self.copied |= from.is_some();
        self.disks.push(from);
        self.disks.len() - 1
    }

    /// The gateway has forgotten what was decided and observed after the backup.
    pub(super) fn restored(&mut self, store: &Store, proof: BTreeMap<HostId, (usize, u64)>) {
        let revoked = store.tokens.iter().filter(|it| it.1.revoked_at.is_some());
        self.revoked = revoked.map(|it| *it.0).collect();
        let retired = store.hosts.values().filter(|host| !host.is_live());
        let retired: BTreeSet<_> = retired.map(|host| host.id).collect();
        self.reinstated.extend(self.retired.difference(&retired));
        self.retired = retired;
        self.proof = proof;
    }

    fn violate(&mut self, invariant: &'static str, detail: String) {
        self.broken.get_or_insert(Violation {
            invariant,
            detail,
            at: 0,
            step: 0,
        });
    }
}

impl World {
    pub(super) fn check_counters(&mut self, host: HostId, seen: &Seen) {
        if let Some(before) = self.gateway.store.seen.get(&host)
            && (seen.issued < before.issued
                || seen.confirmed < before.confirmed
                || seen.confirmed > seen.issued)
        {
            let detail = format!("{host}: {before:?} became {seen:?}");
            self.truth.violate("counters never go back", detail);
        }
    }

    pub(super) fn check_generation(&mut self, host: HostId, generation: u64, key: Key) {
        let known = self.truth.keys.get(&(host, generation)).copied();
        let newer = self.truth.keys.range((host, generation)..=(host, u64::MAX));
        let newer = newer.map(|((_, newer), _)| *newer).next_back();
        let detail = || format!("{host} generation {generation}");
        match (known, newer) {
            (Some(owner), _) if owner != key => {
                let detail = detail();
                self.truth
                    .violate("a generation belongs to one key", detail);
            }
            (None, Some(newer)) => {
                let detail = format!("{} after {newer}", detail());
                self.truth.violate("generations never go back", detail);
            }
            (Some(_), _) => {}
            (None, None) => drop(self.truth.keys.insert((host, generation), key)),
        }
    }

    pub(super) fn check_entry(&mut self, host: &Host, key: Key, token: AgentTokenId) {
        if self.truth.revoked.contains(&token) {
            let detail = format!("{} with {token}", host.id);
            self.truth
                .violate("nobody joins with a revoked token", detail);
        }
        if let Some(other) = self.by_key(key)
            && other.id != host.id
        {
            let detail = format!("{} and {}", other.id, host.id);
            self.truth.violate("one key is one host", detail);
        }
    }

    pub(super) fn check_accusation(&mut self, l: usize, proven: &Proven, evidence: &Evidence) {
        if !self.truth.copied {
            let detail = format!(
                "machine {}, {}: {evidence}",
                self.links[l].machine, proven.host
            );
            self.truth
                .violate("nobody is accused without a copy", detail);
        }
    }

    pub(super) fn check_arrival(
        &mut self,
        m: usize,
        host: HostId,
        hello: &Hello,
        events: &[HostEvent],
    ) {
        let disk = self.machines[m].disk.branch;
        if let Some(&(proved, counter)) = self.truth.proof.get(&host)
            && hello.counter < counter
        {
            let detail = format!(
                "machine {m} (disk {disk}) is welcome as {host}; disk {proved} has confirmed \
                 {counter}, it presents {}",
                hello.counter
            );
            self.truth
                .violate("no two machines act as one host", detail);
        }
        let mine = format!("{:x}", self.machines[m].boot);
        for event in events {
            if let HostEvent::Rebooted { from, to } = event
                && (*from == mine || *to != mine)
            {
                let detail = format!("{host}: {from} to {to}");
                self.truth
                    .violate("every reboot in a history was one", detail);
            }
        }
    }

    pub(super) fn check_welcome(&mut self, host: HostId) {
        if self.truth.retired.contains(&host) {
            self.truth
                .violate("a retired host is never welcome", host.to_string());
        }
    }

    pub(super) fn check_grace(&mut self, host: HostId, uptime: Duration, heard: bool) {
        if uptime < GRACE && !heard {
            let invariant = "nobody is unreachable inside the grace period";
            self.truth.violate(invariant, host.to_string());
        }
    }

    pub(super) fn check_grants(&mut self, m: usize) {
        let hour = self.now / HOUR;
        let (when, grants) = &mut self.machines[m].grants;
        *grants = if *when == hour { *grants + 1 } else { 1 };
        *when = hour;
        if *grants > GRANTS_AN_HOUR {
            let detail = format!("machine {m} has stored {grants} grants in hour {hour}");
            self.truth
                .violate("renewals do not follow one another without end", detail);
        }
    }

    /// The bound on every machine that nothing keeps.
    pub(super) fn check_bounds(&mut self) {
        for m in 0..self.machines.len() {
            let free = self.nothing_keeps(m);
            let away = free && !self.is_linked(m);
            let since = self.machines[m].away_since.unwrap_or(self.now);
            self.machines[m].away_since = away.then_some(since);
            let beat = Duration::from_millis(self.gateway.beat.into());
            let bound = if self.machines[m].shy {
                bounds::reconnect_after_refusal(beat, LONGEST_RETRY)
            } else {
                bounds::reconnect(beat, Duration::from_secs(30))
            };
            let limit: Ms = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX) + 2 * LOOK;
            if away && self.now - since > limit {
                let agent = self.machines[m].agent.as_ref();
                let standing = agent.map(Agent::standing);
                let detail = format!("machine {m} away for more than {bound:?}: {standing:?}");
                self.truth.violate(
                    "a host that nothing keeps is linked within the bound",
                    detail,
                );
            }
        }
    }

    /// Whether everything is there that it takes: power, a path, a gateway, and an
    /// identity or a token that the operators mean to accept.
    fn nothing_keeps(&self, m: usize) -> bool {
        let machine = &self.machines[m];
        if !self.gateway.up || !machine.path || machine.agent.is_none() {
            return false;
        }
        let Some(held) = machine.disk.held else {
            let known = self.gateway.store.tokens.contains_key(&machine.token);
            return known && !self.truth.revoked.contains(&machine.token);
        };
        let standing = machine.agent.as_ref().map(Agent::standing);
        let told = matches!(
            standing,
            Some(Standing::Waiting {
                why: Waiting::Retired,
                ..
            })
        );
        if told && self.truth.reinstated.contains(&held.host) {
            return false;
        }
        let record = self.gateway.store.hosts.get(&held.host);
        // A host that a restore has forgotten is let in by its certificate alone, which
        // speaks for it until it expires. After that an operator resets its agent.
        if record.is_none() && held.own.not_after < self.wall() {
            return false;
        }
        let in_force = |generation| {
            record.is_none_or(|host| {
                host.is_live() && host.accepts(self.gateway.workspace, generation).is_some()
            })
        };
        let rivals = self.machines.iter().filter_map(|other| other.disk.held);
        let rivals = rivals.filter(|it| it.host == held.host && in_force(it.generation));
        in_force(held.generation) && rivals.count() == 1
    }

    /// Whether agent and gateway both say so.
    fn is_linked(&self, m: usize) -> bool {
        let machine = &self.machines[m];
        let standing = machine.agent.as_ref().map(Agent::standing);
        let live = machine
            .disk
            .held
            .and_then(|held| self.gateway.live.get(&held.host));
        matches!(standing, Some(Standing::Linked { .. }))
            && live.is_some_and(|&l| self.links[l].machine == m)
    }
}
