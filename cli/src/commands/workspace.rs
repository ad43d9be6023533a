//! `loopback workspace`.

use std::time::Duration;

use api::v1::InWorkspace;
use api::v1::tenancy::{
    CreateWorkspace, CreateWorkspaceRecord, DeleteWorkspace, GetWorkspace, ListWorkspaces,
    UpdateWorkspace, UpdateWorkspaceRecord, Workspace, WorkspaceFilter,
};
use api::{Page, endpoint::Nothing};
use clap::{Args, Subcommand};
use model::Timestamp;
use model::names::{Name, Text};
use model::tenancy::{Environment, LivenessThresholds};

use super::{LimitArg, age_cell};
use crate::app::App;
use crate::client::Client;
use crate::failure::Failure;
use crate::output::{Cell, Table, Tone, duration_text, time_text};
use crate::{lookup, parse};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List the workspaces you can see
    #[command(visible_alias = "ls")]
    List {
        /// Only those of this project
        #[arg(long, short)]
        project: Option<String>,
        #[command(flatten)]
        limit: LimitArg,
    },
    /// Make a workspace
    Create {
        /// Its name, or project/name
        name: String,
        /// The project it lies in
        #[arg(long, short)]
        project: Option<String>,
        /// production, staging or development; fixed for life
        #[arg(long, short, value_parser = parse::environment)]
        environment: Environment,
        /// What it is for
        #[arg(long, default_value = "", hide_default_value = true)]
        description: Text,
        #[command(flatten)]
        thresholds: Thresholds,
    },
    /// Show a workspace
    Show {
        /// Name, project/name, or id
        workspace: String,
    },
    /// Rename or describe a workspace, or change when quiet hosts are late
    Update {
        /// Name, project/name, or id
        workspace: String,
        /// New name
        #[arg(long)]
        name: Option<Name>,
        /// New description
        #[arg(long)]
        description: Option<Text>,
        #[command(flatten)]
        thresholds: Thresholds,
    },
    /// Delete a workspace whose hosts are all retired
    #[command(visible_alias = "rm")]
    Delete {
        /// Name, project/name, or id
        workspace: String,
    },
}

/// When a quiet host is late, and when unreachable.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct Thresholds {
    /// How often agents send a heartbeat; the other two follow from it unless given
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    heartbeat: Option<Duration>,
    /// A host quiet for this long is late
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    late: Option<Duration>,
    /// A host quiet for this long is unreachable
    #[arg(long, value_parser = parse::duration, value_name = "DURATION")]
    unreachable: Option<Duration>,
}

impl Thresholds {
    fn is_given(self) -> bool {
        self.heartbeat.or(self.late).or(self.unreachable).is_some()
    }

    /// These laid over `base`; a new heartbeat moves the other two with it.
    fn over(self, base: LivenessThresholds) -> Result<LivenessThresholds, Failure> {
        let millis = |duration: Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
        let mut result = self
            .heartbeat
            .map_or(base, LivenessThresholds::for_heartbeat);
        if let Some(heartbeat) = self.heartbeat {
            // Not clamped: what is out of range must be refused.
            result.heartbeat_ms = millis(heartbeat);
        }
        result.late_ms = self.late.map_or(result.late_ms, millis);
        result.unreachable_ms = self.unreachable.map_or(result.unreachable_ms, millis);
        result
            .check()
            .map_err(|error| Failure::Usage(error.to_string()))
    }
}

pub(super) fn run(app: &mut App, command: Command) -> Result<(), Failure> {
    let client = app.client()?;
    match command {
        Command::List { project, limit } => {
            let project = project
                .map(|project| lookup::project(&client, &project))
                .transpose()?;
            let filter = WorkspaceFilter {
                project,
                ..WorkspaceFilter::default()
            };
            let page = client.list::<ListWorkspaces, _>(&Nothing {}, &filter, limit.at_most())?;
            list(app, &client, &page)
        }
        Command::Create {
            name,
            project,
            environment,
            description,
            thresholds,
        } => {
            let (project, name) = place(project.as_deref(), &name)?;
            let path = lookup::in_project(&client, &project)?;
            let thresholds = thresholds
                .is_given()
                .then(|| thresholds.over(LivenessThresholds::default()))
                .transpose()?;
            let body = CreateWorkspace {
                name,
                environment,
                description,
                thresholds,
            };
            let made = client.send::<CreateWorkspaceRecord>(&path, &body)?;
            app.out.write(&made, properties)
        }
        Command::Show { workspace } => {
            let found = client.fetch::<GetWorkspace>(&path(&client, &workspace)?)?;
            app.out.write(&found, properties)
        }
        Command::Update {
            workspace,
            name,
            description,
            thresholds,
        } => {
            let path = path(&client, &workspace)?;
            let thresholds = match thresholds.is_given() {
                true => Some(thresholds.over(client.fetch::<GetWorkspace>(&path)?.thresholds)?),
                false => None,
            };
            let body = UpdateWorkspace {
                name,
                description,
                thresholds,
            };
            let changed = client.send::<UpdateWorkspaceRecord>(&path, &body)?;
            app.out.write(&changed, properties)
        }
        Command::Delete { workspace } => {
            let path = path(&client, &workspace)?;
            app.confirm(&format!(
                "Delete workspace {workspace} and its agent tokens?"
            ))?;
            let nothing = client.fetch::<DeleteWorkspace>(&path)?;
            app.out
                .say(&nothing, |_| format!("deleted workspace {workspace}"))
        }
    }
}

fn path(client: &Client, text: &str) -> Result<InWorkspace, Failure> {
    Ok(InWorkspace {
        workspace: lookup::workspace(client, text)?,
    })
}

/// `--project web prod` and `web/prod` are the same.
fn place(project: Option<&str>, name: &str) -> Result<(String, Name), Failure> {
    let (project, name) = match (project, name.split_once('/')) {
        (Some(project), None) => (project, name),
        (None, Some((project, name))) => (project, name),
        (None, None) => {
            return Err(Failure::Usage(format!(
                "in which project? write project/{name}, or say --project"
            )));
        }
        (Some(_), Some(_)) => return Err(Failure::Usage("name the project once".to_owned())),
    };
    let name = name
        .parse()
        .map_err(|error| Failure::Usage(format!("{error}")))?;
    Ok((project.to_owned(), name))
}

fn list(app: &mut App, client: &Client, page: &Page<Workspace>) -> Result<(), Failure> {
    if app.out.format() == crate::output::Format::Json {
        return app.out.json(page);
    }
    // Names of projects are a comfort: who may not list them sees ids.
    let projects = lookup::projects(client).unwrap_or_default();
    let project_name = |workspace: &Workspace| {
        let known = projects
            .iter()
            .find(|project| project.id == workspace.project);
        known.map_or_else(
            || workspace.project.to_string(),
            |project| project.name.to_string(),
        )
    };
    app.out.write(page, |page, now| {
        let mut table = Table::new(&[
            "PROJECT",
            "NAME",
            "ENVIRONMENT",
            "HEARTBEAT",
            "AGE",
            "DESCRIPTION",
            "ID",
        ]);
        for workspace in &page.items {
            table.row([
                project_name(workspace).into(),
                workspace.name.as_str().into(),
                environment_cell(workspace.environment),
                millis(workspace.thresholds.heartbeat_ms).into(),
                age_cell(now, workspace.created_at),
                workspace.description.as_str().into(),
                workspace.id.to_string().into(),
            ]);
        }
        table
    })
}

fn environment_cell(environment: Environment) -> Cell {
    let tone = if environment == Environment::Production {
        Tone::Warn
    } else {
        Tone::Plain
    };
    Cell::new(environment.as_str()).tone(tone)
}

fn millis(millis: u32) -> String {
    duration_text(Duration::from_millis(u64::from(millis)))
}

fn properties(workspace: &Workspace, now: Timestamp) -> Table {
    let mut table = Table::of_one();
    table.property("name", workspace.name.as_str());
    table.property("id", workspace.id.to_string());
    table.property("project", workspace.project.to_string());
    table.property("environment", environment_cell(workspace.environment));
    table.property("description", workspace.description.as_str());
    table.property("heartbeat", millis(workspace.thresholds.heartbeat_ms));
    table.property("late after", millis(workspace.thresholds.late_ms));
    table.property(
        "unreachable after",
        millis(workspace.thresholds.unreachable_ms),
    );
    table.property("created", time_text(now, workspace.created_at));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(heartbeat: Option<u64>, late: Option<u64>, unreachable: Option<u64>) -> Thresholds {
        let seconds = |value: Option<u64>| value.map(Duration::from_secs);
        Thresholds {
            heartbeat: seconds(heartbeat),
            late: seconds(late),
            unreachable: seconds(unreachable),
        }
    }

    #[test]
    fn a_new_heartbeat_moves_the_others_unless_they_are_given() {
        let base = LivenessThresholds::default();
        assert_eq!(
            given(Some(2), None, None).over(base).unwrap(),
            LivenessThresholds::for_heartbeat(Duration::from_secs(2))
        );
        let both = given(Some(2), Some(5), None).over(base).unwrap();
        assert_eq!(
            (both.heartbeat_ms, both.late_ms, both.unreachable_ms),
            (2000, 5000, 5600)
        );
        let late = given(None, Some(20), None).over(base).unwrap();
        assert_eq!(
            (late.heartbeat_ms, late.late_ms, late.unreachable_ms),
            (10_000, 20_000, base.unreachable_ms)
        );
    }

    #[test]
    fn thresholds_out_of_order_or_range_are_refused() {
        for bad in [
            given(Some(2), Some(1), None),
            given(Some(600), None, None),
            given(None, None, Some(1)),
            given(Some(0), None, None),
        ] {
            assert_eq!(
                bad.over(LivenessThresholds::default())
                    .unwrap_err()
                    .exit_code(),
                2,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn the_project_is_named_once() {
        assert_eq!(place(Some("a"), "b").unwrap().0, "a");
        assert_eq!(place(None, "a/b").unwrap().1.as_str(), "b");
        assert!(
            place(None, "b").is_err()
                && place(Some("a"), "a/b").is_err()
                && place(None, "a/b/c").is_err()
        );
    }
}
