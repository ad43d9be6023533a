//! Labels: key-value pairs on hosts, for selecting them.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// What is wrong with a set of labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLabel {
    /// The key is outside its alphabet.
    #[error(
        "label key `{0}` must have 1 to 63 of a-z, A-Z, 0-9, `.`, `_`, `-`, `/` and begin with a letter or digit"
    )]
    Key(String),
    /// The value is outside its alphabet.
    #[error("the value of label `{0}` must have at most 63 of a-z, A-Z, 0-9, `.`, `_`, `-`")]
    Value(String),
    /// Too many labels.
    #[error("a host has at most {} labels", Labels::MAX)]
    TooMany,
    /// Not of the form `key=value`.
    #[error("write a label as key=value")]
    Form,
}

/// A checked set of labels, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Most labels on one thing.
    pub const MAX: usize = 64;

    /// Checks every key and value.
    pub fn new(pairs: BTreeMap<String, String>) -> Result<Self, BadLabel> {
        if pairs.len() > Self::MAX {
            return Err(BadLabel::TooMany);
        }
        for (key, value) in &pairs {
            if !valid_key(key) {
                return Err(BadLabel::Key(crate::names::clean(key, 64)));
            }
            if !valid_value(value) {
                return Err(BadLabel::Value(key.clone()));
            }
        }
        Ok(Self(pairs))
    }

    /// Parses `key=value`.
    pub fn parse_pair(text: &str) -> Result<(String, String), BadLabel> {
        let (key, value) = text.split_once('=').ok_or(BadLabel::Form)?;
        Ok((key.to_owned(), value.to_owned()))
    }

    /// The value under `key`.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// All pairs in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These labels with `changes` made: `None` takes a label away.
    pub fn with(&self, changes: &BTreeMap<String, Option<String>>) -> Result<Self, BadLabel> {
        let mut pairs = self.0.clone();
        for (key, value) in changes {
            match value {
                Some(value) => pairs.insert(key.clone(), value.clone()),
                None => pairs.remove(key),
            };
        }
        Self::new(pairs)
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (key, value)) in self.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{key}={value}")?;
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(BTreeMap::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl JsonSchema for Labels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Labels".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "maxProperties": Labels::MAX,
            "propertyNames": { "pattern": "^[a-zA-Z0-9][a-zA-Z0-9._/-]{0,62}$" },
            "additionalProperties": { "type": "string", "pattern": "^[a-zA-Z0-9._-]{0,63}$" },
        })
    }
}

pub(crate) fn valid_key(key: &str) -> bool {
    key.len() <= 63
        && key
            .bytes()
            .next()
            .is_some_and(|byte| byte.is_ascii_alphanumeric())
        && key
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

pub(crate) fn valid_value(value: &str) -> bool {
    value.len() <= 63
        && value
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
