//! The server's own secrets.
//!
//! One master key of 32 random bytes lies in `STATE/keys/server.key`; everything else
//! is derived from it by HMAC-SHA256 with a label, so that there is one thing to back
//! up and no purpose can be played against another:
//!
//! * *hash*: bearer secrets are stored as HMACs under it. They carry 256 random bits,
//!   so a slow password hash would add nothing, and a keyed one makes a stolen store
//!   useless for checking guesses;
//! * *audit*: the master of the audit chains;
//! * *seal*: AES-256-GCM for secrets that must be read back;
//! * *plugin cache*: what compiled plugins are authenticated with before they are run.
//!
//! Losing the master key invalidates every token and breaks the audit chain, so a
//! damaged file is refused and never replaced: the text of the file carries a check
//! value for that. Making one is a separate call, for a first start only.

use std::fmt;
use std::path::{Path, PathBuf};

use data_encoding::{BASE64, HEXLOWER};
use hmac::{Hmac, KeyInit, Mac};
use model::audit_chain::AuditChainKey;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::files::{self, FileError};

const FILE: &str = "server.key";
const PREFIX: &str = "loopback-server-key-1";
/// The text is 84 bytes long.
const FILE_LIMIT: u64 = 1 << 10;
const SEAL_VERSION: u8 = 1;

/// `N` bytes from the system's random source.
///
/// # Panics
/// When the system has no randomness to give. Nothing that needs some can go on then,
/// and none of it may go on without.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("getrandom only fails where the system lacks it, at the first call of all");
    bytes
}

/// Why the server's keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file or folder cannot be used.
    #[error("use the server's keys")]
    File(#[from] FileError),
    /// There is none although there is state.
    #[error(
        "{path} is missing although the deployment has state: restore it from a backup (without \
         it no token is valid and the audit chain cannot be continued)"
    )]
    Missing {
        /// Where it belongs.
        path: PathBuf,
    },
    /// It is not what was written.
    #[error("{path} is damaged ({what}): restore it from a backup; it is never replaced by itself")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Whether two digests are the same, in constant time.
pub fn equal(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).fold(0, |differing, (a, b)| {
        std::hint::black_box(differing | (a ^ b))
    }) == 0
}

/// The server's secrets. One per process, shared.
pub struct ServerKeys {
    hash: Key,
    audit: Key,
    seal: LessSafeKey,
    reset: Key,
    plugin_cache: Key,
}

/// Wiped when dropped.
type Key = Zeroizing<[u8; 32]>;

impl ServerKeys {
    /// Reads the key in `dir`. Absent is an error: for a deployment with state.
    pub fn load(dir: &Path) -> Result<Self, KeysError> {
        files::ensure_private_dir(dir)?;
        let path = dir.join(FILE);
        let Some(text) = files::read_private(&path, FILE_LIMIT)? else {
            return Err(KeysError::Missing { path });
        };
        let master = parse(&text).map_err(|what| KeysError::Damaged { path, what })?;
        Ok(Self::derive(&master))
    }

    /// Reads the key in `dir`, or makes one: for a deployment without state.
    pub fn load_or_create(dir: &Path) -> Result<Self, KeysError> {
        files::ensure_private_dir(dir)?;
        let path = dir.join(FILE);
        if files::read_private(&path, FILE_LIMIT)?.is_none() {
            let master = Key::new(random());
            files::create_private(&path, text_of(&master).as_bytes())?;
        }
        // Whoever lost the race to create it uses what the winner wrote.
        Self::load(dir)
    }

    fn derive(master: &Key) -> Self {
        let part = |label: &str| Key::new(hmac(master, label.as_bytes()));
        let seal = part("loopback seal key v1");
        let seal = UnboundKey::new(&AES_256_GCM, seal.as_slice()).expect("AES-256 takes 32 bytes");
        Self {
            hash: part("loopback hash key v1"),
            audit: part("loopback audit key v1"),
            seal: LessSafeKey::new(seal),
            reset: part("loopback stateless reset key v1"),
            plugin_cache: part("loopback plugin cache key v1"),
        }
    }

    /// What to store of a bearer secret.
    pub fn hash_secret(&self, secret: &[u8; 32]) -> [u8; 32] {
        hmac(&self.hash, secret)
    }

    /// Whether `secret` is the one `stored` was made of, in constant time.
    pub fn matches(&self, secret: &[u8; 32], stored: &[u8; 32]) -> bool {
        equal(&self.hash_secret(secret), stored)
    }

    /// The master key of the audit chains.
    pub fn audit_key(&self) -> AuditChainKey {
        AuditChainKey::new(*self.audit)
    }

    /// What makes connections of the life before recognisable after a restart.
    pub fn reset_key(&self) -> &[u8; 32] {
        &self.reset
    }

    /// What compiled plugins are authenticated with: whoever has it runs code in the gateway.
    pub fn plugin_cache_key(&self) -> &[u8; 32] {
        &self.plugin_cache
    }

    /// Encrypts `plain`. `context` says what it is (which record, which field) and
    /// must be the same when it is opened, so that sealed bytes cannot be moved.
    pub fn seal(&self, context: &[u8], plain: &[u8]) -> Vec<u8> {
        // Random nonces of 96 bits are safe for some 2^32 seals under one key.
        let nonce: [u8; NONCE_LEN] = random();
        let mut sealed = Vec::with_capacity(1 + NONCE_LEN + plain.len() + AES_256_GCM.tag_len());
        sealed.push(SEAL_VERSION);
        sealed.extend_from_slice(&nonce);
        let mut body = Zeroizing::new(plain.to_vec());
        let tag = self
            .seal
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(context),
                &mut body,
            )
            .expect("AES-GCM takes up to 64 GiB, more than fits in a record");
        sealed.extend_from_slice(&body);
        sealed.extend_from_slice(tag.as_ref());
        sealed
    }

    /// Decrypts what [`seal`](Self::seal) made with the same `context`; nothing when it
    /// is damaged, belongs elsewhere, or was sealed under another key.
    pub fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let [SEAL_VERSION, rest @ ..] = sealed else {
            return None;
        };
        let (nonce, body) = rest.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = Zeroizing::new(body.to_vec());
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from(context), &mut body)
            .ok()?;
        let length = plain.len();
        body.truncate(length);
        Some(body)
    }
}

impl fmt::Debug for ServerKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerKeys(hidden)")
    }
}

/// The secret by which the person at the machine becomes the first owner. It lies
/// in `STATE/owner.secret` while the deployment has none: whoever can read that file
/// owns the machine anyway, and nobody else can reach the first-run step.
#[derive(Debug)]
pub struct OwnerSecret {
    path: PathBuf,
}

impl OwnerSecret {
    /// The secret of the deployment in `state_dir`, whether or not the file is there.
    pub fn at(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join("owner.secret"),
        }
    }

    /// Makes the file unless it is there: for a deployment without an owner.
    pub fn ensure(&self) -> Result<(), FileError> {
        let text = Zeroizing::new(format!("{}\n", HEXLOWER.encode(&random::<32>())));
        files::create_private(&self.path, text.as_bytes()).map(drop)
    }

    /// Where it lies, to be told to the operator.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether `claim` is the secret, in constant time. Never once it was consumed, and
    /// never when the file cannot be used, which the log then tells.
    pub fn matches(&self, claim: &str) -> bool {
        let text = match files::read_private(&self.path, FILE_LIMIT) {
            Ok(Some(text)) => text,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(error = %model::error_chain(&error), "cannot read the owner's secret");
                return false;
            }
        };
        let secret = text.trim_ascii();
        // Digests under a key of the moment: their comparison tells nothing by its
        // timing. An emptied file must not make the empty claim an owner.
        let key = random();
        let same = equal(&hmac(&key, claim.trim().as_bytes()), &hmac(&key, secret));
        same && secret.len() == 64
    }

    /// Ends it. Call after the owner's record is durable, and at every start of a
    /// deployment that has an owner: a crash in between, or a file that cannot be
    /// removed (the log tells), never leaves a deployment without owner and secret.
    pub fn consume(&self) {
        if let Err(error) = files::remove_private(&self.path) {
            tracing::error!(
                error = %model::error_chain(&error),
                "cannot remove the owner's secret; it is of no use any more, remove it by hand"
            );
        }
    }
}

fn text_of(master: &Key) -> Zeroizing<String> {
    let encoded = Zeroizing::new(BASE64.encode(master.as_slice()));
    Zeroizing::new(format!("{PREFIX}:{}:{}\n", *encoded, check_value(master)))
}

fn parse(text: &[u8]) -> Result<Key, &'static str> {
    let text = str::from_utf8(text).map_err(|_| "not text")?;
    let mut parts = text.trim_end().split(':');
    if parts.next() != Some(PREFIX) {
        return Err("not a server key");
    }
    let (Some(encoded), Some(check), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err("cut short");
    };
    let bytes = BASE64
        .decode(encoded.as_bytes())
        .map_err(|_| "not base64")?;
    let bytes = Zeroizing::new(bytes);
    let key = Key::new(bytes.as_slice().try_into().map_err(|_| "not 32 bytes")?);
    if check_value(&key) == check {
        Ok(key)
    } else {
        Err("its check value does not fit")
    }
}

/// Against copying errors and bad disks; says nothing about the key, whose 256 bits
/// cannot be searched.
fn check_value(key: &[u8; 32]) -> String {
    let mut digest = Sha256::new();
    digest.update(b"loopback server key check v1");
    digest.update(key);
    HEXLOWER.encode(&digest.finalize()[..8])
}

fn mac(key: &[u8; 32], message: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(message);
    mac
}

fn hmac(key: &[u8; 32], message: &[u8]) -> [u8; 32] {
    mac(key, message).finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn fresh() -> (tempfile::TempDir, PathBuf, ServerKeys) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("keys");
        let keys = ServerKeys::load_or_create(&dir).unwrap();
        (root, dir, keys)
    }

    #[test]
    fn the_same_key_comes_back() {
        let (_root, dir, keys) = fresh();
        let again = ServerKeys::load_or_create(&dir).unwrap();
        let stored = keys.hash_secret(&[7; 32]);
        assert!(again.matches(&[7; 32], &stored));
        assert!(!again.matches(&[8; 32], &stored));
        assert_eq!(keys.audit_key(), again.audit_key());
        assert_eq!(
            again.open(b"a", &keys.seal(b"a", b"x")).unwrap().as_slice(),
            b"x"
        );
    }

    #[test]
    fn a_damaged_key_is_refused_and_left_as_it_is() {
        let (_root, dir, _) = fresh();
        let path = dir.join(FILE);
        let whole = fs::read(&path).unwrap();
        let refuse = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let error = ServerKeys::load_or_create(&dir).unwrap_err();
            assert!(matches!(error, KeysError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains("restore it from a backup"));
            assert_eq!(fs::read(&path).unwrap(), bytes);
        };
        refuse(b"");
        for length in 1..whole.len() - 1 {
            refuse(&whole[..length]);
        }
        for at in 0..whole.len() - 1 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            refuse(&bytes);
        }
    }

    #[test]
    fn a_missing_key_is_made_only_when_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("keys");
        assert!(matches!(
            ServerKeys::load(&dir),
            Err(KeysError::Missing { .. })
        ));
        assert!(!dir.join(FILE).exists());
    }

    #[test]
    fn sealed_bytes_open_only_where_they_belong_and_unchanged() {
        let (_root, _, keys) = fresh();
        let sealed = keys.seal(b"secret/1", b"hunter2");
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        assert_ne!(sealed, keys.seal(b"secret/1", b"hunter2"));
        assert_eq!(
            keys.open(b"secret/1", &sealed).unwrap().as_slice(),
            b"hunter2"
        );
        assert_eq!(keys.open(b"secret/2", &sealed), None);
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone();
            bytes[at] ^= 1;
            assert_eq!(keys.open(b"secret/1", &bytes), None);
            assert_eq!(keys.open(b"secret/1", &sealed[..at]), None);
        }
        let (_root, _, others) = fresh();
        assert_eq!(others.open(b"secret/1", &sealed), None);
    }

    #[test]
    fn debug_text_shows_nothing() {
        assert_eq!(format!("{:?}", fresh().2), "ServerKeys(hidden)");
    }

    #[test]
    fn the_owner_secret_works_until_it_is_consumed() {
        let root = tempfile::tempdir().unwrap();
        let secret = OwnerSecret::at(root.path());
        assert!(!secret.matches(""));
        secret.ensure().unwrap();
        let text = fs::read_to_string(secret.path()).unwrap();
        secret.ensure().unwrap();
        assert!(secret.matches(&text), "a restart keeps it");
        assert!(secret.matches(text.trim()));
        assert!(!secret.matches(""));
        assert!(!secret.matches(&text.replace(char::from(text.as_bytes()[0]), "g")));
        secret.consume();
        assert!(!secret.matches(&text));
        secret.consume();
    }

    #[test]
    fn an_emptied_owner_secret_lets_nobody_in() {
        let root = tempfile::tempdir().unwrap();
        let secret = OwnerSecret::at(root.path());
        files::write_private(secret.path(), b"").unwrap();
        assert!(!secret.matches(""));
    }

    #[test]
    fn digests_are_equal_only_to_themselves() {
        let one: [u8; 32] = random();
        assert!(equal(&one, &one));
        for at in 0..32 {
            let mut other = one;
            other[at] ^= 0x80;
            assert!(!equal(&one, &other));
        }
    }
}
