//! Faults of the gateway, its store and the agent: killed, cut off, full, broken, stopped, misled.
//!
//! Each case runs the real gateway binary, does something to it that no test in its own process
//! could, and compares what it is afterwards with what it had acknowledged. Its result is a row of
//! the fault table (docs/faults.md): what was injected, what users saw, what was lost, and what was
//! measured. A case fails when anything acknowledged is lost, anything is half done, or users saw
//! something else than is promised.
//!
//! * [`api`]: an HTTP client that knows the difference between "not sent" and "nobody knows";
//! * [`ledger`]: writers and the append-only book of what they were told;
//! * [`shim`]: a library put before the C library's, for disks that fail and disks that are slow;
//! * [`mount`]: small and breakable file systems;
//! * [`table`]: what a case found;
//! * [`cases`]: the cases.
//!
//! Like `e2e` this drives programs from the outside, with threads and no async runtime. The one
//! exception is the case of crash images, which needs the store's own disk seam.

pub mod api;
pub mod cases;
pub mod ledger;
pub mod mount;
pub mod shim;

pub mod table;

use e2e::product::Programs;

/// How much is done.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The programs under test.
    pub programs: Programs,
    /// How often, where a case counts rounds; each case has its own default.
    pub rounds: Option<u32>,
    /// The short version, for continuous integration.
    pub short: bool,
}

impl Plan {
    /// Rounds asked for, or `long`, or `short` in the short version.
    pub fn rounds(&self, long: u32, short: u32) -> u32 {
        self.rounds.unwrap_or(if self.short { short } else { long })
    }
}
