//! What the journal of a run says, and what follows from it.
//!
//! A run has a journal of its own, which only grows:
//!
//! ```text
//! (none) ──► accepted ──► spawned ──► ended
//!    │           └──────────────────► ended     cancelled, expired, not started
//!    └──► never                                 it shall not start any more
//! ```
//!
//! A program may ask for a reboot and be started again after it: its journal then has
//! another `accepted`, `spawned`, and so on for each time, and what is said here holds
//! for each of them. What is between two of them is `reboots`.
//!
//! That it was `accepted` is on the disk before anything is started; `spawned` is written by the
//! process that starts the program, just before it does, while it holds the journal's
//! lock, which it keeps until it ends. What is written survives the death of any
//! process, and a loss of power once it was synced; `spawned` is not synced, so after
//! another boot its absence proves nothing.
//!
//! That is why a run starts at most once: it is started only if nobody holds the lock,
//! nothing is spawned, and this boot is the one in which it was accepted; and whoever
//! starts it takes the lock first and looks again.

use model::Timestamp;

/// A journal, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Journal {
    /// It shall never start.
    pub never: bool,
    /// It was accepted, in this boot.
    pub accepted: Option<Accepted>,
    /// A process was about to be started.
    pub spawned: bool,
    /// It has ended, and the journal says how.
    pub ended: bool,
    /// It asked for a reboot before this; what stands above is about what came after.
    pub reboot: Option<Reboot>,
}

/// The latest reboot that a run asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reboot {
    /// How many of its reboots that was, from 1.
    pub count: u32,
    /// The boot in which it asked.
    pub boot_id: String,
}

/// A run that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The kernel's id of the boot.
    pub boot_id: String,
    /// It was not to start at or after this.
    pub start_before: Timestamp,
}

/// What the gateway asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To run it, unless it is too late.
    Run {
        /// Not to be started at or after this.
        start_before: Timestamp,
    },
    /// How it went, and not to start it any more.
    Settle {
        /// Whether to end it if it runs.
        cancel: bool,
    },
}

/// What is so at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The gateway's time, as well as it is known here.
    pub time: Timestamp,
    /// The kernel's id of this boot.
    pub boot_id: &'a str,
    /// Whether a process holds the journal's lock: it starts the program, or watches it.
    pub locked: bool,
}

/// What to do about a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Write that it is accepted, then start it.
    AcceptAndStart,
    /// It is accepted, and nobody has started it: start it.
    Start,
    /// Its process is watched: tell how it goes, and end it if `cancel`.
    Attend {
        /// Whether to end it.
        cancel: bool,
    },
    /// It has ended: tell how.
    Tell,
    /// Say that the reboot it asked for is done, and that it can be started again.
    Rebooted,
    /// Write that it was cancelled before it was started, and tell so.
    EndCancelled,
    /// Write that it expired before it was started, and tell so.
    EndExpired,
    /// Write that nobody can tell how it ended, and tell so.
    EndLost(Lost),
    /// Write that it shall never start, and say so.
    Never,
    /// Say that it came too late. Nothing is known of it, and nothing needs to be.
    TooLate,
}

/// Why nobody can tell how a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The host stopped while it ran, or may have run.
    Rebooted,
    /// The process that watched it was killed.
    WatcherKilled,
}

/// Decides about a run that is asked for, or after.
pub fn decide(journal: &Journal, asked: Asked, now: Now<'_>) -> Verdict {
    if journal.ended {
        return Verdict::Tell;
    }
    if journal.never {
        return Verdict::Never;
    }
    let Some(accepted) = &journal.accepted else {
        if let Some(reboot) = &journal.reboot {
            return after_reboot(reboot, asked, now);
        }
        return match asked {
            Asked::Run { start_before } if now.time < start_before => Verdict::AcceptAndStart,
            Asked::Run { .. } => Verdict::TooLate,
            Asked::Settle { .. } => Verdict::Never,
        };
    };
    let cancel = matches!(asked, Asked::Settle { cancel: true });
    if now.locked {
        return Verdict::Attend { cancel };
    }
    if accepted.boot_id != now.boot_id {
        return Verdict::EndLost(Lost::Rebooted);
    }
    if journal.spawned {
        return Verdict::EndLost(Lost::WatcherKilled);
    }
    match asked {
        Asked::Run { start_before } if now.time < start_before.max(accepted.start_before) => {
            Verdict::Start
        }
        Asked::Settle { cancel: true } => Verdict::EndCancelled,
        Asked::Run { .. } | Asked::Settle { cancel: false } => Verdict::EndExpired,
    }
}

/// About a run that has asked for a reboot and was not accepted since.
fn after_reboot(reboot: &Reboot, asked: Asked, now: Now<'_>) -> Verdict {
    let cancel = matches!(asked, Asked::Settle { cancel: true });
    if now.locked {
        return Verdict::Attend { cancel };
    }
    if reboot.boot_id == now.boot_id {
        // Who was to see to the reboot is gone, and there was none.
        return Verdict::EndLost(Lost::WatcherKilled);
    }
    match asked {
        Asked::Run { start_before } if now.time < start_before => Verdict::AcceptAndStart,
        Asked::Settle { cancel: true } => Verdict::EndCancelled,
        Asked::Run { .. } | Asked::Settle { cancel: false } => Verdict::Rebooted,
    }
}

#[cfg(test)]
mod tests;
