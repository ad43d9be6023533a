//! Values that plugins keep: a record for each, under plugin and workspace.
//!
//! ```text
//! plugin_value/NAME/WSP/key      WSP is `-` for the deployment's own matters
//! ```
//!
//! Which plugin and which workspace follow from the call, never from the key: it comes last, and
//! what stands before it has no slash of its own, so no letter in it means anything. Revisions are those of the store: they grow, also over a deletion, so a plugin that
//! compares them cannot take a new value for the old one.

use std::sync::Arc;

use async_trait::async_trait;
use gateway_store::{Batch, CommitError, Condition, Key, Prefix, Read, Record, Store, fetch};
use model::names::Name;
use plugin_host::ports::{CallContext, ErrorKind, GuestError, State, StateEntry};
use serde::{Deserialize, Serialize};

use crate::error::Error;

const MOST_KEY_BYTES: usize = 256;
const MOST_VALUE_BYTES: usize = 64 << 10;
const MOST_KEYS_AT_ONCE: u32 = 1000;
/// Deletes in one batch.
const DELETES: usize = 60;

/// A value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginValueRecordV1 {
    /// The bytes.
    pub value: Vec<u8>,
}

impl Record for PluginValueRecordV1 {
    const KIND: &'static str = "plugin_value";
    const VERSION: u16 = 1;
}

/// Values in the store.
pub struct StoredValues {
    store: Arc<dyn Store>,
}

impl StoredValues {
    /// Those in `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// How many values there are beside the one under `key`, counted up to `most`.
    async fn count(&self, call: &CallContext, most: u32) -> Result<u32, GuestError> {
        let (mut count, mut after) = (0u32, None::<Key>);
        let prefix = prefix_of(call);
        while count < most {
            let page = self
                .store
                .list(&prefix, after.as_ref(), 1000, Read::Linearizable)
                .await
                .map_err(|error| unavailable(&error))?;
            count = count.saturating_add(u32::try_from(page.items.len()).unwrap_or(u32::MAX));
            match page.items.last() {
                Some((key, _)) if page.more => after = Some(key.clone()),
                _ => break,
            }
        }
        Ok(count)
    }
}

/// Takes away all values of a plugin that is not installed (any more): whatever is installed
/// under its name next must not find them.
pub async fn purge(store: &dyn Store, plugin: &Name) -> Result<(), Error> {
    let prefix = PluginValueRecordV1::prefix(&[plugin.as_str()])?;
    loop {
        let page = store
            .list(&prefix, None, DELETES, Read::Linearizable)
            .await?;
        if page.items.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (key, _) in &page.items {
            batch.delete(key);
        }
        store.commit(batch).await?;
    }
}

#[async_trait]
impl State for StoredValues {
    async fn get(&self, call: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError> {
        granted(call)?;
        let at = key_of(call, key)?;
        let found = fetch::<PluginValueRecordV1>(&*self.store, &at, Read::Linearizable);
        let found = found.await.map_err(|error| unavailable(&error))?;
        Ok(found.map(|stored| StateEntry {
            value: stored.record.value,
            revision: stored.rev.number(),
        }))
    }

    async fn put(
        &self,
        call: &CallContext,
        key: &str,
        value: Vec<u8>,
        if_revision: Option<u64>,
    ) -> Result<u64, GuestError> {
        let most = granted(call)?;
        if value.len() > MOST_VALUE_BYTES {
            let message = format!("a value has at most {MOST_VALUE_BYTES} bytes");
            return Err(GuestError::new(ErrorKind::Invalid, "too-large", message));
        }
        let at = key_of(call, key)?;
        let found = fetch::<PluginValueRecordV1>(&*self.store, &at, Read::Linearizable);
        let found = found.await.map_err(|error| unavailable(&error))?;
        let present = found.as_ref().map_or(0, |stored| stored.rev.number());
        if if_revision.is_some_and(|wanted| wanted != present) {
            return Err(conflict());
        }
        if found.is_none() && self.count(call, most).await? >= most {
            let message = format!("the grant allows {most} values in each workspace");
            return Err(GuestError::new(ErrorKind::Denied, "state-full", message));
        }
        let mut batch = Batch::new();
        // Also without a condition of the plugin's: what was counted is still so.
        let condition = match &found {
            Some(stored) => Condition::RevIs(stored.rev),
            None => Condition::Absent,
        };
        batch.require(&at, condition);
        batch
            .put_record(&at, &PluginValueRecordV1 { value })
            .map_err(|error| unavailable(&error))?;
        match self.store.commit(batch).await {
            Ok(rev) => Ok(rev.number()),
            Err(CommitError::Conflict { .. }) => Err(conflict()),
            Err(error) => Err(unavailable(&error)),
        }
    }

    async fn delete(&self, call: &CallContext, key: &str) -> Result<(), GuestError> {
        granted(call)?;
        let mut batch = Batch::new();
        batch.delete(&key_of(call, key)?);
        let committed = self.store.commit(batch).await;
        committed.map(drop).map_err(|error| unavailable(&error))
    }

    async fn keys(
        &self,
        call: &CallContext,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, GuestError> {
        granted(call)?;
        let all = prefix_of(call);
        let wanted = format!("{}{prefix}", text(call));
        let wanted = Prefix::new(wanted).map_err(|_| {
            let message = format!("a prefix has at most {MOST_KEY_BYTES} bytes");
            GuestError::new(ErrorKind::Invalid, "bad-key", message)
        })?;
        let after = after.map(|after| key_of(call, after)).transpose()?;
        let limit = usize::try_from(limit.min(MOST_KEYS_AT_ONCE)).unwrap_or(0);
        let page = self
            .store
            .list(&wanted, after.as_ref(), limit.max(1), Read::Linearizable)
            .await
            .map_err(|error| unavailable(&error))?;
        let keys = page.items.iter().take(limit).filter_map(|(key, _)| {
            let key = key.as_bytes().strip_prefix(all.as_bytes())?;
            String::from_utf8(key.to_vec()).ok()
        });
        Ok(keys.collect())
    }
}

fn granted(call: &CallContext) -> Result<u32, GuestError> {
    call.grant.state.map(|state| state.keys).ok_or_else(|| {
        let message = "the grant has no values to keep";
        GuestError::new(ErrorKind::Denied, "not-granted", message)
    })
}

fn text(call: &CallContext) -> String {
    let workspace = call
        .workspace
        .map_or("-".to_owned(), |workspace| workspace.to_string());
    format!("{}/{}/{workspace}/", PluginValueRecordV1::KIND, call.plugin)
}

fn prefix_of(call: &CallContext) -> Prefix {
    Prefix::new(text(call)).expect("names and ids are short and hold nothing reserved")
}

fn key_of(call: &CallContext, key: &str) -> Result<Key, GuestError> {
    let good = (1..=MOST_KEY_BYTES).contains(&key.len())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if !good {
        let message = format!("a key has 1 to {MOST_KEY_BYTES} printable ASCII letters");
        return Err(GuestError::new(ErrorKind::Invalid, "bad-key", message));
    }
    let text = format!("{}{key}", text(call));
    Key::new(text).map_err(|error| unavailable(&error))
}

fn conflict() -> GuestError {
    GuestError::new(ErrorKind::Conflict, "changed", "the value has changed")
}

fn unavailable(error: &(dyn std::error::Error + 'static)) -> GuestError {
    tracing::warn!(error = %model::error_chain(error), "a plugin's value cannot be read or written");
    let message = "values cannot be read or written at the moment";
    GuestError::new(ErrorKind::Internal, "state", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateway_store::{OpenOptions, RedbStore};
    use model::Timestamp;
    use model::audit_chain::AuditChainKey;
    use model::ids::WorkspaceId;
    use model::plugin::{Grant, StateGrant};

    fn call(plugin: &str, workspace: Option<u8>, keys: u32) -> CallContext {
        let grant = Grant {
            state: Some(StateGrant { keys }),
            ..Grant::default()
        };
        CallContext {
            plugin: plugin.parse().unwrap(),
            workspace: workspace
                .map(|byte| WorkspaceId::new(Timestamp::from_millis(1), [byte; 10])),
            call: "call_1".into(),
            grant: Arc::new(grant),
        }
    }

    #[tokio::test]
    async fn abuse_35_values_of_plugins_and_workspaces_are_apart() {
        let folder = tempfile::tempdir().unwrap();
        let options = OpenOptions::new(AuditChainKey::new([1; 32]));
        let store = Arc::new(RedbStore::open(folder.path().join("s"), options).unwrap());
        let values = StoredValues::new(Arc::clone(&store) as _);
        let mine = call("hook", Some(1), 3);
        let revision = values
            .put(&mine, "a/1", b"x".to_vec(), Some(0))
            .await
            .unwrap();
        for other in [
            call("hook", Some(2), 3),
            call("hook", None, 3),
            call("other", Some(1), 3),
            call("hook-2", Some(1), 3),
        ] {
            assert_eq!(values.get(&other, "a/1").await, Ok(None));
            assert_eq!(values.keys(&other, "", None, 10).await, Ok(Vec::new()));
            values.delete(&other, "a/1").await.unwrap();
        }
        let entry = values.get(&mine, "a/1").await.unwrap().unwrap();
        assert_eq!(
            (entry.value.as_slice(), entry.revision),
            (&b"x"[..], revision)
        );

        let stale = values.put(&mine, "a/1", b"y".to_vec(), Some(0)).await;
        assert_eq!(stale.unwrap_err().kind, ErrorKind::Conflict);
        values.put(&mine, "a/2", b"y".to_vec(), None).await.unwrap();
        values.put(&mine, "b", b"y".to_vec(), None).await.unwrap();
        let full = values.put(&mine, "c", b"y".to_vec(), None).await;
        assert_eq!(full.unwrap_err().code, "state-full");
        values.put(&mine, "b", b"z".to_vec(), None).await.unwrap();
        assert_eq!(
            values.keys(&mine, "a", None, 10).await.unwrap(),
            ["a/1", "a/2"]
        );
        assert_eq!(
            values.keys(&mine, "", Some("a/1"), 1).await.unwrap(),
            ["a/2"]
        );
        purge(&*store, &"other".parse().unwrap()).await.unwrap();
        purge(&*store, &"hoo".parse().unwrap()).await.unwrap();
        assert_eq!(values.keys(&mine, "", None, 10).await.unwrap().len(), 3);
        purge(&*store, &mine.plugin).await.unwrap();
        assert_eq!(values.keys(&mine, "", None, 10).await, Ok(Vec::new()));
        let none = CallContext {
            grant: Arc::new(Grant::default()),
            ..mine
        };
        assert_eq!(
            values.get(&none, "b").await.unwrap_err().kind,
            ErrorKind::Denied
        );
        store.close().await;
    }
}
