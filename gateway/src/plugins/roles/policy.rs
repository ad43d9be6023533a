//! Policy plugins judge requests.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use gateway_core::policy::{Answer, Reason, Verdict};
use model::ids::WorkspaceId;
use model::tenancy::Environment;
use plugin_host::{Invocation, Kv, policy};

use super::{Role, millis, timestamp};
use crate::policy::{Policy, Request, Subject, Target};

/// In which a policy must answer, as the contract says.
const WITHIN: Duration = Duration::from_millis(250);

#[async_trait]
impl Policy for Role {
    fn covers(&self, workspace: WorkspaceId) -> bool {
        self.grant.workspaces.covers(Some(workspace))
    }

    async fn decide(&self, request: Arc<Request>) -> Answer {
        let (app, plugin) = match self.plugin() {
            Ok(found) => found,
            Err(code) => return Answer::Failed(code.to_owned()),
        };
        let invocation = Invocation::of(Some(request.workspace));
        let answer = plugin.decide(invocation, asked(&request));
        match tokio::time::timeout(WITHIN, answer).await {
            Ok(Ok(verdict)) => Answer::Said(said(verdict)),
            Ok(Err(error)) => Answer::Failed(self.failed(&app, &error).await.code.to_owned()),
            Err(_) => Answer::Failed("too_slow".to_owned()),
        }
    }
}

fn asked(request: &Request) -> policy::Request {
    policy::Request {
        action: request.action.as_str().to_owned(),
        subject: subject(&request.subject),
        targets: request.targets.iter().map(target).collect(),
        target_count: request.target_count,
        ticket: request.ticket.clone(),
        now_ms: millis(request.now),
        approvals: request.approvals.iter().map(subject).collect(),
        break_glass: request.break_glass,
        extra: Vec::new(),
    }
}

fn subject(subject: &Subject) -> policy::Subject {
    policy::Subject {
        id: subject.id.to_string(),
        name: subject.name.clone(),
        roles: subject.roles.clone(),
    }
}

fn target(target: &Target) -> policy::Target {
    policy::Target {
        kind: target.kind.to_owned(),
        id: target.id.clone(),
        name: target.name.clone(),
        workspace: Some(target.workspace.clone()),
        environment: Some(
            match target.environment {
                Environment::Production => "production",
                Environment::Staging => "staging",
                Environment::Development => "development",
            }
            .to_owned(),
        ),
        labels: target
            .labels
            .iter()
            .map(|(key, value)| Kv {
                key: key.clone(),
                value: value.clone(),
            })
            .collect(),
    }
}

fn said(verdict: policy::Verdict) -> Verdict {
    let reason = |reason: policy::Reason| Reason {
        code: reason.code,
        message: reason.message,
    };
    match verdict {
        policy::Verdict::Abstain => Verdict::Abstain,
        policy::Verdict::PermitUntil(end) => Verdict::PermitUntil(timestamp(end)),
        policy::Verdict::RequireApproval(approval) => Verdict::RequireApproval {
            approvers: approval.approvers,
            reason: reason(approval.reason),
        },
        policy::Verdict::Deny(why) => Verdict::Deny(reason(why)),
        // Whatever a later version may mean by it: it is not a yes.
        policy::Verdict::Other(text) => Verdict::Deny(Reason {
            code: "verdict.unknown".to_owned(),
            message: text,
        }),
    }
}
