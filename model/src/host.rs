//! What can be said of a host. Its states are separate facts, never one enum:
//! membership, connectivity and maintenance change for different reasons and at
//! different hands. [`summary`] derives the one word a table shows.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::HostId;
use crate::names::Text;

/// Whether the host belongs to the fleet.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Membership {
    /// In the inventory; no agent has joined yet.
    Unknown,
    /// Joined with a certificate of its own.
    Managed,
    /// Looks like a copy of another host; gets nothing until somebody decides.
    Quarantined,
    /// Left the fleet; its identity is never accepted again.
    Retired,
}

/// Whether the gateway hears from the host, by the gateway's receive time.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Connectivity {
    /// No agent was ever linked.
    Never,
    /// Linked, heartbeats on time.
    Connected,
    /// Heartbeats are missing, or the link was lost a moment ago.
    Late,
    /// Quiet past the workspace's threshold.
    Unreachable,
    /// Was linked when the gateway stopped; the grace period has not ended.
    Unconfirmed,
}

/// How packets reach the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Carrier {
    /// QUIC over UDP.
    Udp,
    /// The same QUIC packets inside a WebSocket on the HTTPS port.
    WebSocket,
}

/// The one word a table shows for a host.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    /// No agent yet.
    Unknown,
    /// Managed and connected.
    Connected,
    /// Managed, heartbeats missing.
    Late,
    /// Managed, quiet.
    Unreachable,
    /// Managed, not yet heard since the gateway restarted.
    Unconfirmed,
    /// In maintenance: absence is expected.
    Maintenance,
    /// Looks like a clone.
    Quarantined,
    /// Left the fleet.
    Retired,
}

/// Derives the word for a table. What needs a decision wins over what is
/// planned, and what is planned over what is observed.
pub fn summary(
    membership: Membership,
    connectivity: Connectivity,
    in_maintenance: bool,
) -> Summary {
    match (membership, connectivity) {
        (Membership::Retired, _) => Summary::Retired,
        (Membership::Quarantined, _) => Summary::Quarantined,
        (Membership::Unknown, _) => Summary::Unknown,
        (Membership::Managed, _) if in_maintenance => Summary::Maintenance,
        (Membership::Managed, Connectivity::Connected) => Summary::Connected,
        (Membership::Managed, Connectivity::Late) => Summary::Late,
        (Membership::Managed, Connectivity::Unreachable | Connectivity::Never) => {
            Summary::Unreachable
        }
        (Membership::Managed, Connectivity::Unconfirmed) => Summary::Unconfirmed,
    }
}

/// A planned absence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Maintenance {
    /// Ends by itself at this time.
    pub until: Timestamp,
    /// Why.
    pub reason: Text,
}

/// How an operator repairs a suspected clone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CloneRepair {
    /// They are two machines: the newcomer becomes a host of its own.
    Split,
    /// The newcomer takes the place of the original, whose identity ends.
    Replace,
    /// They are one machine (a restored disk, say): its two lives become one.
    Merge,
}

/// What happened to a host, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum HostEvent {
    /// Put into the inventory before an agent existed.
    Created,
    /// An agent joined.
    Enrolled {
        /// Id of the token used.
        token: String,
    },
    /// Linked.
    Connected {
        /// By which carrier.
        carrier: Carrier,
        /// From which address.
        address: String,
    },
    /// The carrier of a live host changed.
    CarrierChanged {
        /// The new carrier.
        carrier: Carrier,
    },
    /// The link ended or heartbeats stopped.
    LinkLost {
        /// Why, as far as known.
        reason: String,
    },
    /// Quiet past the threshold.
    Unreachable {
        /// Whether this was part of a mass loss, which suspects the gateway's side.
        mass_loss: bool,
    },
    /// Came up with another boot id.
    Rebooted {
        /// Boot id before.
        from: String,
        /// Boot id now.
        to: String,
    },
    /// Reached the gateway from another address.
    AddressChanged {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// Another version of the agent runs.
    VersionChanged {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// The host calls itself something else.
    HostnameChanged {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// An operator gave it another display name.
    Renamed {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// Labels were changed.
    Relabelled {
        /// All labels now.
        labels: String,
    },
    /// Maintenance began or was changed.
    MaintenanceSet {
        /// Until when.
        until: Timestamp,
        /// Why.
        reason: String,
    },
    /// Maintenance ended.
    MaintenanceEnded {
        /// Whether by itself at its end.
        expired: bool,
    },
    /// Another machine presented this host's identity.
    CloneSuspected {
        /// The quarantined newcomer, or the original when told by the newcomer.
        other: HostId,
        /// What gave it away.
        evidence: String,
    },
    /// Somebody decided about a suspected clone.
    CloneRepaired {
        /// The decision.
        repair: CloneRepair,
        /// The other record involved.
        other: HostId,
    },
    /// The certificate was renewed.
    CertificateRenewed {
        /// Until when it is valid.
        not_after: Timestamp,
    },
    /// Left the fleet.
    Retired {
        /// Why: by an operator, by its own uninstall, as ephemeral.
        reason: String,
    },
}

impl HostEvent {
    /// The stable word of this event, as in its `kind` field.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Enrolled { .. } => "enrolled",
            Self::Connected { .. } => "connected",
            Self::CarrierChanged { .. } => "carrier_changed",
            Self::LinkLost { .. } => "link_lost",
            Self::Unreachable { .. } => "unreachable",
            Self::Rebooted { .. } => "rebooted",
            Self::AddressChanged { .. } => "address_changed",
            Self::VersionChanged { .. } => "version_changed",
            Self::HostnameChanged { .. } => "hostname_changed",
            Self::Renamed { .. } => "renamed",
            Self::Relabelled { .. } => "relabelled",
            Self::MaintenanceSet { .. } => "maintenance_set",
            Self::MaintenanceEnded { .. } => "maintenance_ended",
            Self::CloneSuspected { .. } => "clone_suspected",
            Self::CloneRepaired { .. } => "clone_repaired",
            Self::CertificateRenewed { .. } => "certificate_renewed",
            Self::Retired { .. } => "retired",
        }
    }
}

macro_rules! display_as_serde {
    ($($kind:ident { $($variant:ident $word:literal),* $(,)? })*) => {$(
        impl $kind {
            /// The word used in the API and CLI.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),* }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    )*};
}

display_as_serde! {
    Membership { Unknown "unknown", Managed "managed", Quarantined "quarantined", Retired "retired" }
    Connectivity { Never "never", Connected "connected", Late "late", Unreachable "unreachable", Unconfirmed "unconfirmed" }
    Carrier { Udp "udp", WebSocket "web_socket" }
    CloneRepair { Split "split", Replace "replace", Merge "merge" }
    Summary {
        Unknown "unknown", Connected "connected", Late "late", Unreachable "unreachable",
        Unconfirmed "unconfirmed", Maintenance "maintenance", Quarantined "quarantined", Retired "retired",
    }
}
