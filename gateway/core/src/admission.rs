//! Whether an agent token lets a host in.
//!
//! A token is spent per host, not per request: the same machine that asks again
//! with the same key (its answer was lost) gets the same host and costs nothing, also
//! when it was given another token of the workspace meanwhile.

use std::time::Duration;

use model::Timestamp;
use model::host::Membership;
use model::ids::{AgentTokenId, HostId, WorkspaceId};

use crate::host::Host;
use crate::identity::{Asking, Fence, Identity, Place, place};

/// What the decision needs to know of a token.
#[derive(Clone, Copy, Debug)]
pub struct TokenFacts {
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// How many hosts may join with it.
    pub use_limit: Option<u32>,
    /// How many have.
    pub uses: u32,
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// Hosts can join with it.
    Active,
    /// Its time is over.
    Expired,
    /// It was used as often as it may be.
    Exhausted,
    /// Somebody revoked it.
    Revoked,
}

/// What a token is good for at `now`. Revocation is what an operator decided, so
/// it is named before what merely happened.
pub fn token_state(token: &TokenFacts, now: Timestamp) -> TokenState {
    if token.revoked_at.is_some() {
        TokenState::Revoked
    } else if token.expires_at <= now {
        TokenState::Expired
    } else if token.use_limit.is_some_and(|limit| token.uses >= limit) {
        TokenState::Exhausted
    } else {
        TokenState::Active
    }
}

/// An earlier enrolment of the same key.
#[derive(Clone, Copy, Debug)]
pub struct Earlier {
    /// The host it made.
    pub host: HostId,
    /// By which token.
    pub token: Option<AgentTokenId>,
}

/// What to do with an enrolment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Make a host.
    New,
    /// Answer as before; nothing is spent.
    Again(HostId),
    /// Refuse.
    Refuse(TokenState),
}

/// Decides about an enrolment with `token`. `earlier` is a live host of its workspace
/// whose key is the one presented.
pub fn admit(
    id: AgentTokenId,
    token: &TokenFacts,
    earlier: Option<Earlier>,
    now: Timestamp,
) -> Admission {
    match (token_state(token, now), earlier) {
        // The last use of a limited token was this very host's.
        (TokenState::Exhausted, Some(earlier)) if earlier.token == Some(id) => {
            Admission::Again(earlier.host)
        }
        // Who has the key is that host, whichever token it shows: two hosts of one key
        // would be one machine that is never seen and one that is.
        (TokenState::Active, Some(earlier)) => Admission::Again(earlier.host),
        (TokenState::Active, None) => Admission::New,
        (state @ (TokenState::Expired | TokenState::Exhausted | TokenState::Revoked), _) => {
            Admission::Refuse(state)
        }
    }
}

/// What an enrolment will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// Make a host that was not known before; its id is still to be drawn.
    New,
    /// Fill an entry of the inventory that waited for this machine.
    Awaited(HostId),
    /// Answer the same machine once more.
    Again(HostId),
}

/// What the plan of an enrolment rests on.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The token.
    pub id: AgentTokenId,
    /// Its state.
    pub token: &'a TokenFacts,
    /// Its workspace, if that is there.
    pub workspace: Option<WorkspaceId>,
    /// The host whose identity has the key that is presented.
    pub known: Option<&'a Host>,
    /// An entry of the inventory that waits for this hostname.
    pub awaited: Option<HostId>,
    /// The time.
    pub now: Timestamp,
}

/// Plans an enrolment; or what is wrong with the token.
pub fn plan(asked: &Asked<'_>) -> Result<Plan, TokenState> {
    let Some(workspace) = asked.workspace else {
        return Err(TokenState::Revoked);
    };
    let known = asked.known.filter(|host| host.is_live());
    let earlier = known.filter(|host| host.workspace == workspace);
    let earlier = earlier.map(|host| Earlier {
        host: host.id,
        token: host.token,
    });
    match admit(asked.id, asked.token, earlier, asked.now) {
        Admission::Refuse(state) => Err(state),
        Admission::Again(host) => Ok(Plan::Again(host)),
        Admission::New => Ok(asked.awaited.map_or(Plan::New, Plan::Awaited)),
    }
}

/// The host after it has joined. `identity` is what was just signed for it.
pub fn joined(
    host: Host,
    plan: Plan,
    token: AgentTokenId,
    identity: Identity,
    now: Timestamp,
) -> Host {
    let membership = match plan {
        Plan::New | Plan::Awaited(_) => Membership::Managed,
        Plan::Again(_) => host.membership,
    };
    Host {
        membership,
        identity: Some(identity),
        token: Some(token),
        enrolled_at: host.enrolled_at.or(Some(now)),
        ..host
    }
}

/// The place in which a joining host begins, or goes on.
pub fn place_of(host: &Host, plan: Plan, spki_sha256: &[u8; 32], fence: Fence) -> Option<Place> {
    let fence = match plan {
        // Its id was just drawn: nothing was ever signed for it.
        Plan::New => Fence::NONE,
        // An entry that waits may have been filled in a life that is forgotten.
        Plan::Awaited(_) | Plan::Again(_) => fence,
    };
    place(host.identity.as_ref(), spki_sha256, Asking::Heir, fence)
}

/// When the old token of a rotation ends: after the overlap, never later than it
/// would have anyway.
pub fn rotated_expiry(expires_at: Timestamp, now: Timestamp, overlap: Duration) -> Timestamp {
    expires_at.min(now.saturating_add(overlap))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn token() -> TokenFacts {
        TokenFacts {
            expires_at: at(100),
            revoked_at: None,
            use_limit: Some(1),
            uses: 0,
        }
    }

    fn ids() -> (AgentTokenId, HostId) {
        (
            AgentTokenId::new(at(1), [1; 10]),
            HostId::new(at(1), [2; 10]),
        )
    }

    #[test]
    fn a_repeated_request_of_the_same_machine_costs_nothing() {
        let (id, host) = ids();
        let spent = TokenFacts { uses: 1, ..token() };
        let earlier = Some(Earlier {
            host,
            token: Some(id),
        });
        assert_eq!(admit(id, &spent, earlier, at(1)), Admission::Again(host));
        assert_eq!(
            admit(id, &spent, None, at(1)),
            Admission::Refuse(TokenState::Exhausted)
        );
    }

    #[test]
    fn a_machine_that_was_given_another_token_meanwhile_is_still_one_host() {
        let (id, host) = ids();
        let other = AgentTokenId::new(at(2), [3; 10]);
        for token_before in [Some(other), None] {
            let earlier = Some(Earlier {
                host,
                token: token_before,
            });
            assert_eq!(admit(id, &token(), earlier, at(1)), Admission::Again(host));
            // A use that was somebody else's lets nobody in.
            let spent = TokenFacts { uses: 1, ..token() };
            assert_eq!(
                admit(id, &spent, earlier, at(1)),
                Admission::Refuse(TokenState::Exhausted)
            );
        }
    }

    #[test]
    fn revoked_and_expired_tokens_refuse_even_a_repeat() {
        let (id, host) = ids();
        let earlier = Some(Earlier {
            host,
            token: Some(id),
        });
        let revoked = TokenFacts {
            revoked_at: Some(at(1)),
            ..token()
        };
        assert_eq!(
            admit(id, &revoked, earlier, at(2)),
            Admission::Refuse(TokenState::Revoked)
        );
        assert_eq!(
            admit(id, &token(), earlier, at(100)),
            Admission::Refuse(TokenState::Expired)
        );
    }

    #[test]
    fn an_overlap_never_lengthens_a_token() {
        assert_eq!(
            rotated_expiry(at(100), at(10), Duration::from_secs(20)),
            at(30)
        );
        assert_eq!(
            rotated_expiry(at(100), at(90), Duration::from_secs(20)),
            at(100)
        );
    }
}
