//! HTTP: the listener, the way of a request to its handler, and the list of
//! routes.

pub mod call;
pub mod dispatch;
pub mod problem;
pub mod server;

use std::sync::Arc;

use api::v1::access::*;
use api::v1::agent_token::*;
use api::v1::audit::*;
use api::v1::certificate_authority::*;
use api::v1::event::*;
use api::v1::host::*;
use api::v1::people::*;
use api::v1::system::*;
use api::v1::tenancy::*;
use axum::Router;

use crate::app::App;
use crate::handlers::{
    access, agent_token, audit, certificate_authority, event, host, people, system, tenancy,
};
use crate::link::carrier;
use dispatch::Routes;

/// Every route, and the ids of the operations that are mounted.
pub fn routes(app: Arc<App>) -> (Router, Vec<&'static str>) {
    Routes::new(app)
        .add_public::<GetHealth, _, _>(system::get_health)
        .add_public::<GetReady, _, _>(system::get_ready)
        .add_public_raw::<GetOpenapi, _, _>(system::get_openapi)
        .add_raw::<GetMetrics, _, _>(system::get_metrics)
        .add_public::<ClaimFirstRun, _, _>(system::claim_first_run)
        .add_public_raw::<GetInstallScript, _, _>(system::get_install_script)
        .add_public_raw::<GetAgentReleaseFile, _, _>(system::get_agent_release_file)
        .add_public_raw::<OpenAgentCarrier, _, _>(carrier::open_agent_carrier)
        .add::<GetSelf, _, _>(people::get_self)
        .add::<ListOwnApiKeys, _, _>(people::list_own_api_keys)
        .add::<CreateOwnApiKey, _, _>(people::create_own_api_key)
        .add::<DeleteOwnApiKey, _, _>(people::delete_own_api_key)
        .add::<ListUsers, _, _>(people::list_users)
        .add::<CreateUserAccount, _, _>(people::create_user)
        .add::<GetUser, _, _>(people::get_user)
        .add::<UpdateUserAccount, _, _>(people::update_user)
        .add::<DeleteUser, _, _>(people::delete_user)
        .add::<ListUserApiKeys, _, _>(people::list_user_api_keys)
        .add::<CreateUserApiKey, _, _>(people::create_user_api_key)
        .add::<DeleteUserApiKey, _, _>(people::delete_user_api_key)
        .add::<ListPermissions, _, _>(access::list_permissions)
        .add::<ListRoles, _, _>(access::list_roles)
        .add::<CreateRoleDefinition, _, _>(access::create_role)
        .add::<GetRole, _, _>(access::get_role)
        .add::<UpdateRoleDefinition, _, _>(access::update_role)
        .add::<DeleteRole, _, _>(access::delete_role)
        .add::<ListDeploymentBindings, _, _>(access::list_deployment_bindings)
        .add::<CreateDeploymentBinding, _, _>(access::create_deployment_binding)
        .add::<DeleteDeploymentBinding, _, _>(access::delete_deployment_binding)
        .add::<ListProjectBindings, _, _>(access::list_project_bindings)
        .add::<CreateProjectBinding, _, _>(access::create_project_binding)
        .add::<DeleteProjectBinding, _, _>(access::delete_project_binding)
        .add::<ListWorkspaceBindings, _, _>(access::list_workspace_bindings)
        .add::<CreateWorkspaceBinding, _, _>(access::create_workspace_binding)
        .add::<DeleteWorkspaceBinding, _, _>(access::delete_workspace_binding)
        .add::<ListProjects, _, _>(tenancy::list_projects)
        .add::<CreateProjectRecord, _, _>(tenancy::create_project)
        .add::<GetProject, _, _>(tenancy::get_project)
        .add::<UpdateProjectRecord, _, _>(tenancy::update_project)
        .add::<DeleteProject, _, _>(tenancy::delete_project)
        .add::<ListWorkspaces, _, _>(tenancy::list_workspaces)
        .add::<CreateWorkspaceRecord, _, _>(tenancy::create_workspace)
        .add::<GetWorkspace, _, _>(tenancy::get_workspace)
        .add::<UpdateWorkspaceRecord, _, _>(tenancy::update_workspace)
        .add::<DeleteWorkspace, _, _>(tenancy::delete_workspace)
        .add::<ListAgentTokens, _, _>(agent_token::list_agent_tokens)
        .add::<CreateAgentTokenRecord, _, _>(agent_token::create_agent_token)
        .add::<GetAgentToken, _, _>(agent_token::get_agent_token)
        .add::<DeleteAgentToken, _, _>(agent_token::delete_agent_token)
        .add::<RotateAgentTokenRecord, _, _>(agent_token::rotate_agent_token)
        .add::<ListHosts, _, _>(host::list_hosts)
        .add::<CreateHostRecord, _, _>(host::create_host)
        .add::<GetHost, _, _>(host::get_host)
        .add::<UpdateHostRecord, _, _>(host::update_host)
        .add::<ListHostHistory, _, _>(host::list_host_history)
        .add::<SetHostMaintenance, _, _>(host::set_host_maintenance)
        .add::<EndHostMaintenance, _, _>(host::end_host_maintenance)
        .add::<RepairHostClone, _, _>(host::repair_host_clone)
        .add::<RetireHostRecord, _, _>(host::retire_host)
        .add_raw::<FollowEvents, _, _>(event::follow_events)
        .add::<ListDeploymentAudit, _, _>(audit::list_deployment_audit)
        .add_raw::<ExportDeploymentAudit, _, _>(audit::export_deployment_audit)
        .add::<GetDeploymentAuditKey, _, _>(audit::get_deployment_audit_key)
        .add::<ListWorkspaceAudit, _, _>(audit::list_workspace_audit)
        .add_raw::<ExportWorkspaceAudit, _, _>(audit::export_workspace_audit)
        .add::<GetWorkspaceAuditKey, _, _>(audit::get_workspace_audit_key)
        .add::<GetCertificateAuthority, _, _>(certificate_authority::get_certificate_authority)
        .add::<RotateCertificateAuthority, _, _>(
            certificate_authority::rotate_certificate_authority,
        )
        .finish()
}
