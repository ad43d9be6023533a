//! `loopback api-key`. Without `--user` the caller's own keys are meant.

use api::Page;
use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::people::{
    ApiKey, CreateApiKey, CreateOwnApiKey, CreateUserApiKey, CreatedApiKey, DeleteOwnApiKey,
    DeleteUserApiKey, KeyLimits, ListOwnApiKeys, ListUserApiKeys,
};
use api::v1::{OfApiKey, OfOwnApiKey, OfUser};
use clap::Subcommand;
use model::Timestamp;
use model::access::Rule;
use model::ids::ApiKeyId;
use model::names::Text;

use super::{LimitArg, age_cell, maybe_age, time_or};
use crate::app::{App, now};
use crate::client::Client;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Cell, Table, Tone, note};
use crate::parse::{When, rule, rule_text, when};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List API keys; secrets are never shown again
    #[command(visible_alias = "ls")]
    List {
        /// Whose keys: a user or service account, by name or id [default: your own]
        #[arg(long, short)]
        user: Option<String>,
        #[command(flatten)]
        limit: LimitArg,
    },
    /// Make an API key and show its secret, once
    Create {
        /// For whom: a user or service account, by name or id [default: yourself]
        #[arg(long, short)]
        user: Option<String>,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        description: Text,
        /// When it ends by itself: 30d, or a time [default: never]
        #[arg(long, value_parser = when, value_name = "WHEN")]
        expires: Option<When>,
        /// Narrow it to this permission or prefix, perhaps in some environments only; repeatable
        #[arg(long, value_parser = rule, value_name = "PATTERN[@ENVIRONMENT,...]")]
        allow: Vec<Rule>,
        /// Narrow it to this workspace; needs --allow
        #[arg(long, short, requires = "allow", conflicts_with = "project")]
        workspace: Option<String>,
        /// Narrow it to this project; needs --allow
        #[arg(long, short, requires = "allow")]
        project: Option<String>,
    },
    /// Revoke an API key at once
    #[command(visible_aliases = ["delete", "rm"])]
    Revoke {
        /// Id of the key
        api_key: ApiKeyId,
        /// Whose key [default: your own]
        #[arg(long, short)]
        user: Option<String>,
    },
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    let client = app.client()?;
    match command {
        Command::List { user, limit } => {
            let page = list(&client, user.as_deref(), limit.at_most())?;
            app.out.write(&page, |page, now| table(&page.items, now))
        }
        Command::Create {
            user,
            description,
            expires,
            allow,
            workspace,
            project,
        } => {
            let limits = limits(&client, allow, workspace.as_deref(), project.as_deref())?;
            let expires_at = expires.map(|expires| expires.from(now()));
            let body = CreateApiKey {
                description,
                expires_at,
                limits,
            };
            let made = match user {
                None => client.send::<CreateOwnApiKey>(&Nothing {}, &body)?,
                Some(user) => client.send::<CreateUserApiKey>(
                    &OfUser {
                        user: lookup::user(&client, &user)?,
                    },
                    &body,
                )?,
            };
            app.out.write(&made, created)?;
            note("the secret is not shown again");
            Ok(())
        }
        Command::Revoke { api_key, user } => {
            let nothing = match user {
                None => client.fetch::<DeleteOwnApiKey>(&OfOwnApiKey { api_key })?,
                Some(user) => client.fetch::<DeleteUserApiKey>(&OfApiKey {
                    user: lookup::user(&client, &user)?,
                    api_key,
                })?,
            };
            app.out
                .say(&nothing, |_| format!("revoked API key {api_key}"))
        }
    }
}

fn list(
    client: &Client,
    user: Option<&str>,
    at_most: Option<usize>,
) -> Result<Page<ApiKey>, Failure> {
    let page = match user {
        None => client.list::<ListOwnApiKeys, _>(&Nothing {}, &Paging::default(), at_most)?,
        Some(user) => {
            let path = OfUser {
                user: lookup::user(client, user)?,
            };
            client.list::<ListUserApiKeys, _>(&path, &Paging::default(), at_most)?
        }
    };
    Ok(page)
}

fn limits(
    client: &Client,
    rules: Vec<Rule>,
    workspace: Option<&str>,
    project: Option<&str>,
) -> Result<Option<KeyLimits>, Failure> {
    if rules.is_empty() {
        return Ok(None);
    }
    let workspace = workspace
        .map(|text| lookup::workspace(client, text))
        .transpose()?;
    let project = project
        .map(|text| lookup::project(client, text))
        .transpose()?;
    Ok(Some(KeyLimits {
        workspace,
        project,
        rules,
    }))
}

fn table(keys: &[ApiKey], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ID",
        "STATE",
        "EXPIRES",
        "LAST USED",
        "AGE",
        "LIMITS",
        "DESCRIPTION",
    ]);
    for key in keys {
        table.row([
            key.id.to_string().into(),
            state(key, now),
            maybe_age(now, key.expires_at),
            maybe_age(now, key.last_used_at),
            age_cell(now, key.created_at),
            limits_text(key).into(),
            key.description.as_str().into(),
        ]);
    }
    table
}

fn state(key: &ApiKey, now: Timestamp) -> Cell {
    if key.revoked_at.is_some() {
        Cell::new("revoked").tone(Tone::Faint)
    } else if key.expires_at.is_some_and(|expires_at| expires_at <= now) {
        Cell::new("expired").tone(Tone::Faint)
    } else {
        Cell::new("active").tone(Tone::Good)
    }
}

pub(super) fn limits_text(key: &ApiKey) -> String {
    let Some(limits) = &key.limits else {
        return String::new();
    };
    let rules: Vec<_> = limits.rules.iter().map(rule_text).collect();
    format!(
        "{} in {}",
        rules.join(" "),
        super::access::scope_text(&limits.scope)
    )
}

fn properties(key: &ApiKey, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("id", key.id.to_string());
    table.property("user", key.user.to_string());
    table.property("description", key.description.as_str());
    table.property("limits", limits_text(key));
    table.property("expires", time_or(now, key.expires_at, "never"));
    table
}

fn created(made: &CreatedApiKey, now: Timestamp) -> Table {
    let mut table = properties(&made.api_key, now);
    table.property("secret", made.secret.as_str());
    table
}
