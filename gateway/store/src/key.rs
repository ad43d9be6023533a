//! Keys and prefixes: checked once, bytes ever after.
//!
//! A key is 1 to 512 bytes. Keys that begin with byte 0 belong to the store
//! itself (the audit chains live there): [`Key::new`] refuses them, so no batch
//! can be built that writes into a chain behind its back. Reading them through a
//! [`Prefix`] is allowed.

use std::fmt;

use bytes::Bytes;

/// The first byte of the keys that only the store writes.
pub(crate) const RESERVED: u8 = 0;

/// The name of one item.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Bytes); // Invariant: 1..=MAX_LEN bytes.

impl Key {
    /// The longest key in bytes. Keys are repeated in every index page and every
    /// change; engines beyond the embedded one are happiest well below 1 KiB.
    pub const MAX_LEN: usize = 512;

    /// Checks and copies `bytes`.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let bytes = bytes.as_ref();
        match bytes {
            [] => Err(KeyError::Empty),
            [RESERVED, ..] => Err(KeyError::Reserved),
            _ if bytes.len() > Self::MAX_LEN => Err(KeyError::TooLong { len: bytes.len() }),
            _ => Ok(Self(Bytes::copy_from_slice(bytes))),
        }
    }

    /// A key that is known to be well formed: read back from an engine, or built
    /// by this crate out of checked parts.
    pub(crate) fn trusted(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        debug_assert!(!bytes.is_empty() && bytes.len() <= Self::MAX_LEN);
        Self(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// A range of keys: all that begin with these bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(Bytes); // Invariant: at most Key::MAX_LEN bytes.

impl Prefix {
    /// Every key, the store's own included.
    pub const fn all() -> Self {
        Self(Bytes::new())
    }

    /// Checks and copies `bytes`.
    pub fn new(bytes: impl AsRef<[u8]>) -> Result<Self, KeyError> {
        let bytes = bytes.as_ref();
        if bytes.len() > Key::MAX_LEN {
            return Err(KeyError::TooLong { len: bytes.len() });
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }

    pub(crate) fn trusted(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The prefix's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether `key` lies under this prefix.
    pub fn contains(&self, key: &[u8]) -> bool {
        key.starts_with(&self.0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}*", self.0.escape_ascii())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

/// Why bytes are not a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// There are no bytes.
    #[error("the key is empty")]
    Empty,
    /// There are too many.
    #[error("the key has {len} bytes, {} are allowed", Key::MAX_LEN)]
    TooLong {
        /// How many there are.
        len: usize,
    },
    /// It begins with the byte 0, which marks the store's own keys.
    #[error("keys that begin with a zero byte belong to the store itself")]
    Reserved,
    /// One part of a record's key is empty or holds the separator.
    #[error("`{part}` cannot be part of a record's key: it is empty or holds a slash")]
    Part {
        /// The offending part.
        part: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_bounded_and_the_stores_own_are_refused() {
        assert_eq!(Key::new(""), Err(KeyError::Empty));
        assert_eq!(Key::new([0, 1]), Err(KeyError::Reserved));
        assert_eq!(Key::new([1; 513]), Err(KeyError::TooLong { len: 513 }));
        assert_eq!(Key::new([1; 512]).unwrap().as_bytes(), &[1; 512]);
        assert_eq!(Prefix::new([1; 513]), Err(KeyError::TooLong { len: 513 }));
    }

    #[test]
    fn a_prefix_contains_what_begins_with_it() {
        let hosts = Prefix::new("host/").unwrap();
        assert!(hosts.contains(b"host/1") && hosts.contains(b"host/"));
        assert!(!hosts.contains(b"host") && !hosts.contains(b"hosts/1"));
        assert!(Prefix::all().contains(&[0xff]));
    }
}
