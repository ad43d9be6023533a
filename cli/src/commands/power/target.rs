//! `loopback power target` and `loopback power discover`.

use std::path::PathBuf;

use api::v1::InWorkspace;
use api::v1::OfHost;
use api::v1::plugin::{FindingSeverity, PluginFinding};
use api::v1::power::{
    CheckPowerTarget, DesiredPower, DiscoverPower, DiscoverPowerTargets, GetHostPower, PowerCheck,
    PowerTarget, RemovePowerTarget, SetPowerTarget,
};
use clap::{Args, Subcommand};
use model::names::{Name, Text};
use model::power::{PowerMode, PowerState};
use serde_json::{Map, Value};

use super::facts;
use crate::app::{App, WorkspaceArg};
use crate::connection::read_text;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone};
use crate::parse::word;

#[derive(Debug, Subcommand)]
pub(in crate::commands) enum Command {
    /// Say by which provider a host is turned on and off
    Set(Box<Set>),
    /// Show it
    Show(On),
    /// Have the provider say whether it works; changes nothing
    Check(On),
    /// Take it away
    #[command(visible_alias = "rm")]
    Remove(On),
}

#[derive(Debug, Args)]
pub(in crate::commands) struct On {
    /// The host's name or id
    host: String,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct Set {
    #[command(flatten)]
    on: On,
    /// A power provider among the plugins
    #[arg(long, value_name = "PLUGIN")]
    provider: Name,
    /// How the provider knows the machine
    #[arg(long)]
    address: String,
    /// What else it is told, as JSON where that fits, else as text; repeatable
    #[arg(long = "param", value_name = "KEY=VALUE", value_parser = pair)]
    params: Vec<(String, String)>,
    /// The same, as a JSON object in a file
    #[arg(long, value_name = "FILE", conflicts_with = "params")]
    params_file: Option<PathBuf>,
    /// A secret of this workspace, by the provider's name for it; repeatable
    #[arg(long = "secret", value_name = "NAME=SECRET", value_parser = names)]
    secrets: Vec<(Name, Name)>,
    /// A TLS profile of the plugin's grant
    #[arg(long, value_name = "PROFILE")]
    tls_profile: Option<Name>,
    /// A route of the plugin's grant
    #[arg(long, value_name = "ROUTE")]
    route: Option<Name>,
    /// What is told one thing after the other [default: the host of the address]
    #[arg(long, value_name = "TEXT")]
    endpoint: Option<Text>,
    /// Never turn it off or restart it, whoever asks
    #[arg(long)]
    never_off: bool,
    /// What is done when the power is not as desired: observe, alert, enforce
    #[arg(long, value_name = "MODE", default_value = "observe", value_parser = word::<PowerMode>)]
    mode: PowerMode,
    /// How it should be: on or off
    #[arg(long, value_name = "STATE", value_parser = word::<PowerState>)]
    desired: Option<PowerState>,
}

#[derive(Debug, Args)]
pub(in crate::commands) struct Discover {
    /// A power provider among the plugins
    provider: Name,
    /// Give each machine that is a host here, and no other provider's, its target
    #[arg(long)]
    link: bool,
    /// A secret of this workspace, by the provider's name for it; repeatable. With --link the
    /// targets get them, too
    #[arg(long = "secret", value_name = "NAME=SECRET", value_parser = names)]
    secrets: Vec<(Name, Name)>,
    /// With --link: a TLS profile of the plugin's grant
    #[arg(long, value_name = "PROFILE", requires = "link")]
    tls_profile: Option<Name>,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn names(text: &str) -> Result<(Name, Name), String> {
    let (name, secret) = text.split_once('=').unwrap_or((text, text));
    let parse = |text: &str| text.parse::<Name>().map_err(|error| error.to_string());
    Ok((parse(name)?, parse(secret)?))
}

pub(in crate::commands) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::Set(set) => {
            let (client, workspace, host) = app.on_host(&set.on.workspace, &set.on.host)?;
            let body = PowerTarget {
                plugin: set.provider,
                address: set.address,
                params: params(set.params, set.params_file)?,
                secrets: set.secrets.into_iter().collect(),
                tls_profile: set.tls_profile,
                route: set.route,
                endpoint: set.endpoint,
                never_off: set.never_off,
                desired: DesiredPower {
                    mode: set.mode,
                    state: set.desired,
                },
            };
            let power = client.send::<SetPowerTarget>(&OfHost { workspace, host }, &body)?;
            app.out.write(&power, facts)
        }
        Command::Show(on) => {
            let (client, workspace, host) = app.on_host(&on.workspace, &on.host)?;
            let power = client.fetch::<GetHostPower>(&OfHost { workspace, host })?;
            app.out.write(&power, facts)
        }
        Command::Check(on) => {
            let (client, workspace, host) = app.on_host(&on.workspace, &on.host)?;
            let check = client.fetch::<CheckPowerTarget>(&OfHost { workspace, host })?;
            app.out.write(&check, |check, _| findings(check))
        }
        Command::Remove(on) => {
            let (client, workspace, host) = app.on_host(&on.workspace, &on.host)?;
            app.confirm(&format!("Take the power provider away from {}?", on.host))?;
            let nothing = client.fetch::<RemovePowerTarget>(&OfHost { workspace, host })?;
            app.out
                .say(&nothing, |_| format!("{} has no power provider", on.host))
        }
    }
}

fn params(pairs: Vec<(String, String)>, file: Option<PathBuf>) -> Result<Value, Failure> {
    if let Some(file) = file {
        let text = read_text(&file, "read the parameters in")?;
        return serde_json::from_str(&text)
            .map_err(|error| Failure::Usage(format!("{}: {error}", file.display())));
    }
    let read = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let object: Map<_, _> = pairs
        .into_iter()
        .map(|(key, value)| (key, read(value)))
        .collect();
    Ok(Value::Object(object))
}

fn findings(check: &PowerCheck) -> Table {
    let mut table = Table::of_one();
    let (word, tone) = if check.ok {
        ("works", Tone::Good)
    } else {
        ("does not work", Tone::Bad)
    };
    table.property("target", Cell::new(word).tone(tone));
    if let Some(seen) = &check.observed {
        table.property("observed", format!("{} ({})", seen.state, seen.raw));
    }
    if let Some(support) = &check.support {
        let actions: Vec<_> = support.actions.iter().map(|it| it.as_str()).collect();
        table.property("can do", actions.join(" "));
    }
    for found in &check.findings {
        let (name, text) = finding(found);
        table.property(name, text);
    }
    table
}

/// A finding's severity and text.
fn finding(found: &PluginFinding) -> (&'static str, String) {
    let name = match found.severity {
        FindingSeverity::Error => "error",
        FindingSeverity::Warning => "warning",
        _ => "note",
    };
    let at = if found.at.is_empty() {
        String::new()
    } else {
        format!("{}: ", found.at)
    };
    (name, format!("{at}{}", found.message))
}

pub(in crate::commands) fn discover(app: &mut App, discover: Discover) -> Result<(), Failure> {
    let (client, workspace) = app.in_workspace(&discover.workspace)?;
    let mut found = Vec::new();
    let mut cursor = None;
    loop {
        let body = DiscoverPower {
            plugin: discover.provider.clone(),
            secrets: discover.secrets.iter().cloned().collect(),
            cursor,
        };
        let page = client.send::<DiscoverPowerTargets>(&InWorkspace { workspace }, &body)?;
        found.extend(page.found);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if discover.link {
        for machine in found.iter_mut().filter(|machine| !machine.linked) {
            let Some(host) = machine.host else { continue };
            let path = OfHost { workspace, host };
            // A target that somebody set is not replaced by a guess.
            if client.fetch::<GetHostPower>(&path)?.target.is_some() {
                continue;
            }
            let body = PowerTarget {
                plugin: discover.provider.clone(),
                address: machine.address.clone(),
                params: machine.params.clone(),
                secrets: discover.secrets.iter().cloned().collect(),
                tls_profile: discover.tls_profile.clone(),
                route: None,
                endpoint: None,
                never_off: false,
                desired: DesiredPower::default(),
            };
            client.send::<SetPowerTarget>(&path, &body)?;
            machine.linked = true;
        }
    }
    app.out.write(&found, |found, _| {
        let mut table = Table::new(&["NAME", "ADDRESS", "POWER", "HOST", "BY", "LINKED"]);
        for machine in found {
            table.row([
                machine.name.as_str().into(),
                machine.address.as_str().into(),
                machine.state.as_str().into(),
                machine
                    .host
                    .map_or_else(String::new, |host| host.to_string())
                    .into(),
                machine.matched_by.as_deref().unwrap_or_default().into(),
                super::super::yes_no(machine.linked).into(),
            ]);
        }
        table
    })
}
