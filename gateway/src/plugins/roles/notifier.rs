//! Notifier plugins tell others.

use async_trait::async_trait;
use gateway_core::signal::Outcome;
use model::ids::WorkspaceId;
use plugin_host::ports::{ErrorKind, GuestError};
use plugin_host::{Invocation, Kv, Reason, notifier};

use super::{Role, millis, within_reason};
use crate::signal::delivery::{Event, Notifier};

#[async_trait]
impl Notifier for Role {
    fn covers(&self, workspace: Option<WorkspaceId>) -> bool {
        self.grant.workspaces.covers(workspace)
    }

    async fn deliver(&self, events: Vec<Event>) -> Vec<Outcome> {
        let again = |code: String, after| vec![Outcome::Again { code, after }];
        let (app, plugin) = match self.plugin() {
            Ok(found) => found,
            Err(code) => return again(code.to_owned(), None),
        };
        let first = events.first();
        let invocation = Invocation {
            // All of one batch are of one workspace.
            workspace: first.and_then(|event| event.workspace_id),
            operation: first.map(|event| event.id.clone()),
            ..Invocation::default()
        };
        let batch = events.iter().map(told).collect();
        match plugin.deliver(invocation, batch).await {
            Ok(went) => went.into_iter().map(outcome).collect(),
            Err(error) => {
                let after = match &error.reason {
                    Reason::Guest(said) => within_reason(said.retry_after),
                    Reason::BreakerOpen { retry_after } => Some(*retry_after),
                    _ => None,
                };
                let fault = self.failed(&app, &error).await;
                again(fault.code.to_owned(), after)
            }
        }
    }
}

fn told(event: &Event) -> notifier::Event {
    let record = &event.event;
    let mut extra = Vec::new();
    if let Some((_, name)) = &event.host {
        extra.push(Kv {
            key: "host-name".to_owned(),
            value: name.clone(),
        });
    }
    notifier::Event {
        id: event.id.clone(),
        sequence: event.sequence,
        time_ms: millis(record.at),
        kind: record.kind.clone(),
        severity: record.severity.clone(),
        workspace: event.workspace.clone(),
        host: record.host.map(|host| host.to_string()),
        summary: record.summary.clone(),
        dedup_key: record.dedup_key.clone(),
        body: record.body.clone(),
        extra,
    }
}

fn outcome(went: Result<(), GuestError>) -> Outcome {
    let Err(error) = went else {
        return Outcome::Delivered;
    };
    let code = error.code;
    match error.kind {
        ErrorKind::Invalid
        | ErrorKind::Unsupported
        | ErrorKind::Forbidden
        | ErrorKind::NotFound => Outcome::Hopeless { code },
        ErrorKind::Auth
        | ErrorKind::Conflict
        | ErrorKind::Busy
        | ErrorKind::Throttled
        | ErrorKind::Unreachable
        | ErrorKind::Timeout
        | ErrorKind::Upstream
        | ErrorKind::Denied
        | ErrorKind::Cancelled
        | ErrorKind::Internal
        | ErrorKind::Other => Outcome::Again {
            code,
            after: within_reason(error.retry_after),
        },
    }
}
