//! Signing a host's certificate and putting the answer together.

use ::link::identity::CertIdentity;
use gateway_core::refuse::LONG;
use model::ids::{HostId, WorkspaceId};
use protocol::v1::{Grant, Refusal, RefusalCode, Trust};

use super::refusal;
use crate::app::App;
use crate::ca::CaError;
use crate::state::records::IdentityV1;

/// A signed identity: what to store, and what to answer.
pub struct Issued {
    /// For the host's record.
    pub identity: IdentityV1,
    /// For the agent.
    pub grant: Grant,
}

/// Signs the key in `csr` for a host. `counter` is the generation counter's value
/// that the agent shall begin with.
pub fn issue(
    app: &App,
    csr: &[u8],
    workspace: WorkspaceId,
    host: HostId,
    generation: u64,
    counter: u64,
) -> Result<Issued, CaError> {
    let now = app.now();
    let identity = CertIdentity::Agent {
        deployment: app.deployment,
        workspace,
        host,
        generation,
    };
    let issued = app
        .ca
        .issue_agent(csr, identity, now, app.config.agents.certificate_lifetime)?;
    Ok(Issued {
        identity: IdentityV1 {
            generation,
            spki_sha256: issued.spki_sha256.0,
            not_after: issued.not_after,
            issuer: issued.issuer_fingerprint,
            previous: None,
        },
        grant: Grant {
            deployment: app.deployment.to_string(),
            workspace: workspace.to_string(),
            host: host.to_string(),
            generation,
            certificate: issued.certificate.to_vec(),
            trust: Some(trust(app)),
            counter,
            server_time_ms: now.as_millis(),
        },
    })
}

/// Whether the key belongs to a live host other than `own`. A request for a certificate
/// proves that its maker once held the key, and not that it was made for this link: one
/// that was recorded elsewhere must not tie its maker's key to the host that replays it.
pub fn held_by_another(app: &App, spki: &[u8; 32], own: &[HostId]) -> bool {
    let tables = app.catalog.read();
    tables
        .host_by_key(spki)
        .is_some_and(|holder| !own.contains(&holder.id) && holder.decided().is_live())
}

/// What whoever asks with such a key is told.
pub fn key_taken() -> Refusal {
    let text = "the key of this request belongs to another host; reset the agent, which makes a new key, and join again";
    refusal(RefusalCode::Invalid, text, LONG)
}

/// The trust bundle as it travels.
pub fn trust(app: &App) -> Trust {
    let bundle = app.ca.trust_bundle();
    Trust {
        version: bundle.version(),
        authorities: bundle
            .authorities()
            .iter()
            .map(|der| der.to_vec())
            .collect(),
    }
}
