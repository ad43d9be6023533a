//! Hosts as the API shows them: records, observations and the live link, put
//! together at the moment of asking.

use api::v1::host::{Host, HostCertificate};
use model::Timestamp;
use model::host::{Membership, summary};
use model::ids::HostId;

use crate::link::registry::{Links, Presence};
use crate::state::catalog::Tables;
use crate::state::records::{HostFactsRecordV1, HostRecordV1, HostSeenRecordV1};

/// A host, or nothing when there is none of this id.
pub fn host(tables: &Tables, links: &Links, id: HostId, now: Timestamp) -> Option<Host> {
    let record = tables.hosts.get(&id)?;
    let seen = tables.seen.get(&id).map(|kept| &*kept.record);
    let facts = tables.facts.get(&id).and_then(|kept| kept.record());
    let thresholds = tables
        .workspaces
        .get(&record.workspace)
        .map(|workspace| workspace.thresholds)
        .unwrap_or_default();
    Some(assemble(
        record,
        seen,
        hostname_of(tables, record),
        facts.map(|facts| &**facts),
        links.presence(id, seen, &thresholds),
        now,
    ))
}

fn assemble(
    record: &HostRecordV1,
    seen: Option<&HostSeenRecordV1>,
    hostname: Option<&str>,
    facts: Option<&HostFactsRecordV1>,
    presence: Presence,
    now: Timestamp,
) -> Host {
    let maintenance = record
        .maintenance
        .clone()
        .filter(|maintenance| now < maintenance.until);
    let live = presence.link.as_deref();
    let identity = record
        .identity
        .as_ref()
        .filter(|_| record.membership != Membership::Retired);
    Host {
        id: record.id,
        workspace: record.workspace,
        name: name_of(record, hostname),
        display_name: record.display_name.clone(),
        summary: summary(
            record.membership,
            presence.connectivity,
            maintenance.is_some(),
        ),
        membership: record.membership,
        connectivity: presence.connectivity,
        connectivity_since: presence
            .since
            .or(seen.map(|seen| seen.since))
            .unwrap_or(record.created_at),
        last_seen_at: presence
            .last_heard_at
            .or(seen.and_then(|seen| seen.last_seen_at)),
        maintenance,
        labels: record.labels.clone(),
        ephemeral: record.ephemeral,
        clone_of: record.clone_of,
        carrier: live.map(|link| link.carrier),
        address: live
            .map(|link| link.address.ip().to_string())
            .or_else(|| seen.and_then(|seen| seen.address.clone())),
        boot_id: seen.and_then(|seen| seen.boot_id.clone()),
        agent_version: seen.and_then(|seen| seen.agent_version.clone()),
        clock_skew_ms: seen.and_then(|seen| seen.clock_skew_ms),
        certificate: identity.map(|identity| HostCertificate {
            generation: identity.generation,
            not_after: identity.not_after,
        }),
        facts: facts.map(|facts| facts.facts.clone()),
        created_at: record.created_at,
        enrolled_at: record.enrolled_at,
        retired_at: record.retired_at,
    }
}

/// What a host calls itself, or is expected to.
pub fn hostname_of<'a>(tables: &'a Tables, record: &'a HostRecordV1) -> Option<&'a str> {
    let facts = tables.facts.get(&record.id);
    let own = facts
        .map(|facts| facts.hostname())
        .filter(|name| !name.is_empty());
    own.or(record.awaited_hostname.as_deref())
}

/// What to call a host: an operator's word wins over its own.
pub fn name_of(record: &HostRecordV1, hostname: Option<&str>) -> String {
    let display = record
        .display_name
        .as_ref()
        .filter(|name| !name.is_empty())
        .map(|name| name.to_string());
    display
        .or_else(|| hostname.map(str::to_owned))
        .unwrap_or_else(|| record.id.to_string())
}
