//! Records of power.
//!
//! ```text
//! power_target/HST       by which provider a host is turned on and off
//! power_seen/HST         what the provider saw, written when it is something else
//! power_operation/POP    an operation, written before and after everything that it does
//! power_bulk/PWB         many hosts at once: which, and how far
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use gateway_core::power::bulk::Ending;
use gateway_core::power::operation::Operation;
use gateway_core::power::plan::Support;
use gateway_core::power::{Seen, Trouble};
use gateway_store::Record;
use model::Timestamp;
use model::ids::{CommandId, HostId, PowerBulkId, PowerOperationId, WorkspaceId};
use model::names::Name;
use model::power::{BootOnce, PowerAction, PowerMode, PowerOperationState, PowerState};
use serde::{Deserialize, Serialize};

macro_rules! records {
    ($($name:ident $kind:literal;)*) => {$(
        impl Record for $name {
            const KIND: &'static str = $kind;
            const VERSION: u16 = 1;
        }
    )*};
}

records! {
    PowerTargetRecordV1 "power_target";
    PowerSeenRecordV1 "power_seen";
    PowerOperationRecordV1 "power_operation";
    PowerBulkRecordV1 "power_bulk";
}

/// What of an operation's history is kept.
const HISTORY: usize = 64;

/// By which provider a host is turned on and off.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerTargetRecordV1 {
    /// The host.
    pub host: HostId,
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// A power provider among the plugins.
    pub plugin: Name,
    /// How the provider knows the machine.
    pub address: String,
    /// What else the provider is told, as JSON.
    pub params: String,
    /// Secrets of the workspace, by the provider's names.
    pub secrets: BTreeMap<Name, Name>,
    /// A TLS profile of the plugin's grant.
    pub tls_profile: Option<Name>,
    /// A route of the plugin's grant.
    pub route: Option<Name>,
    /// What is told one thing after the other.
    pub endpoint: Option<String>,
    /// Whether it is never turned off or restarted.
    pub never_off: bool,
    /// What is done when the power is not as desired.
    pub mode: PowerMode,
    /// How it should be.
    pub desired: Option<PowerState>,
}

impl PowerTargetRecordV1 {
    /// Whether it has this secret.
    pub fn uses(&self, workspace: WorkspaceId, secret: &Name) -> bool {
        self.workspace == workspace && self.secrets.values().any(|name| name == secret)
    }

    /// What it shares submissions with: the endpoint that was given, or the host of its address.
    pub fn shares(&self) -> String {
        if let Some(endpoint) = &self.endpoint {
            return format!("{}/{endpoint}", self.plugin);
        }
        let rest = self
            .address
            .split_once("://")
            .map_or(&*self.address, |(_, rest)| rest);
        let authority = rest.split('/').next().unwrap_or(rest);
        format!("{}/{authority}", self.plugin)
    }
}

/// What a provider saw of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerSeenRecordV1 {
    /// The host.
    pub host: HostId,
    /// The last look that succeeded when this was written.
    pub seen: Option<Seen>,
    /// What the provider can do.
    pub support: Option<Support>,
    /// Since when looks fail, and why.
    pub failing: Option<(Timestamp, Trouble)>,
    /// What contradicts it.
    pub contradiction: Option<Trouble>,
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerOperationRecordV1 {
    /// Its id.
    pub id: PowerOperationId,
    /// Where.
    pub workspace: WorkspaceId,
    /// On which host.
    pub host: HostId,
    /// Of which bulk.
    pub bulk: Option<PowerBulkId>,
    /// Name of who asked.
    pub created_by: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// What there is to decide.
    pub operation: Operation,
    /// The command by which the host's agent is asked, once it is.
    pub command: Option<CommandId>,
    /// Where it went and when, oldest first.
    pub history: Vec<HappenedV1>,
}

/// Something that happened to an operation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HappenedV1 {
    /// When.
    pub at: Timestamp,
    /// Where it went.
    pub state: PowerOperationState,
    /// More about it.
    pub message: Option<String>,
}

impl PowerOperationRecordV1 {
    /// When it was about to be submitted last.
    pub fn last_submitted(&self) -> Option<Timestamp> {
        let submitting = PowerOperationState::Submitting;
        let last = self.history.iter().rev().find(|it| it.state == submitting);
        last.map(|it| it.at)
    }

    /// Notes where it went, when that is something new.
    pub fn remember(&mut self, now: Timestamp) {
        let state = self.operation.state();
        let message = self.operation.trouble.as_ref().map(|it| it.message.clone());
        let same = self
            .history
            .last()
            .is_some_and(|last| last.state == state && last.message == message);
        if same {
            return;
        }
        // How it began and how it ended are kept in any case.
        if self.history.len() >= HISTORY {
            self.history.remove(HISTORY / 2);
        }
        self.history.push(HappenedV1 {
            at: now,
            state,
            message,
        });
    }
}

/// Many hosts at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerBulkRecordV1 {
    /// Its id.
    pub id: PowerBulkId,
    /// Where.
    pub workspace: WorkspaceId,
    /// On which hosts, in this order.
    pub hosts: Vec<HostId>,
    /// What.
    pub action: PowerAction,
    /// How long a soft action may take before the hard one follows.
    pub escalate_after: Option<Duration>,
    /// What the next boot is from.
    pub boot: Option<BootOnce>,
    /// How long each may take.
    pub timeout: Duration,
    /// So many at a time.
    pub at_once: u32,
    /// Whether the first goes alone.
    pub canary: bool,
    /// No more after so many failures.
    pub stop_after: u32,
    /// Name of who asked.
    pub created_by: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// When.
    pub created_at: Timestamp,
    /// Nothing of it begins after this, because policies say so.
    pub permitted_until: Option<Timestamp>,
    /// How many hosts had their turn.
    pub begun: u32,
    /// Whether the rest is called off.
    pub cancelled: bool,
    /// How it ended, and when.
    pub ended: Option<(Ending, Timestamp)>,
}
