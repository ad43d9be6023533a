//! Users, service accounts and their API keys.

use model::Timestamp;
use model::access::{Holding, Limits, Rule};
use model::ids::{ApiKeyId, UserId};
use model::names::{Name, Text};
use model::tenancy::Scope;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{OfApiKey, OfOwnApiKey, OfUser};
use crate::endpoint::endpoints;
use crate::page::{Page, Paging};

endpoints! {
    /// Who the caller is and what it may do.
    get_self GetSelf: GET "/v1/self", needs SelfRead, reply 200 Caller;
    /// List the caller's API keys.
    list_own_api_keys ListOwnApiKeys: GET "/v1/self/api-keys", needs SelfApiKeyList, query Paging, reply 200 Page<ApiKey>;
    /// Make an API key for the caller, never wider than the one used.
    create_own_api_key CreateOwnApiKey: POST "/v1/self/api-keys", needs SelfApiKeyCreate,
        body CreateApiKey, reply 201 CreatedApiKey, problems [ExceedsMaker, Invalid];
    /// Revoke an API key of the caller.
    delete_own_api_key DeleteOwnApiKey: DELETE "/v1/self/api-keys/{api_key}", needs SelfApiKeyDelete, path OfOwnApiKey, reply 204;

    /// List users and service accounts.
    list_users ListUsers: GET "/v1/users", needs DeploymentUserList, query Paging, reply 200 Page<User>;
    /// Make a user or service account.
    create_user CreateUserAccount: POST "/v1/users", needs DeploymentUserCreate, body CreateUser, reply 201 User, problems [NameTaken];
    /// Show a user.
    get_user GetUser: GET "/v1/users/{user}", needs DeploymentUserList, path OfUser, reply 200 User;
    /// Rename, disable or enable a user; disabling ends everything it has open.
    update_user UpdateUserAccount: PATCH "/v1/users/{user}", needs DeploymentUserUpdate, path OfUser, body UpdateUser, reply 200 User,
        problems [ExceedsMaker];
    /// Delete a user with its keys and roles.
    delete_user DeleteUser: DELETE "/v1/users/{user}", needs DeploymentUserDelete, path OfUser, reply 204, problems [ExceedsMaker];
    /// List a user's API keys.
    list_user_api_keys ListUserApiKeys: GET "/v1/users/{user}/api-keys", needs DeploymentUserApiKeyList, path OfUser, query Paging, reply 200 Page<ApiKey>;
    /// Make an API key for a user whose rights the caller has too.
    create_user_api_key CreateUserApiKey: POST "/v1/users/{user}/api-keys", needs DeploymentUserApiKeyCreate, path OfUser,
        body CreateApiKey, reply 201 CreatedApiKey, problems [ExceedsMaker, Invalid];
    /// Revoke a user's API key.
    delete_user_api_key DeleteUserApiKey: DELETE "/v1/users/{user}/api-keys/{api_key}", needs DeploymentUserApiKeyDelete, path OfApiKey, reply 204;
}

/// A person or a service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Unique name.
    pub name: Name,
    /// What it is.
    pub kind: UserKind,
    /// Shown instead of the name.
    pub display_name: Text,
    /// A disabled user can do nothing.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UserKind {
    /// Somebody.
    Person,
    /// Something.
    ServiceAccount,
}

/// A new user.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateUser {
    /// Unique name.
    pub name: Name,
    /// What it is.
    pub kind: UserKind,
    /// Shown instead of the name.
    #[serde(default)]
    pub display_name: Text,
}

/// Changes to a user; absent fields stay.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateUser {
    /// Shown instead of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<Text>,
    /// A disabled user can do nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<bool>,
}

/// An API key without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApiKey {
    /// Its id, which is also part of its text.
    pub id: ApiKeyId,
    /// Whose it is.
    pub user: UserId,
    /// What it is for.
    pub description: Text,
    /// What it is narrowed to.
    pub limits: Option<Limits>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A new API key.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// What it is for.
    #[serde(default)]
    pub description: Text,
    /// When it ends by itself; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Narrower than its user; as wide when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<KeyLimits>,
}

/// What a key is to be narrowed to.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyLimits {
    /// A workspace, a project, or everywhere when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<model::ids::WorkspaceId>,
    /// A project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<model::ids::ProjectId>,
    /// What it may do.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<Rule>,
}

/// A new API key with its secret, shown this once.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
pub struct CreatedApiKey {
    /// The key.
    pub api_key: ApiKey,
    /// The bearer text, `lbk_…`.
    pub secret: String,
}

impl std::fmt::Debug for CreatedApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CreatedApiKey")
            .field("api_key", &self.api_key)
            .finish_non_exhaustive()
    }
}

/// Who the caller is and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Caller {
    /// The user.
    pub user: User,
    /// The key in use.
    pub api_key: ApiKey,
    /// What the user's roles amount to; the key's limits narrow it.
    pub holdings: Vec<Held>,
}

/// A role's rules at a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Held {
    /// Where.
    pub scope: Scope,
    /// What.
    pub rules: Vec<Rule>,
}

impl From<Holding> for Held {
    fn from(holding: Holding) -> Self {
        Self {
            scope: holding.scope,
            rules: holding.rules,
        }
    }
}
