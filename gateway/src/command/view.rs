//! Commands and runs as the API shows them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::v1::command::{Command, CommandDefinition, FanOut, OutputInfo, Run, Timers};
use gateway_core::command::run;
use gateway_store::{Read, fetch};
use model::command::{CommandState, RunState};
use model::ids::HostId;

use super::output::OutputLog;
use crate::app::App;
use crate::error::Result;
use crate::state::catalog::Tables;
use crate::state::command_records::{
    CommandDefinitionRecordV1, CommandRecordV1, OutputV1, RunRecordV1,
};
use crate::view::{hostname_of, name_of};

/// A command.
pub fn command(app: &App, record: &CommandRecordV1) -> Command {
    let live = app.commands.look(record.id, |active| {
        let stopped = active.stopped().map(str::to_owned);
        let figures = (active.counts().clone(), active.failures(), stopped);
        (active.state(), figures)
    });
    // Between the commit and the dispatcher's first look, and never for long.
    let waiting = || BTreeMap::from([(RunState::Queued, record.targets)]);
    let (state, (runs, failures, stopped)) = match &record.finished {
        Some(finished) => (
            finished.state,
            (
                finished.runs.clone(),
                finished.failures,
                finished.stopped.clone(),
            ),
        ),
        None => live.unwrap_or_else(|| (CommandState::Running, (waiting(), 0, None))),
    };
    Command {
        id: record.id,
        workspace: record.workspace,
        title: record.title.clone(),
        state,
        runs,
        targets: record.targets,
        failures,
        stopped,
        retry_of: record.retry_of,
        created_by: record.created_by.clone(),
        ticket: record.ticket.clone(),
        created_at: record.created_at,
        valid_until: record.valid_until,
        finished_at: record.finished.as_ref().map(|finished| finished.at),
    }
}

/// What a command runs, but for its secrets.
pub fn definition(
    record: &CommandRecordV1,
    definition: CommandDefinitionRecordV1,
) -> CommandDefinition {
    CommandDefinition {
        argv: definition.argv,
        script: definition.script,
        interpreter: definition.interpreter,
        reboot_exit_code: definition.reboot_exit_code,
        user: definition.user,
        directory: definition.directory,
        environment: definition.environment,
        secrets: definition.secrets,
        limits: definition.limits,
        timers: Timers {
            delivery_ms: definition.delivery_ms,
            valid_until: Some(record.valid_until),
            start_ms: definition.start_ms,
            run_ms: definition.run_ms,
            grace_ms: definition.grace_ms,
        },
        fan_out: FanOut {
            concurrency: definition.concurrency,
            batches: definition.batches,
            stop_after: definition.stop_after,
            priority: definition.priority,
        },
    }
}

/// A run, wherever it is known from.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The host.
    pub host: HostId,
    /// What is known.
    pub run: run::Run,
    /// Its output; none before it was sent.
    pub log: Option<Arc<OutputLog>>,
}

/// All runs of a command, by host: from the dispatcher while it is at work, from the
/// store after.
pub async fn runs(app: &App, record: &CommandRecordV1) -> Result<Vec<Seen>> {
    if let Some(live) = app.commands.runs(record.id) {
        let seen = |it: super::LiveRun| Seen {
            host: it.host,
            run: it.run,
            log: it.log,
        };
        return Ok(live.into_iter().map(seen).collect());
    }
    let stored = super::actor::runs_of(app, record.id).await?;
    if stored.len() == record.targets as usize {
        return Ok(stored.iter().map(seen).collect());
    }
    // Not with the dispatcher yet: runs without a record wait.
    let mut by_host: BTreeMap<HostId, Seen> =
        stored.iter().map(|run| (run.host, seen(run))).collect();
    for host in super::actor::targets_of(app, record.id).await? {
        by_host.entry(host).or_insert_with(|| Seen {
            host,
            run: run::Run::queued(0),
            log: None,
        });
    }
    Ok(by_host.into_values().collect())
}

/// The run of a command on one host, if that is among its targets.
pub async fn one(app: &App, record: &CommandRecordV1, host: HostId) -> Result<Option<Seen>> {
    if let Some(live) = app.commands.run(record.id, host) {
        return Ok(Some(Seen {
            host: live.host,
            run: live.run,
            log: live.log,
        }));
    }
    let key = RunRecordV1::key(record.id, host);
    let read = Read::Cached { at_least: None };
    if let Some(stored) = fetch::<RunRecordV1>(&*app.store, &key, read).await? {
        return Ok(Some(seen(&stored.record)));
    }
    let all = runs(app, record).await?;
    Ok(all.into_iter().find(|seen| seen.host == host))
}

/// A run as its record has it.
fn seen(record: &RunRecordV1) -> Seen {
    Seen {
        host: record.host,
        run: record.run(),
        log: Some(OutputLog::stored(&record.output)),
    }
}

/// A run for the API.
pub fn run(tables: &Tables, seen: &Seen) -> Run {
    let figures = seen
        .log
        .as_ref()
        .map_or_else(OutputV1::default, |log| log.figures());
    let name = tables.hosts.get(&seen.host).map_or_else(
        || seen.host.to_string(),
        |host| name_of(host, hostname_of(tables, host)),
    );
    let run = &seen.run;
    Run {
        host: seen.host,
        name,
        batch: run.batch,
        state: run.state,
        code: run.code,
        signal: run.signal,
        ending: run.ending,
        reason: run.reason.clone(),
        cancelling: run.cancelling && !run.is_final(),
        sent_at: run.sent_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        output: OutputInfo {
            stdout_bytes: figures.stdout_bytes,
            stderr_bytes: figures.stderr_bytes,
            dropped_bytes: figures.dropped_bytes,
            deleted: false,
        },
    }
}
