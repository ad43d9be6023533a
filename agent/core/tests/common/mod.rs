//! The world around the machine: a network whose rungs answer as told, a gateway that
//! welcomes, refuses, renews and drops, and a disk that may be full. Virtual time;
//! one round trip takes [`RTT`].

use std::collections::BTreeMap;
use std::time::Duration;

use agent_core::{
    Action, Agent, Conn, DialFailure, Event, Identity, KEEP_ALIVE, KeyChoice, Mono, Now, Purpose,
    Rung, Standing,
};
use model::Timestamp;
use protocol::v1::{
    CounterStored, EnrolReply, GoodbyeReason, Grant, HeartbeatAck, Probe, Refusal, RefusalCode,
    Reidentify, Settings, Welcome, agent_frame, enrol_reply, gateway_frame,
};

const RTT: Duration = Duration::from_millis(30);

/// What a rung does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Good,
    /// Swallows everything.
    Silent,
    /// Says so at once.
    Fails,
    /// Shakes hands, then swallows everything.
    Mute,
    /// The gateway does not accept the host.
    Rejects,
}

#[derive(Clone, Debug)]
pub(crate) struct Dialled {
    pub(crate) rung: Rung,
    pub(crate) purpose: Purpose,
}

pub(crate) struct World {
    pub(crate) agent: Agent,
    pub(crate) udp: Answer,
    pub(crate) websocket: Answer,
    pub(crate) refusal: Option<(RefusalCode, Duration)>,
    pub(crate) certificate_expired: bool,
    /// The next hello is answered by asking for a new key.
    pub(crate) clone_suspected: bool,
    pub(crate) renewal_closes: bool,
    pub(crate) certificate_life: Duration,
    pub(crate) lose_renewals: u32,
    pub(crate) drop_after: Option<Duration>,
    pub(crate) disk_ok: bool,
    pub(crate) disk_counter: u64,
    pub(crate) dials: Vec<Dialled>,
    pub(crate) hellos: u32,
    pub(crate) enrolments: u32,
    pub(crate) renewals: Vec<KeyChoice>,
    pub(crate) counters_said: Vec<u64>,
    pub(crate) goodbyes: Vec<GoodbyeReason>,
    pub(crate) finished: Option<bool>,
    pub(crate) longest_gap_since_linked: Duration,
    /// What the machine must never do.
    pub(crate) misdeeds: Vec<String>,
    beat: Duration,
    elapsed: Duration,
    seed: u64,
    conns: BTreeMap<Conn, Rung>,
    links: Vec<Conn>,
    inbox: Vec<(Duration, Event)>,
    no_dial_before: Duration,
    gap_since: Option<Duration>,
    next_counter: u64,
    /// Hellos that got no answer, and may still be read: when, and their counter.
    lost_hellos: Vec<(Duration, u64)>,
}

impl World {
    pub(crate) fn unenrolled() -> Self {
        Self::new(None)
    }

    pub(crate) fn enrolled() -> Self {
        let life = Duration::from_secs(7 * 86_400);
        Self::new(Some(identity(5, Duration::ZERO, life)))
    }

    fn new(identity: Option<Identity>) -> Self {
        let elapsed = Duration::ZERO;
        Self {
            agent: Agent::new(identity, now(elapsed)),
            udp: Answer::Good,
            websocket: Answer::Good,
            refusal: None,
            certificate_expired: false,
            clone_suspected: false,
            renewal_closes: false,
            certificate_life: Duration::from_secs(7 * 86_400),
            lose_renewals: 0,
            drop_after: None,
            disk_ok: true,
            disk_counter: identity.map_or(0, |identity| identity.counter),
            dials: Vec::new(),
            hellos: 0,
            enrolments: 0,
            renewals: Vec::new(),
            counters_said: Vec::new(),
            goodbyes: Vec::new(),
            finished: None,
            longest_gap_since_linked: Duration::ZERO,
            misdeeds: Vec::new(),
            beat: Duration::from_secs(15),
            elapsed,
            seed: 7,
            conns: BTreeMap::new(),
            links: Vec::new(),
            inbox: vec![(elapsed, Event::Tick)],
            no_dial_before: elapsed,
            gap_since: None,
            next_counter: 100,
            lost_hellos: Vec::new(),
        }
    }

    pub(crate) fn seeded(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    pub(crate) fn beating(mut self, beat: Duration) -> Self {
        self.beat = beat;
        self
    }

    pub(crate) fn rung(&self) -> Option<Rung> {
        match self.agent.standing() {
            Standing::Linked { rung, .. } => Some(rung),
            _ => None,
        }
    }

    /// Links that the gateway has welcomed and nobody has closed.
    pub(crate) fn open_links(&self) -> usize {
        self.links.len()
    }

    pub(crate) fn tell(&mut self, event: Event) {
        self.inbox.push((self.elapsed, event));
    }

    pub(crate) fn reidentify(&mut self) {
        let conn = *self.links.last().expect("a link");
        let body = gateway_frame::Body::Reidentify(Reidentify {
            reason: "split".into(),
        });
        self.tell(Event::Frame(conn, body));
    }

    pub(crate) fn probe(&mut self, nonce: u64) -> Vec<Action> {
        let conn = *self.links.last().expect("a link");
        let event = Event::Frame(conn, gateway_frame::Body::Probe(Probe { nonce }));
        self.agent.handle(event, now(self.elapsed), 1)
    }

    /// The gateway raises the counter on the link.
    pub(crate) fn advance(&mut self) {
        self.next_counter += 1;
        let counter = self.next_counter;
        if let Standing::Linked { conn, .. } = self.agent.standing() {
            let advance = CounterStored { counter };
            self.tell(Event::Frame(conn, gateway_frame::Body::Advance(advance)));
        }
    }

    /// The gateway ends the live link with the refusal in force.
    pub(crate) fn refuse_link(&mut self) {
        if let (Some(&conn), Some(refusal)) = (self.links.last(), self.refused()) {
            self.tell(Event::Frame(conn, gateway_frame::Body::Refused(refusal)));
        }
    }

    /// Time passes and nobody looks.
    pub(crate) fn sleep(&mut self, length: Duration) {
        self.elapsed += length;
    }

    pub(crate) fn run(&mut self, length: Duration) {
        self.run_until(length, |_| false);
        self.note_gap();
    }

    pub(crate) fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) {
        let end = self.elapsed + limit;
        let mut events_at_once = 0;
        while !done(self) {
            let deadline = self.agent.deadline(now(self.elapsed)).map(since_origin);
            let arrival = self.inbox.iter().map(|(at, _)| *at).min();
            let Some(next) = [deadline, arrival]
                .into_iter()
                .flatten()
                .min()
                .filter(|&at| at <= end)
            else {
                self.elapsed = self.elapsed.max(end);
                return;
            };
            events_at_once = if next > self.elapsed {
                0
            } else {
                events_at_once + 1
            };
            assert!(events_at_once < 1000, "the machine spins: {:?}", self.agent);
            self.elapsed = self.elapsed.max(next);
            let due = self.inbox.iter().position(|(at, _)| *at <= self.elapsed);
            let event = due.map_or(Event::Tick, |index| self.inbox.remove(index).1);
            self.feed(event);
        }
    }

    fn feed(&mut self, event: Event) {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        if let Event::Heard(conn) = event {
            if self.links.contains(&conn) {
                self.inbox
                    .push((self.elapsed + KEEP_ALIVE, Event::Heard(conn)));
            }
            if self.answer(conn) != Answer::Good {
                return;
            }
        }
        match &event {
            // The gateway's word counts from when it arrives.
            Event::Frame(_, gateway_frame::Body::Refused(refusal)) => self.obey(refusal),
            Event::Enrolled(
                _,
                EnrolReply {
                    answer: Some(enrol_reply::Answer::Refused(refusal)),
                },
            ) => {
                self.obey(refusal);
            }
            _ => {}
        }
        for action in self.agent.handle(event, now(self.elapsed), self.seed) {
            self.act(action);
        }
        self.note_gap();
    }

    fn obey(&mut self, refusal: &Refusal) {
        let wait = Duration::from_millis(refusal.retry_after_ms.into());
        self.no_dial_before = self.elapsed + wait;
    }

    fn note_gap(&mut self) {
        match (self.rung(), self.gap_since) {
            (Some(_), _) => self.gap_since = Some(self.elapsed),
            (None, Some(since)) => {
                let gap = self.elapsed - since;
                self.longest_gap_since_linked = self.longest_gap_since_linked.max(gap);
            }
            (None, None) => {}
        }
    }

    fn answer(&self, conn: Conn) -> Answer {
        match self.conns.get(&conn) {
            Some(Rung::Udp) => self.udp,
            Some(Rung::WebSocket) => self.websocket,
            None => Answer::Silent,
        }
    }

    fn reply(&mut self, event: Event) {
        self.inbox.push((self.elapsed + RTT, event));
    }

    fn frame(&mut self, conn: Conn, body: gateway_frame::Body) {
        if self.answer(conn) == Answer::Good {
            self.reply(Event::Frame(conn, body));
        }
    }

    fn refused(&self) -> Option<Refusal> {
        let (code, after) = self.refusal?;
        let retry_after_ms = u32::try_from(after.as_millis()).unwrap_or(u32::MAX);
        Some(Refusal {
            code: code.into(),
            retry_after_ms,
            ..Refusal::default()
        })
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Dial {
                conn,
                rung,
                purpose,
            } => {
                if self.elapsed < self.no_dial_before {
                    self.misdeeds.push(format!(
                        "dialled {:?} too early",
                        self.no_dial_before - self.elapsed
                    ));
                }
                self.dials.push(Dialled { rung, purpose });
                self.conns.insert(conn, rung);
                match self.answer(conn) {
                    Answer::Good | Answer::Mute => self.reply(Event::Connected(conn)),
                    Answer::Fails => self.tell(Event::Failed(conn, DialFailure::Network)),
                    Answer::Rejects => self.reply(Event::Failed(conn, DialFailure::Rejected)),
                    Answer::Silent => {}
                }
            }
            Action::Close(conn) => {
                self.conns.remove(&conn);
                self.links.retain(|&link| link != conn);
            }
            Action::Enrol(conn) => {
                self.enrolments += 1;
                let answer = match self.refused() {
                    Some(refusal) => enrol_reply::Answer::Refused(refusal),
                    None => enrol_reply::Answer::Granted(Grant::default()),
                };
                if self.answer(conn) == Answer::Good {
                    self.reply(Event::Enrolled(
                        conn,
                        EnrolReply {
                            answer: Some(answer),
                        },
                    ));
                }
            }
            Action::Hello { conn, counter, .. } => self.hello(conn, counter),
            Action::Send(conn, body) => self.sent(conn, body),
            Action::Renew(conn, key) => {
                self.renewals.push(key);
                if self.renewal_closes {
                    self.reply(Event::Closed(conn, DialFailure::Network));
                } else if self.lose_renewals > 0 {
                    self.lose_renewals -= 1;
                } else {
                    self.certificate_expired = false;
                    self.frame(conn, gateway_frame::Body::Renewed(Grant::default()));
                }
            }
            Action::StoreCounter(counter) => {
                let event = if self.disk_ok {
                    self.disk_counter = counter;
                    Event::CounterStored(counter)
                } else {
                    Event::CounterNotStored(counter)
                };
                self.tell(event);
            }
            Action::StoreGrant(conn, _) => {
                let event = if self.disk_ok {
                    Event::GrantStored(
                        conn,
                        identity(self.disk_counter, self.elapsed, self.certificate_life),
                    )
                } else {
                    Event::GrantNotStored(conn)
                };
                self.tell(event);
            }
            Action::StoreTrust(trust) => self.tell(Event::TrustStored(trust.version)),
            Action::ReadFacts => self.tell(Event::FactsRead([3; 32])),
            Action::SendFacts(_) => {}
            Action::Finish { acknowledged } => self.finished = Some(acknowledged),
        }
    }

    fn hello(&mut self, conn: Conn, counter: u64) {
        self.hellos += 1;
        if self.answer(conn) != Answer::Good {
            self.lost_hellos.push((self.elapsed, counter));
        }
        if counter != self.disk_counter {
            self.misdeeds.push(format!(
                "said counter {counter}, the disk has {}",
                self.disk_counter
            ));
        }
        let expired = self
            .certificate_expired
            .then_some((RefusalCode::CertificateExpired, Duration::ZERO));
        let refusal = self.refusal;
        self.refusal = expired.or(refusal);
        if std::mem::take(&mut self.clone_suspected) {
            let reidentify = Reidentify {
                reason: "copy".into(),
            };
            return self.frame(conn, gateway_frame::Body::Reidentify(reidentify));
        }
        let body = match self.refused() {
            Some(refusal) => gateway_frame::Body::Refused(refusal),
            None => {
                self.next_counter += 1;
                self.links.push(conn);
                self.inbox
                    .push((self.elapsed + KEEP_ALIVE, Event::Heard(conn)));
                let settings = Settings {
                    heartbeat_ms: u32::try_from(self.beat.as_millis()).unwrap_or(u32::MAX),
                };
                gateway_frame::Body::Welcome(Welcome {
                    counter: self.next_counter,
                    settings: Some(settings),
                    ..Welcome::default()
                })
            }
        };
        self.refusal = refusal;
        self.frame(conn, body);
        if let Some(after) = self.drop_after {
            self.inbox.push((
                self.elapsed + after,
                Event::Closed(conn, DialFailure::Network),
            ));
        }
    }

    fn sent(&mut self, conn: Conn, body: agent_frame::Body) {
        match body {
            agent_frame::Body::Heartbeat(beat) => {
                let ack = HeartbeatAck {
                    sequence: beat.sequence,
                    server_time_ms: 0,
                };
                self.frame(conn, gateway_frame::Body::HeartbeatAck(ack));
            }
            agent_frame::Body::CounterStored(stored) => {
                if stored.counter != self.disk_counter {
                    self.misdeeds
                        .push(format!("announced counter {}", stored.counter));
                }
                let since = self.elapsed.saturating_sub(Duration::from_secs(60));
                let overtaken =
                    |&&(sent, counter): &&(Duration, u64)| sent > since && counter < stored.counter;
                if let Some(hello) = self.lost_hellos.iter().find(overtaken) {
                    self.misdeeds
                        .push(format!("{} overtakes {hello:?}", stored.counter));
                }
                self.counters_said.push(stored.counter);
            }
            agent_frame::Body::Goodbye(goodbye) => {
                self.goodbyes.push(goodbye.reason());
                if goodbye.reason() == GoodbyeReason::Uninstalled {
                    let code = RefusalCode::HostRetired.into();
                    let refusal = Refusal {
                        code,
                        ..Refusal::default()
                    };
                    self.frame(conn, gateway_frame::Body::Refused(refusal));
                }
            }
            _ => {}
        }
    }
}

fn identity(counter: u64, since: Duration, life: Duration) -> Identity {
    let not_before = wall(since);
    Identity {
        counter,
        trust_version: 1,
        not_before,
        not_after: not_before.saturating_add(life),
    }
}

fn wall(elapsed: Duration) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000).saturating_add(elapsed)
}

fn now(elapsed: Duration) -> Now {
    Now {
        mono: Mono::from_origin(elapsed),
        wall: wall(elapsed),
    }
}

fn since_origin(at: Mono) -> Duration {
    at.since(Mono::default())
}
