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
//!   Renewing ── asked for a certificate on a connection that got no welcome: the
//!               old one has expired, or the gateway wants another key (a clone)
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
//! * `CounterStored` follows the disk, never leads it, and never overtakes a hello
//!   (see `HELLO_ON_ITS_WAY`);
//! * no fallback is final: while linked over the WebSocket, UDP is tried again.

mod step;
mod waiting;

use std::time::Duration;

use protocol::v1::Refusal;

use self::step::Step;
use crate::io::{Action, Conn, Event, FactsDigest, Identity, Purpose, Rung};
use crate::race::Race;
use crate::session::Session;
use crate::time::{Dice, Mono, Now};

/// Time for a renewal on a connection that was refused for an old certificate.
const RENEWING_LIMIT: Duration = Duration::from_secs(20);
/// How long a hello that nobody has answered may still be read by the gateway, given up
/// here or not. Meanwhile no newer counter is confirmed on the link beside it: the older
/// one in that hello would then look like a copy's.
const HELLO_ON_ITS_WAY: Duration = Duration::from_secs(60);
/// Time for the gateway to take note of a deregistration.
const LEAVING_LIMIT: Duration = Duration::from_secs(10);

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
    /// When this process got its newest certificate.
    granted: Option<Mono>,
    /// Hellos without an answer, and when they were sent.
    unanswered: Vec<(Conn, Mono)>,
    last_conn: u64,
    end: End,
}

#[derive(Debug)]
enum Effort {
    Rest,
    Wait {
        until: Mono,
        why: Waiting,
    },
    Race {
        race: Race,
        rescue: bool,
    },
    Renewing {
        conn: Conn,
        rung: Rung,
        since: Mono,
        /// What to go by if nothing comes of it.
        refusal: Option<Refusal>,
    },
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
            granted: None,
            unanswered: Vec::new(),
            last_conn: 0,
            end: End::Open,
        }
    }

    /// Takes note of what happened and says what to do.
    pub fn handle(&mut self, event: Event, now: Now, seed: u64) -> Vec<Action> {
        Step::new(self, now, Dice::new(seed)).run(event)
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
