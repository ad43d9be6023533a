//! How hosts look.

use std::time::Duration;

use api::v1::host::{HistoryEntry, Host};
use model::Timestamp;
use model::facts::Facts;
use model::host::{HostEvent, Summary};
use serde_json::Value;

use super::super::{age_cell, maybe_age, yes_no};
use crate::output::{Cell, Table, Tone, age, bytes_text, duration_text, time_text};

pub(in super::super) fn tone(summary: Summary) -> Tone {
    match summary {
        Summary::Connected => Tone::Good,
        Summary::Late | Summary::Unconfirmed | Summary::Maintenance => Tone::Warn,
        Summary::Unreachable | Summary::Quarantined => Tone::Bad,
        Summary::Unknown | Summary::Retired => Tone::Faint,
    }
}

pub(in super::super) fn summary_cell(summary: Summary) -> Cell {
    Cell::new(summary.as_str()).tone(tone(summary))
}

pub(super) fn table(hosts: &[Host], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "NAME", "STATE", "SINCE", "SEEN", "ADDRESS", "OS", "AGENT", "LABELS", "ID",
    ]);
    for host in hosts {
        table.row([
            host.name.as_str().into(),
            summary_cell(host.summary),
            age_cell(now, host.connectivity_since),
            maybe_age(now, host.last_seen_at),
            host.address.as_deref().unwrap_or_default().into(),
            host.facts
                .as_ref()
                .map(|facts| facts.os_version.as_str())
                .unwrap_or_default()
                .into(),
            host.agent_version.as_deref().unwrap_or_default().into(),
            host.labels.to_string().into(),
            host.id.to_string().into(),
        ]);
    }
    table
}

pub(super) fn properties(host: &Host, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("name", host.name.as_str());
    table.property("id", host.id.to_string());
    table.property("workspace", host.workspace.to_string());
    table.property("state", summary_cell(host.summary));
    table.property("membership", host.membership.as_str());
    let since = age(now, host.connectivity_since);
    table.property(
        "connectivity",
        format!("{} for {since}", host.connectivity.as_str()),
    );
    if let Some(seen) = host.last_seen_at {
        table.property("last seen", time_text(now, seen));
    }
    if let Some(maintenance) = &host.maintenance {
        let until = time_text(now, maintenance.until);
        let reason = maintenance.reason.as_str();
        table.property(
            "maintenance",
            if reason.is_empty() {
                format!("until {until}")
            } else {
                format!("until {until}: {reason}")
            },
        );
    }
    if let Some(original) = host.clone_of {
        table.property(
            "looks like a copy of",
            Cell::new(original.to_string()).tone(Tone::Bad),
        );
    }
    table.property("labels", host.labels.to_string());
    table.property("ephemeral", yes_no(host.ephemeral));
    let optional = [
        ("address", host.address.clone()),
        (
            "carrier",
            host.carrier.map(|carrier| super::super::api_word(&carrier)),
        ),
        ("boot id", host.boot_id.clone()),
        ("agent version", host.agent_version.clone()),
        ("clock skew", host.clock_skew_ms.map(skew_text)),
        (
            "certificate",
            host.certificate.map(|c| {
                format!(
                    "generation {}, until {}",
                    c.generation,
                    time_text(now, c.not_after)
                )
            }),
        ),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            table.property(name, value);
        }
    }
    if let Some(facts) = &host.facts {
        add_facts(&mut table, facts);
    }
    table.property("created", time_text(now, host.created_at));
    for (name, at) in [("enrolled", host.enrolled_at), ("retired", host.retired_at)] {
        if let Some(at) = at {
            table.property(name, time_text(now, at));
        }
    }
    table
}

fn add_facts(table: &mut Table, facts: &Facts) {
    table.property("hostname", facts.hostname.as_str());
    table.property("os", format!("{} ({})", facts.os_version, facts.os));
    table.property("kernel", format!("{} {}", facts.kernel, facts.arch));
    table.property("addresses", facts.addresses.join(" "));
    if !facts.exporters.is_empty() {
        table.property("exporters", facts.exporters.join(" "));
    }
    table.property("cpu", format!("{} x {}", facts.cpus, facts.cpu_model));
    table.property("memory", bytes_text(facts.memory_bytes));
    for disk in &facts.disks {
        let text = format!(
            "{} {}, {} of {} free",
            disk.mount,
            disk.kind,
            bytes_text(disk.free_bytes),
            bytes_text(disk.size_bytes)
        );
        table.property("disk", text);
    }
    table.property("virtualization", facts.virtualization.as_str());
    table.property("machine id", facts.machine_id.as_str());
}

fn skew_text(millis: i64) -> String {
    let text = duration_text(Duration::from_millis(millis.unsigned_abs()));
    if millis < 0 {
        format!("{text} behind")
    } else {
        format!("{text} ahead")
    }
}

pub(super) fn history(entries: &[HistoryEntry], now: Timestamp) -> Table {
    let mut table = Table::new(&["TIME", "AGE", "EVENT", "DETAILS", "BY"]);
    for entry in entries {
        table.row([
            entry.at.to_string().into(),
            age_cell(now, entry.at),
            entry.event.kind().into(),
            event_text(&entry.event).into(),
            entry.by.as_deref().unwrap_or_default().into(),
        ]);
    }
    table
}

/// The details of an event, `name=value`, in the API's own words.
pub(in super::super) fn event_text(event: &HostEvent) -> String {
    let Ok(Value::Object(fields)) = serde_json::to_value(event) else {
        return String::new();
    };
    let details = fields
        .iter()
        .filter(|(name, _)| *name != "kind")
        .map(|(name, value)| {
            let value = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            if value.contains(' ') {
                format!("{name}=\"{value}\"")
            } else {
                format!("{name}={value}")
            }
        });
    details.collect::<Vec<_>>().join(" ")
}
