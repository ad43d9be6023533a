//! Records and what `gateway-core` decides about: the same facts in two shapes.
//!
//! The core knows nothing of how records lie on disk, nor of the operators' names,
//! labels and notes in them. Conversions are here, so that a decision is made on a
//! plain value and written back over the record it was read from.

use gateway_core::host::Host;
use gateway_core::identity::Identity;
use gateway_core::seen::Seen;
use model::Timestamp;

use super::records::{HostRecordV1, HostSeenRecordV1, IdentityV1};

impl HostRecordV1 {
    /// What is decided about it.
    pub fn decided(&self) -> Host {
        Host {
            id: self.id,
            workspace: self.workspace,
            membership: self.membership,
            identity: self.identity.as_ref().map(Identity::from),
            token: self.token,
            clone_of: self.clone_of,
            pending_adoption: self.pending_adoption,
            adopting_generation: self.adopting_generation,
            ephemeral: self.ephemeral,
            maintenance_until: self.maintenance.as_ref().map(|it| it.until),
            enrolled_at: self.enrolled_at,
            retired_at: self.retired_at,
        }
    }

    /// The record with what was decided.
    pub fn with(self, host: &Host) -> Self {
        Self {
            membership: host.membership,
            identity: host.identity.map(IdentityV1::from),
            token: host.token,
            clone_of: host.clone_of,
            pending_adoption: host.pending_adoption,
            adopting_generation: host.adopting_generation,
            ephemeral: host.ephemeral,
            // Its reason is the operator's; a decision can only end it.
            maintenance: self
                .maintenance
                .filter(|_| host.maintenance_until.is_some()),
            enrolled_at: host.enrolled_at,
            retired_at: host.retired_at,
            ..self
        }
    }

    /// A new record for `host`, without names, labels and notes.
    pub fn fresh(host: &Host, now: Timestamp) -> Self {
        let blank = Self {
            id: host.id,
            workspace: host.workspace,
            membership: host.membership,
            display_name: None,
            labels: Default::default(),
            maintenance: None,
            ephemeral: false,
            clone_of: None,
            awaited_hostname: None,
            identity: None,
            token: None,
            created_at: now,
            enrolled_at: None,
            retired_at: None,
            pending_adoption: None,
            adopting_generation: None,
        };
        blank.with(host)
    }
}

impl From<&IdentityV1> for Identity {
    fn from(identity: &IdentityV1) -> Self {
        Self {
            generation: identity.generation,
            spki_sha256: identity.spki_sha256,
            not_after: identity.not_after,
            issuer: identity.issuer,
            previous: identity.previous,
        }
    }
}

impl From<Identity> for IdentityV1 {
    fn from(identity: Identity) -> Self {
        Self {
            generation: identity.generation,
            spki_sha256: identity.spki_sha256,
            not_after: identity.not_after,
            issuer: identity.issuer,
            previous: identity.previous,
        }
    }
}

impl From<HostSeenRecordV1> for Seen {
    fn from(seen: HostSeenRecordV1) -> Self {
        Self {
            issued: seen.issued,
            confirmed: seen.confirmed,
            connectivity: seen.connectivity,
            since: seen.since,
            last_seen_at: seen.last_seen_at,
            boot_id: seen.boot_id,
            address: seen.address,
            agent_version: seen.agent_version,
            clock_skew_ms: seen.clock_skew_ms,
            said_goodbye: seen.said_goodbye,
        }
    }
}

impl From<Seen> for HostSeenRecordV1 {
    fn from(seen: Seen) -> Self {
        Self {
            issued: seen.issued,
            confirmed: seen.confirmed,
            connectivity: seen.connectivity,
            since: seen.since,
            last_seen_at: seen.last_seen_at,
            boot_id: seen.boot_id,
            address: seen.address,
            agent_version: seen.agent_version,
            clock_skew_ms: seen.clock_skew_ms,
            said_goodbye: seen.said_goodbye,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_core::identity::Proven;
    use model::ids::{HostId, WorkspaceId};

    #[test]
    fn a_decision_is_written_over_the_record_and_loses_nothing_else() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let proven = Proven {
            workspace: WorkspaceId::new(now, [1; 10]),
            host: HostId::new(now, [2; 10]),
            generation: 3,
            spki_sha256: [7; 32],
            expired: false,
        };
        let host = Host::adopted(&proven, now);
        let record = HostRecordV1 {
            display_name: Some("web".parse().unwrap()),
            maintenance: Some(model::host::Maintenance {
                until: now,
                reason: "disk".parse().unwrap(),
            }),
            ..HostRecordV1::fresh(&host, now)
        };
        assert_eq!(record.clone().with(&record.decided()), record);
        let gone = record.decided().retired(now).unwrap();
        let retired = record.clone().with(&gone);
        assert_eq!(retired.decided(), gone);
        assert_eq!(retired.display_name, record.display_name);
        assert_eq!(retired.maintenance, None);
    }
}
