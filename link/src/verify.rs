//! The one judge of certificates, for both directions.
//!
//! [`verify_leaf`] is called in the handshake by the agent about the gateway, by
//! the gateway about the agent, and once more by whoever asks who is at the other
//! end of a connection. There is no second path and no branch on the kind of
//! certificate before the signature has been checked: other systems lost their
//! walls to exactly such branches.
//!
//! Accepted is precisely this:
//! * one certificate, no chain: the deployment's authority signs leaves directly,
//!   and there is no code here that could be talked into following a chain;
//! * signed by an authority in the bundle, ECDSA P-256 with SHA-256 or Ed25519;
//! * not itself an authority, its key P-256 or Ed25519;
//! * an extended key usage that names the direction (client for agents, server for
//!   gateways); absent is not "any";
//! * exactly one alternative name, a URI, that reads as a [`CertIdentity`] of the
//!   expected role and deployment;
//! * a gateway's has begun, give or take the skew, and not ended.
//!
//! Validity is judged by role. An agent's certificate outside of it is accepted and
//! marked [`VerifiedPeer::expired`], because a host that was switched off for a year
//! must be able to come back, and so must one that was certified by a gateway whose
//! clock was years ahead: the gateway
//! lets such a peer renew and nothing else, and only after looking up that the host
//! is not retired. Being expired is the one thing that TLS cannot say politely.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use model::Timestamp;
use model::ids::DeploymentId;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, UnixTime, alg_id};
use webpki::{EndEntityCert, KeyUsage};

use crate::der;
use crate::identity::{CertIdentity, IdentityError, Role, SpkiSha256};
use crate::trust::TrustBundle;

/// How far clocks may differ before a certificate counts as not begun. Minutes are
/// common on machines without time synchronisation; the authority also dates
/// certificates back by a little.
pub const DEFAULT_SKEW: Duration = Duration::from_secs(5 * 60);

/// The signatures believed on certificates.
static ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::ring::ECDSA_P256_SHA256, webpki::ring::ED25519];

// 1.3.6.1.5.5.7.3.1 and .2
const EKU_SERVER_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x01];
const EKU_CLIENT_AUTH: &[u8] = &[0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x03, 0x02];

/// Tells the time to judge certificates by. An agent whose clock stands in 1970
/// passes one that is never behind the last time it learnt from its gateway.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The machine's wall clock.
pub fn system_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    })
}

/// What the peer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Its role.
    pub role: Role,
    /// Its deployment, once known: an agent that is about to enrol knows the
    /// authority but not yet the deployment's id.
    pub deployment: Option<DeploymentId>,
}

/// A peer whose certificate holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedPeer {
    /// Who it is.
    pub identity: CertIdentity,
    /// Begin of the certificate's validity.
    pub not_before: Timestamp,
    /// End of the certificate's validity.
    pub not_after: Timestamp,
    /// Now is not within its validity: allow renewal, nothing else. Only ever true for
    /// agents.
    pub expired: bool,
    /// Names the peer's key pair.
    pub spki_sha256: SpkiSha256,
    /// Serial number of the certificate, big-endian.
    pub serial: Vec<u8>,
}

/// Why a certificate was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The peer sent none.
    #[error("peer presented no certificate")]
    Missing,
    /// The peer sent a chain.
    #[error("peer presented {0} certificates; exactly one, issued directly, is accepted")]
    Chain(usize),
    /// Not a certificate we read.
    #[error("peer's certificate is malformed: {0}")]
    Malformed(String),
    /// No authority in the bundle issued it.
    #[error("peer's certificate was not issued by an authority of this deployment")]
    UnknownIssuer,
    /// An authority's signature is claimed and does not hold.
    #[error("signature on the peer's certificate is wrong")]
    BadSignature,
    /// The certificate is an authority's or not meant for this direction.
    #[error("peer's certificate is not meant for this use: {0}")]
    Usage(String),
    /// A key or signature of a kind that is not used here.
    #[error("peer's certificate uses an algorithm other than ECDSA P-256 and Ed25519")]
    Algorithm,
    /// Its names do not say who it is.
    #[error("peer's certificate must carry exactly one alternative name, a loopback:// URI")]
    NoIdentity,
    /// Its name is not an identity.
    #[error("read the identity in the peer's certificate")]
    Identity(#[source] IdentityError),
    /// Somebody else's role.
    #[error("peer is a certified {found}, not the {expected} expected here")]
    Role {
        /// What is wanted.
        expected: Role,
        /// What the certificate says.
        found: Role,
    },
    /// Another deployment's.
    #[error("peer belongs to deployment {found}, not to {expected}")]
    Deployment {
        /// Ours.
        expected: DeploymentId,
        /// The peer's.
        found: DeploymentId,
    },
    /// Not begun.
    #[error(
        "peer's certificate is valid from {not_before} but the clock here says {now}; check the \
         clocks of both machines"
    )]
    NotYetValid {
        /// Begin of validity.
        not_before: Timestamp,
        /// The time it was judged by.
        now: Timestamp,
    },
    /// Ended, and not an agent's.
    #[error(
        "peer's certificate was valid until {not_after} and the clock here says {now}; check the \
         clocks of both machines"
    )]
    Expired {
        /// End of validity.
        not_after: Timestamp,
        /// The time it was judged by.
        now: Timestamp,
    },
}

impl VerifyError {
    /// Why, in a word of a small set: for counting. The same words as those of
    /// [`crate::accept::HandshakeError::reason`].
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing => "no_certificate",
            Self::Chain(_) | Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::Usage(_) => "wrong_usage",
            Self::Role { .. } | Self::Deployment { .. } => "wrong_role",
            Self::NotYetValid { .. } | Self::Expired { .. } => "expired",
            Self::Malformed(_) | Self::Algorithm | Self::NoIdentity | Self::Identity(_) => {
                "malformed_certificate"
            }
        }
    }
}

/// Judges what a peer `presented`. See the head of this module for the rules.
pub fn verify_leaf(
    presented: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    expected: Expected,
    now: Timestamp,
    skew: Duration,
) -> Result<VerifiedPeer, VerifyError> {
    let leaf = match presented {
        [] => return Err(VerifyError::Missing),
        [leaf] => leaf,
        more => return Err(VerifyError::Chain(more.len())),
    };
    let certificate = EndEntityCert::try_from(leaf).map_err(from_webpki)?;
    let contents =
        der::contents(leaf).map_err(|error| VerifyError::Malformed(error.to_string()))?;

    let usage = KeyUsage::required(match expected.role {
        Role::Agent => EKU_CLIENT_AUTH,
        Role::Gateway => EKU_SERVER_AUTH,
    });
    // Time is judged below, with the skew and by role; webpki gets an instant at
    // which the certificate is valid.
    certificate
        .verify_for_usage(
            ALGORITHMS,
            bundle.anchors(),
            &[],
            to_unix(contents.not_before),
            usage,
            None,
            None,
        )
        .map_err(from_webpki)?;
    let spki = certificate.subject_public_key_info();
    check_key_algorithm(&spki)?;

    let identity: CertIdentity = contents
        .sole_uri
        .ok_or(VerifyError::NoIdentity)?
        .parse()
        .map_err(VerifyError::Identity)?;
    check_identity(identity, expected)?;

    let early = contents.not_before > now.saturating_add(skew);
    if early && expected.role == Role::Gateway {
        return Err(VerifyError::NotYetValid {
            not_before: contents.not_before,
            now,
        });
    }
    // A host's certificate from the future was issued by this deployment while its clock
    // was ahead. Refused, the host would be locked out until then; like one that has run
    // out it proves who somebody is and must be replaced.
    let expired = early || contents.not_after < now.saturating_sub(skew);
    if expired && expected.role == Role::Gateway {
        return Err(VerifyError::Expired {
            not_after: contents.not_after,
            now,
        });
    }

    Ok(VerifiedPeer {
        identity,
        not_before: contents.not_before,
        not_after: contents.not_after,
        expired,
        spki_sha256: SpkiSha256::of_spki(&spki),
        serial: certificate.serial().to_vec(),
    })
}

fn check_identity(identity: CertIdentity, expected: Expected) -> Result<(), VerifyError> {
    if identity.role() != expected.role {
        return Err(VerifyError::Role {
            expected: expected.role,
            found: identity.role(),
        });
    }
    match expected.deployment {
        Some(ours) if ours != identity.deployment() => Err(VerifyError::Deployment {
            expected: ours,
            found: identity.deployment(),
        }),
        _ => Ok(()),
    }
}

/// The handshake's signature would fail later for any other key; this makes the
/// rule hold for every caller, with a better reason.
fn check_key_algorithm(spki: &[u8]) -> Result<(), VerifyError> {
    // SEQUENCE { SEQUENCE { algorithm }, BIT STRING }: both of ours are so short that
    // each length is one byte.
    let known = [alg_id::ECDSA_P256, alg_id::ED25519]
        .iter()
        .any(|algorithm| {
            let id = algorithm.as_ref();
            matches!(spki, [0x30, _, 0x30, length, rest @ ..]
            if usize::from(*length) == id.len() && rest.starts_with(id))
        });
    if known {
        Ok(())
    } else {
        Err(VerifyError::Algorithm)
    }
}

pub(crate) fn to_unix(at: Timestamp) -> UnixTime {
    let seconds = u64::try_from(at.as_secs()).unwrap_or(0);
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

fn from_webpki(error: webpki::Error) -> VerifyError {
    use webpki::Error;
    match error {
        Error::UnknownIssuer => VerifyError::UnknownIssuer,
        Error::InvalidSignatureForPublicKey => VerifyError::BadSignature,
        Error::CaUsedAsEndEntity => {
            VerifyError::Usage("it is an authority's certificate".to_owned())
        }
        Error::EmptyEkuExtension | Error::RequiredEkuNotFoundContext(_) => {
            VerifyError::Usage("its extended key usage lacks this direction".to_owned())
        }
        Error::UnsupportedSignatureAlgorithmContext(_)
        | Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => VerifyError::Algorithm,
        other => VerifyError::Malformed(other.to_string()),
    }
}
