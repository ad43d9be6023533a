//! What changes in a workspace, as server-sent events: first a snapshot, then
//! every change. Each event has an id; a client that reconnects with
//! `Last-Event-ID` goes on where it was, or gets a snapshot again when the
//! gateway no longer has what came between.

use model::Timestamp;
use model::host::HostEvent;
use model::ids::HostId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InWorkspace;
use super::host::Host;
use crate::endpoint::{Raw, endpoints};

endpoints! {
    /// Follow what changes: a snapshot, then changes; resumes by `Last-Event-ID`.
    follow_events FollowEvents: GET "/v1/workspaces/{workspace}/events", needs WorkspaceEventRead, path InWorkspace,
        reply 200 as "text/event-stream" Raw;
}

/// One event. The SSE `event` field repeats `kind`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum WorkspaceEvent {
    /// One host as it is, part of the snapshot.
    Snapshot {
        /// The host.
        host: Box<Host>,
    },
    /// The snapshot is complete; what follows are changes.
    SnapshotEnd {
        /// How many hosts it had.
        hosts: u64,
    },
    /// A host is as given from now on.
    HostChanged {
        /// The host.
        host: Box<Host>,
    },
    /// Something happened to a host.
    HostHistory {
        /// The host.
        host: HostId,
        /// When.
        at: Timestamp,
        /// What.
        event: HostEvent,
    },
    /// Many hosts were lost together: automatic actions stand still.
    MassLoss {
        /// How many.
        hosts: u64,
        /// When.
        at: Timestamp,
    },
    /// The hosts lost together are back, or somebody looked after them.
    MassLossOver {
        /// When.
        at: Timestamp,
    },
}

impl WorkspaceEvent {
    /// The stable word, as in `kind`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Snapshot { .. } => "snapshot",
            Self::SnapshotEnd { .. } => "snapshot_end",
            Self::HostChanged { .. } => "host_changed",
            Self::HostHistory { .. } => "host_history",
            Self::MassLoss { .. } => "mass_loss",
            Self::MassLossOver { .. } => "mass_loss_over",
        }
    }
}
