//! What several policies say together about one request.
//!
//! Permissions have said yes before any policy is asked: a policy can only take away. Each
//! plugin answers for itself; [`combine`] makes one decision of the answers. The strictest
//! holds, and a policy that fails to answer counts as a no: whoever installed it relies on it.
//!
//! Breaking the glass is not decided here: it is asked for by the caller, needs a permission of
//! its own, and then no policy is obeyed (but each is asked, and what it would have said is
//! written down).

use model::Timestamp;
use model::names::Name;

/// Why not, in a plugin's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// A stable word.
    pub code: String,
    /// For the person who asked.
    pub message: String,
}

/// What a policy answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to say.
    Abstain,
    /// Allowed until then.
    PermitUntil(Timestamp),
    /// Allowed when so many others have approved.
    RequireApproval {
        /// How many.
        approvers: u8,
        /// What for.
        reason: Reason,
    },
    /// Not allowed.
    Deny(Reason),
}

/// What came of asking a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It answered.
    Said(Verdict),
    /// It did not, and why: a stable word.
    Failed(String),
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It may be done, and (where that can be) goes on until then.
    Permit {
        /// Until when.
        until: Option<Timestamp>,
    },
    /// Not before more persons have approved.
    NeedsApproval {
        /// Which policy wants it most.
        policy: Name,
        /// How many in all.
        approvers: u8,
        /// What for.
        reason: Reason,
    },
    /// It may not be done.
    Deny {
        /// Which policy said so.
        policy: Name,
        /// Why.
        reason: Reason,
    },
    /// Nobody knows, so it may not be done.
    Unavailable {
        /// Which policy did not answer.
        policy: Name,
        /// Why not.
        code: String,
    },
}

/// One decision of all answers, given that `approvals` persons other than the caller have
/// approved.
pub fn combine(answers: &[(Name, Answer)], approvals: usize, now: Timestamp) -> Decision {
    let mut until: Option<Timestamp> = None;
    let mut failed = None;
    let mut wanted: Option<(&Name, u8, &Reason)> = None;
    for (policy, answer) in answers {
        match answer {
            Answer::Said(Verdict::Deny(reason)) => {
                let (policy, reason) = (policy.clone(), reason.clone());
                return Decision::Deny { policy, reason };
            }
            Answer::Said(Verdict::PermitUntil(end)) if *end <= now => {
                let reason = Reason {
                    code: "policy.permit_over".into(),
                    message: "the time for which this is permitted is over".into(),
                };
                let policy = policy.clone();
                return Decision::Deny { policy, reason };
            }
            Answer::Failed(code) => failed = failed.or(Some((policy, code))),
            Answer::Said(Verdict::RequireApproval { approvers, reason }) => {
                // A policy that wants approval by nobody has slipped; one is the least.
                let approvers = (*approvers).max(1);
                if wanted.is_none_or(|(_, most, _)| approvers > most) {
                    wanted = Some((policy, approvers, reason));
                }
            }
            Answer::Said(Verdict::PermitUntil(end)) => {
                until = Some(until.map_or(*end, |until| until.min(*end)));
            }
            Answer::Said(Verdict::Abstain) => {}
        }
    }
    if let Some((policy, code)) = failed {
        let (policy, code) = (policy.clone(), code.clone());
        return Decision::Unavailable { policy, code };
    }
    match wanted {
        Some((policy, approvers, reason)) if usize::from(approvers) > approvals => {
            Decision::NeedsApproval {
                policy: policy.clone(),
                approvers,
                reason: reason.clone(),
            }
        }
        Some(_) | None => Decision::Permit { until },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: i64 = 1_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn reason(code: &str) -> Reason {
        Reason {
            code: code.into(),
            message: String::new(),
        }
    }

    fn answers(list: &[Answer]) -> Vec<(Name, Answer)> {
        let named = list.iter().enumerate().map(|(number, answer)| {
            (
                format!("p{number}").parse().expect("a name"),
                answer.clone(),
            )
        });
        named.collect()
    }

    fn approval(approvers: u8) -> Answer {
        Answer::Said(Verdict::RequireApproval {
            approvers,
            reason: reason("two"),
        })
    }

    #[test]
    fn the_strictest_answer_holds() {
        let permit = |end| Answer::Said(Verdict::PermitUntil(at(end)));
        let deny = Answer::Said(Verdict::Deny(reason("no")));
        let failed = Answer::Failed("wall_time".into());
        let cases: [(&[Answer], usize, &str); 10] = [
            (&[], 0, "permit None"),
            (&[Answer::Said(Verdict::Abstain)], 0, "permit None"),
            (&[permit(3_000), permit(2_000)], 0, "permit Some(2000)"),
            (&[permit(1_000)], 0, "deny p0"),
            (&[approval(2), approval(3)], 2, "approval p1 3"),
            (&[approval(2), approval(3)], 3, "permit None"),
            (&[approval(0)], 0, "approval p0 1"),
            (&[approval(1), failed.clone()], 9, "unavailable p1"),
            (&[failed, deny.clone()], 0, "deny p1"),
            (&[permit(5_000), deny], 9, "deny p1"),
        ];
        for (list, approvals, expected) in cases {
            let found = match combine(&answers(list), approvals, at(NOW)) {
                Decision::Permit { until } => {
                    format!("permit {:?}", until.map(Timestamp::as_millis))
                }
                Decision::NeedsApproval {
                    policy, approvers, ..
                } => {
                    format!("approval {policy} {approvers}")
                }
                Decision::Deny { policy, .. } => format!("deny {policy}"),
                Decision::Unavailable { policy, .. } => format!("unavailable {policy}"),
            };
            assert_eq!(found, expected, "{list:?}");
        }
    }

    fn any_answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            Just(Answer::Said(Verdict::Abstain)),
            (0_i64..3_000).prop_map(|end| Answer::Said(Verdict::PermitUntil(at(end)))),
            (0_u8..4).prop_map(approval),
            Just(Answer::Said(Verdict::Deny(reason("no")))),
            Just(Answer::Failed("trap".into())),
        ]
    }

    fn permits(decision: &Decision) -> bool {
        matches!(decision, Decision::Permit { .. })
    }

    proptest! {
        /// One policy more never permits what was not permitted without it.
        #[test]
        fn a_policy_can_only_take_away(
            list in prop::collection::vec(any_answer(), 0..5),
            more in any_answer(),
            approvals in 0_usize..4,
        ) {
            let before = combine(&answers(&list), approvals, at(NOW));
            let mut longer = list;
            longer.push(more);
            let after = combine(&answers(&longer), approvals, at(NOW));
            prop_assert!(permits(&before) || !permits(&after));
        }

        /// In which order policies are asked does not matter for whether it may be done.
        #[test]
        fn the_order_does_not_matter(
            list in prop::collection::vec(any_answer(), 0..5),
            approvals in 0_usize..4,
        ) {
            let there = combine(&answers(&list), approvals, at(NOW));
            let back: Vec<_> = answers(&list).into_iter().rev().collect();
            prop_assert_eq!(permits(&there), permits(&combine(&back, approvals, at(NOW))));
        }
    }
}
