//! What the gateway decides, without the gateway.
//!
//! Plain functions of (state, input, now): no socket, store, clock, task or
//! randomness. The `gateway` crate feeds them and does what they say. Builds for
//! `wasm32-unknown-unknown`, which keeps I/O out.
//!
//! * [`admission`]: does an agent token let a host in;
//! * [`clone`]: is this the host, or a copy of it;
//! * [`liveness`]: connectivity of hosts, mass losses;
//! * [`install`]: the installer script for a gateway.

pub mod admission;
pub mod clone;
pub mod install;
pub mod liveness;
