//! A test authority that issues certificates, good ones and every kind of bad one.
//! Behind the feature `testing`; nothing of it is in a released program. Panics
//! where a test cannot go on.

use std::time::Duration;

use model::Timestamp;
use model::ids::{DeploymentId, HostId, WorkspaceId};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::identity::{CertIdentity, Role};
use crate::tls::Credentials;
use crate::trust::{TrustBundle, TrustStore};

pub mod initial;

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

    /// A self-signed authority that is the same in every run: what it signed in one
    /// run, it believes in another. Its key is Ed25519, made of `seed`.
    pub fn of_seed(name: &str, seed: u8) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority_params(name), key_of_seed(seed))
            .expect("authority");
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

    /// The public key of an authority made by [`Authority::of_seed`].
    pub fn ed25519_key(&self) -> [u8; 32] {
        let key = self.issuer.key().der_bytes();
        key.try_into().expect("an Ed25519 key")
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

    /// Issues `leaf` for the key made of `seed`: the same bytes in every run.
    pub fn issue_for_seed(&self, leaf: &Leaf, seed: u8) -> Credentials {
        let key = key_of_seed(seed);
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

/// An Ed25519 key whose secret is 32 times `seed`.
fn key_of_seed(seed: u8) -> KeyPair {
    // PKCS#8 of an Ed25519 key, up to the 32 bytes of the secret (RFC 8410, section 7).
    const BEFORE_SECRET: [u8; 16] = [
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    let der = [&BEFORE_SECRET[..], &[seed; 32]].concat();
    let der = PrivateKeyDer::try_from(der).expect("PKCS#8");
    KeyPair::from_der_and_sign_algo(&der, &rcgen::PKCS_ED25519).expect("key")
}

fn to_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8")
}
