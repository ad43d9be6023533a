//! `loopback plugin`: what operators do with plugins, and the way to what authors do.

mod dead_letters;
mod grant;
mod offline;
mod show;
mod source;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::Paging;
use api::endpoint::Nothing;
use api::v1::plugin::*;
use clap::Subcommand;
use model::names::Name;

use source::{SignatureArg, Source};

use super::LimitArg;
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Format, note, printable};

/// Between questions for new log lines.
const FOLLOW_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List plugins
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        limit: LimitArg,
    },
    /// Install a plugin; it may do nothing until it is granted something
    Install {
        /// A file, or oci://REGISTRY/REPOSITORY:TAG, which the gateway fetches
        #[arg(value_name = "SOURCE", value_parser = Source::parser())]
        source: Source,
        /// What to call it [default: what its author calls it]
        #[arg(long)]
        name: Option<Name>,
        #[command(flatten)]
        signature: SignatureArg,
    },
    /// Show a plugin: what it needs, what it was given, how it is
    Show {
        /// Its name
        name: Name,
    },
    /// Say what a plugin may do: with -f all of it, with the other options what is added
    Grant(Box<grant::Grant>),
    /// Configure a plugin
    Configure {
        /// Its name
        name: Name,
        /// The configuration, JSON; - for standard input. Without it the present one is shown
        #[arg(long, short, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Let a plugin run
    Enable {
        /// Its name
        name: Name,
    },
    /// Turn a plugin off
    Disable {
        /// Its name
        name: Name,
    },
    /// Replace a plugin by another version; one that needs more is shown, and waits for --approve
    Upgrade {
        /// Its name
        name: Name,
        /// As for install. Not needed to approve one that waits
        #[arg(required_unless_present = "approve", value_name = "SOURCE", value_parser = Source::parser())]
        source: Option<Source>,
        /// Approve what it needs more, which was shown before
        #[arg(long)]
        approve: bool,
        #[command(flatten)]
        signature: SignatureArg,
    },
    /// Go back to the version before, with the configuration that it had
    Rollback {
        /// Its name
        name: Name,
    },
    /// Remove a plugin that is not enabled
    #[command(visible_alias = "rm")]
    Remove {
        /// Its name
        name: Name,
    },
    /// Have a plugin look whether it works
    Health {
        /// Its name
        name: Name,
    },
    /// Show what a plugin logs
    Logs {
        /// Its name
        name: Name,
        /// Go on with what comes
        #[arg(long, short)]
        follow: bool,
        /// Most lines to begin with
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Events that were given up for a notifier
    #[command(subcommand)]
    DeadLetters(dead_letters::Command),
    #[command(flatten)]
    Offline(offline::Verb),
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::Offline(verb) => offline::run(verb),
        Command::List { limit } => {
            let client = app.client()?;
            let paging = Paging::default();
            let page = client.list::<ListPlugins, _>(&Nothing {}, &paging, limit.at_most())?;
            app.out
                .write(&page, |page, now| show::list(&page.items, now))
        }
        Command::Install {
            source,
            name,
            signature,
        } => {
            let plugin = source.install(&app.client()?, name, &signature)?;
            app.out.write(&plugin, show::one)?;
            next_steps(&plugin);
            Ok(())
        }
        Command::Show { name } => {
            let plugin = app.client()?.fetch::<GetPlugin>(&of(name))?;
            app.out.write(&plugin, show::one)
        }
        Command::Grant(command) => grant::run(app, *command),
        Command::Configure { name, file } => configure(app, name, file.as_deref()),
        Command::Enable { name } => {
            let plugin = app.client()?.fetch::<EnablePlugin>(&of(name))?;
            app.out.say(&plugin, |plugin| {
                format!("plugin {} is enabled", plugin.name)
            })
        }
        Command::Disable { name } => {
            let plugin = app.client()?.fetch::<DisablePlugin>(&of(name))?;
            app.out.say(&plugin, |plugin| {
                format!("plugin {} is disabled", plugin.name)
            })
        }
        Command::Upgrade {
            name,
            source,
            approve,
            signature,
        } => upgrade(app, name, source.as_ref(), approve, &signature),
        Command::Rollback { name } => {
            let plugin = app.client()?.fetch::<RollbackPlugin>(&of(name))?;
            app.out.say(&plugin, |plugin| {
                let version = &plugin.present.version;
                format!("plugin {} is back at version {version}", plugin.name)
            })
        }
        Command::Remove { name } => {
            let client = app.client()?;
            app.confirm(&format!(
                "Remove plugin {name}, its grant and its configuration?"
            ))?;
            let nothing = client.fetch::<RemovePlugin>(&of(name.clone()))?;
            app.out.say(&nothing, |_| format!("removed plugin {name}"))
        }
        Command::Health { name } => {
            let path = of(name);
            let health = app
                .client()?
                .fetch_slowly::<CheckPlugin>(&path, &Nothing {})?;
            app.out.write(&health, |health, _| show::health(health))
        }
        Command::Logs {
            name,
            follow,
            limit,
        } => logs(app, &of(name), follow, limit),
        Command::DeadLetters(command) => dead_letters::run(app, command),
    }
}

fn of(plugin: Name) -> OfPlugin {
    OfPlugin { plugin }
}

fn upgrade(
    app: &mut App,
    name: Name,
    source: Option<&Source>,
    approve: bool,
    signature: &SignatureArg,
) -> Result<(), Failure> {
    let client = app.client()?;
    let path = of(name.clone());
    let before = client.fetch::<GetPlugin>(&path)?;
    let Some(source) = source else {
        let Some(pending) = &before.pending else {
            return Err(Failure::Usage(format!(
                "no upgrade of plugin {name} waits for approval"
            )));
        };
        let digest = pending.version.digest;
        return approved(app, &client, &path, digest);
    };
    // Somebody who uploads the file and approves it in one breath has looked at nothing, unless
    // this very component was shown before.
    let shown = before
        .pending
        .as_ref()
        .map(|pending| pending.version.digest);
    let upgraded = source.upgrade(&client, &path, signature)?;
    match (&upgraded.outcome, &upgraded.plugin.pending) {
        (UpgradeOutcome::Held, Some(pending)) => {
            let digest = pending.version.digest;
            if approve && shown == Some(digest) {
                return approved(app, &client, &path, digest);
            }
            app.out.write(&upgraded, |it, _| show::held(&it.plugin))?;
            note(&format!(
                "version {} waits, and what runs goes on; look at what it needs, then `loopback plugin \
                 upgrade {name} --approve`",
                printable(&pending.version.version)
            ));
            Ok(())
        }
        _ => app.out.say(&upgraded, |it| {
            format!("plugin {name} has version {}", it.plugin.present.version)
        }),
    }
}

fn approved(
    app: &mut App,
    client: &Client,
    path: &OfPlugin,
    digest: model::plugin::PluginDigest,
) -> Result<(), Failure> {
    let plugin = client.send::<ApprovePluginUpgrade>(path, &ApproveUpgrade { digest })?;
    app.out.say(&plugin, |plugin| {
        format!(
            "plugin {} has version {}",
            plugin.name, plugin.present.version
        )
    })
}

fn configure(app: &mut App, name: Name, file: Option<&Path>) -> Result<(), Failure> {
    let client = app.client()?;
    let path = of(name);
    let Some(file) = file else {
        let found = client.fetch::<GetPluginConfiguration>(&path)?;
        return app.out.json(&found.configuration);
    };
    let text = read_whole(file, MAX_CONFIGURATION_BYTES as u64)?;
    let configuration = serde_json::from_slice(&text)
        .map_err(|error| Failure::Usage(format!("{} is not JSON: {error}", file.display())))?;
    let body = PluginConfiguration { configuration };
    let plugin = client.send::<ConfigurePlugin>(&path, &body)?;
    app.out.say(&plugin, |plugin| {
        let revision = plugin.configuration_revision;
        format!("plugin {} has configuration {revision}", plugin.name)
    })
}

fn logs(app: &mut App, path: &OfPlugin, follow: bool, limit: u32) -> Result<(), Failure> {
    let client = app.client()?;
    let mut query = LogsAfter {
        after: None,
        limit: Some(limit),
    };
    loop {
        let logs = client.call::<ListPluginLogs>(path, &query, &Nothing {})?;
        if logs.missed > 0 && follow {
            note(&format!("{} lines are not kept any more", logs.missed));
        }
        match app.out.format() {
            // Line by line: who follows has no end to wait for.
            Format::Json if follow => {
                for line in &logs.lines {
                    let text = serde_json::to_string(line).map_err(Failure::Json)?;
                    app.out.line(&text)?;
                }
            }
            Format::Json => return app.out.json(&logs),
            Format::Table => {
                for line in &logs.lines {
                    app.out.line(&show::log_line(line))?;
                }
            }
        }
        if !follow {
            return Ok(());
        }
        query.after = Some(logs.next);
        std::thread::sleep(FOLLOW_EVERY);
    }
}

fn read_whole(file: &Path, most: u64) -> Result<Vec<u8>, Failure> {
    let failed = |source| Failure::File {
        verb: "read",
        path: file.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let mut source: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    let read = source.by_ref().take(most + 1).read_to_end(&mut bytes);
    read.map_err(failed)?;
    if bytes.len() as u64 > most {
        let name = file.display();
        return Err(Failure::Usage(format!("{name} has more than {most} bytes")));
    }
    Ok(bytes)
}

fn next_steps(plugin: &Plugin) {
    let name = &plugin.name;
    if !plugin.ungranted.is_empty() {
        note(&format!(
            "it may do nothing yet: loopback plugin grant {name} …"
        ));
    }
    if !plugin.configured {
        note(&format!(
            "it wants a configuration: loopback plugin configure {name} -f FILE"
        ));
    }
    note(&format!("then: loopback plugin enable {name}"));
}
