//! `loopback run`.

mod input;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::v1::command::{
    Command, CreateCommand, CreateCommandRecord, FanOut, ResolveCommandTargets, ResolvedTargets,
    Targets, Timers,
};
use api::v1::{InWorkspace, OfCommand};
use clap::{ArgGroup, Args};
use model::command::{Priority, RunLimits};

use super::host::selector;
use crate::app::{App, WorkspaceArg, now};
use crate::client::Client;
use crate::failure::{EXIT_CODES, Failure, LEFT, NOT_SUCCEEDED};
use crate::follow::interrupts::Interrupts;
use crate::follow::watch::{Watch, follow};
use crate::lookup;
use crate::output::note;
use crate::parse::{When, bytes, cpus, duration, size, when, word};

/// Hosts that are named before a command runs on them; more are counted, and asked
/// about.
const FEW: usize = 10;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("targets").required(true).args(["selector", "hosts", "all"]), after_help = after_help())]
pub(super) struct Run {
    /// On the managed hosts whose labels match: role=web,env!=dev,tier in (a,b),!legacy
    #[arg(long, short = 'l', value_parser = selector)]
    selector: Option<String>,
    /// On the host with this name or id; repeatable
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// On every managed host
    #[arg(long)]
    all: bool,
    /// Program and arguments, passed as they are: no shell reads them
    #[arg(last = true, value_name = "PROGRAM")]
    argv: Vec<String>,
    /// Run this script instead of a program; - is standard input
    #[arg(long, value_name = "FILE")]
    script: Option<String>,
    /// What runs the script, then its arguments, each with the flag [default: the script's first line, else /bin/sh]
    #[arg(
        long,
        value_name = "PROGRAM",
        requires = "script",
        allow_hyphen_values = true
    )]
    interpreter: Vec<String>,
    /// Exit code by which the program asks for a reboot, after which it is started again (LOOPBACK_REBOOTS counts)
    #[arg(long, value_name = "CODE", value_parser = clap::value_parser!(u8).range(1..))]
    reboot_on: Option<u8>,
    /// User to run as [default: root]
    #[arg(long)]
    user: Option<String>,
    /// Working directory [default: the user's home]
    #[arg(long, value_name = "FOLDER")]
    dir: Option<String>,
    /// Environment variable to set; repeatable
    #[arg(long = "env", value_name = "NAME=VALUE", value_parser = input::variable)]
    environment: Vec<(String, String)>,
    /// Secret environment variable, masked in the output: its value is that of the variable here, or what the file holds; repeatable
    #[arg(long = "secret", value_name = "NAME|NAME=@FILE")]
    secrets: Vec<String>,
    /// Standard input of the program; - is our own [default: nothing]
    #[arg(long, value_name = "FILE")]
    stdin: Option<String>,
    /// Print the command's id and leave
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    workspace: WorkspaceArg,
    #[command(flatten)]
    when: WhenArgs,
    #[command(flatten)]
    spread: SpreadArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// When to give up.
#[derive(Debug, Args)]
#[command(next_help_heading = "When to give up")]
struct WhenArgs {
    /// End a process that runs longer than this; 0s for never [default: 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    timeout: Option<Duration>,
    /// Between telling a process to end (TERM) and killing it [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    grace: Option<Duration>,
    /// Start nothing after this, whenever a host comes back: 2h, or a time [default: a day]
    #[arg(long, visible_alias = "valid-until", value_name = "WHEN", value_parser = when)]
    valid_for: Option<When>,
    /// How long to try to reach a host once it is its turn [default: 30s, or as --valid-for says]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deliver_within: Option<Duration>,
    /// How long a host may take to start what it has received [default: 1m]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    start_within: Option<Duration>,
}

/// How a command spreads over its hosts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Many hosts")]
struct SpreadArgs {
    /// Most hosts at a time [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    concurrency: Option<u32>,
    /// Size of the next batch, canaries first: --batch 1 --batch 10%; the last one repeats
    #[arg(long = "batch", value_name = "N|N%", value_parser = size)]
    batches: Vec<String>,
    /// Start no more after so many hosts did not succeed
    #[arg(long, value_name = "N|N%", value_parser = size)]
    stop_after: Option<String>,
    /// Whose turn comes first: low, normal, high
    #[arg(long, value_parser = word::<Priority>)]
    priority: Option<Priority>,
}

/// What each run may use.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits of each run")]
struct LimitArgs {
    /// Most memory: 512M, 2G
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// Most processes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    processes: Option<u32>,
    /// Most processors: 2, 0.5
    #[arg(long, value_name = "N", value_parser = cpus)]
    cpus: Option<u32>,
    /// Most open files of each process
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(16..))]
    open_files: Option<u64>,
    /// Nice value, -20 (first) to 19 (last)
    #[arg(long, value_name = "N", allow_hyphen_values = true, value_parser = clap::value_parser!(i8).range(-20..=19))]
    nice: Option<i8>,
}

/// How to follow a command.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct WatchArgs {
    /// Pass output to a terminal as it is, escape sequences included
    #[arg(long)]
    raw: bool,
    /// How long to try to reach a gateway again that was lost
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5m")]
    reconnect_for: Duration,
}

impl From<WatchArgs> for Watch {
    fn from(args: WatchArgs) -> Self {
        Self {
            reconnect_for: args.reconnect_for,
            raw: args.raw,
        }
    }
}

/// The exit codes of what follows a command, from their only list.
pub(super) fn exit_code_help() -> String {
    let mut text = "Exit code: of one host, that of its program, or 128 and the number of the signal that ended it; standard error says which it was. Otherwise 0 when all succeeded, or the first of 11, 8, 10, 9 that applies:\n".to_owned();
    let about_commands = |(code, _): &&(u8, &str)| (NOT_SUCCEEDED..=LEFT).contains(code);
    for (code, meaning) in EXIT_CODES.iter().filter(about_commands) {
        text.push_str(&format!("  {code:>2}  {meaning}\n"));
    }
    text + "Codes below 8 are those of every loopback command."
}

fn after_help() -> String {
    let examples = "Examples:\n  loopback run --host web-1 -- uptime\n  loopback run -l role=web --batch 1 --batch 10% --stop-after 2 --script upgrade.sh\n  loopback run --all --valid-for 7d --detach -- apt-get -qy upgrade";
    let keys = "Ctrl-C cancels the command and shows how it ends; a second one leaves, and the command goes on.";
    format!("{examples}\n\n{keys}\n\n{}", exit_code_help())
}

pub(super) fn run(app: &mut App, command: Run) -> Result<u8, Failure> {
    let body = body(&command)?;
    let (client, workspace) = app.in_workspace(&command.workspace)?;
    let path = InWorkspace { workspace };
    let targets = targets(&client, path, &command)?;
    let resolved = client.send::<ResolveCommandTargets>(&path, &targets)?;
    if resolved.total == 0 {
        return Err(Failure::NoTargets);
    }
    announce(app, &command, &resolved)?;
    let client = Arc::new(client);
    let interrupts = if command.detach {
        None
    } else {
        Some(Interrupts::listen()?)
    };
    let body = CreateCommand {
        targets,
        targets_digest: Some(resolved.digest),
        ..body
    };
    let made = client.send::<CreateCommandRecord>(&path, &body)?;
    drop(body);
    watch(
        app,
        &client,
        &made,
        interrupts,
        command.watch.into(),
        resolved.total > 1,
    )
}

/// Follows a command that was just made, or says its id and leaves.
pub(super) fn watch(
    app: &mut App,
    client: &Arc<Client>,
    made: &Command,
    interrupts: Option<Interrupts>,
    watch: Watch,
    tell: bool,
) -> Result<u8, Failure> {
    let Some(interrupts) = interrupts else {
        app.out.say(made, |made| made.id.to_string())?;
        return Ok(0);
    };
    let path = OfCommand {
        workspace: made.workspace,
        command: made.id,
    };
    interrupts.command(client, path);
    if tell {
        note(&format!("command {}", made.id));
    }
    follow(app, client, path, watch)
}

fn targets(client: &Client, path: InWorkspace, command: &Run) -> Result<Targets, Failure> {
    let mut hosts = Vec::new();
    for name in &command.hosts {
        let host = lookup::host(client, path.workspace, name)?;
        // The same one by its name and by its id.
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    Ok(Targets {
        hosts,
        selector: if command.all {
            Some(String::new())
        } else {
            command.selector.clone()
        },
    })
}

/// Says where it will run before it does, and asks when those are many.
fn announce(app: &App, command: &Run, resolved: &ResolvedTargets) -> Result<(), Failure> {
    let total = usize::try_from(resolved.total).unwrap_or(usize::MAX);
    let hosts = if total == 1 { "host" } else { "hosts" };
    if total > FEW {
        note(&format!("{total} {hosts}"));
        return app.confirm_on_terminal(&format!("Run on {total} {hosts}?"));
    }
    if command.hosts.len() == 1 {
        // Named by whoever typed it.
        return Ok(());
    }
    let names: Vec<_> = resolved
        .hosts
        .iter()
        .map(|host| match host.connected {
            true => host.name.clone(),
            false => format!("{} (no link now)", host.name),
        })
        .collect();
    note(&format!("{total} {hosts}: {}", names.join(", ")));
    Ok(())
}

/// Everything but the targets.
fn body(command: &Run) -> Result<CreateCommand, Failure> {
    match (command.argv.is_empty(), &command.script) {
        (true, None) => {
            return Err(Failure::Usage(
                "what shall run? say -- PROGRAM ARGS..., or --script FILE".to_owned(),
            ));
        }
        (false, Some(_)) => {
            return Err(Failure::Usage(
                "a script takes no program and no arguments: what it needs to know goes into --env or --stdin".to_owned(),
            ));
        }
        _ => {}
    }
    let mut source = input::Inputs::default();
    let script = command
        .script
        .as_deref()
        .map(|path| source.text(path, "--script"));
    let stdin = command
        .stdin
        .as_deref()
        .map(|path| source.text(path, "--stdin"));
    let environment: BTreeMap<_, _> = command.environment.iter().cloned().collect();
    let secrets = source.secrets(&command.secrets, |name| std::env::var(name).ok())?;
    if let Some(name) = secrets.keys().find(|name| environment.contains_key(*name)) {
        return Err(Failure::Usage(format!(
            "`{name}` is given by --env and by --secret"
        )));
    }
    Ok(CreateCommand {
        argv: command.argv.clone(),
        script: script.transpose()?,
        interpreter: command.interpreter.clone(),
        reboot_exit_code: command.reboot_on,
        stdin: stdin.transpose()?,
        user: command.user.clone(),
        directory: command.dir.clone(),
        environment,
        secrets,
        limits: command.limits.limits(),
        timers: command.when.timers(),
        fan_out: command.spread.fan_out(),
        ..CreateCommand::default()
    })
}

impl WhenArgs {
    fn timers(&self) -> Timers {
        let base = Timers::default();
        Timers {
            delivery_ms: self.deliver_within.map(millis),
            valid_until: self.valid_for.map(|valid| valid.from(now())),
            start_ms: self.start_within.map_or(base.start_ms, millis),
            run_ms: self.timeout.map_or(base.run_ms, millis),
            grace_ms: self.grace.map_or(base.grace_ms, |grace| {
                u32::try_from(grace.as_millis()).unwrap_or(u32::MAX)
            }),
        }
    }
}

impl SpreadArgs {
    fn fan_out(&self) -> FanOut {
        let base = FanOut::default();
        FanOut {
            concurrency: self.concurrency.unwrap_or(base.concurrency),
            batches: self.batches.clone(),
            stop_after: self.stop_after.clone(),
            priority: self.priority.unwrap_or(base.priority),
        }
    }
}

impl LimitArgs {
    fn limits(&self) -> RunLimits {
        RunLimits {
            memory_bytes: self.memory,
            processes: self.processes,
            cpu_millis: self.cpus,
            open_files: self.open_files,
            nice: self.nice,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
