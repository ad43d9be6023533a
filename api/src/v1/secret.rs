//! Secrets of a workspace: what plugins log in and sign with.
//!
//! They go in and never come out: there is no operation that answers a value. A plugin gets
//! one through a grant that ties its own name for it to a secret here ([`super::plugin`]).

use model::Timestamp;
use model::ids::WorkspaceId;
use model::names::Name;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::InWorkspace;
use crate::endpoint::endpoints;
use crate::page::{Page, Paging};

endpoints! {
    /// List secrets: names, versions and who uses them, never values.
    list_secrets ListSecrets: GET "/v1/workspaces/{workspace}/secrets", needs WorkspaceSecretList, path InWorkspace,
        query Paging, reply 200 Page<Secret>;
    /// Set a secret; plugins that use it get the new value from their next call on.
    set_secret SetSecretValue: PUT "/v1/workspaces/{workspace}/secrets/{secret}", needs WorkspaceSecretWrite, path OfSecret,
        body SetSecret, reply 200 Secret;
    /// Delete a secret that no plugin uses.
    delete_secret DeleteSecret: DELETE "/v1/workspaces/{workspace}/secrets/{secret}", needs WorkspaceSecretDelete, path OfSecret,
        reply 204;
}

/// Most bytes of a secret.
pub const MAX_SECRET_BYTES: usize = 64 << 10;

/// One secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OfSecret {
    /// The workspace that has it.
    pub workspace: WorkspaceId,
    /// Its name.
    pub secret: Name,
}

/// A secret without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Secret {
    /// Its name, unique in its workspace.
    pub name: Name,
    /// Grows with each value.
    pub version: u64,
    /// When its value was set.
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
    /// Plugins whose grant has it.
    pub used_by: Vec<Name>,
}

/// A value for a secret: one of the two.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SetSecret {
    /// The value as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<SecretText>,
    /// The value's bytes in base64, for what is not text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<SecretText>,
}

/// Text that is shown nowhere: not in a `Debug` text, nor in what is said of a request that
/// cannot be read.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct SecretText(pub String);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl<'de> Deserialize<'de> for SecretText {
    /// What is said of another type would repeat the value.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer) {
            Ok(serde_json::Value::String(text)) => Ok(Self(text)),
            Ok(_) | Err(_) => Err(de::Error::custom("the value of a secret is a string")),
        }
    }
}

impl JsonSchema for SecretText {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "SecretText".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        // Base64 of the longest value.
        schemars::json_schema!({ "type": "string", "maxLength": 87_384, "writeOnly": true })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_shown_nowhere() {
        let body: SetSecret = serde_json::from_str(r#"{"value":"hunter2"}"#).expect("a body");
        assert!(!format!("{body:?}").contains("hunter2"));
        let wrong = serde_json::from_str::<SetSecret>(r#"{"value":271828}"#).expect_err("no text");
        assert!(!wrong.to_string().contains("271828"), "{wrong}");
    }
}
