//! The agent's whole life: enrol, link, stay linked, move to the better rung, leave.
//!
//! Two things go on side by side. The *link* is the session the gateway has
//! welcomed, if there is one. The *effort* is what is being done about getting one,
//! or a better one:
//!
//! ```text
//!   Rest ── link on UDP: nothing to wish for
//!   Wait ── backoff without a link; with one, until the next look at UDP
//!   Race ── dialling and joining (see `race`)
//!   Renewing ── the certificate has expired: the refused connection renews it
//! ```
//!
//! A welcome turns the effort's connection into the link and ends the old one with
//! `Goodbye{CarrierChange}`: make before break, whether the reason was UDP opening
//! up, a heartbeat without an answer, or a new certificate. A new *key* breaks
//! first: it may make the host another one, which cannot overlap with what it was.
//!
//! Invariants, held by property tests:
//! * an identity is never given up here; refusals only slow the agent down;
//! * nothing is dialled before the gateway's "come back in" is over;
//! * `CounterStored` follows the disk, never leads it;
//! * no fallback is final: while linked over the WebSocket, UDP is tried again.

use std::time::Duration;

use protocol::v1::{
    EnrolReply, Goodbye, GoodbyeReason, Refusal, RefusalCode, Welcome, agent_frame, enrol_reply,
    gateway_frame,
};

use crate::backoff::{self, Curve, STABLE};
use crate::io::{
    Action, Conn, DialFailure, Event, FactsDigest, Identity, KeyChoice, Purpose, Rung,
};
use crate::race::{Outcome, Race};
use crate::refusal::{Remedy, remedy};
use crate::session::{Health, Joined, Session};
use crate::time::{Dice, Mono, Now};

/// Time for a renewal on a connection that was refused for an old certificate.
const RENEWING_LIMIT: Duration = Duration::from_secs(20);
/// Time for the gateway to take note of a deregistration.
const LEAVING_LIMIT: Duration = Duration::from_secs(10);
/// "Come back in" is obeyed up to a day; more is a mistake at the other end.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

/// The machine. See the head of this module.
#[derive(Debug)]
pub struct Agent {
    identity: Option<Identity>,
    facts: FactsDigest,
    link: Option<Session>,
    effort: Effort,
    preferred: Rung,
    /// Failures and refusals in a row, and looks at UDP in vain.
    failures: u32,
    refusals: u32,
    probes: u32,
    /// A suspect link is not answered with one dial after the other.
    rescue_from: Mono,
    last_conn: u64,
    end: End,
}

#[derive(Debug)]
enum Effort {
    Rest,
    Wait { until: Mono, why: Waiting },
    Race { race: Race, rescue: bool },
    Renewing { conn: Conn, rung: Rung, since: Mono },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// Deregistration was sent; the gateway closes when it has it.
    Leaving {
        conn: Conn,
        until: Mono,
    },
    Over,
}

/// Why nothing is being dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// No rung leads to the gateway.
    Unreachable,
    /// The handshake says that the gateway does not accept this host.
    Rejected,
    /// Something is missing or cannot be written on this host.
    Local,
    /// A link ended.
    LinkLost,
    /// The gateway said no.
    Refused,
    /// The host is retired.
    Retired,
    /// Linked over the WebSocket, until the next look at UDP.
    UdpProbe,
}

/// How the agent stands, for `status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Welcomed by the gateway.
    Linked {
        /// Which connection it is.
        conn: Conn,
        /// Over which rung.
        rung: Rung,
        /// Since when.
        since: Mono,
        /// The host's name in the fleet.
        display_name: &'a str,
        /// Linked, and given nothing to do.
        quarantined: bool,
    },
    /// On the way.
    Trying(Purpose),
    /// Waiting for the next attempt.
    Waiting {
        /// When it begins.
        until: Mono,
        /// What made it wait.
        why: Waiting,
    },
    /// Said goodbye.
    Stopped,
}

impl Agent {
    /// An agent that begins to dial at its first event. `None` is a host that has
    /// not enrolled.
    pub fn new(identity: Option<Identity>, now: Now) -> Self {
        Self {
            identity,
            facts: FactsDigest::default(),
            link: None,
            effort: Effort::Wait {
                until: now.mono,
                why: Waiting::Unreachable,
            },
            preferred: Rung::Udp,
            failures: 0,
            refusals: 0,
            probes: 0,
            rescue_from: now.mono,
            last_conn: 0,
            end: End::Open,
        }
    }

    /// Takes note of what happened and says what to do.
    pub fn handle(&mut self, event: Event, now: Now, seed: u64) -> Vec<Action> {
        let mut step = Step {
            agent: self,
            now,
            dice: Dice::new(seed),
            actions: Vec::new(),
        };
        step.take(event);
        step.advance();
        step.actions
    }

    /// When [`Event::Tick`] is due, unless something else happens first.
    pub fn deadline(&self, now: Now) -> Option<Mono> {
        let effort = match &self.effort {
            Effort::Rest => None,
            Effort::Wait { until, .. } => Some(*until),
            Effort::Race { race, .. } => race.deadline(),
            Effort::Renewing { since, .. } => Some(since.after(RENEWING_LIMIT)),
        };
        let link = self.link.as_ref().map(|session| session.deadline(now));
        match self.end {
            End::Open => [effort, link].into_iter().flatten().min(),
            End::Leaving { until, .. } => Some(until),
            End::Over => None,
        }
    }

    /// How it stands.
    pub fn standing(&self) -> Standing<'_> {
        if self.end != End::Open {
            return Standing::Stopped;
        }
        if let Some(session) = &self.link {
            return Standing::Linked {
                conn: session.conn,
                rung: session.rung,
                since: session.since,
                display_name: &session.display_name,
                quarantined: session.quarantined,
            };
        }
        match &self.effort {
            Effort::Rest | Effort::Renewing { .. } => Standing::Trying(Purpose::Link),
            Effort::Race { race, .. } => Standing::Trying(race.purpose()),
            Effort::Wait { until, why } => Standing::Waiting {
                until: *until,
                why: *why,
            },
        }
    }

    /// The identity in force.
    pub fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }
}

/// One event being handled.
struct Step<'a> {
    agent: &'a mut Agent,
    now: Now,
    dice: Dice,
    actions: Vec<Action>,
}

impl Step<'_> {
    fn take(&mut self, event: Event) {
        match self.agent.end {
            End::Open => {}
            End::Leaving { conn, .. } => return self.take_leaving(conn, &event),
            End::Over => return,
        }
        match event {
            Event::Tick => {}
            Event::Connected(conn) => self.connected(conn),
            Event::Failed(conn, failure) => self.race_failed(conn, failure),
            Event::Closed(conn, failure) => self.closed(conn, failure),
            Event::Heard(conn) => {
                if let Some(session) = self.agent.link.as_mut().filter(|s| s.conn == conn) {
                    session.heard(self.now.mono);
                }
            }
            Event::Enrolled(conn, reply) => self.enrolled(conn, reply),
            Event::Frame(conn, body) => self.frame(conn, body),
            Event::CounterStored(counter) => {
                if let Some(identity) = &mut self.agent.identity {
                    identity.counter = identity.counter.max(counter);
                }
                if let Some(session) = &mut self.agent.link {
                    session.counter_stored(counter, &mut self.actions);
                }
            }
            Event::CounterNotStored(counter) => {
                if let Some(session) = &mut self.agent.link {
                    session.counter_not_stored(counter, self.now.mono);
                }
            }
            Event::GrantStored(conn, identity) => self.grant_stored(conn, identity),
            Event::GrantNotStored(conn) => self.grant_not_stored(conn),
            Event::TrustStored(version) => {
                if let Some(identity) = &mut self.agent.identity {
                    identity.trust_version = identity.trust_version.max(version);
                }
            }
            Event::RenewalNotSent(conn) => self.grant_not_stored(conn),
            Event::FactsRead(digest) => {
                self.agent.facts = digest;
                if let Some(session) = &mut self.agent.link {
                    session.facts_read(digest, &mut self.actions);
                }
            }
            Event::Stop(reason) => self.stop(reason),
        }
    }

    /// After a deregistration only its acknowledgement matters.
    fn take_leaving(&mut self, conn: Conn, event: &Event) {
        let acknowledged = match event {
            Event::Closed(closed, _) => *closed == conn,
            Event::Frame(from, gateway_frame::Body::Refused(refusal)) => {
                *from == conn && refusal.code() == RefusalCode::HostRetired
            }
            _ => false,
        };
        if acknowledged {
            self.finish(conn, true);
        }
    }

    fn advance(&mut self) {
        match self.agent.end {
            End::Open => {}
            End::Leaving { conn, until } => {
                if until <= self.now.mono {
                    self.finish(conn, false);
                }
                return;
            }
            End::Over => return,
        }
        self.advance_link();
        self.advance_effort();
    }

    fn advance_link(&mut self) {
        let Some(session) = &mut self.agent.link else {
            return;
        };
        match session.advance(self.now, &mut self.dice, &mut self.actions) {
            Health::Good => {
                // The link recovered while another was being dialled.
                if let Effort::Race { race, rescue: true } = &self.agent.effort
                    && race.joining().is_none()
                {
                    race.close(None, &mut self.actions);
                    self.rest();
                }
            }
            Health::Suspect => {
                let busy = match &self.agent.effort {
                    Effort::Race { race, rescue } => *rescue || race.joining().is_some(),
                    Effort::Renewing { .. } => true,
                    Effort::Rest | Effort::Wait { .. } => false,
                };
                if !busy && self.agent.rescue_from <= self.now.mono {
                    // Over the WebSocket in both cases: a suspect one needs a new one,
                    // and a suspect UDP path is not the one to try first.
                    self.race_begin(Rung::WebSocket, true);
                }
            }
            Health::Dead => {
                let (conn, rung) = (session.conn, session.rung);
                self.actions.push(Action::Close(conn));
                if rung == Rung::Udp {
                    self.agent.preferred = Rung::WebSocket;
                }
                self.link_lost();
            }
        }
    }

    fn advance_effort(&mut self) {
        if let Effort::Wait { until, .. } = self.agent.effort
            && until <= self.now.mono
        {
            if self.agent.link.is_some() {
                let race = Race::single(Purpose::Link, Rung::Udp, self.now.mono);
                self.agent.effort = Effort::Race {
                    race,
                    rescue: false,
                };
            } else {
                self.race_begin(self.agent.preferred, false);
            }
        }
        if let Effort::Renewing { conn, since, .. } = self.agent.effort
            && since.after(RENEWING_LIMIT) <= self.now.mono
        {
            self.actions.push(Action::Close(conn));
            self.wait_after_failure(DialFailure::Network);
        }
        let last_conn = &mut self.agent.last_conn;
        if let Effort::Race { race, .. } = &mut self.agent.effort {
            let mut next = || {
                *last_conn += 1;
                Conn(*last_conn)
            };
            match race.advance(self.now.mono, &mut next, &mut self.actions) {
                Outcome::Open => {}
                Outcome::Lost(failure) => self.wait_after_failure(failure),
            }
        }
    }

    fn race_begin(&mut self, preferred: Rung, rescue: bool) {
        if let Effort::Race { race, .. } = &self.agent.effort {
            race.close(None, &mut self.actions);
        }
        let purpose = if self.agent.identity.is_some() {
            Purpose::Link
        } else {
            Purpose::Enrol
        };
        // The hello says what the facts are.
        self.actions.push(Action::ReadFacts);
        let race = Race::new(purpose, preferred, self.now.mono);
        self.agent.effort = Effort::Race { race, rescue };
    }

    fn connected(&mut self, conn: Conn) {
        let Effort::Race { race, .. } = &mut self.agent.effort else {
            return;
        };
        if !race.connected(conn, self.now.mono, &mut self.actions) {
            return;
        }
        self.actions
            .push(match (race.purpose(), &self.agent.identity) {
                (Purpose::Link, Some(identity)) => Action::Hello {
                    conn,
                    counter: identity.counter,
                    trust_version: identity.trust_version,
                },
                (Purpose::Enrol, _) | (Purpose::Link, None) => Action::Enrol(conn),
            });
    }

    fn race_failed(&mut self, conn: Conn, failure: DialFailure) {
        if let Effort::Race { race, .. } = &mut self.agent.effort {
            race.failed(conn, failure, self.now.mono);
        }
    }

    fn closed(&mut self, conn: Conn, failure: DialFailure) {
        if self.is_link(conn) {
            return self.link_lost();
        }
        match self.agent.effort {
            Effort::Renewing { conn: renewing, .. } if renewing == conn => {
                self.wait_after_failure(DialFailure::Network);
            }
            _ => self.race_failed(conn, failure),
        }
    }

    fn enrolled(&mut self, conn: Conn, reply: EnrolReply) {
        if self.joining() != Some(conn) {
            return;
        }
        match reply.answer {
            Some(enrol_reply::Answer::Granted(grant)) => {
                self.actions.push(Action::StoreGrant(conn, grant));
            }
            Some(enrol_reply::Answer::Refused(refusal)) => self.effort_refused(conn, &refusal),
            None => {
                self.actions.push(Action::Close(conn));
                self.race_failed(conn, DialFailure::Network);
            }
        }
    }

    fn frame(&mut self, conn: Conn, body: gateway_frame::Body) {
        if let gateway_frame::Body::Probe(probe) = body {
            self.actions
                .push(Action::Send(conn, agent_frame::Body::ProbeReply(probe)));
        } else if self.is_link(conn) {
            self.link_frame(conn, body);
        } else if self.joining() == Some(conn) {
            match body {
                gateway_frame::Body::Welcome(welcome) => self.welcomed(conn, &welcome),
                gateway_frame::Body::Refused(refusal) => self.effort_refused(conn, &refusal),
                // Out of order; the limit for joining ends it if nothing else comes.
                _ => {}
            }
        } else if matches!(self.agent.effort, Effort::Renewing { conn: c, .. } if c == conn) {
            match body {
                gateway_frame::Body::Renewed(grant) => {
                    self.actions.push(Action::StoreGrant(conn, grant));
                }
                gateway_frame::Body::RenewRefused(refusal)
                | gateway_frame::Body::Refused(refusal) => self.effort_refused(conn, &refusal),
                _ => {}
            }
        }
    }

    fn link_frame(&mut self, conn: Conn, body: gateway_frame::Body) {
        let (Some(session), Some(identity)) = (&mut self.agent.link, &self.agent.identity) else {
            return;
        };
        let actions = &mut self.actions;
        match body {
            gateway_frame::Body::HeartbeatAck(ack) => {
                session.acknowledged(ack.sequence, self.now.mono)
            }
            gateway_frame::Body::Settings(settings) => session.apply(&settings),
            gateway_frame::Body::Advance(advance) => {
                session.store_counter(advance.counter, identity, actions);
            }
            gateway_frame::Body::Trust(trust) => {
                if trust.version > identity.trust_version {
                    actions.push(Action::StoreTrust(trust));
                }
            }
            gateway_frame::Body::Reidentify(_) => {
                session.renew(KeyChoice::Pending, self.now.mono, actions);
            }
            gateway_frame::Body::Renewed(grant) => {
                if session.expects_grant().is_some() {
                    actions.push(Action::StoreGrant(conn, grant));
                }
            }
            gateway_frame::Body::RenewRefused(refusal) => match remedy(&refusal) {
                Remedy::Stop => self.link_refused(conn, &refusal),
                Remedy::Wait | Remedy::Person | Remedy::Renew => {
                    session.postpone_renewal(retry_after(&refusal), self.now.mono, &mut self.dice);
                }
            },
            gateway_frame::Body::Refused(refusal) => self.link_refused(conn, &refusal),
            gateway_frame::Body::Welcome(_) | gateway_frame::Body::Probe(_) => {}
        }
    }

    fn welcomed(&mut self, conn: Conn, welcome: &Welcome) {
        let Effort::Race { race, .. } = &self.agent.effort else {
            return;
        };
        let (Some((_, rung)), Some(identity)) = (race.joining(), self.agent.identity) else {
            return;
        };
        race.close(Some(conn), &mut self.actions);
        if let Some(old) = self.agent.link.take() {
            self.goodbye(old.conn, GoodbyeReason::CarrierChange);
            self.actions.push(Action::Close(old.conn));
        }
        self.agent.refusals = 0;
        self.agent.preferred = rung;
        if let Some(trust) = welcome
            .trust
            .clone()
            .filter(|t| t.version > identity.trust_version)
        {
            self.actions.push(Action::StoreTrust(trust));
        }
        let facts = self.agent.facts;
        let joined = Joined {
            conn,
            rung,
            welcome,
            identity: &identity,
            facts,
        };
        let session = Session::new(&joined, self.now, &mut self.dice, &mut self.actions);
        self.agent.link = Some(session);
        if welcome.want_facts {
            self.actions.push(Action::ReadFacts);
        }
        self.rest();
    }

    fn effort_refused(&mut self, conn: Conn, refusal: &Refusal) {
        let expired = matches!(remedy(refusal), Remedy::Renew);
        if let Effort::Race { race, .. } = &self.agent.effort
            && let Some((joining, rung)) = race.joining()
            && joining == conn
            && expired
            && race.purpose() == Purpose::Link
        {
            race.close(Some(conn), &mut self.actions);
            self.actions.push(Action::Renew(conn, KeyChoice::Current));
            self.agent.effort = Effort::Renewing {
                conn,
                rung,
                since: self.now.mono,
            };
            return;
        }
        if let Effort::Race { race, .. } = &self.agent.effort {
            race.close(Some(conn), &mut self.actions);
        }
        self.actions.push(Action::Close(conn));
        self.wait_after_refusal(refusal);
    }

    fn link_refused(&mut self, conn: Conn, refusal: &Refusal) {
        self.actions.push(Action::Close(conn));
        self.agent.link = None;
        // A gateway may end the old link as soon as the new one says hello.
        if self.joining().is_some() && refusal.code() == RefusalCode::Superseded {
            return;
        }
        if let Effort::Race { race, .. } = &self.agent.effort {
            race.close(None, &mut self.actions);
        }
        self.wait_after_refusal(refusal);
    }

    fn grant_stored(&mut self, conn: Conn, identity: Identity) {
        self.agent.identity = Some(identity);
        self.agent.refusals = 0;
        let now = self.now.mono;
        if let Some(session) = &mut self.agent.link
            && session.conn == conn
        {
            let key = session.renewed(&identity, &mut self.dice);
            let rung = session.rung;
            if key == Some(KeyChoice::Pending) {
                self.goodbye(conn, GoodbyeReason::CarrierChange);
                self.actions.push(Action::Close(conn));
                self.agent.link = None;
            }
            self.race_begin(rung, false);
            return;
        }
        let rung = match &self.agent.effort {
            Effort::Race { race, .. } => race
                .joining()
                .filter(|&(c, _)| c == conn)
                .map(|(_, rung)| rung),
            Effort::Renewing { conn: c, rung, .. } => (*c == conn).then_some(*rung),
            Effort::Rest | Effort::Wait { .. } => None,
        };
        // The connection may have been given up while the disk was slow: the identity
        // is good all the same.
        self.actions.push(Action::Close(conn));
        if let Some(rung) = rung {
            if let Effort::Race { race, .. } = &mut self.agent.effort {
                race.failed(conn, DialFailure::Network, now);
            }
            self.race_begin(rung, false);
        }
    }

    fn grant_not_stored(&mut self, conn: Conn) {
        if let Some(session) = &mut self.agent.link
            && session.conn == conn
        {
            session.postpone_renewal(Duration::ZERO, self.now.mono, &mut self.dice);
            return;
        }
        let ours = self.joining() == Some(conn)
            || matches!(self.agent.effort, Effort::Renewing { conn: c, .. } if c == conn);
        if ours {
            self.actions.push(Action::Close(conn));
            self.wait_after_failure(DialFailure::Local);
        }
    }

    fn link_lost(&mut self) {
        let Some(session) = self.agent.link.take() else {
            return;
        };
        if self.now.mono.since(session.since) >= STABLE {
            self.agent.failures = 0;
            if session.rung == Rung::Udp {
                self.agent.probes = 0;
            }
        }
        match &self.agent.effort {
            // Already on the way to another one.
            Effort::Race { race, rescue } if *rescue || race.joining().is_some() => return,
            Effort::Race { race, .. } => race.close(None, &mut self.actions),
            Effort::Renewing { .. } => return,
            Effort::Rest | Effort::Wait { .. } => {}
        }
        self.agent.failures = self.agent.failures.saturating_add(1);
        self.wait(
            backoff::NETWORK,
            self.agent.failures,
            Duration::ZERO,
            Waiting::LinkLost,
        );
    }

    fn wait_after_failure(&mut self, failure: DialFailure) {
        if self.agent.link.is_some() {
            self.agent.probes = self.agent.probes.saturating_add(1);
            self.agent.rescue_from = self
                .now
                .mono
                .after(backoff::NETWORK.wait(1, &mut self.dice));
            return self.rest();
        }
        let (curve, count, why) = match failure {
            DialFailure::Network => (
                backoff::NETWORK,
                &mut self.agent.failures,
                Waiting::Unreachable,
            ),
            DialFailure::Local => (backoff::NETWORK, &mut self.agent.failures, Waiting::Local),
            DialFailure::Rejected => (
                backoff::REFUSED,
                &mut self.agent.refusals,
                Waiting::Rejected,
            ),
        };
        *count = count.saturating_add(1);
        let count = *count;
        self.wait(curve, count, Duration::ZERO, why);
    }

    fn wait_after_refusal(&mut self, refusal: &Refusal) {
        let at_least = retry_after(refusal);
        if self.agent.link.is_some() {
            self.agent.probes = self.agent.probes.saturating_add(1);
            self.agent.rescue_from = self.now.mono.after(at_least.max(Duration::from_secs(5)));
            return self.wait(
                backoff::UDP_PROBE,
                self.agent.probes,
                at_least,
                Waiting::UdpProbe,
            );
        }
        let (curve, count, why) = match remedy(refusal) {
            Remedy::Wait => (backoff::NETWORK, &mut self.agent.failures, Waiting::Refused),
            // A certificate that is still too old after its renewal needs a person.
            Remedy::Person | Remedy::Renew => {
                (backoff::REFUSED, &mut self.agent.refusals, Waiting::Refused)
            }
            Remedy::Stop => (backoff::RETIRED, &mut self.agent.refusals, Waiting::Retired),
        };
        *count = count.saturating_add(1);
        let count = *count;
        self.wait(curve, count, at_least, why);
    }

    /// Waits by the curve, and at least as long as the gateway asked for. Its number
    /// is already spread over its agents; a tenth on top keeps equals apart.
    fn wait(&mut self, curve: Curve, count: u32, at_least: Duration, why: Waiting) {
        let own = curve.wait(count, &mut self.dice);
        let asked = self.dice.between(at_least, at_least + at_least / 10);
        self.agent.effort = Effort::Wait {
            until: self.now.mono.after(own.max(asked)),
            why,
        };
    }

    /// What there is to wish for with a link.
    fn rest(&mut self) {
        let over_websocket = self
            .agent
            .link
            .as_ref()
            .is_some_and(|s| s.rung == Rung::WebSocket);
        if over_websocket {
            // The count begins at the first look that failed.
            let count = self.agent.probes.saturating_add(1);
            self.wait(backoff::UDP_PROBE, count, Duration::ZERO, Waiting::UdpProbe);
        } else {
            self.agent.effort = Effort::Rest;
        }
    }

    fn stop(&mut self, reason: GoodbyeReason) {
        match &self.agent.effort {
            Effort::Race { race, .. } => race.close(None, &mut self.actions),
            Effort::Renewing { conn, .. } => self.actions.push(Action::Close(*conn)),
            Effort::Rest | Effort::Wait { .. } => {}
        }
        self.agent.effort = Effort::Rest;
        let Some(conn) = self.agent.link.take().map(|session| session.conn) else {
            self.agent.end = End::Over;
            self.actions.push(Action::Finish {
                acknowledged: false,
            });
            return;
        };
        self.goodbye(conn, reason);
        if reason == GoodbyeReason::Uninstalled {
            self.agent.end = End::Leaving {
                conn,
                until: self.now.mono.after(LEAVING_LIMIT),
            };
        } else {
            self.finish(conn, false);
        }
    }

    fn finish(&mut self, conn: Conn, acknowledged: bool) {
        self.actions.push(Action::Close(conn));
        self.actions.push(Action::Finish { acknowledged });
        self.agent.end = End::Over;
    }

    fn goodbye(&mut self, conn: Conn, reason: GoodbyeReason) {
        let goodbye = Goodbye {
            reason: reason.into(),
        };
        self.actions
            .push(Action::Send(conn, agent_frame::Body::Goodbye(goodbye)));
    }

    fn is_link(&self, conn: Conn) -> bool {
        self.agent
            .link
            .as_ref()
            .is_some_and(|session| session.conn == conn)
    }

    fn joining(&self) -> Option<Conn> {
        match &self.agent.effort {
            Effort::Race { race, .. } => race.joining().map(|(conn, _)| conn),
            Effort::Rest | Effort::Wait { .. } | Effort::Renewing { .. } => None,
        }
    }
}

fn retry_after(refusal: &Refusal) -> Duration {
    Duration::from_millis(refusal.retry_after_ms.into()).min(RETRY_AFTER_MAX)
}
