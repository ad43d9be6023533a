//! Which events a batch makes true, and how they get into it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use gateway_store::{Batch, MAX_BATCH_BYTES, MAX_BATCH_KEYS, Record as _};
use model::audit::{Actor, AuditEntry, AuditResult};
use model::host::HostEvent;
use model::ids::{HostId, WorkspaceId};

use super::records::SignalRecordV1;
use crate::state::change::DEPLOYMENT_CHAIN;
use crate::state::records::HistoryRecordV1;

/// Audited actions that tell of the telling itself: an event about each would make another.
const SILENT: [&str; 5] = [
    "plugin.request",
    "plugin.datagram",
    "plugin.dead_letter",
    "plugin.dead_letter.redeliver",
    "plugin.events_skipped",
];

/// Where events are put.
#[derive(Debug, Default)]
pub struct Outbox {
    wanted: AtomicBool,
    count: AtomicU64,
    lost: AtomicU64,
}

impl Outbox {
    /// Whether anybody is to be told: no notifier, no events.
    pub fn set_wanted(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// Events that did not fit into the batch that made them true. None so far, anywhere: batches
    /// that are large change many keys and tell nothing.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Adds to `batch` the events that it makes true.
    pub fn add_to(&self, batch: &mut Batch) {
        if !self.wanted.load(Ordering::Relaxed) {
            return;
        }
        for event in events_of(batch) {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            let size = event.body.len() + event.summary.len() + 512;
            let fits = batch.keys() < MAX_BATCH_KEYS && batch.bytes() + size <= MAX_BATCH_BYTES;
            let put = |batch: &mut Batch| {
                let key = SignalRecordV1::key(event.at, count).ok()?;
                batch.put_record(&key, &event).ok().map(drop)
            };
            if !fits || put(batch).is_none() {
                self.lost.fetch_add(1, Ordering::Relaxed);
                tracing::error!(kind = %event.kind, "an event did not fit into its batch: notifiers do not hear of it");
            }
        }
    }
}

/// The events that a batch makes true.
fn events_of(batch: &Batch) -> Vec<SignalRecordV1> {
    let mut events = Vec::new();
    for (key, value) in batch.puts() {
        let text = String::from_utf8_lossy(key.as_bytes());
        let Some((kind, id)) = text.split_once('/') else {
            continue;
        };
        if kind == HistoryRecordV1::KIND {
            let host = id.split('/').next().and_then(|host| host.parse().ok());
            let record = HistoryRecordV1::decode(value).ok();
            events.extend(host.zip(record).map(|(host, record)| of_host(host, record)));
        }
    }
    for draft in batch.audited() {
        let entry = serde_json::from_slice::<AuditEntry>(&draft.body).ok();
        events.extend(entry.and_then(|entry| of_entry(&draft.chain, &draft.body, entry)));
    }
    events
}

fn of_host(host: HostId, record: HistoryRecordV1) -> SignalRecordV1 {
    let word = record.event.kind();
    let (severity, trouble) = match &record.event {
        HostEvent::CloneSuspected { .. } => ("critical", "clone"),
        HostEvent::Unreachable { .. } => ("warning", "connectivity"),
        HostEvent::LinkLost { .. } => ("notice", "connectivity"),
        HostEvent::Connected { .. } | HostEvent::CarrierChanged { .. } => ("info", "connectivity"),
        HostEvent::MaintenanceSet { .. } | HostEvent::MaintenanceEnded { .. } => {
            ("info", "maintenance")
        }
        HostEvent::Rebooted { .. }
        | HostEvent::Retired { .. }
        | HostEvent::CloneRepaired { .. }
        | HostEvent::Enrolled { .. } => ("notice", word),
        HostEvent::Created
        | HostEvent::AddressChanged { .. }
        | HostEvent::VersionChanged { .. }
        | HostEvent::HostnameChanged { .. }
        | HostEvent::Renamed { .. }
        | HostEvent::Relabelled { .. }
        | HostEvent::CertificateRenewed { .. } => ("info", word),
    };
    let body = serde_json::json!({
        "host": host, "at": record.at, "event": record.event, "by": record.by,
    });
    let by = record.by.map(|by| format!(" by {by}")).unwrap_or_default();
    SignalRecordV1 {
        at: record.at,
        kind: format!("host.{word}"),
        severity: severity.to_owned(),
        workspace: None,
        host: Some(host),
        summary: format!("host {}{by}", word.replace('_', " ")),
        dedup_key: format!("host/{host}/{trouble}"),
        body: body.to_string(),
    }
}

fn of_entry(chain: &str, body: &[u8], entry: AuditEntry) -> Option<SignalRecordV1> {
    let told = !SILENT.contains(&entry.action.as_str());
    let workspace = (chain != DEPLOYMENT_CHAIN)
        .then(|| chain.parse::<WorkspaceId>().ok())
        .flatten();
    let by = match &entry.actor {
        Actor::Gateway => "the gateway".to_owned(),
        Actor::User { name, .. } => name.clone(),
        Actor::Host { host } => host.to_string(),
        Actor::AgentToken { token } => token.clone(),
        Actor::Nobody => "nobody proven".to_owned(),
    };
    let target = entry.target.clone().unwrap_or_default();
    let severity = match (entry.action.as_str(), entry.result) {
        ("policy.break_glass" | "plugin.quarantine" | "host.quarantine", _) => "critical",
        (_, AuditResult::Refused) => "warning",
        (_, AuditResult::Noticed) => "notice",
        (_, AuditResult::Done) => "info",
    };
    let refused = match entry.result {
        AuditResult::Refused => "refused: ",
        AuditResult::Done | AuditResult::Noticed => "",
    };
    told.then(|| SignalRecordV1 {
        at: entry.at,
        kind: format!("audit.{}", entry.action),
        severity: severity.to_owned(),
        workspace,
        host: target.parse().ok(),
        summary: format!("{refused}{} by {by} {target}", entry.action)
            .trim_end()
            .to_owned(),
        dedup_key: format!("audit/{}/{target}", entry.action),
        body: String::from_utf8_lossy(body).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;
    use crate::state::change::{Origin, history};

    fn batch() -> Batch {
        let now = Timestamp::from_millis(5_000);
        let host = HostId::new(now, [1; 10]);
        let workspace = WorkspaceId::new(now, [2; 10]);
        let mut batch = Batch::new();
        let lost = HostEvent::Unreachable { mass_loss: false };
        history(&mut batch, host, now, lost, None).expect("a key");
        let origin = Origin::gateway();
        origin
            .entry(now, "host.retire")
            .on(host)
            .in_workspace(workspace, &mut batch);
        origin
            .entry(now, "plugin.request")
            .in_deployment(&mut batch);
        origin
            .entry(now, "policy.break_glass")
            .in_deployment(&mut batch);
        batch
    }

    #[test]
    fn a_batch_carries_the_events_that_it_makes_true() {
        let outbox = Outbox::default();
        let mut batch = batch();
        outbox.add_to(&mut batch);
        assert_eq!(batch.keys(), 1, "nobody is to be told");
        outbox.set_wanted(true);
        outbox.add_to(&mut batch);
        let told: Vec<_> = batch
            .puts()
            .filter(|(key, _)| key.as_bytes().starts_with(b"signal/"))
            .filter_map(|(_, value)| SignalRecordV1::decode(value).ok())
            .map(|event| {
                (
                    event.kind,
                    event.severity,
                    event.workspace.is_some(),
                    event.host.is_some(),
                )
            })
            .collect();
        let expected = [
            ("host.unreachable", "warning", false, true),
            ("audit.host.retire", "info", true, true),
            ("audit.policy.break_glass", "critical", false, false),
        ]
        .map(|(kind, severity, workspace, host)| {
            (kind.to_owned(), severity.to_owned(), workspace, host)
        });
        assert_eq!(told, expected);
        assert_eq!(outbox.lost(), 0);
    }

    #[test]
    fn a_full_batch_is_committed_without_its_events() {
        let outbox = Outbox::default();
        outbox.set_wanted(true);
        let mut full = batch();
        for number in 0..MAX_BATCH_KEYS {
            let at = Timestamp::from_millis(i64::try_from(number).expect("small"));
            full.delete(&SignalRecordV1::key(at, 0).expect("a key"));
        }
        let before = full.keys();
        outbox.add_to(&mut full);
        assert_eq!((full.keys(), outbox.lost()), (before, 3));
    }
}
