//! The gateway itself: health, the document, metrics, the first run, and what
//! an installer fetches.

use model::Timestamp;
use model::names::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InWorkspace;
use super::people::CreatedApiKey;
use crate::endpoint::{Raw, endpoints};

endpoints! {
    /// Whether the process is alive.
    get_health GetHealth: GET "/v1/health", public "says nothing but that the process answers", reply 200 Health;
    /// Whether the gateway serves: 503 while it starts or stops.
    get_ready GetReady: GET "/v1/ready", public "load balancers ask without credentials", reply 200 Health;
    /// This document.
    get_openapi GetOpenapi: GET "/v1/openapi.json", public "the document is the same everywhere", reply 200 as "application/json" Raw;
    /// Metrics in the Prometheus text format.
    get_metrics GetMetrics: GET "/v1/metrics", needs DeploymentMetricsRead, reply 200 as "application/openmetrics-text" Raw;
    /// Make the owner, once, with the secret that the gateway wrote to its own disk.
    claim_first_run ClaimFirstRun: POST "/v1/first-run",
        public "guarded by a one-time secret from the gateway's disk; absent once used",
        body FirstRun, reply 201 Claimed, problems [NotFound, Unauthenticated];
    /// The installer script for this gateway.
    get_install_script GetInstallScript: GET "/v1/agent/install.sh",
        public "holds public values only; joining needs an agent token", query InstallOptions,
        reply 200 as "text/x-shellscript" Raw, problems [NotFound, Invalid];
    /// The installer script for hosts of one workspace.
    get_workspace_install_script GetWorkspaceInstallScript: GET "/v1/workspaces/{workspace}/agent/install.sh",
        public "holds public values only; joining needs an agent token", path InWorkspace, query InstallOptions,
        reply 200 as "text/x-shellscript" Raw, problems [NotFound, Invalid];
    /// One file of an agent release: the signed manifest, its signature, or a binary.
    get_agent_release_file GetAgentReleaseFile: GET "/v1/agent/releases/{channel}/{version}/{file}",
        public "agent binaries are public and signed", path ReleaseFile,
        reply 200 as "application/octet-stream" Raw;
    /// Carry an agent's QUIC packets over a WebSocket where UDP is blocked.
    open_agent_carrier OpenAgentCarrier: GET "/v1/agent/link",
        public "carries QUIC packets, which are mutually authenticated inside",
        reply 101 as "application/octet-stream" Raw, problems [MalformedRequest];
}

/// Health of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// `ok`, `starting` or `stopping`.
    pub status: HealthStatus,
    /// Version of the gateway.
    pub version: String,
    /// The gateway's clock, for telling skew.
    pub now: Timestamp,
}

/// In which part of its life a gateway is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Serving.
    Ok,
    /// Loading its state.
    Starting,
    /// Draining.
    Stopping,
}

/// Claims a new deployment.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FirstRun {
    /// What stands in the gateway's `owner.secret`.
    #[schemars(length(max = 256))]
    pub secret: String,
    /// Name of the owner's user.
    pub name: Name,
}

impl std::fmt::Debug for FirstRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstRun")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The owner and its first API key.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Claimed {
    /// The owner.
    pub user: super::people::User,
    /// Its key, shown once.
    pub key: CreatedApiKey,
}

/// What the installer should do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstallOptions {
    /// Update channel; `stable` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<Channel>,
    /// Chatty agent; not for production.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verbose: Option<bool>,
}

/// Which releases a host gets.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Channel {
    /// Released.
    #[default]
    Stable,
    /// Next.
    Unstable,
}

impl Channel {
    /// The word in URLs and folders.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Unstable => "unstable",
        }
    }
}

/// One file of a release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseFile {
    /// The channel.
    pub channel: Channel,
    /// Its version.
    #[schemars(regex(pattern = "^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$"))]
    pub version: String,
    /// The file's name.
    #[schemars(regex(pattern = "^[a-z0-9][a-z0-9._-]{0,63}$"))]
    pub file: String,
}
