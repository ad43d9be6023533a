//! Release keys: one line of text each, so that they survive mail, shell
//! scripts and configuration files.
//!
//! ```text
//! loopback-release-1:<key id, 16 hex>:<public key, base64>
//! loopback-release-secret-1:<pkcs8, base64>
//! ```
//!
//! The key id is derived from the key (the first 8 bytes of its SHA-256). It is
//! repeated in the text as a checksum against copying errors and names the
//! signer in signatures and error texts; it is never trusted on its own.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use data_encoding::{BASE64, HEXLOWER};
use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

const PUBLIC_PREFIX: &str = "loopback-release-1";
const SECRET_PREFIX: &str = "loopback-release-secret-1";

/// What can be wrong with a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text is not a release key.
    #[error("not a release key: {0}")]
    Format(&'static str),
    /// A list of trusted keys without any.
    #[error("no release key in the text")]
    Empty,
    /// Others can read the secret key.
    #[error(
        "{path} is open to others (mode {mode:o}): chmod 600 it, and think about who has read it"
    )]
    TooOpen {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The system gave no randomness, or refused the key.
    #[error("make a release key")]
    Generate,
    /// The file could not be read or written.
    #[error("{verb} key file {path}")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The key file.
        path: PathBuf,
        /// Why it did not work.
        source: io::Error,
    },
}

/// Names a key: the first 8 bytes of the SHA-256 of the public key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId([u8; 8]);

impl KeyId {
    fn of(public: &[u8; 32]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, public);
        let mut id = [0; 8];
        id.copy_from_slice(&digest.as_ref()[..8]);
        Self(id)
    }
}

impl FromStr for KeyId {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let bytes = HEXLOWER
            .decode(text.as_bytes())
            .map_err(|_| KeyError::Format("the key id is not lower-case hex"))?;
        let id = bytes
            .try_into()
            .map_err(|_| KeyError::Format("the key id is not 8 bytes"))?;
        Ok(Self(id))
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key whose releases are trusted.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    id: KeyId,
    bytes: [u8; 32],
}

impl PublicKey {
    fn new(bytes: [u8; 32]) -> Self {
        Self {
            id: KeyId::of(&bytes),
            bytes,
        }
    }

    /// Which key this is.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Reads a key file: one key per line, blank lines and `#` comments allowed.
    /// Several keys are how a key is replaced: both are trusted for a while.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, KeyError> {
        let keys: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        if keys.is_empty() {
            Err(KeyError::Empty)
        } else {
            Ok(keys)
        }
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.bytes)
            .verify(message, signature)
            .is_ok()
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;
    fn from_str(text: &str) -> Result<Self, KeyError> {
        let rest = text
            .strip_prefix(PUBLIC_PREFIX)
            .and_then(|rest| rest.strip_prefix(':'))
            .ok_or(KeyError::Format(
                "it does not begin with loopback-release-1:",
            ))?;
        let (id, key) = rest
            .split_once(':')
            .ok_or(KeyError::Format("the key is missing"))?;
        let id: KeyId = id.parse()?;
        let bytes = BASE64
            .decode(key.as_bytes())
            .map_err(|_| KeyError::Format("the key is not base64"))?
            .try_into()
            .map_err(|_| KeyError::Format("the key is not 32 bytes"))?;
        let key = Self::new(bytes);
        if key.id == id {
            Ok(key)
        } else {
            Err(KeyError::Format(
                "the key id does not belong to the key: a copying error",
            ))
        }
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{PUBLIC_PREFIX}:{}:{}",
            self.id,
            BASE64.encode(&self.bytes)
        )
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id)
    }
}

/// The secret half. Lives offline, in one file that only its owner can read.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    public: PublicKey,
}

impl SigningKey {
    /// Makes a new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let document =
            Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Generate)?;
        Self::from_pkcs8(Zeroizing::new(document.as_ref().to_vec()))
    }

    /// Reads a key that [`SigningKey::save`] wrote. A file that others may read is refused.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let io = |verb| {
            move |source| KeyError::Io {
                verb,
                path: path.to_owned(),
                source,
            }
        };
        // Permissions of the open file, not of the path: the two could differ.
        let mut file = fs::File::open(path).map_err(io("open"))?;
        let mode = file.metadata().map_err(io("inspect"))?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::TooOpen {
                path: path.to_owned(),
                mode,
            });
        }
        let mut text = Zeroizing::new(String::new());
        file.read_to_string(&mut text).map_err(io("read"))?;
        let encoded = text
            .trim_end()
            .strip_prefix(SECRET_PREFIX)
            .and_then(|rest| rest.strip_prefix(':'))
            .ok_or(KeyError::Format(
                "it does not begin with loopback-release-secret-1:",
            ))?;
        let pkcs8 = BASE64
            .decode(encoded.as_bytes())
            .map_err(|_| KeyError::Format("the secret key is not base64"))?;
        Self::from_pkcs8(Zeroizing::new(pkcs8))
    }

    /// Writes the key to a new file with mode 0600. An existing file is never
    /// overwritten: it may be the only copy of a key that hosts trust.
    pub fn save(&self, path: &Path) -> Result<(), KeyError> {
        let io = |verb| {
            move |source| KeyError::Io {
                verb,
                path: path.to_owned(),
                source,
            }
        };
        let text = Zeroizing::new(format!("{SECRET_PREFIX}:{}\n", BASE64.encode(&self.pkcs8)));
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(io("create"))?;
        file.write_all(text.as_bytes()).map_err(io("write"))?;
        file.sync_all().map_err(io("sync"))
    }

    /// The half to hand out.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let mut signature = [0; 64];
        signature.copy_from_slice(self.pair.sign(message).as_ref());
        signature
    }

    fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_pkcs8(&pkcs8)
            .map_err(|_| KeyError::Format("the secret key is damaged"))?;
        let mut bytes = [0; 32];
        bytes.copy_from_slice(pair.public_key().as_ref());
        Ok(Self {
            pair,
            pkcs8,
            public: PublicKey::new(bytes),
        })
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_key_survives_its_text() {
        let key = SigningKey::generate().unwrap();
        let text = key.public().to_string();
        assert_eq!(&text.parse::<PublicKey>().unwrap(), key.public());
        let list = format!(
            "# trusted\n\n{text}\n  {}\n",
            SigningKey::generate().unwrap().public()
        );
        assert_eq!(PublicKey::parse_list(&list).unwrap().len(), 2);
        assert!(matches!(
            PublicKey::parse_list("# none\n"),
            Err(KeyError::Empty)
        ));
    }

    #[test]
    fn a_damaged_public_key_is_refused_at_every_character() {
        let text = SigningKey::generate().unwrap().public().to_string();
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
            let damaged = String::from_utf8(bytes).unwrap();
            assert!(damaged.parse::<PublicKey>().is_err(), "accepted {damaged}");
        }
        assert!(text[..text.len() - 1].parse::<PublicKey>().is_err());
        assert!(format!("{text}\n").parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_secret_key_is_private_on_disk_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("release.key");
        let key = SigningKey::generate().unwrap();
        key.save(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(SigningKey::load(&path).unwrap().public(), key.public());
        assert!(matches!(
            key.save(&path),
            Err(KeyError::Io { verb: "create", .. })
        ));

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(
            SigningKey::load(&path),
            Err(KeyError::TooOpen { mode: 0o640, .. })
        ));
    }

    #[test]
    fn debug_text_hides_the_secret() {
        let key = SigningKey::generate().unwrap();
        assert_eq!(
            format!("{key:?}"),
            format!("SigningKey({})", key.public().id())
        );
    }
}
