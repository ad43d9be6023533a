//! `loopback role`.

use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::OfRole;
use api::v1::access::{
    CreateRole, CreateRoleDefinition, DeleteRole, GetRole, ListPermissions, ListRoles, Permissions,
    Role, UpdateRole, UpdateRoleDefinition,
};
use clap::Subcommand;
use model::Timestamp;
use model::access::Rule;
use model::names::{Name, Text};

use super::{LimitArg, yes_no};
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Table, time_text};
use crate::parse::{rule, rule_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List roles
    #[command(visible_alias = "ls")]
    List(LimitArg),
    /// Show a role and its rules
    Show {
        /// Name or id
        role: String,
    },
    /// Make a role that gives no more than you have
    Create {
        /// Its name: a-z, 0-9 and dashes
        name: Name,
        /// A permission or prefix it gives, perhaps in some environments only; repeatable
        #[arg(long, value_parser = rule, required = true, value_name = "PATTERN[@ENVIRONMENT,...]")]
        allow: Vec<Rule>,
        /// For whom it is
        #[arg(long, default_value = "", hide_default_value = true)]
        description: Text,
    },
    /// Change a role; who has it has the new rules at once
    Update {
        /// Name or id
        role: String,
        /// All permissions and prefixes it gives from now on; repeatable
        #[arg(long, value_parser = rule, value_name = "PATTERN[@ENVIRONMENT,...]")]
        allow: Vec<Rule>,
        /// For whom it is
        #[arg(long)]
        description: Option<Text>,
    },
    /// Delete a role that nobody has
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        role: String,
    },
    /// List every permission there is
    Permissions,
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    let client = app.client()?;
    match command {
        Command::List(limit) => {
            let page =
                client.list::<ListRoles, _>(&Nothing {}, &Paging::default(), limit.at_most())?;
            app.out.write(&page, |page, _| table(&page.items))
        }
        Command::Show { role } => {
            let found = client.fetch::<GetRole>(&path(&client, &role)?)?;
            app.out.write(&found, properties)
        }
        Command::Create {
            name,
            allow,
            description,
        } => {
            let body = CreateRole {
                name,
                description,
                rules: allow,
            };
            let made = client.send::<CreateRoleDefinition>(&Nothing {}, &body)?;
            app.out.write(&made, properties)
        }
        Command::Update {
            role,
            allow,
            description,
        } => {
            let path = path(&client, &role)?;
            let body = UpdateRole {
                description,
                rules: (!allow.is_empty()).then_some(allow),
            };
            let changed = client.send::<UpdateRoleDefinition>(&path, &body)?;
            app.out.write(&changed, properties)
        }
        Command::Delete { role } => {
            let path = path(&client, &role)?;
            app.confirm(&format!("Delete role {role}?"))?;
            let nothing = client.fetch::<DeleteRole>(&path)?;
            app.out.say(&nothing, |_| format!("deleted role {role}"))
        }
        Command::Permissions => {
            let all = client.fetch::<ListPermissions>(&Nothing {})?;
            app.out.write(&all, |all, _| permissions(all))
        }
    }
}

fn path(client: &Client, text: &str) -> Result<OfRole, Failure> {
    Ok(OfRole {
        role: lookup::role(client, text)?,
    })
}

fn table(roles: &[Role]) -> Table {
    let mut table = Table::new(&["NAME", "BUILT-IN", "RULES", "DESCRIPTION", "ID"]);
    for role in roles {
        table.row([
            role.name.as_str().into(),
            yes_no(role.built_in).into(),
            role.rules.len().to_string().into(),
            role.description.as_str().into(),
            role.id.to_string().into(),
        ]);
    }
    table
}

fn properties(role: &Role, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("name", role.name.as_str());
    table.property("id", role.id.to_string());
    table.property("built-in", yes_no(role.built_in));
    table.property("description", role.description.as_str());
    table.property("created", time_text(now, role.created_at));
    for rule in &role.rules {
        table.property("allows", rule_text(rule));
    }
    table
}

fn permissions(all: &Permissions) -> Table {
    let mut table = Table::new(&["PERMISSION"]);
    for permission in &all.permissions {
        table.row([permission.as_str().into()]);
    }
    table
}
