//! A gateway's authority that certifies what agents ask for.

use std::time::Duration;

use link::identity::{CertIdentity, Role};
use link::tls::Credentials;
use link::trust::TrustBundle;
use model::Timestamp;
use model::ids::{DeploymentId, HostId, WorkspaceId};
use protocol::v1::{Grant, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(crate) life: Duration,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        Self {
            issuer,
            life: Duration::from_secs(86_400),
        }
    }

    pub(crate) fn trust(&self, version: u64) -> Trust {
        Trust {
            version,
            authorities: vec![self.issuer.der().to_vec()],
        }
    }

    pub(crate) fn bundle(&self, version: u64) -> TrustBundle {
        TrustBundle::new(version, vec![self.issuer.der().clone()]).unwrap()
    }

    pub(crate) fn pem(&self) -> String {
        self.bundle(0).to_pem()
    }

    /// Grants `host` a certificate for the key in `csr`.
    pub(crate) fn grant(&self, csr: &[u8], host: u8, generation: u64, counter: u64) -> Grant {
        let identity = CertIdentity::Agent {
            deployment: deployment(),
            workspace: workspace(),
            host: host_id(host),
            generation,
        };
        let der = CertificateSigningRequestDer::from(csr.to_vec());
        let mut request = CertificateSigningRequestParams::from_der(&der).unwrap();
        request.params = self.params(identity);
        let certificate = request.signed_by(&self.issuer).unwrap();
        Grant {
            deployment: deployment().to_string(),
            workspace: workspace().to_string(),
            host: host_id(host).to_string(),
            generation,
            certificate: certificate.der().to_vec(),
            trust: Some(self.trust(1)),
            counter,
            server_time_ms: now().as_millis(),
        }
    }

    /// A gateway's own certificate.
    pub(crate) fn gateway(&self) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let params = self.params(CertIdentity::Gateway {
            deployment: deployment(),
        });
        let certificate: CertificateDer<'static> =
            params.signed_by(&key, &self.issuer).unwrap().der().clone();
        Credentials {
            certificate,
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        }
    }

    fn params(&self, identity: CertIdentity) -> CertificateParams {
        let date = |at: Timestamp| date_time_ymd(1970, 1, 1) + at.since(Timestamp::default());
        let mut params = CertificateParams::default();
        params.not_before = date(now().saturating_sub(Duration::from_secs(60)));
        params.not_after = date(now().saturating_add(self.life));
        params.extended_key_usages = vec![match identity.role() {
            Role::Agent => ExtendedKeyUsagePurpose::ClientAuth,
            Role::Gateway => ExtendedKeyUsagePurpose::ServerAuth,
        }];
        params.subject_alt_names = vec![SanType::URI(
            identity.to_string().as_str().try_into().unwrap(),
        )];
        params
    }
}

pub(crate) fn deployment() -> DeploymentId {
    DeploymentId::new(Timestamp::from_millis(1), [1; 10])
}

pub(crate) fn workspace() -> WorkspaceId {
    WorkspaceId::new(Timestamp::from_millis(1), [2; 10])
}

pub(crate) fn host_id(seed: u8) -> HostId {
    HostId::new(Timestamp::from_millis(1), [seed; 10])
}

pub(crate) fn now() -> Timestamp {
    link::verify::system_clock()()
}
