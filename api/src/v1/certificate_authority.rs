//! The internal certificate authority and its rotation.
//!
//! Rotation is three steps, so that nothing is cut off: `stage` makes a new
//! authority and teaches every agent to trust it; `promote` signs with it from
//! then on, while both are trusted; `retire` drops the old one once no host
//! depends on it.

use model::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::endpoint::endpoints;

endpoints! {
    /// Show the authorities and how far a rotation has come.
    get_certificate_authority GetCertificateAuthority: GET "/v1/certificate-authority", needs DeploymentCertificateAuthorityRead, reply 200 CertificateAuthority;
    /// Do the next step of a rotation.
    rotate_certificate_authority RotateCertificateAuthority: POST "/v1/certificate-authority/rotate", needs DeploymentCertificateAuthorityRotate,
        body Rotate, reply 200 CertificateAuthority;
}

/// The authorities.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CertificateAuthority {
    /// Version of the trust bundle that agents get.
    pub trust_version: u64,
    /// The authorities in it.
    pub authorities: Vec<Authority>,
}

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Authority {
    /// SHA-256 of its certificate, in hex.
    pub fingerprint: String,
    /// What it is used for.
    pub state: AuthorityState,
    /// Valid from.
    pub not_before: Timestamp,
    /// Valid until.
    pub not_after: Timestamp,
    /// Hosts whose certificate it signed.
    pub hosts: u64,
    /// The certificate.
    pub pem: String,
}

/// What an authority is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AuthorityState {
    /// Trusted, not yet signing.
    Next,
    /// Trusted and signing.
    Active,
    /// Trusted, no longer signing.
    Previous,
}

/// A step of a rotation.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Which step.
    pub step: RotationStep,
    /// Retire even though hosts still depend on the old authority; they must
    /// join again.
    #[serde(default)]
    pub force: bool,
}

/// The steps of a rotation, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RotationStep {
    /// Make a new authority, trusted but not signing.
    Stage,
    /// Sign with the new authority.
    Promote,
    /// Trust only the new authority.
    Retire,
}
