//! The gateway: its store, the links it serves, and what it does about frames.
//!
//! Writes happen at once and whole; the order of steps is the gateway's own.

mod backup;
mod enrol;
mod join;
mod renew;

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_core::admission::TokenFacts;
use gateway_core::host::{Host, repair};
use gateway_core::identity::{Fence, Proven};
use gateway_core::liveness::{Heard, connectivity};
use gateway_core::seen::{End, Seen};
use gateway_core::session::{Tell, Told, Wanted, look};
use model::Timestamp;
use model::host::{Carrier, CloneRepair, Connectivity};
use model::ids::{AgentTokenId, HostId, WorkspaceId};
use model::tenancy::LivenessThresholds;
use protocol::v1::{
    AgentFrame, CounterStored, EnrolRequest, Heartbeat, HeartbeatAck, Refusal, Reidentify,
    Settings, Trust, agent_frame, gateway_frame,
};

use self::backup::Backup;
use super::network::Way;
use super::{ADDRESS, AUTHORITY, EPOCH, Ev, GRACE, LIFETIME, World};
use crate::Break;
use crate::queue::{HOUR, MINUTE, Ms};
use crate::wire::{Packet, read};

/// What the gateway makes of a connection.
pub(super) enum Side {
    /// It is none yet, or none any more.
    Closed,
    /// The first word is awaited.
    Hello,
    /// It looks like a copy and was asked for a key of its own.
    Asked(Proven),
    /// Welcome.
    Serving(Box<Session>),
}

/// A welcomed host's link.
pub(super) struct Session {
    pub(super) proven: Proven,
    /// Newest counter sent.
    pub(super) issued: u64,
    pub(super) instance: Vec<u8>,
    pub(super) boot: String,
    told: Told,
}

/// What survives a kill.
#[derive(Clone, Default)]
pub(super) struct Store {
    pub(super) hosts: BTreeMap<HostId, Host>,
    pub(super) seen: BTreeMap<HostId, Seen>,
    pub(super) tokens: BTreeMap<AgentTokenId, TokenFacts>,
}

/// The gateway's process, its store, and the deployment's settings.
pub(super) struct Gateway {
    pub(super) workspace: WorkspaceId,
    pub(super) up: bool,
    /// When this life of it began.
    pub(super) started: Ms,
    /// Its clock minus true time, in milliseconds.
    pub(super) skew: i64,
    pub(super) store: Store,
    /// Keeps what this life of the store gives out apart from what earlier ones gave.
    pub(super) fence: Fence,
    /// What a restore would bring back.
    backup: Option<Backup>,
    /// What operators install machines with.
    pub(super) newest_token: AgentTokenId,
    /// The link of each linked host.
    pub(super) live: BTreeMap<HostId, usize>,
    /// When each was heard in this life.
    heard: BTreeMap<HostId, Ms>,
    /// Milliseconds between heartbeats.
    pub(super) beat: u32,
}

impl Gateway {
    pub(super) fn new(workspace: WorkspaceId, token: AgentTokenId, beat: u32) -> Self {
        Self {
            workspace,
            up: true,
            started: 0,
            skew: 0,
            store: Store {
                tokens: BTreeMap::from([(token, fresh_token())]),
                ..Store::default()
            },
            fence: Fence::NONE,
            backup: None,
            newest_token: token,
            live: BTreeMap::new(),
            heard: BTreeMap::new(),
            beat,
        }
    }

    pub(super) fn thresholds(&self) -> LivenessThresholds {
        LivenessThresholds::for_heartbeat(Duration::from_millis(self.beat.into()))
    }
}

/// A token as operators make it: good for longer than a world lasts.
fn fresh_token() -> TokenFacts {
    TokenFacts {
        expires_at: Timestamp::from_millis(EPOCH).saturating_add(Duration::from_secs(9 << 30)),
        revoked_at: None,
        use_limit: None,
        uses: 0,
    }
}

/// The trust bundle, which does not change here.
fn trust() -> Trust {
    Trust {
        version: 1,
        authorities: Vec::new(),
    }
}

impl World {
    /// The time by the gateway's clock.
    pub(super) fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.true_time().as_millis() + self.gateway.skew)
    }

    /// Killed: links and what was heard are gone, the store stays.
    pub(super) fn gateway_down(&mut self) {
        self.gateway.up = false;
        self.gateway.live.clear();
        self.gateway.heard.clear();
        for l in 0..self.links.len() {
            if !matches!(self.links[l].side, Side::Closed) {
                self.links[l].side = Side::Closed;
                self.queue.push(self.now + super::IDLE, Ev::Idle(l));
            }
        }
    }

    /// Started on the store it left.
    pub(super) fn gateway_up(&mut self) {
        (self.gateway.up, self.gateway.started) = (true, self.now);
        if self.options.broken == Some(Break::RevocationForgotten) {
            for token in self.gateway.store.tokens.values_mut() {
                token.revoked_at = None;
            }
        }
        self.note(|| "gateway up".into());
    }

    /// An operator makes another token, for machines from now on.
    pub(super) fn new_token(&mut self) {
        let id = AgentTokenId::new(self.wall(), self.rng.bytes());
        self.gateway.store.tokens.insert(id, fresh_token());
        self.gateway.newest_token = id;
    }

    /// An operator revokes one.
    pub(super) fn revoke(&mut self, id: AgentTokenId) {
        let now = self.wall();
        if let Some(token) = self.gateway.store.tokens.get_mut(&id) {
            token.revoked_at.get_or_insert(now);
        }
        self.truth.revoked.insert(id);
        self.note(|| format!("{id} is revoked"));
    }

    /// An operator takes a host out of the fleet.
    pub(super) fn retire(&mut self, id: HostId) {
        let now = self.wall();
        if let Some(host) = self.gateway.store.hosts.get_mut(&id)
            && let Some(gone) = host.retired(now)
        {
            *host = gone;
            self.truth.retired.insert(id);
            self.note(|| format!("{id} is retired"));
            self.nudge(id);
        }
    }

    /// An operator decides about a suspected clone.
    pub(super) fn decide(&mut self, newcomer: HostId, decision: CloneRepair) {
        // What is decided is forgotten where it hurts most: carried out in a life that a
        // backup from just before knows nothing of.
        if decision != CloneRepair::Split && self.rng.percent(50) {
            self.back_up();
            let when = self.now + self.rng.between(MINUTE, 10 * MINUTE);
            self.queue.push(when, Ev::Restore);
        }
        let hosts = &self.gateway.store.hosts;
        let Some(host) = hosts.get(&newcomer).copied() else {
            return;
        };
        let original = host.clone_of.and_then(|id| hosts.get(&id)).copied();
        let linked = host
            .clone_of
            .is_some_and(|id| self.gateway.live.contains_key(&id));
        let Ok(done) = repair(
            host,
            original,
            linked,
            decision,
            self.gateway.fence,
            self.wall(),
        ) else {
            return;
        };
        self.note(|| format!("{newcomer}: {decision:?}"));
        for changed in [Some(done.newcomer), done.original].into_iter().flatten() {
            self.gateway.store.hosts.insert(changed.id, changed);
            self.nudge(changed.id);
        }
    }

    /// Compares what should be with what a linked agent was told, and tells the rest.
    fn nudge(&mut self, id: HostId) {
        let Some(&l) = self.gateway.live.get(&id) else {
            return;
        };
        let (now, dice) = (self.wall(), self.rng.roll());
        let (Some(host), Side::Serving(session)) =
            (self.gateway.store.hosts.get(&id), &mut self.links[l].side)
        else {
            return;
        };
        let wanted = Wanted {
            host,
            heartbeat_ms: Some(self.gateway.beat),
            trust_version: 1,
            authority: AUTHORITY,
            dice: u32::try_from(dice >> 32).unwrap_or(0),
            now,
        };
        match look(&mut session.told, &session.proven, &wanted) {
            Err(refusal) => self.dismiss(l, refusal),
            Ok(news) => {
                for tell in news {
                    self.tell(l, worded(&tell));
                }
            }
        }
    }

    /// Tells a linked agent to go.
    fn dismiss(&mut self, l: usize, refusal: Refusal) {
        self.end(l, &End::Dismissed(refusal.clone()));
        self.refuse(l, refusal);
    }

    /// Says no, and closes.
    fn refuse(&mut self, l: usize, refusal: Refusal) {
        self.links[l].side = Side::Closed;
        self.tell(l, gateway_frame::Body::Refused(refusal));
        self.send(l, Way::Down, Packet::Close);
    }

    /// A link ends at the gateway.
    pub(super) fn end(&mut self, l: usize, end: &End) {
        let before = std::mem::replace(&mut self.links[l].side, Side::Closed);
        let Side::Serving(session) = before else {
            return;
        };
        let host = session.proven.host;
        if self.gateway.live.get(&host) == Some(&l) {
            self.gateway.live.remove(&host);
        }
        let now = self.wall();
        if let Some(loss) = end.loss()
            && !self.gateway.live.contains_key(&host)
            && let Some(seen) = self.gateway.store.seen.get(&host).cloned()
            && let Some((seen, _)) = seen.lost(session.issued, &loss, now)
        {
            self.write(host, seen);
        }
    }

    /// Writes what was observed.
    fn write(&mut self, host: HostId, seen: Seen) {
        self.check_counters(host, &seen);
        self.gateway.store.seen.insert(host, seen);
    }

    /// A frame has arrived.
    pub(super) fn arrived(&mut self, l: usize, bytes: &[u8]) {
        if self.links[l].purpose == agent_core::Purpose::Enrol {
            if let Some(request) = read::<EnrolRequest>(bytes) {
                self.enrol(l, &request);
            }
            return;
        }
        let Some(AgentFrame { body: Some(body) }) = read(bytes) else {
            return;
        };
        match (&self.links[l].side, body) {
            (Side::Hello, agent_frame::Body::Hello(hello)) => self.join(l, &hello),
            (Side::Asked(proven), agent_frame::Body::Renew(renew)) => {
                let proven = *proven;
                self.quarantine(l, &proven, &renew);
            }
            (Side::Serving(session), body) => {
                let (proven, issued) = (session.proven, session.issued);
                self.gateway.heard.insert(proven.host, self.now);
                self.serve(l, &proven, issued, body);
            }
            _ => {}
        }
    }

    fn serve(&mut self, l: usize, proven: &Proven, issued: u64, body: agent_frame::Body) {
        let host = proven.host;
        match body {
            agent_frame::Body::Heartbeat(Heartbeat { sequence }) => {
                let ack = HeartbeatAck {
                    sequence,
                    server_time_ms: self.wall().as_millis(),
                };
                self.tell(l, gateway_frame::Body::HeartbeatAck(ack));
            }
            agent_frame::Body::CounterStored(stored) if stored.counter == issued => {
                let seen = self.gateway.store.seen.get(&host).cloned();
                if let Some(seen) = seen.and_then(|seen| seen.confirmed(stored.counter)) {
                    let branch = self.machines[self.links[l].machine].disk.branch;
                    self.truth.proof.insert(host, (branch, stored.counter));
                    self.write(host, seen);
                }
            }
            agent_frame::Body::Renew(renew) => self.renew(l, proven, &renew, issued),
            agent_frame::Body::Goodbye(goodbye) => self.end(l, &End::Goodbye(goodbye.reason())),
            _ => {}
        }
    }

    /// Raises the counter on a live link.
    pub(super) fn advance(&mut self, l: usize) {
        let Side::Serving(session) = &self.links[l].side else {
            return;
        };
        let host = session.proven.host;
        let Some(seen) = self.gateway.store.seen.get(&host).cloned() else {
            return;
        };
        let seen = seen.advanced();
        let counter = seen.issued;
        self.write(host, seen);
        if let Side::Serving(session) = &mut self.links[l].side {
            session.issued = counter;
        }
        self.tell(l, gateway_frame::Body::Advance(CounterStored { counter }));
        self.queue.push(self.now + HOUR, Ev::Advance(l));
    }

    /// Who is there.
    pub(super) fn watch(&mut self) {
        let grace = if self.options.broken == Some(Break::NoGrace) {
            Duration::ZERO
        } else {
            GRACE
        };
        let thresholds = self.gateway.thresholds();
        let uptime = Duration::from_millis(self.now - self.gateway.started);
        let ids: Vec<HostId> = self.gateway.store.hosts.keys().copied().collect();
        for id in ids {
            let Some(seen) = self.gateway.store.seen.get(&id).cloned() else {
                continue;
            };
            let last = self.gateway.heard.get(&id).map(|at| {
                let since = at.saturating_sub(self.gateway.started);
                Duration::from_millis(since)
            });
            let heard = Heard {
                last,
                linked: self.gateway.live.contains_key(&id),
                before: seen.connectivity,
            };
            let found = connectivity(heard, &thresholds, uptime, grace);
            let now = self.wall();
            match (found, seen.connectivity) {
                (Connectivity::Unreachable, Connectivity::Unreachable) => {}
                (Connectivity::Unreachable, _) => {
                    self.check_grace(id, uptime, last.is_some());
                    let (seen, _) = seen.unreachable(false, now);
                    self.write(id, seen);
                }
                (Connectivity::Connected, Connectivity::Unreachable) => {
                    let (seen, _) = seen.heard_again(Carrier::Udp, ADDRESS, now);
                    self.write(id, seen);
                }
                _ => {}
            }
        }
    }
}

fn worded(tell: &Tell) -> gateway_frame::Body {
    match *tell {
        Tell::Reidentify => gateway_frame::Body::Reidentify(Reidentify {
            reason: String::new(),
        }),
        Tell::Settings { heartbeat_ms } => gateway_frame::Body::Settings(Settings { heartbeat_ms }),
        Tell::Trust => gateway_frame::Body::Trust(trust()),
    }
}

/// A certificate's life from now on.
fn not_after(now: Timestamp) -> Timestamp {
    now.saturating_add(LIFETIME)
}
