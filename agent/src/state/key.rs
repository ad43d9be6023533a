//! Host keys: ECDSA P-256, made on the host, never leaving it.

use std::fmt;

use link::identity::SpkiSha256;
use rcgen::{CertificateParams, KeyPair, PublicKeyData};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// What key files begin with.
pub(super) const PREFIX: &str = "key-";

/// A private key.
pub struct HostKey {
    pair: KeyPair,
    spki: SpkiSha256,
}

/// Why there is no key or request.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not a private key of our kind.
    #[error("it holds no ECDSA P-256 key in PKCS#8 PEM")]
    NotAKey,
    /// The random source or the encoder failed.
    #[error("generate or sign: {0}")]
    Crypto(String),
}

impl HostKey {
    /// A new key.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)
            .map_err(|error| KeyError::Crypto(error.to_string()))?;
        Ok(Self::of(pair))
    }

    /// Reads PKCS#8 PEM.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        KeyPair::from_pkcs8_pem_and_sign_algo(pem, &rcgen::PKCS_ECDSA_P256_SHA256)
            .map(Self::of)
            .map_err(|_| KeyError::NotAKey)
    }

    fn of(pair: KeyPair) -> Self {
        let spki = SpkiSha256::of_spki(&pair.subject_public_key_info());
        Self { pair, spki }
    }

    /// PKCS#8 PEM.
    pub fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair.serialize_pem())
    }

    /// Names the pair.
    pub fn spki(&self) -> SpkiSha256 {
        self.spki
    }

    /// The key's file in the state folder.
    pub fn file_name(&self) -> String {
        format!(
            "{PREFIX}{}.pem",
            data_encoding::HEXLOWER.encode(&self.spki.0[..8])
        )
    }

    /// For TLS.
    pub fn to_der(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.pair.serialize_der()).into()
    }

    /// A PKCS#10 request, DER. Everything but the key is the gateway's to say.
    pub fn request(&self) -> Result<Vec<u8>, KeyError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .serialize_request(&self.pair)
            .map(|request| request.der().to_vec())
            .map_err(|error| KeyError::Crypto(error.to_string()))
    }
}

impl fmt::Debug for HostKey {
    /// Hides the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostKey").field(&self.spki).finish()
    }
}
