//! `loopback host`.

mod diagnose;
mod view;

use std::collections::BTreeMap;

use api::page::Paging;
use api::v1::host::{
    CreateHost, CreateHostRecord, EndHostMaintenance, GetHost, HostFilter, ListHostHistory,
    ListHosts, RepairClone, RepairHostClone, RetireHost, RetireHostRecord, SetHostMaintenance,
    SetMaintenance, UpdateHost, UpdateHostRecord,
};
use api::v1::{InWorkspace, OfHost};
use clap::{ArgGroup, Args, Subcommand};
use model::host::{CloneRepair, Connectivity, Membership, Summary};
use model::names::Text;
use model::selector::Selector;

use super::{LimitArg, RecentArg};
use crate::app::{App, WorkspaceArg, now};
use crate::failure::Failure;
use crate::parse::{When, label, label_change, labels, when, word};

pub(super) use view::{event_text, summary_cell, tone};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List hosts; retired ones only with --membership retired
    #[command(visible_alias = "ls")]
    List(List),
    /// Show a host: its states, identity and facts
    Show(OneHost),
    /// Put a host into the inventory before its agent exists
    Create {
        /// An agent that joins under this hostname becomes this host
        hostname: String,
        /// What to call it
        #[arg(long)]
        name: Option<Text>,
        /// Label to give it; repeatable
        #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
        labels: Vec<(String, String)>,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Give a host another name; an empty one goes back to its hostname
    Rename {
        #[command(flatten)]
        host: OneHost,
        /// New name
        name: Text,
    },
    /// Set labels with key=value, take them away with key-
    Label {
        #[command(flatten)]
        host: OneHost,
        /// Changes
        #[arg(required = true, value_parser = label_change, value_name = "KEY=VALUE|KEY-")]
        changes: Vec<(String, Option<String>)>,
    },
    /// Announce a planned absence, or end it
    Maintenance(Maintenance),
    /// Show what happened to a host, newest first
    History {
        #[command(flatten)]
        host: OneHost,
        #[command(flatten)]
        recent: RecentArg,
    },
    /// Print a host's metrics in the Prometheus text format
    Metrics {
        #[command(flatten)]
        host: OneHost,
        /// Of this exporter on the host, instead of the agent's own
        #[arg(long, value_name = "NAME")]
        exporter: Option<String>,
    },
    /// Look into a host: gather a bundle of diagnostics, or print one section
    #[command(after_help = diagnose::after_help())]
    Diagnose(diagnose::Diagnose),
    /// Retire a host for good: its identity is never accepted again
    Retire {
        #[command(flatten)]
        host: OneHost,
        /// For the history
        #[arg(long, default_value = "", hide_default_value = true)]
        reason: Text,
    },
    /// Suspected clone: they are two machines, the newcomer becomes a host of its own
    Split(OneHost),
    /// Suspected clone: the newcomer takes the place of the original, whose identity ends
    Replace(OneHost),
    /// Suspected clone: they are one machine, say from a restored disk; its two lives become one
    Merge(OneHost),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Label selector: role=web,env!=dev,tier in (a,b),!legacy
    #[arg(long, short = 'l', value_parser = selector)]
    selector: Option<String>,
    /// With this one word: connected, late, unreachable, unconfirmed, maintenance, quarantined, unknown, retired
    #[arg(long, short, value_parser = word::<Summary>)]
    summary: Option<Summary>,
    /// With this membership: unknown, managed, quarantined, retired
    #[arg(long, short, value_parser = word::<Membership>)]
    membership: Option<Membership>,
    /// With this connectivity: never, connected, late, unreachable, unconfirmed
    #[arg(long, short, value_parser = word::<Connectivity>)]
    connectivity: Option<Connectivity>,
    /// Whose name or hostname contains this
    #[arg(long, short)]
    name: Option<String>,
    #[command(flatten)]
    limit: LimitArg,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(super) struct OneHost {
    /// Name or id of the host
    pub(super) host: String,
    #[command(flatten)]
    pub(super) workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("action").required(true).args(["until", "end"]))]
pub(super) struct Maintenance {
    #[command(flatten)]
    host: OneHost,
    /// How long, or until when: 2h, or a time
    #[arg(long = "for", visible_alias = "until", value_parser = when, value_name = "WHEN")]
    until: Option<When>,
    /// Why
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: Text,
    /// End it now
    #[arg(long, conflicts_with = "reason")]
    end: bool,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List(command) => list_hosts(app, command),
        Command::Show(host) => show_host(app, &host),
        Command::Create {
            hostname,
            name,
            labels: pairs,
            workspace,
        } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let body = CreateHost {
                display_name: name,
                labels: labels(&pairs)?,
                hostname,
            };
            let host = client.send::<CreateHostRecord>(&InWorkspace { workspace }, &body)?;
            app.out.write(&host, view::properties)
        }
        Command::Rename { host, name } => update_host(
            app,
            &host,
            &UpdateHost {
                display_name: Some(name),
                labels: BTreeMap::new(),
            },
        ),
        Command::Label { host, changes } => update_host(
            app,
            &host,
            &UpdateHost {
                display_name: None,
                labels: changes.into_iter().collect(),
            },
        ),
        Command::Maintenance(command) => maintain_host(app, command),
        Command::History { host, recent } => list_host_history(app, &host, recent),
        Command::Metrics { host, exporter } => {
            super::monitoring::host_metrics(app, &host, exporter)
        }
        Command::Diagnose(command) => diagnose::run(app, command),
        Command::Retire { host, reason } => {
            let (client, workspace, id) = app.on_host(&host.workspace, &host.host)?;
            app.confirm(&format!("Retire host {} ({id}) for good?", host.host))?;
            let host = client.send::<RetireHostRecord>(
                &OfHost {
                    workspace,
                    host: id,
                },
                &RetireHost { reason },
            )?;
            app.out.write(&host, view::properties)
        }
        Command::Split(host) => repair_host_clone(app, &host, CloneRepair::Split),
        Command::Replace(host) => repair_host_clone(app, &host, CloneRepair::Replace),
        Command::Merge(host) => repair_host_clone(app, &host, CloneRepair::Merge),
    }
}

fn list_hosts(app: &mut App, command: List) -> Result<(), Failure> {
    let (client, workspace) = app.in_workspace(&command.workspace)?;
    let filter = HostFilter {
        selector: command.selector,
        summary: command.summary,
        membership: command.membership,
        connectivity: command.connectivity,
        name: command.name,
        limit: None,
        after: None,
    };
    let page = client.list::<ListHosts, _>(
        &InWorkspace { workspace },
        &filter,
        command.limit.at_most(),
    )?;
    app.out
        .write(&page, |page, now| view::table(&page.items, now))
}

fn show_host(app: &mut App, host: &OneHost) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&host.workspace, &host.host)?;
    let host = client.fetch::<GetHost>(&OfHost { workspace, host })?;
    app.out.write(&host, view::properties)
}

fn update_host(app: &mut App, host: &OneHost, body: &UpdateHost) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&host.workspace, &host.host)?;
    let host = client.send::<UpdateHostRecord>(&OfHost { workspace, host }, body)?;
    app.out.write(&host, view::properties)
}

fn maintain_host(app: &mut App, command: Maintenance) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&command.host.workspace, &command.host.host)?;
    let path = OfHost { workspace, host };
    let host = match command.until {
        Some(until) => {
            let body = SetMaintenance {
                until: until.from(now()),
                reason: command.reason,
            };
            client.send::<SetHostMaintenance>(&path, &body)?
        }
        None => client.fetch::<EndHostMaintenance>(&path)?,
    };
    app.out.write(&host, view::properties)
}

fn list_host_history(app: &mut App, host: &OneHost, recent: RecentArg) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&host.workspace, &host.host)?;
    let page = client.list::<ListHostHistory, _>(
        &OfHost { workspace, host },
        &Paging::default(),
        recent.at_most(),
    )?;
    app.out
        .write(&page, |page, now| view::history(&page.items, now))
}

fn repair_host_clone(app: &mut App, host: &OneHost, repair: CloneRepair) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&host.workspace, &host.host)?;
    let host =
        client.send::<RepairHostClone>(&OfHost { workspace, host }, &RepairClone { repair })?;
    app.out.write(&host, view::properties)
}

/// Checked here, so that a mistake is told before anything is asked of the
/// gateway; sent as it was written.
pub(super) fn selector(text: &str) -> Result<String, String> {
    text.parse::<Selector>()
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_pass_through_as_they_were_written() {
        for text in ["role=web,env!=dev", "tier in (a, b),!legacy", ""] {
            assert_eq!(selector(text).unwrap(), text);
        }
        assert!(
            selector("role=we b")
                .unwrap_err()
                .contains("selector term 1")
        );
    }
}
