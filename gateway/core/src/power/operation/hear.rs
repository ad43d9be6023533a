//! What answers do to an operation.

use model::Timestamp;
use model::power::{BootOnce, Confirmation, PowerAction, PowerOperationState, PowerState};

use super::{Before, Begun, Failure, Known, Operation, Phase, Progress, Resumed, View};
use crate::power::pace::{back_off, look_after};
use crate::power::plan::{Support, plan};
use crate::power::{Seen, Trouble};

/// Submissions of a step that leads to a state.
const SUBMISSIONS: u32 = 3;

/// Whether nothing is to be done.
pub fn is_already(
    action: PowerAction,
    boot: Option<&BootOnce>,
    seen: Option<&Seen>,
    agent_linked: bool,
) -> bool {
    let wanted = action.leads_to();
    // A machine whose agent talks is not off, whatever a provider says.
    let contradicted = wanted == Some(PowerState::Off) && agent_linked;
    wanted.is_some() && seen.map(|seen| seen.state) == wanted && !contradicted && boot.is_none()
}

impl Operation {
    pub(super) fn checked(
        &mut self,
        answer: Result<(Support, Option<Seen>), Failure>,
        failures: u32,
        view: &View,
        now: Timestamp,
    ) {
        let (support, seen) = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                let again = Phase::Checking {
                    not_before: later(now, &failure, failures, view.roll),
                    failures: failures + 1,
                };
                self.trouble = Some(failure.trouble);
                if failure.transient {
                    self.phase = again;
                } else {
                    self.end(PowerOperationState::Failed, None, now);
                }
                return;
            }
        };
        self.before = Before {
            seen,
            agent: view.agent.clone(),
        };
        let escalate = self.escalate_after.is_some();
        let linked = view.agent.linked;
        match plan(self.action, escalate, self.boot.as_ref(), &support, linked) {
            Ok(steps) => self.plan = steps,
            Err(trouble) => {
                self.trouble = Some(trouble);
                self.end(PowerOperationState::Failed, None, now);
                return;
            }
        }
        self.support = support;
        self.trouble = None;
        if is_already(
            self.action,
            self.boot.as_ref(),
            self.before.seen.as_ref(),
            linked,
        ) {
            let already = Some(Confirmation::Already);
            self.end(PowerOperationState::Succeeded, already, now);
            return;
        }
        self.phase = Phase::Ready {
            not_before: now,
            failures: 0,
        };
    }

    pub(super) fn begun(&mut self, answer: Result<Begun, Failure>, view: &View, now: Timestamp) {
        match answer {
            Ok(Begun::Already(seen)) => {
                self.known.taken = true;
                self.known.met = Some((Confirmation::Already, now));
                self.note(&seen);
                self.confirm(now, 0, view.roll);
                self.conclude(&view.agent, now);
            }
            Ok(Begun::Submitted(progress)) => {
                self.known.taken = true;
                self.trouble = None;
                self.follow(progress, 0, view, now);
            }
            Ok(Begun::Taken) => {
                self.known.taken = true;
                self.trouble = None;
                if self
                    .step()
                    .is_some_and(|step| step.action == PowerAction::Nmi)
                {
                    self.known.met = Some((Confirmation::Acknowledged, now));
                }
                self.confirm(now, 0, view.roll);
                self.conclude(&view.agent, now);
            }
            Err(failure) if failure.outcome_unknown => {
                self.trouble = Some(failure.trouble);
                self.phase = Phase::Resuming {
                    not_before: now,
                    failures: 0,
                };
            }
            Err(failure) => {
                // Certainly not submitted.
                let failures = self.attempt;
                self.known = Known::default();
                let again = Phase::Ready {
                    not_before: later(now, &failure, failures, view.roll),
                    failures,
                };
                let transient = failure.transient;
                self.trouble = Some(failure.trouble);
                if transient {
                    self.phase = again;
                } else if !self.otherwise(now) {
                    self.end(PowerOperationState::Failed, None, now);
                }
            }
        }
    }

    pub(super) fn resumed(
        &mut self,
        answer: Result<Resumed, Failure>,
        failures: u32,
        view: &View,
        now: Timestamp,
    ) {
        match answer {
            Ok(Resumed::NotSubmitted) => {
                let edge = self.step().is_none_or(|step| step.action.is_edge());
                if !edge && self.attempt < SUBMISSIONS {
                    self.known = Known::default();
                    self.phase = Phase::Ready {
                        not_before: now,
                        failures: 0,
                    };
                } else {
                    self.trouble = Some(Trouble::new(
                        "not_submitted",
                        "it did not reach the provider, and is not sent twice: ask for it again",
                    ));
                    self.end(PowerOperationState::Failed, None, now);
                }
            }
            Ok(Resumed::Running(progress)) => {
                self.known.taken = true;
                self.follow(progress, 0, view, now);
            }
            Ok(Resumed::Done) => {
                self.known.taken = true;
                self.known.finished = true;
                self.confirm(now, 0, view.roll);
                self.conclude(&view.agent, now);
            }
            Ok(Resumed::Unknown) => {
                self.confirm(now, 0, view.roll);
                self.conclude(&view.agent, now);
            }
            Err(failure) => {
                let not_before = later(now, &failure, failures, view.roll);
                let transient = failure.transient;
                self.trouble = Some(failure.trouble);
                if transient {
                    self.phase = Phase::Resuming {
                        not_before,
                        failures: failures + 1,
                    };
                } else {
                    self.confirm(now, 0, view.roll);
                }
            }
        }
    }

    pub(super) fn polled(
        &mut self,
        answer: Result<Option<Progress>, Failure>,
        view: &View,
        now: Timestamp,
    ) {
        let Phase::Submitted { looks, .. } = self.phase else {
            return;
        };
        match answer {
            Ok(Some(progress)) => {
                self.trouble = None;
                self.follow(progress, looks + 1, view, now);
            }
            Ok(None) => {
                self.known.finished = true;
                self.trouble = None;
                if !self.support.observable {
                    self.known
                        .met
                        .get_or_insert((Confirmation::Acknowledged, now));
                }
                self.confirm(now, 0, view.roll);
                self.conclude(&view.agent, now);
            }
            Err(failure) if failure.transient || failure.outcome_unknown => {
                let when = later(now, &failure, looks.min(8), view.roll);
                self.trouble = Some(failure.trouble);
                if let Phase::Submitted { look_at, looks, .. } = &mut self.phase {
                    *look_at = when;
                    *looks += 1;
                }
            }
            Err(failure) => {
                self.trouble = Some(failure.trouble);
                if !self.otherwise(now) {
                    self.end(PowerOperationState::Failed, None, now);
                }
            }
        }
    }

    pub(super) fn looked(
        &mut self,
        answer: Result<Seen, Failure>,
        looks: u32,
        view: &View,
        now: Timestamp,
    ) {
        match answer {
            Ok(seen) => {
                self.trouble = None;
                self.note(&seen);
                self.judge(&seen, now);
                self.confirm(now, looks + 1, view.roll);
                self.conclude(&view.agent, now);
            }
            Err(failure) => {
                let when = later(now, &failure, looks.min(8), view.roll);
                self.trouble = Some(failure.trouble);
                self.phase = Phase::Confirming {
                    look_at: when,
                    looks: looks + 1,
                };
            }
        }
    }

    pub(super) fn follow(&mut self, progress: Progress, looks: u32, view: &View, now: Timestamp) {
        let after = look_after(looks, progress.poll_after, view.roll);
        self.phase = Phase::Submitted {
            cursor: progress.cursor,
            look_at: now.saturating_add(after),
            looks,
            remote_id: progress.remote_id,
            percent: progress.percent,
            message: progress.message,
        };
    }

    pub(super) fn confirm(&mut self, now: Timestamp, looks: u32, roll: u32) {
        self.phase = Phase::Confirming {
            look_at: now.saturating_add(look_after(looks, None, roll)),
            looks,
        };
    }
}

fn later(now: Timestamp, failure: &Failure, failures: u32, roll: u32) -> Timestamp {
    now.saturating_add(back_off(failures, failure.retry_after, roll))
}
