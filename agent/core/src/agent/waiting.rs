//! What comes after a failure, a loss or a refusal: how long to wait, and for what.

use std::time::Duration;

use protocol::v1::Refusal;

use super::step::Step;
use super::{Effort, Waiting};
use crate::backoff::{self, Curve, STABLE};
use crate::io::{DialFailure, Rung};
use crate::refusal::{Remedy, remedy};

/// "Come back in" is obeyed up to a day; more is a mistake at the other end.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 3600);

impl Step<'_> {
    pub(super) fn link_lost(&mut self) {
        let Some(session) = self.agent.link.take() else {
            return;
        };
        if self.now.mono.since(session.since) >= STABLE {
            self.agent.failures = 0;
            if session.rung == Rung::Udp {
                self.agent.probes = 0;
            }
        }
        match &self.agent.effort {
            // Already on the way to another one.
            Effort::Race { race, rescue } if *rescue || race.joining().is_some() => return,
            Effort::Race { race, .. } => race.close(None, &mut self.actions),
            Effort::Renewing { .. } => return,
            Effort::Rest | Effort::Wait { .. } => {}
        }
        self.agent.failures = self.agent.failures.saturating_add(1);
        self.wait(
            backoff::NETWORK,
            self.agent.failures,
            Duration::ZERO,
            Waiting::LinkLost,
        );
    }

    pub(super) fn wait_after_failure(&mut self, failure: DialFailure) {
        if self.agent.link.is_some() {
            self.agent.probes = self.agent.probes.saturating_add(1);
            self.agent.rescue_from = self
                .now
                .mono
                .after(backoff::NETWORK.wait(1, &mut self.dice));
            return self.rest();
        }
        let (curve, count, why) = match failure {
            DialFailure::Network => (
                backoff::NETWORK,
                &mut self.agent.failures,
                Waiting::Unreachable,
            ),
            DialFailure::Local => (backoff::NETWORK, &mut self.agent.failures, Waiting::Local),
            DialFailure::Rejected => (
                backoff::REFUSED,
                &mut self.agent.refusals,
                Waiting::Rejected,
            ),
        };
        *count = count.saturating_add(1);
        let count = *count;
        self.wait(curve, count, Duration::ZERO, why);
    }

    pub(super) fn wait_after_refusal(&mut self, refusal: &Refusal) {
        let at_least = retry_after(refusal);
        if self.agent.link.is_some() {
            self.agent.probes = self.agent.probes.saturating_add(1);
            self.agent.rescue_from = self.now.mono.after(at_least.max(Duration::from_secs(5)));
            return self.wait(
                backoff::UDP_PROBE,
                self.agent.probes,
                at_least,
                Waiting::UdpProbe,
            );
        }
        let (curve, count, why) = match remedy(refusal) {
            Remedy::Wait => (backoff::NETWORK, &mut self.agent.failures, Waiting::Refused),
            // A certificate that is still too old after its renewal needs a person.
            Remedy::Person | Remedy::Renew => {
                (backoff::REFUSED, &mut self.agent.refusals, Waiting::Refused)
            }
            Remedy::Stop => (backoff::RETIRED, &mut self.agent.refusals, Waiting::Retired),
        };
        *count = count.saturating_add(1);
        let count = *count;
        self.wait(curve, count, at_least, why);
    }

    /// Waits by the curve, and at least as long as the gateway asked for. Its number
    /// is already spread over its agents; a tenth on top keeps equals apart.
    pub(super) fn wait(&mut self, curve: Curve, count: u32, at_least: Duration, why: Waiting) {
        let own = curve.wait(count, &mut self.dice);
        let asked = self.dice.between(at_least, at_least + at_least / 10);
        self.agent.effort = Effort::Wait {
            until: self.now.mono.after(own.max(asked)),
            why,
        };
    }

    /// What there is to wish for with a link.
    pub(super) fn rest(&mut self) {
        let over_websocket = self
            .agent
            .link
            .as_ref()
            .is_some_and(|s| s.rung == Rung::WebSocket);
        if over_websocket {
            // The count begins at the first look that failed.
            let count = self.agent.probes.saturating_add(1);
            self.wait(backoff::UDP_PROBE, count, Duration::ZERO, Waiting::UdpProbe);
        } else {
            self.agent.effort = Effort::Rest;
        }
    }
}

pub(super) fn retry_after(refusal: &Refusal) -> Duration {
    Duration::from_millis(refusal.retry_after_ms.into()).min(RETRY_AFTER_MAX)
}
