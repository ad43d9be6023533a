//! How servers prove themselves.
//!
//! The system's authorities are those of the machine, not a list built into the program: an
//! operator's own authority is among them, and a distribution removes one that fell. They are read
//! once, at the first request. Sessions are not resumed: a resumed session skips the certificate,
//! and requests of plugins with different profiles must not lean on each other's look at it.

use std::sync::{Arc, OnceLock};

use model::plugin::{Pin, TlsProfile};
use rustls::client::Resumption;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::Digest as _;

/// Most authorities of one profile.
const MAX_AUTHORITIES: usize = 64;

/// Why a profile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidProfile {
    /// This machine has none.
    #[error("this machine has no authorities; install ca-certificates, or give a profile")]
    NoSystemAuthorities,
    /// None, too many, or not PEM.
    #[error("the profile's authorities are not 1 to 64 certificates in PEM")]
    Authorities,
    /// No pin, or something that is none.
    #[error("a pin is the SHA-256 of a public key in 64 lower-case hexadecimal digits")]
    Pin,
    /// The library refused.
    #[error("the profile cannot be used")]
    Unusable,
}

/// The configurations of profiles.
pub(crate) struct Tls {
    system: OnceLock<Result<Arc<ClientConfig>, InvalidProfile>>,
}

impl Tls {
    pub(crate) const fn new() -> Self {
        Self {
            system: OnceLock::new(),
        }
    }

    /// The configuration of a profile.
    pub(crate) fn config(&self, profile: &TlsProfile) -> Result<Arc<ClientConfig>, InvalidProfile> {
        match profile {
            TlsProfile::System => self
                .system
                .get_or_init(|| with_roots(system_authorities()?))
                .clone(),
            TlsProfile::Authorities(pem) => with_roots(authorities(pem)?),
            TlsProfile::Keys(pins) => with_verifier(Arc::new(PinnedKeys {
                pins: pins.iter().map(pin).collect::<Result<_, _>>()?,
                provider: provider(),
            })),
            TlsProfile::Insecure => with_verifier(Arc::new(Anybody {
                provider: provider(),
            })),
        }
    }
}

/// Whether a profile can be used, for whoever stores one.
pub fn check_profile(profile: &TlsProfile) -> Result<(), InvalidProfile> {
    match profile {
        TlsProfile::System | TlsProfile::Insecure => Ok(()),
        TlsProfile::Authorities(pem) => authorities(pem).map(drop),
        TlsProfile::Keys(pins) if pins.is_empty() => Err(InvalidProfile::Pin),
        TlsProfile::Keys(pins) => pins.iter().try_for_each(|text| pin(text).map(drop)),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn system_authorities() -> Result<RootCertStore, InvalidProfile> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(InvalidProfile::NoSystemAuthorities);
    }
    Ok(roots)
}

fn authorities(pem: &str) -> Result<RootCertStore, InvalidProfile> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let certificate = certificate.map_err(|_| InvalidProfile::Authorities)?;
        roots
            .add(certificate)
            .map_err(|_| InvalidProfile::Authorities)?;
        if roots.len() > MAX_AUTHORITIES {
            return Err(InvalidProfile::Authorities);
        }
    }
    if roots.is_empty() {
        return Err(InvalidProfile::Authorities);
    }
    Ok(roots)
}

fn pin(text: &Pin) -> Result<[u8; 32], InvalidProfile> {
    data_encoding::HEXLOWER
        .decode(text.0.as_bytes())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(InvalidProfile::Pin)
}

fn with_roots(roots: RootCertStore) -> Result<Arc<ClientConfig>, InvalidProfile> {
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| InvalidProfile::Unusable)?;
    with_verifier(verifier)
}

fn with_verifier(
    verifier: Arc<dyn ServerCertVerifier>,
) -> Result<Arc<ClientConfig>, InvalidProfile> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|_| InvalidProfile::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes a server that has one of these keys, whatever its certificate says.
#[derive(Debug)]
struct PinnedKeys {
    pins: Vec<[u8; 32]>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKeys {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The reader that checks the handshake's signature reads the key here too, so that the key
        // that was compared is the key that signed.
        let certificate = webpki::EndEntityCert::try_from(end_entity)
            .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
        let key = certificate.subject_public_key_info();
        let digest: [u8; 32] = sha2::Sha256::digest(key.as_ref()).into();
        if self.pins.contains(&digest) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Believes anybody. Only where an operator has written so into a grant.
#[derive(Debug)]
struct Anybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Signatures are not looked at either: devices with certificates that nothing can read are
    // what this profile is for, and a signature by a key that nobody knows says nothing.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
