//! Power: how hosts are turned on and off from the outside, and what came of it.
//!
//! Asking for something answers at once with an operation, which goes on by itself: see
//! [`model::power`] for its states. There is one operation on a host at a time; more wait in line.

use std::collections::BTreeMap;

use model::Timestamp;
use model::ids::{HostId, PowerBulkId, PowerOperationId, WorkspaceId};
use model::names::{Name, Text};
use model::power::{
    BootDevice, BootOnce, Confirmation, Observability, PowerAction, PowerMode, PowerOperationState,
    PowerState,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::command::Targets;
use super::plugin::PluginFinding;
use super::{InWorkspace, OfHost, OfPowerBulk, OfPowerOperation};
use crate::endpoint::endpoints;
use crate::page::Page;

endpoints! {
    /// Show what is known of a host's power.
    get_host_power GetHostPower: GET "/v1/workspaces/{workspace}/hosts/{host}/power", needs HostPowerRead, path OfHost, reply 200 HostPower;
    /// Have the provider looked at now.
    observe_host_power ObserveHostPower: POST "/v1/workspaces/{workspace}/hosts/{host}/power/observe", needs HostPowerRead, path OfHost, reply 200 HostPower;
    /// Say by which provider a host is turned on and off.
    set_power_target SetPowerTarget: PUT "/v1/workspaces/{workspace}/hosts/{host}/power/target", needs HostPowerConfigure, path OfHost,
        body PowerTarget, reply 200 HostPower, problems [Invalid];
    /// Take the provider away from a host.
    remove_power_target RemovePowerTarget: DELETE "/v1/workspaces/{workspace}/hosts/{host}/power/target", needs HostPowerConfigure, path OfHost, reply 204;
    /// Have the provider say whether what is configured works. Changes nothing.
    check_power_target CheckPowerTarget: POST "/v1/workspaces/{workspace}/hosts/{host}/power/check", needs HostPowerConfigure, path OfHost,
        reply 200 PowerCheck;
    /// Turn a host on.
    power_on PowerOn: POST "/v1/workspaces/{workspace}/hosts/{host}/power/on", needs HostPowerOn, path OfHost,
        body AskPower, reply 202 PowerOperation, problems [Invalid];
    /// Turn a host off: ask it to shut down, or cut its power.
    power_off PowerOff: POST "/v1/workspaces/{workspace}/hosts/{host}/power/off", needs HostPowerOff, path OfHost,
        body AskPower, reply 202 PowerOperation, problems [Invalid];
    /// Restart a host: ask it, reset it, cut its power for a moment, or send a non-maskable interrupt.
    power_reset PowerReset: POST "/v1/workspaces/{workspace}/hosts/{host}/power/reset", needs HostPowerReset, path OfHost,
        body AskPower, reply 202 PowerOperation, problems [Invalid];
    /// Rehearse something for a host: the steps it would take, and what speaks against it. Asks the provider, changes nothing.
    plan_host_power PlanHostPower: POST "/v1/workspaces/{workspace}/hosts/{host}/power/plan", needs HostPowerRead, path OfHost,
        body AskPower, reply 200 PowerPlan, problems [Invalid];
    /// List operations, newest first.
    list_power_operations ListPowerOperations: GET "/v1/workspaces/{workspace}/power-operations", needs HostPowerRead, path InWorkspace,
        query PowerOperationFilter, reply 200 Page<PowerOperation>, problems [Invalid];
    /// Show an operation.
    get_power_operation GetPowerOperation: GET "/v1/workspaces/{workspace}/power-operations/{operation}", needs HostPowerRead, path OfPowerOperation,
        reply 200 PowerOperation;
    /// Call an operation off: for certain while nothing was submitted, by the provider's grace after that.
    cancel_power_operation CancelPowerOperation: POST "/v1/workspaces/{workspace}/power-operations/{operation}/cancel", needs HostPowerCancel,
        path OfPowerOperation, reply 200 PowerOperation;
    /// Turn many hosts on, some at a time.
    bulk_power_on BulkPowerOn: POST "/v1/workspaces/{workspace}/power-bulks/on", needs HostPowerOn, path InWorkspace,
        body AskBulkPower, reply 202 PowerBulk, problems [Invalid];
    /// Turn many hosts off, some at a time.
    bulk_power_off BulkPowerOff: POST "/v1/workspaces/{workspace}/power-bulks/off", needs HostPowerOff, path InWorkspace,
        body AskBulkPower, reply 202 PowerBulk, problems [Invalid];
    /// Restart many hosts, some at a time.
    bulk_power_reset BulkPowerReset: POST "/v1/workspaces/{workspace}/power-bulks/reset", needs HostPowerReset, path InWorkspace,
        body AskBulkPower, reply 202 PowerBulk, problems [Invalid];
    /// Rehearse something for many hosts, by what is known of them. Asks no provider, changes nothing.
    plan_bulk_power PlanBulkPower: POST "/v1/workspaces/{workspace}/power-bulks/plan", needs HostPowerRead, path InWorkspace,
        body AskBulkPower, reply 200 BulkPowerPlan, problems [Invalid];
    /// List what was asked for many hosts, newest first.
    list_power_bulks ListPowerBulks: GET "/v1/workspaces/{workspace}/power-bulks", needs HostPowerRead, path InWorkspace,
        query BulkFilter, reply 200 Page<PowerBulk>;
    /// Show how far something for many hosts is.
    get_power_bulk GetPowerBulk: GET "/v1/workspaces/{workspace}/power-bulks/{bulk}", needs HostPowerRead, path OfPowerBulk, reply 200 PowerBulk;
    /// Call off what has not begun, and what has as far as that can be.
    cancel_power_bulk CancelPowerBulk: POST "/v1/workspaces/{workspace}/power-bulks/{bulk}/cancel", needs HostPowerCancel, path OfPowerBulk,
        reply 200 PowerBulk;
    /// Ask a provider which machines it knows, and propose which hosts they are.
    discover_power_targets DiscoverPowerTargets: POST "/v1/workspaces/{workspace}/power-discovery", needs HostPowerConfigure, path InWorkspace,
        body DiscoverPower, reply 200 DiscoveredPower, problems [Invalid];
}

/// By which provider a host is turned on and off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerTarget {
    /// A power provider among the plugins.
    pub plugin: Name,
    /// How the provider knows the machine: see its documentation.
    #[schemars(length(min = 1, max = 1024))]
    pub address: String,
    /// What else the provider is told: see its documentation.
    #[serde(default = "empty_object")]
    pub params: serde_json::Value,
    /// Secrets of this workspace, by the provider's names for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Name, Name>,
    /// How the controller proves itself: a TLS profile of the plugin's grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_profile: Option<Name>,
    /// Through which agents it is reached: a route of the plugin's grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<Name>,
    /// What is turned on and off together, and so told one thing after the other: a chassis, an
    /// account. The host of the address unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Text>,
    /// Whether the host is never turned off or restarted, whoever asks.
    #[serde(default)]
    pub never_off: bool,
    /// How the host's power should be.
    #[serde(default)]
    pub desired: DesiredPower,
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// How a host's power should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DesiredPower {
    /// What is done when it is not.
    #[serde(default = "observe")]
    pub mode: PowerMode,
    /// `on` or `off`. Follows what is asked for unless it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<PowerState>,
}

fn observe() -> PowerMode {
    PowerMode::Observe
}

impl Default for DesiredPower {
    fn default() -> Self {
        Self {
            mode: PowerMode::Observe,
            state: None,
        }
    }
}

/// What is known of a host's power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HostPower {
    /// The host.
    pub host: HostId,
    /// By which provider it is turned on and off.
    pub target: Option<PowerTarget>,
    /// How much is known.
    pub observability: Observability,
    /// What the provider saw last.
    pub observed: Option<PowerObservation>,
    /// Why looks fail.
    pub failing: Option<PowerTrouble>,
    /// What the host's own agent proves.
    pub agent: PowerAgent,
    /// Provider and agent contradict each other.
    pub contradiction: Option<PowerTrouble>,
    /// How it should be.
    pub desired: DesiredPower,
    /// What can be done, once the provider was asked.
    pub support: Option<PowerSupport>,
    /// The operation that goes on, and those that wait.
    pub operations: Vec<PowerOperation>,
}

/// What a provider saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerObservation {
    /// The state.
    pub state: PowerState,
    /// In the provider's own word.
    pub raw: String,
    /// When.
    pub at: Timestamp,
}

/// What the host's own agent proves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerAgent {
    /// Whether it is linked.
    pub linked: bool,
    /// The boot that it told last.
    pub boot_id: Option<String>,
}

/// Why something does not work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerTrouble {
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
    /// Since when, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// What a provider can do for a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerSupport {
    /// Actions.
    pub actions: Vec<PowerAction>,
    /// Whether it can tell the state.
    pub observable: bool,
    /// Devices to boot from, once.
    pub boot_devices: Vec<BootDevice>,
    /// Whether what was submitted can be called off.
    pub cancellable: bool,
}

/// What a provider says of a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerCheck {
    /// Whether nothing speaks against using it.
    pub ok: bool,
    /// What there is to say.
    pub findings: Vec<PluginFinding>,
    /// What can be done, if the provider could be asked.
    pub support: Option<PowerSupport>,
    /// How the machine is, if the provider could be asked.
    pub observed: Option<PowerObservation>,
}

/// Something to be done to a host's power.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskPower {
    /// What exactly. Turning off: `shutdown` (unless said) or `off`. Restarting: `reset` (unless
    /// said), `reboot`, `cycle` or `nmi`. A rehearsal needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<PowerAction>,
    /// After `shutdown` or `reboot`: so many milliseconds later, if it did not work, the power is
    /// cut or the machine is reset. Never unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub then_hard_after_ms: Option<u64>,
    /// What the next boot is from, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootOnce>,
    /// The operation ends after so many milliseconds, whatever has happened. Ten minutes unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub timeout_ms: Option<u64>,
    /// Operations on this host that wait are taken back for this one.
    #[serde(default)]
    pub supersede: bool,
    /// The host's name, to turn off or restart one in production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub confirm: Option<String>,
}

/// Something to be done to many hosts' power.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskBulkPower {
    /// Which hosts. None at all is an error.
    pub targets: Targets,
    /// As for one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<PowerAction>,
    /// As for one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub then_hard_after_ms: Option<u64>,
    /// As for one host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootOnce>,
    /// As for one host, from its turn on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub timeout_ms: Option<u64>,
    /// So many hosts at a time. Ten unless said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub at_once: Option<u32>,
    /// One host goes first, and the others only if it worked.
    #[serde(default)]
    pub canary: bool,
    /// No more hosts after so many failures. Three unless said; 0: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_after: Option<u32>,
    /// The workspace's name, to turn off or restart hosts in production or more than ten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub confirm: Option<String>,
}

/// What would become of something, if it were asked for now. Policies are not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerPlan {
    /// The host.
    pub host: HostId,
    /// What.
    pub action: PowerAction,
    /// Whether nothing speaks against it.
    pub ok: bool,
    /// How it would be done: step by step. None if it cannot be.
    pub steps: Vec<PowerStep>,
    /// Whether it is so already, so that nothing would be done.
    pub already: bool,
    /// Why it would be refused, would wait, or would fail.
    pub objections: Vec<PowerTrouble>,
    /// How the machine is, if the provider could be asked.
    pub observed: Option<PowerObservation>,
    /// Operations that come first on this host.
    pub waits_for: u32,
}

/// What would become of something for many hosts, if it were asked for now. Policies are not asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BulkPowerPlan {
    /// What.
    pub action: PowerAction,
    /// How many hosts.
    pub hosts: u32,
    /// So many at a time.
    pub at_once: u32,
    /// How many hosts each provider has of them; those that only their agents can do something for
    /// count as `agent`.
    pub providers: BTreeMap<String, u32>,
    /// How many endpoints there are, each told one thing after the other.
    pub endpoints: u32,
    /// Telling all of them takes at least so many milliseconds, by the pace of endpoints and the limits
    /// of interruptions.
    pub at_least_ms: u64,
    /// Why the whole would be refused.
    pub objections: Vec<PowerTrouble>,
    /// Hosts on which it would fail at once.
    pub failing_hosts: u32,
    /// Which, and why: the first hundred.
    pub failing: Vec<PlannedFailure>,
}

/// A host on which something would fail at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlannedFailure {
    /// The host.
    pub host: HostId,
    /// What it is called.
    pub host_name: String,
    /// Why.
    pub trouble: PowerTrouble,
}

/// Something that is being done to a host's power, or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerOperation {
    /// Its id.
    pub id: PowerOperationId,
    /// Where.
    pub workspace: WorkspaceId,
    /// On which host.
    pub host: HostId,
    /// What the host is called.
    pub host_name: String,
    /// What.
    pub action: PowerAction,
    /// After how many milliseconds the hard action follows.
    pub then_hard_after_ms: Option<u64>,
    /// What the next boot is from.
    pub boot: Option<BootOnce>,
    /// Where it is.
    pub state: PowerOperationState,
    /// Once it succeeded: what that rests on.
    pub confirmation: Option<Confirmation>,
    /// What went wrong last; of an operation that goes on, nothing of it need be final.
    pub trouble: Option<PowerTrouble>,
    /// How it is done: step by step.
    pub steps: Vec<PowerStep>,
    /// What the provider says of it.
    pub progress: Option<PowerProgress>,
    /// Whether it is to be called off: `asked`, or `too_late`.
    pub cancel: Option<String>,
    /// Who asked.
    pub created_by: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// Of which bulk.
    pub bulk: Option<PowerBulkId>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// It ends then, whatever has happened.
    pub deadline: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// What happened, oldest first.
    pub history: Vec<PowerHistory>,
}

/// A step of an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerStep {
    /// What.
    pub action: PowerAction,
    /// By whom: `provider` or `agent`.
    pub by: String,
    /// When it has its turn: `first`, `after_success` or `after_failure`.
    pub when: String,
    /// Whether it is at it.
    pub present: bool,
}

/// What a provider says of something that goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerProgress {
    /// What it calls it.
    pub remote_id: Option<String>,
    /// How far it is.
    pub percent: Option<u8>,
    /// In its words.
    pub message: String,
}

/// Something that happened to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerHistory {
    /// When.
    pub at: Timestamp,
    /// Where it went.
    pub state: PowerOperationState,
    /// More about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Which operations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PowerOperationFilter {
    /// Of this host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// Of this bulk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bulk: Option<PowerBulkId>,
    /// Only those that go on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<bool>,
    /// Items per page: 1 to 1000; 100 unless asked otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Which bulks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BulkFilter {
    /// Items per page: 1 to 1000; 100 unless asked otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

/// Something that is being done to many hosts' power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PowerBulk {
    /// Its id.
    pub id: PowerBulkId,
    /// Where.
    pub workspace: WorkspaceId,
    /// What.
    pub action: PowerAction,
    /// How many hosts.
    pub hosts: u32,
    /// Hosts that have not had their turn.
    pub waiting: u32,
    /// Operations that go on.
    pub active: u32,
    /// That worked.
    pub succeeded: u32,
    /// That ended otherwise.
    pub failed: u32,
    /// `running`, `complete`, `stopped` (too many failed) or `cancelled`.
    pub state: String,
    /// So many hosts at a time.
    pub at_once: u32,
    /// No more hosts after so many failures.
    pub stop_after: u32,
    /// Who asked.
    pub created_by: String,
    /// When.
    pub created_at: Timestamp,
    /// When it was over.
    pub ended_at: Option<Timestamp>,
}

/// Ask a provider which machines it knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscoverPower {
    /// A power provider among the plugins.
    pub plugin: Name,
    /// Secrets of this workspace, by the provider's names for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Name, Name>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub cursor: Option<String>,
}

/// Machines that a provider knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoveredPower {
    /// The machines.
    pub found: Vec<DiscoveredMachine>,
    /// For more.
    pub next: Option<String>,
}

/// A machine that a provider knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscoveredMachine {
    /// As it would stand in a target.
    pub address: String,
    /// As it would stand in a target.
    pub params: serde_json::Value,
    /// As the provider names it.
    pub name: String,
    /// Addresses of its network cards.
    pub macs: Vec<String>,
    /// Its serial number or system UUID.
    pub serial: Option<String>,
    /// How it is.
    pub state: PowerState,
    /// The host that it is, as far as one can tell.
    pub host: Option<HostId>,
    /// By what that was told: `mac`, `serial` or `provider_id`.
    pub matched_by: Option<String>,
    /// Whether that host has this target already.
    pub linked: bool,
}
