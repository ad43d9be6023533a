//! One section on the screen: as a table where that helps, as text, or as JSON.

use std::io::IsTerminal as _;
use std::time::Duration;

use api::v1::OfDiagnostic;
use api::v1::diagnose::{DiagnosticOptions, GetHostDiagnostic};
use model::diagnose::{
    Disks, Network, NetworkCheck, Outcome, Process, Processes, Section, Sockets, Units,
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Diagnose, NOTHING};
use crate::app::App;
use crate::failure::Failure;
use crate::follow::escape::Neutraliser;
use crate::output::{Cell, Format, Table, Tone, bytes_text, duration_text, note, printable};

pub(super) fn run(
    app: &mut App,
    command: &Diagnose,
    section: Section,
    targets: Option<String>,
) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&command.host.workspace, &command.host.host)?;
    let path = OfDiagnostic {
        workspace,
        host,
        section,
    };
    let options = DiagnosticOptions {
        unit: command.unit.clone(),
        lines: command.lines,
        targets,
    };
    let told = client.call::<GetHostDiagnostic>(&path, &options, &NOTHING)?;
    match app.out.format() {
        Format::Json => app.out.json(&told)?,
        Format::Table => match (&told.document, &told.text) {
            (Some(document), _) => match table(section, document, command.all) {
                Some(table) => app.out.write(document, |_, _| table)?,
                None => plain(app, document)?,
            },
            (None, Some(text)) => write_text(app, text)?,
            (None, None) => {}
        },
    }
    match told.report.outcome {
        Outcome::Ok => Ok(()),
        Outcome::Partial => {
            note(&format!("not all is there: {}", told.report.reason));
            Ok(())
        }
        Outcome::Failed => {
            let why = printable(&told.report.reason);
            Err(Failure::SectionsFailed(format!("{section}: {why}")))
        }
    }
}

/// In files and pipes as it is; on a terminal nothing of it is obeyed.
fn write_text(app: &mut App, text: &str) -> Result<(), Failure> {
    if !std::io::stdout().is_terminal() {
        return app.out.raw(text.as_bytes());
    }
    let mut shown = Vec::new();
    let mut neutraliser = Neutraliser::default();
    neutraliser.push(text.as_bytes(), &mut shown);
    neutraliser.finish(&mut shown);
    app.out.raw(&shown)
}

fn plain(app: &mut App, document: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(document).map_err(Failure::Json)?;
    for line in text.lines() {
        app.out.line(&printable(line))?;
    }
    Ok(())
}

/// Nothing for what no table would make clearer, and for what is not understood.
fn table(section: Section, document: &Value, all: bool) -> Option<Table> {
    match section {
        Section::Processes => Some(processes(read(document)?)),
        Section::Disks => Some(disks(&read(document)?)),
        Section::Sockets => Some(sockets(&read(document)?, all)),
        Section::Units => Some(units(&read(document)?, all)),
        Section::Network => Some(network(&read(document)?)),
        Section::System | Section::Agent | Section::Kernel | Section::Journal => None,
    }
}

fn read<T: DeserializeOwned>(document: &Value) -> Option<T> {
    T::deserialize(document).ok()
}

/// Stuck ones first, then who has used most of the processor.
fn processes(mut shown: Processes) -> Table {
    shown
        .processes
        .sort_by_key(|it| (it.state != "D", std::cmp::Reverse(it.cpu_ms)));
    let mut table = Table::new(&[
        "PID", "PARENT", "UID", "STATE", "CPU", "MEMORY", "AGE", "COMMAND",
    ]);
    for it in &shown.processes {
        let tone = match it.state.as_str() {
            "D" => Tone::Bad,
            "Z" | "T" => Tone::Warn,
            _ => Tone::Plain,
        };
        table.row([
            it.pid.to_string().into(),
            it.ppid.to_string().into(),
            it.uid.to_string().into(),
            Cell::new(&it.state).tone(tone),
            duration_text(Duration::from_millis(it.cpu_ms)).into(),
            bytes_text(it.rss_bytes).into(),
            duration_text(Duration::from_secs(it.age_secs)).into(),
            command(it).into(),
        ]);
    }
    table
}

fn command(it: &Process) -> String {
    if it.args.is_empty() {
        format!("[{}] {}", it.name, it.waits_in)
    } else {
        it.args.join(" ")
    }
}

fn disks(shown: &Disks) -> Table {
    let mut table = Table::new(&[
        "MOUNT", "TYPE", "SIZE", "FREE", "USED", "FILES", "SOURCE", "TROUBLE",
    ]);
    for it in &shown.disks {
        let used = percent(it.size_bytes, it.available_bytes);
        let trouble = match (it.trouble.is_empty(), it.read_only) {
            (false, _) => it.trouble.as_str(),
            (true, true) => "read-only",
            (true, false) => "",
        };
        table.row([
            it.mount.as_str().into(),
            it.kind.as_str().into(),
            bytes_text(it.size_bytes).into(),
            bytes_text(it.available_bytes).into(),
            filled(used),
            filled(percent(it.inodes, it.inodes_free)),
            it.source.as_str().into(),
            Cell::new(trouble).tone(Tone::Warn),
        ]);
    }
    table
}

fn percent(all: u64, free: u64) -> Option<u64> {
    let used = u128::from(all.saturating_sub(free)) * 100;
    used.checked_div(u128::from(all))
        .and_then(|it| u64::try_from(it).ok())
}

fn filled(percent: Option<u64>) -> Cell {
    let Some(percent) = percent else {
        return Cell::new("");
    };
    Cell::new(format!("{percent}%")).tone(match percent {
        95.. => Tone::Bad,
        85.. => Tone::Warn,
        _ => Tone::Plain,
    })
}

/// Without `all`, none of those that only connect programs of one machine.
fn sockets(shown: &Sockets, all: bool) -> Table {
    let mut table = Table::new(&[
        "PROTOCOL", "STATE", "LOCAL", "REMOTE", "RECEIVED", "TO SEND", "UID", "PROCESS",
    ]);
    let wanted =
        |protocol: &str, state: &str| all || !protocol.starts_with("unix") || state == "listen";
    for it in &shown.sockets {
        if !wanted(&it.protocol, &it.state) {
            continue;
        }
        let process = it.pid.map(|pid| format!("{pid} {}", it.process));
        table.row([
            it.protocol.as_str().into(),
            it.state.as_str().into(),
            it.local.as_str().into(),
            it.remote.as_str().into(),
            it.receive_queue.to_string().into(),
            it.send_queue.to_string().into(),
            it.uid.to_string().into(),
            process.unwrap_or_default().into(),
        ]);
    }
    table
}

/// Without `all`, only those that are there and of interest: what failed, and services.
fn units(shown: &Units, all: bool) -> Table {
    let mut table = Table::new(&["UNIT", "LOADED", "ACTIVE", "STATE", "DESCRIPTION"]);
    for it in &shown.units {
        let service = it.name.ends_with(".service") && it.active == "active";
        if !(all || service || it.active == "failed") {
            continue;
        }
        let tone = match it.active.as_str() {
            "failed" => Tone::Bad,
            "active" => Tone::Good,
            _ => Tone::Plain,
        };
        table.row([
            it.name.as_str().into(),
            it.load.as_str().into(),
            Cell::new(&it.active).tone(tone),
            it.sub.as_str().into(),
            it.description.as_str().into(),
        ]);
    }
    for details in &shown.details {
        for (name, value) in &details.properties {
            table.row([
                details.name.as_str().into(),
                name.as_str().into(),
                value.as_str().into(),
            ]);
        }
        for line in &details.journal {
            table.row([details.name.as_str().into(), "journal".into(), line.into()]);
        }
    }
    table
}

fn network(shown: &Network) -> Table {
    let mut table = Table::new(&["ABOUT", "NAME", "OUTCOME", "WHAT"]);
    let mut checks = |about: &str, checks: &[NetworkCheck]| {
        for it in checks {
            let tone = match it.outcome.as_str() {
                "ok" => Tone::Good,
                "warn" => Tone::Warn,
                "fail" => Tone::Bad,
                _ => Tone::Faint,
            };
            table.row([
                about.into(),
                it.name.as_str().into(),
                Cell::new(&it.outcome).tone(tone),
                it.what.as_str().into(),
            ]);
        }
    };
    checks("gateway", &shown.gateway);
    checks("target", &shown.targets);
    for it in &shown.interfaces {
        let errors = it.receive_errors.saturating_add(it.send_errors);
        let what = format!(
            "{} in, {} out, {errors} errors",
            bytes_text(it.received_bytes),
            bytes_text(it.sent_bytes)
        );
        table.row([
            "interface".into(),
            it.name.as_str().into(),
            it.state.as_str().into(),
            what.into(),
        ]);
    }
    for it in &shown.addresses {
        table.row(["address".into(), it.into()]);
    }
    for it in &shown.routes {
        let via = format!("{} {}", it.via, it.interface);
        table.row([
            "route".into(),
            it.to.as_str().into(),
            "".into(),
            via.trim().into(),
        ]);
    }
    for it in &shown.nameservers {
        table.row(["nameserver".into(), it.into()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_shows_what_is_broken_first_and_nothing_drives_the_terminal() {
        let document = json!({ "processes": [
            { "pid": 1, "state": "S", "cpu_ms": 5, "args": ["init"], "later": 1 },
            { "pid": 7, "state": "D", "name": "stuck", "waits_in": "nfs\u{1b}[2J" },
        ]});
        let text = table(Section::Processes, &document, false).unwrap().plain();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("7 "), "{text}");
        assert!(!text.contains('\u{1b}'));
        let disks = json!({ "disks": [{ "mount": "/", "size_bytes": 100, "available_bytes": 1, "read_only": true }] });
        let text = table(Section::Disks, &disks, false).unwrap().plain();
        assert!(text.contains("99%") && text.contains("read-only"), "{text}");
        assert!(table(Section::Units, &json!([1]), false).is_none());
    }
}
