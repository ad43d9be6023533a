//! Records of approvals.
//!
//! ```text
//! approval/APR      what waits for approval, and what became of it; kept for a week
//! ```

use gateway_core::approval::Approval;
use gateway_store::Record;
use model::Timestamp;
use model::ids::{ApprovalId, UserId, WorkspaceId};
use serde::{Deserialize, Serialize};

/// Something that others must approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalRecordV1 {
    /// Its id.
    pub id: ApprovalId,
    /// Where.
    pub workspace: WorkspaceId,
    /// SHA-256 of who asks for what.
    pub request: [u8; 32],
    /// The permission.
    pub action: String,
    /// Names of the first targets.
    pub targets: Vec<String>,
    /// How many there are.
    pub target_count: u64,
    /// Who asked.
    pub requested_by: UserId,
    /// Their name.
    pub requester: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// Which policy wants it.
    pub policy: String,
    /// Why.
    pub reason: String,
    /// How many must approve.
    pub approvers: u8,
    /// Who has.
    pub approved_by: Vec<DecidedV1>,
    /// Who refused.
    pub refused_by: Option<DecidedV1>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// It is worth nothing after this.
    pub expires_at: Timestamp,
    /// When the request went through.
    pub used_at: Option<Timestamp>,
}

/// Somebody's decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecidedV1 {
    /// Who.
    pub user: UserId,
    /// Their name.
    pub name: String,
    /// When.
    pub at: Timestamp,
}

impl Record for ApprovalRecordV1 {
    const KIND: &'static str = "approval";
    const VERSION: u16 = 1;
}

impl ApprovalRecordV1 {
    /// For deciding.
    pub fn decided(&self) -> Approval {
        Approval {
            requester: self.requested_by,
            approvers: self.approvers,
            approved: self.approved_by.iter().map(|by| by.user).collect(),
            refused: self.refused_by.is_some(),
            used: self.used_at.is_some(),
            expires_at: self.expires_at,
        }
    }
}
