//! `loopback events`.
//!
//! In JSON every event is passed on as it came, the snapshot included, so that a
//! program can keep its own picture. In tables the snapshot is the list of hosts;
//! with `--follow` only changes are printed, one line each, and a snapshot that
//! comes again after a lost connection is compared with what was known, so that
//! nothing is missed and nothing is told twice.

use std::collections::BTreeMap;

use api::v1::event::WorkspaceEvent;
use api::v1::host::Host;
use clap::Args;
use model::Timestamp;
use model::host::Summary;
use model::ids::HostId;

use super::host::{event_text, tone};
use crate::app::{App, WorkspaceArg};
use crate::client::Followed;
use crate::failure::Failure;
use crate::output::{Format, Output, Table, Tone, duration_text, note, printable};

#[derive(Debug, Args)]
pub(super) struct Events {
    /// Go on with what changes, until interrupted; resumes by itself after a lost connection
    #[arg(long, short)]
    follow: bool,
    /// Go on after this event instead of beginning with a snapshot
    #[arg(long, value_name = "EVENT ID", requires = "follow")]
    since: Option<String>,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

pub(super) fn run(app: &mut App, command: &Events) -> Result<(), Failure> {
    let (client, workspace) = app.in_workspace(&command.workspace)?;
    let mut stream = client.events(workspace, command.since.clone());
    let mut picture = Picture {
        known: command.since.is_some(),
        ..Picture::default()
    };
    loop {
        match stream.next_event()? {
            Followed::Interrupted { why, pause } => {
                note(&format!(
                    "interrupted ({why}); connecting again in {}",
                    duration_text(pause)
                ));
                picture.interrupted();
            }
            Followed::Event { event, raw } => {
                let complete = matches!(event, Some(WorkspaceEvent::SnapshotEnd { .. }));
                match app.out.format() {
                    // One line each, also where the gateway wrote several.
                    Format::Json => app.out.line(&raw.replace('\n', " "))?,
                    Format::Table => {
                        let lines = event.map(|event| picture.learn(event)).unwrap_or_default();
                        for line in lines {
                            print(&mut app.out, &line)?;
                        }
                    }
                }
                if complete && !command.follow {
                    return if app.out.format() == Format::Table {
                        picture.print(&mut app.out)
                    } else {
                        Ok(())
                    };
                }
                if complete && app.out.format() == Format::Table {
                    note(&format!("following {} hosts", picture.hosts.len()));
                }
            }
        }
    }
}

/// One line to print.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    at: Option<Timestamp>,
    who: String,
    what: String,
    tone: Tone,
}

fn print(out: &mut Output, line: &Line) -> Result<(), Failure> {
    let at = line.at.unwrap_or_else(crate::app::now);
    let what = out.paint(&printable(&line.what), line.tone);
    out.line(&format!("{at}  {}  {what}", printable(&line.who)))
}

/// What is known of the hosts, and what is news.
#[derive(Debug, Default)]
struct Picture {
    hosts: BTreeMap<HostId, (String, Summary)>,
    /// The hosts of a snapshot that is being read.
    snapshot: BTreeMap<HostId, (String, Summary)>,
    /// Whether a snapshot was ever complete, or is not wanted.
    known: bool,
}

impl Picture {
    /// Takes an event in and says what is new.
    fn learn(&mut self, event: WorkspaceEvent) -> Vec<Line> {
        match event {
            WorkspaceEvent::Snapshot { host } => {
                self.snapshot.insert(host.id, (host.name, host.summary));
                Vec::new()
            }
            WorkspaceEvent::SnapshotEnd { .. } => self.compare(),
            WorkspaceEvent::HostChanged { host } => self.changed(&host).into_iter().collect(),
            WorkspaceEvent::HostHistory { host, at, event } => {
                let what = format!("{} {}", event.kind(), event_text(&event));
                vec![Line {
                    at: Some(at),
                    who: self.name(host),
                    what: what.trim_end().to_owned(),
                    tone: Tone::Plain,
                }]
            }
            WorkspaceEvent::MassLoss { hosts, at } => {
                let what = format!("{hosts} hosts lost together: automatic actions stand still");
                vec![Line {
                    at: Some(at),
                    who: "workspace".to_owned(),
                    what,
                    tone: Tone::Bad,
                }]
            }
            WorkspaceEvent::MassLossOver { at } => {
                let what = "hosts lost together are back".to_owned();
                vec![Line {
                    at: Some(at),
                    who: "workspace".to_owned(),
                    what,
                    tone: Tone::Good,
                }]
            }
        }
    }

    /// A snapshot that was cut off says nothing about who is missing from it.
    fn interrupted(&mut self) {
        self.snapshot.clear();
    }

    fn compare(&mut self) -> Vec<Line> {
        let before = std::mem::replace(&mut self.hosts, std::mem::take(&mut self.snapshot));
        if !std::mem::replace(&mut self.known, true) {
            return Vec::new();
        }
        let mut lines: Vec<Line> = self
            .hosts
            .iter()
            .filter_map(|(id, (name, now))| {
                transition(name, before.get(id).map(|(_, then)| *then), *now)
            })
            .collect();
        let gone = before.iter().filter(|(id, _)| !self.hosts.contains_key(id));
        lines.extend(
            gone.filter_map(|(_, (name, then))| transition(name, Some(*then), Summary::Retired)),
        );
        lines
    }

    fn changed(&mut self, host: &Host) -> Option<Line> {
        let before = self
            .hosts
            .insert(host.id, (host.name.clone(), host.summary));
        transition(&host.name, before.map(|(_, summary)| summary), host.summary)
    }

    fn name(&self, host: HostId) -> String {
        self.hosts
            .get(&host)
            .map_or_else(|| host.to_string(), |(name, _)| name.clone())
    }

    fn print(&self, out: &mut Output) -> Result<(), Failure> {
        out.write(&(), |(), _| {
            let mut table = Table::new(&["NAME", "STATE", "ID"]);
            for (id, (name, summary)) in &self.hosts {
                table.row([
                    name.as_str().into(),
                    super::host::summary_cell(*summary),
                    id.to_string().into(),
                ]);
            }
            table
        })
    }
}

fn transition(name: &str, before: Option<Summary>, now: Summary) -> Option<Line> {
    let what = match before {
        Some(before) if before == now => return None,
        Some(before) => format!("{before} -> {now}"),
        None => format!("new: {now}"),
    };
    Some(Line {
        at: None,
        who: name.to_owned(),
        what,
        tone: tone(now),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::host::{Connectivity, HostEvent, Membership};
    use model::labels::Labels;

    fn host(number: u8, summary: Summary) -> Box<Host> {
        let at = Timestamp::from_millis(0);
        Box::new(Host {
            id: HostId::new(at, [number; 10]),
            workspace: model::ids::WorkspaceId::new(at, [0; 10]),
            name: format!("h{number}"),
            display_name: None,
            summary,
            membership: Membership::Managed,
            connectivity: Connectivity::Connected,
            connectivity_since: at,
            last_seen_at: None,
            maintenance: None,
            labels: Labels::default(),
            ephemeral: false,
            clone_of: None,
            carrier: None,
            address: None,
            boot_id: None,
            agent_version: None,
            clock_skew_ms: None,
            certificate: None,
            facts: None,
            created_at: at,
            enrolled_at: None,
            retired_at: None,
        })
    }

    fn snapshot(picture: &mut Picture, hosts: &[(u8, Summary)]) -> Vec<String> {
        for (number, summary) in hosts {
            assert!(
                picture
                    .learn(WorkspaceEvent::Snapshot {
                        host: host(*number, *summary)
                    })
                    .is_empty()
            );
        }
        texts(picture.learn(WorkspaceEvent::SnapshotEnd {
            hosts: hosts.len() as u64,
        }))
    }

    fn texts(lines: Vec<Line>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| format!("{} {}", line.who, line.what))
            .collect()
    }

    use Summary::{Connected, Late, Unreachable};

    #[test]
    fn the_first_snapshot_is_no_news() {
        let mut picture = Picture::default();
        assert!(snapshot(&mut picture, &[(1, Connected), (2, Late)]).is_empty());
        assert_eq!(picture.hosts.len(), 2);
    }

    #[test]
    fn changes_of_state_are_told_and_others_are_not() {
        let mut picture = Picture::default();
        snapshot(&mut picture, &[(1, Connected)]);
        let mut change = |number, summary| {
            texts(picture.learn(WorkspaceEvent::HostChanged {
                host: host(number, summary),
            }))
        };
        assert_eq!(change(1, Late), ["h1 connected -> late"]);
        assert!(change(1, Late).is_empty());
        assert_eq!(change(2, Connected), ["h2 new: connected"]);
    }

    #[test]
    fn a_snapshot_after_a_lost_connection_tells_only_what_was_missed() {
        let mut picture = Picture::default();
        snapshot(
            &mut picture,
            &[(1, Connected), (2, Connected), (3, Connected)],
        );
        picture.learn(WorkspaceEvent::Snapshot {
            host: host(1, Connected),
        });
        picture.interrupted();
        let missed = snapshot(
            &mut picture,
            &[(1, Unreachable), (2, Connected), (4, Connected)],
        );
        assert_eq!(
            missed,
            [
                "h1 connected -> unreachable",
                "h4 new: connected",
                "h3 connected -> retired"
            ]
        );
    }

    #[test]
    fn history_names_the_host_and_the_details() {
        let mut picture = Picture::default();
        snapshot(&mut picture, &[(1, Connected)]);
        let event = HostEvent::LinkLost {
            reason: "idle timeout".to_owned(),
        };
        let id = host(1, Connected).id;
        let lines = picture.learn(WorkspaceEvent::HostHistory {
            host: id,
            at: Timestamp::from_millis(5),
            event,
        });
        assert_eq!(lines[0].at, Some(Timestamp::from_millis(5)));
        assert_eq!(texts(lines), ["h1 link_lost reason=\"idle timeout\""]);
    }
}
