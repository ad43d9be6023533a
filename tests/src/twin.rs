//! An engine for plugins that runs nothing: its components are JSON texts.
//!
//! What the API does around plugins (who may, what is held, what is refused) does not depend on
//! what they compute. A component says what it would answer:
//!
//! ```text
//! {"manifest": {...}, "schema": {...}, "refuses": "text in a configuration", "broken": false}
//! ```

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use api::v1::plugin::{FindingSeverity, PluginFinding};
use async_trait::async_trait;
use bytes::Bytes;
use gateway::plugins::engine::{Component, Engine, Fault, Inspected, Instance, LogLines, Settings};
use model::names::Name;
use model::plugin::{Manifest, PluginDigest, PluginKind};
use serde_json::Value;

/// The twin.
#[derive(Default)]
pub struct Twin {
    /// Names and digests of what was started or replaced, in order.
    pub started: Arc<Mutex<Vec<(Name, PluginDigest)>>>,
}

fn text(bytes: &[u8]) -> Result<Value, Fault> {
    serde_json::from_slice(bytes).map_err(|_| Fault::new("not_a_component", "it is no component"))
}

fn of(component: &Component) -> &Value {
    component
        .inner
        .downcast_ref::<Value>()
        .expect("components of this engine are texts")
}

#[async_trait]
impl Engine for Twin {
    fn inspect(&self, bytes: &[u8]) -> Result<Inspected, Fault> {
        let found = text(bytes)?;
        let manifest: Manifest = serde_json::from_value(found["manifest"].clone())
            .map_err(|error| Fault::new("bad_manifest", error.to_string()))?;
        manifest
            .check()
            .map_err(|error| Fault::new("bad_manifest", error.to_string()))?;
        Ok(Inspected {
            digest: PluginDigest::of(bytes),
            kind: PluginKind::Notifier,
            manifest,
        })
    }

    async fn load(&self, bytes: Bytes) -> Result<Component, Fault> {
        let found = text(&bytes)?;
        if found["broken"] == Value::Bool(true) {
            return Err(Fault::new("trap", "it does not start"));
        }
        Ok(Component {
            digest: PluginDigest::of(&bytes),
            schema: match &found["schema"] {
                Value::Null => String::new(),
                schema => schema.to_string(),
            },
            inner: Arc::new(found),
        })
    }

    async fn check_config(
        &self,
        component: &Component,
        configuration: &str,
    ) -> Result<Vec<PluginFinding>, Fault> {
        let refuses = of(component)["refuses"].as_str();
        let finding = refuses.filter(|refuses| configuration.contains(refuses));
        let finding = finding.map(|_| PluginFinding {
            severity: FindingSeverity::Error,
            at: "/url".into(),
            message: "not this one".into(),
        });
        Ok(finding.into_iter().collect())
    }

    async fn migrate_config(
        &self,
        _: &Component,
        _: &str,
        configuration: &str,
    ) -> Result<String, Fault> {
        Ok(configuration.to_owned())
    }

    fn start(
        &self,
        name: &Name,
        component: &Component,
        _: Settings,
    ) -> Result<Arc<dyn Instance>, Fault> {
        let running = Running {
            name: name.clone(),
            started: Arc::clone(&self.started),
        };
        running.note(component);
        Ok(Arc::new(running))
    }
}

struct Running {
    name: Name,
    started: Arc<Mutex<Vec<(Name, PluginDigest)>>>,
}

impl Running {
    fn note(&self, component: &Component) {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.push((self.name.clone(), component.digest));
    }
}

#[async_trait]
impl Instance for Running {
    fn replace(&self, component: &Component, _: Settings) -> Result<(), Fault> {
        self.note(component);
        Ok(())
    }

    async fn probe(&self) -> Result<Vec<PluginFinding>, Fault> {
        Ok(Vec::new())
    }

    fn logs(&self, _: u64, _: usize) -> LogLines {
        LogLines::default()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::new()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
