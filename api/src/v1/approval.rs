//! Approvals: what a policy lets a person do only when others agree.
//!
//! A request that needs approval is refused with `approval_required` and the id of what now waits.
//! Others approve or refuse it; once enough have approved, the same request by the same person
//! goes through, once.

use model::Timestamp;
use model::ids::{ApprovalId, UserId, WorkspaceId};
use model::names::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InWorkspace, OfApproval};
use crate::endpoint::endpoints;
use crate::page::Page;

endpoints! {
    /// List what waits for approval, oldest first.
    list_approvals ListApprovals: GET "/v1/workspaces/{workspace}/approvals", needs WorkspaceApprovalList, path InWorkspace,
        query ApprovalFilter, reply 200 Page<Approval>;
    /// Show something that waits for approval.
    get_approval GetApproval: GET "/v1/workspaces/{workspace}/approvals/{approval}", needs WorkspaceApprovalList, path OfApproval, reply 200 Approval;
    /// Approve or refuse what somebody else asked for.
    decide_approval DecideApproval: POST "/v1/workspaces/{workspace}/approvals/{approval}/decision", needs WorkspaceApprovalDecide, path OfApproval,
        body ApprovalDecision, reply 200 Approval;
}

/// Something that others must approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// Where.
    pub workspace: WorkspaceId,
    /// What has become of it.
    pub state: ApprovalState,
    /// The permission that is used.
    pub action: String,
    /// On what: names of hosts, or of the workspace; the first sixteen.
    pub targets: Vec<String>,
    /// On how many things.
    pub target_count: u64,
    /// Who asked.
    pub requested_by: UserId,
    /// Their name.
    pub requester: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// Which policy wants it.
    pub policy: String,
    /// Why, in the policy's words.
    pub reason: String,
    /// How many persons must approve.
    pub approvers: u32,
    /// Who has.
    pub approved_by: Vec<ApprovedBy>,
    /// Who refused.
    pub refused_by: Option<ApprovedBy>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// It is worth nothing after this.
    pub expires_at: Timestamp,
}

/// What has become of an approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// More persons must approve.
    Waiting,
    /// The request may be repeated.
    Approved,
    /// Somebody refused.
    Refused,
    /// The request was repeated and went through.
    Used,
    /// Nobody decided, or nobody repeated it, in time.
    Expired,
}

/// Somebody's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovedBy {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// When.
    pub at: Timestamp,
}

/// Which to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalFilter {
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
    /// Also those that are over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// A decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApprovalDecision {
    /// Whether it may be done.
    pub approve: bool,
    /// Why, for the audit trail.
    #[serde(default)]
    pub reason: Text,
}
