//! Gateway core, agent core and protocol in one process, on virtual time.
//!
//! One seed makes one world: machines, a network, a gateway, and what goes wrong with
//! them. Every decision is the product's own; the world only carries messages (really
//! encoded and decoded), keeps the disks, and knows the truth that the invariants are
//! held against after each step. `docs/simulation.md` says what is in it and what is not.

mod queue;
mod rng;
mod wire;
mod world;

pub use world::{Broken, World};

/// Something broken on purpose, at the seam between the world and the cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Break {
    /// What a host has confirmed is forgotten when a newcomer is judged.
    CloneCheck,
    /// An agent that waits never wakes up.
    BackoffNever,
    /// The agent says that a counter is stored before it is.
    CounterUnsynced,
    /// There is no grace period after a start.
    NoGrace,
    /// Every attempt of one machine to join makes another host.
    EnrolTwice,
    /// A gateway that starts again takes revoked tokens for good ones.
    RevocationForgotten,
    /// A retired host is let in.
    RetiredServed,
    /// Agents go by their machine's clock, whatever the gateway says.
    ClockNotLearned,
}

impl Break {
    /// All of them, with their words.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::CloneCheck, "clone-check"),
        (Self::BackoffNever, "backoff-never"),
        (Self::CounterUnsynced, "counter-unsynced"),
        (Self::NoGrace, "no-grace"),
        (Self::EnrolTwice, "enrol-twice"),
        (Self::RevocationForgotten, "revocation-forgotten"),
        (Self::RetiredServed, "retired-served"),
        (Self::ClockNotLearned, "clock-not-learned"),
    ];
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Machines at the beginning.
    pub hosts: u32,
    /// Virtual hours.
    pub hours: u32,
    /// What is broken on purpose.
    pub broken: Option<Break>,
}

/// An invariant that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: &'static str,
    /// What was found.
    pub detail: String,
    /// Virtual milliseconds.
    pub at: u64,
    /// Events until then.
    pub step: u64,
}
