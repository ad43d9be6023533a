//! `loopback access`: who has which role where. Where must be said: giving a
//! role for the whole deployment by leaving something out would be a trap.

use api::Page;
use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::access::{
    CreateDeploymentBinding, CreateProjectBinding, CreateRoleBinding, CreateWorkspaceBinding,
    DeleteDeploymentBinding, DeleteProjectBinding, DeleteWorkspaceBinding, ListDeploymentBindings,
    ListProjectBindings, ListWorkspaceBindings, RoleBinding,
};
use api::v1::{InProject, InWorkspace, OfBinding, OfProjectBinding, OfWorkspaceBinding};
use clap::{Args, Subcommand};
use model::Timestamp;
use model::ids::{ProjectId, RoleBindingId, WorkspaceId};
use model::tenancy::Scope;

use super::{LimitArg, age_cell};
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Table, time_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List who has which role there
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        place: PlaceArg,
        #[command(flatten)]
        limit: LimitArg,
    },
    /// Give a role, no wider than your own
    Grant {
        /// To whom: a user or service account, by name or id
        user: String,
        /// Which role, by name or id
        role: String,
        #[command(flatten)]
        place: PlaceArg,
    },
    /// Take a role away
    Revoke {
        /// Id of the role binding, as `access list` shows it
        #[arg(required_unless_present = "user", conflicts_with_all = ["user", "role"])]
        binding: Option<RoleBindingId>,
        /// From whom, instead of the id
        #[arg(long, short, requires = "role")]
        user: Option<String>,
        /// Which role, instead of the id
        #[arg(long, short, requires = "user")]
        role: Option<String>,
        #[command(flatten)]
        place: PlaceArg,
    },
}

/// Where a role holds.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct PlaceArg {
    /// In this workspace
    #[arg(long, short)]
    workspace: Option<String>,
    /// In this project and its workspaces
    #[arg(long, short)]
    project: Option<String>,
    /// Everywhere
    #[arg(long)]
    deployment: bool,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Deployment,
    Project(ProjectId),
    Workspace(WorkspaceId),
}

impl PlaceArg {
    fn resolve(&self, client: &Client) -> Result<Place, Failure> {
        match (&self.workspace, &self.project) {
            (Some(workspace), _) => lookup::workspace(client, workspace).map(Place::Workspace),
            (None, Some(project)) => lookup::project(client, project).map(Place::Project),
            (None, None) => Ok(Place::Deployment),
        }
    }
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    let client = app.client()?;
    match command {
        Command::List { place, limit } => {
            let page = list(&client, place.resolve(&client)?, limit.at_most())?;
            if app.out.format() == crate::output::Format::Json {
                return app.out.json(&page);
            }
            let names = Names::known(&client);
            app.out
                .write(&page, |page, now| names.table(&page.items, now))
        }
        Command::Grant { user, role, place } => {
            let body = CreateRoleBinding {
                user: lookup::user(&client, &user)?,
                role: lookup::role(&client, &role)?,
            };
            let made = match place.resolve(&client)? {
                Place::Deployment => client.send::<CreateDeploymentBinding>(&Nothing {}, &body)?,
                Place::Project(project) => {
                    client.send::<CreateProjectBinding>(&InProject { project }, &body)?
                }
                Place::Workspace(workspace) => {
                    client.send::<CreateWorkspaceBinding>(&InWorkspace { workspace }, &body)?
                }
            };
            app.out.write(&made, properties)
        }
        Command::Revoke {
            binding,
            user,
            role,
            place,
        } => {
            let place = place.resolve(&client)?;
            let binding = match (binding, user, role) {
                (Some(binding), _, _) => binding,
                (None, Some(user), Some(role)) => find(&client, place, &user, &role)?,
                (None, _, _) => {
                    return Err(Failure::Usage(
                        "name the role binding, or --user and --role".to_owned(),
                    ));
                }
            };
            let nothing = match place {
                Place::Deployment => {
                    client.fetch::<DeleteDeploymentBinding>(&OfBinding { binding })?
                }
                Place::Project(project) => {
                    client.fetch::<DeleteProjectBinding>(&OfProjectBinding { project, binding })?
                }
                Place::Workspace(workspace) => client
                    .fetch::<DeleteWorkspaceBinding>(&OfWorkspaceBinding { workspace, binding })?,
            };
            app.out
                .say(&nothing, |_| format!("revoked role binding {binding}"))
        }
    }
}

fn list(
    client: &Client,
    place: Place,
    at_most: Option<usize>,
) -> Result<Page<RoleBinding>, Failure> {
    let all = Paging::default();
    let page = match place {
        Place::Deployment => {
            client.list::<ListDeploymentBindings, _>(&Nothing {}, &all, at_most)?
        }
        Place::Project(project) => {
            client.list::<ListProjectBindings, _>(&InProject { project }, &all, at_most)?
        }
        Place::Workspace(workspace) => {
            client.list::<ListWorkspaceBindings, _>(&InWorkspace { workspace }, &all, at_most)?
        }
    };
    Ok(page)
}

fn find(client: &Client, place: Place, user: &str, role: &str) -> Result<RoleBindingId, Failure> {
    let (user_id, role_id) = (lookup::user(client, user)?, lookup::role(client, role)?);
    let bindings = list(client, place, None)?.items;
    let found = bindings
        .iter()
        .find(|binding| binding.user == user_id && binding.role == role_id);
    found
        .map(|binding| binding.id)
        .ok_or_else(|| Failure::NotFound {
            what: "role binding of",
            name: format!("{user}` to `{role}"),
        })
}

/// Names are a comfort: who may not list users or roles sees ids.
struct Names {
    users: Vec<api::v1::people::User>,
    roles: Vec<api::v1::access::Role>,
}

impl Names {
    fn known(client: &Client) -> Self {
        Self {
            users: lookup::users(client).unwrap_or_default(),
            roles: lookup::roles(client).unwrap_or_default(),
        }
    }

    fn table(&self, bindings: &[RoleBinding], now: Timestamp) -> Table {
        let mut table = Table::new(&["USER", "ROLE", "WHERE", "AGE", "ID"]);
        for binding in bindings {
            let user = self.users.iter().find(|user| user.id == binding.user);
            let role = self.roles.iter().find(|role| role.id == binding.role);
            table.row([
                user.map_or_else(|| binding.user.to_string(), |user| user.name.to_string())
                    .into(),
                role.map_or_else(|| binding.role.to_string(), |role| role.name.to_string())
                    .into(),
                scope_text(&binding.scope).into(),
                age_cell(now, binding.created_at),
                binding.id.to_string().into(),
            ]);
        }
        table
    }
}

/// The scope in a word.
pub(super) fn scope_text(scope: &Scope) -> String {
    match scope {
        Scope::Deployment => "deployment".to_owned(),
        Scope::Project { project } => project.to_string(),
        Scope::Workspace { workspace, .. } => workspace.to_string(),
    }
}

fn properties(binding: &RoleBinding, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("id", binding.id.to_string());
    table.property("user", binding.user.to_string());
    table.property("role", binding.role.to_string());
    table.property("where", scope_text(&binding.scope));
    table.property("created", time_text(now, binding.created_at));
    table
}
