//! The Loopback agent: the program on a host that dials its gateway and stays linked.
//!
//! What it decides is in `agent-core`; this crate is the edge that acts: sockets,
//! disk, clock, signals. One thread runs everything ([`engine`] owns all state and is
//! the only one to change it), because an agent that waits for a heartbeat needs no
//! more and every thread costs memory on every host of the fleet.
//!
//! In reading order:
//! * [`args`], [`config`], [`token`]: what it is told;
//! * [`state`]: what it must not forget, and the order of writes that lets it crash
//!   anywhere;
//! * [`engine`]: the loop around the core, with [`conn`] for each connection and
//!   [`streams`] for what the gateway opens on it;
//! * [`runs`]: commands on this host; [`worker`]: the processes that do the work;
//! * [`files`]: files to and from the host;
//! * [`clock`], [`facts`], [`shutdown`]: what it learns from the machine;
//! * [`scrape`], [`metrics`]: what it measures, and whom it asks on this host;
//! * [`local`], [`status`]: what it tells people on this host;
//! * [`doctor`], [`commands`]: the other commands;
//! * [`diagnose`]: what it shows a gateway of this host;
//! * [`service`], [`log`]: systemd and logs.

pub mod args;
pub mod clock;
pub mod commands;
pub mod config;
pub mod conn;
pub mod diagnose;
pub mod doctor;
pub mod engine;
pub mod facts;
pub mod files;
pub mod forward;
pub mod local;
pub mod log;
pub mod metrics;
pub mod plan;
pub mod runs;
pub mod scrape;
pub mod service;
pub mod shutdown;
pub mod state;
pub mod status;
pub mod streams;
pub mod token;
pub mod worker;

/// The agent's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What the agent was built for.
pub const ARCH: &str = std::env::consts::ARCH;
