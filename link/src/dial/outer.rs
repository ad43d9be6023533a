//! The outer TLS of a WebSocket: a way through port 443, not a proof of anything (see
//! [`crate::carrier`]). Every certificate is accepted; what it was is kept for
//! reports, so that `doctor` can tell a TLS-inspecting proxy from a straight path.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::Reason;
use super::target::Target;
use crate::identity::SpkiSha256;
use crate::tls;
use crate::trust::TrustStore;
use crate::verify::{Clock, system_clock};

/// What the outer TLS showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterTls {
    /// Whether the deployment's own authorities vouch for the certificate and the
    /// name; else why not. A public certificate, a proxy's and a forged one all end up
    /// here, and none of them matters to the link.
    pub verdict: Result<(), String>,
    /// Pin of the certificate's key, if it could be read.
    pub pin: Option<SpkiSha256>,
}

/// Runs the handshake over `stream`.
pub(super) async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    target: &Target,
    trust: &TrustStore,
) -> Result<(TlsStream<S>, OuterTls), Reason> {
    let name = target.server_name().ok_or(Reason::NoAddress)?;
    let witness = Arc::new(Witness {
        trust: trust.clone(),
        clock: system_clock(),
        seen: Mutex::new(None),
    });
    let provider = tls::provider();
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Reason::OuterTls(std::io::Error::other(error)))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&witness) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(Reason::OuterTls)?;
    let seen = witness
        .seen
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    let none = || OuterTls {
        verdict: Err("no certificate shown".to_owned()),
        pin: None,
    };
    Ok((stream, seen.unwrap_or_else(none)))
}

/// Accepts everything and notes what it saw.
struct Witness {
    trust: TrustStore,
    clock: Clock,
    seen: Mutex<Option<OuterTls>>,
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Witness")
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let now = (self.clock)();
        let seen = OuterTls {
            verdict: tls::web_certificate_verdict(&self.trust, leaf, rest, name, now),
            pin: SpkiSha256::of(leaf).ok(),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(seen);
        Ok(ServerCertVerified::assertion())
    }

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
        tls::provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
