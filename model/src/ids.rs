//! Typed ids, one list.
//!
//! An id is 128 bits: 48 bits of creation time in milliseconds and 80 random
//! bits, so that ids of one kind sort by age and are never reused. In text it is
//! a kind prefix and 26 characters of lower-case Crockford base32:
//! `hst_01k2v3…`. The prefix makes a log line say what it names and keeps an id
//! of one kind from being taken for another.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::Timestamp;

/// The text is not an id of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not {article} id; {article} id looks like `{prefix}_` and 26 letters and digits", article = Article(kind))]
pub struct NotAnId {
    kind: &'static str,
    prefix: &'static str,
}

struct Article(&'static str);

impl fmt::Display for Article {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let article = if self.0.starts_with(['a', 'e', 'i', 'o']) {
            "an"
        } else {
            "a"
        };
        write!(f, "{article} {}", self.0)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident $prefix:literal $kind:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// What stands before the underscore in the text form.
            pub const PREFIX: &'static str = $prefix;

            /// An id born at `now`; `random` must come from a secure source.
            pub fn new(now: Timestamp, random: [u8; 10]) -> Self {
                Self(assemble(now, random))
            }

            /// The 128 bits, big-endian.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let digits = encode(self.0);
                // The alphabet is ASCII.
                write!(f, "{}_{}", $prefix, str::from_utf8(&digits).unwrap_or_default())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                text.strip_prefix(concat!($prefix, "_"))
                    .and_then(decode)
                    .map(Self)
                    .ok_or(NotAnId { kind: $kind, prefix: $prefix })
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                std::borrow::Cow::<'de, str>::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": concat!("^", $prefix, "_[0-9a-hjkmnp-tv-z]{26}$"),
                })
            }
        }
    )*};
}

ids! {
    /// One installation of Loopback: a gateway (or cluster) and its state.
    DeploymentId "dpl" "deployment";
    /// A project: the outer level of tenancy.
    ProjectId "prj" "project";
    /// A workspace inside a project; hosts live here.
    WorkspaceId "wsp" "workspace";
    /// A host.
    HostId "hst" "host";
    /// A person or a service account.
    UserId "usr" "user";
    /// An API key of a user.
    ApiKeyId "key" "api key";
    /// A role.
    RoleId "rol" "role";
    /// A role given to a user at a scope.
    RoleBindingId "bnd" "role binding";
    /// An agent token.
    AgentTokenId "tok" "agent token";
    /// A command: something to run on hosts.
    CommandId "cmd" "command";
    /// One HTTP request, for correlation in logs and audit.
    RequestId "req" "request";
    /// Something that others must approve first.
    ApprovalId "apr" "approval";
    /// Something that is done to a host's power.
    PowerOperationId "pop" "power operation";
    /// Something that is done to many hosts' power.
    PowerBulkId "pwb" "power bulk";
}

/// Crockford base32 without i, l, o, u, in lower case.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const DIGITS: usize = 26;

fn assemble(now: Timestamp, random: [u8; 10]) -> u128 {
    let millis = u128::try_from(now.as_millis().max(0)).unwrap_or(0) & ((1 << 48) - 1);
    let mut tail = [0u8; 16];
    tail[6..].copy_from_slice(&random);
    (millis << 80) | u128::from_be_bytes(tail)
}

fn encode(mut value: u128) -> [u8; DIGITS] {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(value & 31) as usize];
        value >>= 5;
    }
    digits
}

/// Exactly the canonical form: one text per id, so that equal text and equal id
/// are the same question.
fn decode(digits: &str) -> Option<u128> {
    if digits.len() != DIGITS {
        return None;
    }
    let mut value: u128 = 0;
    for (place, digit) in digits.bytes().enumerate() {
        let bits = ALPHABET.iter().position(|&letter| letter == digit)?;
        // 26 digits hold 130 bits; the first may only use the lowest three.
        if place == 0 && bits > 7 {
            return None;
        }
        value = (value << 5) | bits as u128;
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_sort_by_birth() {
        let early = HostId::new(Timestamp::from_millis(1), [255; 10]);
        let late = HostId::new(Timestamp::from_millis(2), [0; 10]);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn an_id_of_another_kind_is_refused_with_the_form_expected() {
        let token = AgentTokenId::new(Timestamp::from_millis(7), [7; 10]).to_string();
        let error = token.parse::<HostId>().unwrap_err().to_string();
        assert_eq!(
            error,
            "not a host id; a host id looks like `hst_` and 26 letters and digits"
        );
    }

    proptest! {
        #[test]
        fn text_round_trips(value: u128) {
            let id = HostId(value);
            prop_assert_eq!(id.to_string().parse::<HostId>().unwrap(), id);
        }

        #[test]
        fn parsing_anything_is_canonical_or_refused(text in "hst_[0-9a-zA-Z]{24,27}") {
            if let Ok(id) = text.parse::<HostId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
