//! Following a command: from the events of its runs to what people and programs see.
//!
//! The parts decide and are tested without a gateway or a terminal: [`picture`] knows
//! what of an event is news, [`lines`] and [`escape`] make output fit to be shown,
//! [`verdict`] is the exit code. [`screen`] writes, [`interrupts`] hears Ctrl-C, and
//! [`watch`] is the loop that ties them together.

pub mod escape;
pub mod interrupts;
pub mod lines;
pub mod picture;
pub mod screen;
pub mod verdict;
pub mod watch;

#[cfg(test)]
mod tests {
    //! Commands and runs for the tests of this folder.

    use std::collections::BTreeMap;

    use api::v1::command::{Command, OutputInfo, Run};
    use model::Timestamp;
    use model::command::{CommandState, RunState};
    use model::ids::{CommandId, HostId, WorkspaceId};

    fn at() -> Timestamp {
        Timestamp::from_millis(1_800_000_000_000)
    }

    pub(super) fn host(number: u8) -> HostId {
        HostId::new(at(), [number; 10])
    }

    /// A run in this state; of an exited one the code is 0.
    pub(super) fn run(number: u8, state: RunState) -> Run {
        Run {
            host: host(number),
            name: format!("h{number}"),
            batch: 0,
            state,
            code: (state == RunState::Exited).then_some(0),
            signal: None,
            ending: None,
            reason: None,
            cancelling: false,
            sent_at: None,
            started_at: None,
            ended_at: None,
            output: OutputInfo::default(),
        }
    }

    pub(super) fn command(targets: u32, state: CommandState) -> Command {
        Command {
            id: CommandId::new(at(), [0; 10]),
            workspace: WorkspaceId::new(at(), [0; 10]),
            title: "uptime".to_owned(),
            state,
            runs: BTreeMap::new(),
            targets,
            failures: 0,
            stopped: None,
            retry_of: None,
            created_by: "ada".to_owned(),
            ticket: None,
            created_at: at(),
            valid_until: at(),
            finished_at: None,
        }
    }
}
