//! Bearer secrets: their text form, shared by those who make, carry and check
//! them. `lbt_…` is an agent token, `lbk_…` an API key. The text names its record
//! (so that a lookup is by id and the compare is constant-time) and carries 256
//! random bits: `lbt_<26 of id>_<52 of secret>`.

use std::fmt;
use std::str::FromStr;

use data_encoding::{Encoding, Specification};

/// A bearer secret in memory. `Debug` and `Display` never show it; ask for the
/// text by name.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret<I> {
    id: I,
    key: [u8; 32],
}

/// Kinds of bearer secret: which record they name and how their text begins.
pub trait SecretKind: Copy + fmt::Display + FromStr {
    /// `lbt` or `lbk`.
    const TEXT_PREFIX: &'static str;
    /// The id's own prefix, with underscore.
    const ID_PREFIX: &'static str;
}

impl SecretKind for crate::ids::AgentTokenId {
    const TEXT_PREFIX: &'static str = "lbt";
    const ID_PREFIX: &'static str = "tok_";
}

impl SecretKind for crate::ids::ApiKeyId {
    const TEXT_PREFIX: &'static str = "lbk";
    const ID_PREFIX: &'static str = "key_";
}

/// The text is not a secret of the kind asked for. It is not repeated here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a well-formed {0} secret")]
pub struct MalformedSecret(&'static str);

impl<I: SecretKind> Secret<I> {
    /// Binds 32 random bytes to a record.
    pub fn new(id: I, key: [u8; 32]) -> Self {
        Self { id, key }
    }

    /// Which record it claims to belong to.
    pub fn id(&self) -> I {
        self.id
    }

    /// The random part, for comparing by HMAC.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// The bearer text: show once, never log.
    pub fn reveal(&self) -> String {
        let id = self.id.to_string();
        let id = id.strip_prefix(I::ID_PREFIX).unwrap_or(&id);
        format!("{}_{}_{}", I::TEXT_PREFIX, id, base32().encode(&self.key))
    }
}

impl<I: SecretKind> FromStr for Secret<I> {
    type Err = MalformedSecret;

    fn from_str(text: &str) -> Result<Self, MalformedSecret> {
        let malformed = || MalformedSecret(I::TEXT_PREFIX);
        let mut parts = text.splitn(3, '_');
        let (Some(prefix), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        if prefix != I::TEXT_PREFIX || key.len() != 52 {
            return Err(malformed());
        }
        let id = format!("{}{id}", I::ID_PREFIX)
            .parse()
            .map_err(|_| malformed())?;
        let key = base32().decode(key.as_bytes()).map_err(|_| malformed())?;
        let key = key.try_into().map_err(|_| malformed())?;
        Ok(Self { id, key })
    }
}

impl<I: fmt::Display> fmt::Debug for Secret<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}, hidden)", self.id)
    }
}

fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("0123456789abcdefghjkmnpqrstvwxyz");
    specification
        .encoding()
        .expect("32 distinct ASCII symbols are a valid base32 alphabet")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Timestamp;
    use crate::ids::{AgentTokenId, ApiKeyId};

    #[test]
    fn text_round_trips_and_debug_hides() {
        let secret = Secret::new(
            AgentTokenId::new(Timestamp::from_millis(5), [1; 10]),
            [0xab; 32],
        );
        let text = secret.reveal();
        assert!(text.starts_with("lbt_"));
        assert_eq!(text.parse::<Secret<AgentTokenId>>().unwrap(), secret);
        assert!(text.parse::<Secret<ApiKeyId>>().is_err());
        assert!(!format!("{secret:?}").contains(&text[31..]));
    }

    #[test]
    fn garbage_is_refused_without_repeating_it() {
        for text in ["", "lbt", "lbt__", "lbt_x_y", "lbk_0_0", "lbt_\u{0}_\u{0}"] {
            let error = text.parse::<Secret<AgentTokenId>>().unwrap_err();
            assert_eq!(error.to_string(), "not a well-formed lbt secret");
        }
    }
}
