//! Shutting down and restarting through the host's own agent.
//!
//! It is a command like others, with a journal on the host that runs it once. Its id is written
//! into the operation before it is made, so making it again after a crash finds it there.

use std::time::Duration;

use api::v1::command::CreateCommand;
use gateway_core::power::Trouble;
use gateway_core::power::operation::{Begun, Failure, Progress, Resumed};
use gateway_store::{Batch, CommitError, Condition, Read, fetch};
use model::command::RunState;
use model::ids::CommandId;
use model::power::PowerAction;

use super::provider::waits;
use super::records::PowerOperationRecordV1;
use crate::app::App;
use crate::command::check;
use crate::error::Result;
use crate::state::change::Origin;
use crate::state::command_records::{CommandRecordV1, CommandTargetsRecordV1, RunRecordV1};
use crate::state::records::key_of;

/// For the host to take it.
const DELIVERY: Duration = Duration::from_secs(60);
/// How soon to ask how it goes on.
const ASK: Duration = Duration::from_secs(1);

/// Has the command made, unless it is there.
pub async fn begin(app: &App, record: &PowerOperationRecordV1, action: PowerAction) -> Answer {
    let Some(id) = record.command else {
        return Err(waits("agent.no_command", "the command has no id yet"));
    };
    match make(app, record, id, action).await {
        Ok(()) => Ok(Begun::Submitted(progress(id, "the host is asked"))),
        Err(error) => Err(waits("agent.not_written", error.to_string())),
    }
}

/// What becomes of asking.
type Answer = std::result::Result<Begun, Failure>;

async fn make(
    app: &App,
    record: &PowerOperationRecordV1,
    id: CommandId,
    action: PowerAction,
) -> Result<()> {
    let verb = match action {
        PowerAction::Reboot => "reboot",
        _ => "poweroff",
    };
    let asked = CreateCommand {
        // Not to be waited for: the answer should leave before the network does.
        script: Some(format!(
            "#!/bin/sh\nif [ -d /run/systemd/system ]; then exec systemctl --no-block {verb}; fi\nexec {verb}\n"
        )),
        ..CreateCommand::default()
    };
    let definition = check::definition(app, id, &asked)?;
    let now = app.now();
    let command = CommandRecordV1 {
        id,
        workspace: record.workspace,
        title: format!("{action} ({})", record.id),
        targets: 1,
        created_by: record.created_by.clone(),
        ticket: record.ticket.clone(),
        created_at: now,
        valid_until: now.saturating_add(DELIVERY).min(record.operation.deadline),
        waits_for_hosts: false,
        retry_of: None,
        cancelled: false,
        finished: None,
    };
    let mut batch = Batch::new();
    let key = key_of::<CommandRecordV1>(id);
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &command)?;
    batch.put_record(
        &key_of::<crate::state::command_records::CommandDefinitionRecordV1>(id),
        &definition,
    )?;
    let targets = CommandTargetsRecordV1 {
        hosts: vec![record.host],
    };
    batch.put_record(&CommandTargetsRecordV1::key(id, 0), &targets)?;
    Origin::gateway()
        .entry(now, "command.run")
        .on(id)
        .with("runs", &command.title)
        .with("on", record.host)
        .with("for", record.id)
        .in_workspace(record.workspace, &mut batch);
    match app.try_commit(batch).await? {
        Ok(_) | Err(CommitError::Conflict { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// How it goes on; nothing is that the host does it.
pub async fn poll(
    app: &App,
    record: &PowerOperationRecordV1,
) -> std::result::Result<Option<Progress>, Failure> {
    let Some(id) = record.command else {
        return Ok(None);
    };
    let key = RunRecordV1::key(id, record.host);
    let run = fetch::<RunRecordV1>(&*app.store, &key, Read::Linearizable).await;
    let run = run.map_err(|error| waits("agent.not_read", error.to_string()))?;
    let Some(run) = run.map(|stored| stored.record) else {
        return Ok(Some(progress(id, "the host is asked")));
    };
    match run.state {
        RunState::Queued | RunState::Sending | RunState::Delivered | RunState::Started => {
            // A host that goes away in the middle of this does what it was asked.
            if run.sent_at.is_some() && !app.links.is_linked(record.host) {
                return Ok(None);
            }
            Ok(Some(progress(id, "the host is asked")))
        }
        // It may be ended by what it began.
        RunState::Exited if run.code.unwrap_or(0) == 0 => Ok(None),
        RunState::Signalled | RunState::Lost | RunState::TimedOut => Ok(None),
        RunState::Exited
        | RunState::NotStarted
        | RunState::Expired
        | RunState::Refused
        | RunState::Cancelled => {
            let why = run.reason.unwrap_or_else(|| match run.code {
                Some(code) => format!("exit code {code}"),
                None => run.state.to_string(),
            });
            Err(Failure {
                trouble: Trouble::new("agent.refused", format!("the host did not do it: {why}")),
                transient: false,
                retry_after: None,
                outcome_unknown: false,
            })
        }
    }
}

/// Makes it again, which does nothing if it is there.
pub async fn resume(
    app: &App,
    record: &PowerOperationRecordV1,
    action: PowerAction,
) -> std::result::Result<Resumed, Failure> {
    match begin(app, record, action).await? {
        Begun::Submitted(progress) => Ok(Resumed::Running(progress)),
        Begun::Already(_) | Begun::Taken => Ok(Resumed::Unknown),
    }
}

fn progress(id: CommandId, message: &str) -> Progress {
    Progress {
        cursor: id.to_string().into_bytes(),
        poll_after: Some(ASK),
        remote_id: Some(id.to_string()),
        percent: None,
        message: message.to_owned(),
    }
}
