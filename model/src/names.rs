//! Names people give to things, and text that comes from machines.
//!
//! A [`Name`] is a slug: it appears in URLs, shell scripts and log lines, so its
//! alphabet is strict. A [`Text`] is for people: any printable characters, one
//! line, bounded. Machine text (what an agent says about its host) goes through
//! [`clean`], which never refuses: it drops what could drive a terminal and
//! cuts what is too long.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// The text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name has 1 to {} of a-z, 0-9 and `-`, and begins and ends with a letter or digit",
    Name::MAX_LEN
)]
pub struct NotAName;

/// A slug: `web-eu-1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Longest name, in bytes: what DNS allows for one label.
    pub const MAX_LEN: usize = 63;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte != b'-');
        let good = text.len() <= Self::MAX_LEN
            && text.bytes().all(inner)
            && edge(text.bytes().next())
            && edge(text.bytes().last());
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAName)
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": Name::MAX_LEN,
            "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        })
    }
}

/// The text cannot be shown on one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "text must be one line of at most {} characters without control characters",
    Text::MAX_CHARS
)]
pub struct NotPlainText;

/// One line of text written by a person: a description, a display name, a reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Longest text, in characters.
    pub const MAX_CHARS: usize = 256;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Text {
    type Err = NotPlainText;

    fn from_str(text: &str) -> Result<Self, NotPlainText> {
        if text.chars().count() <= Self::MAX_CHARS && !text.chars().any(drives_a_terminal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotPlainText)
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": Text::MAX_CHARS,
            "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f\\u200e\\u200f\\u2028-\\u202e\\u2066-\\u2069]*$",
        })
    }
}

/// Text from a machine made harmless: control characters and direction
/// overrides become `\u{fffd}`, and at most `max_chars` characters stay.
pub fn clean(text: &str, max_chars: usize) -> String {
    text.chars()
        .take(max_chars)
        .map(|letter| {
            if drives_a_terminal(letter) {
                char::REPLACEMENT_CHARACTER
            } else {
                letter
            }
        })
        .collect()
}

/// C0, DEL, C1, line separators and bidirectional overrides: what moves a
/// cursor, ends a line or makes text read other than it is stored.
pub(crate) fn drives_a_terminal(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_their_alphabet() {
        for good in ["a", "web-1", "0", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a b",
            "a'b",
            "$(x)",
            "ä",
            "a\n",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn machine_text_cannot_drive_a_terminal() {
        assert_eq!(
            clean("a\x1b[31mb\u{202e}c\nd", 100),
            "a\u{fffd}[31mb\u{fffd}c\u{fffd}d"
        );
        assert_eq!(clean("ääää", 2), "ää");
    }
}
