//! Records of plugins and secrets.
//!
//! ```text
//! plugin/NAME               everything about an installed plugin but its bytes
//! plugin_grants/all         changes with every grant; see below
//! secret/WSP/NAME           a secret: version, when, by whom
//! secret_value/WSP/NAME     its value, sealed; read when a plugin opens it, never mirrored
//! ```
//!
//! A component's bytes, and a configuration, lie in the object store by their digest. A
//! digest is compared whenever bytes are read, so that no other component can be slipped in
//! behind a record.
//!
//! A secret must not be deleted while a grant uses it, and whether one does is a question
//! about all plugins, which no condition on one record can ask. So every grant changes
//! `plugin_grants/all`, and a deletion is conditional on its having stayed as it was.

use std::fmt;

use gateway_core::plugin::{Package, Pending, Plugin, State};
use gateway_store::{Digest, Key, KeyError, Prefix, Record};
use model::Timestamp;
use model::ids::WorkspaceId;
use model::names::Name;
use model::plugin::{Grant, Manifest, PluginDigest, PluginKind, Widening};
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
    PluginRecordV1 "plugin";
    PluginGrantsRecordV1 "plugin_grants";
    SecretRecordV1 "secret";
    SecretValueRecordV1 "secret_value";
}

/// Entries kept of what happened to a plugin. All of it is in the audit trail.
const HISTORY_KEPT: usize = 50;

/// An installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecordV1 {
    /// What the operator calls it.
    pub name: Name,
    /// What runs, or would.
    pub present: ComponentV1,
    /// What ran before.
    pub previous: Option<ComponentV1>,
    /// An upgrade that waits.
    pub pending: Option<PendingV1>,
    /// What it may do.
    pub grant: Grant,
    /// Its configuration.
    pub configuration: Option<ConfigurationV1>,
    /// The one that the version before had accepted, which a rollback brings back.
    pub previous_configuration: Option<ConfigurationV1>,
    /// Grows with each configuration.
    pub configuration_revision: u64,
    /// The component that accepted the present configuration.
    pub accepted_by: Option<PluginDigest>,
    /// Whether it is to run.
    pub state: PluginStateV1,
    /// When it was installed.
    pub created_at: Timestamp,
    /// The last things that happened to it, oldest first.
    pub history: Vec<PluginEventV1>,
}

/// A component, by its digest, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentV1 {
    /// Which bytes.
    pub digest: PluginDigest,
    /// How many.
    pub size_bytes: u64,
    /// What it exports.
    pub kind: PluginKind,
    /// What its author says of it.
    pub manifest: Manifest,
    /// The signature that came with it, to be looked at whenever it is loaded.
    pub signature: Option<String>,
    /// The key whose signature was verified.
    pub signed_by: Option<String>,
    /// Where it came from.
    pub source: String,
    /// When.
    pub installed_at: Timestamp,
    /// By whom.
    pub installed_by: String,
}

/// An upgrade that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingV1 {
    /// What would run.
    pub component: ComponentV1,
    /// What it needs more than what was seen.
    pub widening: Vec<Widening>,
}

/// A configuration, by its digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationV1 {
    /// SHA-256 of the JSON text.
    pub digest: [u8; 32],
    /// When it was set.
    pub at: Timestamp,
}

impl ConfigurationV1 {
    /// The object that holds it.
    pub fn object(&self) -> Digest {
        Digest::from_bytes(self.digest)
    }
}

/// Whether a plugin is to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PluginStateV1 {
    /// Never enabled.
    Installed,
    /// It runs.
    Enabled,
    /// Somebody turned it off.
    Disabled,
    /// The gateway turned it off.
    Quarantined {
        /// Why.
        reason: String,
        /// When.
        since: Timestamp,
    },
}

/// Something that happened to a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginEventV1 {
    /// When.
    pub at: Timestamp,
    /// What, as in the audit trail.
    pub what: String,
    /// By whom, when by a person.
    pub by: Option<String>,
    /// The component that was concerned.
    pub digest: PluginDigest,
}

impl ComponentV1 {
    /// The object that holds it.
    pub fn object(&self) -> Digest {
        Digest::from_bytes(*self.digest.bytes())
    }

    /// What decisions need to know of it.
    pub fn package(&self) -> Package {
        Package {
            digest: self.digest,
            kind: self.kind,
            name: self.manifest.name.clone(),
            version: self.manifest.version.clone(),
            needs: self.manifest.needs.clone(),
        }
    }
}

impl PluginRecordV1 {
    /// A new one.
    pub fn installed(name: Name, component: ComponentV1, now: Timestamp) -> Self {
        let blank = Self {
            name,
            previous: None,
            pending: None,
            grant: Grant::default(),
            configuration: None,
            previous_configuration: None,
            configuration_revision: 0,
            accepted_by: None,
            state: PluginStateV1::Installed,
            created_at: now,
            history: Vec::new(),
            present: component,
        };
        let decided = Plugin::installed(blank.present.package());
        blank.with(decided, &[])
    }

    /// The key of the plugin of this name.
    pub fn key_of(name: &Name) -> Result<Key, KeyError> {
        Self::key(&[name.as_str()])
    }

    /// What is decided about it.
    pub fn decided(&self) -> Plugin {
        Plugin {
            present: self.present.package(),
            previous: self.previous.as_ref().map(ComponentV1::package),
            pending: self.pending.as_ref().map(|pending| Pending {
                package: pending.component.package(),
                widening: pending.widening.clone(),
            }),
            grant: self.grant.clone(),
            accepted_by: self.accepted_by,
            state: match &self.state {
                PluginStateV1::Installed => State::Installed,
                PluginStateV1::Enabled => State::Enabled,
                PluginStateV1::Disabled => State::Disabled,
                PluginStateV1::Quarantined { reason, since } => State::Quarantined {
                    reason: reason.clone(),
                    since: *since,
                },
            },
        }
    }

    /// The record with what was decided. `new` are components that the record does not have
    /// yet; decisions name components by their digests alone.
    #[must_use]
    pub fn with(self, plugin: Plugin, new: &[ComponentV1]) -> Self {
        let known: Vec<ComponentV1> = [Some(&self.present), self.previous.as_ref()]
            .into_iter()
            .flatten()
            .chain(self.pending.as_ref().map(|pending| &pending.component))
            .chain(new)
            .cloned()
            .collect();
        let component = |package: &Package| {
            let found = known.iter().rfind(|known| known.digest == package.digest);
            found
                .cloned()
                .expect("decisions choose among components that they were given")
        };
        Self {
            present: component(&plugin.present),
            previous: plugin.previous.as_ref().map(component),
            pending: plugin.pending.as_ref().map(|pending| PendingV1 {
                component: component(&pending.package),
                widening: pending.widening.clone(),
            }),
            grant: plugin.grant,
            accepted_by: plugin.accepted_by,
            state: match plugin.state {
                State::Installed => PluginStateV1::Installed,
                State::Enabled => PluginStateV1::Enabled,
                State::Disabled => PluginStateV1::Disabled,
                State::Quarantined { reason, since } => {
                    PluginStateV1::Quarantined { reason, since }
                }
            },
            ..self
        }
    }

    /// Notes what happened.
    pub fn note(&mut self, event: PluginEventV1) {
        self.history.push(event);
        let extra = self.history.len().saturating_sub(HISTORY_KEPT);
        self.history.drain(..extra);
    }

    /// Whether its grant has this secret.
    pub fn uses(&self, workspace: WorkspaceId, secret: &Name) -> bool {
        let mut bindings = self.grant.secrets.values();
        bindings.any(|binding| binding.workspace == workspace && binding.secret == *secret)
    }
}

/// Changes with every grant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginGrantsRecordV1 {
    /// When the last one was made.
    pub at: Timestamp,
}

impl PluginGrantsRecordV1 {
    /// The key of the only one.
    pub fn the_key() -> Key {
        <Self as Record>::key(&["all"]).expect("a plain word")
    }
}

/// A secret, without its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRecordV1 {
    /// The workspace that has it.
    pub workspace: WorkspaceId,
    /// Its name there.
    pub name: Name,
    /// Grows with each value.
    pub version: u64,
    /// When the value was set.
    pub updated_at: Timestamp,
    /// By whom.
    pub updated_by: String,
}

impl SecretRecordV1 {
    /// The key of a secret.
    pub fn key_of(workspace: WorkspaceId, name: &Name) -> Result<Key, KeyError> {
        Self::key(&[&workspace.to_string(), name.as_str()])
    }
}

/// A secret's value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretValueRecordV1 {
    /// Of which version it is.
    pub version: u64,
    /// Sealed with the server's key; what it belongs to is sealed in.
    pub sealed: Vec<u8>,
}

impl SecretValueRecordV1 {
    /// The key of a secret's value.
    pub fn key_of(workspace: WorkspaceId, name: &Name) -> Result<Key, KeyError> {
        Self::key(&[&workspace.to_string(), name.as_str()])
    }

    /// Says what is sealed: bytes of another secret, or of an earlier value of this one, do
    /// not open in its place.
    pub fn context(workspace: WorkspaceId, name: &Name, version: u64) -> Vec<u8> {
        format!("secret value/{workspace}/{name}/{version}").into_bytes()
    }

    /// All values of a workspace.
    pub fn prefix_of(workspace: WorkspaceId) -> Prefix {
        Self::prefix(&[&workspace.to_string()]).expect("an id is never empty")
    }
}

impl fmt::Debug for SecretValueRecordV1 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretValueRecordV1(version {}, sealed)", self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(byte: u8) -> ComponentV1 {
        let manifest = r#"{"format":1,"name":"hook","version":"1.0.0","description":"d","needs":
            {"http":[{"name":"web","purpose":"p","hosts":["*.example.com","192.0.2.1"]}],"state":{"keys":3}}}"#;
        ComponentV1 {
            digest: PluginDigest::of(&[byte]),
            size_bytes: 1,
            kind: PluginKind::Notifier,
            manifest: serde_json::from_str(manifest).unwrap(),
            signature: Some("key: x\nsig: y\n".into()),
            signed_by: Some("0011223344556677".into()),
            source: "hook.wasm".into(),
            installed_at: Timestamp::from_millis(1),
            installed_by: "owner".into(),
        }
    }

    #[test]
    fn a_plugin_reads_back_with_everything_in_it() {
        let grant = r#"{"workspaces":{"only":["wsp_00000000000000000000000000"]},
            "http":[{"need":"web","hosts":["a.example.com"],"networks":["10.0.0.0/8"],"tls_profiles":["p"]}],
            "tls_profiles":{"p":{"keys":["00"]},"q":"insecure"},
            "secrets":{"k":{"workspace":"wsp_00000000000000000000000000","secret":"x"}}}"#;
        let mut record = PluginRecordV1::installed(
            "a".parse().unwrap(),
            component(1),
            Timestamp::from_millis(1),
        );
        record.previous = Some(component(2));
        record.pending = Some(PendingV1 {
            component: component(3),
            widening: vec![Widening {
                need: "needs.state".into(),
                what: "more".into(),
            }],
        });
        record.grant = serde_json::from_str(grant).unwrap();
        record.configuration = Some(ConfigurationV1 {
            digest: [7; 32],
            at: Timestamp::from_millis(2),
        });
        for state in [
            PluginStateV1::Installed,
            PluginStateV1::Enabled,
            PluginStateV1::Disabled,
            PluginStateV1::Quarantined {
                reason: "r".into(),
                since: Timestamp::from_millis(3),
            },
        ] {
            record.state = state;
            let read = PluginRecordV1::decode(&record.encode().unwrap()).unwrap();
            assert_eq!(read, record);
            assert_eq!(read.clone().with(read.decided(), &[]), record);
        }
    }

    #[test]
    fn a_sealed_value_shows_nothing() {
        let record = SecretValueRecordV1 {
            version: 3,
            sealed: b"hunter2".to_vec(),
        };
        assert_eq!(
            format!("{record:?}"),
            "SecretValueRecordV1(version 3, sealed)"
        );
        assert_eq!(
            SecretValueRecordV1::decode(&record.encode().unwrap()).unwrap(),
            record
        );
    }
}
