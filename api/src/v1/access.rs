//! Roles, and who has them where.

use model::Timestamp;
use model::access::Rule;
use model::ids::{RoleBindingId, RoleId, UserId};
use model::names::{Name, Text};
use model::permission::Permission;
use model::tenancy::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InProject, InWorkspace, OfBinding, OfProjectBinding, OfRole, OfWorkspaceBinding};
use crate::endpoint::endpoints;
use crate::page::{Page, Paging};

endpoints! {
    /// List every permission there is.
    list_permissions ListPermissions: GET "/v1/permissions", needs SelfRead, reply 200 Permissions;
    /// List roles.
    list_roles ListRoles: GET "/v1/roles", needs DeploymentRoleList, query Paging, reply 200 Page<Role>;
    /// Make a role that gives no more than its maker has.
    create_role CreateRoleDefinition: POST "/v1/roles", needs DeploymentRoleCreate, body CreateRole, reply 201 Role, problems [NameTaken, ExceedsMaker];
    /// Show a role.
    get_role GetRole: GET "/v1/roles/{role}", needs DeploymentRoleList, path OfRole, reply 200 Role;
    /// Change a role; those who have it have the new rules at once.
    update_role UpdateRoleDefinition: PATCH "/v1/roles/{role}", needs DeploymentRoleUpdate, path OfRole, body UpdateRole, reply 200 Role,
        problems [ExceedsMaker];
    /// Delete a role that nobody has.
    delete_role DeleteRole: DELETE "/v1/roles/{role}", needs DeploymentRoleDelete, path OfRole, reply 204, problems [NotEmpty];

    /// List who has roles for the whole deployment.
    list_deployment_bindings ListDeploymentBindings: GET "/v1/role-bindings", needs DeploymentAccessList, query Paging, reply 200 Page<RoleBinding>;
    /// Give a role for the whole deployment.
    create_deployment_binding CreateDeploymentBinding: POST "/v1/role-bindings", needs DeploymentAccessCreate,
        body CreateRoleBinding, reply 201 RoleBinding, problems [ExceedsMaker];
    /// Take a role for the whole deployment away.
    delete_deployment_binding DeleteDeploymentBinding: DELETE "/v1/role-bindings/{binding}", needs DeploymentAccessDelete, path OfBinding, reply 204,
        problems [ExceedsMaker];
    /// List who has roles in a project.
    list_project_bindings ListProjectBindings: GET "/v1/projects/{project}/role-bindings", needs ProjectAccessList, path InProject, query Paging, reply 200 Page<RoleBinding>;
    /// Give a role in a project.
    create_project_binding CreateProjectBinding: POST "/v1/projects/{project}/role-bindings", needs ProjectAccessCreate, path InProject,
        body CreateRoleBinding, reply 201 RoleBinding, problems [ExceedsMaker];
    /// Take a role in a project away.
    delete_project_binding DeleteProjectBinding: DELETE "/v1/projects/{project}/role-bindings/{binding}", needs ProjectAccessDelete, path OfProjectBinding, reply 204,
        problems [ExceedsMaker];
    /// List who has roles in a workspace.
    list_workspace_bindings ListWorkspaceBindings: GET "/v1/workspaces/{workspace}/role-bindings", needs WorkspaceAccessList, path InWorkspace, query Paging, reply 200 Page<RoleBinding>;
    /// Give a role in a workspace.
    create_workspace_binding CreateWorkspaceBinding: POST "/v1/workspaces/{workspace}/role-bindings", needs WorkspaceAccessCreate, path InWorkspace,
        body CreateRoleBinding, reply 201 RoleBinding, problems [ExceedsMaker];
    /// Take a role in a workspace away.
    delete_workspace_binding DeleteWorkspaceBinding: DELETE "/v1/workspaces/{workspace}/role-bindings/{binding}", needs WorkspaceAccessDelete, path OfWorkspaceBinding, reply 204,
        problems [ExceedsMaker];
}

/// Every permission there is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Permissions {
    /// By name.
    pub permissions: Vec<Permission>,
}

/// A role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Role {
    /// Its id.
    pub id: RoleId,
    /// Unique name.
    pub name: Name,
    /// For whom it is.
    pub description: Text,
    /// Built-in roles cannot be changed.
    pub built_in: bool,
    /// What it allows.
    pub rules: Vec<Rule>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A new role.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRole {
    /// Unique name.
    pub name: Name,
    /// For whom it is.
    #[serde(default)]
    pub description: Text,
    /// What it allows.
    #[schemars(length(min = 1, max = 128))]
    pub rules: Vec<Rule>,
}

/// Changes to a role; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateRole {
    /// For whom it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<Text>,
    /// What it allows, as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub rules: Option<Vec<Rule>>,
}

/// A role that a user has at a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RoleBinding {
    /// Its id.
    pub id: RoleBindingId,
    /// Who.
    pub user: UserId,
    /// What.
    pub role: RoleId,
    /// Where.
    pub scope: Scope,
    /// Since when.
    pub created_at: Timestamp,
}

/// Gives a role at the scope of the path.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRoleBinding {
    /// Who.
    pub user: UserId,
    /// What.
    pub role: RoleId,
}
