//! When a call is made again. Every request the client sends can be sent twice:
//! reads by nature, the others because they carry an idempotency key that stays
//! the same across attempts. So the question is only whether it helps.
//!
//! What helps: a reply that was lost, a gateway that says "later" (and how much
//! later), an equal request still being carried out. What does not: a refused
//! connection (say so at once; the person has mistyped or the gateway is down),
//! and any other answer. All waits of one call stay within one budget; when the
//! gateway asks for more than is left, the caller hears that instead of waiting.

use std::time::Duration;

use api::ProblemCode;

use super::error::ClientError;

/// How patient a client is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Most attempts at one call, the first included.
    pub attempts: u32,
    /// Most time spent waiting between attempts of one call.
    pub budget: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts: 5,
            budget: Duration::from_secs(20),
        }
    }
}

impl Patience {
    /// Never tries twice.
    pub const NONE: Self = Self {
        attempts: 1,
        budget: Duration::ZERO,
    };

    /// How long to wait after the `attempt`th attempt (from 1) failed with
    /// `error` and `waited` was spent, or `None` to give up. `jitter` is in 0..1.
    pub fn wait(
        &self,
        attempt: u32,
        error: &ClientError,
        waited: Duration,
        jitter: f64,
    ) -> Option<Duration> {
        if attempt >= self.attempts || !may_help(error) {
            return None;
        }
        // The whole interval is jittered, so that clients that were cut off
        // together do not come back together.
        let ceiling = Duration::from_millis(250).saturating_mul(1 << attempt.min(5));
        let backoff = ceiling.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0);
        let wait = error.retry_after().unwrap_or_default().max(backoff);
        (waited.saturating_add(wait) <= self.budget).then_some(wait)
    }
}

fn may_help(error: &ClientError) -> bool {
    match error {
        ClientError::Lost { .. } | ClientError::Cut { .. } => true,
        ClientError::Problem(problem) => {
            let later = [
                ProblemCode::RateLimited,
                ProblemCode::Unavailable,
                ProblemCode::Timeout,
                ProblemCode::IdempotencyInProgress,
            ];
            later.iter().any(|code| code.as_str() == problem.code)
        }
        ClientError::Connect { .. }
        | ClientError::NotOurs { .. }
        | ClientError::Unreadable { .. }
        | ClientError::Parameter { .. }
        | ClientError::Request { .. }
        | ClientError::Trust(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Problem;

    fn problem(code: ProblemCode, after_ms: Option<u64>) -> ClientError {
        let mut problem = Problem::new(code, "…");
        problem.retry_after_ms = after_ms;
        ClientError::Problem(Box::new(problem))
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_gateways_own_interval_is_obeyed_within_the_budget() {
        let patience = Patience {
            attempts: 3,
            budget: 10 * SECOND,
        };
        let busy = problem(ProblemCode::RateLimited, Some(4000));
        assert_eq!(
            patience.wait(1, &busy, Duration::ZERO, 0.5),
            Some(4 * SECOND)
        );
        assert_eq!(patience.wait(2, &busy, 4 * SECOND, 0.5), Some(4 * SECOND));
        assert_eq!(
            patience.wait(3, &busy, 8 * SECOND, 0.5),
            None,
            "attempts are used up"
        );
        assert_eq!(
            patience.wait(1, &busy, 7 * SECOND, 0.5),
            None,
            "the budget is"
        );
    }

    #[test]
    fn answers_that_will_not_change_are_final() {
        let patience = Patience::default();
        for code in [
            ProblemCode::NotFound,
            ProblemCode::Forbidden,
            ProblemCode::Conflict,
            ProblemCode::Internal,
        ] {
            assert_eq!(
                patience.wait(1, &problem(code, Some(1)), Duration::ZERO, 0.0),
                None,
                "{code:?}"
            );
        }
        let refused = ClientError::Connect {
            url: String::new(),
            source: ureq::Error::ConnectionFailed,
        };
        assert_eq!(patience.wait(1, &refused, Duration::ZERO, 0.0), None);
    }

    #[test]
    fn a_lost_reply_is_tried_again_soon_and_then_slower() {
        let lost = ClientError::Lost {
            method: "POST",
            url: String::new(),
            source: ureq::Error::ConnectionFailed,
        };
        let waits: Vec<_> = (1..5)
            .map(|attempt| {
                Patience::default()
                    .wait(attempt, &lost, Duration::ZERO, 1.0)
                    .unwrap()
            })
            .collect();
        assert!(waits.is_sorted() && waits[0] <= SECOND, "{waits:?}");
    }
}
