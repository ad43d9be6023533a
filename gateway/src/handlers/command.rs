//! Commands: made, shown, cancelled, repeated. Following them is in
//! [`super::command_follow`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::Page;
use api::endpoint::Endpoint;
use api::v1::command::*;
use gateway_store::{Batch, Condition, Read, fetch};
use model::ids::{CommandId, HostId};

use super::page::{limit_of, page_of};
use crate::app::App;
use crate::command::view::Seen;
use crate::command::{check, view};
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::http::dispatch::{cursor, read_cursor};
use crate::policy::{self, Permit};
use crate::state::catalog::Kept;
use crate::state::command_records::{
    CommandDefinitionRecordV1, CommandRecordV1, CommandTargetsRecordV1, OutputV1, RunRecordV1,
    TARGETS_IN_ONE,
};
use crate::state::edit::edit;
use crate::state::records::key_of;

/// Hosts shown when targets are resolved.
const SHOWN: usize = 1000;
/// Parts of targets that go with the command in one batch.
const PARTS_AT_ONCE: usize = 8;
/// Hosts that the audit trail names; more are a number and a digest.
const NAMED: usize = 16;

/// Shows which hosts a command would run on.
pub async fn resolve_command_targets(
    app: Arc<App>,
    call: Call<ResolveCommandTargets>,
) -> Result<ResolvedTargets> {
    let tables = app.catalog.read();
    let hosts = check::resolve(&tables, call.proof.workspace(), &call.body)?;
    let shown = hosts.iter().take(SHOWN).filter_map(|id| {
        let host = tables.hosts.get(id)?;
        Some(TargetHost {
            host: *id,
            name: crate::view::name_of(host, crate::view::hostname_of(&tables, host)),
            connected: app.links.is_linked(*id),
        })
    });
    Ok(ResolvedTargets {
        total: u32::try_from(hosts.len()).unwrap_or(u32::MAX),
        hosts: shown.collect(),
        digest: check::digest_of(&hosts),
    })
}

/// Makes a command and hands it to the dispatcher.
pub async fn create_command(app: Arc<App>, call: Call<CreateCommandRecord>) -> Result<Command> {
    let id = app.new_id(CommandId::new);
    let definition = check::definition(&app, id, &call.body)?;
    let (valid_until, waits_for_hosts) = check::validity(&call.body.timers, call.meta.now)?;
    let workspace = call.proof.workspace();
    let hosts = check::resolve(&app.catalog.read(), workspace, &call.body.targets)?;
    let digest = check::digest_of(&hosts);
    if call
        .body
        .targets_digest
        .as_ref()
        .is_some_and(|it| *it != digest)
    {
        return Err(Error::conflict(
            "the targets are not the ones that were shown any more: look at them again",
        ));
    }
    // Without its timers: when the same person asks the same again, they have moved.
    let mut what = call.body.clone();
    what.timers = Timers::default();
    let what = serde_json::to_vec(&what).map_err(|error| Error::internal(&error))?;
    let permit = policy::on_hosts(&app, &call.proof, &call.meta, &hosts, &what).await?;
    let new = New {
        id,
        definition,
        hosts,
        valid_until,
        waits_for_hosts,
        retry_of: None,
        permit,
    };
    make(app, call, new).await
}

struct New {
    id: CommandId,
    definition: CommandDefinitionRecordV1,
    hosts: Vec<HostId>,
    valid_until: model::Timestamp,
    waits_for_hosts: bool,
    retry_of: Option<CommandId>,
    permit: Permit,
}

async fn make<E: Endpoint<Reply = Command>>(
    app: Arc<App>,
    call: Call<E>,
    new: New,
) -> Result<Command> {
    let record = CommandRecordV1 {
        id: new.id,
        workspace: call.proof.workspace(),
        title: check::title(&new.definition),
        targets: u32::try_from(new.hosts.len()).unwrap_or(u32::MAX),
        created_by: call.origin().by().unwrap_or_default(),
        ticket: call.meta.ticket.clone(),
        created_at: call.meta.now,
        // What policies permit for a time does not start after it.
        valid_until: new
            .permit
            .until()
            .map_or(new.valid_until, |until| until.min(new.valid_until)),
        waits_for_hosts: new.waits_for_hosts,
        retry_of: new.retry_of,
        cancelled: false,
        finished: None,
    };
    let mut batch = Batch::new();
    let parts: Vec<_> = new.hosts.chunks(TARGETS_IN_ONE).enumerate().collect();
    let (ahead, with) = parts.split_at(parts.len().saturating_sub(PARTS_AT_ONCE));
    for some in ahead.chunks(PARTS_AT_ONCE) {
        let mut earlier = Batch::new();
        put_targets(&mut earlier, new.id, some)?;
        app.commit(earlier).await?;
    }
    put_targets(&mut batch, new.id, with)?;
    let key = key_of::<CommandRecordV1>(new.id);
    batch.require(&key, Condition::Absent);
    batch.put_record(&key, &record)?;
    batch.put_record(
        &key_of::<CommandDefinitionRecordV1>(new.id),
        &new.definition,
    )?;
    let mut entry = call
        .entry("command.run")
        .on(new.id)
        .with("runs", &record.title)
        .with("user", new.definition.user.as_deref().unwrap_or("root"))
        .with("hosts", record.targets)
        .with("targets", check::digest_of(&new.hosts));
    if new.hosts.len() <= NAMED {
        let names: Vec<_> = new.hosts.iter().map(ToString::to_string).collect();
        entry = entry.with("on", names.join(" "));
    }
    if !new.definition.secrets.is_empty() {
        entry = entry.with("secrets", new.definition.secrets.join(" "));
    }
    if let Some(of) = new.retry_of {
        entry = entry.with("retry_of", of);
    }
    entry.in_workspace(record.workspace, &mut batch);
    let reply = view::command(&app, &record);
    let now = app.now();
    let made = check::made(
        &app,
        &record,
        &new.definition,
        new.hosts,
        BTreeMap::new(),
        now,
    )?;
    let begun = app.commands.begin(made, now);
    for (host, run) in &begun.runs {
        let record = RunRecordV1::of(*host, run, OutputV1::default());
        batch.put_record(&RunRecordV1::key(new.id, *host), &record)?;
    }
    let reply = call.finish(&app, batch, reply).await?;
    // The dispatcher sees it in the catalog.
    begun.written();
    Ok(reply)
}

fn put_targets(batch: &mut Batch, command: CommandId, parts: &[(usize, &[HostId])]) -> Result<()> {
    for (number, hosts) in parts {
        let record = CommandTargetsRecordV1 {
            hosts: hosts.to_vec(),
        };
        batch.put_record(&CommandTargetsRecordV1::key(command, *number), &record)?;
    }
    Ok(())
}

/// Lists commands, newest first.
pub async fn list_commands(app: Arc<App>, call: Call<ListCommands>) -> Result<Page<Command>> {
    let limit = limit_of(call.query.limit)?;
    let before: Option<CommandId> = call.query.after.as_deref().map(read_cursor).transpose()?;
    let tables = app.catalog.read();
    let mut page = Page {
        items: Vec::new(),
        next: None,
    };
    for record in tables.commands_before(call.proof.workspace(), before) {
        let shown = view::command(&app, record);
        if call.query.state.is_some_and(|state| state != shown.state) {
            continue;
        }
        if page.items.len() == limit {
            page.next = page.items.last().map(|last: &Command| cursor(&last.id));
            break;
        }
        page.items.push(shown);
    }
    Ok(page)
}

/// Shows a command.
pub async fn get_command(app: Arc<App>, call: Call<GetCommand>) -> Result<Command> {
    let record = find(&app, &call, call.path.command)?;
    Ok(view::command(&app, &record))
}

/// Shows what a command runs.
pub async fn get_command_definition(
    app: Arc<App>,
    call: Call<GetCommandDefinition>,
) -> Result<CommandDefinition> {
    let record = find(&app, &call, call.path.command)?;
    let definition = definition_of(&app, record.id).await?;
    Ok(view::definition(&record, definition))
}

/// Lists the runs of a command.
pub async fn list_command_runs(app: Arc<App>, call: Call<ListCommandRuns>) -> Result<Page<Run>> {
    let record = find(&app, &call, call.path.command)?;
    let runs = view::runs(&app, &record).await?;
    let tables = app.catalog.read();
    let wanted = |seen: &Seen| call.query.state.is_none_or(|it| it == seen.run.state);
    page_of(
        runs.iter(),
        |seen| seen.host,
        call.query.limit,
        call.query.after.as_deref(),
        |seen| wanted(seen).then(|| view::run(&tables, seen)),
    )
}

/// Shows the run of a command on one host.
pub async fn get_command_run(app: Arc<App>, call: Call<GetCommandRun>) -> Result<Run> {
    let record = find(&app, &call, call.path.command)?;
    let seen = run_of(&app, &record, call.path.host).await?;
    Ok(view::run(&app.catalog.read(), &seen))
}

/// Cancels a command, or some of its runs.
pub async fn cancel_command(app: Arc<App>, call: Call<CancelCommandRuns>) -> Result<Command> {
    let record = find(&app, &call, call.path.command)?;
    if record.finished.is_some() {
        return Ok(view::command(&app, &record));
    }
    let hosts: Option<BTreeSet<HostId>> =
        (!call.body.hosts.is_empty()).then(|| call.body.hosts.iter().copied().collect());
    if let Some(hosts) = &hosts {
        let stranger = app
            .commands
            .look(record.id, |active| {
                hosts.iter().find(|it| active.run(**it).is_none()).copied()
            })
            .flatten();
        if let Some(host) = stranger {
            let detail = format!("{host} is not among the targets");
            return Err(Error::invalid("hosts", detail));
        }
    }
    edit::<CommandRecordV1>(
        &app,
        &key_of::<CommandRecordV1>(record.id),
        |found, batch| {
            let Some(found) = found.filter(|found| found.finished.is_none()) else {
                return Ok(None);
            };
            let entry = call.entry("command.cancel").on(found.id);
            match &hosts {
                None => entry.with("hosts", "all"),
                Some(hosts) => entry.with("hosts", hosts.len()),
            }
            .in_workspace(found.workspace, batch);
            Ok(Some(CommandRecordV1 {
                cancelled: found.cancelled || hosts.is_none(),
                ..found
            }))
        },
    )
    .await?;
    app.commands.cancel(record.id, hosts).await;
    get(&app, record.workspace, record.id)
}

/// Runs a command again where it failed, or where it did not run.
pub async fn retry_command(app: Arc<App>, call: Call<RetryCommandRuns>) -> Result<Command> {
    let record = find(&app, &call, call.path.command)?;
    let runs = view::runs(&app, &record).await?;
    let wanted = |seen: &&Seen| {
        let failed = seen.run.is_final() && !seen.run.succeeded();
        let unreached = seen.run.state.never_ran()
            || (seen.run.state == model::command::RunState::Cancelled
                && seen.run.started_at.is_none());
        match call.body.which {
            RetryWhich::Failed => failed,
            RetryWhich::NotReached => failed && unreached,
        }
    };
    let again: Vec<HostId> = runs.iter().filter(wanted).map(|seen| seen.host).collect();
    if again.is_empty() {
        return Err(Error::invalid(
            "which",
            "there is no such run: nothing to repeat",
        ));
    }
    let targets = Targets {
        hosts: again,
        selector: None,
    };
    let workspace = call.proof.workspace();
    let hosts = check::resolve(&app.catalog.read(), workspace, &targets)?;
    let id = app.new_id(CommandId::new);
    let mut definition = definition_of(&app, record.id).await?;
    if let Some(sealed) = &definition.sealed_secrets {
        // Sealed for the command whose they are.
        let plain = app.keys.open(record.id.to_string().as_bytes(), sealed);
        let plain = plain.ok_or_else(|| {
            Error::conflict("the secrets of this command cannot be opened with the gateway's key")
        })?;
        definition.sealed_secrets = Some(app.keys.seal(id.to_string().as_bytes(), &plain));
    }
    let what = format!("{} {:?}", record.id, call.body.which);
    let permit = policy::on_hosts(&app, &call.proof, &call.meta, &hosts, what.as_bytes()).await?;
    let own = record.valid_until.since(record.created_at);
    let timers = Timers {
        valid_until: call.body.valid_until,
        ..Timers::default()
    };
    let (valid_until, asked) = check::validity(&timers, call.meta.now)?;
    let new = New {
        id,
        definition,
        hosts,
        valid_until: if asked {
            valid_until
        } else {
            call.meta.now.saturating_add(own)
        },
        waits_for_hosts: asked || record.waits_for_hosts,
        retry_of: Some(record.id),
        permit,
    };
    make(app, call, new).await
}

/// A run of a command of the caller's workspace.
pub(super) async fn run_of(app: &App, record: &CommandRecordV1, host: HostId) -> Result<Seen> {
    let found = view::one(app, record, host).await?;
    found.ok_or_else(|| Error::not_found("run"))
}

/// A command of the caller's workspace.
pub(super) fn find<E: Endpoint>(
    app: &App,
    call: &Call<E>,
    command: CommandId,
) -> Result<Kept<CommandRecordV1>> {
    let tables = app.catalog.read();
    let found = tables.command_in(call.proof.workspace(), command).cloned();
    found.ok_or_else(|| Error::not_found("command"))
}

fn get(app: &App, workspace: model::ids::WorkspaceId, command: CommandId) -> Result<Command> {
    let found = app.catalog.read().command_in(workspace, command).cloned();
    let record = found.ok_or_else(|| Error::not_found("command"))?;
    Ok(view::command(app, &record))
}

async fn definition_of(app: &App, command: CommandId) -> Result<CommandDefinitionRecordV1> {
    let key = key_of::<CommandDefinitionRecordV1>(command);
    let read = Read::Cached { at_least: None };
    let found = fetch::<CommandDefinitionRecordV1>(&*app.store, &key, read).await?;
    let found = found.ok_or_else(|| Error::not_found("command"))?;
    Ok(found.record)
}
