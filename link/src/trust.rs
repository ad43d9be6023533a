//! Which authorities are believed.
//!
//! A [`TrustBundle`] holds the certificates of the deployment's own authorities:
//! one most of the time, two while a rotation runs, so that certificates of the old
//! and of the new one are good side by side. System roots play no part.
//!
//! A [`TrustStore`] is the bundle in force, shared by everything that verifies and
//! replaced while connections live. Whoever replaces it decides what happens to
//! peers that only the old bundle believed: [`crate::verify::verify_leaf`] can be
//! asked again about a live connection's certificate.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, TrustAnchor};

/// More than a rotation needs; every one is tried for every handshake.
pub const MAX_AUTHORITIES: usize = 8;

/// The authorities of a deployment.
#[derive(Clone)]
pub struct TrustBundle {
    version: u64,
    authorities: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
}

/// Why certificates do not make a bundle.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// Nothing to believe.
    #[error("trust bundle holds no certificate")]
    Empty,
    /// Too many to be a rotation.
    #[error("trust bundle holds {0} certificates, more than {MAX_AUTHORITIES}")]
    TooMany(usize),
    /// One is not a certificate.
    #[error("read authority {place} of the trust bundle")]
    Certificate {
        /// Its place, from 1.
        place: usize,
        /// What is wrong.
        #[source]
        source: webpki::Error,
    },
    /// The text is not PEM.
    #[error("read the trust bundle as PEM: {0}")]
    Pem(String),
}

impl TrustBundle {
    /// A bundle of `authorities`. `version` grows with every change of the
    /// deployment's bundle; this crate only carries it.
    pub fn new(
        version: u64,
        authorities: Vec<CertificateDer<'static>>,
    ) -> Result<Self, TrustError> {
        match authorities.len() {
            0 => return Err(TrustError::Empty),
            1..=MAX_AUTHORITIES => {}
            count => return Err(TrustError::TooMany(count)),
        }
        let anchors = authorities
            .iter()
            .enumerate()
            .map(|(index, certificate)| {
                webpki::anchor_from_trusted_cert(certificate)
                    .map(|anchor| anchor.to_owned())
                    .map_err(|source| TrustError::Certificate {
                        place: index + 1,
                        source,
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            version,
            authorities,
            anchors,
        })
    }

    /// Reads concatenated PEM certificates; text between them is ignored.
    pub fn from_pem(version: u64, pem: &str) -> Result<Self, TrustError> {
        let authorities = CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TrustError::Pem(error.to_string()))?;
        Self::new(version, authorities)
    }

    /// Concatenated PEM certificates.
    pub fn to_pem(&self) -> String {
        self.authorities.iter().map(certificate_to_pem).collect()
    }

    /// Which change of the bundle this is.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The authorities' certificates.
    pub fn authorities(&self) -> &[CertificateDer<'static>] {
        &self.authorities
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle")
            .field("version", &self.version)
            .field("authorities", &self.authorities.len())
            .finish()
    }
}

/// One certificate as PEM, ending in a line break.
pub fn certificate_to_pem(certificate: &CertificateDer<'_>) -> String {
    let encoded = data_encoding::BASE64.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

/// The bundle in force. Clones share it.
#[derive(Clone, Debug)]
pub struct TrustStore(Arc<RwLock<Arc<TrustBundle>>>);

impl TrustStore {
    /// A store that starts with `bundle`.
    pub fn new(bundle: TrustBundle) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(bundle))))
    }

    /// The bundle in force.
    pub fn bundle(&self) -> Arc<TrustBundle> {
        // The lock only ever guards the copy of a pointer: it cannot be poisoned
        // half way.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts `bundle` in force for every handshake from here on.
    pub fn replace(&self, bundle: TrustBundle) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(bundle);
    }
}
