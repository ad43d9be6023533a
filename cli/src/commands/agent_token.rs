//! `loopback token`: what hosts join with, and the line that joins one.
//!
//! The line trusts the gateway by the pin of its key. `-k` turns off the check
//! of the certificate's issuer, which a new host cannot know yet; the pin is
//! still checked, and is the stronger of the two. `-q` keeps a `.curlrc` from
//! meddling. The secret is an assignment before `sh`: it lands in the
//! environment of that one process, which only its user and root can read, and
//! in no process's arguments. The script moves it out of the environment first
//! thing.

use api::v1::agent_token::{
    AgentToken, AgentTokenFilter, AgentTokenState, CreateAgentToken, CreateAgentTokenRecord,
    CreatedAgentToken, DeleteAgentToken, GetAgentToken, InstallInfo, ListAgentTokens,
    RotateAgentToken, RotateAgentTokenRecord,
};
use api::v1::{InWorkspace, OfAgentToken};
use clap::{Args, Subcommand};
use model::Timestamp;
use model::ids::AgentTokenId;
use model::names::Text;
use serde::Serialize;
use std::time::Duration;

use super::{LimitArg, age_cell, api_word, maybe_age, time_or, yes_no};
use crate::app::{App, WorkspaceArg};
use crate::failure::Failure;
use crate::output::{Cell, Format, Table, Tone, note, time_text};
use crate::parse::{duration, label, labels};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List agent tokens; secrets are never shown again
    #[command(visible_alias = "ls")]
    List {
        /// Also those that are good for nothing any more
        #[arg(long, short)]
        all: bool,
        #[command(flatten)]
        limit: LimitArg,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Make an agent token and show the line that joins a host with it
    Create {
        /// Note for operators
        #[arg(long, default_value = "", hide_default_value = true)]
        description: Text,
        /// The long validity instead of the short one
        #[arg(long, visible_alias = "long-living-token")]
        long_living: bool,
        /// How many hosts may join with it [default: any number]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        use_limit: Option<u32>,
        /// Label given to joining hosts; repeatable
        #[arg(long = "label", value_parser = label, value_name = "KEY=VALUE")]
        labels: Vec<(String, String)>,
        /// Joining hosts retire by themselves once unreachable for a while
        #[arg(long)]
        ephemeral: bool,
        #[command(flatten)]
        workspace: WorkspaceArg,
    },
    /// Show an agent token, and which hosts joined with it
    Show(OneToken),
    /// Revoke an agent token at once; hosts that joined with it stay
    #[command(visible_aliases = ["revoke", "rm"])]
    Delete(OneToken),
    /// Make a successor; the old token ends after the overlap
    Rotate {
        #[command(flatten)]
        token: OneToken,
        /// How long the old token stays valid beside the new one [default: 1h]
        #[arg(long, value_parser = duration, value_name = "DURATION")]
        overlap: Option<Duration>,
    },
}

#[derive(Clone, Debug, Args)]
pub(super) struct OneToken {
    /// Id of the token
    token: AgentTokenId,
    #[command(flatten)]
    workspace: WorkspaceArg,
}

/// What `create` and `rotate` answer: the API's own reply, and the line.
#[derive(Serialize)]
struct Joining {
    #[serde(flatten)]
    created: CreatedAgentToken,
    install_command: String,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    match command {
        Command::List {
            all,
            limit,
            workspace,
        } => {
            let (client, workspace) = app.in_workspace(&workspace)?;
            let filter = AgentTokenFilter {
                all: all.then_some(true),
                ..AgentTokenFilter::default()
            };
            let page = client.list::<ListAgentTokens, _>(
                &InWorkspace { workspace },
                &filter,
                limit.at_most(),
            )?;
            app.out.write(&page, |page, now| table(&page.items, now))
        }
        Command::Create {
            description,
            long_living,
            use_limit,
            labels: pairs,
            ephemeral,
            workspace,
        } => {
            let labels = labels(&pairs)?;
            let (client, workspace) = app.in_workspace(&workspace)?;
            let body = CreateAgentToken {
                description,
                long_living_token: long_living,
                use_limit,
                labels,
                ephemeral,
            };
            let made = client.send::<CreateAgentTokenRecord>(&InWorkspace { workspace }, &body)?;
            show_once(app, made)
        }
        Command::Show(token) => {
            let (client, path) = at(app, &token)?;
            let found = client.fetch::<GetAgentToken>(&path)?;
            app.out.write(&found, properties)
        }
        Command::Delete(token) => {
            let (client, path) = at(app, &token)?;
            app.confirm(&format!("Revoke agent token {}?", token.token))?;
            let nothing = client.fetch::<DeleteAgentToken>(&path)?;
            app.out
                .say(&nothing, |_| format!("revoked agent token {}", token.token))
        }
        Command::Rotate { token, overlap } => {
            let (client, path) = at(app, &token)?;
            let overlap_ms =
                overlap.map(|overlap| u64::try_from(overlap.as_millis()).unwrap_or(u64::MAX));
            let made =
                client.send::<RotateAgentTokenRecord>(&path, &RotateAgentToken { overlap_ms })?;
            show_once(app, made)
        }
    }
}

fn at(app: &App, token: &OneToken) -> Result<(crate::client::Client, OfAgentToken), Failure> {
    let (client, workspace) = app.in_workspace(&token.workspace)?;
    Ok((
        client,
        OfAgentToken {
            workspace,
            token: token.token,
        },
    ))
}

fn show_once(app: &mut App, created: CreatedAgentToken) -> Result<(), Failure> {
    let install_command = install_command(&created.install, &created.secret);
    let joining = Joining {
        created,
        install_command,
    };
    if app.out.format() == Format::Json {
        return app.out.json(&joining);
    }
    app.out.write(&joining, |joining, now| {
        let mut table = properties(&joining.created.token, now);
        table.property("secret", joining.created.secret.as_str());
        table
    })?;
    app.out
        .line("\nJoin a host by running this on it, as root or with sudo or doas at hand:\n")?;
    app.out.line(&format!("  {}\n", joining.install_command))?;
    note("the secret is not shown again");
    Ok(())
}

/// The line that joins a host.
pub(super) fn install_command(install: &InstallInfo, secret: &str) -> String {
    let (url, pin, secret) = (quoted(&install.url), quoted(&install.pin), quoted(secret));
    if install.url.starts_with("https:") {
        format!(
            "curl -qfsS --proto '=https' --pinnedpubkey {pin} -k {url} | LOOPBACK_TOKEN={secret} sh"
        )
    } else {
        format!("curl -qfsS {url} | LOOPBACK_TOKEN={secret} sh")
    }
}

/// One word for a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn table(tokens: &[AgentToken], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ID",
        "STATE",
        "EXPIRES",
        "USES",
        "LAST USED",
        "AGE",
        "LABELS",
        "DESCRIPTION",
    ]);
    for token in tokens {
        table.row([
            token.id.to_string().into(),
            state(token.state),
            age_cell(now, token.expires_at),
            uses(token).into(),
            maybe_age(now, token.last_used_at),
            age_cell(now, token.created_at),
            token.labels.to_string().into(),
            token.description.as_str().into(),
        ]);
    }
    table
}

fn state(state: AgentTokenState) -> Cell {
    let tone = match state {
        AgentTokenState::Active => Tone::Good,
        AgentTokenState::Expired | AgentTokenState::Exhausted | AgentTokenState::Revoked => {
            Tone::Faint
        }
    };
    Cell::new(api_word(&state)).tone(tone)
}

fn uses(token: &AgentToken) -> String {
    token.use_limit.map_or_else(
        || token.uses.to_string(),
        |limit| format!("{}/{limit}", token.uses),
    )
}

fn properties(token: &AgentToken, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("id", token.id.to_string());
    table.property("workspace", token.workspace.to_string());
    table.property("description", token.description.as_str());
    table.property("state", state(token.state));
    table.property("long-living", yes_no(token.long_living_token));
    table.property(
        "created",
        format!(
            "{} by {}",
            time_text(now, token.created_at),
            token.created_by
        ),
    );
    table.property("expires", time_text(now, token.expires_at));
    if let Some(at) = token.revoked_at {
        table.property("revoked", time_text(now, at));
    }
    if let Some(successor) = token.replaced_by {
        table.property("replaced by", successor.to_string());
    }
    table.property("uses", uses(token));
    table.property("last used", time_or(now, token.last_used_at, "never"));
    table.property("labels", token.labels.to_string());
    table.property("ephemeral", yes_no(token.ephemeral));
    for host in &token.recent_hosts {
        table.property("used by", host.to_string());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_checks_the_pin_and_keeps_the_secret_out_of_arguments() {
        let install = InstallInfo {
            url: "https://gw.example:8443/v1/agent/install.sh".to_owned(),
            pin: "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=".to_owned(),
        };
        assert_eq!(
            install_command(&install, "lbt_x"),
            "curl -qfsS --proto '=https' --pinnedpubkey 'sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=' -k 'https://gw.example:8443/v1/agent/install.sh' | LOOPBACK_TOKEN='lbt_x' sh"
        );
    }

    #[test]
    fn whatever_the_gateway_says_stays_one_word() {
        assert_eq!(quoted("a'; rm -rf / #"), r"'a'\''; rm -rf / #'");
    }
}
