//! The tenancy tree: deployment > project > workspace, and what a scope covers.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{ProjectId, WorkspaceId};

/// What a workspace is for; roles can be narrowed to some of these.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// Serves users. Shell sessions are excluded from built-in roles here.
    Production,
    /// A rehearsal of production.
    Staging,
    /// Everything else.
    Development,
}

impl Environment {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Production, Self::Staging, Self::Development];

    /// The word used in the API and CLI.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Production => "production",
            Self::Staging => "staging",
            Self::Development => "development",
        }
    }
}

impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where a grant holds, from everywhere down to one workspace.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Scope {
    /// The whole deployment.
    Deployment,
    /// One project and its workspaces.
    Project {
        /// The project.
        project: ProjectId,
    },
    /// One workspace.
    Workspace {
        /// The project it lies in.
        project: ProjectId,
        /// The workspace.
        workspace: WorkspaceId,
    },
}

impl Scope {
    /// Whether `other` lies in this scope.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Deployment, _) => true,
            (
                Self::Project { project: a },
                Self::Project { project: b } | Self::Workspace { project: b, .. },
            ) => a == b,
            (Self::Workspace { workspace: a, .. }, Self::Workspace { workspace: b, .. }) => a == b,
            (Self::Project { .. } | Self::Workspace { .. }, _) => false,
        }
    }
}

/// When a quiet host is called late, and when unreachable. Milliseconds in the
/// API; all measured on the gateway's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LivenessThresholds {
    /// How often an agent sends a heartbeat.
    #[schemars(range(min = 500, max = 300_000))]
    pub heartbeat_ms: u32,
    /// Quiet for this long: late.
    #[schemars(range(min = 500, max = 3_600_000))]
    pub late_ms: u32,
    /// Quiet for this long: unreachable.
    #[schemars(range(min = 500, max = 86_400_000))]
    pub unreachable_ms: u32,
}

/// Thresholds that contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "thresholds must satisfy 500 <= heartbeat_ms <= 300000 and heartbeat_ms < late_ms < unreachable_ms <= 86400000"
)]
pub struct BadThresholds;

impl LivenessThresholds {
    /// Late after one and a half beats; unreachable just before a third beat is
    /// missed, so that "within three beats" holds with the reconciler's own
    /// delay included.
    pub fn for_heartbeat(heartbeat: Duration) -> Self {
        let heartbeat_ms = u32::try_from(heartbeat.as_millis())
            .unwrap_or(300_000)
            .clamp(500, 300_000);
        Self {
            heartbeat_ms,
            late_ms: heartbeat_ms / 2 * 3,
            unreachable_ms: heartbeat_ms / 10 * 28,
        }
    }

    /// Checks the order of the three.
    pub fn check(self) -> Result<Self, BadThresholds> {
        let good = (500..=300_000).contains(&self.heartbeat_ms)
            && self.heartbeat_ms < self.late_ms
            && self.late_ms < self.unreachable_ms
            && self.unreachable_ms <= 86_400_000;
        if good { Ok(self) } else { Err(BadThresholds) }
    }
}

impl Default for LivenessThresholds {
    /// A beat every ten seconds.
    fn default() -> Self {
        Self::for_heartbeat(Duration::from_secs(10))
    }
}
