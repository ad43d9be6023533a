//! The authorities as they lie on disk, and which step of a rotation comes next.

use std::sync::Arc;

use api::v1::certificate_authority::{AuthorityState, RotationStep};
use data_encoding::BASE64;
use link::identity::SpkiSha256;
use link::trust::{TrustBundle, TrustError};
use model::Timestamp;
use model::ids::DeploymentId;
use rcgen::{Issuer, KeyPair};
use ring::digest::{SHA256, digest};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{CaError, profile};

const FORMAT: &str = "loopback-authorities-1";

/// A step out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RotateRefused {
    /// A new authority waits already.
    #[error("a new authority is staged already: promote it")]
    Staged,
    /// The last rotation is not over.
    #[error("the last rotation is not over: retire the previous authority first")]
    Unfinished,
    /// There is nothing to promote.
    #[error("no new authority is staged: stage one first")]
    NotStaged,
    /// There is nothing to retire.
    #[error("there is no previous authority: promote a staged one first")]
    NotPromoted,
}

/// All authorities of a deployment.
#[derive(Clone)]
pub(super) struct State {
    pub(super) deployment: DeploymentId,
    pub(super) trust_version: u64,
    pub(super) active: Arc<Signer>,
    next: Option<Arc<Signer>>,
    previous: Option<Arc<Signer>>,
}

/// An authority's certificate.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

/// An authority with its key.
pub(super) struct Signer {
    pub(super) known: Known,
    pub(super) issuer: Issuer<'static, KeyPair>,
    /// As it is stored.
    pkcs8: Zeroizing<Vec<u8>>,
}

impl State {
    pub(super) fn first(deployment: DeploymentId, now: Timestamp) -> Result<Self, CaError> {
        let active = Arc::new(Signer::generate(deployment, now)?);
        Ok(Self {
            deployment,
            trust_version: 1,
            active,
            next: None,
            previous: None,
        })
    }

    /// All that are believed, with what each is for.
    pub(super) fn authorities(&self) -> impl Iterator<Item = (AuthorityState, &Known)> {
        let next = self
            .next
            .as_deref()
            .map(|signer| (AuthorityState::Next, &signer.known));
        let active = (AuthorityState::Active, &self.active.known);
        let previous = self
            .previous
            .as_deref()
            .map(|signer| (AuthorityState::Previous, &signer.known));
        next.into_iter().chain([active]).chain(previous)
    }

    /// Who signs what the gateway presents: the authority that every host knows, also
    /// one that was away when its successor was introduced.
    pub(super) fn presenting(&self) -> &Signer {
        self.previous.as_ref().unwrap_or(&self.active)
    }

    pub(super) fn bundle(&self) -> Result<TrustBundle, TrustError> {
        let certificates = self
            .authorities()
            .map(|(_, known)| known.certificate.clone());
        TrustBundle::new(self.trust_version, certificates.collect())
    }

    /// What the next step leads to, when it is its turn. `fresh` makes a new authority.
    pub(super) fn rotated<E: From<RotateRefused>>(
        &self,
        step: RotationStep,
        fresh: impl FnOnce() -> Result<Signer, E>,
    ) -> Result<Self, E> {
        match (step, &self.next, &self.previous) {
            (RotationStep::Stage, Some(_), _) => Err(RotateRefused::Staged.into()),
            (RotationStep::Stage, None, Some(_)) => Err(RotateRefused::Unfinished.into()),
            (RotationStep::Stage, None, None) => Ok(Self {
                next: Some(Arc::new(fresh()?)),
                trust_version: self.trust_version + 1,
                ..self.clone()
            }),
            (RotationStep::Promote, None, _) => Err(RotateRefused::NotStaged.into()),
            // The bundle stays the same, and so does its version.
            (RotationStep::Promote, Some(next), _) => Ok(Self {
                active: Arc::clone(next),
                next: None,
                previous: Some(Arc::clone(&self.active)),
                ..self.clone()
            }),
            (RotationStep::Retire, _, None) => Err(RotateRefused::NotPromoted.into()),
            (RotationStep::Retire, _, Some(_)) => Ok(Self {
                previous: None,
                trust_version: self.trust_version + 1,
                ..self.clone()
            }),
        }
    }

    pub(super) fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let signer = |signer: &Arc<Signer>| SignerV1 {
            known: KnownV1::from(&signer.known),
            key: BASE64.encode(&signer.pkcs8),
        };
        let file = FileV1 {
            format: FORMAT.to_owned(),
            deployment: self.deployment,
            trust_version: self.trust_version,
            active: signer(&self.active),
            next: self.next.as_ref().map(signer),
            previous: self.previous.as_ref().map(signer),
        };
        let bytes = serde_json::to_vec_pretty(&file).expect("strings and numbers become JSON");
        Zeroizing::new(bytes)
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote, and makes sure that every key
    /// belongs to its certificate.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        // The position is enough to find a fault; serde's text could quote a key.
        let file: FileV1 = serde_json::from_slice(bytes)
            .map_err(|error| format!("line {}, column {}", error.line(), error.column()))?;
        if file.format != FORMAT {
            return Err(format!("format {:?} is unknown to this build", file.format));
        }
        let read = |signer: SignerV1| signer.read().map(Arc::new);
        Ok(Self {
            deployment: file.deployment,
            trust_version: file.trust_version,
            active: read(file.active)?,
            next: file.next.map(read).transpose()?,
            previous: file.previous.map(read).transpose()?,
        })
    }
}

impl Known {
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, &self.certificate).as_ref());
        fingerprint
    }
}

impl Signer {
    /// A new authority.
    pub(super) fn generate(deployment: DeploymentId, now: Timestamp) -> Result<Self, CaError> {
        let (known, pkcs8) = profile::new_authority(deployment, now)?;
        Self::assemble(known, pkcs8).map_err(|source| CaError::Make {
            what: "authority",
            source,
        })
    }

    fn assemble(known: Known, pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, rcgen::Error> {
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(pkcs8.as_slice()))?;
        let issuer = Issuer::from_ca_cert_der(&known.certificate, key)?;
        Ok(Self {
            known,
            issuer,
            pkcs8,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct FileV1 {
    format: String,
    deployment: DeploymentId,
    trust_version: u64,
    active: SignerV1,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    next: Option<SignerV1>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    previous: Option<SignerV1>,
}

#[derive(Serialize, Deserialize)]
struct KnownV1 {
    not_before: Timestamp,
    not_after: Timestamp,
    /// Base64 of the DER.
    certificate: String,
}

#[derive(Serialize, Deserialize)]
struct SignerV1 {
    #[serde(flatten)]
    known: KnownV1,
    /// Base64 of the PKCS#8.
    key: String,
}

impl From<&Known> for KnownV1 {
    fn from(known: &Known) -> Self {
        Self {
            not_before: known.not_before,
            not_after: known.not_after,
            certificate: BASE64.encode(&known.certificate),
        }
    }
}

impl KnownV1 {
    fn read(self) -> Result<Known, String> {
        let Self {
            not_before,
            not_after,
            certificate,
        } = self;
        Ok(Known {
            not_before,
            not_after,
            certificate: from_base64(&certificate)?.into(),
        })
    }
}

impl SignerV1 {
    fn read(self) -> Result<Signer, String> {
        let known = self.known.read()?;
        let pkcs8 = Zeroizing::new(from_base64(&self.key)?);
        let certified = SpkiSha256::of(&known.certificate)
            .map_err(|_| "a certificate cannot be read".to_owned())?;
        let signer =
            Signer::assemble(known, pkcs8).map_err(|_| "a key cannot be read".to_owned())?;
        if profile::pin_of(signer.issuer.key()) == certified {
            Ok(signer)
        } else {
            Err("a key does not belong to its certificate".to_owned())
        }
    }
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    BASE64
        .decode(text.as_bytes())
        .map_err(|_| "a value is not base64".to_owned())
}
