//! Reading a configuration, and saying where it does not fit.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::{Diagnostic, Error, Severity};

/// Reads a configuration.
pub(crate) fn read<C: DeserializeOwned>(json: &str) -> Result<C, Diagnostic> {
    let mut reader = serde_json::Deserializer::from_str(json);
    serde_path_to_error::deserialize(&mut reader).map_err(|error| Diagnostic {
        severity: Severity::Error,
        path: pointer(error.path()),
        message: error.inner().to_string(),
    })
}

/// The configuration of this call. It held when it was stored, so an error here is one of the
/// plugin or of an upgrade.
pub(crate) fn current<C: DeserializeOwned>() -> Result<C, Error> {
    read(&crate::bindings::config::json()).map_err(|found| {
        let place = if found.path.is_empty() {
            String::new()
        } else {
            format!("{}: ", found.path)
        };
        Error::invalid(
            "config.invalid",
            format!("configuration: {place}{}", found.message),
        )
    })
}

/// As RFC 6901 writes it.
fn pointer(path: &Path) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            Segment::Map { key } => {
                text.push('/');
                text.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            // Not a place in the JSON: the next segment is.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only read by serde")]
    struct Config {
        windows: Vec<Window>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[allow(dead_code, reason = "only read by serde")]
    struct Window {
        from: u8,
    }

    #[test]
    fn the_place_of_a_mistake_is_a_json_pointer() {
        let found = read::<Config>(r#"{"windows":[{"from":1},{"from":"x"}]}"#).unwrap_err();
        assert_eq!(found.path, "/windows/1/from");
        assert!(found.message.contains("invalid type"), "{}", found.message);
        let found = read::<Config>("{}").unwrap_err();
        assert!(
            found.message.contains("missing field `windows`"),
            "{}",
            found.message
        );
    }
}
