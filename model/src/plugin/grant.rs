//! What an operator gave to a plugin.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Cidr, HostPattern, Limits, Needs};
use crate::ids::{HostId, WorkspaceId};
use crate::names::Name;

/// What a plugin may do. The default is: nothing, nowhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Grant {
    /// For which workspaces it is called.
    pub workspaces: Workspaces,
    /// Servers that it may speak HTTP with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpRule>,
    /// How servers prove themselves, by the names that rules and requests use.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tls_profiles: BTreeMap<Name, TlsProfile>,
    /// Secrets, by the plugin's names for them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<Name, SecretBinding>,
    /// Peers that it may exchange datagrams with.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub datagrams: Vec<DatagramRule>,
    /// Ways through agents, by the names that rules and requests use.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<Name, Route>,
    /// Values that it may keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<StateGrant>,
    /// What a call may take.
    pub limits: Limits,
}

/// Workspaces of a grant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Workspaces {
    /// None yet.
    #[default]
    None,
    /// All there are and will be, and the deployment's own matters.
    All,
    /// These.
    Only(Vec<WorkspaceId>),
}

impl Workspaces {
    /// Whether the plugin is called for a workspace; `None` is the deployment itself.
    pub fn covers(&self, workspace: Option<WorkspaceId>) -> bool {
        match (self, workspace) {
            (Self::All, _) => true,
            (Self::Only(these), Some(workspace)) => these.contains(&workspace),
            (Self::Only(_), None) | (Self::None, _) => false,
        }
    }
}

/// Servers that a plugin may speak HTTP with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpRule {
    /// The need of the manifest that this answers.
    pub need: Name,
    /// Hosts as they stand in URLs.
    pub hosts: Vec<HostPattern>,
    /// Ports. Empty: 443, and 80 where `plain`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// Networks whose addresses the names may resolve to. Empty: public addresses. Loopback,
    /// link-local and metadata addresses are refused unless a network of theirs is here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<Cidr>,
    /// Whether `http://` is allowed too.
    #[serde(default)]
    pub plain: bool,
    /// Profiles that requests to these hosts may use. Empty: the system's authorities only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tls_profiles: Vec<Name>,
    /// The plugin's secrets that may be sent to these hosts. Empty: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<Name>,
    /// Routes by which requests to these hosts leave, and no other way: the networks of this rule
    /// are then those that the route's hosts see. Empty: from the gateway itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Name>,
}

/// How a server proves itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TlsProfile {
    /// By a certificate that the system's authorities vouch for.
    System,
    /// By a certificate that one of these authorities (PEM) vouches for.
    Authorities(String),
    /// By one of these keys, whatever its certificate says. For devices that sign for themselves.
    Keys(Vec<Pin>),
    /// Not at all. Whoever is between can read and change everything.
    Insecure,
}

/// SHA-256 of a public key (SubjectPublicKeyInfo), in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pin(pub String);

/// Which secret a plugin gets by a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretBinding {
    /// The workspace that has the secret.
    pub workspace: WorkspaceId,
    /// The secret's name there.
    pub secret: Name,
    /// Whether the plugin may read it, and not only use it.
    #[serde(default)]
    pub reveal: bool,
}

/// Peers that a plugin may exchange datagrams with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DatagramRule {
    /// The need of the manifest that this answers.
    pub need: Name,
    /// Networks of the peers.
    pub networks: Vec<Cidr>,
    /// UDP ports.
    pub ports: Vec<u16>,
    /// Routes by which datagrams leave, and no other way. Empty: from the gateway itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Name>,
}

/// A way through agents: hosts of a workspace that stand where the gateway does not reach. The
/// first of them that is linked is used. What may be reached through a host is also a matter of
/// its owner, who says so in the configuration of its agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The workspace that the hosts belong to.
    pub workspace: WorkspaceId,
    /// These hosts, in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<HostId>,
    /// After them those that this label selector matches, as in `role=jump`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
}

/// Values that a plugin may keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StateGrant {
    /// How many, in each workspace.
    pub keys: u32,
}

/// A need without an answer in the grant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ungranted {
    /// As in `needs.http.webhook`.
    pub need: String,
    /// What is missing, and what to do.
    pub what: String,
}

/// What is needed and not granted. A plugin with an entry here cannot be enabled: it would fail
/// in the middle of something, where failing at once costs nothing.
pub fn ungranted(needs: &Needs, grant: &Grant) -> Vec<Ungranted> {
    let mut found = Vec::new();
    let mut add = |need: String, what: String| found.push(Ungranted { need, what });
    for need in &needs.http {
        if !grant.http.iter().any(|rule| rule.need == need.name) {
            let what = format!("no hosts for: {}", need.purpose);
            add(format!("needs.http.{}", need.name), what);
        }
    }
    for need in &needs.secrets {
        let key = format!("needs.secrets.{}", need.name);
        match grant.secrets.get(&need.name) {
            None if !need.optional && !need.per_target => {
                add(key, format!("no secret for: {}", need.purpose));
            }
            Some(binding) if need.reveal && !binding.reveal => {
                add(key, "the plugin must read this secret, and may not".into());
            }
            None | Some(_) => {}
        }
    }
    for need in &needs.datagrams {
        if !grant.datagrams.iter().any(|rule| rule.need == need.name) {
            let what = format!("no peers for: {}", need.purpose);
            add(format!("needs.datagrams.{}", need.name), what);
        }
    }
    if let Some(state) = needs.state {
        let granted = grant.state.map_or(0, |state| state.keys);
        if granted < state.keys {
            let what = format!("{} values are needed, {granted} granted", state.keys);
            add("needs.state".into(), what);
        }
    }
    if grant.workspaces == Workspaces::None {
        add("workspaces".into(), "not granted for any workspace".into());
    }
    found
}
