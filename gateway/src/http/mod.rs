//! HTTP: the listener, the way of a request to its handler, and the list of
//! routes.

pub mod admin;
pub mod call;
pub mod dispatch;
pub mod problem;
pub mod server;

use std::sync::Arc;

use api::v1::access::*;
use api::v1::agent_token::*;
use api::v1::approval::*;
use api::v1::audit::*;
use api::v1::certificate_authority::*;
use api::v1::command::*;
use api::v1::diagnose::*;
use api::v1::event::*;
use api::v1::file::*;
use api::v1::host::*;
use api::v1::monitoring::*;
use api::v1::people::*;
use api::v1::plugin::*;
use api::v1::power::*;
use api::v1::secret::*;
use api::v1::system::*;
use api::v1::tenancy::*;
use axum::Router;

use crate::app::App;
use crate::handlers::{
    access, agent_token, approval, audit, certificate_authority, command, command_follow,
    dead_letter, diagnose, event, file, host, monitoring, people, plugin, plugin_registry, power,
    secret, system, tenancy,
};
use crate::link::carrier;
use crate::plugins::engine::LOAD_WITHIN;
use crate::plugins::registries;
use dispatch::Routes;

/// Every route, and the ids of the operations that are mounted.
pub fn routes(app: Arc<App>) -> (Router, Vec<&'static str>) {
    Routes::new(app)
        .public::<GetHealth, _, _>(system::get_health)
        .public::<GetReady, _, _>(system::get_ready)
        .public_raw::<GetOpenapi, _, _>(system::get_openapi)
        .guarded_raw::<GetMetrics, _, _>(system::get_metrics)
        .public::<ClaimFirstRun, _, _>(system::claim_first_run)
        .public_raw::<GetInstallScript, _, _>(system::get_install_script)
        .public_raw::<GetWorkspaceInstallScript, _, _>(system::get_workspace_install_script)
        .public_raw::<GetAgentReleaseFile, _, _>(system::get_agent_release_file)
        .public_raw::<OpenAgentCarrier, _, _>(carrier::open_agent_carrier)
        .guarded::<GetSelf, _, _>(people::get_self)
        .guarded::<ListOwnApiKeys, _, _>(people::list_own_api_keys)
        .guarded::<CreateOwnApiKey, _, _>(people::create_own_api_key)
        .guarded::<DeleteOwnApiKey, _, _>(people::delete_own_api_key)
        .guarded::<ListUsers, _, _>(people::list_users)
        .guarded::<CreateUserAccount, _, _>(people::create_user)
        .guarded::<GetUser, _, _>(people::get_user)
        .guarded::<UpdateUserAccount, _, _>(people::update_user)
        .guarded::<DeleteUser, _, _>(people::delete_user)
        .guarded::<ListUserApiKeys, _, _>(people::list_user_api_keys)
        .guarded::<CreateUserApiKey, _, _>(people::create_user_api_key)
        .guarded::<DeleteUserApiKey, _, _>(people::delete_user_api_key)
        .guarded::<ListPermissions, _, _>(access::list_permissions)
        .guarded::<ListRoles, _, _>(access::list_roles)
        .guarded::<CreateRoleDefinition, _, _>(access::create_role)
        .guarded::<GetRole, _, _>(access::get_role)
        .guarded::<UpdateRoleDefinition, _, _>(access::update_role)
        .guarded::<DeleteRole, _, _>(access::delete_role)
        .guarded::<ListDeploymentBindings, _, _>(access::list_deployment_bindings)
        .guarded::<CreateDeploymentBinding, _, _>(access::create_deployment_binding)
        .guarded::<DeleteDeploymentBinding, _, _>(access::delete_deployment_binding)
        .guarded::<ListProjectBindings, _, _>(access::list_project_bindings)
        .guarded::<CreateProjectBinding, _, _>(access::create_project_binding)
        .guarded::<DeleteProjectBinding, _, _>(access::delete_project_binding)
        .guarded::<ListWorkspaceBindings, _, _>(access::list_workspace_bindings)
        .guarded::<CreateWorkspaceBinding, _, _>(access::create_workspace_binding)
        .guarded::<DeleteWorkspaceBinding, _, _>(access::delete_workspace_binding)
        .guarded::<ListProjects, _, _>(tenancy::list_projects)
        .guarded::<CreateProjectRecord, _, _>(tenancy::create_project)
        .guarded::<GetProject, _, _>(tenancy::get_project)
        .guarded::<UpdateProjectRecord, _, _>(tenancy::update_project)
        .guarded::<DeleteProject, _, _>(tenancy::delete_project)
        .guarded::<ListWorkspaces, _, _>(tenancy::list_workspaces)
        .guarded::<CreateWorkspaceRecord, _, _>(tenancy::create_workspace)
        .guarded::<GetWorkspace, _, _>(tenancy::get_workspace)
        .guarded::<UpdateWorkspaceRecord, _, _>(tenancy::update_workspace)
        .guarded::<DeleteWorkspace, _, _>(tenancy::delete_workspace)
        .guarded::<ListApprovals, _, _>(approval::list_approvals)
        .guarded::<GetApproval, _, _>(approval::get_approval)
        .guarded::<DecideApproval, _, _>(approval::decide_approval)
        .guarded::<ListAgentTokens, _, _>(agent_token::list_agent_tokens)
        .guarded::<CreateAgentTokenRecord, _, _>(agent_token::create_agent_token)
        .guarded::<GetAgentToken, _, _>(agent_token::get_agent_token)
        .guarded::<DeleteAgentToken, _, _>(agent_token::delete_agent_token)
        .guarded::<RotateAgentTokenRecord, _, _>(agent_token::rotate_agent_token)
        .guarded::<ListHosts, _, _>(host::list_hosts)
        .guarded::<CreateHostRecord, _, _>(host::create_host)
        .guarded::<GetHost, _, _>(host::get_host)
        .guarded::<UpdateHostRecord, _, _>(host::update_host)
        .guarded::<ListHostHistory, _, _>(host::list_host_history)
        .guarded::<SetHostMaintenance, _, _>(host::set_host_maintenance)
        .guarded::<EndHostMaintenance, _, _>(host::end_host_maintenance)
        .guarded::<RepairHostClone, _, _>(host::repair_host_clone)
        .guarded::<RetireHostRecord, _, _>(host::retire_host)
        .guarded::<ListMetricsTargets, _, _>(monitoring::list_metrics_targets)
        .guarded_raw::<GetHostMetrics, _, _>(monitoring::get_host_metrics)
        .guarded::<GetHostDiagnostic, _, _>(diagnose::get_host_diagnostic)
        .guarded_raw::<GetHostDiagnosticsBundle, _, _>(diagnose::get_host_diagnostics_bundle)
        .guarded::<ResolveCommandTargets, _, _>(command::resolve_command_targets)
        .guarded::<CreateCommandRecord, _, _>(command::create_command)
        .guarded::<ListCommands, _, _>(command::list_commands)
        .guarded::<GetCommand, _, _>(command::get_command)
        .guarded::<GetCommandDefinition, _, _>(command::get_command_definition)
        .guarded::<ListCommandRuns, _, _>(command::list_command_runs)
        .guarded::<GetCommandRun, _, _>(command::get_command_run)
        .guarded_raw::<GetCommandOutput, _, _>(command_follow::get_command_output)
        .guarded_raw::<FollowCommand, _, _>(command_follow::follow_command)
        .guarded::<CancelCommandRuns, _, _>(command::cancel_command)
        .guarded::<RetryCommandRuns, _, _>(command::retry_command)
        .guarded_within::<GetFile, _, _>(file::WORK_WITHIN, file::get_file)
        .guarded_raw::<ReadFile, _, _>(file::read_file)
        .guarded_upload::<WriteFile, _, _>(file::write_file)
        .guarded::<GetFileUpload, _, _>(file::get_file_upload)
        .guarded::<ListSecrets, _, _>(secret::list_secrets)
        .guarded::<SetSecretValue, _, _>(secret::set_secret)
        .guarded::<DeleteSecret, _, _>(secret::delete_secret)
        .guarded::<ListPlugins, _, _>(plugin::list_plugins)
        .guarded_upload::<InstallPlugin, _, _>(plugin::install_plugin)
        .guarded::<GetPlugin, _, _>(plugin::get_plugin)
        .guarded_upload::<UpgradePlugin, _, _>(plugin::upgrade_plugin)
        .guarded_within::<ApprovePluginUpgrade, _, _>(LOAD_WITHIN, plugin::approve_plugin_upgrade)
        .guarded::<RollbackPlugin, _, _>(plugin::rollback_plugin)
        .guarded::<GrantPlugin, _, _>(plugin::grant_plugin)
        .guarded::<GetPluginConfiguration, _, _>(plugin::get_plugin_configuration)
        .guarded_within::<ConfigurePlugin, _, _>(LOAD_WITHIN, plugin::configure_plugin)
        .guarded::<EnablePlugin, _, _>(plugin::enable_plugin)
        .guarded::<DisablePlugin, _, _>(plugin::disable_plugin)
        .guarded::<RemovePlugin, _, _>(plugin::remove_plugin)
        .guarded_within::<CheckPlugin, _, _>(plugin::CHECK_WITHIN, plugin::check_plugin)
        .guarded::<ListPluginLogs, _, _>(plugin::list_plugin_logs)
        .guarded_within::<InstallPluginFromRegistry, _, _>(
            registries::ANSWER_WITHIN,
            plugin_registry::install_plugin_from_registry,
        )
        .guarded_within::<UpgradePluginFromRegistry, _, _>(
            registries::ANSWER_WITHIN,
            plugin_registry::upgrade_plugin_from_registry,
        )
        .guarded::<GetHostPower, _, _>(power::get_host_power)
        .guarded_within::<ObserveHostPower, _, _>(power::WITHIN, power::observe_host_power)
        .guarded::<SetPowerTarget, _, _>(power::set_power_target)
        .guarded::<RemovePowerTarget, _, _>(power::remove_power_target)
        .guarded_within::<CheckPowerTarget, _, _>(power::WITHIN, power::check_power_target)
        .guarded::<PowerOn, _, _>(power::power_on)
        .guarded::<PowerOff, _, _>(power::power_off)
        .guarded::<PowerReset, _, _>(power::power_reset)
        .guarded_within::<PlanHostPower, _, _>(power::WITHIN, power::plan_host_power)
        .guarded::<ListPowerOperations, _, _>(power::list_power_operations)
        .guarded::<GetPowerOperation, _, _>(power::get_power_operation)
        .guarded::<CancelPowerOperation, _, _>(power::cancel_power_operation)
        .guarded::<BulkPowerOn, _, _>(power::bulk_power_on)
        .guarded::<BulkPowerOff, _, _>(power::bulk_power_off)
        .guarded::<BulkPowerReset, _, _>(power::bulk_power_reset)
        .guarded::<PlanBulkPower, _, _>(power::plan_bulk_power)
        .guarded::<ListPowerBulks, _, _>(power::list_power_bulks)
        .guarded::<GetPowerBulk, _, _>(power::get_power_bulk)
        .guarded::<CancelPowerBulk, _, _>(power::cancel_power_bulk)
        .guarded_within::<DiscoverPowerTargets, _, _>(power::WITHIN, power::discover_power_targets)
        .guarded::<ListDeadLetters, _, _>(dead_letter::list_dead_letters)
        .guarded_within::<RedeliverDeadLetters, _, _>(
            dead_letter::REDELIVER_WITHIN,
            dead_letter::redeliver_dead_letters,
        )
        .guarded::<DiscardDeadLetters, _, _>(dead_letter::discard_dead_letters)
        .guarded_raw::<FollowEvents, _, _>(event::follow_events)
        .guarded::<ListDeploymentAudit, _, _>(audit::list_deployment_audit)
        .guarded_raw::<ExportDeploymentAudit, _, _>(audit::export_deployment_audit)
        .guarded::<GetDeploymentAuditKey, _, _>(audit::get_deployment_audit_key)
        .guarded::<ListWorkspaceAudit, _, _>(audit::list_workspace_audit)
        .guarded_raw::<ExportWorkspaceAudit, _, _>(audit::export_workspace_audit)
        .guarded::<GetWorkspaceAuditKey, _, _>(audit::get_workspace_audit_key)
        .guarded::<GetCertificateAuthority, _, _>(certificate_authority::get_certificate_authority)
        .guarded::<RotateCertificateAuthority, _, _>(
            certificate_authority::rotate_certificate_authority,
        )
        .finish()
}
