//! One entry of the audit trail: who did what to which thing, from where, under
//! which ticket, with what result. Refusals are entries too.
//!
//! The action words are stable names, dotted like permissions, so that people
//! can alert on them. Details are short texts; a secret is never among them.
//! The entry's bytes (JSON) are what [`crate::audit_chain`] seals.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Timestamp;
use crate::ids::{ApiKeyId, HostId, RequestId, UserId};

/// Version of the entry's fields; grows only by adding.
pub const AUDIT_FORMAT: u16 = 1;

/// One entry, before the chain gives it a number and a seal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AuditEntry {
    /// Version of these fields.
    pub format: u16,
    /// When, by the gateway's clock.
    pub at: Timestamp,
    /// Who.
    pub actor: Actor,
    /// What: `host.retire`, `agent_token.create`...
    pub action: String,
    /// On what: the id of the thing, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// How it ended.
    pub result: AuditResult,
    /// From which address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The request that carried it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestId>,
    /// The ticket it was done under, as given by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<String>,
    /// More, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, String>,
}

/// Who acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Actor {
    /// The gateway itself.
    Gateway,
    /// A user, by one of its keys.
    User {
        /// The user.
        user: UserId,
        /// Its name at the time.
        name: String,
        /// The key.
        api_key: ApiKeyId,
    },
    /// A host, proven by its certificate.
    Host {
        /// The host.
        host: HostId,
    },
    /// Somebody holding an agent token.
    AgentToken {
        /// The token's id as claimed.
        token: String,
    },
    /// Nobody proven.
    Nobody,
}

/// How an audited action ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuditResult {
    /// It was done.
    Done,
    /// It was refused; the details say why.
    Refused,
    /// It was noticed, nobody asked for it.
    Noticed,
}
