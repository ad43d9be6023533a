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
pub mod quarantine;
pub mod registry;
pub mod session;
pub mod steward;

use model::ids::{HostId, WorkspaceId};
use protocol::v1::{Refusal, RefusalCode};

/// A host as its certificate proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenHost {
    /// The workspace it was issued for.
    pub workspace: WorkspaceId,
    /// The host.
    pub host: HostId,
    /// Which of the host's identities.
    pub generation: u64,
    /// Whether the certificate's time is over.
    pub expired: bool,
}

/// A refusal with the gateway's time, so that a host can tell a wrong clock.
pub fn refusal(
    code: RefusalCode,
    message: impl Into<String>,
    retry_after: std::time::Duration,
) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
        server_time_ms: crate::app::wall_clock().as_millis(),
    }
}
