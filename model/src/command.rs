//! What can be said of a command and of its run on one host.
//!
//! A *command* is durable and names its hosts once and for all; a *run* is that
//! command on one of them. A run is started at most once, whatever crashes: the
//! gateway may ask again as often as it likes, the host's journal remembers.
//!
//! ```text
//! queued ─► sending ─► delivered ─► started ─► exited | signalled | timed_out
//!   │          │           │           │        cancelled | lost
//!   │          └───────────┴─► refused | not_started | expired | cancelled
//!   └─► expired | cancelled | refused                (never reached the host)
//! ```
//!
//! `sending` is a state of knowledge: the request left the gateway, and whether the
//! host has it shows when the host answers, after a lost link too. Until then nothing
//! final is said of the run. What a final state says is what happened: `exited` and
//! `signalled` are how the process ended by itself; `timed_out` and `cancelled` say
//! how it was ended; `lost` says that it may have run and nobody can tell how it
//! ended.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use crate::words::NoSuchWord;

words! {
    /// Where a run is. See the head of this module.
    RunState {
        /// Waits for its turn, or for its host.
        Queued "queued",
        /// The request has left the gateway; the host has not answered yet.
        Sending "sending",
        /// In the host's journal; not started yet.
        Delivered "delivered",
        /// The process runs, as far as is known.
        Started "started",
        /// The process ended with an exit code.
        Exited "exited",
        /// The process was ended by a signal that nobody here sent.
        Signalled "signalled",
        /// The host tried and could not start the process: no such program, say.
        NotStarted "not_started",
        /// The process ran longer than allowed and was ended.
        TimedOut "timed_out",
        /// Not started in time; it never will be.
        Expired "expired",
        /// Cancelled, before the start or while it ran.
        Cancelled "cancelled",
        /// The host or the gateway declined: see the reason. Never started.
        Refused "refused",
        /// It may have run; how it ended cannot be known any more.
        Lost "lost",
    }
}

impl RunState {
    /// Whether nothing will change any more.
    pub fn is_final(self) -> bool {
        match self {
            Self::Queued | Self::Sending | Self::Delivered | Self::Started => false,
            Self::Exited
            | Self::Signalled
            | Self::NotStarted
            | Self::TimedOut
            | Self::Expired
            | Self::Cancelled
            | Self::Refused
            | Self::Lost => true,
        }
    }

    /// Whether the host certainly never started the process.
    pub fn never_ran(self) -> bool {
        match self {
            Self::Queued | Self::NotStarted | Self::Expired | Self::Refused => true,
            // Cancelled runs may have run: their ending tells.
            Self::Cancelled
            | Self::Sending
            | Self::Delivered
            | Self::Started
            | Self::Exited
            | Self::Signalled
            | Self::TimedOut
            | Self::Lost => false,
        }
    }
}

words! {
    /// Where a command is as a whole.
    CommandState {
        /// Some run is not final.
        Running "running",
        /// Every run ended with exit code 0.
        Succeeded "succeeded",
        /// Every run is final, and not all with exit code 0.
        Failed "failed",
        /// An operator cancelled it, and every run is final.
        Cancelled "cancelled",
    }
}

words! {
    /// Whose turn comes first when more runs wait than may be under way.
    Priority {
        /// After the others.
        Low "low",
        /// As usual.
        Normal "normal",
        /// Before the others.
        High "high",
    }
}

words! {
    /// One of the two streams of output.
    OutputStream {
        /// Standard output.
        Stdout "stdout",
        /// Standard error.
        Stderr "stderr",
    }
}

/// How a process that had to be ended came to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ending {
    /// Whether TERM and the grace were not enough, so that it was killed.
    pub killed: bool,
    /// Processes of the run that were ended beside the first: children, also those
    /// in sessions of their own.
    pub others: u32,
    /// Processes of the run that were alive after all of it; 0 is the proof that the
    /// tree is empty.
    pub left: u32,
}

/// What is allowed to a run beyond what the host's system allows anyway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunLimits {
    /// Most memory of the whole tree, in bytes. Needs control groups with the memory
    /// controller; a host without refuses the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1_048_576))]
    pub memory_bytes: Option<u64>,
    /// Most processes of the tree. Needs control groups as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub processes: Option<u32>,
    /// Most processor time per second of time, in thousandths of one processor.
    /// Needs control groups as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10))]
    pub cpu_millis: Option<u32>,
    /// Most open files of each process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 16))]
    pub open_files: Option<u64>,
    /// Nice value, -20 (first) to 19 (last); 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -20, max = 19))]
    pub nice: Option<i8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_what_json_says_and_parses_back() {
        for state in RunState::ALL {
            assert_eq!(state.as_str().parse::<RunState>().unwrap(), *state);
            assert_eq!(
                serde_json::to_string(state).unwrap(),
                format!("\"{state}\"")
            );
        }
        for state in CommandState::ALL {
            assert_eq!(
                serde_json::to_string(state).unwrap(),
                format!("\"{state}\"")
            );
        }
    }

    #[test]
    fn what_never_ran_is_final_or_has_not_left_the_gateway() {
        for state in RunState::ALL {
            assert!(!state.never_ran() || state.is_final() || *state == RunState::Queued);
        }
    }
}
