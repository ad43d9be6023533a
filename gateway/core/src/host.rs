//! A host as decisions see it, and what becomes of it.
//!
//! Names, labels and notes are the operators' and play no part here. Every function
//! takes the host as it is in the store at the moment of writing and answers what it
//! should be; whoever calls writes that on condition that nothing changed meanwhile.

use model::Timestamp;
use model::host::{CloneRepair, Membership};
use model::ids::{AgentTokenId, HostId, WorkspaceId};

use crate::identity::{Fence, Identity, Proven};

/// Clones of one host that are held at a time. A disk image that was rolled out
/// everywhere must not fill the inventory.
pub const MOST_CLONES: usize = 64;

/// What is decided about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its id.
    pub id: HostId,
    /// The workspace it lies in.
    pub workspace: WorkspaceId,
    /// Whether it belongs to the fleet.
    pub membership: Membership,
    /// Its identity, once it has one.
    pub identity: Option<Identity>,
    /// The token it joined with.
    pub token: Option<AgentTokenId>,
    /// The host it looks like a copy of.
    pub clone_of: Option<HostId>,
    /// Whose identity its agent has yet to take over.
    pub pending_adoption: Option<HostId>,
    /// The generation of that identity which was signed for this host's agent;
    /// once it is used, this record has served.
    pub adopting_generation: Option<u64>,
    /// Whether it retires by itself once unreachable for a while.
    pub ephemeral: bool,
    /// Until when its absence is planned.
    pub maintenance_until: Option<Timestamp>,
    /// When its agent joined.
    pub enrolled_at: Option<Timestamp>,
    /// When it left.
    pub retired_at: Option<Timestamp>,
}

impl Host {
    /// A host without an agent.
    pub fn unknown(id: HostId, workspace: WorkspaceId) -> Self {
        Self {
            id,
            workspace,
            membership: Membership::Unknown,
            identity: None,
            token: None,
            clone_of: None,
            pending_adoption: None,
            adopting_generation: None,
            ephemeral: false,
            maintenance_until: None,
            enrolled_at: None,
            retired_at: None,
        }
    }

    /// A host whose certificate is ours and whose record is not there: the store is
    /// older than the host. Hosts are never deleted, so there is no other way. It is
    /// taken in again under its own id.
    pub fn adopted(proven: &Proven, now: Timestamp) -> Self {
        Self::unknown(proven.host, proven.workspace).recognised(proven, now)
    }

    /// Whether it proves an identity that its record does not know to be given: the store
    /// is older than that. Records are written before their certificates leave.
    pub fn is_older_than(&self, proven: &Proven) -> bool {
        self.is_live() && self.identity.is_none() && self.workspace == proven.workspace
    }

    /// It gets back the identity that it proves. An entry that waited for its agent is in
    /// the fleet; a place in quarantine stays one.
    pub fn recognised(self, proven: &Proven, now: Timestamp) -> Self {
        let membership = match self.membership {
            Membership::Unknown => Membership::Managed,
            other @ (Membership::Managed | Membership::Quarantined | Membership::Retired) => other,
        };
        Self {
            membership,
            identity: Some(Identity {
                generation: proven.generation,
                spki_sha256: proven.spki_sha256,
                // Renewal, which is asked for at once, fills these in.
                not_after: now,
                issuer: [0; 32],
                previous: None,
            }),
            enrolled_at: self.enrolled_at.or(Some(now)),
            ..self
        }
    }

    /// A machine that presented the identity of `original` and is not it.
    pub fn suspect(id: HostId, proven: &Proven, original: Option<&Self>) -> Self {
        Self {
            membership: Membership::Quarantined,
            clone_of: Some(proven.host),
            ephemeral: original.is_some_and(|original| original.ephemeral),
            ..Self::unknown(id, proven.workspace)
        }
    }

    /// Whether it belongs to the fleet or may yet.
    pub fn is_live(&self) -> bool {
        self.membership != Membership::Retired
    }

    /// Its identity, if a certificate for `workspace` with `generation` is accepted.
    pub fn accepts(&self, workspace: WorkspaceId, generation: u64) -> Option<&Identity> {
        self.identity
            .as_ref()
            .filter(|identity| self.workspace == workspace && identity.in_force(generation))
    }

    /// Leaves the fleet. Its identity stays in the record, so that its agent can be
    /// told why it is refused. `None` when it has left already.
    pub fn retired(self, now: Timestamp) -> Option<Self> {
        self.is_live().then_some(Self {
            membership: Membership::Retired,
            retired_at: Some(now),
            maintenance_until: None,
            pending_adoption: None,
            adopting_generation: None,
            ..self
        })
    }

    /// Leaves the fleet because it is ephemeral and was unreachable for long.
    pub fn expired(self, now: Timestamp) -> Option<Self> {
        let due = self.ephemeral && self.membership == Membership::Managed;
        if due { self.retired(now) } else { None }
    }

    /// A planned absence that has ended by itself; `None` when it has not.
    pub fn maintenance_over(self, now: Timestamp) -> Option<Self> {
        let over = self.maintenance_until.is_some_and(|until| until <= now);
        over.then_some(Self {
            maintenance_until: None,
            ..self
        })
    }

    /// A quarantined machine gets the first identity of its own, or once more the one
    /// that its key has. `None` when another machine got this place meanwhile, or the
    /// place is gone: one place, one key.
    pub fn named(self, identity: Identity) -> Option<Self> {
        let free = self
            .identity
            .is_none_or(|mine| mine.spki_sha256 == identity.spki_sha256);
        let quarantined = self.membership == Membership::Quarantined;
        (free && quarantined).then_some(Self {
            identity: Some(identity),
            ..self
        })
    }

    /// Whether this record has served once `proven` links: its agent has become
    /// another host.
    pub fn became(&self, proven: &Proven) -> bool {
        self.membership == Membership::Quarantined
            && self.pending_adoption == Some(proven.host)
            && self.adopting_generation == Some(proven.generation)
    }
}

/// Whether more clones are held for a host that has `held` already.
pub fn holds_another_clone(held: usize) -> bool {
    held < MOST_CLONES
}

/// What the repair of a suspected clone makes of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// The newcomer.
    pub newcomer: Host,
    /// The original, when it is touched; a condition on it stands in any case.
    pub original: Option<Host>,
}

/// Why a repair is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairRefused {
    /// It is no suspect.
    #[error("this host is not suspected to be a clone")]
    NoSuspect,
    /// There is nothing to take over.
    #[error("the original host is no longer managed; split instead")]
    OriginalGone,
    /// One machine cannot be linked twice.
    #[error(
        "both are linked, so they are two machines; use split or replace, or stop the original's agent"
    )]
    TwoMachines,
}

/// Decides about a suspected clone.
///
/// *Split* makes the newcomer a host of its own. *Replace* and *merge* let the
/// newcomer's agent take the original's identity, in a new generation, the next
/// time it is linked. Replace ends the original's identity at once, wherever it
/// is; merge says that there is one machine, so it is refused while the original is
/// linked.
pub fn repair(
    newcomer: Host,
    original: Option<Host>,
    original_linked: bool,
    repair: CloneRepair,
    fence: Fence,
    now: Timestamp,
) -> Result<Repaired, RepairRefused> {
    let Some(original_id) = newcomer
        .clone_of
        .filter(|_| newcomer.membership == Membership::Quarantined)
    else {
        return Err(RepairRefused::NoSuspect);
    };
    if repair == CloneRepair::Split {
        return Ok(Repaired {
            newcomer: Host {
                membership: Membership::Managed,
                clone_of: None,
                enrolled_at: Some(now),
                pending_adoption: None,
                adopting_generation: None,
                ..newcomer
            },
            original: None,
        });
    }
    let original = original
        .filter(|original| original.membership == Membership::Managed)
        .ok_or(RepairRefused::OriginalGone)?;
    if repair == CloneRepair::Merge && original_linked {
        return Err(RepairRefused::TwoMachines);
    }
    let original = match repair {
        CloneRepair::Replace => Host {
            identity: original.identity.map(|identity| identity.ended(fence)),
            ..original
        },
        CloneRepair::Merge | CloneRepair::Split => original,
    };
    Ok(Repaired {
        newcomer: Host {
            pending_adoption: Some(original_id),
            ..newcomer
        },
        original: Some(original),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_millis(secs * 1000)
    }

    fn id(n: u8) -> HostId {
        HostId::new(at(1), [n; 10])
    }

    fn identity() -> Identity {
        Identity {
            generation: 1,
            spki_sha256: [7; 32],
            not_after: at(100),
            issuer: [9; 32],
            previous: None,
        }
    }

    fn proven() -> Proven {
        Proven {
            workspace: WorkspaceId::new(at(0), [1; 10]),
            host: id(1),
            generation: 1,
            spki_sha256: [7; 32],
            expired: false,
        }
    }

    fn original() -> Host {
        Host {
            identity: Some(identity()),
            ..Host::adopted(&proven(), at(1))
        }
    }

    fn suspect() -> Host {
        Host::suspect(id(2), &proven(), Some(&original()))
    }

    #[test]
    fn one_place_in_quarantine_takes_one_key() {
        let named = suspect().named(identity()).unwrap();
        assert_eq!(named.named(identity()), Some(named), "its answer was lost");
        let other = Identity {
            spki_sha256: [8; 32],
            ..identity()
        };
        assert_eq!(named.named(other), None);
        assert_eq!(suspect().retired(at(2)).unwrap().named(other), None);
    }

    #[test]
    fn replace_ends_the_original_at_once_and_merge_waits_for_the_newcomer() {
        let workspace = proven().workspace;
        let both =
            |kind| repair(suspect(), Some(original()), false, kind, Fence::NONE, at(5)).unwrap();
        let replaced = both(CloneRepair::Replace).original.unwrap();
        assert!(replaced.accepts(workspace, 1).is_none());
        let merged = both(CloneRepair::Merge);
        assert!(merged.original.unwrap().accepts(workspace, 1).is_some());
        assert_eq!(merged.newcomer.pending_adoption, Some(id(1)));
        assert_eq!(
            repair(
                suspect(),
                Some(original()),
                true,
                CloneRepair::Merge,
                Fence::NONE,
                at(5)
            ),
            Err(RepairRefused::TwoMachines)
        );
    }

    #[test]
    fn a_split_newcomer_takes_over_nothing() {
        let undecided = Host {
            pending_adoption: Some(id(1)),
            adopting_generation: Some(2),
            ..suspect()
        };
        let split = repair(
            undecided,
            None,
            true,
            CloneRepair::Split,
            Fence::NONE,
            at(5),
        )
        .unwrap();
        assert_eq!(split.newcomer.membership, Membership::Managed);
        assert_eq!(split.newcomer.pending_adoption, None);
        assert_eq!(split.original, None);
        assert_eq!(
            repair(
                split.newcomer,
                None,
                false,
                CloneRepair::Split,
                Fence::NONE,
                at(6)
            ),
            Err(RepairRefused::NoSuspect)
        );
    }

    #[test]
    fn retiring_happens_once_and_ends_what_was_pending() {
        let gone = original().retired(at(9)).unwrap();
        assert_eq!(gone.retired_at, Some(at(9)));
        assert_eq!(gone.retired(at(10)), None);
        assert!(gone.identity.is_some());
    }

    #[test]
    fn a_record_from_before_its_identity_takes_it_back() {
        let waiting = Host::unknown(id(1), proven().workspace);
        assert!(waiting.is_older_than(&proven()));
        let back = waiting.recognised(&proven(), at(3));
        assert_eq!(back, Host::adopted(&proven(), at(3)));
        assert!(!back.is_older_than(&proven()));
        let held = Host {
            id: id(1),
            ..suspect()
        };
        let back = held.recognised(&proven(), at(3));
        assert_eq!(back.membership, Membership::Quarantined);
        assert!(!original().retired(at(3)).unwrap().is_older_than(&proven()));
    }
}
