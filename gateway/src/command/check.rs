//! From what somebody asks for to a command that can be dispatched.
//!
//! Everything is checked here, before anything is written: what a host would refuse
//! for its form never leaves the gateway.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::v1::command::{CreateCommand, Targets, Timers};
use gateway_core::command::active::{self, Active};
use gateway_core::command::fan_out::{Plan, Share};
use gateway_core::command::run::Run;
use model::Timestamp;
use model::host::Membership;
use model::ids::{CommandId, HostId, WorkspaceId};
use model::names::clean;
use model::selector::Selector;
use protocol::v1::{Limits, RunSpec, Secret, Variable};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::Made;
use crate::app::App;
use crate::error::{Error, Result};
use crate::state::catalog::Tables;
use crate::state::command_records::{CommandDefinitionRecordV1, CommandRecordV1};

/// Hosts that one command may have.
pub const MOST_TARGETS: usize = 60_000;
/// Bytes of all arguments together, and of all variables.
const MOST_WORDS: usize = 128 << 10;
/// Bytes of a script and of an input.
const MOST_TEXT: usize = 256 << 10;
/// Longest validity.
const MOST_VALID: Duration = Duration::from_secs(30 * 24 * 3600);
/// Validity when none is asked for.
const VALID: Duration = Duration::from_secs(24 * 3600);
/// How long a host is tried when nothing is asked for.
const DELIVERY: Duration = Duration::from_secs(30);
/// Longest title, in characters.
const TITLE: usize = 120;

/// The hosts that `targets` mean at this moment, in order of their ids.
pub fn resolve(tables: &Tables, workspace: WorkspaceId, targets: &Targets) -> Result<Vec<HostId>> {
    let managed = |membership| membership == Membership::Managed;
    select(tables, workspace, targets, managed)
}

/// The hosts that targets mean, of those with such a membership.
pub fn select(
    tables: &Tables,
    workspace: WorkspaceId,
    targets: &Targets,
    eligible: fn(Membership) -> bool,
) -> Result<Vec<HostId>> {
    let hosts = match (&targets.selector, targets.hosts.is_empty()) {
        (Some(_), false) => {
            return Err(Error::invalid(
                "targets",
                "give a list of hosts or a selector, not both",
            ));
        }
        (None, true) => {
            return Err(Error::invalid(
                "targets",
                "name hosts, or give a selector; an empty selector is every managed host",
            ));
        }
        (None, false) => listed(tables, workspace, &targets.hosts, eligible)?,
        (Some(selector), true) => {
            let selector: Selector =
                selector
                    .parse()
                    .map_err(|error: model::selector::BadSelector| {
                        Error::invalid("targets", error.to_string())
                    })?;
            tables
                .hosts_of(workspace)
                .filter(|id| {
                    tables.hosts.get(id).is_some_and(|host| {
                        eligible(host.membership) && selector.matches(&host.labels)
                    })
                })
                .collect()
        }
    };
    if hosts.is_empty() {
        return Err(Error::invalid(
            "targets",
            "no managed host matches; `loopback host list -l SELECTOR` shows what a selector matches",
        ));
    }
    if hosts.len() > MOST_TARGETS {
        return Err(Error::invalid(
            "targets",
            format!(
                "these are {} hosts; one command has at most {MOST_TARGETS}",
                hosts.len()
            ),
        ));
    }
    Ok(hosts)
}

fn listed(
    tables: &Tables,
    workspace: WorkspaceId,
    hosts: &[HostId],
    eligible: fn(Membership) -> bool,
) -> Result<Vec<HostId>> {
    let mut each = BTreeSet::new();
    for id in hosts {
        let host = tables.host_in(workspace, *id).ok_or_else(|| {
            Error::invalid(
                "targets",
                format!("there is no host {id} in this workspace"),
            )
        })?;
        if !eligible(host.membership) {
            return Err(Error::invalid(
                "targets",
                format!(
                    "{id} is {}: that is not done to such a host",
                    host.membership
                ),
            ));
        }
        if !each.insert(*id) {
            return Err(Error::invalid("targets", format!("{id} is named twice")));
        }
    }
    Ok(each.into_iter().collect())
}

/// The digest of frozen targets.
pub fn digest_of(hosts: &[HostId]) -> String {
    let mut sum = Sha256::new();
    for host in hosts {
        sum.update(host.to_bytes());
    }
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&sum.finalize()))
}

/// Everything about a command that can be wrong without its targets.
pub fn definition(
    app: &App,
    id: CommandId,
    asked: &CreateCommand,
) -> Result<CommandDefinitionRecordV1> {
    program(asked)?;
    let text = |field, value: &Option<String>, most: usize| match value {
        Some(value) if value.len() > most || value.contains('\0') => Err(Error::invalid(
            field,
            format!("at most {most} bytes and no NUL"),
        )),
        _ => Ok(()),
    };
    text("script", &asked.script, MOST_TEXT)?;
    text("directory", &asked.directory, 4096)?;
    if asked
        .stdin
        .as_ref()
        .is_some_and(|stdin| stdin.len() > MOST_TEXT)
    {
        return Err(Error::invalid(
            "stdin",
            format!("at most {MOST_TEXT} bytes; upload a file for more"),
        ));
    }
    if asked
        .directory
        .as_ref()
        .is_some_and(|it| !it.starts_with('/'))
    {
        return Err(Error::invalid(
            "directory",
            "the working directory is an absolute path",
        ));
    }
    if let Some(user) = &asked.user
        && !user_name(user)
    {
        return Err(Error::invalid(
            "user",
            "a user has 1 to 64 of a-z, A-Z, 0-9, `.`, `_`, `-`, `$` and does not begin with `-`",
        ));
    }
    if asked.reboot_exit_code == Some(0) {
        return Err(Error::invalid(
            "reboot_exit_code",
            "0 is success; choose an exit code from 1 to 255",
        ));
    }
    variables(asked)?;
    limits(asked)?;
    timers(&asked.timers)?;
    shares(asked)?;
    let secrets: Vec<String> = asked.secrets.keys().cloned().collect();
    let sealed_secrets = (!secrets.is_empty())
        .then(|| {
            let values: Vec<&String> = asked.secrets.values().map(|value| &value.0).collect();
            let plain = serde_json::to_vec(&values)
                .map(Zeroizing::new)
                .map_err(|error| Error::internal(&error))?;
            Ok::<_, Error>(app.keys.seal(id.to_string().as_bytes(), &plain))
        })
        .transpose()?;
    Ok(CommandDefinitionRecordV1 {
        argv: asked.argv.clone(),
        script: asked.script.clone(),
        interpreter: asked.interpreter.clone(),
        stdin: asked.stdin.clone(),
        user: asked.user.clone(),
        directory: asked.directory.clone(),
        environment: asked.environment.clone(),
        secrets,
        sealed_secrets,
        limits: asked.limits,
        delivery_ms: asked.timers.delivery_ms,
        start_ms: asked.timers.start_ms,
        run_ms: asked.timers.run_ms,
        grace_ms: asked.timers.grace_ms,
        concurrency: asked.fan_out.concurrency,
        batches: asked.fan_out.batches.clone(),
        stop_after: asked.fan_out.stop_after.clone(),
        priority: asked.fan_out.priority,
        reboot_exit_code: asked.reboot_exit_code,
    })
}

fn program(asked: &CreateCommand) -> Result<()> {
    match (&asked.script, asked.argv.is_empty()) {
        (None, true) => {
            return Err(Error::invalid(
                "argv",
                "name a program in `argv`, or give a `script`",
            ));
        }
        (Some(_), false) => {
            return Err(Error::invalid(
                "argv",
                "give a program or a script, not both",
            ));
        }
        (Some(script), true) if script.trim().is_empty() => {
            return Err(Error::invalid("script", "the script is empty"));
        }
        (None, false) if !asked.interpreter.is_empty() => {
            return Err(Error::invalid(
                "interpreter",
                "an interpreter runs a script; for a program, put it into `argv`",
            ));
        }
        (Some(_), true) | (None, false) => {}
    }
    for (field, words) in [("argv", &asked.argv), ("interpreter", &asked.interpreter)] {
        let bytes: usize = words.iter().map(String::len).sum();
        if bytes > MOST_WORDS || words.len() > 1024 || words.iter().any(|it| it.contains('\0')) {
            return Err(Error::invalid(
                field,
                format!("at most 1024 words of {MOST_WORDS} bytes together, without NUL"),
            ));
        }
        if words.first().is_some_and(String::is_empty) {
            return Err(Error::invalid(field, "the program's name is empty"));
        }
    }
    Ok(())
}

fn user_name(user: &str) -> bool {
    (1..=64).contains(&user.len())
        && !user.starts_with('-')
        && user
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-$".contains(&byte))
}

fn variables(asked: &CreateCommand) -> Result<()> {
    let good_name = |name: &str| {
        let first = name.bytes().next();
        first.is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && name.len() <= 128
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut bytes = 0;
    let plain = asked.environment.iter();
    let secret = asked.secrets.iter().map(|(name, value)| (name, &value.0));
    for (name, value) in plain.chain(secret) {
        if !good_name(name) || name.starts_with("LOOPBACK_") {
            return Err(Error::invalid(
                "environment",
                format!(
                    "`{}` cannot be the name of a variable: letters, digits and `_`, not beginning with a digit or LOOPBACK_",
                    clean(name, 64)
                ),
            ));
        }
        if value.contains('\0') {
            return Err(Error::invalid(
                "environment",
                format!("the value of {name} has a NUL"),
            ));
        }
        bytes += name.len() + value.len();
    }
    if bytes > MOST_WORDS {
        return Err(Error::invalid(
            "environment",
            format!("all variables together have at most {MOST_WORDS} bytes"),
        ));
    }
    if let Some(name) = asked
        .secrets
        .keys()
        .find(|name| asked.environment.contains_key(*name))
    {
        return Err(Error::invalid(
            "secrets",
            format!("{name} is in `environment` as well"),
        ));
    }
    if let Some((name, _)) = asked.secrets.iter().find(|(_, value)| value.0.is_empty()) {
        return Err(Error::invalid("secrets", format!("{name} is empty")));
    }
    Ok(())
}

fn limits(asked: &CreateCommand) -> Result<()> {
    let limits = &asked.limits;
    let bad = limits.memory_bytes.is_some_and(|it| it < 1 << 20)
        || limits.processes == Some(0)
        || limits.cpu_millis.is_some_and(|it| it < 10)
        || limits.open_files.is_some_and(|it| it < 16)
        || limits.nice.is_some_and(|it| !(-20..=19).contains(&it));
    if bad {
        return Err(Error::invalid(
            "limits",
            "at least 1 MiB of memory, 1 process, 10 thousandths of a processor, 16 open files; nice from -20 to 19",
        ));
    }
    Ok(())
}

fn timers(timers: &Timers) -> Result<()> {
    let longest = 30 * 24 * 3_600_000;
    let bad = timers
        .delivery_ms
        .is_some_and(|it| !(1000..=longest).contains(&it))
        || !(1000..=3_600_000).contains(&timers.start_ms)
        || timers.run_ms > longest
        || timers.grace_ms > 600_000;
    if bad {
        return Err(Error::invalid(
            "timers",
            "delivery 1 s to 30 days, start 1 s to 1 h, run at most 30 days, grace at most 10 min",
        ));
    }
    Ok(())
}

fn shares(asked: &CreateCommand) -> Result<()> {
    if asked.fan_out.batches.len() > 16 {
        return Err(Error::invalid("fan_out", "at most 16 sizes of batches"));
    }
    let texts = asked
        .fan_out
        .batches
        .iter()
        .chain(&asked.fan_out.stop_after);
    for text in texts {
        text.parse::<Share>().map_err(|error| {
            Error::invalid("fan_out", format!("`{}`: {error}", clean(text, 32)))
        })?;
    }
    Ok(())
}

/// Until when a command is valid, and whether that was asked for.
pub fn validity(timers: &Timers, now: Timestamp) -> Result<(Timestamp, bool)> {
    match timers.valid_until {
        None => Ok((now.saturating_add(VALID), false)),
        Some(until) if until > now && until <= now.saturating_add(MOST_VALID) => Ok((until, true)),
        Some(_) => Err(Error::invalid(
            "timers.valid_until",
            "a command is valid until some time in the future, at most 30 days ahead",
        )),
    }
}

/// What to call a command in a list. Never a secret: those are variables.
pub fn title(definition: &CommandDefinitionRecordV1) -> String {
    match &definition.script {
        None => clean(&definition.argv.join(" "), TITLE),
        Some(script) => {
            let told = |line: &&str| !line.trim().is_empty() && !line.starts_with("#!");
            clean(script.lines().find(told).unwrap_or("script"), TITLE)
        }
    }
}

/// A command for the dispatcher.
pub(crate) fn made(
    app: &App,
    record: &CommandRecordV1,
    definition: &CommandDefinitionRecordV1,
    targets: Vec<HostId>,
    known: BTreeMap<HostId, Run>,
    now: Timestamp,
) -> Result<Made> {
    let batches: Vec<Share> = definition
        .batches
        .iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    let stop_after = definition
        .stop_after
        .as_ref()
        .and_then(|it| it.parse().ok());
    let plan = Plan::new(
        record.targets,
        definition.concurrency,
        &batches,
        stop_after,
        definition.priority,
    );
    let delivery = match (definition.delivery_ms, record.waits_for_hosts) {
        (Some(millis), _) => Some(Duration::from_millis(millis)),
        (None, true) => None,
        (None, false) => Some(DELIVERY),
    };
    let timers = active::Timers {
        delivery,
        valid_until: record.valid_until,
        start: Duration::from_millis(definition.start_ms),
    };
    let active = Active::new(plan, timers, targets, known, now);
    Ok(Made {
        id: record.id,
        active,
        spec: spec(app, record, definition)?,
    })
}

fn spec(
    app: &App,
    record: &CommandRecordV1,
    definition: &CommandDefinitionRecordV1,
) -> Result<RunSpec> {
    let variable = |(name, value): (&String, &String)| Variable {
        name: name.clone(),
        value: value.clone(),
    };
    let limits = &definition.limits;
    Ok(RunSpec {
        argv: definition.argv.clone(),
        script: definition.script.clone().unwrap_or_default().into_bytes(),
        interpreter: definition.interpreter.clone(),
        user: definition.user.clone().unwrap_or_default(),
        directory: definition.directory.clone().unwrap_or_default(),
        environment: definition.environment.iter().map(variable).collect(),
        secrets: secrets(app, record.id, definition)?,
        stdin: definition.stdin.clone().unwrap_or_default().into_bytes(),
        run_timeout_ms: definition.run_ms,
        grace_ms: definition.grace_ms,
        reboot_code: definition.reboot_exit_code.map(i32::from),
        limits: Some(Limits {
            memory_bytes: limits.memory_bytes.unwrap_or(0),
            processes: limits.processes.unwrap_or(0),
            cpu_millis: limits.cpu_millis.unwrap_or(0),
            open_files: limits.open_files.unwrap_or(0),
            nice: limits.nice.unwrap_or(0).into(),
        }),
        actor: record.created_by.clone(),
        ticket: record.ticket.clone().unwrap_or_default(),
    })
}

fn secrets(
    app: &App,
    id: CommandId,
    definition: &CommandDefinitionRecordV1,
) -> Result<Vec<Secret>> {
    let Some(sealed) = &definition.sealed_secrets else {
        return Ok(Vec::new());
    };
    let values = app
        .keys
        .open(id.to_string().as_bytes(), sealed)
        .and_then(|plain| serde_json::from_slice::<Vec<String>>(&plain).ok());
    // Without them it would be another command.
    let values = values.ok_or_else(|| {
        Error::conflict("the secrets of this command cannot be opened with the gateway's key")
    })?;
    let names = definition.secrets.iter().cloned();
    Ok(names
        .zip(values)
        .map(|(name, value)| Secret { name, value })
        .collect())
}
