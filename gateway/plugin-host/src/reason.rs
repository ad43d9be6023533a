//! Why a call did not answer.
//!
//! The list is closed: a gateway decides by it, counts by it and shows its code to operators, so
//! whatever ends a call is given one of these names here, in one place. Whose fault it is follows
//! from the name: only what a plugin itself did counts towards its quarantine.

use std::fmt;
use std::time::Duration;

use crate::ports::{ErrorKind, GuestError};

/// Why a call did not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The plugin answered with an error of its own.
    #[error("the plugin answered: {0}")]
    Guest(GuestError),
    /// It did what no program may: a panic, a division by zero, an access out of bounds.
    #[error("the plugin trapped: {0}")]
    Trap(String),
    /// It ended its own process.
    #[error("the plugin exited with status {0}")]
    Exited(i32),
    /// Calls nested too deeply.
    #[error("the plugin used up its stack")]
    Stack,
    /// No answer in time.
    #[error("no answer within {} ms", limit.as_millis())]
    WallTime {
        /// How long it had.
        limit: Duration,
    },
    /// Computed for too long.
    #[error("the plugin computed for more than {} ms", limit.as_millis())]
    CpuTime {
        /// How long it had.
        limit: Duration,
    },
    /// Wanted more memory than it may have.
    #[error("the plugin wanted more than {limit} bytes of memory")]
    Memory {
        /// Of all memories together.
        limit: u64,
    },
    /// Wanted a larger table than it may have.
    #[error("the plugin wanted more than {limit} table elements")]
    Table {
        /// Of all tables together.
        limit: u64,
    },
    /// Consists of too many instances, memories or tables.
    #[error("the plugin consists of too many instances, memories or tables")]
    Instances,
    /// Held too many handles at once.
    #[error("the plugin held too many handles")]
    Handles,
    /// Called the gateway too often.
    #[error("the plugin made more than {limit} calls into the gateway")]
    HostCalls {
        /// How many it had.
        limit: u64,
    },
    /// Handed too much to one call into the gateway.
    #[error("the plugin passed too much to one call into the gateway")]
    HostData,
    /// Answered with too much.
    #[error("the plugin answered with more than {limit} bytes")]
    ReturnSize {
        /// How many it had.
        limit: u64,
    },
    /// Others were first.
    #[error("{scope} has as many calls going on as it may")]
    Saturated {
        /// Who.
        scope: Scope,
    },
    /// It failed so often that it is left alone for a while.
    #[error("the plugin failed repeatedly and is left alone for {} ms", retry_after.as_millis())]
    BreakerOpen {
        /// For how long.
        retry_after: Duration,
    },
    /// The plugin does not hold to the contract.
    #[error("the plugin does not hold to the contract: {0}")]
    WrongContract(String),
    /// Asked for what this kind of plugin does not do.
    #[error("a plugin of this kind does not do that")]
    WrongKind,
    /// Not granted for the workspace.
    #[error("the plugin is not granted for this workspace")]
    NotGranted,
    /// Who asked did not wait.
    #[error("the call was cancelled")]
    Cancelled,
    /// A fault of the host.
    #[error("a fault of the host: {0}")]
    Host(String),
}

/// Whose places are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The plugin's.
    Plugin,
    /// Those of all plugins together.
    Platform,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plugin => "the plugin",
            Self::Platform => "the plugin host",
        })
    }
}

/// All codes, as counters are labelled.
pub const CODES: [&str; 20] = [
    "guest_error",
    "trap",
    "exited",
    "stack",
    "wall_time",
    "cpu_time",
    "memory",
    "table",
    "instances",
    "handles",
    "host_calls",
    "host_data",
    "return_size",
    "saturated",
    "breaker_open",
    "wrong_contract",
    "wrong_kind",
    "not_granted",
    "cancelled",
    "host",
];

impl Reason {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        CODES[self.index()]
    }

    /// Where it stands in [`CODES`].
    pub(crate) fn index(&self) -> usize {
        match self {
            Self::Guest(_) => 0,
            Self::Trap(_) => 1,
            Self::Exited(_) => 2,
            Self::Stack => 3,
            Self::WallTime { .. } => 4,
            Self::CpuTime { .. } => 5,
            Self::Memory { .. } => 6,
            Self::Table { .. } => 7,
            Self::Instances => 8,
            Self::Handles => 9,
            Self::HostCalls { .. } => 10,
            Self::HostData => 11,
            Self::ReturnSize { .. } => 12,
            Self::Saturated { .. } => 13,
            Self::BreakerOpen { .. } => 14,
            Self::WrongContract(_) => 15,
            Self::WrongKind => 16,
            Self::NotGranted => 17,
            Self::Cancelled => 18,
            Self::Host(_) => 19,
        }
    }

    /// What it says about the plugin.
    pub fn blame(&self) -> Blame {
        match self {
            Self::Trap(_)
            | Self::Exited(_)
            | Self::Stack
            | Self::CpuTime { .. }
            | Self::Memory { .. }
            | Self::Table { .. }
            | Self::Instances
            | Self::Handles
            | Self::HostCalls { .. }
            | Self::HostData
            | Self::ReturnSize { .. }
            | Self::WrongContract(_) => Blame::Plugin,
            Self::Guest(error) => match error.kind {
                ErrorKind::Internal | ErrorKind::Other => Blame::Plugin,
                // It works, and says what is the matter.
                ErrorKind::Invalid
                | ErrorKind::Auth
                | ErrorKind::Forbidden
                | ErrorKind::NotFound
                | ErrorKind::Unsupported
                | ErrorKind::Conflict
                | ErrorKind::Busy
                | ErrorKind::Throttled
                | ErrorKind::Unreachable
                | ErrorKind::Timeout
                | ErrorKind::Upstream
                | ErrorKind::Denied
                | ErrorKind::Cancelled => Blame::Nobody,
            },
            // It may have waited for a server that does not answer: not to be asked at once
            // again, and no fault of its own.
            Self::WallTime { .. } => Blame::Surroundings,
            Self::Saturated { .. }
            | Self::BreakerOpen { .. }
            | Self::WrongKind
            | Self::NotGranted
            | Self::Cancelled
            | Self::Host(_) => Blame::Nobody,
        }
    }
}

/// What a failure says about the plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Its own fault: counts towards quarantine and opens its breaker.
    Plugin,
    /// Perhaps not its own: opens its breaker.
    Surroundings,
    /// Nothing.
    Nobody,
}

/// A call that did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
pub struct CallError {
    /// Why.
    pub reason: Reason,
    /// `call_…`, in logs, audit and traces.
    pub call: String,
    /// How long it took.
    pub took: Duration,
    /// How many calls in a row ended by the plugin's own fault, this one included.
    pub faults_in_a_row: u32,
    /// There have been so many of them that the plugin should not be called again before a person
    /// has looked at it. The host does not act on it: what is installed is the caller's matter.
    pub quarantine: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_words() {
        let mut codes = CODES.to_vec();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), CODES.len());
        assert!(
            CODES
                .iter()
                .all(|code| code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
        );
    }

    #[test]
    fn a_plugin_that_reports_a_dead_server_is_not_to_blame() {
        let says = |kind| Reason::Guest(GuestError::new(kind, "x", "y")).blame();
        assert_eq!(says(ErrorKind::Unreachable), Blame::Nobody);
        assert_eq!(says(ErrorKind::Internal), Blame::Plugin);
    }
}
