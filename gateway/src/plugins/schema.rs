//! Holding a configuration against a plugin's schema.
//!
//! The schema is a guest's text, and it is compiled and run by the gateway itself, so it is
//! taken only where it cannot cost more than a glance:
//!
//! * references stay within the schema (`#/…`) and never lead back to where they came from. A
//!   schema that refers to itself is a program that may not end, and deep recursion takes the
//!   whole process with it. Configurations are not recursive;
//! * its size *after* references are followed is bounded, since twenty lines that each refer
//!   twice to the next have a million places;
//! * patterns go to an engine without backtracking, with a bound on what one may become.
//!
//! JSON Schema 2020-12 and nothing else, so that what an author reads about is what holds.

use std::collections::HashMap;

use api::v1::plugin::{FindingSeverity, PluginFinding};
use jsonschema::{Draft, PatternOptions};
use serde_json::Value;

/// Most bytes of a schema.
const MOST_BYTES: usize = 256 << 10;
/// Most places in it, references followed. A large configuration has some hundreds.
const MOST_PLACES: u64 = 5_000;
/// How deep it goes, references followed.
const MOST_DEPTH: u32 = 48;
/// Most patterns, and bytes that one of them takes once compiled.
const MOST_PATTERNS: usize = 128;
const PATTERN_BYTES: usize = 256 << 10;
/// Findings that are told.
const MOST_FINDINGS: usize = 20;
/// Letters of a finding.
const MOST_LETTERS: usize = 512;

/// Why a schema is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the plugin's configuration schema cannot be used: {0}")]
pub struct SchemaFault(String);

/// A schema that may be used.
#[derive(Debug)]
pub struct Schema(Option<jsonschema::Validator>);

impl Schema {
    /// Reads a schema. An empty text is that of a plugin without a configuration.
    pub fn read(text: &str) -> Result<Self, SchemaFault> {
        if text.is_empty() {
            return Ok(Self(None));
        }
        if text.len() > MOST_BYTES {
            return Err(SchemaFault(format!("it has more than {MOST_BYTES} bytes")));
        }
        let schema: Value = serde_json::from_str(text).map_err(|error| {
            SchemaFault(format!("it is not JSON: {}", clean(&error.to_string())))
        })?;
        Measuring::new(&schema).check()?;
        let options = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .should_validate_formats(false)
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(PATTERN_BYTES)
                    .dfa_size_limit(PATTERN_BYTES),
            );
        let built = options.build(&schema);
        built
            .map(|validator| Self(Some(validator)))
            .map_err(|error| SchemaFault(clean(&error.to_string())))
    }

    /// What is wrong with a configuration.
    pub fn findings(&self, configuration: &Value) -> Vec<PluginFinding> {
        let finding = |at: String, message: String| PluginFinding {
            severity: FindingSeverity::Error,
            at,
            message,
        };
        match &self.0 {
            None if configuration.as_object().is_some_and(|it| it.is_empty()) => Vec::new(),
            None => vec![finding(
                String::new(),
                "the plugin has no configuration; `{}` is the only one".into(),
            )],
            Some(_) if !configuration.is_object() => {
                vec![finding(
                    String::new(),
                    "a configuration is a JSON object".into(),
                )]
            }
            Some(validator) => validator
                .iter_errors(configuration)
                .take(MOST_FINDINGS)
                // Values are masked: somebody may have put a password there.
                .map(|error| {
                    finding(
                        error.instance_path().as_str().to_owned(),
                        clean(&error.masked().to_string()),
                    )
                })
                .collect(),
        }
    }
}

fn clean(text: &str) -> String {
    model::names::clean(text, MOST_LETTERS)
}

/// How much a place is, with all below it and behind its references.
#[derive(Clone, Copy)]
struct Extent {
    places: u64,
    depth: u32,
}

struct Measuring<'a> {
    root: &'a Value,
    /// What references lead to; nothing while it is being measured.
    known: HashMap<&'a str, Option<Extent>>,
    patterns: usize,
}

impl<'a> Measuring<'a> {
    fn new(root: &'a Value) -> Self {
        Self {
            root,
            known: HashMap::new(),
            patterns: 0,
        }
    }

    fn check(mut self) -> Result<(), SchemaFault> {
        let draft = self.root.get("$schema").and_then(Value::as_str);
        let draft = draft.map(|draft| draft.trim_end_matches('#'));
        if draft.is_some_and(|draft| draft != "https://json-schema.org/draft/2020-12/schema") {
            return Err(SchemaFault("`$schema` is not that of 2020-12".into()));
        }
        let extent = self.measure(self.root)?;
        if extent.places > MOST_PLACES {
            return Err(SchemaFault(format!(
                "with its references followed it has {} places, at most {MOST_PLACES} are taken",
                extent.places
            )));
        }
        if extent.depth > MOST_DEPTH {
            return Err(SchemaFault(format!(
                "with its references followed it is {} deep, at most {MOST_DEPTH} are taken",
                extent.depth
            )));
        }
        Ok(())
    }

    fn measure(&mut self, place: &'a Value) -> Result<Extent, SchemaFault> {
        let mut sum = Extent {
            places: 1,
            depth: 1,
        };
        let mut add = |below: Extent| {
            sum.places = sum.places.saturating_add(below.places);
            sum.depth = sum.depth.max(below.depth.saturating_add(1));
        };
        match place {
            Value::Array(items) => {
                for item in items {
                    add(self.measure(item)?);
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    match (name.as_str(), value) {
                        ("$ref", Value::String(to)) => add(self.follow(to)?),
                        (
                            "$id" | "$anchor" | "$dynamicRef" | "$dynamicAnchor" | "$recursiveRef",
                            Value::String(_),
                        ) => {
                            return Err(SchemaFault(format!(
                                "`{name}` is not taken; refer to `#/$defs/…` with `$ref`"
                            )));
                        }
                        ("pattern", Value::String(_)) => self.patterns += 1,
                        ("patternProperties", Value::Object(patterns)) => {
                            self.patterns += patterns.len();
                            add(self.measure(value)?);
                        }
                        _ => add(self.measure(value)?),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
        if self.patterns > MOST_PATTERNS {
            return Err(SchemaFault(format!(
                "it has more than {MOST_PATTERNS} patterns"
            )));
        }
        Ok(sum)
    }

    fn follow(&mut self, to: &'a str) -> Result<Extent, SchemaFault> {
        match self.known.get(to) {
            Some(Some(extent)) => return Ok(*extent),
            Some(None) => {
                return Err(SchemaFault(format!("`{}` refers to itself", clean(to))));
            }
            None => {}
        }
        let pointer = to
            .strip_prefix('#')
            .filter(|pointer| pointer.starts_with('/'));
        // Percent-encoding would let one place have many names.
        let pointer = pointer.filter(|pointer| !pointer.contains('%'));
        let found = pointer.and_then(|pointer| self.root.pointer(pointer));
        let Some(place) = found else {
            return Err(SchemaFault(format!(
                "`{}` leads nowhere within the schema; references are `#/$defs/…`",
                clean(to)
            )));
        };
        self.known.insert(to, None);
        let extent = self.measure(place)?;
        // Far more than is taken: no use in going on.
        if extent.depth > MOST_DEPTH {
            return Err(SchemaFault(format!("it is more than {MOST_DEPTH} deep")));
        }
        self.known.insert(to, Some(extent));
        Ok(extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(schema: &Value) -> Result<Schema, String> {
        Schema::read(&schema.to_string()).map_err(|fault| fault.to_string())
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_without_its_value() {
        let schema = read(&json!({
            "type": "object",
            "required": ["url"],
            "additionalProperties": false,
            "properties": {
                "url": { "type": "string", "pattern": "^https://" },
                "rules": { "type": "array", "items": { "$ref": "#/$defs/rule" } },
            },
            "$defs": { "rule": { "type": "object", "properties": { "level": { "enum": ["low", "high"] } } } },
        }))
        .unwrap();
        assert_eq!(schema.findings(&json!({ "url": "https://a" })), []);
        let wrong = json!({ "url": "ftp://hunter2", "rules": [{ "level": "low" }, { "level": "hunter2" }] });
        let findings = schema.findings(&wrong);
        let mut places: Vec<_> = findings.iter().map(|it| it.at.as_str()).collect();
        places.sort_unstable();
        assert_eq!(places, ["/rules/1/level", "/url"]);
        assert!(!format!("{findings:?}").contains("hunter2"), "{findings:?}");
        assert_eq!(schema.findings(&json!([])).len(), 1);
        assert_eq!(schema.findings(&json!({})).len(), 1);
    }

    #[test]
    fn a_plugin_without_a_schema_has_no_configuration() {
        let none = Schema::read("").unwrap();
        assert_eq!(none.findings(&json!({})), []);
        assert_eq!(none.findings(&json!({ "a": 1 })).len(), 1);
    }

    #[test]
    fn a_schema_cannot_cost_more_than_a_glance() {
        let mut doubling = serde_json::Map::new();
        for step in 0..40 {
            let next = json!({ "$ref": format!("#/$defs/d{}", step + 1) });
            doubling.insert(format!("d{step}"), json!({ "allOf": [next, next] }));
        }
        doubling.insert("d40".into(), json!(true));
        let mut deep = json!(true);
        for _ in 0..60 {
            deep = json!({ "not": deep });
        }
        let table = [
            (json!({ "$ref": "#" }), "leads nowhere"),
            (
                json!({ "$ref": "https://example.com/schema" }),
                "leads nowhere",
            ),
            (json!({ "$ref": "file:///etc/passwd" }), "leads nowhere"),
            (json!({ "$id": "https://example.com/" }), "`$id`"),
            (json!({ "$dynamicRef": "#a" }), "`$dynamicRef`"),
            (
                json!({ "$ref": "#/$defs/a", "$defs": { "a": { "anyOf": [{ "$ref": "#/$defs/a" }] } } }),
                "refers to itself",
            ),
            (
                json!({ "$ref": "#/$defs/a", "$defs": { "a": { "$ref": "#/$defs/b" }, "b": { "$ref": "#/$defs/a" } } }),
                "refers to itself",
            ),
            (
                json!({ "properties": { "p": { "$ref": "#/properties" } } }),
                "refers to itself",
            ),
            (json!({ "$ref": "#/$defs/d0", "$defs": doubling }), "deep"),
            (deep, "deep"),
            (
                json!({ "$schema": "http://json-schema.org/draft-07/schema#" }),
                "2020-12",
            ),
            (json!({ "pattern": "(?=a)b" }), ""),
            (json!({ "pattern": "(a{1000}){1000}" }), ""),
            (json!({ "type": "no such type" }), ""),
        ];
        for (schema, wanted) in table {
            let said = read(&schema).map(drop).expect_err(&schema.to_string());
            assert!(said.contains(wanted), "{schema}: {said}");
        }
        let twice = json!({ "anyOf": [{ "$ref": "#/$defs/a" }, { "$ref": "#/$defs/a" }], "$defs": { "a": true } });
        read(&twice).expect("the same place twice is no circle");
    }
}
