//! How plugins look.

use api::v1::plugin::{
    FindingSeverity, Plugin, PluginFinding, PluginHealth, PluginLogLine, PluginState, RunningStatus,
};
use model::Timestamp;
use model::plugin::Workspaces;

use crate::commands::{age_cell, api_word};
use crate::output::{Cell, Table, Tone, printable, time_text};

pub(super) fn list(plugins: &[Plugin], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "KIND", "VERSION", "STATE", "RUNNING", "AGE"]);
    for plugin in plugins {
        let waiting = plugin.pending.as_ref();
        let version = match waiting {
            Some(pending) => format!(
                "{} ({} waits)",
                plugin.present.version, pending.version.version
            ),
            None => plugin.present.version.clone(),
        };
        table.row([
            plugin.name.as_str().into(),
            plugin.kind.as_str().into(),
            version.into(),
            state(plugin),
            running(plugin),
            age_cell(now, plugin.created_at),
        ]);
    }
    table
}

fn state(plugin: &Plugin) -> Cell {
    let tone = match plugin.state {
        PluginState::Enabled => Tone::Good,
        PluginState::Installed | PluginState::Disabled => Tone::Faint,
        PluginState::Quarantined => Tone::Bad,
    };
    Cell::new(api_word(&plugin.state)).tone(tone)
}

fn running(plugin: &Plugin) -> Cell {
    let Some(running) = &plugin.running else {
        return Cell::new("");
    };
    let tone = match running.status {
        RunningStatus::Ready => Tone::Good,
        RunningStatus::Loading => Tone::Warn,
        RunningStatus::Failed => Tone::Bad,
    };
    Cell::new(api_word(&running.status)).tone(tone)
}

pub(super) fn one(plugin: &Plugin, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("name", plugin.name.as_str());
    table.property("kind", plugin.kind.as_str());
    table.property("state", state(plugin));
    if let Some(quarantine) = &plugin.quarantine {
        let since = time_text(now, quarantine.since);
        let text = format!("{}, {since}", quarantine.reason);
        table.property("quarantined", Cell::new(text).tone(Tone::Bad));
    }
    if let Some(running) = &plugin.running {
        table.property("running", self::running(plugin));
        if let Some(reason) = &running.reason {
            table.property("because", Cell::new(reason).tone(Tone::Bad));
        }
        if let Some(health) = &running.health {
            let (word, tone) = if health.healthy {
                ("yes", Tone::Good)
            } else {
                ("no", Tone::Bad)
            };
            let text = format!("{word}, {}", time_text(now, health.at));
            table.property("healthy", Cell::new(text).tone(tone));
            findings(&mut table, &health.findings);
        }
        for (name, count) in &running.counters {
            table.property(name, count.to_string());
        }
    }
    let present = &plugin.present;
    table.property("version", present.version.as_str());
    table.property("digest", present.digest.to_string());
    table.property("description", present.description.to_string());
    table.property("source", present.source.as_str());
    let signed = Cell::new(present.signed_by.as_deref().unwrap_or("nobody"));
    let tone = if present.signed_by.is_some() {
        Tone::Good
    } else {
        Tone::Warn
    };
    table.property("signed by", signed.tone(tone));
    table.property("installed", time_text(now, present.installed_at));
    table.property("by", present.installed_by.as_str());
    if let Some(previous) = &plugin.previous {
        let text = format!("{} {}", previous.version, previous.digest);
        table.property("before", text);
    }
    let configuration = match (plugin.configured, plugin.configuration_revision) {
        (true, revision) => format!("{revision}"),
        (false, 0) => "none accepted yet".to_owned(),
        (false, revision) => format!("{revision}, not accepted by this version"),
    };
    table.property("configuration", configuration);
    granted(&mut table, plugin);
    for missing in &plugin.ungranted {
        let text = format!("{}: {}", missing.need, missing.what);
        table.property("not granted", Cell::new(text).tone(Tone::Warn));
    }
    waiting(&mut table, plugin);
    table
}

fn granted(table: &mut Table, plugin: &Plugin) {
    let grant = &plugin.grant;
    let workspaces = match &grant.workspaces {
        Workspaces::None => "none".to_owned(),
        Workspaces::All => "all".to_owned(),
        Workspaces::Only(these) => words(these),
    };
    table.property("workspaces", workspaces);
    for rule in &grant.http {
        let mut text = format!("{}: {}", rule.need, words(&rule.hosts));
        for (what, list) in [
            ("ports", words(&rule.ports)),
            ("networks", words(&rule.networks)),
            ("tls", words(&rule.tls_profiles)),
            ("secrets", words(&rule.secrets)),
        ] {
            if !list.is_empty() {
                text.push_str(&format!("; {what} {list}"));
            }
        }
        if rule.plain {
            text.push_str("; without TLS too");
        }
        table.property("http", text);
    }
    for (name, binding) in &grant.secrets {
        let how = if binding.reveal { ", read" } else { "" };
        let text = format!("{name}: {}/{}{how}", binding.workspace, binding.secret);
        table.property("secret", text);
    }
    for rule in &grant.datagrams {
        let text = format!(
            "{}: {} ports {}",
            rule.need,
            words(&rule.networks),
            words(&rule.ports)
        );
        table.property("datagrams", text);
    }
    if let Some(state) = grant.state {
        table.property("state", format!("{} values in each workspace", state.keys));
    }
}

fn waiting(table: &mut Table, plugin: &Plugin) {
    let Some(pending) = &plugin.pending else {
        return;
    };
    let version = &pending.version;
    let text = format!("{} {}", version.version, version.digest);
    table.property("waits", Cell::new(text).tone(Tone::Warn));
    for more in &pending.widening {
        let text = format!("{}: {}", more.need, more.what);
        table.property("needs more", Cell::new(text).tone(Tone::Warn));
    }
    for missing in &pending.ungranted {
        let text = format!("{}: {}", missing.need, missing.what);
        table.property("lacks", Cell::new(text).tone(Tone::Warn));
    }
}

/// What an upgrade that waits needs more.
pub(super) fn held(plugin: &Plugin) -> Table {
    let mut table = Table::of_one();
    table.property("name", plugin.name.as_str());
    table.property("runs", plugin.present.version.as_str());
    waiting(&mut table, plugin);
    let nothing_more = plugin
        .pending
        .as_ref()
        .is_some_and(|pending| pending.widening.is_empty() && pending.ungranted.is_empty());
    if nothing_more {
        table.property("why", "it does not accept the present configuration");
    }
    table
}

pub(super) fn health(health: &PluginHealth) -> Table {
    let mut table = Table::of_one();
    let (word, tone) = if health.healthy {
        ("yes", Tone::Good)
    } else {
        ("no", Tone::Bad)
    };
    table.property("healthy", Cell::new(word).tone(tone));
    table.property("took", format!("{} ms", health.took_ms));
    findings(&mut table, &health.findings);
    table
}

fn findings(table: &mut Table, found: &[PluginFinding]) {
    for finding in found {
        let tone = match finding.severity {
            FindingSeverity::Info => Tone::Plain,
            FindingSeverity::Warning => Tone::Warn,
            FindingSeverity::Error => Tone::Bad,
        };
        let text = match finding.at.as_str() {
            "" => finding.message.clone(),
            at => format!("{at}: {}", finding.message),
        };
        let name = api_word(&finding.severity);
        table.property(&name, Cell::new(text).tone(tone));
    }
}

pub(super) fn log_line(line: &PluginLogLine) -> String {
    let mut text = format!(
        "{} {:5} {} {}",
        line.at, line.level, line.call, line.message
    );
    for (name, value) in &line.fields {
        text.push_str(&format!(" {name}={value}"));
    }
    printable(&text)
}

fn words<T: std::fmt::Display>(list: &[T]) -> String {
    let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
    texts.join(" ")
}
