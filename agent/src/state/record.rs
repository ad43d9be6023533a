//! The identity: how it lies on disk, and how it comes from a grant.

use agent_core::held::{Held, counter_after};
use data_encoding::BASE64;
use link::identity::{CertIdentity, Role, SpkiSha256};
use link::trust::{TrustBundle, TrustError};
use link::verify::{DEFAULT_SKEW, Expected, VerifiedPeer, VerifyError, verify_leaf};
use model::Timestamp;
use model::ids::{DeploymentId, HostId, WorkspaceId};
use protocol::v1::{Grant, Trust};
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{GrantError, HostKey};

/// Who this host is. Ids and validity were checked against the certificate when it was
/// granted.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The deployment.
    pub deployment: DeploymentId,
    /// The workspace.
    pub workspace: WorkspaceId,
    /// The host.
    pub host: HostId,
    /// Which of the host's identities this is.
    pub generation: u64,
    /// The key's file.
    pub(super) key: String,
    /// The key.
    pub(super) spki: SpkiSha256,
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// Begin of its validity.
    pub not_before: Timestamp,
    /// End of its validity.
    pub not_after: Timestamp,
    /// Whom to trust as gateway.
    pub trust: TrustBundle,
    /// The generation counter.
    pub counter: u64,
    /// The latest time that a gateway has told.
    pub server_time: Timestamp,
}

const FORMAT: &str = "loopback-identity/1";

#[derive(Serialize, Deserialize)]
struct RecordV1 {
    format: String,
    deployment: DeploymentId,
    workspace: WorkspaceId,
    host: HostId,
    generation: u64,
    key: String,
    certificate: String,
    not_before_ms: i64,
    not_after_ms: i64,
    trust_version: u64,
    authorities: Vec<String>,
    counter: u64,
    server_time_ms: i64,
}

impl Identity {
    pub(super) fn to_json(&self) -> Vec<u8> {
        let authorities = self.trust.authorities();
        let record = RecordV1 {
            format: FORMAT.to_owned(),
            deployment: self.deployment,
            workspace: self.workspace,
            host: self.host,
            generation: self.generation,
            key: self.key.clone(),
            certificate: BASE64.encode(&self.certificate),
            not_before_ms: self.not_before.as_millis(),
            not_after_ms: self.not_after.as_millis(),
            trust_version: self.trust.version(),
            authorities: authorities.iter().map(|der| BASE64.encode(der)).collect(),
            counter: self.counter,
            server_time_ms: self.server_time.as_millis(),
        };
        let mut json = serde_json::to_vec_pretty(&record).expect("strings and numbers become JSON");
        json.push(b'\n');
        json
    }

    /// Reads; says what is wrong.
    pub(super) fn from_json(bytes: &[u8]) -> Result<Self, String> {
        let record: RecordV1 = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        if record.format != FORMAT {
            return Err(format!(
                "it has format {:?}, this agent knows {FORMAT:?}",
                record.format
            ));
        }
        let der = |text: &String| {
            let bytes = BASE64
                .decode(text.as_bytes())
                .map_err(|error| error.to_string())?;
            Ok::<_, String>(CertificateDer::from(bytes))
        };
        let authorities = record
            .authorities
            .iter()
            .map(der)
            .collect::<Result<_, _>>()?;
        let chain = |error: &(dyn std::error::Error + 'static)| model::error_chain(error);
        let trust = TrustBundle::new(record.trust_version, authorities).map_err(|e| chain(&e))?;
        let certificate = der(&record.certificate)?;
        // Judged when it was granted; its authority may have been rotated out since.
        let spki = SpkiSha256::of(&certificate).map_err(|error| chain(&error))?;
        Ok(Self {
            deployment: record.deployment,
            workspace: record.workspace,
            host: record.host,
            generation: record.generation,
            key: record.key,
            spki,
            certificate,
            not_before: Timestamp::from_millis(record.not_before_ms),
            not_after: Timestamp::from_millis(record.not_after_ms),
            trust,
            counter: record.counter,
            server_time: Timestamp::from_millis(record.server_time_ms),
        })
    }
}

/// What an own certificate says, by the authorities that issued it. Whether it has
/// begun or ended is for the gateway to judge: the clock here may be the one that is
/// wrong.
pub(super) fn judge(
    certificate: &CertificateDer<'_>,
    trust: &TrustBundle,
) -> Result<VerifiedPeer, VerifyError> {
    let expected = Expected {
        role: Role::Agent,
        deployment: None,
    };
    let end_of_time = Timestamp::from_millis(i64::MAX);
    verify_leaf(
        std::slice::from_ref(certificate),
        trust,
        expected,
        end_of_time,
        DEFAULT_SKEW,
    )
}

/// The authorities in a grant, or those known when it has none or older ones.
pub(super) fn trust_of(
    grant: &Grant,
    known: Option<&TrustBundle>,
) -> Result<TrustBundle, GrantError> {
    let came = grant
        .trust
        .as_ref()
        .map(bundle)
        .transpose()
        .map_err(GrantError::Trust)?;
    match (came, known) {
        (Some(came), Some(known)) if came.version() < known.version() => Ok(known.clone()),
        (Some(came), _) => Ok(came),
        (None, Some(known)) => Ok(known.clone()),
        (None, None) => Err(GrantError::NoTrust),
    }
}

pub(super) fn bundle(trust: &Trust) -> Result<TrustBundle, TrustError> {
    let authorities = trust
        .authorities
        .iter()
        .cloned()
        .map(CertificateDer::from)
        .collect();
    TrustBundle::new(trust.version, authorities)
}

pub(super) fn identity_of(
    grant: &Grant,
    certificate: CertificateDer<'static>,
    trust: TrustBundle,
    peer: &VerifiedPeer,
    key: &HostKey,
    before: Option<&Identity>,
) -> Result<Identity, GrantError> {
    let CertIdentity::Agent {
        deployment,
        workspace,
        host,
        generation,
    } = peer.identity
    else {
        return Err(GrantError::Ids);
    };
    let same = grant.deployment == deployment.to_string()
        && grant.workspace == workspace.to_string()
        && grant.host == host.to_string()
        && grant.generation == generation;
    if !same {
        return Err(GrantError::Ids);
    }
    let held = |host, generation, counter| Held {
        host,
        generation,
        counter,
    };
    let before = before.map(|it| held(it.host, it.generation, it.counter));
    let counter = counter_after(before.as_ref(), &held(host, generation, grant.counter));
    Ok(Identity {
        deployment,
        workspace,
        host,
        generation,
        key: key.file_name(),
        spki: key.spki(),
        certificate,
        not_before: peer.not_before,
        not_after: peer.not_after,
        trust,
        counter,
        server_time: Timestamp::from_millis(grant.server_time_ms),
    })
}
