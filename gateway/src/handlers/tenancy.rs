//! Projects and workspaces.

use std::sync::Arc;

use api::v1::tenancy::*;
use api::{Page, ProblemCode};
use gateway_store::{Batch, CommitError, Condition};
use model::host::Membership;
use model::ids::{ProjectId, WorkspaceId};
use model::tenancy::Scope;

use super::page::page_of;
use crate::app::App;
use crate::error::{Error, Result};
use crate::http::call::Call;
use crate::state::names::{self, Namespace};
use crate::state::records::{ProjectRecordV1, TokenRecordV1, WorkspaceRecordV1, key_of};

/// Lists the projects in which the caller may do anything.
pub async fn list_projects(app: Arc<App>, call: Call<ListProjects>) -> Result<Page<Project>> {
    let tables = app.catalog.read();
    let authority = &call.proof.caller().authority;
    let sees = |project: ProjectId| {
        authority.sees(&Scope::Project { project }, None)
            || tables.workspaces.values().any(|workspace| {
                workspace.project == project
                    && authority.sees(&workspace.scope(), Some(workspace.environment))
            })
    };
    page_of(
        tables.projects.values(),
        |project| project.id,
        call.query.limit,
        call.query.after.as_deref(),
        |project| sees(project.id).then(|| project_view(project)),
    )
}

/// Makes a project.
pub async fn create_project(app: Arc<App>, call: Call<CreateProjectRecord>) -> Result<Project> {
    let record = ProjectRecordV1 {
        id: app.new_id(ProjectId::new),
        name: call.body.name.clone(),
        description: call.body.description.clone(),
        created_at: call.meta.now,
    };
    let mut batch = Batch::new();
    names::take(&mut batch, Namespace::Project, &record.name, record.id)?;
    batch.put_record(&key_of::<ProjectRecordV1>(record.id), &record)?;
    call.entry("project.create")
        .on(record.id)
        .with("name", &record.name)
        .in_deployment(&mut batch);
    let reply = project_view(&record);
    named(
        call.try_finish(&app, batch, &reply).await?,
        Namespace::Project,
        &record.name,
    )?;
    Ok(reply)
}

/// Shows a project.
pub async fn get_project(app: Arc<App>, call: Call<GetProject>) -> Result<Project> {
    let tables = app.catalog.read();
    tables
        .projects
        .get(&call.proof.project())
        .map(|record| project_view(record))
        .ok_or_else(|| Error::not_found("project"))
}

/// Changes a project.
pub async fn update_project(app: Arc<App>, call: Call<UpdateProjectRecord>) -> Result<Project> {
    let kept = app
        .catalog
        .read()
        .projects
        .get(&call.proof.project())
        .cloned();
    let kept = kept.ok_or_else(|| Error::not_found("project"))?;
    let mut record = (*kept.record).clone();
    let mut batch = Batch::new();
    let wanted = call.body.name.as_ref();
    names::change(
        &mut batch,
        Namespace::Project,
        &mut record.name,
        wanted,
        record.id,
    )?;
    record.description = call.body.description.clone().unwrap_or(record.description);
    let key = key_of::<ProjectRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, &record)?;
    call.entry("project.update")
        .on(record.id)
        .with("name", &record.name)
        .in_deployment(&mut batch);
    let reply = project_view(&record);
    named(
        call.try_finish(&app, batch, &reply).await?,
        Namespace::Project,
        &record.name,
    )?;
    Ok(reply)
}

/// Deletes a project without workspaces.
pub async fn delete_project(
    app: Arc<App>,
    call: Call<DeleteProject>,
) -> Result<api::endpoint::Nothing> {
    let id = call.proof.project();
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        let kept = tables
            .projects
            .get(&id)
            .ok_or_else(|| Error::not_found("project"))?;
        if tables
            .workspaces
            .values()
            .any(|workspace| workspace.project == id)
        {
            return Err(Error::new(
                ProblemCode::NotEmpty,
                "the project has workspaces; delete them first",
            ));
        }
        let key = key_of::<ProjectRecordV1>(id);
        batch.require(&key, Condition::RevIs(kept.rev));
        batch.delete(&key);
        names::free(&mut batch, Namespace::Project, &kept.name)?;
        for binding in tables
            .bindings
            .values()
            .filter(|binding| binding.scope == Scope::Project { project: id })
        {
            batch.delete(&key_of::<crate::state::records::BindingRecordV1>(
                binding.id,
            ));
        }
        call.entry("project.delete")
            .on(id)
            .with("name", &kept.name)
            .in_deployment(&mut batch);
    }
    call.finish(&app, batch, Default::default()).await
}

/// Lists the workspaces in which the caller may do anything.
pub async fn list_workspaces(app: Arc<App>, call: Call<ListWorkspaces>) -> Result<Page<Workspace>> {
    let tables = app.catalog.read();
    let authority = &call.proof.caller().authority;
    page_of(
        tables.workspaces.values(),
        |workspace| workspace.id,
        call.query.limit,
        call.query.after.as_deref(),
        |workspace| {
            let wanted = call
                .query
                .project
                .is_none_or(|project| workspace.project == project);
            let visible = wanted && authority.sees(&workspace.scope(), Some(workspace.environment));
            visible.then(|| workspace_view(workspace))
        },
    )
}

/// Makes a workspace.
pub async fn create_workspace(
    app: Arc<App>,
    call: Call<CreateWorkspaceRecord>,
) -> Result<Workspace> {
    let project = call.proof.project();
    let thresholds = call
        .body
        .thresholds
        .unwrap_or_else(|| app.config.default_thresholds());
    let record = WorkspaceRecordV1 {
        id: app.new_id(WorkspaceId::new),
        project,
        name: call.body.name.clone(),
        description: call.body.description.clone(),
        environment: call.body.environment,
        thresholds: thresholds
            .check()
            .map_err(|error| Error::invalid("thresholds", error.to_string()))?,
        created_at: call.meta.now,
    };
    let namespace = project.to_string();
    let namespace = Namespace::Workspace(&namespace);
    let mut batch = Batch::new();
    // A project that is deleted at the same moment wins.
    batch.require(&key_of::<ProjectRecordV1>(project), Condition::Present);
    names::take(&mut batch, namespace, &record.name, record.id)?;
    batch.put_record(&key_of::<WorkspaceRecordV1>(record.id), &record)?;
    call.entry("workspace.create")
        .on(record.id)
        .with("name", &record.name)
        .with("environment", record.environment)
        .in_workspace(record.id, &mut batch);
    let reply = workspace_view(&record);
    named(
        call.try_finish(&app, batch, &reply).await?,
        namespace,
        &record.name,
    )?;
    Ok(reply)
}

/// Shows a workspace.
pub async fn get_workspace(app: Arc<App>, call: Call<GetWorkspace>) -> Result<Workspace> {
    let tables = app.catalog.read();
    tables
        .workspaces
        .get(&call.proof.workspace())
        .map(|record| workspace_view(record))
        .ok_or_else(|| Error::not_found("workspace"))
}

/// Changes a workspace.
pub async fn update_workspace(
    app: Arc<App>,
    call: Call<UpdateWorkspaceRecord>,
) -> Result<Workspace> {
    let kept = app
        .catalog
        .read()
        .workspaces
        .get(&call.proof.workspace())
        .cloned();
    let kept = kept.ok_or_else(|| Error::not_found("workspace"))?;
    let mut record = (*kept.record).clone();
    let namespace = record.project.to_string();
    let namespace = Namespace::Workspace(&namespace);
    let mut batch = Batch::new();
    let wanted = call.body.name.as_ref();
    names::change(&mut batch, namespace, &mut record.name, wanted, record.id)?;
    record.description = call.body.description.clone().unwrap_or(record.description);
    if let Some(thresholds) = call.body.thresholds {
        record.thresholds = thresholds
            .check()
            .map_err(|error| Error::invalid("thresholds", error.to_string()))?;
    }
    let key = key_of::<WorkspaceRecordV1>(record.id);
    batch.require(&key, Condition::RevIs(kept.rev));
    batch.put_record(&key, &record)?;
    call.entry("workspace.update")
        .on(record.id)
        .with("name", &record.name)
        .with("heartbeat_ms", record.thresholds.heartbeat_ms)
        .with("unreachable_ms", record.thresholds.unreachable_ms)
        .in_workspace(record.id, &mut batch);
    let reply = workspace_view(&record);
    named(
        call.try_finish(&app, batch, &reply).await?,
        namespace,
        &record.name,
    )?;
    Ok(reply)
}

/// Deletes a workspace whose hosts are all retired.
pub async fn delete_workspace(
    app: Arc<App>,
    call: Call<DeleteWorkspace>,
) -> Result<api::endpoint::Nothing> {
    let id = call.proof.workspace();
    let mut batch = Batch::new();
    {
        let tables = app.catalog.read();
        let kept = tables
            .workspaces
            .get(&id)
            .ok_or_else(|| Error::not_found("workspace"))?;
        let live = tables
            .hosts_of(id)
            .filter_map(|host| tables.hosts.get(&host))
            .filter(|host| host.membership != Membership::Retired);
        let live = live.count();
        if live > 0 {
            return Err(Error::new(
                ProblemCode::NotEmpty,
                format!("{live} hosts are not retired; retire them first"),
            ));
        }
        let secrets = tables.secrets_of(id).count();
        if secrets > 0 {
            return Err(Error::new(
                ProblemCode::NotEmpty,
                format!("it has {secrets} secrets; delete them first"),
            ));
        }
        let key = key_of::<WorkspaceRecordV1>(id);
        batch.require(&key, Condition::RevIs(kept.rev));
        batch.delete(&key);
        names::free(
            &mut batch,
            Namespace::Workspace(&kept.project.to_string()),
            &kept.name,
        )?;
        // Tokens of a workspace that is gone let nobody in: enrolment asks for
        // the workspace. Those that fit into this batch go with it.
        for token in tables.tokens_of(id).take(32) {
            batch.delete(&key_of::<TokenRecordV1>(token));
        }
        call.entry("workspace.delete")
            .on(id)
            .with("name", &kept.name)
            .in_workspace(id, &mut batch);
    }
    call.finish(&app, batch, Default::default()).await
}

/// A conflict on a name is told as that.
pub(super) fn named(
    outcome: Result<(), CommitError>,
    namespace: Namespace<'_>,
    name: &model::names::Name,
) -> Result<()> {
    outcome.map_err(|error| match &error {
        CommitError::Conflict { key } => {
            names::taken(namespace, name, key).unwrap_or_else(|| error.clone().into())
        }
        _ => error.into(),
    })
}

fn project_view(record: &ProjectRecordV1) -> Project {
    Project {
        id: record.id,
        name: record.name.clone(),
        description: record.description.clone(),
        created_at: record.created_at,
    }
}

fn workspace_view(record: &WorkspaceRecordV1) -> Workspace {
    Workspace {
        id: record.id,
        project: record.project,
        name: record.name.clone(),
        description: record.description.clone(),
        environment: record.environment,
        thresholds: record.thresholds,
        created_at: record.created_at,
    }
}
