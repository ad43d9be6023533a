//! `loopback monitoring`, and `loopback host metrics`.

use std::io::{IsTerminal as _, Read as _};

use api::Endpoint as _;
use api::v1::monitoring::{
    GetHostMetrics, ListMetricsTargets, ScrapeQuery, TargetFilter, TargetGroup,
};
use api::v1::{InWorkspace, OfHost};
use clap::Subcommand;

use super::host::{OneHost, selector};
use crate::app::{App, WorkspaceArg};
use crate::client::ClientError;
use crate::failure::Failure;
use crate::output::{Table, printable};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what Prometheus finds to scrape: hosts and their exporters
    Targets {
        /// Label selector: role=web,env!=dev,tier in (a,b),!legacy
        #[arg(long, short = 'l', value_parser = selector)]
        selector: Option<String>,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    let Command::Targets {
        selector,
        workspace,
    } = command;
    let (client, workspace) = app.in_workspace(&workspace)?;
    let path = InWorkspace { workspace };
    let filter = TargetFilter { selector };
    let groups = client.call::<ListMetricsTargets>(&path, &filter, &api::endpoint::Nothing {})?;
    app.out.write(&groups, |groups, _| table(groups))
}

fn table(groups: &[TargetGroup]) -> Table {
    let mut table = Table::new(&["HOST", "EXPORTER", "ADDRESS", "PATH"]);
    for group in groups {
        let label = |key: &str| {
            group
                .labels
                .get(key)
                .map(String::as_str)
                .unwrap_or_default()
        };
        table.row([
            label("instance").into(),
            label("loopback_exporter").into(),
            group.targets.join(" ").as_str().into(),
            label("__metrics_path__").into(),
        ]);
    }
    table
}

/// Prints the metrics of a host. What it wrote cannot drive a terminal.
pub(super) fn host_metrics(
    app: &mut App,
    host: &OneHost,
    exporter: Option<String>,
) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&host.workspace, &host.host)?;
    let path = OfHost { workspace, host };
    let mut stream = client.stream::<GetHostMetrics>(&path, &ScrapeQuery { exporter })?;
    let mut text = String::new();
    stream
        .read_to_string(&mut text)
        .map_err(|source| ClientError::Cut {
            url: format!("{}{}", client.base(), GetHostMetrics::PATH),
            source,
        })?;
    if std::io::stdout().is_terminal() {
        let lines: Vec<_> = text.lines().map(printable).collect();
        return app.out.line(&lines.join("\n"));
    }
    app.out.raw(text.as_bytes())
}
