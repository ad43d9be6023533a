//! What the gateway asks of a power provider, whatever stands behind it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::v1::plugin::PluginFinding;
use arc_swap::ArcSwap;
use async_trait::async_trait;
use gateway_core::power::operation::{Begun, Failure, Progress, Resumed};
use gateway_core::power::plan::Support;
use gateway_core::power::{Seen, Trouble};
use model::Timestamp;
use model::ids::{HostId, PowerOperationId, WorkspaceId};
use model::names::Name;
use model::power::{BootOnce, PowerAction, PowerState};

use super::records::PowerTargetRecordV1;

/// A machine, as its provider is told of it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where.
    pub workspace: WorkspaceId,
    /// The host.
    pub host: HostId,
    /// How the provider knows it.
    pub address: String,
    /// What else it is told, as JSON.
    pub params: String,
    /// Secrets of the workspace, by the provider's names.
    pub secrets: BTreeMap<Name, Name>,
    /// A TLS profile of the plugin's grant.
    pub tls_profile: Option<Name>,
    /// A route of the plugin's grant.
    pub route: Option<Name>,
}

impl From<&PowerTargetRecordV1> for Machine {
    fn from(record: &PowerTargetRecordV1) -> Self {
        Self {
            workspace: record.workspace,
            host: record.host,
            address: record.address.clone(),
            params: record.params.clone(),
            secrets: record.secrets.clone(),
            tls_profile: record.tls_profile.clone(),
            route: record.route.clone(),
        }
    }
}

/// Something to be submitted, or that was.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The operation.
    pub id: PowerOperationId,
    /// Which step of it, and how often that was submitted: an idempotency key with the id.
    pub step: usize,
    /// Counts the submissions of the step, from 1.
    pub attempt: u32,
    /// What.
    pub action: PowerAction,
    /// What the next boot is from.
    pub boot: Option<BootOnce>,
    /// When the operation ends.
    pub deadline: Timestamp,
    /// As it was before.
    pub before: Option<Seen>,
}

/// A machine that a provider knows.
#[derive(Clone, Debug)]
pub struct Found {
    /// As it would stand in a target.
    pub address: String,
    /// As it would stand in a target.
    pub params: String,
    /// As the provider names it.
    pub name: String,
    /// Of its network cards.
    pub macs: Vec<String>,
    /// Its serial number or system UUID.
    pub serial: Option<String>,
    /// What a cloud calls it.
    pub provider_id: Option<String>,
    /// How it is.
    pub state: PowerState,
}

/// A power provider that is enabled, whether it works or not.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Whether it serves this workspace.
    fn covers(&self, workspace: WorkspaceId) -> bool;

    /// Names of the secrets that each machine may bring.
    fn secrets_of_machines(&self) -> Vec<Name>;

    /// What can be done.
    async fn inspect(&self, machine: &Machine) -> Result<Support, Failure>;

    /// Whether what is configured works.
    async fn check(&self, machine: &Machine) -> Result<Vec<PluginFinding>, Failure>;

    /// How it is.
    async fn observe(&self, machine: &Machine) -> Result<Seen, Failure>;

    /// Submits.
    async fn begin(&self, machine: &Machine, what: &Submission) -> Result<Begun, Failure>;

    /// How it goes on; nothing is that it is finished.
    async fn poll(
        &self,
        machine: &Machine,
        what: &Submission,
        cursor: Vec<u8>,
    ) -> Result<Option<Progress>, Failure>;

    /// What became of a submission whose answer is not known.
    async fn resume(&self, machine: &Machine, what: &Submission) -> Result<Resumed, Failure>;

    /// Calls it off; nothing if nobody knows whether that worked.
    async fn cancel(
        &self,
        machine: &Machine,
        what: &Submission,
        cursor: Vec<u8>,
    ) -> Result<Option<bool>, Failure>;

    /// Machines that it knows, and where to go on; asked with these secrets of the workspace.
    async fn discover(
        &self,
        workspace: WorkspaceId,
        secrets: &BTreeMap<Name, Name>,
        cursor: Option<String>,
    ) -> Result<(Vec<Found>, Option<String>), Failure>;
}

/// The providers that are enabled, by name.
#[derive(Default)]
pub struct Providers(ArcSwap<BTreeMap<Name, Arc<dyn Provider>>>);

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.load().keys()).finish()
    }
}

impl Providers {
    /// Replaces all.
    pub fn set(&self, providers: BTreeMap<Name, Arc<dyn Provider>>) {
        self.0.store(Arc::new(providers));
    }

    /// One of them, for a workspace.
    pub fn get(&self, name: &Name, workspace: WorkspaceId) -> Result<Arc<dyn Provider>, Failure> {
        let all = self.0.load();
        let found = all.get(name).filter(|provider| provider.covers(workspace));
        found.map(Arc::clone).ok_or_else(|| {
            let message = format!(
                "there is no power provider `{name}` for this workspace: see `loopback plugin show {name}`"
            );
            waits("no_provider", message)
        })
    }
}

/// Something that may be there in a while.
pub fn waits(code: &str, message: impl Into<String>) -> Failure {
    Failure {
        trouble: Trouble::new(code, message),
        transient: true,
        retry_after: Some(Duration::from_secs(5)),
        outcome_unknown: false,
    }
}
