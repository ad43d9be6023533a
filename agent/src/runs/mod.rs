//! Runs of commands on this host.
//!
//! ```text
//! gateway ══ a stream per run ══ agent ── Unix socket ── worker ── the program
//!                                  │                       │
//!                                  └──── the journal ──────┘
//! ```
//!
//! The agent reads a run's [`journal`], has `agent_core::runs::journal` decide, and
//! either answers itself (it has ended, it never will start) or carries bytes between
//! the gateway and the worker that watches the program ([`stream`]). The worker starts
//! it ([`program`]), keeps its output ([`spool`]), knows and ends everything that it
//! has started ([`tree`], [`cgroup`]), and writes how it ended ([`watch`]).
//!
//! Agent, worker, link and gateway may each be killed at any moment: the folder of the
//! run says what is so, and whoever comes next goes on from there.

pub mod cgroup;
pub mod journal;
pub mod program;
pub mod spool;
pub mod stream;
pub mod tree;
pub mod watch;
