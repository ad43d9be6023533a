//! A machine that proves an identity: the steps of the gateway's `admit`.

use gateway_core::clone::LiveLink;
use gateway_core::host::Host;
use gateway_core::identity::Proven;
use gateway_core::join::{Done, Join, Known, Step};
use gateway_core::seen::{Arrival, End, Seen};
use gateway_core::session::{Greeting, Told, greet};
use model::host::Carrier;
use protocol::v1::{Hello, Reidentify, gateway_frame};

use agent_core::Rung;

use super::{Session, Side, trust};
use crate::Break;
use crate::queue::HOUR;
use crate::wire::Packet;
use crate::world::network::Way;
use crate::world::{ADDRESS, AUTHORITY, Ev, LATE_RETURN, LIFETIME, World};

impl World {
    /// Somebody says hello.
    pub(super) fn join(&mut self, l: usize, hello: &Hello) {
        let disk = &self.machines[self.links[l].machine].disk;
        let (Some(held), Some(key)) = (disk.held, disk.key) else {
            return;
        };
        let proven = Proven {
            workspace: self.gateway.workspace,
            host: held.host,
            generation: held.generation,
            spki_sha256: key.spki(),
            expired: held.own.not_after < self.wall(),
        };
        let (mut join, mut done, mut counter) = (Join::new(proven, hello), Done::Nothing, 0);
        loop {
            done = match self.next_step(&mut join, done, &proven) {
                Step::Adopt => {
                    self.adopt(&proven);
                    Done::Adopted
                }
                Step::Probe => Done::Probed(self.probe(&proven)),
                Step::Mark => match self.mark(l, &proven, hello) {
                    Ok(issued) => {
                        counter = issued;
                        Done::Marked(Ok(()))
                    }
                    Err(evidence) => Done::Marked(Err(evidence)),
                },
                Step::Settle => {
                    self.settle(&proven);
                    Done::Settled
                }
                Step::Welcome => return self.welcome(l, &proven, hello, counter),
                Step::Clone(evidence) => {
                    self.check_accusation(l, &proven, &evidence);
                    self.links[l].side = Side::Asked(proven);
                    let asked = Reidentify {
                        reason: String::new(),
                    };
                    return self.tell(l, gateway_frame::Body::Reidentify(asked));
                }
                Step::Refuse(refused) => return self.refuse(l, refused.refusal),
            };
        }
    }

    fn adopt(&mut self, proven: &Proven) {
        let now = self.wall();
        let host = match self.gateway.store.hosts.get(&proven.host) {
            Some(host) if host.is_older_than(proven) => host.recognised(proven, now),
            Some(_) => return,
            None => Host::adopted(proven, now),
        };
        self.gateway.store.hosts.insert(proven.host, host);
    }

    fn next_step(&self, join: &mut Join, done: Done, proven: &Proven) -> Step {
        let live = self.gateway.live.get(&proven.host);
        let other = live.and_then(|&l| match &self.links[l].side {
            Side::Serving(session) => Some(&**session),
            _ => None,
        });
        let store = &self.gateway.store;
        let mut counters = store.seen.get(&proven.host).map(Seen::counters);
        let mut host = store.hosts.get(&proven.host).copied();
        match self.options.broken {
            Some(Break::CloneCheck) => {
                if let Some(counters) = &mut counters {
                    counters.confirmed = 0;
                }
            }
            Some(Break::RetiredServed) => {
                if let Some(host) = &mut host {
                    host.membership = model::host::Membership::Managed;
                }
            }
            _ => {}
        }
        let known = Known {
            host,
            workspace: true,
            counters,
            live: other.map(|session| LiveLink {
                instance: &session.instance,
                boot_id: &session.boot,
            }),
            late_return: LATE_RETURN,
            now: self.wall(),
        };
        join.next(done, &known)
    }

    /// The world knows whether the old link would answer within the limit.
    fn probe(&self, proven: &Proven) -> bool {
        self.gateway.live.get(&proven.host).is_some_and(|&l| {
            let link = &self.links[l];
            let machine = &self.machines[link.machine];
            let there = machine.path && machine.agent.is_some() && machine.epoch == link.epoch;
            link.open && there && self.options.broken != Some(Break::CloneCheck)
        })
    }

    /// Writes the arrival; the counter to send.
    fn mark(
        &mut self,
        l: usize,
        proven: &Proven,
        hello: &Hello,
    ) -> Result<u64, gateway_core::clone::Evidence> {
        let carrier = |rung| match rung {
            Rung::Udp => Carrier::Udp,
            Rung::WebSocket => Carrier::WebSocket,
        };
        let now = self.wall();
        let live = self.gateway.live.get(&proven.host);
        let arrival = Arrival {
            hello,
            carrier: carrier(self.links[l].rung),
            address: ADDRESS,
            replaces: live.map(|&old| carrier(self.links[old].rung)),
            now,
        };
        let before = self.gateway.store.seen.get(&proven.host).cloned();
        let before = before.unwrap_or_else(|| Seen::never(now));
        let confirmed = before.confirmed;
        let judged = if self.options.broken == Some(Break::CloneCheck) {
            Seen {
                confirmed: 0,
                ..before
            }
        } else {
            before
        };
        let (seen, events) = judged.welcomed(&arrival)?;
        let seen = Seen {
            confirmed: seen.confirmed.max(confirmed),
            ..seen
        };
        self.check_arrival(self.links[l].machine, proven.host, hello, &events);
        let counter = seen.issued;
        self.write(proven.host, seen);
        Ok(counter)
    }

    /// The identity was used: the one before it has ended, and so have the records that
    /// became this host.
    fn settle(&mut self, proven: &Proven) {
        let now = self.wall();
        let hosts = &mut self.gateway.store.hosts;
        if let Some(host) = hosts.get_mut(&proven.host)
            && let Some(identity) = host.identity.and_then(|it| it.used(proven))
        {
            host.identity = Some(identity);
        }
        let served = hosts.values().filter(|host| host.became(proven));
        let served: Vec<_> = served.map(|host| host.id).collect();
        for id in served {
            if let Some(host) = hosts.get_mut(&id)
                && let Some(gone) = host.retired(now)
            {
                *host = gone;
                self.truth.retired.insert(id);
            }
        }
    }

    fn welcome(&mut self, l: usize, proven: &Proven, hello: &Hello, counter: u64) {
        let host = proven.host;
        let Some(record) = self.gateway.store.hosts.get(&host).copied() else {
            return;
        };
        self.check_welcome(host);
        let greeting = Greeting {
            host: &record,
            name: String::new(),
            counter,
            heartbeat_ms: self.gateway.beat,
            expired: proven.expired,
            facts_digest: &hello.facts_digest,
            trust: trust(),
            lifetime: LIFETIME,
            authority: AUTHORITY,
            now: self.wall(),
        };
        let welcome = greet(hello, greeting);
        self.links[l].side = Side::Serving(Box::new(Session {
            proven: *proven,
            issued: counter,
            instance: hello.instance.clone(),
            boot: hello.boot_id.clone(),
            told: Told::after(hello, &welcome, AUTHORITY),
        }));
        self.gateway.heard.insert(host, self.now);
        if let Some(old) = self.gateway.live.insert(host, l) {
            self.end(old, &End::TakenOver);
            self.send(old, Way::Down, Packet::Close);
        }
        let m = self.links[l].machine;
        self.note(|| {
            format!(
                "machine {m} linked as {host}, counter {} sent {counter}",
                hello.counter
            )
        });
        self.tell(l, gateway_frame::Body::Welcome(welcome));
        self.queue.push(self.now + HOUR, Ev::Advance(l));
        // What happened between the reading and the registration.
        self.nudge(host);
    }
}
