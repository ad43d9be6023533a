//! Projects and workspaces.

use model::Timestamp;
use model::ids::{ProjectId, WorkspaceId};
use model::names::{Name, Text};
use model::tenancy::{Environment, LivenessThresholds};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InProject, InWorkspace};
use crate::endpoint::endpoints;
use crate::page::{Page, Paging};

endpoints! {
    /// List the projects the caller sees.
    list_projects ListProjects: GET "/v1/projects", needs SelfRead, query Paging, reply 200 Page<Project>;
    /// Make a project.
    create_project CreateProjectRecord: POST "/v1/projects", needs ProjectCreate, body CreateProject, reply 201 Project, problems [NameTaken];
    /// Show a project.
    get_project GetProject: GET "/v1/projects/{project}", needs ProjectList, path InProject, reply 200 Project;
    /// Change a project.
    update_project UpdateProjectRecord: PATCH "/v1/projects/{project}", needs ProjectUpdate, path InProject, body UpdateProject, reply 200 Project, problems [NameTaken];
    /// Delete a project that has no workspaces.
    delete_project DeleteProject: DELETE "/v1/projects/{project}", needs ProjectDelete, path InProject, reply 204, problems [NotEmpty];
    /// List the workspaces the caller sees, of one project or of all.
    list_workspaces ListWorkspaces: GET "/v1/workspaces", needs SelfRead, query WorkspaceFilter, reply 200 Page<Workspace>;
    /// Make a workspace in a project.
    create_workspace CreateWorkspaceRecord: POST "/v1/projects/{project}/workspaces", needs WorkspaceCreate, path InProject,
        body CreateWorkspace, reply 201 Workspace, problems [NameTaken];
    /// Show a workspace.
    get_workspace GetWorkspace: GET "/v1/workspaces/{workspace}", needs WorkspaceList, path InWorkspace, reply 200 Workspace;
    /// Change a workspace; new thresholds reach its agents at once.
    update_workspace UpdateWorkspaceRecord: PATCH "/v1/workspaces/{workspace}", needs WorkspaceUpdate, path InWorkspace,
        body UpdateWorkspace, reply 200 Workspace, problems [NameTaken];
    /// Delete a workspace whose hosts are all retired; its tokens end with it.
    delete_workspace DeleteWorkspace: DELETE "/v1/workspaces/{workspace}", needs WorkspaceDelete, path InWorkspace, reply 204, problems [NotEmpty];
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Project {
    /// Its id.
    pub id: ProjectId,
    /// Unique name.
    pub name: Name,
    /// What it is for.
    pub description: Text,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A new project.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateProject {
    /// Unique name.
    pub name: Name,
    /// What it is for.
    #[serde(default)]
    pub description: Text,
}

/// Changes to a project; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateProject {
    /// Unique name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text>,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Workspace {
    /// Its id.
    pub id: WorkspaceId,
    /// The project it lies in.
    pub project: ProjectId,
    /// Name, unique in its project.
    pub name: Name,
    /// What it is for.
    pub description: Text,
    /// Production, staging or development; fixed for life, since roles depend on it.
    pub environment: Environment,
    /// When a quiet host is late, and when unreachable.
    pub thresholds: LivenessThresholds,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A new workspace.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateWorkspace {
    /// Name, unique in its project.
    pub name: Name,
    /// Production, staging or development.
    pub environment: Environment,
    /// What it is for.
    #[serde(default)]
    pub description: Text,
    /// The gateway's defaults when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<LivenessThresholds>,
}

/// Changes to a workspace; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateWorkspace {
    /// Name, unique in its project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text>,
    /// When a quiet host is late, and when unreachable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<LivenessThresholds>,
}

/// Which workspaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceFilter {
    /// Of this project only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectId>,
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
}
