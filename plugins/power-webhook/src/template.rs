//! Texts with places in them.
//!
//! What goes into a place comes from a target or from the controller itself, so it is put in once,
//! never searched for places again, and written so that it cannot be anything but a value: in a
//! path percent-encoded, in a body as a part of a JSON string.

use loopback_plugin_sdk::Error;
use serde_json::Value;

/// What the places of a request stand for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Values<'a> {
    pub(crate) address: &'a str,
    pub(crate) host: &'a str,
    pub(crate) action: Option<&'a str>,
    pub(crate) operation: Option<&'a str>,
    pub(crate) job: Option<&'a str>,
}

impl<'a> Values<'a> {
    fn of(&self, place: &str) -> Option<&'a str> {
        match place {
            "address" => Some(self.address),
            "host" => Some(self.host),
            "action" => self.action,
            "operation" => self.operation,
            "job" => self.job,
            _ => None,
        }
    }
}

/// A part of a template.
#[derive(Debug, PartialEq, Eq)]
enum Part<'a> {
    Text(&'a str),
    Place(&'a str),
}

/// The template's parts: what stands in braces is a place if it is a word.
fn parts(mut rest: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    while let Some(start) = rest.find('{') {
        let after = &rest[start + 1..];
        let word = after.find('}').map(|end| &after[..end]);
        let word = word
            .filter(|word| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()));
        let Some(word) = word else {
            parts.push(Part::Text(&rest[..=start]));
            rest = after;
            continue;
        };
        parts.push(Part::Text(&rest[..start]));
        parts.push(Part::Place(word));
        rest = &after[word.len() + 1..];
    }
    parts.push(Part::Text(rest));
    parts
}

/// The places of a path that none of `known` is.
pub(crate) fn unknown_places<'a>(path: &'a str, known: &[&str]) -> Vec<&'a str> {
    let places = parts(path).into_iter().filter_map(|part| match part {
        Part::Place(place) if !known.contains(&place) => Some(place),
        Part::Place(_) | Part::Text(_) => None,
    });
    places.collect()
}

/// A path and query.
pub(crate) fn path(template: &str, values: &Values<'_>) -> Result<String, Error> {
    let mut out = String::new();
    for part in parts(template) {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Place(place) => {
                let value = values.of(place).ok_or_else(|| {
                    let message = format!("{{{place}}} means nothing in this request's path");
                    Error::invalid("config.invalid", message)
                })?;
                // These would lead elsewhere, encoded or not.
                if matches!(value, "" | "." | "..") {
                    let message = format!("the {place} `{value}` cannot stand in a path");
                    return Err(Error::invalid("webhook.path", message));
                }
                encode(&mut out, value);
            }
        }
    }
    Ok(out)
}

/// A body: texts in it are templates, and all else stays as it is.
pub(crate) fn body(template: &Value, values: &Values<'_>) -> Value {
    match template {
        Value::String(text) => {
            let mut out = String::new();
            for part in parts(text) {
                match part {
                    Part::Text(text) => out.push_str(text),
                    Part::Place(place) => match values.of(place) {
                        Some(value) => out.push_str(value),
                        None => out.push_str(&format!("{{{place}}}")),
                    },
                }
            }
            Value::String(out)
        }
        Value::Array(all) => all.iter().map(|one| body(one, values)).collect(),
        Value::Object(all) => {
            let filled = all
                .iter()
                .map(|(key, one)| (key.clone(), body(one, values)));
            Value::Object(filled.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
    }
}

fn encode(out: &mut String, text: &str) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const VALUES: Values<'_> = Values {
        address: "a/b?{host}\"",
        host: "hst_1",
        action: Some("on"),
        operation: None,
        job: None,
    };

    #[test]
    fn values_stay_values() {
        let filled = path("/m/{address}/{action}?by={host}&x={}{ {A}", &VALUES).unwrap();
        assert_eq!(filled, "/m/a%2Fb%3F%7Bhost%7D%22/on?by=hst_1&x={}{ {A}");
        let template = json!({ "{host}": ["{address}", 1, null], "b": "{operation} {action}!" });
        assert_eq!(
            body(&template, &VALUES),
            json!({ "{host}": ["a/b?{host}\"", 1, null], "b": "{operation} on!" })
        );
    }

    #[test]
    fn what_means_nothing_or_leads_elsewhere_is_refused() {
        assert!(path("/{operation}", &VALUES).is_err());
        assert!(path("/{colour}", &VALUES).is_err());
        for address in ["", ".", ".."] {
            let values = Values { address, ..VALUES };
            assert!(path("/{address}/on", &values).is_err(), "{address}");
        }
        assert_eq!(
            unknown_places("/{host}/{colour}/{job}", &["host"]),
            ["colour", "job"]
        );
    }
}
