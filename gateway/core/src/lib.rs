//! What the gateway decides, without the gateway.
//!
//! Plain functions of (state, input, now): no socket, store, clock, task or
//! randomness. The `gateway` crate feeds them and does what they say. Builds for
//! `wasm32-unknown-unknown`, which keeps I/O out.
//!
//! In the order in which a host meets them:
//! * [`install`]: the installer script for a gateway; [`installer`]: is one by a plugin fit for hosts;
//! * [`admission`]: does an agent token let a host in;
//! * [`join`]: is a host that proved an identity welcome;
//! * [`clone`](mod@clone): is this the host, or a copy of it;
//! * [`session`]: what a welcomed host is told;
//! * [`command`]: which run goes to it when, and what becomes of each;
//! * [`diagnose`]: what it shows of itself, held against what it was asked;
//! * [`liveness`]: connectivity of hosts, mass losses;
//! * [`pause`]: did the gateway itself stand still;
//! * [`plugin`]: what becomes of a plugin that somebody installs;
//! * [`host`], [`identity`], [`seen`]: what becomes of a host, of its identity, of
//!   what was observed of it;
//! * [`policy`]: what several policies say together;
//! * [`approval`]: what waits until others agree;
//! * [`signal`]: what happened, carried to other systems;
//! * [`refuse`]: the words of a refusal.

pub mod admission;
pub mod approval;
pub mod clone;
pub mod command;
pub mod diagnose;
pub mod host;
pub mod identity;
pub use install_script as install;
pub mod installer;
pub mod join;
pub mod liveness;
pub mod pause;
pub mod plugin;
pub mod policy;
pub mod power;
pub mod refuse;
pub mod seen;
pub mod session;
pub mod signal;
