//! Connections, and what becomes of packets.
//!
//! A connection is a stream in each direction: what is sent on it arrives once and in
//! order, because QUIC sees to that, so loss and reordering of datagrams show as delay.
//! What does come twice or out of order are the same *words* on different connections,
//! and those that an agent says again because the answer was lost.

use agent_core::{Conn, DialFailure, Event, Purpose, Rung};
use gateway_core::seen::End;
use protocol::v1::{EnrolReply, GatewayFrame, gateway_frame};

use super::gateway::Side;
use super::{Ev, World};
use crate::queue::{Ms, SECOND};
use crate::wire::{Packet, from_gateway, read};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// To the gateway.
    Up,
    /// To the agent.
    Down,
}

/// A connection, from dial to end. Never reused.
pub(super) struct Link {
    pub(super) machine: usize,
    /// Which life of the agent dialled it.
    pub(super) epoch: u32,
    pub(super) conn: Conn,
    pub(super) rung: Rung,
    pub(super) purpose: Purpose,
    /// Whether the agent holds it open.
    pub(super) open: bool,
    /// What the gateway makes of it.
    pub(super) side: Side,
    /// When the newest packet of each direction arrives.
    last: [Ms; 2],
}

impl World {
    /// A connection that is being dialled.
    pub(super) fn connection(
        &mut self,
        machine: usize,
        conn: Conn,
        rung: Rung,
        purpose: Purpose,
    ) -> usize {
        self.links.push(Link {
            machine,
            epoch: self.machines[machine].epoch,
            conn,
            rung,
            purpose,
            open: true,
            side: Side::Closed,
            last: [0; 2],
        });
        self.links.len() - 1
    }

    /// Sends over one of a machine's connections, if it is there.
    pub(super) fn say(&mut self, m: usize, conn: Conn, packet: Packet) {
        let Some(&link) = self.machines[m].conns.get(&conn) else {
            return;
        };
        // Every word must bear to be said twice.
        if self.rng.percent(1) && !is_hello(&packet) {
            self.send(link, Way::Up, packet.clone());
        }
        self.send(link, Way::Up, packet);
    }

    /// Sends a frame to the agent.
    pub(super) fn tell(&mut self, link: usize, body: gateway_frame::Body) {
        self.send(link, Way::Down, from_gateway(body));
    }

    /// A stream keeps its order; loss is delay.
    pub(super) fn send(&mut self, link: usize, way: Way, packet: Packet) {
        let mut delay = self.rng.between(2, 150);
        while self.rng.percent(3) {
            delay += 400;
        }
        let last = &mut self.links[link].last[way as usize];
        let at = (self.now + delay).max(*last + 1);
        *last = at;
        let event = match way {
            Way::Up => Ev::ToGateway(link, packet),
            Way::Down => Ev::ToAgent(link, packet),
        };
        self.queue.push(at, event);
    }

    /// The handshake is done.
    pub(super) fn connected(&mut self, l: usize) {
        let (m, conn) = (self.links[l].machine, self.links[l].conn);
        if self.links[l].open && self.gateway.up && self.machines[m].path {
            self.links[l].side = Side::Hello;
            self.feed(m, Event::Connected(conn));
        }
    }

    /// The idle timeout of a connection, on both sides.
    pub(super) fn idle(&mut self, l: usize) {
        let silent = !self.machines[self.links[l].machine].path
            || matches!(self.links[l].side, Side::Closed);
        if !self.links[l].open {
            self.end(l, &End::Lost("timed out".into()));
        } else if silent {
            self.end(l, &End::Lost("timed out".into()));
            self.closed(l, false);
        }
    }

    /// What the path swallowed is sent again, unless the connection is gone.
    pub(super) fn reach_gateway(&mut self, l: usize, packet: Packet) {
        if matches!(self.links[l].side, Side::Closed) {
            return;
        }
        if !self.machines[self.links[l].machine].path {
            let again = Ev::ToGateway(l, packet);
            return self.queue.push(self.now + SECOND, again);
        }
        self.frames += 1;
        match packet {
            Packet::Close => self.end(l, &End::Lost("closed".into())),
            Packet::Frame(bytes) => self.arrived(l, &bytes),
        }
    }

    /// The same in the other direction.
    pub(super) fn reach_agent(&mut self, l: usize, packet: Packet) {
        if !self.links[l].open {
            return;
        }
        let (m, conn) = (self.links[l].machine, self.links[l].conn);
        if !self.machines[m].path {
            let again = Ev::ToAgent(l, packet);
            return self.queue.push(self.now + SECOND, again);
        }
        self.frames += 1;
        let Packet::Frame(bytes) = packet else {
            return self.closed(l, false);
        };
        if self.links[l].purpose == Purpose::Enrol {
            let Some(reply) = read::<EnrolReply>(&bytes) else {
                return;
            };
            if let Some(protocol::v1::enrol_reply::Answer::Refused(_)) = &reply.answer {
                self.machines[m].shy = true;
                self.note(|| format!("machine {m} is refused an identity: {:?}", reply.answer));
            }
            return self.feed(m, Event::Enrolled(conn, reply));
        }
        let Some(GatewayFrame { body: Some(body) }) = read(&bytes) else {
            return;
        };
        match &body {
            gateway_frame::Body::Refused(refusal) => {
                self.machines[m].shy = true;
                self.note(|| format!("machine {m} is refused: {refusal:?}"));
                self.learn(m, refusal.server_time_ms);
            }
            gateway_frame::Body::Welcome(welcome) => {
                self.machines[m].shy = false;
                self.learn(m, welcome.server_time_ms);
            }
            gateway_frame::Body::HeartbeatAck(ack) => self.learn(m, ack.server_time_ms),
            _ => {}
        }
        self.feed(m, Event::Frame(conn, body));
    }

    /// The agent loses a connection, or an attempt at one.
    pub(super) fn closed(&mut self, l: usize, dialling: bool) {
        let (m, conn) = (self.links[l].machine, self.links[l].conn);
        if !std::mem::replace(&mut self.links[l].open, false) {
            return;
        }
        self.machines[m].conns.remove(&conn);
        let event = if dialling {
            Event::Failed(conn, DialFailure::Network)
        } else {
            Event::Closed(conn, DialFailure::Network)
        };
        self.feed(m, event);
    }

    /// No packet of this machine gets through for a while.
    pub(super) fn cut(&mut self, m: usize, length: Ms) {
        self.machines[m].path = false;
        let links: Vec<usize> = self.machines[m].conns.values().copied().collect();
        for l in links {
            self.queue.push(self.now + super::IDLE, Ev::Idle(l));
        }
        self.queue.push(self.now + length, Ev::Heal(m));
    }
}

/// A second hello on one connection is no repetition but a broken agent, which the
/// gateway sends away.
fn is_hello(packet: &Packet) -> bool {
    let Packet::Frame(bytes) = packet else {
        return true;
    };
    let hello = |frame: protocol::v1::AgentFrame| {
        matches!(frame.body, Some(protocol::v1::agent_frame::Body::Hello(_)))
    };
    read(bytes).is_some_and(hello)
}
