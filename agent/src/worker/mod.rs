//! Work that is done outside the agent's own process.
//!
//! The agent is sandboxed (see its unit) and restarts when it is updated; what it does
//! for operators needs the whole host and must outlive it. So it has another process of
//! the same program do it:
//!
//! ```text
//! agent ──starts once, through systemd where there is one──► runner
//!   │                                                           │ keeps two workers idle
//!   └───────────── a socket of the runner's ──────────────► worker (one job, then gone)
//! ```
//!
//! * The [`runner`] listens and starts workers; it never reads what they are told. It
//!   ends with the agent. In a unit of its own (`KillMode=process`, a delegated control
//!   group) it is outside the sandbox, and its end takes nobody along.
//! * A worker ([`serve`]) takes one connection, reads its [`job`], and serves it on that very
//!   connection: the agent only carries bytes between it and the gateway. It outlives
//!   agent and runner. An idle one is there before it is needed, so that a run does not
//!   wait for a program to be loaded.
//!
//! Who may connect, the file system says: the sockets lie in the agent's state folder
//! (0700). A worker looks at its peer's user id all the same.

pub mod job;
pub mod launch;
pub mod runner;
pub mod serve;
pub(crate) mod socket;

pub use launch::Workers;
