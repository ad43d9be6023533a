//! What every plugin is, whatever its kind.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::{Diagnostic, Error};

/// A plugin: a configuration, and what is to be known of it. One type of a crate implements this
/// and the trait of its kind.
pub trait Plugin {
    /// What the operator sets. Its JSON Schema is what the gateway checks configurations against
    /// and what operators are shown: comments of fields are their descriptions. `NoConfig` where
    /// there is nothing to set.
    type Config: DeserializeOwned + JsonSchema;

    /// Optional behaviours, as the kind of plugin defines them.
    const FEATURES: &'static [&'static str] = &[];

    /// What the type of the configuration does not say: values that do not go together, or that
    /// work and are probably not meant. Called before a configuration is stored.
    fn check(config: &Self::Config) -> Vec<Diagnostic> {
        let _ = config;
        Vec::new()
    }

    /// The configuration of an earlier version, as this one wants it. Called at an upgrade, before
    /// the configuration is checked.
    fn migrate(from_version: &str, config: Value) -> Result<Value, Error> {
        let _ = from_version;
        Ok(config)
    }
}

/// The configuration of a plugin that has none: `{}`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}
