//! `loopback approval`: what a policy allows only when others agree.

use api::v1::approval::{
    Approval, ApprovalDecision, ApprovalFilter, ApprovalState, ApprovedBy, DecideApproval,
    GetApproval, ListApprovals,
};
use api::v1::{InWorkspace, OfApproval};
use clap::{Args, Subcommand};
use model::Timestamp;
use model::ids::ApprovalId;
use model::names::Text;

use super::{LimitArg, age_cell, api_word};
use crate::app::{App, WorkspaceArg};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, time_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what waits for approval
    #[command(visible_alias = "ls")]
    List {
        /// Also what is over
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        limit: LimitArg,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Show what waits for approval, and who decided
    Show(One),
    /// Allow what somebody else asked for; they repeat their request then
    Approve(Decide),
    /// Refuse what somebody else asked for
    Refuse(Decide),
}

#[derive(Clone, Debug, Args)]
pub(super) struct One {
    /// Id of the approval
    approval: ApprovalId,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Decide {
    #[command(flatten)]
    one: One,
    /// Why, for the audit trail
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: Text,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List {
            all,
            limit,
            workspace,
        } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let filter = ApprovalFilter {
                all: all.then_some(true),
                ..ApprovalFilter::default()
            };
            let path = InWorkspace { workspace };
            let page = client.list::<ListApprovals, _>(&path, &filter, limit.at_most())?;
            app.out.write(&page, |page, now| table(&page.items, now))
        }
        Command::Show(one) => {
            let (client, path) = at(app, &one)?;
            let found = client.fetch::<GetApproval>(&path)?;
            app.out.write(&found, properties)
        }
        Command::Approve(decide) => decided(app, decide, true),
        Command::Refuse(decide) => decided(app, decide, false),
    }
}

fn decided(app: &mut App, decide: Decide, approve: bool) -> Result<(), Failure> {
    let (client, path) = at(app, &decide.one)?;
    let body = ApprovalDecision {
        approve,
        reason: decide.reason,
    };
    let found = client.send::<DecideApproval>(&path, &body)?;
    app.out.write(&found, properties)
}

fn at(app: &App, one: &One) -> Result<(Client, OfApproval), Failure> {
    let (client, workspace) = app.in_workspace(&one.workspace)?;
    let approval = one.approval;
    Ok((
        client,
        OfApproval {
            workspace,
            approval,
        },
    ))
}

fn table(approvals: &[Approval], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ID", "STATE", "ACTION", "TARGETS", "BY", "APPROVED", "EXPIRES",
    ]);
    for approval in approvals {
        table.row([
            approval.id.to_string().into(),
            state(approval.state),
            approval.action.as_str().into(),
            targets(approval).into(),
            approval.requester.as_str().into(),
            format!("{}/{}", approval.approved_by.len(), approval.approvers).into(),
            age_cell(now, approval.expires_at),
        ]);
    }
    table
}

fn properties(approval: &Approval, now: Timestamp) -> Table {
    let by = |decided: &ApprovedBy| format!("{} {}", decided.name, time_text(now, decided.at));
    let mut table = Table::of_one();
    table.property("id", approval.id.to_string());
    table.property("state", state(approval.state));
    table.property("action", approval.action.as_str());
    table.property("targets", targets(approval));
    table.property("requested by", approval.requester.as_str());
    if let Some(ticket) = &approval.ticket {
        table.property("ticket", ticket.as_str());
    }
    table.property("policy", approval.policy.as_str());
    table.property("reason", approval.reason.as_str());
    table.property("needs", format!("{} to approve", approval.approvers));
    for decided in &approval.approved_by {
        table.property("approved by", by(decided));
    }
    if let Some(decided) = &approval.refused_by {
        table.property("refused by", by(decided));
    }
    table.property("asked for", time_text(now, approval.created_at));
    table.property("expires", time_text(now, approval.expires_at));
    table
}

fn targets(approval: &Approval) -> String {
    let more = approval
        .target_count
        .saturating_sub(approval.targets.len() as u64);
    let names = approval.targets.join(" ");
    match more {
        0 => names,
        more => format!("{names} and {more} more"),
    }
}

fn state(state: ApprovalState) -> Cell {
    let tone = match state {
        ApprovalState::Waiting => Tone::Warn,
        ApprovalState::Approved | ApprovalState::Used => Tone::Good,
        ApprovalState::Refused => Tone::Bad,
        ApprovalState::Expired => Tone::Faint,
    };
    Cell::new(api_word(&state)).tone(tone)
}
