//! Machines: a disk, a clock that may be wrong, and the agent's core between them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use agent_core::held::{Held, counter_after};
use agent_core::time::WallClock;
use agent_core::{
    Action, Agent, Conn, Event, Identity as Own, KEEP_ALIVE, KeyChoice, Mono, Now, Purpose, Rung,
    Standing,
};
use model::Timestamp;
use model::ids::{AgentTokenId, HostId};
use protocol::v1::{EnrolRequest, Grant, Hello, Renew, agent_frame};

use super::gateway::Side;
use super::network::Way;
use super::{EPOCH, Ev, World};
use crate::Break;
use crate::queue::{MINUTE, Ms, SECOND};
use crate::wire::{Certificate, Key, Packet, from_agent, question};

/// What is written.
#[derive(Clone)]
pub(super) struct Disk {
    pub(super) key: Option<Key>,
    pub(super) pending: Option<Key>,
    pub(super) held: Option<Holding>,
    /// Which disk it is, for ever; a copy is another.
    pub(super) branch: usize,
}

/// An identity on disk.
#[derive(Clone, Copy)]
pub(super) struct Holding {
    pub(super) host: HostId,
    pub(super) generation: u64,
    pub(super) own: Own,
}

/// A machine.
pub(super) struct Machine {
    /// As programs see it.
    pub(super) disk: Disk,
    /// As it is after the power was cut.
    pub(super) synced: Disk,
    /// What it was given to join with.
    pub(super) token: AgentTokenId,
    pub(super) boot: u64,
    pub(super) instance: u64,
    /// Lives of the agent, so that what was meant for one does not reach the next.
    pub(super) epoch: u32,
    pub(super) agent: Option<Agent>,
    /// The agent's idea of true time.
    pub(super) clock: WallClock,
    /// The system's clock minus true time, in milliseconds.
    pub(super) skew: i64,
    pub(super) conns: BTreeMap<Conn, usize>,
    /// Whether packets get through.
    pub(super) path: bool,
    /// When its next deadline is looked at.
    pub(super) wake: Ms,
    /// When a keepalive was last answered or missed.
    looked: Ms,
    /// Since when nothing keeps it and it is not linked.
    pub(super) away_since: Option<Ms>,
    /// Whether it was refused since it was last welcome.
    pub(super) shy: bool,
    /// Grants stored in the virtual hour of this number.
    pub(super) grants: (Ms, u32),
}

impl World {
    /// A machine that is installed with the newest token, and started.
    pub(super) fn machine(&mut self, disk: Disk) {
        let boot = self.rng.roll();
        let skew = self.some_skew();
        self.machines.push(Machine {
            synced: disk.clone(),
            disk,
            token: self.gateway.newest_token,
            boot,
            instance: 0,
            epoch: 0,
            agent: None,
            clock: WallClock::new(Timestamp::from_millis(EPOCH)),
            skew,
            conns: BTreeMap::new(),
            path: true,
            wake: 0,
            looked: 0,
            away_since: None,
            shy: false,
            grants: (0, 0),
        });
        self.start(self.machines.len() - 1);
    }

    /// A disk with nothing on it.
    pub(super) fn blank(&mut self) -> Disk {
        Disk {
            key: None,
            pending: None,
            held: None,
            branch: self.truth.disk(None),
        }
    }

    /// How wrong a clock is: most by little, some by minutes, few live in another year.
    pub(super) fn some_skew(&mut self) -> i64 {
        let wide = match self.rng.below(20) {
            0 => return -EPOCH,
            1 => 400 * 86_400_000,
            2..=5 => 10 * 60_000,
            _ => 2_000,
        };
        let drawn = self.rng.between(0, 2 * wide);
        i64::try_from(drawn).unwrap_or(0) - i64::try_from(wide).unwrap_or(0)
    }

    /// What the agent takes for the time.
    fn clock(&self, m: usize) -> Now {
        let machine = &self.machines[m];
        let mono = self.mono();
        Now {
            mono,
            wall: machine.clock.best(self.system(m), mono),
        }
    }

    fn mono(&self) -> Mono {
        Mono::from_origin(Duration::from_millis(self.now))
    }

    fn system(&self, m: usize) -> Timestamp {
        Timestamp::from_millis(self.true_time().as_millis() + self.machines[m].skew)
    }

    /// The agent hears what time it is at the gateway.
    pub(super) fn learn(&mut self, m: usize, gateway_ms: i64) {
        if self.options.broken == Some(Break::ClockNotLearned) {
            return;
        }
        let (system, mono) = (self.system(m), self.mono());
        self.machines[m].clock.learn(gateway_ms, system, mono);
    }

    /// Starts the agent.
    pub(super) fn start(&mut self, m: usize) {
        let (at, instance) = (self.now, self.rng.roll());
        let known = self.machines[m].disk.held.map(|held| held.own.not_before);
        self.machines[m].clock = WallClock::new(known.unwrap_or(Timestamp::from_millis(EPOCH)));
        let now = self.clock(m);
        let machine = &mut self.machines[m];
        machine.epoch += 1;
        machine.instance = instance;
        machine.agent = Some(Agent::new(machine.disk.held.map(|held| held.own), now));
        (machine.wake, machine.looked) = (at, at);
        (machine.away_since, machine.shy) = (None, false);
        let epoch = machine.epoch;
        self.queue.push(at, Ev::Wake(m, epoch));
    }

    /// Ends the agent without a word.
    pub(super) fn kill(&mut self, m: usize) {
        self.machines[m].agent = None;
        for (_, link) in std::mem::take(&mut self.machines[m].conns) {
            self.links[link].open = false;
            self.queue.push(self.now + super::IDLE, Ev::Idle(link));
        }
    }

    /// Installed once more, on an empty disk, with this token.
    pub(super) fn reinstall(&mut self, m: usize, token: AgentTokenId) {
        self.kill(m);
        let disk = self.blank();
        let machine = &mut self.machines[m];
        (machine.synced, machine.disk) = (disk.clone(), disk);
        (machine.token, machine.grants) = (token, (0, 0));
        self.note(|| format!("machine {m} is installed anew with {token}"));
        self.start(m);
    }

    /// A deadline of this life of the agent has come, unless it was moved.
    pub(super) fn wake(&mut self, m: usize, epoch: u32) {
        let machine = &self.machines[m];
        let Some(agent) = &machine.agent else { return };
        if machine.epoch != epoch || machine.wake != self.now {
            return;
        }
        let standing = agent.standing();
        if self.options.broken == Some(Break::BackoffNever)
            && matches!(standing, Standing::Waiting { .. })
            && self.now > MINUTE
        {
            return;
        }
        let keep_alive = u64::try_from(KEEP_ALIVE.as_millis()).unwrap_or(SECOND);
        if let Standing::Linked { conn, .. } = standing
            && self.now - machine.looked >= keep_alive
        {
            let alive = machine
                .conns
                .get(&conn)
                .is_some_and(|&l| !matches!(self.links[l].side, Side::Closed));
            let heard = alive && machine.path;
            self.machines[m].looked = self.now;
            if heard {
                self.feed(m, Event::Heard(conn));
            }
        }
        self.feed(m, Event::Tick);
    }

    /// Hands an event to the agent and does what it says.
    pub(super) fn feed(&mut self, m: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, dice) = (self.clock(m), self.rng.roll());
            let Some(agent) = &mut self.machines[m].agent else {
                return;
            };
            for action in agent.handle(event, now, dice) {
                self.act(m, action, &mut events);
            }
        }
        let now = self.clock(m);
        let agent = self.machines[m].agent.as_ref();
        let Some(deadline) = agent.and_then(|agent| agent.deadline(now)) else {
            return;
        };
        let at = u64::try_from(deadline.since(Mono::default()).as_millis())
            .unwrap_or(u64::MAX)
            .max(self.now + 1);
        let machine = &mut self.machines[m];
        if machine.wake <= self.now || at < machine.wake {
            machine.wake = at;
            let epoch = machine.epoch;
            self.queue.push(at, Ev::Wake(m, epoch));
        }
    }

    fn act(&mut self, m: usize, action: Action, events: &mut VecDeque<Event>) {
        match action {
            Action::Dial {
                conn,
                rung,
                purpose,
            } => self.dial(m, conn, rung, purpose),
            Action::Close(conn) => {
                if let Some(link) = self.machines[m].conns.remove(&conn) {
                    self.links[link].open = false;
                    self.send(link, Way::Up, Packet::Close);
                    self.queue.push(self.now + super::IDLE, Ev::Idle(link));
                }
            }
            Action::Enrol(conn) => self.ask_to_join(m, conn),
            Action::Hello {
                conn,
                counter,
                trust_version,
            } => {
                let hello = self.hello(m, counter, trust_version);
                self.say(m, conn, from_agent(agent_frame::Body::Hello(hello)));
            }
            Action::Send(conn, body) => self.say(m, conn, from_agent(body)),
            Action::Renew(conn, choice) => {
                let fresh = Key(self.rng.roll());
                let disk = &mut self.machines[m].disk;
                let key = match choice {
                    KeyChoice::Current => *disk.key.get_or_insert(fresh),
                    KeyChoice::Pending => *disk.pending.get_or_insert(fresh),
                };
                let renew = Renew { csr: key.request() };
                self.say(m, conn, from_agent(agent_frame::Body::Renew(renew)));
            }
            Action::StoreCounter(counter) => {
                let lazy = self.options.broken == Some(Break::CounterUnsynced);
                let machine = &mut self.machines[m];
                if let Some(held) = &mut machine.disk.held {
                    held.own.counter = held.own.counter.max(counter);
                }
                if !lazy {
                    machine.synced = machine.disk.clone();
                }
                events.push_back(Event::CounterStored(counter));
            }
            Action::StoreGrant(conn, grant) => events.push_back(self.store(m, conn, &grant)),
            Action::StoreTrust(trust) => events.push_back(Event::TrustStored(trust.version)),
            Action::ReadFacts => events.push_back(Event::FactsRead([0; 32])),
            Action::SendFacts(_) | Action::Finish { .. } => {}
        }
    }

    fn dial(&mut self, m: usize, conn: Conn, rung: Rung, purpose: Purpose) {
        let link = self.connection(m, conn, rung, purpose);
        self.machines[m].conns.insert(conn, link);
        let round_trip = self.rng.between(5, 300);
        if !self.machines[m].path {
            return;
        }
        if self.gateway.up {
            self.queue.push(self.now + round_trip, Ev::Connected(link));
        } else if rung == Rung::WebSocket {
            // TCP says so; UDP says nothing.
            self.queue.push(self.now + round_trip, Ev::Failed(link));
        }
    }

    fn ask_to_join(&mut self, m: usize, conn: Conn) {
        let fresh = Key(self.rng.roll());
        let machine = &mut self.machines[m];
        // On disk before it is shown to anybody.
        let key = *machine.disk.key.get_or_insert(fresh);
        machine.synced = machine.disk.clone();
        let request = EnrolRequest {
            token: machine.token.to_string(),
            csr: key.request(),
            facts: None,
            version_max: protocol::VERSION,
            version_min: protocol::VERSION_MIN,
        };
        self.say(m, conn, question(&request));
    }

    fn hello(&self, m: usize, counter: u64, trust_version: u64) -> Hello {
        let machine = &self.machines[m];
        Hello {
            version_max: protocol::VERSION,
            version_min: protocol::VERSION_MIN,
            agent_version: "1".into(),
            boot_id: format!("{:x}", machine.boot),
            instance: machine.instance.to_be_bytes().to_vec(),
            counter,
            facts_digest: Vec::new(),
            trust_version,
            host_time_ms: self.system(m).as_millis(),
        }
    }

    /// The rules of the agent's state folder.
    fn store(&mut self, m: usize, conn: Conn, grant: &Grant) -> Event {
        let (Ok(host), Some(certificate)) = (
            grant.host.parse::<HostId>(),
            Certificate::decode(&grant.certificate),
        ) else {
            return Event::GrantNotStored(conn);
        };
        let machine = &mut self.machines[m];
        let disk = &mut machine.disk;
        if disk.pending == Some(certificate.key) {
            disk.key = disk.pending.take();
        }
        if disk.key != Some(certificate.key) {
            return Event::GrantNotStored(conn);
        }
        let held = |host, generation, counter| Held {
            host,
            generation,
            counter,
        };
        let before = disk
            .held
            .map(|before| held(before.host, before.generation, before.own.counter));
        let granted = held(host, grant.generation, grant.counter);
        let own = Own {
            counter: counter_after(before.as_ref(), &granted),
            trust_version: 1,
            not_before: certificate.not_before,
            not_after: certificate.not_after,
        };
        disk.held = Some(Holding {
            host,
            generation: grant.generation,
            own,
        });
        machine.synced = disk.clone();
        self.check_grants(m);
        Event::GrantStored(conn, own)
    }
}
