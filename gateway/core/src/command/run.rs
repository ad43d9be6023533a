//! One command on one host.

use model::Timestamp;
use model::command::{Ending, RunState};
use protocol::v1::{EndKind, RunEnded, RunRefusal, RunRefused};
use std::time::Duration;

/// How long a host has to answer for a request that it may have. Hosts forget a run
/// an hour after it could have been started; who is away for longer than this has
/// nothing to tell that anybody waits for.
pub const UNANSWERED: Duration = Duration::from_secs(7 * 24 * 3600);

/// A run, as far as it is decided upon. Small: a command may have tens of thousands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where it is.
    pub state: RunState,
    /// Its batch.
    pub batch: u32,
    /// Whether it is to be cancelled.
    pub cancelling: bool,
    /// It waits on its host to be started again after a reboot that it asked for. Not
    /// kept: a host that is asked how it went says so again.
    pub rebooted: bool,
    /// When its request last left.
    pub sent_at: Option<Timestamp>,
    /// When the process started.
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
}

/// Longest reason of a host that is kept, in characters.
const REASON: usize = 512;

impl Run {
    /// A run that waits for its turn.
    pub fn queued(batch: u32) -> Self {
        Self {
            state: RunState::Queued,
            batch,
            cancelling: false,
            rebooted: false,
            sent_at: None,
            started_at: None,
            ended_at: None,
            code: None,
            signal: None,
            ending: None,
            reason: None,
        }
    }

    /// Whether it is final.
    pub fn is_final(&self) -> bool {
        self.state.is_final()
    }

    /// Whether it is final and did what it should.
    pub fn succeeded(&self) -> bool {
        self.state == RunState::Exited && self.code == Some(0)
    }

    /// Whether the host may have it, and may be working on it.
    pub fn is_out(&self) -> bool {
        !self.is_final() && self.state != RunState::Queued
    }

    /// Settles it without the host, which never had it.
    pub(super) fn settle(&mut self, state: RunState, reason: &str, now: Timestamp) {
        self.state = state;
        self.reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
        self.ended_at = Some(now);
    }

    /// Its request leaves as soon as this is written.
    pub(super) fn sends(&mut self, now: Timestamp) {
        self.state = RunState::Sending;
        self.sent_at = Some(now);
    }

    /// The host has it in its journal.
    pub(super) fn accepted(&mut self) {
        if self.state == RunState::Sending {
            self.state = RunState::Delivered;
        }
    }

    /// The host has started its process.
    pub(super) fn started(&mut self, at: Timestamp) {
        if self.is_out() {
            self.state = RunState::Started;
            self.rebooted = false;
            self.started_at = self.started_at.or(Some(at));
        }
    }

    /// The host is about to reboot because of it, or has.
    pub(super) fn reboots(&mut self, count: u32, done: bool) {
        if self.is_out() {
            self.rebooted = done;
            let what = if done { "after" } else { "waits for" };
            self.reason = Some(format!("{what} reboot {count}, which it asked for"));
        }
    }

    /// The host says how it ended.
    pub(super) fn ended(&mut self, ended: &RunEnded, now: Timestamp) {
        let ending = Ending {
            killed: ended.killed,
            others: ended.others,
            left: ended.left,
        };
        let kind = EndKind::try_from(ended.kind).unwrap_or(EndKind::Unspecified);
        self.state = match kind {
            EndKind::Itself if ended.signal.is_some() => RunState::Signalled,
            EndKind::Itself if ended.code.is_some() => RunState::Exited,
            EndKind::NotStarted => RunState::NotStarted,
            EndKind::TimedOut => RunState::TimedOut,
            EndKind::Cancelled => RunState::Cancelled,
            EndKind::Expired => RunState::Expired,
            // An end without a code and without a signal is no end that we know.
            EndKind::Itself | EndKind::Lost | EndKind::Unspecified => RunState::Lost,
        };
        self.code = ended.code;
        self.signal = ended.signal;
        self.ending = (ending != Ending::default()
            || matches!(kind, EndKind::TimedOut | EndKind::Cancelled))
        .then_some(ending);
        self.reason = reason_of(&ended.reason);
        self.started_at = ended
            .started_at_ms
            .map(Timestamp::from_millis)
            .or(self.started_at);
        self.ended_at = Some(match ended.ended_at_ms {
            0 => now,
            millis => Timestamp::from_millis(millis),
        });
    }

    /// The host will not start it.
    pub(super) fn refused(&mut self, refused: &RunRefused, now: Timestamp) -> Refusal {
        let code = RunRefusal::try_from(refused.code).unwrap_or(RunRefusal::Unspecified);
        let reason = reason_of(&refused.message).unwrap_or_default();
        match code {
            // It is written nowhere: it can have another turn.
            RunRefusal::Busy => {
                self.state = RunState::Queued;
                return Refusal::AskAgain;
            }
            RunRefusal::Expired => self.settle(RunState::Expired, &reason, now),
            RunRefusal::NeverStarted if self.cancelling => {
                self.settle(RunState::Cancelled, "cancelled before it was started", now);
            }
            RunRefusal::NeverStarted => {
                self.settle(RunState::Expired, "the host was not reached in time", now);
            }
            RunRefusal::Unspecified
            | RunRefusal::Invalid
            | RunRefusal::NotMine
            | RunRefusal::DiskFull
            | RunRefusal::Paused
            | RunRefusal::Unsupported
            | RunRefusal::Journal => self.settle(RunState::Refused, &reason, now),
        }
        Refusal::Final
    }
}

/// What a refusal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The run is over.
    Final,
    /// It waits for another turn.
    AskAgain,
}

fn reason_of(text: &str) -> Option<String> {
    Some(model::names::clean(text, REASON)).filter(|text| !text.is_empty())
}
