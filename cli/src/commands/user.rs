//! `loopback user` and `loopback service-account`: one record, two kinds.

use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::OfUser;
use api::v1::people::{
    CreateUser, CreateUserAccount, DeleteUser, ListUsers, UpdateUser, UpdateUserAccount, User,
    UserKind,
};
use clap::Subcommand;
use model::Timestamp;
use model::names::{Name, Text};

use super::{LimitArg, age_cell, api_word, yes_no};
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Cell, Table, Tone, time_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them
    #[command(visible_alias = "ls")]
    List(LimitArg),
    /// Make one
    Create {
        /// Its name: a-z, 0-9 and dashes
        name: Name,
        /// Shown instead of the name
        #[arg(long, default_value = "", hide_default_value = true)]
        display_name: Text,
    },
    /// Show one
    Show {
        /// Name or id
        user: String,
    },
    /// Change the display name, disable or enable
    Update {
        /// Name or id
        user: String,
        /// New display name
        #[arg(long)]
        display_name: Option<Text>,
        /// End everything it has open and refuse its keys
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Accept its keys again
        #[arg(long)]
        enable: bool,
    },
    /// Delete one with its keys and roles
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        user: String,
    },
}

pub(super) fn run(app: &mut App, command: Command, kind: UserKind) -> Result<(), Failure> {
    let client = app.client()?;
    match command {
        Command::List(limit) => {
            // The gateway lists both kinds; the limit counts what is shown.
            let mut page = client.list::<ListUsers, _>(&Nothing {}, &Paging::default(), None)?;
            page.items.retain(|user| user.kind == kind);
            page.items.truncate(limit.at_most().unwrap_or(usize::MAX));
            app.out.write(&page, |page, now| table(&page.items, now))
        }
        Command::Create { name, display_name } => {
            let made = client.send::<CreateUserAccount>(
                &Nothing {},
                &CreateUser {
                    name,
                    kind,
                    display_name,
                },
            )?;
            app.out.write(&made, properties)
        }
        Command::Show { user } => {
            let found = of_kind(&client, &user, kind)?;
            app.out.write(&found, properties)
        }
        Command::Update {
            user,
            display_name,
            disable,
            enable,
        } => {
            let path = OfUser {
                user: of_kind(&client, &user, kind)?.id,
            };
            let disabled = (disable || enable).then_some(disable);
            let changed = client.send::<UpdateUserAccount>(
                &path,
                &UpdateUser {
                    display_name,
                    disabled,
                },
            )?;
            app.out.write(&changed, properties)
        }
        Command::Delete { user } => {
            let path = OfUser {
                user: of_kind(&client, &user, kind)?.id,
            };
            app.confirm(&format!("Delete {user} with its API keys and roles?"))?;
            let nothing = client.fetch::<DeleteUser>(&path)?;
            app.out.say(&nothing, |_| format!("deleted {user}"))
        }
    }
}

/// `user delete ci` must not delete the service account `ci`.
fn of_kind(client: &Client, text: &str, kind: UserKind) -> Result<User, Failure> {
    let user = lookup::user_record(client, text)?;
    let what = match kind {
        UserKind::Person => "person",
        UserKind::ServiceAccount => "service account",
    };
    if user.kind == kind {
        Ok(user)
    } else {
        Err(Failure::NotFound {
            what,
            name: text.to_owned(),
        })
    }
}

fn table(users: &[User], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "DISPLAY NAME", "STATE", "AGE", "ID"]);
    for user in users {
        let state = match user.disabled {
            true => Cell::new("disabled").tone(Tone::Warn),
            false => "enabled".into(),
        };
        table.row([
            user.name.as_str().into(),
            user.display_name.as_str().into(),
            state,
            age_cell(now, user.created_at),
            user.id.to_string().into(),
        ]);
    }
    table
}

pub(super) fn properties(user: &User, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("name", user.name.as_str());
    table.property("id", user.id.to_string());
    table.property("kind", api_word(&user.kind));
    table.property("display name", user.display_name.as_str());
    table.property("disabled", yes_no(user.disabled));
    table.property("created", time_text(now, user.created_at));
    table
}
