//! Records as they lie in the store. They grow only by adding fields with
//! defaults; a change of shape is a new version with an upgrade.
//!
//! ```text
//! project/PRJ  workspace/WSP  user/USR  api_key/KEY  role/ROL  binding/BND
//! token/TOK                     agent tokens
//! host/HST                      what operators decide about a host, and its identity
//! host_seen/HST                 what was observed of it: changes with every link
//! host_facts/HST                what it says of itself: large, changes seldom
//! history/HST/MILLIS-NONCE      what happened to it
//! name/KIND/PARENT/NAME         holds a name, so that it is unique
//! idempotency/USR/KEY           the answer to a request, for its repetition
//! deployment/claimed            the first run is over
//! restored/last                 the state was put back from a backup
//! ```
//!
//! A host is three records so that an operator's edit, a reconnect and a report
//! of facts never collide.

use gateway_store::{Key, KeyError, Prefix, Record};
use model::Timestamp;
use model::access::{Limits, Rule};
use model::facts::Facts;
use model::host::{Connectivity, HostEvent, Maintenance, Membership};
use model::ids::{
    AgentTokenId, ApiKeyId, HostId, ProjectId, RoleBindingId, RoleId, UserId, WorkspaceId,
};
use model::labels::Labels;
use model::names::{Name, Text};
use model::tenancy::{Environment, LivenessThresholds, Scope};
use serde::{Deserialize, Serialize};

macro_rules! records {
    ($($name:ident $kind:literal;)*) => {$(
        impl Record for $name {
            const KIND: &'static str = $kind;
            const VERSION: u16 = 1;
        }
    )*};
}

records! {
    ProjectRecordV1 "project";
    WorkspaceRecordV1 "workspace";
    UserRecordV1 "user";
    ApiKeyRecordV1 "api_key";
    RoleRecordV1 "role";
    BindingRecordV1 "binding";
    TokenRecordV1 "token";
    HostRecordV1 "host";
    HostSeenRecordV1 "host_seen";
    HostFactsRecordV1 "host_facts";
    HistoryRecordV1 "history";
    NameRecordV1 "name";
    IdempotencyRecordV1 "idempotency";
    ClaimedRecordV1 "deployment";
    RestoredRecordV1 "restored";
}

/// The key of the record of kind `R` named by one id.
pub fn key_of<R: Record>(id: impl std::fmt::Display) -> Key {
    R::key(&[&id.to_string()]).expect("ids are never empty and hold no slash")
}

/// All records of kind `R`.
pub fn all_of<R: Record>() -> Prefix {
    R::prefix(&[]).expect("a kind alone is a valid prefix")
}

/// A project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProjectRecordV1 {
    /// Its id.
    pub id: ProjectId,
    /// Unique name.
    pub name: Name,
    /// What it is for.
    pub description: Text,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkspaceRecordV1 {
    /// Its id.
    pub id: WorkspaceId,
    /// The project it lies in.
    pub project: ProjectId,
    /// Name, unique in its project.
    pub name: Name,
    /// What it is for.
    pub description: Text,
    /// Fixed for life.
    pub environment: Environment,
    /// When a quiet host is late, and when unreachable.
    pub thresholds: LivenessThresholds,
    /// When it was made.
    pub created_at: Timestamp,
}

impl WorkspaceRecordV1 {
    /// Where grants for it hold.
    pub fn scope(&self) -> Scope {
        Scope::Workspace {
            project: self.project,
            workspace: self.id,
        }
    }
}

/// A person or a service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecordV1 {
    /// Its id.
    pub id: UserId,
    /// Unique name.
    pub name: Name,
    /// Whether it is a service account.
    pub service_account: bool,
    /// Shown instead of the name.
    pub display_name: Text,
    /// A disabled user can do nothing.
    pub disabled: bool,
    /// When it was made.
    pub created_at: Timestamp,
}

/// An API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiKeyRecordV1 {
    /// Its id.
    pub id: ApiKeyId,
    /// Whose it is.
    pub user: UserId,
    /// HMAC of the secret with the server's key.
    pub digest: [u8; 32],
    /// What it is for.
    pub description: Text,
    /// What it is narrowed to.
    pub limits: Option<Limits>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends by itself.
    pub expires_at: Option<Timestamp>,
    /// When it was last used, coarsely.
    pub last_used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A role that somebody made. Built-in roles are code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecordV1 {
    /// Its id.
    pub id: RoleId,
    /// Unique name.
    pub name: Name,
    /// For whom it is.
    pub description: Text,
    /// What it allows.
    pub rules: Vec<Rule>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A role that a user has at a scope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRecordV1 {
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

/// An agent token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecordV1 {
    /// Its id.
    pub id: AgentTokenId,
    /// The workspace that hosts join with it.
    pub workspace: WorkspaceId,
    /// HMAC of the secret with the server's key.
    pub digest: [u8; 32],
    /// Note for operators.
    pub description: Text,
    /// Whether it was made with the long validity.
    pub long_living: bool,
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
    /// The last that did, newest first.
    pub recent_hosts: Vec<HostId>,
    /// Labels given to joining hosts.
    pub labels: Labels,
    /// Whether joining hosts are ephemeral.
    pub ephemeral: bool,
    /// Its successor.
    pub replaced_by: Option<AgentTokenId>,
}

/// A host: what operators decide, and its identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecordV1 {
    /// Its id.
    pub id: HostId,
    /// The workspace it lies in.
    pub workspace: WorkspaceId,
    /// Whether it belongs to the fleet.
    pub membership: Membership,
    /// Given by an operator.
    pub display_name: Option<Text>,
    /// For selecting.
    pub labels: Labels,
    /// Planned absence.
    pub maintenance: Option<Maintenance>,
    /// Whether it retires by itself once unreachable for a while.
    pub ephemeral: bool,
    /// The host it looks like a copy of.
    pub clone_of: Option<HostId>,
    /// An agent of this hostname becomes this host, while it is unknown.
    pub awaited_hostname: Option<String>,
    /// Its identity, once it has one.
    pub identity: Option<IdentityV1>,
    /// The token it joined with.
    pub token: Option<AgentTokenId>,
    /// When it came into the inventory.
    pub created_at: Timestamp,
    /// When its agent joined.
    pub enrolled_at: Option<Timestamp>,
    /// When it left.
    pub retired_at: Option<Timestamp>,
    /// A repair that its agent has yet to carry out.
    #[serde(default)]
    pub pending_adoption: Option<HostId>,
    /// The generation of that identity which was signed for this host's agent;
    /// once it is used, this record has served.
    #[serde(default)]
    pub adopting_generation: Option<u64>,
}

/// A host's identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdentityV1 {
    /// Grows with every new identity; older ones are refused.
    pub generation: u64,
    /// SHA-256 of its public key.
    pub spki_sha256: [u8; 32],
    /// Until when its newest certificate is valid.
    pub not_after: Timestamp,
    /// SHA-256 of the authority's certificate that signed it.
    pub issuer: [u8; 32],
    /// The generation before, still accepted until this one is first used: the
    /// answer that carried the new certificate may be lost.
    #[serde(default)]
    pub previous: Option<u64>,
}

/// What was observed of a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSeenRecordV1 {
    /// Newest value of the generation counter that was sent.
    pub issued: u64,
    /// Newest value that the agent has stored.
    pub confirmed: u64,
    /// What its connectivity was, as of the last transition.
    pub connectivity: Connectivity,
    /// Since when.
    pub since: Timestamp,
    /// When it was last heard, coarsely.
    pub last_seen_at: Option<Timestamp>,
    /// The kernel's boot id.
    pub boot_id: Option<String>,
    /// From where it came.
    pub address: Option<String>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// Its clock minus ours.
    pub clock_skew_ms: Option<i64>,
    /// Whether it said goodbye, which makes its absence planned.
    #[serde(default)]
    pub said_goodbye: bool,
}

impl HostSeenRecordV1 {
    /// Of a host that was never linked.
    pub fn never(now: Timestamp) -> Self {
        Self {
            issued: 1,
            confirmed: 0,
            connectivity: Connectivity::Never,
            since: now,
            last_seen_at: None,
            boot_id: None,
            address: None,
            agent_version: None,
            clock_skew_ms: None,
            said_goodbye: false,
        }
    }
}

/// What a host says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostFactsRecordV1 {
    /// SHA-256 of the facts as the agent encoded them.
    pub digest: Vec<u8>,
    /// The facts.
    pub facts: Facts,
    /// When they arrived.
    pub at: Timestamp,
}

/// Something that happened to a host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryRecordV1 {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: HostEvent,
    /// By whom, when by a person.
    pub by: Option<String>,
}

impl HistoryRecordV1 {
    /// Keys of a host's history sort by time; the nonce keeps two events of one
    /// millisecond apart.
    pub fn key(host: HostId, at: Timestamp, nonce: u64) -> Result<Key, KeyError> {
        let millis = at.as_millis().max(0);
        <Self as Record>::key(&[&host.to_string(), &format!("{millis:015}-{nonce:016x}")])
    }

    /// A host's whole history.
    pub fn prefix_of(host: HostId) -> Prefix {
        <Self as Record>::prefix(&[&host.to_string()])
            .expect("ids are never empty and hold no slash")
    }
}

/// Holds a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRecordV1 {
    /// Who has it.
    pub holder: String,
}

/// The answer to a request that had an idempotency key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyRecordV1 {
    /// SHA-256 of operation, path and body.
    pub request: [u8; 32],
    /// The answer, sealed: it may hold a secret that is shown once.
    pub sealed_reply: Vec<u8>,
    /// When it was given.
    pub at: Timestamp,
}

/// The first run is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimedRecordV1 {
    /// Who became the owner.
    pub owner: UserId,
    /// When.
    pub at: Timestamp,
}

/// The state was restored from a backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoredRecordV1 {
    /// The revision at which this life of the state began. Rises with each restore,
    /// also of the same backup, and is above every revision of earlier lives: the
    /// fence for whatever must not happen twice.
    pub incarnation: u64,
    /// When.
    pub at: Timestamp,
    /// When the backup had been made.
    pub backup_made_at: Timestamp,
    /// The revision that the backup was of.
    pub backup_revision: u64,
    /// The life that the backup was of; 0 for the first.
    pub backup_incarnation: u64,
}

impl RestoredRecordV1 {
    /// The key of the only one: about the last restore.
    pub fn the_key() -> Key {
        <Self as Record>::key(&["last"]).expect("a plain word")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::host::{Carrier, CloneRepair};

    fn at() -> Timestamp {
        Timestamp::from_millis(1_700_000_000_123)
    }

    fn every_event() -> Vec<HostEvent> {
        let text = || "x".to_owned();
        let other = HostId::new(at(), [1; 10]);
        let (from, to) = (text(), text());
        vec![
            HostEvent::Created,
            HostEvent::Enrolled { token: text() },
            HostEvent::Connected {
                carrier: Carrier::WebSocket,
                address: text(),
            },
            HostEvent::CarrierChanged {
                carrier: Carrier::Udp,
            },
            HostEvent::LinkLost { reason: text() },
            HostEvent::Unreachable { mass_loss: true },
            HostEvent::Rebooted {
                from: from.clone(),
                to: to.clone(),
            },
            HostEvent::AddressChanged {
                from: from.clone(),
                to: to.clone(),
            },
            HostEvent::VersionChanged {
                from: from.clone(),
                to: to.clone(),
            },
            HostEvent::HostnameChanged {
                from: from.clone(),
                to: to.clone(),
            },
            HostEvent::Renamed { from, to },
            HostEvent::Relabelled { labels: text() },
            HostEvent::MaintenanceSet {
                until: at(),
                reason: text(),
            },
            HostEvent::MaintenanceEnded { expired: true },
            HostEvent::CloneSuspected {
                other,
                evidence: text(),
            },
            HostEvent::CloneRepaired {
                repair: CloneRepair::Merge,
                other,
            },
            HostEvent::CertificateRenewed { not_after: at() },
            HostEvent::Retired { reason: text() },
        ]
    }

    #[test]
    fn every_event_of_a_history_reads_back() {
        for event in every_event() {
            let record = HistoryRecordV1 {
                at: at(),
                event,
                by: Some("owner".to_owned()),
            };
            assert_eq!(
                HistoryRecordV1::decode(&record.encode().unwrap()).unwrap(),
                record
            );
        }
    }

    #[test]
    fn every_scope_and_limit_reads_back() {
        let project = ProjectId::new(at(), [2; 10]);
        let workspace = WorkspaceId::new(at(), [3; 10]);
        for scope in [
            Scope::Deployment,
            Scope::Project { project },
            Scope::Workspace { project, workspace },
        ] {
            let rules = vec![Rule {
                allow: "project.workspace.host".parse().unwrap(),
                environments: vec![Environment::Staging],
            }];
            let record = ApiKeyRecordV1 {
                id: ApiKeyId::new(at(), [4; 10]),
                user: UserId::new(at(), [5; 10]),
                digest: [6; 32],
                description: Text::default(),
                limits: Some(Limits { scope, rules }),
                created_at: at(),
                expires_at: Some(at()),
                last_used_at: None,
                revoked_at: None,
            };
            assert_eq!(
                ApiKeyRecordV1::decode(&record.encode().unwrap()).unwrap(),
                record
            );
        }
    }
}
