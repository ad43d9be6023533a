//! What evidence and time make of an operation.

use model::Timestamp;
use model::power::{Confirmation, PowerAction, PowerOperationState, PowerState};

use super::{BOOT_GRACE, Known, LINGER, Operation, Phase};
use crate::power::plan::When;
use crate::power::{Agent, Seen, Trouble};

impl Operation {
    /// What a look says about whether it was down in between.
    pub(super) fn note(&mut self, seen: &Seen) {
        let between = match seen.state {
            PowerState::Off | PowerState::PoweringOn | PowerState::Rebooting => true,
            PowerState::On
            | PowerState::PoweringOff
            | PowerState::Suspended
            | PowerState::Absent
            | PowerState::Unknown => false,
        };
        if between && self.known.submitted_at.is_some() {
            self.known.down_at.get_or_insert(seen.at);
        }
    }

    /// Whether a look shows what was wanted.
    pub(super) fn judge(&mut self, seen: &Seen, now: Timestamp) {
        let Some(step) = self.step() else { return };
        let settled = self
            .known
            .submitted_at
            .is_some_and(|at| now >= at.saturating_add(self.support.settle));
        let was_off = self
            .before
            .seen
            .as_ref()
            .is_some_and(|seen| seen.state == PowerState::Off);
        let marked = match (&self.before.seen, &seen.boot_mark) {
            (Some(before), Some(mark)) => before.boot_mark.as_ref().is_some_and(|it| it != mark),
            _ => false,
        };
        let met = match step.action {
            PowerAction::On if seen.state == PowerState::On => Some(if was_off {
                Confirmation::OffThenOn
            } else {
                Confirmation::Observed
            }),
            PowerAction::Shutdown | PowerAction::Off if seen.state == PowerState::Off => {
                Some(Confirmation::Observed)
            }
            PowerAction::Reboot | PowerAction::Reset | PowerAction::Cycle
                if seen.state == PowerState::On =>
            {
                if self.known.down_at.is_some() {
                    Some(Confirmation::OffThenOn)
                } else if marked || (self.known.finished && settled) {
                    Some(Confirmation::Observed)
                } else if self.known.taken && settled && step.action != PowerAction::Reboot {
                    // Too quick for anybody to see it go down; the provider took it.
                    Some(Confirmation::Acknowledged)
                } else {
                    None
                }
            }
            _ => None,
        };
        match (met, self.known.met) {
            (None, Some((Confirmation::Already, _))) => {}
            (None, _) => self.known.met = None,
            (Some(met), Some((before, since))) => {
                self.known.met = Some((met.min(before), since));
            }
            (Some(met), None) => self.known.met = Some((met, now)),
        }
    }

    /// A new boot proves more than any provider.
    pub(super) fn listen_to_agent(&mut self, agent: &Agent, now: Timestamp) {
        let (Some(step), Some(submitted)) = (self.step(), self.known.submitted_at) else {
            return;
        };
        let came = agent.linked && agent.since.is_some_and(|since| since > submitted);
        let Some(boot) = agent.boot_id.as_ref().filter(|_| came) else {
            return;
        };
        let proves = match step.action {
            PowerAction::On => self.before.agent.boot_id.as_ref() != Some(boot),
            PowerAction::Reboot | PowerAction::Reset | PowerAction::Cycle => self
                .before
                .agent
                .boot_id
                .as_ref()
                .is_some_and(|before| before != boot),
            PowerAction::Shutdown | PowerAction::Off | PowerAction::Nmi => false,
        };
        if proves {
            self.known.met = Some((Confirmation::BootId, now));
        }
    }

    /// Ends the step, if what is known is enough.
    pub(super) fn conclude(&mut self, agent: &Agent, now: Timestamp) {
        let (Some((met, since)), Some(step)) = (self.known.met, self.step()) else {
            return;
        };
        let has_agent = self.before.agent.boot_id.is_some();
        let enough = match step.action {
            PowerAction::Nmi => true,
            PowerAction::Shutdown | PowerAction::Off => {
                if agent.linked && now >= since.saturating_add(LINGER) {
                    self.trouble = Some(Trouble::new(
                        "wrong_target",
                        "the provider says off, and the host's agent is still there: \
                         is it the right target?",
                    ));
                    self.end(PowerOperationState::OutcomeUnknown, None, now);
                    return;
                }
                !agent.linked
            }
            PowerAction::On | PowerAction::Reboot | PowerAction::Reset | PowerAction::Cycle => {
                let strongest = met == Confirmation::BootId || met == Confirmation::Already;
                let waited = now >= since.saturating_add(BOOT_GRACE);
                let stayed = agent.linked
                    && agent.boot_id == self.before.agent.boot_id
                    && step.action.is_edge();
                if !strongest && has_agent && waited && stayed {
                    self.trouble = Some(Trouble::new(
                        "wrong_target",
                        "the provider says done, and the host has not restarted: \
                         is it the right target?",
                    ));
                    self.end(PowerOperationState::OutcomeUnknown, None, now);
                    return;
                }
                strongest || !has_agent || waited || now >= self.deadline
            }
        };
        if enough {
            self.step_done(met, now);
        }
    }

    pub(super) fn step_done(&mut self, met: Confirmation, now: Timestamp) {
        let next = self.plan.get(self.at + 1);
        if next.is_some_and(|next| next.when == When::Done) {
            self.turn(now);
        } else {
            self.trouble = None;
            self.end(PowerOperationState::Succeeded, Some(met), now);
        }
    }

    /// The harder step, when the soft one had its time.
    pub(super) fn give_way(&mut self, now: Timestamp) {
        let (Some(after), Some(submitted)) = (self.escalate_after, self.known.submitted_at) else {
            return;
        };
        if now >= submitted.saturating_add(after) && self.known.met.is_none() {
            self.otherwise(now);
        }
    }

    /// Goes to the step for when this one did not work, if there is one.
    pub(super) fn otherwise(&mut self, now: Timestamp) -> bool {
        let there = self.has_otherwise();
        if there {
            self.turn(now);
        }
        there
    }

    pub(super) fn turn(&mut self, now: Timestamp) {
        self.at += 1;
        self.attempt = 0;
        self.known = Known::default();
        self.phase = Phase::Ready {
            not_before: now,
            failures: 0,
        };
    }

    /// Its time is over.
    pub(super) fn run_out(&mut self, now: Timestamp) {
        if let Some((met, _)) = self.known.met
            && self
                .plan
                .get(self.at + 1)
                .is_none_or(|next| next.when == When::NotDone)
            && !matches!(
                self.step().map(|step| step.action),
                Some(PowerAction::Shutdown | PowerAction::Off)
            )
        {
            self.end(PowerOperationState::Succeeded, Some(met), now);
            return;
        }
        let nothing_done = self.known.submitted_at.is_none() && self.at == 0;
        let state = if nothing_done {
            PowerOperationState::Failed
        } else if self.known.submitted_at.is_some() && !self.known.taken || !self.support.observable
        {
            PowerOperationState::OutcomeUnknown
        } else {
            PowerOperationState::TimedOut
        };
        if self.trouble.is_none() {
            self.trouble = Some(match state {
                PowerOperationState::Failed => Trouble::new(
                    "never_had_its_turn",
                    "its time was over before it was submitted",
                ),
                PowerOperationState::OutcomeUnknown => Trouble::new(
                    "not_seen",
                    "it was sent, and nothing shows whether it worked",
                ),
                _ => Trouble::new("not_seen", "it was taken, and not seen to work in time"),
            });
        }
        self.end(state, None, now);
    }
}
