//! Plugins of the deployment: installed, granted, configured, enabled.
//!
//! Installing gives nothing: a plugin may do what its grant says, and the grant of a new one is
//! empty. An upgrade that needs more than an operator has seen waits beside what runs, as
//! `pending`, until somebody approves exactly that digest.

use std::collections::BTreeMap;

use model::Timestamp;
use model::ids::{HostId, WorkspaceId};
use model::names::{Name, Text};
use model::plugin::{Grant, Needs, PluginDigest, PluginKind, Ungranted, Widening};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::{Raw, endpoints};
use crate::page::{Page, Paging};

endpoints! {
    /// List plugins.
    list_plugins ListPlugins: GET "/v1/plugins", needs DeploymentPluginList, query Paging, reply 200 Page<Plugin>;
    /// Install a plugin: the body is the component. It may do nothing until it is granted something.
    install_plugin InstallPlugin: POST "/v1/plugins", needs DeploymentPluginInstall, query NewPlugin, body Raw, reply 201 Plugin,
        problems [NameTaken, BodyTooLarge, UnsupportedMediaType, BadSignature];
    /// Show a plugin: what it needs, what it was given, how it is.
    get_plugin GetPlugin: GET "/v1/plugins/{plugin}", needs DeploymentPluginList, path OfPlugin, reply 200 Plugin;
    /// Replace a plugin by another version: the body is the component. One that needs more waits for approval.
    upgrade_plugin UpgradePlugin: POST "/v1/plugins/{plugin}/upgrade", needs DeploymentPluginUpgrade, path OfPlugin, query PluginOrigin, body Raw,
        reply 200 UpgradedPlugin, problems [BodyTooLarge, UnsupportedMediaType, BadSignature];
    /// Approve the upgrade that waits.
    approve_plugin_upgrade ApprovePluginUpgrade: POST "/v1/plugins/{plugin}/upgrade/approve", needs DeploymentPluginUpgrade, path OfPlugin,
        body ApproveUpgrade, reply 200 Plugin;
    /// Go back to the version before.
    rollback_plugin RollbackPlugin: POST "/v1/plugins/{plugin}/rollback", needs DeploymentPluginUpgrade, path OfPlugin, reply 200 Plugin;
    /// Say what a plugin may do; this replaces what was said before.
    grant_plugin GrantPlugin: PUT "/v1/plugins/{plugin}/grant", needs DeploymentPluginGrant, path OfPlugin, body Grant, reply 200 Plugin,
        problems [ExceedsMaker];
    /// Show a plugin's configuration.
    get_plugin_configuration GetPluginConfiguration: GET "/v1/plugins/{plugin}/configuration", needs DeploymentPluginConfigure, path OfPlugin,
        reply 200 PluginConfiguration;
    /// Configure a plugin, if it accepts that.
    configure_plugin ConfigurePlugin: PUT "/v1/plugins/{plugin}/configuration", needs DeploymentPluginConfigure, path OfPlugin,
        body PluginConfiguration, reply 200 Plugin;
    /// Let a plugin run.
    enable_plugin EnablePlugin: POST "/v1/plugins/{plugin}/enable", needs DeploymentPluginEnable, path OfPlugin, reply 200 Plugin;
    /// Turn a plugin off.
    disable_plugin DisablePlugin: POST "/v1/plugins/{plugin}/disable", needs DeploymentPluginEnable, path OfPlugin, reply 200 Plugin;
    /// Remove a plugin that is not enabled.
    remove_plugin RemovePlugin: DELETE "/v1/plugins/{plugin}", needs DeploymentPluginRemove, path OfPlugin, reply 204;
    /// Have a plugin look whether it works.
    check_plugin CheckPlugin: POST "/v1/plugins/{plugin}/check", needs DeploymentPluginCheck, path OfPlugin, reply 200 PluginHealth;
    /// Read what a plugin logs: lines since the gateway's start, as many as are kept.
    list_plugin_logs ListPluginLogs: GET "/v1/plugins/{plugin}/logs", needs DeploymentPluginLogRead, path OfPlugin, query LogsAfter,
        reply 200 PluginLogs;
    /// Install a plugin that lies in a registry. It may do nothing until it is granted something.
    install_plugin_from_registry InstallPluginFromRegistry: POST "/v1/plugins/from-registry", needs DeploymentPluginInstall,
        body InstallFromRegistry, reply 201 Plugin, problems [NameTaken, BadSignature];
    /// Replace a plugin by another version that lies in a registry. One that needs more waits for approval.
    upgrade_plugin_from_registry UpgradePluginFromRegistry: POST "/v1/plugins/{plugin}/upgrade-from-registry", needs DeploymentPluginUpgrade,
        path OfPlugin, body UpgradeFromRegistry, reply 200 UpgradedPlugin, problems [BadSignature];
    /// List the events that were given up for a notifier, oldest first.
    list_dead_letters ListDeadLetters: GET "/v1/plugins/{plugin}/dead-letters", needs DeploymentPluginDeadLetterList, path OfPlugin, query Paging,
        reply 200 Page<DeadLetter>;
    /// Deliver events that were given up again, in their order and with their ids, until one fails.
    redeliver_dead_letters RedeliverDeadLetters: POST "/v1/plugins/{plugin}/dead-letters/redeliver", needs DeploymentPluginDeadLetterRedeliver,
        path OfPlugin, body WhichDeadLetters, reply 200 RedeliveredDeadLetters;
    /// Throw events away that were given up.
    discard_dead_letters DiscardDeadLetters: POST "/v1/plugins/{plugin}/dead-letters/discard", needs DeploymentPluginDeadLetterDiscard,
        path OfPlugin, body WhichDeadLetters, reply 200 DiscardedDeadLetters;
}

/// Most dead letters that one request redelivers or discards; `more` says that others are left.
pub const MAX_DEAD_LETTERS: usize = 1_000;

/// A name that no plugin may have: it stands where the names of plugins do in paths.
pub const RESERVED_NAME: &str = "from-registry";

/// Most bytes of a reference.
pub const MAX_REFERENCE_BYTES: usize = 512;

/// Most bytes of a component.
pub const MAX_COMPONENT_BYTES: u64 = 64 << 20;

/// Most bytes of a configuration.
pub const MAX_CONFIGURATION_BYTES: usize = 1 << 20;

/// One plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfPlugin {
    /// The name it was installed under.
    pub plugin: Name,
}

/// A plugin to install.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewPlugin {
    /// What to call it; what its author calls it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// The signature over the component: the content of its `.sig` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub signature: Option<String>,
    /// Where it comes from, for those who ask later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Text>,
}

/// Where a version comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginOrigin {
    /// The signature over the component: the content of its `.sig` file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub signature: Option<String>,
    /// Where it comes from, for those who ask later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Text>,
}

/// A plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plugin {
    /// What it was installed as.
    pub name: Name,
    /// What it is for.
    pub kind: PluginKind,
    /// What runs, or would.
    pub present: PluginVersion,
    /// What ran before: where a rollback goes.
    pub previous: Option<PluginVersion>,
    /// An upgrade that waits for approval.
    pub pending: Option<PendingUpgrade>,
    /// What it was given.
    pub grant: Grant,
    /// What it needs and was not given. It cannot be enabled while there is something here.
    pub ungranted: Vec<Ungranted>,
    /// Whether it has accepted its present configuration.
    pub configured: bool,
    /// Grows with each configuration; 0 before the first.
    pub configuration_revision: u64,
    /// Whether it is to run.
    pub state: PluginState,
    /// Why it was quarantined, and when.
    pub quarantine: Option<Quarantine>,
    /// How it is in this gateway, while it is enabled.
    pub running: Option<RunningPlugin>,
    /// When it was installed.
    pub created_at: Timestamp,
    /// The last things that happened to it, oldest first; all of it is in the audit trail.
    pub history: Vec<PluginEvent>,
}

/// One version of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginVersion {
    /// SHA-256 of the component.
    pub digest: PluginDigest,
    /// Its author's name for it.
    pub name: Name,
    /// As in `1.4.0`.
    pub version: String,
    /// What it does.
    pub description: Text,
    /// How large it is.
    pub size_bytes: u64,
    /// The key whose signature was verified, if there was one.
    pub signed_by: Option<String>,
    /// Where it came from.
    pub source: String,
    /// When.
    pub installed_at: Timestamp,
    /// By whom.
    pub installed_by: String,
    /// What it asks for.
    pub needs: Needs,
}

/// An upgrade that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PendingUpgrade {
    /// What would run.
    pub version: PluginVersion,
    /// What it needs more than what runs.
    pub widening: Vec<Widening>,
    /// What it needs and the present grant does not give.
    pub ungranted: Vec<Ungranted>,
}

/// Whether a plugin is to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PluginState {
    /// Never enabled.
    Installed,
    /// It runs.
    Enabled,
    /// Somebody turned it off.
    Disabled,
    /// The gateway turned it off.
    Quarantined,
}

/// Why the gateway turned a plugin off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Quarantine {
    /// Why.
    pub reason: String,
    /// When.
    pub since: Timestamp,
}

/// How an enabled plugin is in this gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunningPlugin {
    /// Whether it can be called.
    pub status: RunningStatus,
    /// What is loaded; the version before while a new one is being compiled.
    pub digest: Option<PluginDigest>,
    /// Why it is not loaded.
    pub reason: Option<String>,
    /// What it said when it was asked last, about once a minute.
    #[serde(default)]
    pub health: Option<LastHealth>,
    /// Counters of its calls since it was loaded, by their names.
    pub counters: BTreeMap<String, u64>,
}

/// What a plugin said of how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastHealth {
    /// When it was asked.
    pub at: Timestamp,
    /// Whether it answered, and found nothing wrong.
    pub healthy: bool,
    /// What it found.
    pub findings: Vec<PluginFinding>,
}

/// Whether a plugin can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunningStatus {
    /// It is being compiled or loaded.
    Loading,
    /// It can.
    Ready,
    /// It could not be loaded; that is tried again.
    Failed,
}

/// Something that happened to a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginEvent {
    /// When.
    pub at: Timestamp,
    /// What, as in the audit trail.
    pub what: String,
    /// By whom, when by a person.
    pub by: Option<String>,
    /// The component that was concerned.
    pub digest: PluginDigest,
}

/// How an upgrade went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradedPlugin {
    /// Whether the new version runs or waits.
    pub outcome: UpgradeOutcome,
    /// The plugin as it is now.
    pub plugin: Plugin,
}

/// Whether a new version runs or waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpgradeOutcome {
    /// It is what runs.
    Live,
    /// It waits for approval; what ran goes on.
    Held,
}

/// An approval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveUpgrade {
    /// What was looked at. Another one that waits is not approved by this.
    pub digest: PluginDigest,
}

/// A configuration.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PluginConfiguration {
    /// What the plugin's schema describes.
    pub configuration: serde_json::Value,
}

/// How a plugin is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginHealth {
    /// Whether it answered, and found nothing wrong.
    pub healthy: bool,
    /// What it found.
    pub findings: Vec<PluginFinding>,
    /// How long it took.
    pub took_ms: u64,
}

/// What a plugin, or its schema, says of a configuration; or a plugin of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginFinding {
    /// How bad it is.
    pub severity: FindingSeverity,
    /// Where in the configuration, as a JSON Pointer; empty for all of it.
    pub at: String,
    /// What is found. Words of the plugin, cleaned.
    pub message: String,
}

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FindingSeverity {
    /// Good to know.
    Info,
    /// It works, and most likely not as meant.
    Warning,
    /// It does not work.
    Error,
}

/// Which log lines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogsAfter {
    /// `next` of the answer before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// Most lines to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
}

/// Log lines of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginLogs {
    /// The lines, oldest first.
    pub lines: Vec<PluginLogLine>,
    /// Give this as `after` for what comes later.
    pub next: u64,
    /// Lines between `after` and the first one here that are not kept any more.
    pub missed: u64,
}

/// A log line of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PluginLogLine {
    /// Its number.
    pub sequence: u64,
    /// When.
    pub at: Timestamp,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
    /// The call it belongs to.
    pub call: String,
    /// What the plugin said, cleaned.
    pub message: String,
    /// What it said besides, by name.
    pub fields: BTreeMap<String, String>,
}

/// A plugin to install from a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallFromRegistry {
    /// Where it lies: `registry.example/team/plugin:1.4.0`, or with `@sha256:…` for a digest. What
    /// a tag means is looked up once; the plugin's `source` has the digest.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,
    /// What to call it; what its author calls it when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// A version to upgrade to from a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeFromRegistry {
    /// Where it lies, as for a plugin to install.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,
}

/// An event that was given up for a notifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The event's id, the same at every delivery.
    pub event: String,
    /// The number that it was delivered with.
    pub sequence: u64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened: a dotted name.
    pub kind: String,
    /// `info`, `notice`, `warning` or `critical`.
    pub severity: String,
    /// For people: one line.
    pub summary: String,
    /// Its workspace; absent for what is the deployment's own.
    pub workspace: Option<WorkspaceId>,
    /// Its host, if it is about one.
    pub host: Option<HostId>,
    /// Why it was given up: a stable word.
    pub code: String,
    /// When.
    pub given_up_at: Timestamp,
}

/// Which dead letters of a notifier.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WhichDeadLetters {
    /// The one with this event's id; all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub event: Option<String>,
}

/// How delivering again went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RedeliveredDeadLetters {
    /// Ids of events that the notifier has now; they are no dead letters any more.
    pub delivered: Vec<String>,
    /// Those that the notifier does not want still, and the one at which it failed.
    pub failed: Vec<FailedDeadLetter>,
    /// Whether others are left that were not tried.
    pub more: bool,
}

/// A dead letter that remains one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FailedDeadLetter {
    /// The event's id.
    pub event: String,
    /// Why: a stable word.
    pub code: String,
}

/// What was thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiscardedDeadLetters {
    /// How many.
    pub discarded: u64,
    /// Whether others are left.
    pub more: bool,
}
