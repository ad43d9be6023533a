//! Records of commands.
//!
//! ```text
//! command/CMD              what a list shows; final figures once it is finished
//! command_definition/CMD   what it runs; secrets sealed
//! command_targets/CMD/N    its hosts in order, a thousand in each, never changed
//! run/CMD/HST              what is known of a run: from the moment it is sent
//! ```
//!
//! Targets of a very large command are written before the command that has them: if the
//! gateway is killed in between they stay behind, some kilobytes that nobody refers to. A
//! run without a record waits for its turn.

use std::collections::BTreeMap;

use gateway_core::command::run::Run;
use gateway_store::{Digest, Key, Prefix, Record};
use model::Timestamp;
use model::command::{CommandState, Ending, Priority, RunLimits, RunState};
use model::ids::{CommandId, HostId, WorkspaceId};
use serde::{Deserialize, Serialize};

/// Hosts in one record of targets.
pub const TARGETS_IN_ONE: usize = 1000;

macro_rules! records {
    ($($name:ident $kind:literal;)*) => {$(
        impl Record for $name {
            const KIND: &'static str = $kind;
            const VERSION: u16 = 1;
        }
    )*};
}

records! {
    CommandRecordV1 "command";
    CommandDefinitionRecordV1 "command_definition";
    CommandTargetsRecordV1 "command_targets";
    RunRecordV1 "run";
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandRecordV1 {
    /// Its id.
    pub id: CommandId,
    /// The workspace of its hosts.
    pub workspace: WorkspaceId,
    /// What to call it in a list.
    pub title: String,
    /// How many hosts it has.
    pub targets: u32,
    /// Name of who made it.
    pub created_by: String,
    /// Under which ticket.
    pub ticket: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// No run starts after this.
    pub valid_until: Timestamp,
    /// Whether the end of validity was asked for; otherwise hosts are tried for the
    /// delivery time only.
    pub waits_for_hosts: bool,
    /// The command that it repeats.
    pub retry_of: Option<CommandId>,
    /// Whether it was cancelled as a whole.
    pub cancelled: bool,
    /// Once every run is final.
    pub finished: Option<FinishedV1>,
}

/// How a command came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinishedV1 {
    /// When.
    pub at: Timestamp,
    /// As a whole.
    pub state: CommandState,
    /// How many runs are in which state.
    pub runs: BTreeMap<RunState, u32>,
    /// Runs that did not succeed.
    pub failures: u32,
    /// Why it was stopped before all had their turn.
    pub stopped: Option<String>,
}

/// What a command runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandDefinitionRecordV1 {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Body of the script.
    pub script: Option<String>,
    /// What runs the script.
    pub interpreter: Vec<String>,
    /// Standard input.
    pub stdin: Option<String>,
    /// User to run as.
    pub user: Option<String>,
    /// Working directory.
    pub directory: Option<String>,
    /// Environment variables.
    pub environment: BTreeMap<String, String>,
    /// Names of the secret ones.
    pub secrets: Vec<String>,
    /// Their values, in the same order, as JSON, sealed with the server's key.
    pub sealed_secrets: Option<Vec<u8>>,
    /// Limits of each run.
    pub limits: RunLimits,
    /// As asked, milliseconds.
    pub delivery_ms: Option<u64>,
    /// For a host to start it.
    pub start_ms: u64,
    /// For a process to run; 0 for ever.
    pub run_ms: u64,
    /// Between TERM and KILL.
    pub grace_ms: u32,
    /// Most runs under way; 0 for all.
    pub concurrency: u32,
    /// Sizes of batches.
    pub batches: Vec<String>,
    /// Failures after which nothing more is started.
    pub stop_after: Option<String>,
    /// Whose turn comes first.
    pub priority: Priority,
    /// Exit code that asks for a reboot.
    #[serde(default)]
    pub reboot_exit_code: Option<u8>,
}

/// Hosts of a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTargetsRecordV1 {
    /// In order.
    pub hosts: Vec<HostId>,
}

impl CommandTargetsRecordV1 {
    /// The key of the part with this number.
    pub fn key(command: CommandId, number: usize) -> Key {
        <Self as Record>::key(&[&command.to_string(), &format!("{number:05}")])
            .expect("ids and numbers are never empty and hold no slash")
    }

    /// All parts of a command.
    pub fn prefix_of(command: CommandId) -> Prefix {
        <Self as Record>::prefix(&[&command.to_string()]).expect("an id is never empty")
    }
}

/// A run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecordV1 {
    /// The host.
    pub host: HostId,
    /// Its batch.
    pub batch: u32,
    /// Where it is. `delivered` and `started` are not written: after a restart the host
    /// tells.
    pub state: RunState,
    /// Whether it is to be cancelled.
    pub cancelling: bool,
    /// When its request last left.
    pub sent_at: Option<Timestamp>,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When it became final.
    pub ended_at: Option<Timestamp>,
    /// Exit code.
    pub code: Option<i32>,
    /// Signal.
    pub signal: Option<i32>,
    /// How it was ended.
    pub ending: Option<Ending>,
    /// Why, in words.
    pub reason: Option<String>,
    /// Its output, once it is final.
    pub output: OutputV1,
}

/// Output of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputV1 {
    /// Bytes that arrived of standard output.
    pub stdout_bytes: u64,
    /// Bytes that arrived of standard error.
    pub stderr_bytes: u64,
    /// Bytes of both that were not kept.
    pub dropped_bytes: u64,
    /// The kept log itself, when it is short: see `command::output`.
    #[serde(with = "serde_bytes_vec")]
    pub inline: Vec<u8>,
    /// SHA-256 of the object that holds it, when it is not.
    pub object: Option<[u8; 32]>,
}

impl OutputV1 {
    /// The object that holds the log.
    pub fn object(&self) -> Option<Digest> {
        self.object.map(Digest::from_bytes)
    }
}

impl RunRecordV1 {
    /// The key of a run.
    pub fn key(command: CommandId, host: HostId) -> Key {
        <Self as Record>::key(&[&command.to_string(), &host.to_string()])
            .expect("ids are never empty and hold no slash")
    }

    /// All runs of a command that have a record.
    pub fn prefix_of(command: CommandId) -> Prefix {
        <Self as Record>::prefix(&[&command.to_string()]).expect("an id is never empty")
    }

    /// The record of a run.
    pub fn of(host: HostId, run: &Run, output: OutputV1) -> Self {
        let state = match run.state {
            RunState::Delivered | RunState::Started => RunState::Sending,
            state => state,
        };
        Self {
            host,
            batch: run.batch,
            state,
            cancelling: run.cancelling,
            sent_at: run.sent_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            code: run.code,
            signal: run.signal,
            ending: run.ending,
            reason: run.reason.clone(),
            output,
        }
    }

    /// What is known of the run.
    pub fn run(&self) -> Run {
        Run {
            state: self.state,
            batch: self.batch,
            cancelling: self.cancelling,
            rebooted: false,
            sent_at: self.sent_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            code: self.code,
            signal: self.signal,
            ending: self.ending,
            reason: self.reason.clone(),
        }
    }
}

/// Bytes as bytes, not as a list of numbers.
mod serde_bytes_vec {
    use serde::{Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_reads_back_with_its_output() {
        let host = HostId::new(Timestamp::from_millis(1), [1; 10]);
        let mut run = Run::queued(3);
        run.state = RunState::Exited;
        run.code = Some(-1);
        run.ending = Some(Ending {
            killed: true,
            others: 1,
            left: 0,
        });
        let output = OutputV1 {
            stdout_bytes: 3,
            inline: vec![0, 0xff, 7],
            object: Some([9; 32]),
            ..OutputV1::default()
        };
        let record = RunRecordV1::of(host, &run, output);
        let read = RunRecordV1::decode(&record.encode().unwrap()).unwrap();
        assert_eq!(read, record);
        assert_eq!(read.run(), run);
    }

    #[test]
    fn what_a_host_said_on_the_way_is_not_written() {
        let host = HostId::new(Timestamp::from_millis(1), [1; 10]);
        let mut run = Run::queued(0);
        for state in [RunState::Delivered, RunState::Started] {
            run.state = state;
            let record = RunRecordV1::of(host, &run, OutputV1::default());
            assert_eq!(record.state, RunState::Sending);
        }
    }
}
