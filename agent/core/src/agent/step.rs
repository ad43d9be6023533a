//! One event being handled: what it means in the state the agent is in.

use std::time::Duration;

use protocol::v1::{
    EnrolReply, Goodbye, GoodbyeReason, Refusal, RefusalCode, Welcome, agent_frame, enrol_reply,
    gateway_frame,
};

use super::waiting::retry_after;
use super::{Agent, Effort, End, HELLO_ON_ITS_WAY, LEAVING_LIMIT, RENEWING_LIMIT};
use crate::io::{Action, Conn, DialFailure, Event, Identity, KeyChoice, Purpose, Rung};
use crate::race::{Outcome, Race};
use crate::refusal::{Remedy, remedy};
use crate::session::{Health, Joined, Session};
use crate::time::{Dice, Now};

/// One event being handled.
pub(super) struct Step<'a> {
    pub(super) agent: &'a mut Agent,
    pub(super) now: Now,
    pub(super) dice: Dice,
    pub(super) actions: Vec<Action>,
}

impl<'a> Step<'a> {
    pub(super) fn new(agent: &'a mut Agent, now: Now, dice: Dice) -> Self {
        Self {
            agent,
            now,
            dice,
            actions: Vec::new(),
        }
    }

    /// Takes note of the event, then does what is due.
    pub(super) fn run(mut self, event: Event) -> Vec<Action> {
        self.take(event);
        self.advance();
        self.actions
    }

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
                self.forget_old_hellos();
                let overtakes = !self.agent.unanswered.is_empty();
                if let Some(session) = &mut self.agent.link {
                    if overtakes {
                        session.counter_later(counter, self.now.mono);
                    } else {
                        session.counter_stored(counter, &mut self.actions);
                    }
                }
            }
            Event::CounterNotStored(counter) => {
                if let Some(session) = &mut self.agent.link {
                    session.counter_later(counter, self.now.mono);
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
            Event::Closed(closed, _) if *closed == conn => false,
            Event::Frame(from, gateway_frame::Body::Refused(refusal))
                if *from == conn && refusal.code() == RefusalCode::HostRetired =>
            {
                true
            }
            _ => return,
        };
        self.finish(conn, acknowledged);
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
            self.renewal_failed();
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
        self.forget_old_hellos();
        let Effort::Race { race, .. } = &mut self.agent.effort else {
            return;
        };
        if !race.connected(conn, self.now.mono, &mut self.actions) {
            return;
        }
        self.actions
            .push(match (race.purpose(), &self.agent.identity) {
                (Purpose::Link, Some(identity)) => {
                    self.agent.unanswered.push((conn, self.now.mono));
                    Action::Hello {
                        conn,
                        counter: identity.counter,
                        trust_version: identity.trust_version,
                    }
                }
                (Purpose::Enrol, _) | (Purpose::Link, None) => Action::Enrol(conn),
            });
    }

    fn forget_old_hellos(&mut self) {
        let now = self.now.mono;
        let unanswered = &mut self.agent.unanswered;
        unanswered.retain(|&(_, sent)| now.since(sent) < HELLO_ON_ITS_WAY);
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
            Effort::Renewing { conn: renewing, .. } if renewing == conn => self.renewal_failed(),
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
            self.agent.unanswered.retain(|&(hello, _)| hello != conn);
            match body {
                gateway_frame::Body::Welcome(welcome) => self.welcomed(conn, &welcome),
                gateway_frame::Body::Refused(refusal) => self.effort_refused(conn, &refusal),
                gateway_frame::Body::Reidentify(_) => self.renewing(conn, KeyChoice::Pending, None),
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
            granted: self.agent.granted,
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
        let joining = self.joining() == Some(conn) && self.agent.identity.is_some();
        if joining && matches!(remedy(refusal), Remedy::Renew) {
            return self.renewing(conn, KeyChoice::Current, Some(refusal.clone()));
        }
        if let Effort::Race { race, .. } = &self.agent.effort {
            race.close(Some(conn), &mut self.actions);
        }
        self.actions.push(Action::Close(conn));
        self.wait_after_refusal(refusal);
    }

    /// Asks for a certificate on a connection that got no welcome.
    fn renewing(&mut self, conn: Conn, key: KeyChoice, refusal: Option<Refusal>) {
        let Effort::Race { race, .. } = &self.agent.effort else {
            return;
        };
        let (Some((_, rung)), Purpose::Link) = (race.joining(), race.purpose()) else {
            return;
        };
        race.close(Some(conn), &mut self.actions);
        self.actions.push(Action::Renew(conn, key));
        self.agent.effort = Effort::Renewing {
            conn,
            rung,
            since: self.now.mono,
            refusal,
        };
    }

    fn renewal_failed(&mut self) {
        let Effort::Renewing { refusal, .. } = &mut self.agent.effort else {
            return;
        };
        match refusal.take() {
            Some(refusal) => self.wait_after_refusal(&refusal),
            None => self.wait_after_failure(DialFailure::Network),
        }
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
        self.agent.granted = Some(now);
        if let Some(session) = &mut self.agent.link
            && session.conn == conn
        {
            let key = session.renewed(&identity, self.now, &mut self.dice);
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
