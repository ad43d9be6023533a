//! A test authority that issues certificates, good ones and every kind of bad one.
//! Behind the feature `testing`; nothing of it is in a released program. Panics
//! where a test cannot go on.

use std::time::Duration;

use model::Timestamp;
use model::ids::{DeploymentId, HostId, WorkspaceId};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{CertIdentity, Role};
use crate::tls::Credentials;
use crate::trust::{TrustBundle, TrustStore};

/// What a test certificate says; start from [`Leaf::of`] and spoil it.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// Alternative names that are URIs.
    pub uris: Vec<String>,
    /// Alternative names that are DNS names.
    pub dns_names: Vec<String>,
    /// Extended key usages; empty leaves the extension out.
    pub usages: Vec<ExtendedKeyUsagePurpose>,
    /// Begin of validity.
    pub not_before: Timestamp,
    /// End of validity.
    pub not_after: Timestamp,
    /// Whether it claims to be an authority.
    pub is_authority: bool,
    /// Serial number.
    pub serial: u64,
    /// Kind of key.
    pub algorithm: &'static rcgen::SignatureAlgorithm,
}

impl Leaf {
    /// A good certificate of `identity`, valid from an hour before `now` to a day
    /// after.
    pub fn of(identity: CertIdentity, now: Timestamp) -> Self {
        Self {
            uris: vec![identity.to_string()],
            dns_names: Vec::new(),
            usages: vec![match identity.role() {
                Role::Agent => ExtendedKeyUsagePurpose::ClientAuth,
                Role::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
            }],
            not_before: now.saturating_sub(Duration::from_secs(3600)),
            not_after: now.saturating_add(Duration::from_secs(86_400)),
            is_authority: false,
            serial: 7,
            algorithm: &rcgen::PKCS_ECDSA_P256_SHA256,
        }
    }

    fn params(&self) -> CertificateParams {
        let mut params = CertificateParams::default();
        let date = |at: Timestamp| date_time_ymd(1970, 1, 1) + at.since(Timestamp::default());
        params.not_before = date(self.not_before);
        params.not_after = date(self.not_after);
        params.serial_number = Some(SerialNumber::from(self.serial));
        params.extended_key_usages = self.usages.clone();
        let uris = self
            .uris
            .iter()
            .map(|uri| SanType::URI(uri.as_str().try_into().expect("ascii")));
        let names = self
            .dns_names
            .iter()
            .map(|name| SanType::DnsName(name.as_str().try_into().expect("ascii")));
        params.subject_alt_names = uris.chain(names).collect();
        if self.is_authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        params
    }
}

/// An authority.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A self-signed authority. Two of the same `name` have different keys.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::self_signed(authority_params(name), key).expect("authority");
        Self { issuer }
    }

    /// An authority under this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("key");
        let issuer = CertifiedIssuer::signed_by(authority_params(name), key, &self.issuer)
            .expect("intermediate authority");
        Self { issuer }
    }

    /// Its certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// A bundle of this authority alone.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle::new(1, vec![self.certificate()]).expect("bundle")
    }

    /// A store that starts with [`Authority::bundle`].
    pub fn trust(&self) -> TrustStore {
        TrustStore::new(self.bundle())
    }

    /// Issues `leaf` for a new key.
    pub fn issue(&self, leaf: &Leaf) -> Credentials {
        let key = KeyPair::generate_for(leaf.algorithm).expect("key");
        let certificate = leaf
            .params()
            .signed_by(&key, &self.issuer)
            .expect("certificate");
        Credentials {
            certificate: certificate.der().clone(),
            key: to_der(&key),
        }
    }

    /// Issues a good certificate of `identity`.
    pub fn good(&self, identity: CertIdentity, now: Timestamp) -> Credentials {
        self.issue(&Leaf::of(identity, now))
    }
}

/// Signs `leaf` with its own key.
pub fn self_signed(leaf: &Leaf) -> Credentials {
    let key = KeyPair::generate_for(leaf.algorithm).expect("key");
    let certificate = leaf.params().self_signed(&key).expect("certificate");
    Credentials {
        certificate: certificate.der().clone(),
        key: to_der(&key),
    }
}

/// The gateway of a deployment that is told apart by `seed`.
pub fn gateway_identity(seed: u8) -> CertIdentity {
    CertIdentity::Gateway {
        deployment: deployment(seed),
    }
}

/// An agent of [`deployment`]`(seed)`.
pub fn agent_identity(seed: u8) -> CertIdentity {
    CertIdentity::Agent {
        deployment: deployment(seed),
        workspace: WorkspaceId::new(Timestamp::default(), [seed; 10]),
        host: HostId::new(Timestamp::default(), [seed; 10]),
        generation: 1,
    }
}

/// A deployment that is told apart by `seed`.
pub fn deployment(seed: u8) -> DeploymentId {
    DeploymentId::new(Timestamp::default(), [seed; 10])
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn to_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8")
}
