//! The identity of a host: which one is in force, and which comes next.
//!
//! A certificate proves (workspace, host, generation). Generations only grow; every
//! generation belongs to exactly one key, so that no two machines can ever prove the
//! same one with keys of their own. A renewal with the same key stays in its
//! generation. A new key opens the next, and the one before stays in force until the
//! new one is first used, because the answer that carried it may be lost. A decision
//! that gives the identity to another machine ends the one before at once.

use std::time::Duration;

use model::Timestamp;
use model::ids::{HostId, WorkspaceId};

/// A host as its certificate proves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The workspace it was issued for.
    pub workspace: WorkspaceId,
    /// The host.
    pub host: HostId,
    /// Which of the host's identities.
    pub generation: u64,
    /// Whether the certificate's time is over.
    pub expired: bool,
}

/// The key of an identity whose certificate was issued before the store that is in
/// use began: unknown until its holder asks for a renewal.
pub const UNKNOWN_KEY: [u8; 32] = [0; 32];

/// A host's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Grows with every new identity; older ones are refused.
    pub generation: u64,
    /// SHA-256 of its public key, or [`UNKNOWN_KEY`].
    pub spki_sha256: [u8; 32],
    /// Until when its newest certificate is valid.
    pub not_after: Timestamp,
    /// SHA-256 of the authority's certificate that signed it.
    pub issuer: [u8; 32],
    /// The generation before, still accepted until this one is first used.
    pub previous: Option<u64>,
}

impl Identity {
    /// Whether a certificate of `generation` is accepted. One ahead of ours was
    /// signed by this deployment before its state was restored from an older copy.
    pub fn in_force(&self, generation: u64) -> bool {
        generation >= self.generation || self.previous == Some(generation)
    }

    /// Half of the certificate's life is over, or another authority signs by now.
    pub fn wants_renewal(&self, now: Timestamp, lifetime: Duration, active: &[u8; 32]) -> bool {
        now >= self.not_after.saturating_sub(lifetime / 2) || self.issuer != *active
    }

    /// What a link with `generation` makes of it: the first use of a new identity
    /// ends the one before. `None` when nothing changes.
    pub fn used(self, generation: u64) -> Option<Self> {
        if generation > self.generation {
            // Signed in a life of the gateway that its store has forgotten, for
            // whatever key was asked for then.
            return Some(Self {
                generation,
                spki_sha256: UNKNOWN_KEY,
                previous: None,
                ..self
            });
        }
        let first = generation == self.generation && self.previous.is_some();
        first.then_some(Self {
            previous: None,
            ..self
        })
    }

    /// The end of this identity, wherever it is: the next one is nobody's yet, above
    /// all not that of whoever still holds the key and a token.
    pub fn ended(self) -> Self {
        Self {
            generation: self.generation.saturating_add(1),
            spki_sha256: UNKNOWN_KEY,
            previous: None,
            ..self
        }
    }
}

/// What a certificate is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// The holder of the identity, linked with this generation.
    Holder {
        /// Of its certificate.
        generation: u64,
    },
    /// A machine that takes the identity over by an operator's decision.
    Heir,
}

/// The place of a certificate that is about to be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its generation.
    pub generation: u64,
    /// The generation that stays in force beside it.
    pub previous: Option<u64>,
    /// Whether this key had this place already: an answer got lost or is late, and
    /// the same one is given again.
    pub again: bool,
}

/// Where a certificate for the key `spki_sha256` belongs, beside `current`.
///
/// Asking twice with one key is asking once. Whichever of the answers arrives, and
/// whichever arrives last, must be good: an agent that waits too long asks again
/// while the first answer is still on its way.
pub fn place(current: Option<&Identity>, spki_sha256: &[u8; 32], asking: Asking) -> Place {
    let newest = current.map_or(0, |identity| identity.generation);
    let has_key = |key: &[u8; 32]| current.is_some_and(|identity| identity.spki_sha256 == *key);
    let same_key = match asking {
        Asking::Holder { .. } => has_key(spki_sha256) || has_key(&UNKNOWN_KEY),
        Asking::Heir => has_key(spki_sha256),
    };
    if same_key {
        return Place {
            generation: newest.max(1),
            previous: current.and_then(|identity| identity.previous),
            again: true,
        };
    }
    Place {
        generation: newest.saturating_add(1),
        previous: match asking {
            Asking::Holder { generation } => Some(generation),
            Asking::Heir => None,
        },
        again: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];

    fn identity() -> Identity {
        Identity {
            generation: 3,
            spki_sha256: OLD,
            not_after: Timestamp::from_millis(1000),
            issuer: [9; 32],
            previous: None,
        }
    }

    fn with(current: Identity, place: Place, key: [u8; 32]) -> Identity {
        Identity {
            generation: place.generation,
            previous: place.previous,
            spki_sha256: key,
            ..current
        }
    }

    #[test]
    fn a_new_key_opens_a_generation_and_the_old_one_lasts_until_it_is_used() {
        let holder = Asking::Holder { generation: 3 };
        let next = place(Some(&identity()), &NEW, holder);
        assert_eq!((next.generation, next.previous), (4, Some(3)));
        let current = with(identity(), next, NEW);
        assert!(current.in_force(3) && current.in_force(4) && !current.in_force(2));
        let used = current.used(4).unwrap();
        assert!(!used.in_force(3) && used.in_force(4));
        assert_eq!(used.used(4), None);
    }

    #[test]
    fn an_answer_that_is_lost_twice_leaves_the_old_identity_in_force() {
        let holder = Asking::Holder { generation: 3 };
        let mut current = identity();
        for _ in 0..3 {
            current = with(current, place(Some(&current), &NEW, holder), NEW);
            assert!(current.in_force(3), "the host could not come back");
            assert_eq!(current.generation, 4);
        }
    }

    #[test]
    fn an_heir_that_asks_twice_may_use_either_answer() {
        let first = place(Some(&identity()), &NEW, Asking::Heir);
        let current = with(identity(), first, NEW);
        assert!(!current.in_force(3), "the one before has ended");
        let second = place(Some(&current), &NEW, Asking::Heir);
        assert_eq!(first.generation, second.generation);
        assert!(second.again && !first.again);
    }

    #[test]
    fn a_generation_from_a_forgotten_life_belongs_to_no_known_key() {
        let used = identity().used(7).unwrap();
        assert_eq!((used.generation, used.spki_sha256), (7, UNKNOWN_KEY));
        let renewed = place(Some(&used), &NEW, Asking::Holder { generation: 7 });
        assert_eq!(renewed.generation, 7);
        // An heir never takes over the place of a key that it does not hold.
        assert_eq!(place(Some(&used), &NEW, Asking::Heir).generation, 8);
    }
}
