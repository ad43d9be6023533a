//! One operation, from asking to knowing.
//!
//! ```text
//! Queued ─► Checking ─► Ready ─► Submitting ─► Submitted ─► Confirming ─► Ended
//!                         ▲          │ answer not known         │
//!                         │          ▼                          │ next step of the plan
//!                         │      Resuming ──────────────────────┤
//!                         └─────────────────────────────────────┘
//! ```
//!
//! [`Operation::submit`] is the only way into `Submitting`, and the gateway writes its result down
//! before it asks anybody. An operation that is read back in `Submitting` was asked about at most
//! once, and nobody knows the answer: it goes to `Resuming`, which submits nothing.

use std::time::Duration;

use model::Timestamp;
use model::power::{BootOnce, Confirmation, PowerAction, PowerOperationState, PowerState};
use serde::{Deserialize, Serialize};

use super::plan::{By, Step, Support, When};
use super::{Agent, Seen, Trouble};

mod hear;
mod judge;

pub use hear::is_already;

/// After what was wanted is seen: how long stronger evidence is waited for, where a host has an
/// agent that could bring it.
pub const BOOT_GRACE: Duration = Duration::from_secs(180);
/// After a provider says off: how long an agent may still be linked.
pub const LINGER: Duration = Duration::from_secs(60);

/// See the module's head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// What is wanted.
    pub action: PowerAction,
    /// What the next boot is from.
    pub boot: Option<BootOnce>,
    /// How long a soft action may take before the hard one follows.
    pub escalate_after: Option<Duration>,
    /// When it ends, whatever has happened.
    pub deadline: Timestamp,
    /// Where it is.
    pub phase: Phase,
    /// The steps; empty until it has looked.
    pub plan: Vec<Step>,
    /// Which of them it is at.
    pub at: usize,
    /// Submissions of this step so far.
    pub attempt: u32,
    /// What the provider can do, as far as it matters later.
    pub support: Support,
    /// As it was before anything was submitted.
    pub before: Before,
    /// What is known of the present step.
    pub known: Known,
    /// Whether it is to be called off.
    pub cancel: CancelState,
    /// What went wrong last; nothing of it need be final.
    pub trouble: Option<Trouble>,
}

/// As it was before anything was submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// By the provider.
    pub seen: Option<Seen>,
    /// By the agent.
    pub agent: Agent,
}

/// What is known of a step that may have been submitted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Known {
    /// When it was about to be.
    pub submitted_at: Option<Timestamp>,
    /// Whether somebody took it. Otherwise it may have happened, or not.
    pub taken: bool,
    /// Whether the provider said that it is finished.
    pub finished: bool,
    /// When the machine was seen without power, or between, since.
    pub down_at: Option<Timestamp>,
    /// What was wanted is seen, and since when.
    pub met: Option<(Confirmation, Timestamp)>,
}

/// Whether an operation is to be called off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CancelState {
    /// No.
    #[default]
    No,
    /// Yes.
    Asked,
    /// It was too late.
    TooLate,
}

/// Where an operation is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Waits for others on its host.
    Queued,
    /// Is to look before it acts.
    Checking {
        /// Not before this.
        not_before: Timestamp,
        /// Looks that failed.
        failures: u32,
    },
    /// Waits for its turn at the provider.
    Ready {
        /// Not before this.
        not_before: Timestamp,
        /// Submissions that were refused for the time being.
        failures: u32,
    },
    /// Is about to be submitted, or was.
    Submitting,
    /// It is not known whether it was submitted.
    Resuming {
        /// Not before this.
        not_before: Timestamp,
        /// Questions that failed.
        failures: u32,
    },
    /// The provider has it.
    Submitted {
        /// For the next question.
        cursor: Vec<u8>,
        /// When to ask.
        look_at: Timestamp,
        /// Questions so far.
        looks: u32,
        /// What the provider calls it.
        remote_id: Option<String>,
        /// How far it is.
        percent: Option<u8>,
        /// For people.
        message: String,
    },
    /// It is being seen whether it worked.
    Confirming {
        /// When to look.
        look_at: Timestamp,
        /// Looks so far.
        looks: u32,
    },
    /// Nothing changes any more.
    Ended(Outcome),
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// In which final state.
    pub state: PowerOperationState,
    /// What success rests on.
    pub confirmation: Option<Confirmation>,
    /// When.
    pub at: Timestamp,
}

/// What is around an operation.
#[derive(Clone, Debug)]
pub struct View {
    /// Whether nothing else on its host comes first.
    pub first: bool,
    /// When its provider may be told something; now, if that is past.
    pub permit_at: Timestamp,
    /// When one more host may be interrupted; now, if that is past.
    pub interrupt_at: Timestamp,
    /// Whether automatic actions stand still: nothing new is submitted.
    pub frozen: bool,
    /// The host's agent.
    pub agent: Agent,
    /// Chance, for spreading questions.
    pub roll: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing, until then or until something is heard.
    Wait(Timestamp),
    /// Look what can be done, and how it is.
    Check,
    /// Have [`Operation::submit`] written down, then submit.
    Submit,
    /// Find out what became of it.
    Resume,
    /// Ask how it goes on.
    Poll,
    /// Look how it is.
    Look,
    /// Call it off.
    CallOff,
    /// Nothing any more.
    Over,
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In words.
    pub trouble: Trouble,
    /// Whether asking again may help.
    pub transient: bool,
    /// Not before this long.
    pub retry_after: Option<Duration>,
    /// Whether it may have been done nevertheless.
    pub outcome_unknown: bool,
}

/// What a provider says of something that goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// For the next question.
    pub cursor: Vec<u8>,
    /// When it wants to be asked.
    pub poll_after: Option<Duration>,
    /// What the provider calls it.
    pub remote_id: Option<String>,
    /// How far it is.
    pub percent: Option<u8>,
    /// For people.
    pub message: String,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// To [`Next::Check`].
    Checked(Result<(Support, Option<Seen>), Failure>),
    /// To [`Next::Submit`].
    Begun(Result<Begun, Failure>),
    /// To [`Next::Resume`].
    Resumed(Result<Resumed, Failure>),
    /// To [`Next::Poll`]: nothing is that it is finished.
    Polled(Result<Option<Progress>, Failure>),
    /// To [`Next::Look`].
    Looked(Result<Seen, Failure>),
    /// To [`Next::CallOff`]: whether it will not happen; nothing if nobody knows.
    CalledOff(Result<Option<bool>, Failure>),
}

/// What became of submitting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is so already.
    Already(Seen),
    /// Taken, and can be asked after.
    Submitted(Progress),
    /// Taken.
    Taken,
}

/// What is found out about a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resumed {
    /// It did not arrive.
    NotSubmitted,
    /// It goes on.
    Running(Progress),
    /// It has happened.
    Done,
    /// Nobody knows.
    Unknown,
}

impl Operation {
    /// Asked for, and nothing else yet.
    pub fn new(
        action: PowerAction,
        boot: Option<BootOnce>,
        escalate_after: Option<Duration>,
        deadline: Timestamp,
    ) -> Self {
        Self {
            action,
            boot,
            escalate_after,
            deadline,
            phase: Phase::Queued,
            plan: Vec::new(),
            at: 0,
            attempt: 0,
            support: Support::default(),
            before: Before::default(),
            known: Known::default(),
            cancel: CancelState::No,
            trouble: None,
        }
    }

    /// For people and programs.
    pub fn state(&self) -> PowerOperationState {
        match &self.phase {
            Phase::Queued => PowerOperationState::Queued,
            Phase::Checking { .. } => PowerOperationState::Checking,
            Phase::Ready { .. } => PowerOperationState::Waiting,
            Phase::Submitting | Phase::Resuming { .. } => PowerOperationState::Submitting,
            Phase::Submitted { .. } => PowerOperationState::Submitted,
            Phase::Confirming { .. } => PowerOperationState::Confirming,
            Phase::Ended(outcome) => outcome.state,
        }
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Whether nothing was submitted, so that it can be called off without asking anybody.
    pub fn is_untouched(&self) -> bool {
        match self.phase {
            Phase::Queued | Phase::Checking { .. } => true,
            Phase::Ready { .. } => self.at == 0 && self.known.submitted_at.is_none(),
            _ => false,
        }
    }

    /// The present step.
    pub fn step(&self) -> Option<Step> {
        self.plan.get(self.at).copied()
    }

    /// Whether it waits for a slot among the interruptions of a minute. It takes one before it
    /// looks, so that it acts on what it has just seen, and another one for each submission after
    /// one that was refused: what refused them all would take them all at once. What follows an
    /// interruption is about the same one.
    pub fn wants_slot(&self) -> bool {
        let not_yet = self.at == 0 && self.known.submitted_at.is_none();
        let stands = match self.phase {
            Phase::Queued => true,
            Phase::Ready { .. } => self.attempt > 0,
            _ => false,
        };
        self.action.interrupts() && not_yet && stands
    }

    /// Whether it has a slot that it has not used yet.
    pub fn holds_slot(&self) -> bool {
        let before = matches!(self.phase, Phase::Checking { .. } | Phase::Ready { .. });
        self.action.interrupts()
            && before
            && self.at == 0
            && self.known.submitted_at.is_none()
            && !self.wants_slot()
    }

    /// What is to be asked of whom. Everything that time alone decides is in [`Self::advance`],
    /// which comes first.
    pub fn next(&self, view: &View, now: Timestamp) -> Next {
        let at = |when: Timestamp, then: Next| {
            if now >= when {
                then
            } else {
                Next::Wait(when.min(self.deadline))
            }
        };
        match &self.phase {
            Phase::Queued if view.first => Next::Wait(self.deadline.min(view.interrupt_at)),
            Phase::Queued => Next::Wait(self.deadline),
            Phase::Checking { not_before, .. } => at(*not_before, Next::Check),
            Phase::Ready { .. } if view.frozen => Next::Wait(self.deadline),
            Phase::Ready { not_before, .. } => {
                let mut when = *not_before;
                // Agents are asked one by one; nothing is shared between them.
                if self.step().is_none_or(|step| step.by == By::Provider) {
                    when = when.max(view.permit_at);
                }
                if self.wants_slot() {
                    when = when.max(view.interrupt_at);
                }
                at(when, Next::Submit)
            }
            // Read back like this: whoever asked is gone with the answer.
            Phase::Submitting => Next::Resume,
            Phase::Resuming { not_before, .. } => at(*not_before, Next::Resume),
            Phase::Submitted { .. } if self.can_call_off() => Next::CallOff,
            Phase::Submitted { look_at, .. } => at(*look_at, Next::Poll),
            Phase::Confirming { look_at, .. } if self.support.observable => {
                at(*look_at, Next::Look)
            }
            Phase::Confirming { .. } => Next::Wait(self.wait_until()),
            Phase::Ended(_) => Next::Over,
        }
    }

    /// What time and evidence decide. Answers whether anything changed.
    pub fn advance(&mut self, view: &View, now: Timestamp) -> bool {
        let before = self.phase.clone();
        let known = self.known.clone();
        if self.cancel == CancelState::Asked && self.is_untouched() {
            self.end(PowerOperationState::Cancelled, None, now);
        }
        match &self.phase {
            Phase::Queued if view.first && (!self.wants_slot() || now >= view.interrupt_at) => {
                self.phase = Phase::Checking {
                    not_before: now,
                    failures: 0,
                };
            }
            Phase::Submitted { .. } | Phase::Confirming { .. } | Phase::Resuming { .. } => {
                self.listen_to_agent(&view.agent, now);
                self.conclude(&view.agent, now);
                self.give_way(now);
            }
            _ => {}
        }
        if now >= self.deadline && !self.is_over() {
            self.run_out(now);
        }
        self.phase != before || self.known != known
    }

    /// Goes to submit. What this makes of the operation is to be on the disk before anybody is
    /// asked; then ask, and have it [`Self::hear`].
    pub fn submit(&mut self, now: Timestamp) {
        self.attempt += 1;
        self.known = Known {
            submitted_at: Some(now),
            ..Known::default()
        };
        self.phase = Phase::Submitting;
    }

    /// Takes note of an answer. An answer to a question that is no longer open changes nothing.
    pub fn hear(&mut self, heard: Heard, view: &View, now: Timestamp) {
        match (heard, self.phase.clone()) {
            (Heard::Checked(answer), Phase::Checking { failures, .. }) => {
                self.checked(answer, failures, view, now);
            }
            (Heard::Begun(answer), Phase::Submitting) => self.begun(answer, view, now),
            (Heard::Resumed(answer), Phase::Submitting) => self.resumed(answer, 0, view, now),
            (Heard::Resumed(answer), Phase::Resuming { failures, .. }) => {
                self.resumed(answer, failures, view, now);
            }
            (Heard::Polled(answer), Phase::Submitted { .. }) => self.polled(answer, view, now),
            (Heard::Looked(answer), Phase::Confirming { looks, .. }) => {
                self.looked(answer, looks, view, now);
            }
            (Heard::CalledOff(answer), Phase::Submitted { .. }) => match answer {
                Ok(Some(true)) => self.end(PowerOperationState::Cancelled, None, now),
                Ok(Some(false) | None) => self.cancel = CancelState::TooLate,
                Err(failure) => {
                    self.trouble = Some(failure.trouble);
                    self.cancel = CancelState::TooLate;
                }
            },
            _ => {}
        }
    }

    /// Asks for it to be called off.
    pub fn call_off(&mut self, now: Timestamp) {
        if self.is_over() || self.cancel != CancelState::No {
            return;
        }
        self.cancel = CancelState::Asked;
        if self.is_untouched() {
            self.end(PowerOperationState::Cancelled, None, now);
        } else if !self.support.cancellable && self.phase != Phase::Submitting {
            self.cancel = CancelState::TooLate;
        }
    }

    /// Another one takes its place, if nothing was submitted.
    pub fn supersede(&mut self, now: Timestamp) -> bool {
        let can = self.is_untouched() && !self.is_over();
        if can {
            self.end(PowerOperationState::Superseded, None, now);
        }
        can
    }

    /// Its target is gone: what was not submitted never will be, and what was cannot be looked at.
    pub fn orphan(&mut self, why: Trouble, now: Timestamp) {
        if self.is_over() {
            return;
        }
        let state = if self.is_untouched() {
            PowerOperationState::Failed
        } else {
            PowerOperationState::OutcomeUnknown
        };
        self.trouble = Some(why);
        self.end(state, None, now);
    }

    fn can_call_off(&self) -> bool {
        self.cancel == CancelState::Asked
            && self.support.cancellable
            && self.step().is_some_and(|step| step.by == By::Provider)
    }

    /// When something other than an answer may decide.
    fn wait_until(&self) -> Timestamp {
        let escalate = match (self.escalate_after, self.known.submitted_at) {
            (Some(after), Some(at)) if self.has_otherwise() && self.known.met.is_none() => {
                at.saturating_add(after)
            }
            _ => self.deadline,
        };
        let met = self.known.met.map_or(self.deadline, |(_, since)| {
            let down = self.step().and_then(|step| step.action.leads_to());
            let grace = if down == Some(PowerState::Off) {
                LINGER
            } else {
                BOOT_GRACE
            };
            since.saturating_add(grace)
        });
        self.deadline.min(escalate).min(met)
    }

    /// Whether there is a step for when this one does not work.
    fn has_otherwise(&self) -> bool {
        let next = self.plan.get(self.at + 1);
        next.is_some_and(|next| next.when == When::NotDone) && self.cancel == CancelState::No
    }

    fn end(
        &mut self,
        state: PowerOperationState,
        confirmation: Option<Confirmation>,
        now: Timestamp,
    ) {
        self.phase = Phase::Ended(Outcome {
            state,
            confirmation,
            at: now,
        });
    }
}
