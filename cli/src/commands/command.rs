//! `loopback command`.

mod view;

use std::io::{self, Read as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::v1::command::{
    CancelCommand, CancelCommandRuns, Command as Record, CommandDefinition, CommandFilter,
    GetCommand, GetCommandDefinition, GetCommandOutput, GetCommandRun, ListCommandRuns,
    ListCommands, OutputRange, RetryCommand, RetryCommandRuns, RetryWhich, Run, RunFilter,
};
use api::v1::{InWorkspace, OfCommand, OfRun};
use api::{Endpoint as _, Page};
use clap::{ArgGroup, Args, Subcommand};
use model::command::{CommandState, OutputStream, RunState};
use model::ids::CommandId;
use serde::Serialize;

use super::run::{WatchArgs, exit_code_help, watch};
use super::{LimitArg, RecentArg};
use crate::app::{App, WorkspaceArg, now};
use crate::client::{Client, ClientError};
use crate::failure::Failure;
use crate::follow::interrupts::Interrupts;
use crate::follow::screen::{Screen, Style};
use crate::follow::watch::{Watch, follow};
use crate::lookup;
use crate::output::{Format, note};
use crate::parse::{When, when, word};

/// Between two looks at output that goes on.
const AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List commands, newest first
    #[command(visible_alias = "ls")]
    List {
        /// In this state: running, succeeded, failed, cancelled
        #[arg(long, short, value_parser = word::<CommandState>)]
        state: Option<CommandState>,
        #[command(flatten)]
        recent: RecentArg,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Show a command, what it runs, and how it went on each host
    Show(Runs),
    /// List the runs of a command, by host
    Runs(Runs),
    /// Show what a command runs; the values of its secrets are shown to nobody
    Definition(OneCommand),
    /// Cancel a command: what waits never starts, what runs is ended
    Cancel {
        #[command(flatten)]
        command: OneCommand,
        /// Only on the host with this name or id; repeatable
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<String>,
    },
    /// Run a command again where it did not succeed, and follow it
    #[command(after_help = exit_code_help())]
    Retry(Retry),
    /// Print what a command wrote on one host
    Output(OutputArgs),
    /// Follow a command from its beginning to its end; Ctrl-C leaves and cancels nothing
    #[command(after_help = exit_code_help())]
    Follow {
        #[command(flatten)]
        command: OneCommand,
        #[command(flatten)]
        watch: WatchArgs,
    },
}

#[derive(Debug, Args)]
pub(super) struct OneCommand {
    /// Id of the command
    command: CommandId,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(super) struct Runs {
    #[command(flatten)]
    command: OneCommand,
    /// Only runs in this state: queued, sending, delivered, started, exited, signalled, not_started, timed_out, expired, cancelled, refused, lost
    #[arg(long, short, value_parser = word::<RunState>)]
    state: Option<RunState>,
    #[command(flatten)]
    limit: LimitArg,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["failed", "not_reached"]))]
pub(super) struct Retry {
    #[command(flatten)]
    command: OneCommand,
    /// On every host where it did not end with exit code 0
    #[arg(long)]
    failed: bool,
    /// On the hosts where it was certainly never started
    #[arg(long)]
    not_reached: bool,
    /// Start nothing after this: 2h, or a time [default: as long as the command's own]
    #[arg(long, visible_alias = "valid-until", value_name = "WHEN", value_parser = when)]
    valid_for: Option<When>,
    /// Print the new command's id and leave
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    watch: WatchArgs,
}

#[derive(Debug, Args)]
pub(super) struct OutputArgs {
    /// Id of the command
    command: CommandId,
    /// Name or id of the host
    host: String,
    /// One of the two streams, stdout or stderr [default: both as they came]
    #[arg(long, value_parser = word::<OutputStream>)]
    stream: Option<OutputStream>,
    /// Go on until the run has ended
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    watch: WatchArgs,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<u8, Failure> {
    match command {
        Command::List {
            state,
            recent,
            workspace,
        } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let filter = CommandFilter {
                state,
                ..CommandFilter::default()
            };
            let path = InWorkspace { workspace };
            let page = client.list::<ListCommands, _>(&path, &filter, recent.at_most())?;
            app.out
                .write(&page, |page, now| view::table(&page.items, now))?;
        }
        Command::Show(which) => show(app, &which)?,
        Command::Runs(which) => {
            let (client, path) = of_command(app, &which.command)?;
            let page = runs(&client, path, &which)?;
            app.out
                .write(&page, |page, now| view::runs(&page.items, now))?;
        }
        Command::Definition(which) => {
            let (client, path) = of_command(app, &which)?;
            let definition = client.fetch::<GetCommandDefinition>(&path)?;
            app.out.write(&definition, |definition, now| {
                let mut table = crate::output::Table::of_one();
                view::definition(&mut table, definition, now);
                table
            })?;
        }
        Command::Cancel { command, hosts } => {
            let (client, path) = of_command(app, &command)?;
            let hosts = hosts
                .iter()
                .map(|host| lookup::host(&client, path.workspace, host))
                .collect::<Result<_, _>>()?;
            let record = client.send::<CancelCommandRuns>(&path, &CancelCommand { hosts })?;
            app.out.write(&record, view::properties)?;
        }
        Command::Retry(which) => return retry(app, &which),
        Command::Output(which) => output(app, &which)?,
        Command::Follow {
            command,
            watch: options,
        } => {
            let (client, path) = of_command(app, &command)?;
            // A mistaken id is told at once, before anything is waited for.
            client.fetch::<GetCommand>(&path)?;
            return follow(app, &Arc::new(client), path, options.into());
        }
    }
    Ok(0)
}

fn of_command(app: &App, which: &OneCommand) -> Result<(Client, OfCommand), Failure> {
    let (client, workspace) = app.in_workspace(&which.workspace)?;
    let command = which.command;
    Ok((client, OfCommand { workspace, command }))
}

fn runs(client: &Client, path: OfCommand, which: &Runs) -> Result<Page<Run>, Failure> {
    let filter = RunFilter {
        state: which.state,
        ..RunFilter::default()
    };
    Ok(client.list::<ListCommandRuns, _>(&path, &filter, which.limit.at_most())?)
}

/// A command with everything about it.
#[derive(Serialize)]
struct Whole {
    command: Record,
    definition: CommandDefinition,
    runs: Page<Run>,
}

fn show(app: &mut App, which: &Runs) -> Result<(), Failure> {
    let (client, path) = of_command(app, &which.command)?;
    let whole = Whole {
        command: client.fetch::<GetCommand>(&path)?,
        definition: client.fetch::<GetCommandDefinition>(&path)?,
        runs: runs(&client, path, which)?,
    };
    if app.out.format() == Format::Json {
        return app.out.json(&whole);
    }
    app.out.write(&whole, |whole, now| {
        let mut table = view::properties(&whole.command, now);
        view::definition(&mut table, &whole.definition, now);
        table
    })?;
    app.out.line("")?;
    app.out
        .write(&whole.runs, |page, now| view::runs(&page.items, now))
}

fn retry(app: &mut App, which: &Retry) -> Result<u8, Failure> {
    let (client, path) = of_command(app, &which.command)?;
    let client = Arc::new(client);
    let interrupts = if which.detach {
        None
    } else {
        Some(Interrupts::listen()?)
    };
    let body = RetryCommand {
        which: if which.failed {
            RetryWhich::Failed
        } else {
            RetryWhich::NotReached
        },
        valid_until: which.valid_for.map(|valid| valid.from(now())),
    };
    let made = client.send::<RetryCommandRuns>(&path, &body)?;
    watch(app, &client, &made, interrupts, which.watch.into(), true)
}

/// Bytes as they are, except on a terminal, which they must not drive.
///
/// A stream that ends has not told whether the run has, too: the gateway may have been
/// stopped. Only what was opened when the run was final is known to be all.
fn output(app: &mut App, which: &OutputArgs) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&which.workspace, &which.host)?;
    let path = OfRun {
        workspace,
        command: which.command,
        host,
    };
    let watch = Watch::from(which.watch);
    let style = Style::of_process(false, watch.raw);
    let mut screen = Screen::new(style, io::stdout(), io::stderr());
    let mut range = OutputRange {
        stream: which.stream,
        from: None,
        follow: which.follow,
    };
    let mut heard = Instant::now();
    let mut worked = false;
    let run = loop {
        match piece(&client, path, &mut range, &mut screen) {
            Ok((run, whole)) => {
                (heard, worked) = (Instant::now(), true);
                if whole && (run.state.is_final() || !which.follow) {
                    break run;
                }
            }
            Err(Failure::Client(error)) if worked && which.follow && may_pass(&error) => {
                if heard.elapsed() >= watch.reconnect_for {
                    return Err(error.into());
                }
                screen.remark(&format!("interrupted ({})", model::error_chain(&error)));
            }
            Err(failure) => return Err(failure),
        }
        std::thread::sleep(AGAIN);
    };
    screen.end_lines(host);
    screen.write()?;
    if run.output.deleted {
        note("the output has been deleted, its time being over");
    } else if run.output.dropped_bytes > 0 {
        note(&format!(
            "{} bytes were not kept, between the head and the tail of the output",
            run.output.dropped_bytes
        ));
    }
    Ok(())
}

fn may_pass(error: &ClientError) -> bool {
    match error {
        ClientError::Cut { .. } | ClientError::Lost { .. } => true,
        ClientError::Connect { .. } => !error.is_distrust(),
        ClientError::Problem(problem) => matches!(problem.status, 429 | 500..=599),
        _ => false,
    }
}

/// Prints what there is from where `range` begins, moves it on, and says how the run
/// was before and whether the stream came to its end.
fn piece(
    client: &Client,
    path: OfRun,
    range: &mut OutputRange,
    screen: &mut Screen<'_>,
) -> Result<(Run, bool), Failure> {
    let run = client.fetch::<GetCommandRun>(&path)?;
    let mut source = client.stream::<GetCommandOutput>(&path, range)?;
    let mut piece = vec![0; 64 << 10];
    loop {
        let count = match source.read(&mut piece) {
            Ok(0) => return Ok((run, true)),
            Ok(count) => count,
            // A program that says nothing for long looks the same as a lost
            // connection: both are opened again.
            Err(_) if range.follow => return Ok((run, false)),
            Err(source) => {
                let url = GetCommandOutput::PATH.to_owned();
                return Err(ClientError::Cut { url, source }.into());
            }
        };
        let bytes = &piece[..count];
        screen.output(path.host, OutputStream::Stdout, bytes, Instant::now());
        screen.write()?;
        range.from = Some(range.from.unwrap_or(0) + count as u64);
    }
}
