//! `loopback power`: hosts on and off from the outside, and what came of it.

mod plan;
mod target;
mod wait;

use std::time::Duration;

use api::endpoint::Endpoint;
use api::v1::command::Targets;
use api::v1::power::{
    AskBulkPower, AskPower, BulkFilter, BulkPowerOff, BulkPowerOn, BulkPowerReset, CancelPowerBulk,
    CancelPowerOperation, GetHostPower, GetPowerOperation, HostPower, ListPowerBulks,
    ListPowerOperations, ObserveHostPower, PowerBulk, PowerOff, PowerOn, PowerOperation,
    PowerOperationFilter, PowerReset,
};
use api::v1::{InWorkspace, OfHost, OfPowerBulk, OfPowerOperation};
use clap::{ArgGroup, Args, Subcommand};
use model::Timestamp;
use model::ids::{PowerBulkId, PowerOperationId};
use model::power::{
    BootDevice, BootOnce, Confirmation, Observability, PowerAction, PowerOperationState, PowerState,
};

use self::wait::{wait_for, wait_for_many};
use super::host::selector;
use super::{RecentArg, age_cell, api_word, maybe_age};
use crate::app::{App, WorkspaceArg};
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, time_text};
use crate::parse::{duration, word};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show how hosts' power is, by whom, and how sure that is
    Status(Status),
    /// Turn hosts on
    On(On),
    /// Turn hosts off: ask them to shut down, or with --hard cut their power
    Off(Off),
    /// Restart hosts at once, without asking them
    Reset(Plain),
    /// Restart hosts by asking them: their agent if it is linked, else by the provider
    Reboot(Reboot),
    /// Cut hosts' power for a moment
    Cycle(Plain),
    /// Send hosts a non-maskable interrupt, which makes a kernel dump its memory or panic
    Nmi(Plain),
    /// List what was done, newest first
    #[command(visible_alias = "ls")]
    History(History),
    /// Show one operation, step by step
    Show(One),
    /// Wait until an operation has ended
    Wait(One),
    /// Call an operation or a bulk off: for certain what was not submitted
    Cancel(Cancel),
    /// List what was asked for many hosts, newest first
    Bulks {
        #[command(flatten)]
        recent: RecentArg,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// By which provider hosts are turned on and off
    #[command(subcommand)]
    Target(target::Command),
    /// Ask a provider which machines it knows, and which hosts they are
    Discover(target::Discover),
}

/// One host by name, or many.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("which").required(true).args(["host", "selector", "all"]))]
struct Which {
    /// The host's name or id
    host: Option<String>,
    /// The managed hosts whose labels match: role=web,env!=dev
    #[arg(long, short = 'l', value_parser = selector)]
    selector: Option<String>,
    /// Every managed host
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Status {
    #[command(flatten)]
    which: Which,
    /// Ask the providers now, and not what they said last
    #[arg(long)]
    now: bool,
}

/// How it is done and followed.
#[derive(Clone, Debug, Args)]
struct How {
    /// Wait for the end, and exit by it
    #[arg(long)]
    wait: bool,
    /// Say how it would be done and what speaks against it, and do nothing
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// The operation ends after this long, whatever has happened
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    timeout: Option<Duration>,
    /// What confirms it in production: the host's name, or the workspace's for many
    #[arg(long, value_name = "NAME")]
    confirm: Option<String>,
    /// Take back what waits on the host for this
    #[arg(long)]
    supersede: bool,
    /// Of many hosts: so many at a time [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    at_once: Option<u32>,
    /// Of many hosts: one goes first, and the others only if it worked
    #[arg(long)]
    canary: bool,
    /// Of many hosts: no more after so many failures, 0 for never [default: 3]
    #[arg(long, value_name = "N")]
    stop_after: Option<u32>,
}

/// What the next boot is from.
#[derive(Clone, Debug, Default, Args)]
struct Boot {
    /// Boot from this, once: disk, network, http, cdrom, usb, firmware_setup, diagnostics
    #[arg(long, value_name = "DEVICE", value_parser = word::<BootDevice>)]
    boot: Option<BootDevice>,
    /// With --boot http: what is loaded
    #[arg(long, value_name = "URL", requires = "boot")]
    boot_url: Option<model::names::Text>,
    /// Boot by UEFI, or by BIOS
    #[arg(long, value_name = "true|false", requires = "boot")]
    boot_uefi: Option<bool>,
}

impl Boot {
    fn once(self) -> Option<BootOnce> {
        Some(BootOnce {
            device: self.boot?,
            url: self.boot_url,
            uefi: self.boot_uefi,
        })
    }
}

#[derive(Clone, Debug, Args)]
pub(super) struct On {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    boot: Boot,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Off {
    #[command(flatten)]
    which: Which,
    /// Cut the power, without asking the host
    #[arg(long, conflicts_with = "then_hard")]
    hard: bool,
    /// Cut the power if it has not shut down after this long
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    then_hard: Option<Duration>,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Reboot {
    #[command(flatten)]
    which: Which,
    /// Reset it if it has not restarted after this long
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    then_hard: Option<Duration>,
    #[command(flatten)]
    boot: Boot,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Plain {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    boot: Boot,
    #[command(flatten)]
    how: How,
}

#[derive(Clone, Debug, Args)]
pub(super) struct History {
    /// Of this host
    host: Option<String>,
    /// Of this bulk
    #[arg(long)]
    bulk: Option<PowerBulkId>,
    /// Only what goes on
    #[arg(long)]
    open: bool,
    #[command(flatten)]
    recent: RecentArg,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Clone, Debug, Args)]
pub(super) struct One {
    /// Id of the operation
    operation: PowerOperationId,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Clone, Debug, Args)]
pub(super) struct Cancel {
    /// Id of the operation, or of the bulk
    id: String,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

/// What is asked for, of one host or of many.
struct Asked {
    action: PowerAction,
    then_hard: Option<Duration>,
    boot: Option<BootOnce>,
    how: How,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<u8, Failure> {
    match command {
        Command::Status(status) => show_status(app, &status).map(|()| 0),
        Command::On(on) => {
            let asked = Asked {
                action: PowerAction::On,
                then_hard: None,
                boot: on.boot.once(),
                how: on.how,
            };
            ask::<PowerOn, BulkPowerOn>(app, on.which, asked)
        }
        Command::Off(off) => {
            let asked = Asked {
                action: if off.hard {
                    PowerAction::Off
                } else {
                    PowerAction::Shutdown
                },
                then_hard: off.then_hard,
                boot: None,
                how: off.how,
            };
            ask::<PowerOff, BulkPowerOff>(app, off.which, asked)
        }
        Command::Reboot(reboot) => {
            let asked = Asked {
                action: PowerAction::Reboot,
                then_hard: reboot.then_hard,
                boot: reboot.boot.once(),
                how: reboot.how,
            };
            ask::<PowerReset, BulkPowerReset>(app, reboot.which, asked)
        }
        Command::Reset(plain) => restart(app, PowerAction::Reset, plain),
        Command::Cycle(plain) => restart(app, PowerAction::Cycle, plain),
        Command::Nmi(plain) => restart(app, PowerAction::Nmi, plain),
        Command::History(history) => list(app, &history).map(|()| 0),
        Command::Show(one) => {
            let (client, path) = at(app, &one)?;
            let operation = client.fetch::<GetPowerOperation>(&path)?;
            app.out.write(&operation, properties).map(|()| 0)
        }
        Command::Wait(one) => {
            let (client, path) = at(app, &one)?;
            let operation = client.fetch::<GetPowerOperation>(&path)?;
            wait_for(app, &client, operation)
        }
        Command::Cancel(cancel) => call_off(app, &cancel).map(|()| 0),
        Command::Bulks { recent, workspace } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let path = InWorkspace { workspace };
            let filter = BulkFilter::default();
            let page = client.list::<ListPowerBulks, _>(&path, &filter, recent.at_most())?;
            app.out
                .write(&page, |page, now| bulks(&page.items, now))
                .map(|()| 0)
        }
        Command::Target(command) => target::run(app, command).map(|()| 0),
        Command::Discover(discover) => target::discover(app, discover).map(|()| 0),
    }
}

fn restart(app: &mut App, action: PowerAction, plain: Plain) -> Result<u8, Failure> {
    let asked = Asked {
        action,
        then_hard: None,
        boot: plain.boot.once(),
        how: plain.how,
    };
    ask::<PowerReset, BulkPowerReset>(app, plain.which, asked)
}

fn ask<One, Many>(app: &mut App, which: Which, asked: Asked) -> Result<u8, Failure>
where
    One: Endpoint<Path = OfHost, Body = AskPower, Reply = PowerOperation>,
    Many: Endpoint<Path = InWorkspace, Body = AskBulkPower, Reply = PowerBulk>,
{
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let how = asked.how;
    if let Some(host) = &which.host {
        let (client, workspace, host) = app.on_host(&which.workspace, host)?;
        let body = AskPower {
            action: Some(asked.action),
            then_hard_after_ms: asked.then_hard.map(millis),
            boot: asked.boot,
            timeout_ms: how.timeout.map(millis),
            supersede: how.supersede,
            confirm: how.confirm,
        };
        let path = OfHost { workspace, host };
        if how.dry_run {
            return plan::of_one(app, &client, &path, &body);
        }
        let operation = client.send::<One>(&path, &body)?;
        if how.wait {
            return wait_for(app, &client, operation);
        }
        let said = app.out.say(&operation, |it| {
            format!(
                "{}: {} is {}; follow it with `loopback power wait {0}`",
                it.id, it.action, it.state
            )
        });
        return said.map(|()| 0);
    }
    let (client, workspace) = app.in_workspace(&which.workspace)?;
    let body = AskBulkPower {
        targets: Targets {
            hosts: Vec::new(),
            selector: Some(which.selector.unwrap_or_default()),
        },
        action: Some(asked.action),
        then_hard_after_ms: asked.then_hard.map(millis),
        boot: asked.boot,
        timeout_ms: how.timeout.map(millis),
        at_once: how.at_once,
        canary: how.canary,
        stop_after: how.stop_after,
        confirm: how.confirm,
    };
    let path = InWorkspace { workspace };
    if how.dry_run {
        return plan::of_many(app, &client, &path, &body);
    }
    let bulk = client.send::<Many>(&path, &body)?;
    if how.wait {
        return wait_for_many(app, &client, bulk);
    }
    let said = app.out.say(&bulk, |it| {
        format!(
            "{}: {} on {} hosts, {} at a time; see `loopback power bulks`",
            it.id, it.action, it.hosts, it.at_once
        )
    });
    said.map(|()| 0)
}

fn show_status(app: &mut App, status: &Status) -> Result<(), Failure> {
    let look = |client: &Client, path: &OfHost| {
        if status.now {
            client.fetch::<ObserveHostPower>(path)
        } else {
            client.fetch::<GetHostPower>(path)
        }
    };
    if let Some(host) = &status.which.host {
        let (client, workspace, host) = app.on_host(&status.which.workspace, host)?;
        let power = look(&client, &OfHost { workspace, host })?;
        return app.out.write(&power, facts);
    }
    let (client, workspace) = app.in_workspace(&status.which.workspace)?;
    let filter = api::v1::host::HostFilter {
        selector: status.which.selector.clone(),
        ..api::v1::host::HostFilter::default()
    };
    let path = InWorkspace { workspace };
    let hosts = client.list::<api::v1::host::ListHosts, _>(&path, &filter, None)?;
    let mut all = Vec::new();
    for host in hosts.items {
        let path = OfHost {
            workspace,
            host: host.id,
        };
        all.push((host.name, look(&client, &path)?));
    }
    let shown: Vec<_> = all.iter().map(|(_, power)| power).collect();
    app.out.write(&shown, |_, now| {
        let mut table = Table::new(&["HOST", "POWER", "KNOWN", "AGENT", "PROVIDER", "SEEN", "NOW"]);
        for (name, power) in &all {
            table.row(row(name, power, now));
        }
        table
    })
}

fn row(name: &str, power: &HostPower, now: Timestamp) -> [Cell; 7] {
    let doing = power.operations.first();
    [
        name.into(),
        state_cell(power),
        known_cell(power.observability),
        if power.agent.linked { "linked" } else { "away" }.into(),
        power
            .target
            .as_ref()
            .map_or_else(String::new, |it| it.plugin.to_string())
            .into(),
        maybe_age(now, power.observed.as_ref().map(|seen| seen.at)),
        doing
            .map_or_else(String::new, |it| format!("{} {}", it.action, it.state))
            .into(),
    ]
}

fn state_cell(power: &HostPower) -> Cell {
    let state = power.observed.as_ref().map(|seen| seen.state);
    let text = state.map_or("-", PowerState::as_str);
    let tone = match state {
        _ if power.contradiction.is_some() => Tone::Bad,
        Some(PowerState::On) => Tone::Good,
        Some(PowerState::Off | PowerState::Suspended) => Tone::Faint,
        Some(PowerState::Absent) => Tone::Bad,
        _ => Tone::Warn,
    };
    Cell::new(text).tone(tone)
}

fn known_cell(known: Observability) -> Cell {
    let tone = match known {
        Observability::Fresh => Tone::Good,
        Observability::Failing => Tone::Bad,
        Observability::Stale => Tone::Warn,
        Observability::Unconfigured
        | Observability::NeverChecked
        | Observability::NotObservable => Tone::Faint,
    };
    Cell::new(known.as_str()).tone(tone)
}

fn facts(power: &HostPower, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("host", power.host.to_string());
    table.property("observed", state_cell(power));
    if let Some(seen) = &power.observed {
        table.property(
            "provider says",
            format!("{} {}", seen.raw, time_text(now, seen.at)),
        );
    }
    table.property("known", known_cell(power.observability));
    if let Some(trouble) = &power.failing {
        table.property("failing", format!("{} [{}]", trouble.message, trouble.code));
    }
    if let Some(trouble) = &power.contradiction {
        table.property("contradiction", trouble.message.as_str());
    }
    let agent = if power.agent.linked { "linked" } else { "away" };
    let boot = power.agent.boot_id.as_deref().unwrap_or("unknown");
    table.property("agent", format!("{agent}, boot {boot}"));
    table.property(
        "desired",
        match power.desired.state {
            Some(state) => format!("{state}, {}", power.desired.mode),
            None => power.desired.mode.to_string(),
        },
    );
    if let Some(target) = &power.target {
        table.property(
            "provider",
            format!("{} at {}", target.plugin, target.address),
        );
        if target.never_off {
            table.property("never off", "yes");
        }
    }
    if let Some(support) = &power.support {
        let actions: Vec<_> = support.actions.iter().map(|it| it.as_str()).collect();
        table.property("can do", actions.join(" "));
    }
    for operation in &power.operations {
        table.property(
            "operation",
            format!("{} {} {}", operation.id, operation.action, operation.state),
        );
    }
    table
}

fn list(app: &mut App, history: &History) -> Result<(), Failure> {
    let (client, workspace) = app.in_workspace(&history.workspace)?;
    let host = match &history.host {
        Some(host) => Some(crate::lookup::host(&client, workspace, host)?),
        None => None,
    };
    let filter = PowerOperationFilter {
        host,
        bulk: history.bulk,
        open: history.open.then_some(true),
        ..PowerOperationFilter::default()
    };
    let path = InWorkspace { workspace };
    let page = client.list::<ListPowerOperations, _>(&path, &filter, history.recent.at_most())?;
    app.out.write(&page, |page, now| {
        let mut table = Table::new(&["ID", "HOST", "ACTION", "STATE", "PROOF", "BY", "AGE"]);
        for operation in &page.items {
            table.row([
                operation.id.to_string().into(),
                operation.host_name.as_str().into(),
                operation.action.as_str().into(),
                state(operation.state),
                operation
                    .confirmation
                    .map_or("", Confirmation::as_str)
                    .into(),
                operation.created_by.as_str().into(),
                age_cell(now, operation.created_at),
            ]);
        }
        table
    })
}

fn at(app: &App, one: &One) -> Result<(Client, OfPowerOperation), Failure> {
    let (client, workspace) = app.in_workspace(&one.workspace)?;
    let operation = one.operation;
    Ok((
        client,
        OfPowerOperation {
            workspace,
            operation,
        },
    ))
}

fn call_off(app: &mut App, cancel: &Cancel) -> Result<(), Failure> {
    let (client, workspace) = app.in_workspace(&cancel.workspace)?;
    if let Ok(bulk) = cancel.id.parse::<PowerBulkId>() {
        let found = client.fetch::<CancelPowerBulk>(&OfPowerBulk { workspace, bulk })?;
        return app
            .out
            .write(&found, |found, now| bulks(std::slice::from_ref(found), now));
    }
    let operation: PowerOperationId = cancel.id.parse().map_err(|_| {
        Failure::Usage("the id of an operation begins with pop_, that of a bulk with pwb_".into())
    })?;
    let path = OfPowerOperation {
        workspace,
        operation,
    };
    let found = client.fetch::<CancelPowerOperation>(&path)?;
    app.out.write(&found, properties)
}

fn bulks(bulks: &[PowerBulk], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ID",
        "ACTION",
        "STATE",
        "HOSTS",
        "WAITING",
        "ACTIVE",
        "SUCCEEDED",
        "FAILED",
        "AGE",
    ]);
    for bulk in bulks {
        table.row([
            bulk.id.to_string().into(),
            bulk.action.as_str().into(),
            bulk.state.as_str().into(),
            bulk.hosts.to_string().into(),
            bulk.waiting.to_string().into(),
            bulk.active.to_string().into(),
            bulk.succeeded.to_string().into(),
            bulk.failed.to_string().into(),
            age_cell(now, bulk.created_at),
        ]);
    }
    table
}

fn properties(operation: &PowerOperation, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("id", operation.id.to_string());
    table.property("host", operation.host_name.as_str());
    table.property("action", operation.action.as_str());
    table.property("state", state(operation.state));
    if let Some(confirmation) = operation.confirmation {
        table.property("proof", confirmation.as_str());
    }
    if let Some(trouble) = &operation.trouble {
        table.property("trouble", format!("{} [{}]", trouble.message, trouble.code));
    }
    if let Some(boot) = &operation.boot {
        table.property("boot", boot.device.as_str());
    }
    for step in &operation.steps {
        let here = if step.present { " (here)" } else { "" };
        table.property(
            "step",
            format!("{} by {}, {}{here}", step.action, step.by, step.when),
        );
    }
    if let Some(progress) = &operation.progress {
        let percent = progress
            .percent
            .map_or_else(String::new, |it| format!(" {it} %"));
        table.property("provider says", format!("{}{percent}", progress.message));
    }
    if let Some(cancel) = &operation.cancel {
        table.property("cancel", cancel.as_str());
    }
    table.property("by", operation.created_by.as_str());
    if let Some(ticket) = &operation.ticket {
        table.property("ticket", ticket.as_str());
    }
    table.property("asked for", time_text(now, operation.created_at));
    table.property("ends by", time_text(now, operation.deadline));
    for happened in &operation.history {
        let more = happened
            .message
            .as_deref()
            .map_or_else(String::new, |it| format!(": {it}"));
        table.property(
            "then",
            format!("{} {}{more}", time_text(now, happened.at), happened.state),
        );
    }
    table
}

fn state(state: PowerOperationState) -> Cell {
    let tone = match state {
        PowerOperationState::Succeeded => Tone::Good,
        PowerOperationState::Failed
        | PowerOperationState::TimedOut
        | PowerOperationState::OutcomeUnknown => Tone::Bad,
        PowerOperationState::Cancelled | PowerOperationState::Superseded => Tone::Faint,
        _ => Tone::Warn,
    };
    Cell::new(api_word(&state)).tone(tone)
}
