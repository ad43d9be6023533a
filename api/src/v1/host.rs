//! Hosts: inventory, states, history, repair of suspected clones.

use std::collections::BTreeMap;

use model::Timestamp;
use model::facts::Facts;
use model::host::{
    Carrier, CloneRepair, Connectivity, HostEvent, Maintenance, Membership, Summary,
};
use model::ids::{HostId, WorkspaceId};
use model::labels::Labels;
use model::names::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InWorkspace, OfHost};
use crate::endpoint::endpoints;
use crate::page::{Page, Paging};

endpoints! {
    /// List hosts.
    list_hosts ListHosts: GET "/v1/workspaces/{workspace}/hosts", needs HostList, path InWorkspace, query HostFilter, reply 200 Page<Host>,
        problems [Invalid];
    /// Put a host into the inventory before its agent exists.
    create_host CreateHostRecord: POST "/v1/workspaces/{workspace}/hosts", needs HostCreate, path InWorkspace, body CreateHost, reply 201 Host;
    /// Show a host.
    get_host GetHost: GET "/v1/workspaces/{workspace}/hosts/{host}", needs HostList, path OfHost, reply 200 Host;
    /// Change display name and labels.
    update_host UpdateHostRecord: PATCH "/v1/workspaces/{workspace}/hosts/{host}", needs HostUpdate, path OfHost, body UpdateHost, reply 200 Host;
    /// What happened to a host, newest first.
    list_host_history ListHostHistory: GET "/v1/workspaces/{workspace}/hosts/{host}/history", needs HostList, path OfHost, query Paging, reply 200 Page<HistoryEntry>;
    /// Put a host into maintenance: its absence is expected until then.
    set_host_maintenance SetHostMaintenance: PUT "/v1/workspaces/{workspace}/hosts/{host}/maintenance", needs HostMaintenance, path OfHost,
        body SetMaintenance, reply 200 Host;
    /// End maintenance.
    end_host_maintenance EndHostMaintenance: DELETE "/v1/workspaces/{workspace}/hosts/{host}/maintenance", needs HostMaintenance, path OfHost, reply 200 Host;
    /// Decide about a quarantined newcomer: split, replace or merge.
    repair_host_clone RepairHostClone: POST "/v1/workspaces/{workspace}/hosts/{host}/repair-clone", needs HostRepair, path OfHost,
        body RepairClone, reply 200 Host;
    /// Retire a host: its link closes and its identity is never accepted again.
    retire_host RetireHostRecord: POST "/v1/workspaces/{workspace}/hosts/{host}/retire", needs HostRetire, path OfHost, body RetireHost, reply 200 Host;
}

/// A host. Membership, connectivity and maintenance are separate facts;
/// `summary` is the one word derived from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Host {
    /// Its id; never used again for another host.
    pub id: HostId,
    /// The workspace it lies in.
    pub workspace: WorkspaceId,
    /// What to call it: the display name, else its own hostname, else its id.
    pub name: String,
    /// Given by an operator; wins over the hostname.
    pub display_name: Option<Text>,
    /// The one word for a table.
    pub summary: Summary,
    /// Whether it belongs to the fleet.
    pub membership: Membership,
    /// Whether the gateway hears from it.
    pub connectivity: Connectivity,
    /// Since when `connectivity` is what it is.
    pub connectivity_since: Timestamp,
    /// When the gateway last heard from it.
    pub last_seen_at: Option<Timestamp>,
    /// Planned absence.
    pub maintenance: Option<Maintenance>,
    /// For selecting.
    pub labels: Labels,
    /// Whether it retires by itself once unreachable for a while.
    pub ephemeral: bool,
    /// The host it looks like a copy of, when quarantined.
    pub clone_of: Option<HostId>,
    /// How packets arrive, while linked.
    pub carrier: Option<Carrier>,
    /// From where, as the gateway sees it.
    pub address: Option<String>,
    /// The kernel's boot id.
    pub boot_id: Option<String>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// The host's clock minus the gateway's, as of the last link.
    pub clock_skew_ms: Option<i64>,
    /// Its certificate.
    pub certificate: Option<HostCertificate>,
    /// What it says of itself.
    pub facts: Option<Facts>,
    /// When it came into the inventory.
    pub created_at: Timestamp,
    /// When its agent joined.
    pub enrolled_at: Option<Timestamp>,
    /// When it left.
    pub retired_at: Option<Timestamp>,
}

/// What can be said of a host's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostCertificate {
    /// Grows with every new identity; older ones are refused.
    pub generation: u64,
    /// Until when it is valid.
    pub not_after: Timestamp,
}

/// A new entry of the inventory.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateHost {
    /// What to call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text>,
    /// For selecting.
    #[serde(default)]
    pub labels: Labels,
    /// An agent that joins under this hostname becomes this host.
    #[schemars(length(min = 1, max = 128))]
    pub hostname: String,
}

/// Changes to a host; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateHost {
    /// What to call it; empty goes back to the hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text>,
    /// Labels to set; `null` takes one away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
}

/// A planned absence.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetMaintenance {
    /// Ends by itself then; at most 90 days ahead.
    pub until: Timestamp,
    /// Why.
    #[serde(default)]
    pub reason: Text,
}

/// A decision about a suspected clone.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepairClone {
    /// Split, replace or merge.
    pub repair: CloneRepair,
}

/// Why a host is retired.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetireHost {
    /// For the history.
    #[serde(default)]
    pub reason: Text,
}

/// Something that happened to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryEntry {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: HostEvent,
    /// By whom, when by a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

/// Which hosts. All conditions given must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HostFilter {
    /// Label selector: `role=web,env!=dev`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub selector: Option<String>,
    /// With this one word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    /// With this membership; retired hosts are only listed when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<Membership>,
    /// With this connectivity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connectivity: Option<Connectivity>,
    /// Whose name or hostname contains this, in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub name: Option<String>,
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
}
