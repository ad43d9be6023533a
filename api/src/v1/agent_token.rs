//! Agent tokens: workspace-scoped secrets with which hosts join. A token is not
//! a host's identity: when it ends, the hosts that joined with it stay.

use model::Timestamp;
use model::ids::{AgentTokenId, HostId, UserId, WorkspaceId};
use model::labels::Labels;
use model::names::Text;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{InWorkspace, OfAgentToken};
use crate::endpoint::endpoints;
use crate::page::Page;

endpoints! {
    /// List agent tokens.
    list_agent_tokens ListAgentTokens: GET "/v1/workspaces/{workspace}/agent-tokens", needs AgentTokenList, path InWorkspace,
        query AgentTokenFilter, reply 200 Page<AgentToken>;
    /// Make an agent token; whoever has its secret can join machines to the workspace.
    create_agent_token CreateAgentTokenRecord: POST "/v1/workspaces/{workspace}/agent-tokens", needs AgentTokenCreate, path InWorkspace,
        body CreateAgentToken, reply 201 CreatedAgentToken;
    /// Show an agent token.
    get_agent_token GetAgentToken: GET "/v1/workspaces/{workspace}/agent-tokens/{token}", needs AgentTokenList, path OfAgentToken, reply 200 AgentToken;
    /// Revoke an agent token at once; hosts that joined with it stay.
    delete_agent_token DeleteAgentToken: DELETE "/v1/workspaces/{workspace}/agent-tokens/{token}", needs AgentTokenDelete, path OfAgentToken, reply 204;
    /// Make a successor of an agent token; the old one ends after the overlap.
    rotate_agent_token RotateAgentTokenRecord: POST "/v1/workspaces/{workspace}/agent-tokens/{token}/rotate", needs AgentTokenRotate, path OfAgentToken,
        body RotateAgentToken, reply 201 CreatedAgentToken;
}

/// An agent token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentToken {
    /// Its id, which is also part of its text.
    pub id: AgentTokenId,
    /// The workspace that hosts join with it.
    pub workspace: WorkspaceId,
    /// Note for operators.
    pub description: Text,
    /// Whether it was made with the long validity.
    pub long_living_token: bool,
    /// What it is good for now.
    pub state: AgentTokenState,
    /// Who made it.
    pub created_by: UserId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// How many hosts may join with it.
    pub use_limit: Option<u32>,
    /// How many have.
    pub uses: u32,
    /// When the last one did.
    pub last_used_at: Option<Timestamp>,
    /// The last twenty that did, newest first.
    pub recent_hosts: Vec<HostId>,
    /// Labels given to joining hosts.
    pub labels: Labels,
    /// Whether joining hosts retire by themselves once unreachable for a while.
    pub ephemeral: bool,
    /// Its successor.
    pub replaced_by: Option<AgentTokenId>,
}

/// What an agent token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AgentTokenState {
    /// Hosts can join with it.
    Active,
    /// Its time is over.
    Expired,
    /// It was used as often as it may be.
    Exhausted,
    /// Somebody revoked it.
    Revoked,
}

/// A new agent token.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAgentToken {
    /// Note for operators.
    #[serde(default)]
    pub description: Text,
    /// The long validity instead of the short one; both are set in the
    /// gateway's configuration.
    #[serde(default)]
    pub long_living_token: bool,
    /// How many hosts may join with it; any number when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub use_limit: Option<u32>,
    /// Labels given to joining hosts.
    #[serde(default)]
    pub labels: Labels,
    /// Whether joining hosts retire by themselves once unreachable for a while.
    #[serde(default)]
    pub ephemeral: bool,
}

/// How to rotate.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateAgentToken {
    /// How long the old token stays valid beside the new one; one hour when
    /// absent, never past its own end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 2_592_000_000_u64))]
    pub overlap_ms: Option<u64>,
}

/// A new agent token with its secret, shown this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct CreatedAgentToken {
    /// The token.
    pub token: AgentToken,
    /// The bearer text, `lbt_…`.
    pub secret: String,
    /// What an installer needs to know.
    pub install: InstallInfo,
}

impl std::fmt::Debug for CreatedAgentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedAgentToken")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// Where the installer is and how to know it is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InstallInfo {
    /// URL of the installer.
    pub url: String,
    /// Pin of the gateway's HTTPS key, as `curl --pinnedpubkey` takes it.
    pub pin: String,
}

/// Which agent tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AgentTokenFilter {
    /// Also those that are good for nothing any more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
    /// Most items to answer, 1 to 1000; 100 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<u32>,
    /// `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub after: Option<String>,
}
