//! Approvals: what somebody asked for, that a policy allows only when others agree.
//!
//! ```text
//!            enough approve            the same request again
//! waiting ───────────────► approved ─────────────────────────► used
//!    │ one refuses            │ too late
//!    ▼                        ▼
//! refused                  expired
//! ```

use model::Timestamp;
use model::ids::UserId;

/// What is known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Who asked.
    pub requester: UserId,
    /// How many must approve.
    pub approvers: u8,
    /// Who has.
    pub approved: Vec<UserId>,
    /// Whether somebody refused.
    pub refused: bool,
    /// Whether the request went through.
    pub used: bool,
    /// It is worth nothing from then on.
    pub expires_at: Timestamp,
}

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// More must approve.
    Waiting,
    /// The request may be repeated.
    Approved,
    /// Somebody refused.
    Refused,
    /// The request went through.
    Used,
    /// Too late.
    Expired,
}

/// Why somebody cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotDecide {
    /// Nobody approves their own requests.
    #[error("nobody decides about their own request: somebody else must")]
    Own,
    /// One person counts once.
    #[error("you have approved this already: somebody else must, too")]
    Twice,
    /// It is over.
    #[error("it is over: it was used, refused or has expired")]
    Over,
}

impl Approval {
    /// What has become of it.
    pub fn state(&self, now: Timestamp) -> State {
        if self.used {
            State::Used
        } else if self.refused {
            State::Refused
        } else if self.expires_at <= now {
            State::Expired
        } else if self.approved.len() >= usize::from(self.approvers.max(1)) {
            State::Approved
        } else {
            State::Waiting
        }
    }

    /// Whether a person may decide.
    pub fn may_decide(&self, person: UserId, now: Timestamp) -> Result<(), CannotDecide> {
        match self.state(now) {
            State::Used | State::Refused | State::Expired => return Err(CannotDecide::Over),
            State::Waiting | State::Approved => {}
        }
        if person == self.requester {
            return Err(CannotDecide::Own);
        }
        if self.approved.contains(&person) {
            return Err(CannotDecide::Twice);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(number: u8) -> UserId {
        UserId::new(Timestamp::from_millis(1), [number; 10])
    }

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn approval() -> Approval {
        Approval {
            requester: user(1),
            approvers: 2,
            approved: vec![user(2)],
            refused: false,
            used: false,
            expires_at: at(100),
        }
    }

    #[test]
    fn two_others_must_agree_and_each_counts_once() {
        let mut it = approval();
        assert_eq!(it.may_decide(user(1), at(0)), Err(CannotDecide::Own));
        assert_eq!(it.may_decide(user(2), at(0)), Err(CannotDecide::Twice));
        assert_eq!(it.may_decide(user(3), at(0)), Ok(()));
        assert_eq!(it.state(at(0)), State::Waiting);
        it.approved.push(user(3));
        assert_eq!(it.state(at(0)), State::Approved);
        assert_eq!(it.state(at(100)), State::Expired);
        it.used = true;
        assert_eq!(it.state(at(0)), State::Used);
        assert_eq!(it.may_decide(user(4), at(0)), Err(CannotDecide::Over));
    }

    #[test]
    fn a_refusal_ends_it_even_after_approvals() {
        let mut it = approval();
        it.approved.push(user(3));
        it.refused = true;
        assert_eq!(it.state(at(0)), State::Refused);
    }
}
