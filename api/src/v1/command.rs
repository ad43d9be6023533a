//! Commands: run something on hosts, once each; follow it, cancel it, retry it.
//!
//! The targets of a command are frozen when it is made. [`ResolveCommandTargets`]
//! shows them before, with a digest; a command made with that digest is refused when
//! the selection has changed meanwhile.

use std::collections::BTreeMap;
use std::fmt;

use model::Timestamp;
use model::command::{CommandState, Ending, OutputStream, Priority, RunLimits, RunState};
use model::ids::{CommandId, HostId, WorkspaceId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InWorkspace, OfCommand, OfRun};
use crate::endpoint::{Raw, endpoints};
use crate::page::Page;

endpoints! {
    /// Show which hosts a command would run on.
    resolve_command_targets ResolveCommandTargets: POST "/v1/workspaces/{workspace}/command-targets", needs HostCommandRun, path InWorkspace,
        body Targets, reply 200 ResolvedTargets, problems [Invalid];
    /// Run a command on hosts.
    create_command CreateCommandRecord: POST "/v1/workspaces/{workspace}/commands", needs HostCommandRun, path InWorkspace,
        body CreateCommand, reply 201 Command, problems [Invalid];
    /// List commands, newest first.
    list_commands ListCommands: GET "/v1/workspaces/{workspace}/commands", needs HostCommandList, path InWorkspace, query CommandFilter,
        reply 200 Page<Command>, problems [Invalid];
    /// Show a command.
    get_command GetCommand: GET "/v1/workspaces/{workspace}/commands/{command}", needs HostCommandList, path OfCommand, reply 200 Command;
    /// Show what a command runs.
    get_command_definition GetCommandDefinition: GET "/v1/workspaces/{workspace}/commands/{command}/definition", needs HostCommandList, path OfCommand,
        reply 200 CommandDefinition;
    /// List the runs of a command, by host.
    list_command_runs ListCommandRuns: GET "/v1/workspaces/{workspace}/commands/{command}/runs", needs HostCommandList, path OfCommand, query RunFilter,
        reply 200 Page<Run>, problems [Invalid];
    /// Show the run of a command on one host.
    get_command_run GetCommandRun: GET "/v1/workspaces/{workspace}/commands/{command}/runs/{host}", needs HostCommandList, path OfRun, reply 200 Run;
    /// Read the output of one run, byte for byte.
    get_command_output GetCommandOutput: GET "/v1/workspaces/{workspace}/commands/{command}/runs/{host}/output", needs HostCommandList, path OfRun,
        query OutputRange, reply 200 as "application/octet-stream" Raw, problems [Invalid];
    /// Follow a command: states of runs and their output, from the beginning to the end.
    follow_command FollowCommand: GET "/v1/workspaces/{workspace}/commands/{command}/events", needs HostCommandList, path OfCommand, query FollowFilter,
        reply 200 as "text/event-stream" Raw, problems [Invalid];
    /// Cancel a command: what waits never starts, what runs is ended.
    cancel_command CancelCommandRuns: POST "/v1/workspaces/{workspace}/commands/{command}/cancel", needs HostCommandCancel, path OfCommand,
        body CancelCommand, reply 200 Command;
    /// Run a command again on the hosts where it failed or that it did not reach.
    retry_command RetryCommandRuns: POST "/v1/workspaces/{workspace}/commands/{command}/retry", needs HostCommandRun, path OfCommand,
        body RetryCommand, reply 201 Command, problems [Invalid];
}

/// Which hosts. Either a list or a selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// These hosts, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub hosts: Vec<HostId>,
    /// The managed hosts whose labels match: `role=web,env!=dev`. An empty selector
    /// matches every managed host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub selector: Option<String>,
}

/// The hosts that targets mean at this moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResolvedTargets {
    /// How many.
    pub total: u32,
    /// The first 1000 of them.
    pub hosts: Vec<TargetHost>,
    /// Digest of all of them: see [`CreateCommand::targets_digest`].
    pub digest: String,
}

/// A host among the targets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetHost {
    /// Which.
    pub host: HostId,
    /// What it is called.
    pub name: String,
    /// Whether it has a link at this moment.
    pub connected: bool,
}

/// A command to be run.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateCommand {
    /// Where to run it. None at all is an error.
    pub targets: Targets,
    /// Insist that the targets are those with this digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub targets_digest: Option<String>,
    /// Program and arguments, passed as they are. Either this or `script`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub argv: Vec<String>,
    /// Body of a script, at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub script: Option<String>,
    /// What runs the script: program and first arguments. When absent, what its first
    /// line names after `#!`, else `/bin/sh`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub interpreter: Vec<String>,
    /// Standard input, UTF-8, at most 256 KiB. Nothing when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub stdin: Option<String>,
    /// User to run as; root when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub user: Option<String>,
    /// Working directory; the user's home when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 4096))]
    pub directory: Option<String>,
    /// Environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Environment variables whose values are kept sealed, shown to nobody and masked
    /// in the output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, SecretValue>,
    /// Limits of each run.
    #[serde(default)]
    pub limits: RunLimits,
    /// When to give up.
    #[serde(default)]
    pub timers: Timers,
    /// How it spreads over the hosts.
    #[serde(default)]
    pub fan_out: FanOut,
    /// Exit code by which the program asks for a reboot of its host. After the boot it
    /// is started again, with `LOOPBACK_REBOOTS` counting, at most eight times; the run
    /// ends with any other exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub reboot_exit_code: Option<u8>,
}

/// A secret on its way in; it is never given out.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct SecretValue(#[schemars(length(max = 65_536))] pub String);

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue")
    }
}

/// When to give up. Each run has its own clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timers {
    /// How long to try to reach a host once it is its turn; 30 s when absent, and until
    /// `valid_until` when that is given. Then the run expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1000, max = 2_592_000_000_i64))]
    pub delivery_ms: Option<u64>,
    /// No run starts after this, whenever its host comes back; at most 30 days ahead.
    /// A day after the command is made when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
    /// How long a host that has the run may take to start it.
    #[schemars(range(min = 1000, max = 3_600_000))]
    pub start_ms: u64,
    /// How long a process may run; 0 for as long as it likes.
    #[schemars(range(min = 0, max = 2_592_000_000_i64))]
    pub run_ms: u64,
    /// How long a process that is told to end (TERM) has before it is killed.
    #[schemars(range(min = 0, max = 600_000))]
    pub grace_ms: u32,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            delivery_ms: None,
            valid_until: None,
            start_ms: 60_000,
            run_ms: 3_600_000,
            grace_ms: 10_000,
        }
    }
}

/// How a command spreads over its hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FanOut {
    /// Most runs under way at a time; 0 for as many as there are.
    #[schemars(range(min = 0, max = 100_000))]
    pub concurrency: u32,
    /// Sizes of batches, the canaries first: `["1", "10%", "100%"]`. Each begins when
    /// the one before is final; the last size repeats. All at once when absent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub batches: Vec<String>,
    /// Start no more runs after this many that did not succeed: a number (`3`) or a
    /// share of the targets (`5%`).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub stop_after: Option<String>,
    /// Whose turn comes first.
    pub priority: Priority,
}

impl Default for FanOut {
    fn default() -> Self {
        Self {
            concurrency: 0,
            batches: Vec::new(),
            stop_after: None,
            priority: Priority::Normal,
        }
    }
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    /// Its id.
    pub id: CommandId,
    /// The workspace of its hosts.
    pub workspace: WorkspaceId,
    /// The program's first words, or the script's first line, cut to 120 characters.
    pub title: String,
    /// Where it is as a whole.
    pub state: CommandState,
    /// How many runs are in which state; states without runs are left out.
    pub runs: BTreeMap<RunState, u32>,
    /// How many hosts it has.
    pub targets: u32,
    /// Runs that are final and did not end with exit code 0.
    pub failures: u32,
    /// Why it starts no more runs, if it was stopped before all had their turn.
    pub stopped: Option<String>,
    /// The command that this one repeats.
    pub retry_of: Option<CommandId>,
    /// Name of who made it.
    pub created_by: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// No run starts after this.
    pub valid_until: Timestamp,
    /// When the last run was final.
    pub finished_at: Option<Timestamp>,
}

/// What a command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CommandDefinition {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Body of the script.
    pub script: Option<String>,
    /// What runs the script.
    pub interpreter: Vec<String>,
    /// Exit code that asks for a reboot.
    pub reboot_exit_code: Option<u8>,
    /// User to run as.
    pub user: Option<String>,
    /// Working directory.
    pub directory: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Names of the secret ones.
    pub secrets: Vec<String>,
    /// Limits of each run.
    pub limits: RunLimits,
    /// When to give up.
    pub timers: Timers,
    /// How it spreads over the hosts.
    pub fan_out: FanOut,
}

/// A run: one command on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Run {
    /// Which host.
    pub host: HostId,
    /// What the host is called.
    pub name: String,
    /// Which batch it belongs to, from 0.
    pub batch: u32,
    /// Where it is.
    pub state: RunState,
    /// Exit code of the process.
    pub code: Option<i32>,
    /// Signal that ended the process.
    pub signal: Option<i32>,
    /// How the process was ended, if it had to be.
    pub ending: Option<Ending>,
    /// Why it is refused, not started, lost...
    pub reason: Option<String>,
    /// Whether somebody has asked to cancel it.
    pub cancelling: bool,
    /// When the request last left the gateway.
    pub sent_at: Option<Timestamp>,
    /// When the process started, by the host's account.
    pub started_at: Option<Timestamp>,
    /// When the run became final: the process's end, by the host's account, or the
    /// decision.
    pub ended_at: Option<Timestamp>,
    /// Its output.
    pub output: OutputInfo,
}

/// What is known of a run's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OutputInfo {
    /// Bytes that the process wrote to standard output, as far as they have arrived.
    pub stdout_bytes: u64,
    /// The same for standard error.
    pub stderr_bytes: u64,
    /// Bytes of both that were not kept: between head and tail.
    pub dropped_bytes: u64,
    /// Whether the kept output has been deleted, its time being over.
    pub deleted: bool,
}

/// Which commands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandFilter {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<CommandState>,
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
}

/// Which runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunFilter {
    /// In this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<RunState>,
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
}

/// Which part of a run's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutputRange {
    /// One stream; both as they came when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<OutputStream>,
    /// First byte wanted, counted in what the query selects; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
    /// Go on until the run is final.
    #[serde(default)]
    pub follow: bool,
}

/// What to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FollowFilter {
    /// Leave output out and tell states only.
    #[serde(default)]
    pub without_output: bool,
}

/// One event of a followed command; the name of each is its `event` line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum CommandEvent {
    /// A run as it is: once for each at the beginning, then whenever its state
    /// changes. When it is final, all its output has been told.
    Run {
        /// The run.
        run: Box<Run>,
    },
    /// A piece of a run's output, in order.
    Output {
        /// Of which host.
        host: HostId,
        /// Which stream.
        stream: OutputStream,
        /// The bytes, base64.
        data: String,
    },
    /// Output of a run that was not kept.
    Gap {
        /// Of which host.
        host: HostId,
        /// Bytes that are gone.
        bytes: u64,
    },
    /// The command as a whole: at the beginning and when it is final, which is the
    /// last event.
    Command {
        /// The command.
        command: Box<Command>,
    },
}

impl CommandEvent {
    /// The event's name in the stream.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run { .. } => "run",
            Self::Output { .. } => "output",
            Self::Gap { .. } => "gap",
            Self::Command { .. } => "command",
        }
    }
}

/// What to cancel.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelCommand {
    /// Only the runs on these hosts; all when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10_000))]
    pub hosts: Vec<HostId>,
}

/// Which runs to repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryWhich {
    /// Every run that is final and did not end with exit code 0.
    Failed,
    /// Those of them that certainly never ran.
    NotReached,
}

/// What to repeat.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryCommand {
    /// Which runs.
    pub which: RetryWhich,
    /// A new end of validity; as long as the command's own was when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_until: Option<Timestamp>,
}
