//! `loopback project`.

use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::tenancy::{
    CreateProject, CreateProjectRecord, DeleteProject, GetProject, ListProjects, Project,
    UpdateProject, UpdateProjectRecord,
};
use clap::Subcommand;
use model::Timestamp;
use model::names::{Name, Text};

use super::{LimitArg, age_cell};
use crate::app::App;
use crate::failure::Failure;
use crate::lookup;
use crate::output::{Table, time_text};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the projects you can see
    #[command(visible_alias = "ls")]
    List(LimitArg),
    /// Make a project
    Create {
        /// Its name: a-z, 0-9 and dashes
        name: Name,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        description: Text,
    },
    /// Show a project
    Show {
        /// Name or id
        project: String,
    },
    /// Rename or describe a project
    Update {
        /// Name or id
        project: String,
        /// New name
        #[arg(long)]
        name: Option<Name>,
        /// New description
        #[arg(long)]
        description: Option<Text>,
    },
    /// Delete a project that has no workspaces
    #[command(visible_alias = "rm")]
    Delete {
        /// Name or id
        project: String,
    },
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    let client = app.client()?;
    match command {
        Command::List(limit) => {
            let page =
                client.list::<ListProjects, _>(&Nothing {}, &Paging::default(), limit.at_most())?;
            app.out.write(&page, |page, now| table(&page.items, now))
        }
        Command::Create { name, description } => {
            let made = client
                .send::<CreateProjectRecord>(&Nothing {}, &CreateProject { name, description })?;
            app.out.write(&made, properties)
        }
        Command::Show { project } => {
            let found = client.fetch::<GetProject>(&lookup::in_project(&client, &project)?)?;
            app.out.write(&found, properties)
        }
        Command::Update {
            project,
            name,
            description,
        } => {
            let path = lookup::in_project(&client, &project)?;
            let changed =
                client.send::<UpdateProjectRecord>(&path, &UpdateProject { name, description })?;
            app.out.write(&changed, properties)
        }
        Command::Delete { project } => {
            let path = lookup::in_project(&client, &project)?;
            app.confirm(&format!("Delete project {project}?"))?;
            let nothing = client.fetch::<DeleteProject>(&path)?;
            app.out
                .say(&nothing, |_| format!("deleted project {project}"))
        }
    }
}

fn table(projects: &[Project], now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "AGE", "DESCRIPTION", "ID"]);
    for project in projects {
        table.row([
            project.name.as_str().into(),
            age_cell(now, project.created_at),
            project.description.as_str().into(),
            project.id.to_string().into(),
        ]);
    }
    table
}

fn properties(project: &Project, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("name", project.name.as_str());
    table.property("id", project.id.to_string());
    table.property("description", project.description.as_str());
    table.property("created", time_text(now, project.created_at));
    table
}
