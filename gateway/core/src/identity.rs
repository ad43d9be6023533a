//! The identity of a host: which one is in force, and which comes next.
//!
//! A certificate proves (workspace, host, generation). Generations only grow; every
//! generation belongs to exactly one key, so that no two machines can ever prove the
//! same one with keys of their own. A renewal with the same key stays in its
//! generation. A new key opens the next, and the one before stays in force until the
//! new one is first used, because the answer that carried it may be lost. A decision
//! that gives the identity to another machine ends the one before at once.
//!
//! A store that was restored from a backup does not know which generations were given
//! out after the backup was made. The next one is above all of them ([`Fence`]), and one
//! that is presented and ahead of ours is believed: only we can have signed it.

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
    /// SHA-256 of its public key.
    pub spki_sha256: [u8; 32],
    /// Whether the certificate's time is over.
    pub expired: bool,
}

/// The key of an identity that has ended and that nobody has taken over yet.
pub const UNKNOWN_KEY: [u8; 32] = [0; 32];

/// What keeps generations of a restored state apart from those of the life that was
/// lost.
///
/// Every generation that was ever given out cost the store a revision of its own, and
/// generations begin at 1 or at a fence: none is above the revision that gave it out. A
/// restored life begins at a revision above all of the earlier ones (its *incarnation*),
/// so above all of their generations, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fence(u64);

impl Fence {
    /// For what has no past: a state that was never restored, an id that was just drawn.
    pub const NONE: Self = Self(0);

    /// Of a state whose life began at the revision `incarnation`; 0 for the first life.
    pub fn after(incarnation: u64) -> Self {
        Self(incarnation)
    }

    /// The generation after `newest`, which is 0 where there is none.
    fn next(self, newest: u64) -> u64 {
        newest.saturating_add(1).max(self.0)
    }
}

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

    /// What a link with it makes of it: the first use of a new identity ends the one
    /// before. `None` when nothing changes.
    pub fn used(self, proven: &Proven) -> Option<Self> {
        if self.is_behind(proven) {
            return Some(Self {
                generation: proven.generation,
                spki_sha256: proven.spki_sha256,
                previous: None,
                ..self
            });
        }
        let first = proven.generation == self.generation && self.previous.is_some();
        first.then_some(Self {
            previous: None,
            ..self
        })
    }

    /// Whether what is proven was signed in a life of the gateway that its store has
    /// forgotten.
    pub fn is_behind(&self, proven: &Proven) -> bool {
        proven.generation > self.generation
    }

    /// The end of this identity, wherever it is and whichever of its generations: the
    /// next one is nobody's yet, above all not that of whoever still holds the key and a
    /// token.
    pub fn ended(self, fence: Fence) -> Self {
        Self {
            generation: fence.next(self.generation),
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
    /// A machine that is given the identity by a decision: it joins, is told apart from
    /// the one it was copied from, or takes over.
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

/// Where a certificate for the key `spki_sha256` belongs, beside `current`; nowhere when
/// the holder that asks is no longer the one in force.
///
/// Asking twice with one key is asking once. Whichever of the answers arrives, and
/// whichever arrives last, must be good: an agent that waits too long asks again
/// while the first answer is still on its way.
pub fn place(
    current: Option<&Identity>,
    spki_sha256: &[u8; 32],
    asking: Asking,
    fence: Fence,
) -> Option<Place> {
    let previous = match asking {
        Asking::Holder { generation } => {
            // Its link outlives by a moment the decision that took the identity from it.
            current.filter(|identity| identity.in_force(generation))?;
            Some(generation)
        }
        Asking::Heir => None,
    };
    let same_key = current.filter(|identity| identity.spki_sha256 == *spki_sha256);
    if let Some(identity) = same_key {
        return Some(Place {
            generation: identity.generation,
            previous: identity.previous,
            again: true,
        });
    }
    Some(Place {
        generation: fence.next(current.map_or(0, |identity| identity.generation)),
        previous,
        again: false,
    })
}

#[cfg(test)]
mod tests;
