//! [`verify_leaf`] behind rustls, the TLS settings of both ends, and who is at the
//! other end of a connection.
//!
//! * TLS 1.3 only, no 0-RTT (an early request could be replayed) and no session
//!   resumption: a resumed session would skip the verifier, and so bring back a peer
//!   whose authority or certificate is no longer believed. A full handshake costs
//!   well under a millisecond of CPU.
//! * The server name is a constant. What the agent dials (DNS name, address, a
//!   port-forward) is only a way to reach *some* machine; who it is, its certificate
//!   says. Whoever controls DNS gains nothing but a refused handshake.
//! * Two protocols by ALPN. `loopback-agent/1` is an enrolled agent and needs a
//!   certificate, `loopback-enrol/1` has none yet. TLS makes the certificate optional
//!   for the second; [`peer_of`] holds the rule.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use model::Timestamp;
use model::ids::DeploymentId;
use quinn::crypto::rustls::HandshakeData;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, OtherError,
    SignatureScheme, SupportedCipherSuite,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::identity::Role;
use crate::trust::TrustStore;
use crate::verify::{
    Clock, DEFAULT_SKEW, Expected, VerifiedPeer, VerifyError, to_unix, verify_leaf,
};

/// The name asked for in the inner handshake, whatever name was dialled.
pub const SERVER_NAME: &str = "gateway.loopback.internal";

/// The protocol spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Alpn {
    /// An enrolled agent, with its certificate.
    Agent,
    /// A host that asks for its first certificate.
    Enrol,
}

impl Alpn {
    /// On the wire.
    pub const fn as_bytes(self) -> &'static [u8] {
        match self {
            Self::Agent => b"loopback-agent/1",
            Self::Enrol => b"loopback-enrol/1",
        }
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        [Self::Agent, Self::Enrol]
            .into_iter()
            .find(|alpn| alpn.as_bytes() == bytes)
    }
}

/// A certificate with its key.
pub struct Credentials {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Its private key.
    pub key: PrivateKeyDer<'static>,
}

impl Clone for Credentials {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl fmt::Debug for Credentials {
    /// Hides the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Judges peers of one role for rustls, and remembers its last refusal: rustls and
/// QUIC pass on only an alert number.
pub struct Verifier {
    trust: TrustStore,
    expected: Expected,
    clock: Clock,
    skew: Duration,
    signatures: WebPkiSupportedAlgorithms,
    refused: Mutex<Option<VerifyError>>,
}

impl Verifier {
    /// For an agent: believes gateways.
    pub fn of_gateways(
        trust: TrustStore,
        deployment: Option<DeploymentId>,
        clock: Clock,
    ) -> Arc<Self> {
        Self::new(
            trust,
            Expected {
                role: Role::Gateway,
                deployment,
            },
            clock,
        )
    }

    /// For a gateway: believes agents of its deployment.
    pub fn of_agents(trust: TrustStore, deployment: DeploymentId, clock: Clock) -> Arc<Self> {
        Self::new(
            trust,
            Expected {
                role: Role::Agent,
                deployment: Some(deployment),
            },
            clock,
        )
    }

    fn new(trust: TrustStore, expected: Expected, clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            trust,
            expected,
            clock,
            skew: DEFAULT_SKEW,
            signatures: WebPkiSupportedAlgorithms {
                all: SIGNATURES,
                mapping: SCHEMES,
            },
            refused: Mutex::new(None),
        })
    }

    /// Judges `presented` by the bundle in force and the clock.
    pub fn judge(&self, presented: &[CertificateDer<'_>]) -> Result<VerifiedPeer, VerifyError> {
        let bundle = self.trust.bundle();
        verify_leaf(presented, &bundle, self.expected, (self.clock)(), self.skew)
    }

    /// The last refusal in a handshake, once.
    pub fn take_refusal(&self) -> Option<VerifyError> {
        self.refused
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The bundle this verifier goes by.
    pub fn trust(&self) -> &TrustStore {
        &self.trust
    }

    fn judge_handshake(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
    ) -> Result<(), rustls::Error> {
        let verdict = if rest.is_empty() {
            self.judge(std::slice::from_ref(leaf)).map(drop)
        } else {
            Err(VerifyError::Chain(rest.len() + 1))
        };
        verdict.map_err(|error| {
            let to_peer = to_rustls(&error);
            *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            to_peer
        })
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.signatures)
    }
}

static SIGNATURES: &[&dyn rustls_pki_types::SignatureVerificationAlgorithm] =
    &[webpki::ring::ECDSA_P256_SHA256, webpki::ring::ED25519];
static SCHEMES: &[(
    SignatureScheme,
    &[&dyn rustls_pki_types::SignatureVerificationAlgorithm],
)] = &[
    (
        SignatureScheme::ECDSA_NISTP256_SHA256,
        &[webpki::ring::ECDSA_P256_SHA256],
    ),
    (SignatureScheme::ED25519, &[webpki::ring::ED25519]),
];

/// Picks the alert that the peer gets to see.
fn to_rustls(error: &VerifyError) -> rustls::Error {
    let certificate = match error {
        VerifyError::Missing => return rustls::Error::NoCertificatesPresented,
        VerifyError::UnknownIssuer | VerifyError::Chain(_) => CertificateError::UnknownIssuer,
        VerifyError::BadSignature => CertificateError::BadSignature,
        VerifyError::Usage(_) => CertificateError::InvalidPurpose,
        VerifyError::Role { .. } | VerifyError::Deployment { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
        VerifyError::NotYetValid { not_before, now } => CertificateError::NotValidYetContext {
            time: to_unix(*now),
            not_before: to_unix(*not_before),
        },
        VerifyError::Expired { not_after, now } => CertificateError::ExpiredContext {
            time: to_unix(*now),
            not_after: to_unix(*not_after),
        },
        VerifyError::Malformed(_)
        | VerifyError::Algorithm
        | VerifyError::NoIdentity
        | VerifyError::Identity(_) => CertificateError::Other(OtherError(Arc::new(error.clone()))),
    };
    rustls::Error::InvalidCertificate(certificate)
}

/// TLS 1.2 is not offered, so this cannot be asked; it is refused all the same.
fn no_tls12() -> rustls::Error {
    rustls::Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge_handshake(leaf, rest)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    /// Enrolment has none; [`peer_of`] demands it where the protocol does.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        rest: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge_handshake(leaf, rest)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = rustls::crypto::ring::default_provider();
    // Suites with SHA-256 first: processors have instructions for it and mostly none for
    // SHA-384, with which key derivation took 3 % of a new link's CPU time.
    let hash = |suite: &SupportedCipherSuite| match suite.suite() {
        CipherSuite::TLS13_AES_256_GCM_SHA384 => 1,
        _ => 0,
    };
    provider.cipher_suites.sort_by_key(hash);
    Arc::new(provider)
}

/// TLS of the gateway's QUIC endpoints. `resolver` may swap the certificate while
/// running, for renewal.
pub(crate) fn server_config(
    verifier: Arc<Verifier>,
    resolver: Arc<dyn ResolvesServerCert>,
) -> Result<rustls::ServerConfig, rustls::Error> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![
        Alpn::Agent.as_bytes().to_vec(),
        Alpn::Enrol.as_bytes().to_vec(),
    ];
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// TLS of the agent: with credentials it is an enrolled agent, without it asks for
/// enrolment.
pub(crate) fn client_config(
    verifier: Arc<Verifier>,
    credentials: Option<Credentials>,
) -> Result<rustls::ClientConfig, rustls::Error> {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (mut config, alpn) = match credentials {
        Some(own) => (
            builder.with_client_auth_cert(vec![own.certificate], own.key)?,
            Alpn::Agent,
        ),
        None => (builder.with_no_client_auth(), Alpn::Enrol),
    };
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    Ok(config)
}

/// Who is at the other end of an established connection, from the gateway's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// An enrolled agent. Look at [`VerifiedPeer::expired`] before anything else.
    Agent(VerifiedPeer),
    /// Somebody without an identity who asks for one.
    Enrolling,
}

/// Why a connection's peer is refused although TLS was content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// No protocol of ours.
    #[error("connection speaks no known protocol")]
    Protocol,
    /// An agent without a certificate, or with one that is not believed any more.
    #[error("identify the agent")]
    Agent(#[source] VerifyError),
    /// Enrolment by somebody who has an identity already.
    #[error("an enrolment connection must not present a certificate")]
    CertificateInEnrolment,
}

impl PeerError {
    /// Why, in a word of a small set: for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Protocol => "protocol",
            Self::Agent(error) => error.reason(),
            Self::CertificateInEnrolment => "certificate_in_enrolment",
        }
    }
}

/// Who is at the other end of `connection`, judged once more by `verifier`: by the
/// bundle in force now, and safe even on a connection whose handshake was set up
/// elsewhere.
pub fn peer_of(connection: &quinn::Connection, verifier: &Verifier) -> Result<Peer, PeerError> {
    let certificates = presented(connection);
    match alpn_of(connection).ok_or(PeerError::Protocol)? {
        Alpn::Agent => verifier
            .judge(&certificates)
            .map(Peer::Agent)
            .map_err(PeerError::Agent),
        Alpn::Enrol if certificates.is_empty() => Ok(Peer::Enrolling),
        Alpn::Enrol => Err(PeerError::CertificateInEnrolment),
    }
}

/// The gateway at the other end of an agent's `connection`.
pub fn gateway_of(
    connection: &quinn::Connection,
    verifier: &Verifier,
) -> Result<VerifiedPeer, VerifyError> {
    verifier.judge(&presented(connection))
}

/// The protocol agreed on; absent on a connection that is not ours.
pub fn alpn_of(connection: &quinn::Connection) -> Option<Alpn> {
    let data = connection
        .handshake_data()?
        .downcast::<HandshakeData>()
        .ok()?;
    Alpn::from_bytes(&data.protocol?)
}

fn presented(connection: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|certificates| *certificates)
        .unwrap_or_default()
}

/// Whether `leaf` and `rest` are a web server's certificate for `name` by the
/// bundle's authorities: for reports only, see [`crate::dial`].
pub(crate) fn web_certificate_verdict(
    trust: &TrustStore,
    leaf: &CertificateDer<'_>,
    rest: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: Timestamp,
) -> Result<(), String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(trust.bundle().authorities().iter().cloned());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| error.to_string())?;
    verifier
        .verify_server_cert(leaf, rest, name, &[], to_unix(now))
        .map(drop)
        .map_err(|error| error.to_string())
}
