//! Opening secrets for plugins: the one place where a sealed value is read.
//!
//! What is opened follows from the grant of the call alone. The grant names workspace and
//! secret, so a plugin that serves many workspaces has one value by each of its names, and no
//! call can reach another plugin's or another workspace's by choosing a name.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_store::{Read, RecordError, Store, fetch};
use model::names::Name;
use model::plugin::SecretBinding;
use plugin_host::ports::{CallContext, ErrorKind, GuestError, Secret, SecretValue, Secrets};

use crate::keys::ServerKeys;
use crate::state::plugin_records::{SecretRecordV1, SecretValueRecordV1};

/// Secrets in the store.
pub struct StoredSecrets {
    store: Arc<dyn Store>,
    keys: Arc<ServerKeys>,
}

impl StoredSecrets {
    /// Those that `keys` seal.
    pub fn new(store: Arc<dyn Store>, keys: Arc<ServerKeys>) -> Self {
        Self { store, keys }
    }

    /// The value, and the version that it must be of.
    async fn newest(
        &self,
        binding: &SecretBinding,
    ) -> Result<Option<(u64, SecretValueRecordV1)>, RecordError> {
        let (workspace, name) = (binding.workspace, &binding.secret);
        let (Ok(at), Ok(value_at)) = (
            SecretRecordV1::key_of(workspace, name),
            SecretValueRecordV1::key_of(workspace, name),
        ) else {
            return Ok(None);
        };
        let mut newest = None;
        // Between the two reads the secret may have been set anew.
        for _ in 0..3 {
            let known = fetch::<SecretRecordV1>(&*self.store, &at, Read::Linearizable).await?;
            let value =
                fetch::<SecretValueRecordV1>(&*self.store, &value_at, Read::Linearizable).await?;
            newest = known
                .zip(value)
                .map(|(known, value)| (known.record.version, value.record));
            if newest
                .as_ref()
                .is_none_or(|(version, value)| *version == value.version)
            {
                break;
            }
        }
        Ok(newest)
    }
}

#[async_trait]
impl Secrets for StoredSecrets {
    async fn open(&self, call: &CallContext, name: &Name) -> Result<Secret, GuestError> {
        let Some(binding) = call.grant.secrets.get(name) else {
            let message = format!("the grant has no secret `{name}`");
            return Err(GuestError::new(ErrorKind::Denied, "not-granted", message));
        };
        let fault = |message: String| GuestError::new(ErrorKind::Internal, "secret", message);
        let found = self.newest(binding).await.map_err(|error| {
            tracing::warn!(error = %model::error_chain(&error), plugin = %call.plugin, "a secret cannot be read");
            fault("the secret cannot be read at the moment".into())
        })?;
        let Some((version, found)) = found else {
            let message = format!("the secret that is granted as `{name}` is gone");
            return Err(GuestError::new(ErrorKind::NotFound, "no-secret", message));
        };
        let context = SecretValueRecordV1::context(binding.workspace, &binding.secret, version);
        let Some(value) = self.keys.open(&context, &found.sealed) else {
            // Another record's bytes, another server's key, or a bad disk: in no case a value.
            tracing::error!(
                plugin = %call.plugin,
                workspace = %binding.workspace,
                secret = %binding.secret,
                "a secret does not open: its record is damaged or belongs elsewhere; set it again"
            );
            return Err(fault("the secret is damaged".into()));
        };
        Ok(Secret {
            name: name.clone(),
            version,
            value: SecretValue::new(value.to_vec()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_store::{Batch, OpenOptions, RedbStore};
    use model::ids::WorkspaceId;
    use model::plugin::Grant;
    use model::{Timestamp, audit_chain::AuditChainKey};

    struct World {
        store: Arc<RedbStore>,
        keys: Arc<ServerKeys>,
        secrets: StoredSecrets,
        _state: tempfile::TempDir,
    }

    fn workspace(byte: u8) -> WorkspaceId {
        WorkspaceId::new(Timestamp::from_millis(1), [byte; 10])
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn world() -> World {
        let state = tempfile::tempdir().unwrap();
        let options = OpenOptions::new(AuditChainKey::new([1; 32]));
        let store = Arc::new(RedbStore::open(state.path().join("s"), options).unwrap());
        let keys = Arc::new(ServerKeys::load_or_create(&state.path().join("k")).unwrap());
        let secrets = StoredSecrets::new(Arc::clone(&store) as _, Arc::clone(&keys));
        World {
            store,
            keys,
            secrets,
            _state: state,
        }
    }

    impl World {
        async fn known(&self, at: (WorkspaceId, &str), version: u64) {
            let key = SecretRecordV1::key_of(at.0, &name(at.1)).unwrap();
            let record = SecretRecordV1 {
                workspace: at.0,
                name: name(at.1),
                version,
                updated_at: Timestamp::from_millis(1),
                updated_by: "owner".into(),
            };
            let mut batch = Batch::new();
            batch.put_record(&key, &record).unwrap();
            self.store.commit(batch).await.unwrap();
        }

        async fn put(&self, at: (WorkspaceId, &str), version: u64, sealed: Vec<u8>) {
            let key = SecretValueRecordV1::key_of(at.0, &name(at.1)).unwrap();
            let mut batch = Batch::new();
            batch
                .put_record(&key, &SecretValueRecordV1 { version, sealed })
                .unwrap();
            self.store.commit(batch).await.unwrap();
        }

        fn seal(&self, at: (WorkspaceId, &str), version: u64, value: &[u8]) -> Vec<u8> {
            let context = SecretValueRecordV1::context(at.0, &name(at.1), version);
            self.keys.seal(&context, value)
        }

        async fn open(&self, at: (WorkspaceId, &str)) -> Result<Vec<u8>, String> {
            let binding = SecretBinding {
                workspace: at.0,
                secret: name(at.1),
                reveal: false,
            };
            let grant = Grant {
                secrets: [(name("key"), binding)].into(),
                ..Grant::default()
            };
            let call = CallContext {
                plugin: name("hook"),
                workspace: None,
                call: "call_1".into(),
                grant: Arc::new(grant),
            };
            let opened = self.secrets.open(&call, &name("key")).await;
            let denied = self.secrets.open(&call, &name("other")).await;
            assert_eq!(denied.unwrap_err().kind, ErrorKind::Denied);
            opened
                .map(|secret| secret.value.expose().to_vec())
                .map_err(|error| error.code)
        }
    }

    #[tokio::test]
    async fn abuse_35_a_record_opens_only_where_it_belongs() {
        let world = world();
        let (one, two) = ((workspace(1), "db"), (workspace(2), "db"));
        let first = world.seal(one, 1, b"first");
        let second = world.seal(one, 2, b"second");
        world.known(one, 2).await;
        world.put(one, 2, second.clone()).await;
        assert_eq!(world.open(one).await, Ok(b"second".to_vec()));
        assert_eq!(world.open(two).await, Err("no-secret".into()));
        world.known(two, 2).await;
        // The value of one workspace's secret, put under another's.
        world.put(two, 2, second).await;
        assert_eq!(world.open(two).await, Err("secret".into()));
        // An earlier value, put back: as the present version, and as what it was.
        for version in [2, 1] {
            world.put(one, version, first.clone()).await;
            assert_eq!(world.open(one).await, Err("secret".into()));
        }
        world.store.close().await;
    }
}
