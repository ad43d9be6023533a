//! What a diagnosis shows, from what the kernel says; and what it does not show.
//!
//! The edge (`agent::diagnose`) reads files and runs programs. Here is what their texts
//! mean, as pure functions that never fail: what is not understood is left out, because
//! a diagnosis is wanted most where something is odd.

pub mod mounts;
pub mod net;
pub mod processes;
pub mod redact;
pub mod system;
