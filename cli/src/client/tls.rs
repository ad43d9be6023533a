//! Whom the client believes to be the gateway.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::{fmt, io};

use data_encoding::BASE64;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// How to know the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// A certificate from one of the authorities that this machine trusts.
    System,
    /// A certificate from one of these authorities, in PEM.
    Authorities(String),
    /// Exactly this public key, whatever its certificate says.
    Pin(Pin),
}

/// SHA-256 of a public key (SubjectPublicKeyInfo): `sha256//<base64>`, as
/// `curl --pinnedpubkey` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pin([u8; 32]);

/// The text is not a pin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin looks like sha256//<43 letters and digits>=")]
pub struct BadPin;

impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digest = text.trim().strip_prefix("sha256//").ok_or(BadPin)?;
        let bytes = BASE64.decode(digest.as_bytes()).map_err(|_| BadPin)?;
        bytes.try_into().map(Self).map_err(|_| BadPin)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256//{}", BASE64.encode(&self.0))
    }
}

/// Trust that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The PEM has no certificate, or one that cannot be read.
    #[error("the authority's file holds no certificate that can be read")]
    NoCertificate,
    /// No bundle of authorities was found on this machine.
    #[error(
        "this machine has no bundle of trusted authorities; name the gateway's authority with --ca-file"
    )]
    NoSystemBundle,
    /// The bundle of this machine cannot be read.
    #[error("read {}", path.display())]
    SystemBundle {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The library refuses the set of authorities.
    #[error("use the authorities")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Where distributions keep their bundle; the first that exists is taken.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

pub(crate) fn client_config(trust: &Trust) -> Result<ClientConfig, TrustError> {
    let provider = Arc::new(ring::default_provider());
    let verifier: Arc<dyn ServerCertVerifier> = match trust {
        Trust::Pin(pin) => Arc::new(PinVerifier {
            pin: *pin,
            provider: Arc::clone(&provider),
        }),
        Trust::Authorities(pem) => authorities(parse_pem(pem)?, Arc::clone(&provider))?,
        Trust::System => {
            let path = system_bundle().ok_or(TrustError::NoSystemBundle)?;
            let pem = std::fs::read_to_string(&path)
                .map_err(|source| TrustError::SystemBundle { path, source })?;
            authorities(parse_pem(&pem)?, Arc::clone(&provider))?
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has every cipher suite of TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

fn system_bundle() -> Option<PathBuf> {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    named.or_else(|| {
        SYSTEM_BUNDLES
            .iter()
            .map(Path::new)
            .find(|path| path.exists())
            .map(Path::to_owned)
    })
}

/// Every certificate of a PEM text; an unreadable one makes all unusable,
/// because an operator who put it there expects it to count.
pub(crate) fn parse_pem(pem: &str) -> Result<Vec<CertificateDer<'static>>, TrustError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found
        .ok()
        .filter(|list| !list.is_empty())
        .ok_or(TrustError::NoCertificate)
}

fn authorities(
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, TrustError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates);
    rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map(|verifier| verifier as Arc<dyn ServerCertVerifier>)
        .map_err(TrustError::Verifier)
}

/// Believes one key. Name and dates of the certificate do not matter then: the
/// pin came over a channel that is better than what they attest.
#[derive(Debug)]
struct PinVerifier {
    pin: Pin,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let certificate = webpki::EndEntityCert::try_from(end_entity).map_err(|_| {
            rustls::Error::InvalidCertificate(rustls::CertificateError::BadEncoding)
        })?;
        let key = certificate.subject_public_key_info();
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, key.as_ref());
        if digest.as_ref() == self.pin.0.as_slice() {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(
                rustls::CertificateError::ApplicationVerificationFailure,
            ))
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // Only TLS 1.3 is offered.
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_reads_as_curl_writes_it() {
        let text = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        assert_eq!(text.parse::<Pin>().unwrap().to_string(), text);
        for bad in [
            "",
            "sha256//",
            "sha256//AAAA",
            "md5//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ] {
            assert!(bad.parse::<Pin>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_no_authority() {
        assert!(matches!(
            client_config(&Trust::Authorities("hello".to_owned())),
            Err(TrustError::NoCertificate)
        ));
    }
}
