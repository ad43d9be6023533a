//! A suspected clone: it gets an identity of its own, in quarantine, and nothing
//! to do until somebody decides. The original keeps its link and its identity.
//!
//! The two are told apart for good by asking the newcomer for a new key. A
//! newcomer that comes back before it has one is recognised by having no identity
//! yet; it does not become a third host.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::clone::Evidence;
use gateway_store::Batch;
use model::host::{HostEvent, Membership};
use model::ids::HostId;
use protocol::v1::{Refusal, RefusalCode};

use super::issue::issue;
use super::{ProvenHost, refusal};
use crate::app::App;
use crate::error::Result;
use crate::state::change::{Origin, history};
use crate::state::edit::edit;
use crate::state::records::{HostRecordV1, HostSeenRecordV1, key_of};

/// Clones of one host that are held at a time. A disk image that was rolled out
/// everywhere must not fill the inventory.
const MOST_CLONES: usize = 64;
const LONG: Duration = Duration::from_secs(300);

/// What must be said to a newcomer.
pub trait Talk {
    /// Asks for a new key; its CSR, if the newcomer plays along.
    fn ask_for_key(&mut self, reason: String) -> impl Future<Output = Option<Vec<u8>>> + Send;
    /// Gives it its identity.
    fn grant(&mut self, grant: protocol::v1::Grant) -> impl Future<Output = ()> + Send;
}

/// Quarantines a newcomer. Answers what to tell it when it cannot be helped.
pub async fn receive(
    app: &Arc<App>,
    proven: &ProvenHost,
    evidence: Evidence,
    talk: &mut impl Talk,
    from: SocketAddr,
) -> Option<Refusal> {
    tracing::warn!(host.id = %proven.host, source = %from, evidence = %evidence, "clone suspected");
    let suspect = match suspect(app, proven, evidence, from).await {
        Ok(Some(suspect)) => suspect,
        Ok(None) => {
            return Some(refusal(
                RefusalCode::Superseded,
                "too many copies of this host are in quarantine already",
                LONG,
            ));
        }
        Err(error) => {
            return Some(refusal(
                RefusalCode::Unavailable,
                error.detail,
                Duration::from_secs(5),
            ));
        }
    };
    let reason = format!(
        "another machine has the identity of {}; this one is quarantined until an operator decides",
        proven.host
    );
    let csr = talk.ask_for_key(reason).await?;
    let issued = match issue(app, &csr, proven.workspace, suspect, 1, 1) {
        Ok(issued) => issued,
        Err(error) => return Some(refusal(RefusalCode::Invalid, error.to_string(), LONG)),
    };
    let key = key_of::<HostRecordV1>(suspect);
    let written = edit::<HostRecordV1>(app, &key, |found, _: &mut Batch| {
        Ok(found.map(|record| HostRecordV1 {
            identity: Some(issued.identity.clone()),
            ..record
        }))
    });
    match written.await {
        Ok(_) => {
            talk.grant(issued.grant).await;
            None
        }
        Err(error) => Some(refusal(
            RefusalCode::Unavailable,
            error.detail,
            Duration::from_secs(5),
        )),
    }
}

/// The record of the suspect, made unless it is there already.
async fn suspect(
    app: &Arc<App>,
    proven: &ProvenHost,
    evidence: Evidence,
    from: SocketAddr,
) -> Result<Option<HostId>> {
    let (nameless, held, original) = {
        let tables = app.catalog.read();
        let clones = tables
            .hosts_of(proven.workspace)
            .filter_map(|id| tables.hosts.get(&id))
            .filter(|host| {
                host.clone_of == Some(proven.host) && host.membership == Membership::Quarantined
            });
        let clones: Vec<_> = clones.collect();
        let nameless = clones
            .iter()
            .find(|host| host.identity.is_none())
            .map(|host| host.id);
        (
            nameless,
            clones.len(),
            tables
                .hosts
                .get(&proven.host)
                .map(|host| Arc::clone(&host.record)),
        )
    };
    if nameless.is_some() {
        return Ok(nameless);
    }
    if held >= MOST_CLONES {
        return Ok(None);
    }
    let now = app.now();
    let id = app.new_id(HostId::new);
    let record = HostRecordV1 {
        id,
        workspace: proven.workspace,
        membership: Membership::Quarantined,
        display_name: None,
        labels: original
            .as_ref()
            .map(|original| original.labels.clone())
            .unwrap_or_default(),
        maintenance: None,
        ephemeral: original.as_ref().is_some_and(|original| original.ephemeral),
        clone_of: Some(proven.host),
        awaited_hostname: None,
        identity: None,
        token: None,
        created_at: now,
        enrolled_at: None,
        retired_at: None,
        pending_adoption: None,
        adopting_generation: None,
    };
    let mut batch = Batch::new();
    batch.put_record(&key_of::<HostRecordV1>(id), &record)?;
    batch.put_record(
        &key_of::<HostSeenRecordV1>(id),
        &HostSeenRecordV1::never(now),
    )?;
    for (host, other) in [(id, proven.host), (proven.host, id)] {
        let event = HostEvent::CloneSuspected {
            other,
            evidence: evidence.to_string(),
        };
        history(&mut batch, host, now, event, None)?;
    }
    Origin::host(proven.host, from.ip())
        .entry(now, "host.clone_suspected")
        .on(id)
        .with("original", proven.host)
        .with("evidence", evidence)
        .noticed()
        .in_workspace(proven.workspace, &mut batch);
    app.commit(batch).await?;
    Ok(Some(id))
}
