//! A gateway, machines and a network, driven by the real cores on virtual time.
//!
//! ```text
//! faults ──► machine (agent_core) ◄──► network ◄──► gateway (gateway_core)
//!               │ disk, clock            delay          │ store, links
//!               └────────────── truth ◄─────────────────┘
//!                           after each step
//! ```

mod faults;
mod gateway;
mod machine;
mod network;
mod truth;

use std::collections::VecDeque;
use std::time::Duration;

use model::Timestamp;
use model::host::CloneRepair;
use model::ids::{AgentTokenId, HostId, WorkspaceId};

use self::gateway::Gateway;
use self::machine::Machine;
use self::network::Link;
use self::truth::Truth;
use crate::queue::{HOUR, MINUTE, Ms, Queue, SECOND};
use crate::rng::Rng;
use crate::wire::Packet;
use crate::{Options, Violation};

/// When a world begins, in Unix milliseconds.
const EPOCH: i64 = 1_800_000_000_000;
/// A certificate's life: short, so that many are renewed.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);
/// For how long after its certificate's end a host may come back.
const LATE_RETURN: Duration = Duration::from_secs(730 * 86_400);
/// After a start, before silence means something.
const GRACE: Duration = Duration::from_secs(60);
/// Three keepalives without an answer, as the agent sets it.
const IDLE: Ms = 15 * SECOND;
/// How often the gateway looks who is there.
const LOOK: Ms = 5 * SECOND;
/// Who signs.
const AUTHORITY: [u8; 32] = [1; 32];
/// Where everybody comes from.
const ADDRESS: &str = "192.0.2.1";
/// Events kept for a report.
const TAIL: usize = 60;

/// What happens next.
enum Ev {
    /// A deadline of this life of an agent.
    Wake(usize, u32),
    /// Something arrives.
    ToGateway(usize, Packet),
    ToAgent(usize, Packet),
    /// A dial ends.
    Connected(usize),
    Failed(usize),
    /// A connection's idle timeout.
    Idle(usize),
    /// The counter of a link moves on.
    Advance(usize),
    /// The gateway looks who is there, and so does the world.
    Look,
    /// Something goes wrong.
    Fault,
    /// And comes back.
    Heal(usize),
    GatewayUp,
    /// The gateway's disk is lost.
    Restore,
    PowerOn(usize),
    /// An operator acts.
    Reinstall(usize),
    Decide(HostId, CloneRepair),
    Revoke(AgentTokenId),
}

/// What was broken, and the last that happened before.
pub type Broken = Box<(Violation, Vec<String>)>;

/// One world.
pub struct World {
    now: Ms,
    rng: Rng,
    queue: Queue<Ev>,
    options: Options,
    machines: Vec<Machine>,
    links: Vec<Link>,
    gateway: Gateway,
    truth: Truth,
    events: u64,
    frames: u64,
    /// The last that happened, if anybody wants to read it.
    trace: Option<VecDeque<String>>,
}

impl World {
    /// The world of `seed`.
    pub fn new(seed: u64, options: &Options, tracing: bool) -> Self {
        let mut rng = Rng::new(seed);
        let birth = Timestamp::from_millis(EPOCH);
        let beat = rng.pick(&[10_000, 30_000, 60_000, 300_000]).copied();
        let workspace = WorkspaceId::new(birth, rng.bytes());
        let token = AgentTokenId::new(birth, rng.bytes());
        let mut world = Self {
            now: 0,
            rng,
            queue: Queue::default(),
            options: options.clone(),
            machines: Vec::new(),
            links: Vec::new(),
            gateway: Gateway::new(workspace, token, beat.unwrap_or(10_000)),
            truth: Truth::default(),
            events: 0,
            frames: 0,
            trace: tracing.then(VecDeque::new),
        };
        for _ in 0..options.hosts {
            let disk = world.blank();
            world.machine(disk);
        }
        world.queue.push(LOOK, Ev::Look);
        world.queue.push(MINUTE, Ev::Fault);
        world
    }

    /// Runs it; how many events and frames, or what was broken.
    pub fn run(mut self) -> Result<(u64, u64), Broken> {
        let end = u64::from(self.options.hours) * HOUR;
        while let Some((at, event)) = self.queue.pop(end) {
            self.now = at;
            self.events += 1;
            self.step(event);
            if let Some(mut broken) = self.truth.broken.take() {
                (broken.at, broken.step) = (at, self.events);
                let trace = self.trace.unwrap_or_default();
                return Err(Box::new((broken, trace.into())));
            }
        }
        Ok((self.events, self.frames))
    }

    fn step(&mut self, event: Ev) {
        match event {
            Ev::Wake(m, epoch) => self.wake(m, epoch),
            Ev::ToGateway(l, packet) => self.reach_gateway(l, packet),
            Ev::ToAgent(l, packet) => self.reach_agent(l, packet),
            Ev::Connected(l) => self.connected(l),
            Ev::Failed(l) => self.closed(l, true),
            Ev::Idle(l) => self.idle(l),
            Ev::Advance(l) => self.advance(l),
            Ev::Look => {
                if self.gateway.up {
                    self.watch();
                }
                self.check_bounds();
                self.queue.push(self.now + LOOK, Ev::Look);
            }
            Ev::Fault => {
                self.fault();
                let next = self.rng.between(MINUTE, 20 * MINUTE);
                self.queue.push(self.now + next, Ev::Fault);
            }
            Ev::Heal(m) => self.machines[m].path = true,
            Ev::GatewayUp => self.gateway_up(),
            Ev::Restore => self.lose_gateway(),
            Ev::PowerOn(m) => {
                if self.machines[m].agent.is_none() {
                    self.start(m);
                }
            }
            Ev::Reinstall(m) => self.reinstall_if_lost(m),
            Ev::Decide(..) | Ev::Revoke(_) if !self.gateway.up => {
                // Operators try again.
                self.queue.push(self.now + MINUTE, event);
            }
            Ev::Decide(host, decision) => self.decide(host, decision),
            Ev::Revoke(token) => self.revoke(token),
        }
    }

    /// The time by a clock that is right.
    fn true_time(&self) -> Timestamp {
        Timestamp::from_millis(EPOCH).saturating_add(Duration::from_millis(self.now))
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TAIL {
                trace.pop_front();
            }
            trace.push_back(format!("{:>10.3}s {}", self.now as f64 / 1000.0, text()));
        }
    }
}
