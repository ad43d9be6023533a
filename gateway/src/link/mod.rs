//! The gateway's end of agents' connections.
//!
//! ```text
//! UDP endpoint ─┐                        ┌─ enrolment: one question, one answer
//!               ├─ accept ─ who is it? ──┤
//! hub endpoint ─┘  (listener)            └─ session: the control stream of a host
//!                                                 │ registers with
//!   steward ── tells sessions of changed ──►  registry ◄── liveness reads
//!              records, settings, trust
//! ```
//!
//! Identity comes from the certificate alone; whatever a message says about ids
//! is not even looked at.

pub mod carrier;
pub mod enrolment;
pub mod issue;
pub mod listener;
mod mailbox;
pub mod quarantine;
pub mod registry;
pub mod session;
pub mod steward;
pub mod strangers;

pub use gateway_core::identity::Proven as ProvenHost;
use protocol::v1::{Refusal, RefusalCode};

/// A refusal with the gateway's time, so that a host can tell a wrong clock.
pub fn refusal(
    code: RefusalCode,
    message: impl Into<String>,
    retry_after: std::time::Duration,
) -> Refusal {
    gateway_core::refuse::refusal(code, message, retry_after, crate::app::wall_clock())
}
