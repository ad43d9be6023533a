//! Version 1, a file per area. It grows only by adding.

pub mod access;
pub mod agent_token;
pub mod approval;
pub mod audit;
pub mod certificate_authority;
pub mod command;
pub mod diagnose;
pub mod event;
pub mod file;
pub mod host;
pub mod monitoring;
pub mod people;
pub mod plugin;
pub mod power;
pub mod secret;
pub mod system;
pub mod tenancy;

use model::diagnose::Section;
use model::ids::{
    AgentTokenId, ApiKeyId, ApprovalId, CommandId, HostId, PowerBulkId, PowerOperationId,
    ProjectId, RoleBindingId, RoleId, UserId, WorkspaceId,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::Operation;

/// Every operation of version 1.
pub fn operations() -> Vec<Operation> {
    [
        system::operations(),
        people::operations(),
        access::operations(),
        tenancy::operations(),
        agent_token::operations(),
        approval::operations(),
        host::operations(),
        monitoring::operations(),
        command::operations(),
        diagnose::operations(),
        file::operations(),
        event::operations(),
        audit::operations(),
        certificate_authority::operations(),
        secret::operations(),
        plugin::operations(),
        power::operations(),
    ]
    .concat()
}

macro_rules! paths {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty),* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        pub struct $name {
            $(
                #[allow(missing_docs, reason = "each is what its name says")]
                pub $field: $kind,
            )*
        }
    )*};
}

paths! {
    /// Something that waits for approval.
    OfApproval { workspace: WorkspaceId, approval: ApprovalId }
    /// One user.
    OfUser { user: UserId }
    /// One API key of the caller.
    OfOwnApiKey { api_key: ApiKeyId }
    /// One API key of a user.
    OfApiKey { user: UserId, api_key: ApiKeyId }
    /// One role.
    OfRole { role: RoleId }
    /// One role binding for the deployment.
    OfBinding { binding: RoleBindingId }
    /// One project.
    InProject { project: ProjectId }
    /// One role binding in a project.
    OfProjectBinding { project: ProjectId, binding: RoleBindingId }
    /// One workspace.
    InWorkspace { workspace: WorkspaceId }
    /// One role binding in a workspace.
    OfWorkspaceBinding { workspace: WorkspaceId, binding: RoleBindingId }
    /// One agent token.
    OfAgentToken { workspace: WorkspaceId, token: AgentTokenId }
    /// One host.
    OfHost { workspace: WorkspaceId, host: HostId }
    /// One section of the diagnostics of one host.
    OfDiagnostic { workspace: WorkspaceId, host: HostId, section: Section }
    /// One command.
    OfCommand { workspace: WorkspaceId, command: CommandId }
    /// The run of a command on one host.
    OfRun { workspace: WorkspaceId, command: CommandId, host: HostId }
    /// One operation on a host's power.
    OfPowerOperation { workspace: WorkspaceId, operation: PowerOperationId }
    /// Something done to many hosts' power.
    OfPowerBulk { workspace: WorkspaceId, bulk: PowerBulkId }
}
