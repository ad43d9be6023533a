//! Files on hosts: how they are named, and what is said of them.
//!
//! A [`HostPath`] is checked in every program it passes through, by this one type. It is
//! a plain absolute path: no `.` or `..`, nothing empty, no NUL and no other control
//! character. So no program has to wonder what a path means after somebody resolved it,
//! and a path shown in a log or list is the path that was meant. It is text: names that
//! are no UTF-8 are out of reach. Nothing decodes it again (`%2e%2e` is a name like any
//! other), and a backslash is a letter, as it is on the hosts: unit files have it in
//! their names.
//!
//! That a path looks plain says nothing about links on its way. The host alone can
//! judge those, while it opens the file.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Bytes of a file that may travel, unless a gateway is told otherwise.
pub const MAX_FILE: u64 = 4 << 30;

/// An absolute path on a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct HostPath(String);

/// Why a text is not a [`HostPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotAPath {
    /// Relative, or as another system writes paths.
    #[error("a path on a host begins with `/`")]
    NotAbsolute,
    /// Longer than the kernel takes.
    #[error(
        "a path has at most {} bytes, and each name in it at most {}",
        HostPath::MAX_LEN,
        HostPath::MAX_NAME
    )]
    TooLong,
    /// `.` or `..`, which name other things in other places.
    #[error("a path is written without `.` and `..`")]
    Dots,
    /// Two slashes in a row, or one at the end.
    #[error("a path names a file: no empty names, and no `/` at its end")]
    EmptyName,
    /// NUL, or what drives a terminal.
    #[error("a path has no control characters")]
    Control,
}

impl HostPath {
    /// What the kernel takes, without its NUL.
    pub const MAX_LEN: usize = 4095;
    /// What file systems take for one name.
    pub const MAX_NAME: usize = 255;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its names, from the outermost.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name; nothing for `/`.
    pub fn name(&self) -> Option<&str> {
        self.names().last()
    }
}

impl Default for HostPath {
    fn default() -> Self {
        Self("/".to_owned())
    }
}

impl FromStr for HostPath {
    type Err = NotAPath;

    fn from_str(text: &str) -> Result<Self, NotAPath> {
        let Some(names) = text.strip_prefix('/') else {
            return Err(NotAPath::NotAbsolute);
        };
        if text.len() > Self::MAX_LEN {
            return Err(NotAPath::TooLong);
        }
        if text.chars().any(crate::names::drives_a_terminal) {
            return Err(NotAPath::Control);
        }
        if names.is_empty() {
            return Ok(Self::default());
        }
        for name in names.split('/') {
            match name {
                "" => return Err(NotAPath::EmptyName),
                "." | ".." => return Err(NotAPath::Dots),
                name if name.len() > Self::MAX_NAME => return Err(NotAPath::TooLong),
                _ => {}
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for HostPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for HostPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl JsonSchema for HostPath {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HostPath".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "minLength": 1,
            "maxLength": Self::MAX_LEN,
            "pattern": "^/",
            "description": "an absolute path, without `.`, `..`, empty names and control characters",
        })
    }
}

/// SHA-256 of a file's content, in lower case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sha256([u8; 32]);

/// The text is not a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is written as 64 of 0-9 and a-f")]
pub struct NotASha256;

impl Sha256 {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256 {
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl TryFrom<&[u8]> for Sha256 {
    type Error = NotASha256;

    fn try_from(bytes: &[u8]) -> Result<Self, NotASha256> {
        bytes.try_into().map(Self).map_err(|_| NotASha256)
    }
}

impl FromStr for Sha256 {
    type Err = NotASha256;

    fn from_str(text: &str) -> Result<Self, NotASha256> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NotASha256);
        }
        let value = |digit: u8| match digit {
            b'0'..=b'9' => Ok(digit - b'0'),
            b'a'..=b'f' => Ok(digit - b'a' + 10),
            _ => Err(NotASha256),
        };
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = value(pair[0])? << 4 | value(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Who may do what with a file, written as `chmod` takes it: `0644`. With a fourth digit
/// the set-user-id, set-group-id and sticky bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileMode(u32);

/// The text is not a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mode is three or four of 0-7, as in 0644")]
pub struct NotAMode;

impl FileMode {
    /// Set-user-id, set-group-id, sticky.
    pub const SPECIAL: u32 = 0o7000;

    /// Of `bits`, those that a mode has.
    pub fn of(bits: u32) -> Self {
        Self(bits & 0o7777)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether it has more than permissions.
    pub fn is_special(self) -> bool {
        self.0 & Self::SPECIAL != 0
    }
}

impl FromStr for FileMode {
    type Err = NotAMode;

    fn from_str(text: &str) -> Result<Self, NotAMode> {
        let octal = text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
        if !octal || !(3..=4).contains(&text.len()) {
            return Err(NotAMode);
        }
        u32::from_str_radix(text, 8).map(Self).map_err(|_| NotAMode)
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}

/// Whose a file is: `user`, `user:group` or `:group`, by name or number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOwner {
    user: String,
    group: String,
}

/// The text is not an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an owner is `user`, `user:group` or `:group`, by names or numbers")]
pub struct NotAnOwner;

impl FileOwner {
    /// The user, if one is named.
    pub fn user(&self) -> Option<&str> {
        Some(self.user.as_str()).filter(|user| !user.is_empty())
    }

    /// The group, if one is named.
    pub fn group(&self) -> Option<&str> {
        Some(self.group.as_str()).filter(|group| !group.is_empty())
    }
}

impl FromStr for FileOwner {
    type Err = NotAnOwner;

    fn from_str(text: &str) -> Result<Self, NotAnOwner> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let good = |name: &str| {
            name.len() <= 64
                && name.bytes().all(|byte| {
                    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.' | b'$')
                })
        };
        if user.is_empty() && group.is_empty() || !good(user) || !good(group) {
            return Err(NotAnOwner);
        }
        Ok(Self {
            user: user.to_owned(),
            group: group.to_owned(),
        })
    }
}

impl fmt::Display for FileOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.user)?;
        if !self.group.is_empty() {
            write!(f, ":{}", self.group)?;
        }
        Ok(())
    }
}

macro_rules! as_text {
    ($($type:ident $name:literal $pattern:literal;)*) => {$(
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "pattern": $pattern })
            }
        }
    )*};
}

as_text! {
    Sha256 "Sha256" "^[0-9a-f]{64}$";
    FileMode "FileMode" "^[0-7]{3,4}$";
    FileOwner "FileOwner" "^([A-Za-z0-9_.$-]{1,64}(:[A-Za-z0-9_.$-]{0,64})?|:[A-Za-z0-9_.$-]{1,64})$";
}

#[cfg(test)]
mod tests;
