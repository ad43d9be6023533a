//! The audit trail: a chain per workspace, and one for the deployment.
//!
//! An export is newline-delimited JSON: one [`ExportHeader`], then one
//! [`AuditRecord`] a line. `loopback audit verify` checks it without a gateway,
//! with the chain's key.

use model::Timestamp;
use model::audit::AuditEntry;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::InWorkspace;
use crate::endpoint::{Raw, endpoints};
use crate::page::Page;

endpoints! {
    /// List the deployment's audit trail, newest first.
    list_deployment_audit ListDeploymentAudit: GET "/v1/audit", needs DeploymentAuditRead, query AuditFilter, reply 200 Page<AuditRecord>;
    /// Export the deployment's audit trail, oldest first.
    export_deployment_audit ExportDeploymentAudit: GET "/v1/audit/export", needs DeploymentAuditExport, reply 200 as "application/x-ndjson" Raw;
    /// The key that verifies an export of the deployment's trail.
    get_deployment_audit_key GetDeploymentAuditKey: GET "/v1/audit/key", needs DeploymentAuditKeyRead, reply 200 AuditKey;
    /// List a workspace's audit trail, newest first.
    list_workspace_audit ListWorkspaceAudit: GET "/v1/workspaces/{workspace}/audit", needs WorkspaceAuditRead, path InWorkspace, query AuditFilter, reply 200 Page<AuditRecord>;
    /// Export a workspace's audit trail, oldest first.
    export_workspace_audit ExportWorkspaceAudit: GET "/v1/workspaces/{workspace}/audit/export", needs WorkspaceAuditExport, path InWorkspace, reply 200 as "application/x-ndjson" Raw;
    /// The key that verifies an export of a workspace's trail.
    get_workspace_audit_key GetWorkspaceAuditKey: GET "/v1/workspaces/{workspace}/audit/key", needs WorkspaceAuditKeyRead, path InWorkspace, reply 200 AuditKey;
}

/// One sealed entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditRecord {
    /// Number in the chain, from 1, without gaps.
    pub seq: u64,
    /// Seal of the entry before, in hex; zeros for the first.
    pub prev_mac: String,
    /// Seal of this entry, in hex.
    pub mac: String,
    /// The very bytes that are sealed: an [`AuditEntry`] as JSON text.
    pub body: String,
}

impl AuditRecord {
    /// The entry in the body.
    pub fn entry(&self) -> Result<AuditEntry, serde_json::Error> {
        serde_json::from_str(&self.body)
    }
}

/// First line of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ExportHeader {
    /// `loopback-audit-export`.
    pub kind: String,
    /// Version of the export's form.
    pub format: u16,
    /// Which chain: a workspace id, or `deployment`.
    pub chain: String,
    /// Number of the last entry that must follow.
    pub head_seq: u64,
    /// Its seal, in hex. Keep it elsewhere too: a chain alone cannot show that
    /// its end was cut off together with this line.
    pub head_mac: String,
    /// When it was exported.
    pub exported_at: Timestamp,
}

/// What verifies a chain. It also makes seals: whoever has it can forge an
/// export, so it is given apart from reading.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct AuditKey {
    /// Which chain.
    pub chain: String,
    /// The key, in hex.
    pub key: String,
    /// Number of the newest entry.
    pub head_seq: u64,
    /// Its seal, in hex.
    pub head_mac: String,
}

impl std::fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditKey")
            .field("chain", &self.chain)
            .field("head_seq", &self.head_seq)
            .finish_non_exhaustive()
    }
}

/// Which entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AuditFilter {
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
}
