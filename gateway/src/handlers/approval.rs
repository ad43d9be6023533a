//! Approvals: shown and decided.

use std::sync::Arc;

use api::Page;
use api::v1::approval::*;
use gateway_core::approval::State;
use model::Timestamp;
use model::ids::{ApprovalId, WorkspaceId};

use super::page::page_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::policy::records::{ApprovalRecordV1, DecidedV1};
use crate::state::edit::edit;
use crate::state::records::key_of;

/// Lists what waits for approval.
pub async fn list_approvals(app: Arc<App>, call: Call<ListApprovals>) -> Result<Page<Approval>> {
    let tables = app.catalog.read();
    let all = call.query.all.unwrap_or(false);
    let workspace = call.proof.workspace();
    page_of(
        tables
            .approvals
            .values()
            .filter(|approval| approval.workspace == workspace),
        |approval| approval.id,
        call.query.limit,
        call.query.after.as_deref(),
        |approval| {
            let view = view(approval, call.meta.now);
            let open = matches!(view.state, ApprovalState::Waiting | ApprovalState::Approved);
            (all || open).then_some(view)
        },
    )
}

/// Shows something that waits for approval.
pub async fn get_approval(app: Arc<App>, call: Call<GetApproval>) -> Result<Approval> {
    let record = find(&app, call.proof.workspace(), call.path.approval)?;
    Ok(view(&record, call.meta.now))
}

/// Approves or refuses.
pub async fn decide_approval(app: Arc<App>, call: Call<DecideApproval>) -> Result<Approval> {
    let record = find(&app, call.proof.workspace(), call.path.approval)?;
    let user = &call.proof.caller().user;
    let now = call.meta.now;
    let key = key_of::<ApprovalRecordV1>(record.id);
    let decided = edit::<ApprovalRecordV1>(&app, &key, |found, batch| {
        let Some(mut record) = found else {
            return Err(Error::not_found("approval"));
        };
        record
            .decided()
            .may_decide(user.id, now)
            .map_err(|why| Error::conflict(why.to_string()))?;
        let by = DecidedV1 {
            user: user.id,
            name: user.name.to_string(),
            at: now,
        };
        let action = if call.body.approve {
            record.approved_by.push(by);
            "approval.approve"
        } else {
            record.refused_by = Some(by);
            "approval.refuse"
        };
        let mut entry = call
            .entry(action)
            .on(record.id)
            .with("permission", &record.action)
            .with("requester", &record.requester);
        if !call.body.reason.is_empty() {
            entry = entry.with("reason", &call.body.reason);
        }
        entry.in_workspace(record.workspace, batch);
        Ok(Some(record))
    });
    let decided = decided.await?.ok_or_else(|| Error::not_found("approval"))?;
    Ok(view(&decided, now))
}

fn find(app: &App, workspace: WorkspaceId, id: ApprovalId) -> Result<Arc<ApprovalRecordV1>> {
    let tables = app.catalog.read();
    let found = tables
        .approvals
        .get(&id)
        .filter(|approval| approval.workspace == workspace);
    let found = found.map(|approval| Arc::clone(&approval.record));
    found.ok_or_else(|| Error::not_found("approval"))
}

fn view(record: &ApprovalRecordV1, now: Timestamp) -> Approval {
    let by = |decided: &DecidedV1| ApprovedBy {
        user: decided.user,
        name: decided.name.clone(),
        at: decided.at,
    };
    Approval {
        id: record.id,
        workspace: record.workspace,
        state: match record.decided().state(now) {
            State::Waiting => ApprovalState::Waiting,
            State::Approved => ApprovalState::Approved,
            State::Refused => ApprovalState::Refused,
            State::Used => ApprovalState::Used,
            State::Expired => ApprovalState::Expired,
        },
        action: record.action.clone(),
        targets: record.targets.clone(),
        target_count: record.target_count,
        requested_by: record.requested_by,
        requester: record.requester.clone(),
        ticket: record.ticket.clone(),
        policy: record.policy.clone(),
        reason: record.reason.clone(),
        approvers: u32::from(record.approvers),
        approved_by: record.approved_by.iter().map(by).collect(),
        refused_by: record.refused_by.as_ref().map(by),
        created_at: record.created_at,
        expires_at: record.expires_at,
    }
}
