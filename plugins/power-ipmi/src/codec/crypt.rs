//! Cipher suites: how a session proves who speaks, and hides what is said.

use aes::Aes128;
use cbc::cipher::block_padding::NoPadding;
use cbc::cipher::{BlockDecryptMut, BlockEncryptMut, KeyIvInit};
use hmac::{Hmac, Mac};
use loopback_plugin_sdk::host::Hash;
use sha1::Sha1;
use sha2::Sha256;

/// A block of AES.
pub(crate) const BLOCK: usize = 16;

/// The suites spoken, by their numbers in table 22-20. Those without encryption, with MD5 or with
/// RC4 are left out on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Suite {
    /// RAKP-HMAC-SHA1, HMAC-SHA1-96, AES-CBC-128.
    Three,
    /// RAKP-HMAC-SHA256, HMAC-SHA256-128, AES-CBC-128.
    Seventeen,
}

impl Suite {
    pub(crate) fn of(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::Three),
            17 => Some(Self::Seventeen),
            _ => None,
        }
    }

    /// As the gateway calls the hash function.
    pub(crate) fn hash(self) -> Hash {
        match self {
            Self::Three => Hash::Sha1,
            Self::Seventeen => Hash::Sha256,
        }
    }

    /// Numbers of its algorithms: authentication, integrity, confidentiality.
    pub(crate) fn algorithms(self) -> [u8; 3] {
        match self {
            Self::Three => [1, 1, 1],
            Self::Seventeen => [3, 4, 1],
        }
    }

    /// Bytes of a whole HMAC.
    pub(crate) fn mac_bytes(self) -> usize {
        match self {
            Self::Three => 20,
            Self::Seventeen => 32,
        }
    }

    /// Bytes of an HMAC that are sent with a packet, and in the last message of a handshake.
    pub(crate) fn code_bytes(self) -> usize {
        match self {
            Self::Three => 12,
            Self::Seventeen => 16,
        }
    }

    pub(crate) fn mac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            Self::Three => mac::<Hmac<Sha1>>(key, data),
            Self::Seventeen => mac::<Hmac<Sha256>>(key, data),
        }
    }
}

fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Whether two byte strings are the same, in a time that does not tell where they differ.
pub(crate) fn same(one: &[u8], other: &[u8]) -> bool {
    let differing = |sum, (a, b): (&u8, &u8)| sum | (a ^ b);
    one.len() == other.len() && one.iter().zip(other).fold(0, differing) == 0
}

/// Keys of a session (section 13.32).
#[derive(Clone)]
pub(crate) struct Keys {
    pub(crate) suite: Suite,
    pub(crate) session: Vec<u8>,
    integrity: Vec<u8>,
    confidentiality: [u8; BLOCK],
}

impl Keys {
    /// From the session integrity key.
    pub(crate) fn new(suite: Suite, session: Vec<u8>) -> Self {
        let derived = suite.mac(&session, &[2; 20]);
        let mut confidentiality = [0; BLOCK];
        confidentiality.copy_from_slice(&derived[..BLOCK]);
        Self {
            suite,
            integrity: suite.mac(&session, &[1; 20]),
            confidentiality,
            session,
        }
    }

    /// What goes with a packet so that its receiver knows whom it is from.
    pub(crate) fn code(&self, covered: &[u8]) -> Vec<u8> {
        let mut code = self.suite.mac(&self.integrity, covered);
        code.truncate(self.suite.code_bytes());
        code
    }

    /// An initialisation vector that nobody foresees and that does not come again in a session:
    /// there are no random numbers here, and there is a key that nobody else has.
    pub(crate) fn vector(&self, sequence: u32) -> [u8; BLOCK] {
        let label = [&b"initialisation vector"[..], &sequence.to_le_bytes()].concat();
        let mut vector = [0; BLOCK];
        vector.copy_from_slice(&self.suite.mac(&self.session, &label)[..BLOCK]);
        vector
    }

    /// AES-CBC with the padding of section 13.29: 1, 2, 3 and so on, and how many.
    pub(crate) fn encrypt(&self, vector: &[u8; BLOCK], plain: &[u8]) -> Vec<u8> {
        let padding = (BLOCK - (plain.len() + 1) % BLOCK) % BLOCK;
        let count = u8::try_from(padding).unwrap_or(0);
        let mut padded = plain.to_vec();
        padded.extend(1..=count);
        padded.push(count);
        let cipher = cbc::Encryptor::<Aes128>::new(&self.confidentiality.into(), vector.into());
        let sealed = cipher.encrypt_padded_vec_mut::<NoPadding>(&padded);
        [&vector[..], &sealed].concat()
    }

    /// What was encrypted, if it was.
    pub(crate) fn decrypt(&self, sealed: &[u8]) -> Option<Vec<u8>> {
        let (vector, sealed) = sealed.split_at_checked(BLOCK)?;
        let vector: &[u8; BLOCK] = vector.try_into().ok()?;
        let cipher = cbc::Decryptor::<Aes128>::new(&self.confidentiality.into(), vector.into());
        let mut plain = cipher.decrypt_padded_vec_mut::<NoPadding>(sealed).ok()?;
        let count = plain.pop()?;
        let length = plain.len().checked_sub(usize::from(count))?;
        // Controllers differ in what they pad with, so that only how much is looked at.
        (usize::from(count) < BLOCK).then_some(())?;
        plain.truncate(length);
        Some(plain)
    }
}
