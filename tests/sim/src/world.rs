//! A gateway, machines and a network, driven by the real cores on virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_core::held::{Held, counter_after};
use agent_core::{
    Action, Agent, Conn, DialFailure, Event, Identity as Own, KEEP_ALIVE, KeyChoice, Mono, Now,
    Rung, Standing, bounds,
};
use gateway_core::admission::{self, Asked, Plan, TokenFacts};
use gateway_core::clone::LiveLink;
use gateway_core::host::Host;
use gateway_core::identity::{Asking, Identity, Proven, place};
use gateway_core::join::{Done, Join, Known, Step};
use gateway_core::liveness::{Heard, connectivity};
use gateway_core::seen::{Arrival, End, Seen};
use gateway_core::session::{Greeting, greet};
use model::Timestamp;
use model::host::{Carrier, CloneRepair, Connectivity, HostEvent};
use model::ids::{AgentTokenId, HostId, WorkspaceId};
use model::tenancy::LivenessThresholds;
use protocol::v1::{
    AgentFrame, EnrolReply, EnrolRequest, GatewayFrame, Grant, Heartbeat, HeartbeatAck, Hello,
    Reidentify, Renew, Trust, agent_frame, enrol_reply, gateway_frame,
};

use crate::queue::{HOUR, MINUTE, Ms, Queue, SECOND};
use crate::rng::Rng;
use crate::wire::{Key, Packet, answer, from_agent, from_gateway, question, read};
use crate::{Break, Options, Violation};

const EPOCH: i64 = 1_800_000_000_000;
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
const LATE_RETURN: Duration = Duration::from_secs(730 * 86_400);
const GRACE: Duration = Duration::from_secs(60);
/// Three keepalives without an answer, as the agent sets it.
const IDLE: Ms = 15 * SECOND;
const LOOK: Ms = 5 * SECOND;
/// Events kept for a report.
const TAIL: usize = 60;

enum Ev {
    Wake(usize, u32),
    ToGateway(usize, Packet),
    ToAgent(usize, Packet),
    Connected(usize),
    Failed(usize),
    Idle(usize),
    Look,
    Fault,
    Heal(usize),
    GatewayUp,
    PowerOn(usize),
    Split(HostId),
}

#[derive(Clone)]
struct Disk {
    key: Option<Key>,
    pending: Option<Key>,
    held: Option<(HostId, u64, Own)>,
    branch: usize,
}

struct Machine {
    disk: Disk,
    synced: Disk,
    boot: u64,
    instance: u64,
    epoch: u32,
    agent: Option<Agent>,
    conns: BTreeMap<Conn, usize>,
    path: bool,
    wake: Ms,
    looked: Ms,
    away_since: Option<Ms>,
    shy: bool,
}

enum Side {
    Closed,
    Hello,
    Asked(Proven),
    Serving(Box<Session>),
}
struct Session {
    proven: Proven,
    issued: u64,
    instance: Vec<u8>,
    boot: String,
}
struct Link {
    machine: usize,
    epoch: u32,
    conn: Conn,
    rung: Rung,
    open: bool,
    side: Side,
    last: [Ms; 2],
}

/// What was broken, and the last that happened before.
pub type Broken = Box<(Violation, Vec<String>)>;

/// One world.
pub struct World {
    now: Ms,
    rng: Rng,
    queue: Queue<Ev>,
    options: Options,
    workspace: WorkspaceId,
    token: AgentTokenId,
    uses: u32,
    machines: Vec<Machine>,
    links: Vec<Link>,
    up: bool,
    started: Ms,
    hosts: BTreeMap<HostId, Host>,
    seen: BTreeMap<HostId, Seen>,
    live: BTreeMap<HostId, usize>,
    heard: BTreeMap<HostId, Ms>,
    heard_before: BTreeMap<HostId, Ms>,
    /// Which key has which generation, for ever.
    keys: BTreeMap<(HostId, u64), Key>,
    /// Disks: the branch each was copied from.
    branches: Vec<Option<usize>>,
    /// On which branch a host's newest counter was confirmed, and since when.
    proof: BTreeMap<HostId, (usize, u64)>,
    copied: bool,
    beat: u32,
    events: u64,
    frames: u64,
    trace: Vec<String>,
    tracing: bool,
    broken: Option<Violation>,
}

impl World {
    /// The world of `seed`.
    pub fn new(seed: u64, options: &Options, tracing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let birth = Timestamp::from_millis(EPOCH);
        let beat = *rng
            .pick(&[10_000, 30_000, 60_000, 300_000])
            .unwrap_or(&10_000);
        let mut world = Self {
            now: 0,
            workspace: WorkspaceId::new(birth, rng.bytes()),
            token: AgentTokenId::new(birth, rng.bytes()),
            uses: 0,
            rng,
            queue: Queue::default(),
            options: options.clone(),
            machines: Vec::new(),
            links: Vec::new(),
            up: true,
            started: 0,
            hosts: BTreeMap::new(),
            seen: BTreeMap::new(),
            live: BTreeMap::new(),
            heard: BTreeMap::new(),
            heard_before: BTreeMap::new(),
            keys: BTreeMap::new(),
            branches: Vec::new(),
            proof: BTreeMap::new(),
            copied: false,
            beat,
            events: 0,
            frames: 0,
            trace: Vec::new(),
            tracing,
            broken: None,
        };
        for _ in 0..options.hosts {
            let branch = world.branch(None);
            world.machine(Disk {
                key: None,
                pending: None,
                held: None,
                branch,
            });
        }
        world.queue.push(LOOK, Ev::Look);
        world.queue.push(MINUTE, Ev::Fault);
        world
    }

    /// Runs it; how many events, or what was broken.
    pub fn run(mut self) -> Result<(u64, u64), Broken> {
        let end = u64::from(self.options.hours) * HOUR;
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            self.events += 1;
            self.step(event);
            if let Some(mut broken) = self.broken.take() {
                (broken.at, broken.step) = (at, self.events);
                return Err(Box::new((broken, self.trace)));
            }
        }
        Ok((self.events, self.frames))
    }

    fn violate(&mut self, invariant: &'static str, detail: String) {
        self.broken.get_or_insert(Violation {
            invariant,
            detail,
            at: 0,
            step: 0,
        });
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if self.tracing {
            if self.trace.len() == TAIL {
                self.trace.remove(0);
            }
            self.trace
                .push(format!("{:>10.3}s {}", self.now as f64 / 1000.0, text()));
        }
    }

    fn branch(&mut self, from: Option<usize>) -> usize {
        self.branches.push(from);
        self.branches.len() - 1
    }

    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(EPOCH).saturating_add(Duration::from_millis(self.now))
    }
    fn clock(&self) -> Now {
        Now {
            mono: Mono::from_origin(Duration::from_millis(self.now)),
            wall: self.wall(),
        }
    }
    fn uptime(&self) -> Duration {
        Duration::from_millis(self.now - self.started)
    }
    fn thresholds(&self) -> LivenessThresholds {
        LivenessThresholds::for_heartbeat(Duration::from_millis(self.beat.into()))
    }

    fn machine(&mut self, disk: Disk) {
        let boot = self.rng.roll();
        self.machines.push(Machine {
            synced: disk.clone(),
            disk,
            boot,
            instance: 0,
            epoch: 0,
            agent: None,
            conns: BTreeMap::new(),
            path: true,
            wake: 0,
            looked: 0,
            away_since: None,
            shy: false,
        });
        self.start(self.machines.len() - 1);
    }

    fn start(&mut self, m: usize) {
        let (now, instance) = (self.clock(), self.rng.roll());
        let at = self.now;
        let machine = &mut self.machines[m];
        machine.epoch += 1;
        machine.instance = instance;
        machine.agent = Some(Agent::new(machine.disk.held.map(|it| it.2), now));
        (
            machine.wake,
            machine.looked,
            machine.away_since,
            machine.shy,
        ) = (at, at, None, false);
        let epoch = machine.epoch;
        self.queue.push(at, Ev::Wake(m, epoch));
    }

    fn kill(&mut self, m: usize) {
        self.machines[m].agent = None;
        for (_, link) in std::mem::take(&mut self.machines[m].conns) {
            self.links[link].open = false;
            self.queue.push(self.now + IDLE, Ev::Idle(link));
        }
    }

    /// Hands an event to an agent and does what it says.
    fn feed(&mut self, m: usize, event: Event) {
        let mut events = std::collections::VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, dice) = (self.clock(), self.rng.roll());
            let Some(agent) = &mut self.machines[m].agent else {
                return;
            };
            for action in agent.handle(event, now, dice) {
                self.act(m, action, &mut events);
            }
        }
        let now = self.clock();
        let deadline = self.machines[m]
            .agent
            .as_ref()
            .and_then(|agent| agent.deadline(now));
        if let Some(deadline) = deadline {
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
    }

    fn act(&mut self, m: usize, action: Action, events: &mut std::collections::VecDeque<Event>) {
        match action {
            Action::Dial {
                conn,
                rung,
                purpose: _,
            } => {
                let link = self.links.len();
                let epoch = self.machines[m].epoch;
                self.links.push(Link {
                    machine: m,
                    epoch,
                    conn,
                    rung,
                    open: true,
                    side: Side::Closed,
                    last: [0; 2],
                });
                self.machines[m].conns.insert(conn, link);
                let rtt = self.rng.between(5, 300);
                if self.up && self.machines[m].path {
                    self.queue.push(self.now + rtt, Ev::Connected(link));
                } else if rung == Rung::WebSocket && self.machines[m].path {
                    self.queue.push(self.now + rtt, Ev::Failed(link));
                }
            }
            Action::Close(conn) => {
                if let Some(link) = self.machines[m].conns.remove(&conn) {
                    self.links[link].open = false;
                    self.send(link, 0, Packet::Close);
                    self.queue.push(self.now + IDLE, Ev::Idle(link));
                }
            }
            Action::Enrol(conn) => {
                let key = Key(self.rng.roll());
                let disk = &mut self.machines[m].disk;
                let key = *disk.key.get_or_insert(key);
                let request = EnrolRequest {
                    token: "token".into(),
                    csr: key.request(),
                    facts: None,
                    version_max: protocol::VERSION,
                    version_min: protocol::VERSION_MIN,
                };
                self.say(m, conn, question(&request));
            }
            Action::Hello {
                conn,
                counter,
                trust_version,
            } => {
                let host_time_ms = self.wall().as_millis();
                let machine = &self.machines[m];
                let hello = Hello {
                    version_max: protocol::VERSION,
                    version_min: protocol::VERSION_MIN,
                    agent_version: "1".into(),
                    boot_id: format!("{:x}", machine.boot),
                    instance: machine.instance.to_be_bytes().to_vec(),
                    counter,
                    facts_digest: Vec::new(),
                    trust_version,
                    host_time_ms,
                };
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
                self.say(
                    m,
                    conn,
                    from_agent(agent_frame::Body::Renew(Renew { csr: key.request() })),
                );
            }
            Action::StoreCounter(counter) => {
                let lazy = self.options.broken == Some(Break::CounterUnsynced);
                let machine = &mut self.machines[m];
                if let Some((_, _, own)) = &mut machine.disk.held {
                    own.counter = own.counter.max(counter);
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

    /// The rules of the agent's state folder.
    fn store(&mut self, m: usize, conn: Conn, grant: &Grant) -> Event {
        let wall = self.wall();
        let (Ok(host), Some(key)) = (
            grant.host.parse::<HostId>(),
            Key::of_request(&grant.certificate),
        ) else {
            return Event::GrantNotStored(conn);
        };
        let machine = &mut self.machines[m];
        let disk = &mut machine.disk;
        if disk.pending == Some(key) {
            disk.key = disk.pending.take();
        }
        if disk.key != Some(key) {
            return Event::GrantNotStored(conn);
        }
        let held = |host, generation, counter| Held {
            host,
            generation,
            counter,
        };
        let before = disk
            .held
            .map(|(host, generation, own)| held(host, generation, own.counter));
        let counter = counter_after(
            before.as_ref(),
            &held(host, grant.generation, grant.counter),
        );
        let own = Own {
            counter,
            trust_version: 1,
            not_before: wall,
            not_after: wall.saturating_add(LIFETIME),
        };
        disk.held = Some((host, grant.generation, own));
        machine.synced = disk.clone();
        Event::GrantStored(conn, own)
    }

    fn say(&mut self, m: usize, conn: Conn, packet: Packet) {
        if let Some(&link) = self.machines[m].conns.get(&conn) {
            self.send(link, 0, packet);
        }
    }

    /// A stream keeps its order; loss is delay.
    fn send(&mut self, link: usize, way: usize, packet: Packet) {
        let mut delay = self.rng.between(2, 150);
        while self.rng.percent(3) {
            delay += 400;
        }
        let at = (self.now + delay).max(self.links[link].last[way] + 1);
        self.links[link].last[way] = at;
        self.queue.push(
            at,
            if way == 0 {
                Ev::ToGateway(link, packet)
            } else {
                Ev::ToAgent(link, packet)
            },
        );
    }

    fn tell(&mut self, link: usize, body: gateway_frame::Body) {
        self.send(link, 1, from_gateway(body));
    }

    fn step(&mut self, event: Ev) {
        match event {
            Ev::Wake(m, epoch) => {
                if self.machines[m].epoch == epoch
                    && self.machines[m].agent.is_some()
                    && self.machines[m].wake == self.now
                {
                    self.wake(m);
                }
            }
            Ev::Connected(l) => {
                let (m, conn) = (self.links[l].machine, self.links[l].conn);
                if self.links[l].open && self.up && self.machines[m].path {
                    self.links[l].side = Side::Hello;
                    self.feed(m, Event::Connected(conn));
                }
            }
            Ev::Failed(l) => self.closed(l, true),
            Ev::Idle(l) => {
                let (m, open) = (self.links[l].machine, self.links[l].open);
                if !open {
                    self.end(l, &End::Lost("timed out".into()));
                } else if !self.machines[m].path || matches!(self.links[l].side, Side::Closed) {
                    self.end(l, &End::Lost("timed out".into()));
                    self.closed(l, false);
                }
            }
            // What the path swallowed comes again, unless the connection is gone.
            Ev::ToGateway(l, packet) => {
                let m = self.links[l].machine;
                if matches!(self.links[l].side, Side::Closed) {
                    return;
                }
                if !self.machines[m].path {
                    self.queue.push(self.now + SECOND, Ev::ToGateway(l, packet));
                    return;
                }
                self.frames += 1;
                match packet {
                    Packet::Close => self.end(l, &End::Lost("closed".into())),
                    Packet::Frame(bytes) => self.arrived(l, &bytes),
                }
            }
            Ev::ToAgent(l, packet) => {
                let (m, conn) = (self.links[l].machine, self.links[l].conn);
                if !self.links[l].open {
                    return;
                }
                if !self.machines[m].path {
                    self.queue.push(self.now + SECOND, Ev::ToAgent(l, packet));
                    return;
                }
                self.frames += 1;
                let Packet::Frame(bytes) = packet else {
                    return self.closed(l, false);
                };
                if let Some(EnrolReply {
                    answer: Some(answer),
                }) = self.machines[m]
                    .disk
                    .held
                    .is_none()
                    .then(|| read(&bytes))
                    .flatten()
                {
                    self.feed(
                        m,
                        Event::Enrolled(
                            conn,
                            EnrolReply {
                                answer: Some(answer),
                            },
                        ),
                    );
                } else if let Some(GatewayFrame { body: Some(body) }) = read(&bytes) {
                    if let gateway_frame::Body::Refused(_) = body {
                        self.machines[m].shy = true;
                    }
                    if let gateway_frame::Body::Welcome(_) = body {
                        self.machines[m].shy = false;
                    }
                    self.feed(m, Event::Frame(conn, body));
                }
            }
            Ev::Look => {
                self.look();
                self.queue.push(self.now + LOOK, Ev::Look);
            }
            Ev::Fault => {
                self.fault();
                let next = self.rng.between(MINUTE, 20 * MINUTE);
                self.queue.push(self.now + next, Ev::Fault);
            }
            Ev::Heal(m) => self.machines[m].path = true,
            Ev::GatewayUp => {
                (self.up, self.started) = (true, self.now);
                self.heard_before = std::mem::take(&mut self.heard);
                self.note(|| "gateway up".into());
            }
            Ev::PowerOn(m) => {
                if self.machines[m].agent.is_none() {
                    self.start(m);
                }
            }
            Ev::Split(id) => {
                if let Some(host) = self.hosts.get(&id).copied()
                    && let Ok(done) = gateway_core::host::repair(
                        host,
                        None,
                        false,
                        CloneRepair::Split,
                        self.wall(),
                    )
                {
                    self.hosts.insert(id, done.newcomer);
                }
            }
        }
    }

    fn wake(&mut self, m: usize) {
        let keep_alive = u64::try_from(KEEP_ALIVE.as_millis()).unwrap_or(SECOND);
        let standing = self.machines[m].agent.as_ref().map(Agent::standing);
        if self.options.broken == Some(Break::BackoffNever)
            && matches!(standing, Some(Standing::Waiting { .. }))
            && self.now > MINUTE
        {
            return;
        }
        if let Some(Standing::Linked { conn, .. }) = standing
            && self.now - self.machines[m].looked >= keep_alive
        {
            let alive = self.machines[m]
                .conns
                .get(&conn)
                .is_some_and(|&l| !matches!(self.links[l].side, Side::Closed));
            self.machines[m].looked = self.now;
            if alive && self.machines[m].path {
                self.feed(m, Event::Heard(conn));
            }
        }
        self.feed(m, Event::Tick);
    }

    fn closed(&mut self, l: usize, dialling: bool) {
        let (m, conn) = (self.links[l].machine, self.links[l].conn);
        if std::mem::replace(&mut self.links[l].open, false) {
            self.machines[m].conns.remove(&conn);
            self.feed(
                m,
                if dialling {
                    Event::Failed(conn, DialFailure::Network)
                } else {
                    Event::Closed(conn, DialFailure::Network)
                },
            );
        }
    }

    /// A link ends at the gateway.
    fn end(&mut self, l: usize, end: &End) {
        let Side::Serving(session) = std::mem::replace(&mut self.links[l].side, Side::Closed)
        else {
            return;
        };
        let host = session.proven.host;
        if self.live.get(&host) == Some(&l) {
            self.live.remove(&host);
        }
        if let (Some(loss), false) = (end.loss(), self.live.contains_key(&host))
            && let Some((seen, _)) =
                self.seen[&host]
                    .clone()
                    .lost(session.issued, &loss, self.wall())
        {
            self.write(host, seen);
        }
    }

    fn write(&mut self, host: HostId, seen: Seen) {
        if let Some(before) = self.seen.get(&host)
            && (seen.issued < before.issued
                || seen.confirmed < before.confirmed
                || seen.confirmed > seen.issued)
        {
            self.violate(
                "counters never go back",
                format!("{host}: {before:?} became {seen:?}"),
            );
        }
        self.seen.insert(host, seen);
    }

    fn arrived(&mut self, l: usize, bytes: &[u8]) {
        if matches!(self.links[l].side, Side::Hello)
            && self.machines[self.links[l].machine].disk.held.is_none()
        {
            return match read::<EnrolRequest>(bytes) {
                Some(request) => self.enrol(l, &request),
                None => self.links[l].side = Side::Closed,
            };
        }
        let Some(AgentFrame { body: Some(body) }) = read(bytes) else {
            return;
        };
        let now_ms = self.wall().as_millis();
        match (&mut self.links[l].side, body) {
            (Side::Hello, agent_frame::Body::Hello(hello)) => self.join(l, &hello),
            (Side::Asked(proven), agent_frame::Body::Renew(renew)) => {
                let proven = *proven;
                self.quarantine(l, &proven, &renew);
            }
            (Side::Serving(session), body) => {
                let (host, proven, issued) = (session.proven.host, session.proven, session.issued);
                self.heard.insert(host, self.now);
                match body {
                    agent_frame::Body::Heartbeat(Heartbeat { sequence }) => self.tell(
                        l,
                        gateway_frame::Body::HeartbeatAck(HeartbeatAck {
                            sequence,
                            server_time_ms: now_ms,
                        }),
                    ),
                    agent_frame::Body::CounterStored(stored) if stored.counter == issued => {
                        if let Some(seen) = self.seen[&host].clone().confirmed(stored.counter) {
                            let branch = self.machines[self.links[l].machine].disk.branch;
                            self.proof.insert(host, (branch, stored.counter));
                            self.write(host, seen);
                        }
                    }
                    agent_frame::Body::Renew(renew) => self.renew(l, &proven, &renew, issued),
                    agent_frame::Body::Goodbye(goodbye) => {
                        self.end(l, &End::Goodbye(goodbye.reason()))
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn issue(
        &mut self,
        host: HostId,
        generation: u64,
        key: Key,
        counter: u64,
    ) -> (Identity, Grant) {
        let now = self.wall();
        let owner = *self.keys.entry((host, generation)).or_insert(key);
        if owner != key {
            self.violate(
                "a generation belongs to one key",
                format!("{host} generation {generation}"),
            );
        }
        let identity = Identity {
            generation,
            spki_sha256: key.spki(),
            not_after: now.saturating_add(LIFETIME),
            issuer: [1; 32],
            previous: None,
        };
        let grant = Grant {
            deployment: String::new(),
            workspace: self.workspace.to_string(),
            host: host.to_string(),
            generation,
            certificate: key.request(),
            trust: Some(Trust {
                version: 1,
                authorities: Vec::new(),
            }),
            counter,
            server_time_ms: now.as_millis(),
        };
        (identity, grant)
    }

    fn by_key(&self, key: Key) -> Option<Host> {
        self.hosts
            .values()
            .find(|host| {
                host.is_live() && host.identity.is_some_and(|it| it.spki_sha256 == key.spki())
            })
            .copied()
    }

    fn enrol(&mut self, l: usize, request: &EnrolRequest) {
        let (now, Some(key)) = (self.wall(), Key::of_request(&request.csr)) else {
            return;
        };
        let known = self
            .by_key(key)
            .filter(|_| self.options.broken != Some(Break::EnrolTwice));
        let token = TokenFacts {
            expires_at: now.saturating_add(LIFETIME),
            revoked_at: None,
            use_limit: None,
            uses: self.uses,
        };
        let Ok(plan) = admission::plan(&Asked {
            id: self.token,
            token: &token,
            workspace: true,
            known: known.as_ref(),
            awaited: None,
            now,
        }) else {
            return;
        };
        let host = match (plan, known) {
            (Plan::Again(_), Some(host)) => host,
            _ => {
                self.uses += 1;
                Host::unknown(HostId::new(now, self.rng.bytes()), self.workspace)
            }
        };
        if let Some(other) = self.by_key(key)
            && other.id != host.id
        {
            self.violate(
                "the same token and key give the same host",
                format!("{} and {}", other.id, host.id),
            );
        }
        let counter = self.seen.get(&host.id).map_or(1, |seen| seen.issued);
        let (identity, grant) = self.issue(host.id, admission::generation(&host), key, counter);
        self.hosts.insert(
            host.id,
            admission::joined(host, plan, self.token, identity, now),
        );
        self.seen.entry(host.id).or_insert_with(|| Seen::never(now));
        // The connection breaks before the answer is there: asked again with the same key.
        if self.rng.percent(20) {
            return self.send(l, 1, Packet::Close);
        }
        self.send(
            l,
            1,
            answer(&EnrolReply {
                answer: Some(enrol_reply::Answer::Granted(grant)),
            }),
        );
    }

    /// The steps of the gateway's `admit`, with its writes at once.
    fn join(&mut self, l: usize, hello: &Hello) {
        let m = self.links[l].machine;
        let Some((host, generation, own)) = self.machines[m].disk.held else {
            return;
        };
        let proven = Proven {
            workspace: self.workspace,
            host,
            generation,
            expired: own.not_after < self.wall(),
        };
        let blind = self.options.broken == Some(Break::CloneCheck);
        let (mut join, mut done, mut counter) = (Join::new(proven, hello), Done::Nothing, 0);
        loop {
            let live = self.live.get(&host).copied();
            let other = live.and_then(|l| match &self.links[l].side {
                Side::Serving(s) => Some((s.instance.clone(), s.boot.clone())),
                _ => None,
            });
            let mut counters = self.seen.get(&host).map(Seen::counters);
            if blind && let Some(counters) = &mut counters {
                counters.confirmed = 0;
            }
            let known = Known {
                host: self.hosts.get(&host).copied(),
                workspace: true,
                counters,
                live: other
                    .as_ref()
                    .map(|(instance, boot_id)| LiveLink { instance, boot_id }),
                late_return: LATE_RETURN,
                now: self.wall(),
            };
            done = match join.next(done, &known) {
                Step::Adopt => {
                    self.hosts.insert(host, Host::adopted(&proven, self.wall()));
                    Done::Adopted
                }
                // The world knows whether the old link would answer within the limit.
                Step::Probe => Done::Probed(live.is_some_and(|l| {
                    let link = &self.links[l];
                    let there = &self.machines[link.machine];
                    link.open
                        && there.path
                        && there.agent.is_some()
                        && there.epoch == link.epoch
                        && !blind
                })),
                Step::Mark => {
                    let carrier = if self.links[l].rung == Rung::Udp {
                        Carrier::Udp
                    } else {
                        Carrier::WebSocket
                    };
                    let arrival = Arrival {
                        hello,
                        carrier,
                        address: "192.0.2.1",
                        replaces: live.map(|_| carrier),
                        now: self.wall(),
                    };
                    let before = self
                        .seen
                        .get(&host)
                        .cloned()
                        .unwrap_or_else(|| Seen::never(self.wall()));
                    let judged = if blind {
                        Seen {
                            confirmed: 0,
                            ..before.clone()
                        }
                    } else {
                        before.clone()
                    };
                    match judged.welcomed(&arrival) {
                        Ok((seen, events)) => {
                            let seen = Seen {
                                confirmed: seen.confirmed.max(before.confirmed),
                                ..seen
                            };
                            self.check_welcome(m, host, hello, &events);
                            counter = seen.issued;
                            self.write(host, seen);
                            Done::Marked(Ok(()))
                        }
                        Err(evidence) => Done::Marked(Err(evidence)),
                    }
                }
                Step::Settle => {
                    if let Some(found) = self.hosts.get_mut(&host)
                        && let Some(identity) = found.identity.and_then(|it| it.used(generation))
                    {
                        found.identity = Some(identity);
                    }
                    Done::Settled
                }
                Step::Welcome => break,
                Step::Clone(evidence) => {
                    if !self.copied {
                        self.violate(
                            "nobody is accused without a copy",
                            format!("machine {m}, {host}: {evidence}"),
                        );
                    }
                    self.links[l].side = Side::Asked(proven);
                    return self.tell(
                        l,
                        gateway_frame::Body::Reidentify(Reidentify {
                            reason: String::new(),
                        }),
                    );
                }
                Step::Refuse(refused) => {
                    self.links[l].side = Side::Closed;
                    self.tell(l, gateway_frame::Body::Refused(refused.refusal));
                    return self.send(l, 1, Packet::Close);
                }
            };
        }
        let Some(record) = self.hosts.get(&host).copied() else {
            return;
        };
        let trust = Trust {
            version: 1,
            authorities: Vec::new(),
        };
        let welcome = greet(
            hello,
            Greeting {
                host: &record,
                name: String::new(),
                counter,
                heartbeat_ms: self.beat,
                facts_digest: &hello.facts_digest,
                trust,
                lifetime: LIFETIME,
                authority: [1; 32],
                now: self.wall(),
            },
        );
        self.links[l].side = Side::Serving(Box::new(Session {
            proven,
            issued: counter,
            instance: hello.instance.clone(),
            boot: hello.boot_id.clone(),
        }));
        self.heard.insert(host, self.now);
        if let Some(old) = self.live.insert(host, l) {
            self.end(old, &End::TakenOver);
            self.send(old, 1, Packet::Close);
        }
        self.note(|| {
            format!(
                "machine {m} linked as {host}, counter {} sent {counter}",
                hello.counter
            )
        });
        self.tell(l, gateway_frame::Body::Welcome(welcome));
    }

    fn check_welcome(&mut self, m: usize, host: HostId, hello: &Hello, events: &[HostEvent]) {
        let branch = self.machines[m].disk.branch;
        if let Some(&(proved, counter)) = self.proof.get(&host)
            && hello.counter < counter
        {
            self.violate("no two machines act as one host", format!("machine {m} (disk {branch}) is welcome as {host}; disk {proved} has confirmed {counter}, it presents {}", hello.counter));
        }
        let mine = format!("{:x}", self.machines[m].boot);
        for event in events {
            if let HostEvent::Rebooted { from, to } = event
                && (*from == mine || *to != mine)
            {
                self.violate(
                    "every reboot in a history was one",
                    format!("{host}: {from} to {to}"),
                );
            }
        }
    }

    fn quarantine(&mut self, l: usize, proven: &Proven, renew: &Renew) {
        let Some(key) = Key::of_request(&renew.csr) else {
            return;
        };
        let known = self
            .by_key(key)
            .filter(|host| host.clone_of == Some(proven.host));
        let original = self.hosts.get(&proven.host).copied();
        let suspect = known.unwrap_or_else(|| {
            Host::suspect(
                HostId::new(self.wall(), self.rng.bytes()),
                proven,
                original.as_ref(),
            )
        });
        let (identity, grant) = self.issue(suspect.id, 1, key, 1);
        if let Some(named) = suspect.named(identity) {
            let (now, id) = (self.wall(), named.id);
            self.hosts.insert(id, named);
            self.seen.entry(id).or_insert_with(|| Seen::never(now));
            self.tell(l, gateway_frame::Body::Renewed(grant));
            self.queue.push(self.now + HOUR, Ev::Split(id));
        }
    }

    fn renew(&mut self, l: usize, proven: &Proven, renew: &Renew, counter: u64) {
        let (Some(key), Some(host)) = (
            Key::of_request(&renew.csr),
            self.hosts.get(&proven.host).copied(),
        ) else {
            return;
        };
        let place = place(
            host.identity.as_ref(),
            &key.spki(),
            Asking::Holder {
                generation: proven.generation,
            },
        );
        let (identity, grant) = self.issue(host.id, place.generation, key, counter);
        self.hosts.insert(
            host.id,
            Host {
                identity: Some(Identity {
                    previous: place.previous,
                    ..identity
                }),
                ..host
            },
        );
        self.tell(l, gateway_frame::Body::Renewed(grant));
    }

    /// Liveness, and the bound on every host that nothing keeps.
    fn look(&mut self) {
        let (thresholds, grace, now) = (
            self.thresholds(),
            if self.options.broken == Some(Break::NoGrace) {
                Duration::ZERO
            } else {
                GRACE
            },
            self.uptime(),
        );
        let ids: Vec<HostId> = if self.up {
            self.hosts.keys().copied().collect()
        } else {
            Vec::new()
        };
        for id in ids {
            let Some(seen) = self.seen.get(&id).cloned() else {
                continue;
            };
            let last = self
                .heard
                .get(&id)
                .map(|at| Duration::from_millis(at.saturating_sub(self.started)));
            let found = connectivity(
                Heard {
                    last,
                    linked: self.live.contains_key(&id),
                    before: seen.connectivity,
                },
                &thresholds,
                now,
                grace,
            );
            if found == Connectivity::Unreachable && seen.connectivity != Connectivity::Unreachable
            {
                if now < GRACE && last.is_none() {
                    self.violate(
                        "nobody is unreachable inside the grace period",
                        id.to_string(),
                    );
                }
                let (seen, _) = seen.unreachable(false, self.wall());
                self.write(id, seen);
            } else if found == Connectivity::Connected
                && seen.connectivity == Connectivity::Unreachable
            {
                let (seen, _) = seen.heard_again(Carrier::Udp, "192.0.2.1", self.wall());
                self.write(id, seen);
            }
        }
        for m in 0..self.machines.len() {
            let machine = &self.machines[m];
            let held = machine.disk.held.map(|it| it.0);
            let alone = held.is_none_or(|held| {
                self.machines
                    .iter()
                    .filter(|it| it.disk.held.is_some_and(|it| it.0 == held))
                    .count()
                    == 1
            });
            let linked = matches!(
                machine.agent.as_ref().map(Agent::standing),
                Some(Standing::Linked { .. })
            ) && held.is_some_and(|held| {
                self.live
                    .get(&held)
                    .is_some_and(|&l| self.links[l].machine == m)
            });
            let free = self.up && machine.path && machine.agent.is_some() && alone;
            let since = machine.away_since;
            let beat = Duration::from_millis(self.beat.into());
            let bound = if machine.shy {
                bounds::reconnect_after_refusal(beat, Duration::from_secs(300))
            } else {
                bounds::reconnect(beat, Duration::from_secs(30))
            };
            let limit = u64::try_from(bound.as_millis()).unwrap_or(u64::MAX) + 2 * LOOK;
            self.machines[m].away_since = (free && !linked).then_some(since.unwrap_or(self.now));
            if free && !linked && since.is_some_and(|since| self.now - since > limit) {
                let standing =
                    format!("{:?}", self.machines[m].agent.as_ref().map(Agent::standing));
                self.violate(
                    "a host that nothing keeps is linked within the bound",
                    format!("machine {m} away for more than {bound:?}: {standing}"),
                );
            }
        }
    }

    fn cut(&mut self, m: usize, length: Ms) {
        self.machines[m].path = false;
        for l in self.machines[m].conns.values().copied().collect::<Vec<_>>() {
            self.queue.push(self.now + IDLE, Ev::Idle(l));
        }
        self.queue.push(self.now + length, Ev::Heal(m));
    }

    fn fault(&mut self) {
        let m = usize::try_from(self.rng.below(self.machines.len() as u64)).unwrap_or(0);
        let length = self.rng.between(SECOND, 10 * MINUTE);
        let kind = self.rng.below(9);
        self.note(|| format!("fault {kind} on machine {m} for {length} ms"));
        match kind {
            0 | 1 => self.cut(m, length),
            2 => {
                for m in 0..self.machines.len() {
                    if self.rng.percent(80) {
                        self.cut(m, length);
                    }
                }
            }
            // Killed: links and what was heard are gone, the store stays.
            3 if self.up => {
                self.up = false;
                self.live.clear();
                for l in 0..self.links.len() {
                    if !matches!(self.links[l].side, Side::Closed) {
                        self.links[l].side = Side::Closed;
                        self.queue.push(self.now + IDLE, Ev::Idle(l));
                    }
                }
                self.queue.push(self.now + length, Ev::GatewayUp);
            }
            4 if self.machines[m].agent.is_some() => {
                self.kill(m);
                self.queue.push(self.now + length, Ev::PowerOn(m));
            }
            5 | 6 if self.machines[m].agent.is_some() => {
                self.kill(m);
                let boot = self.rng.roll();
                let machine = &mut self.machines[m];
                machine.boot = boot;
                machine.disk = machine.synced.clone();
                let away = if kind == 6 { length * 100 } else { length };
                self.queue.push(self.now + away, Ev::PowerOn(m));
            }
            7 if self.machines.len() < 2 * self.options.hosts as usize
                && self.rng.percent(25)
                && self.options.broken != Some(Break::CounterUnsynced) =>
            {
                self.copied = true;
                let branch = self.branch(Some(self.machines[m].disk.branch));
                let disk = Disk {
                    branch,
                    ..self.machines[m].synced.clone()
                };
                self.machine(disk);
            }
            _ => {}
        }
    }
}
