//! A suspected clone: it gets an identity of its own, in quarantine, and nothing
//! to do until somebody decides. The original keeps its link and its identity.
//!
//! The two are told apart for good by asking the newcomer for a new key. A newcomer
//! that comes back because the answer was lost shows the same key again and gets the
//! same place; one that gave no key left a place without identity, which the next
//! gets. Neither becomes a third host.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use gateway_core::clone::Evidence;
use gateway_core::host::{Host, holds_another_clone};
use gateway_core::identity::{Asking, Identity, place};
use gateway_core::refuse::{LONG, SHORTLY, try_again};
use gateway_store::Batch;
use model::host::{HostEvent, Membership};
use model::ids::HostId;
use protocol::v1::{Refusal, RefusalCode};

use super::issue::{self, issue};
use super::{ProvenHost, refusal};
use crate::app::App;
use crate::error::Result;
use crate::state::change::{Origin, history};
use crate::state::edit::edit_host;
use crate::state::records::{HostRecordV1, HostSeenRecordV1, key_of};

/// Places in quarantine that may be taken by another machine before this one is sent
/// away to come again.
const ATTEMPTS: usize = 4;

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
    let unavailable =
        |error: crate::error::Error| refusal(RefusalCode::Unavailable, error.detail, SHORTLY);
    let full = || {
        let text = "too many copies of this host are in quarantine already";
        refusal(RefusalCode::Superseded, text, LONG)
    };
    let reason = format!(
        "another machine has the identity of {}; this one is quarantined until an operator decides",
        proven.host
    );
    let csr = talk.ask_for_key(reason).await;
    let known = csr.as_ref().and_then(|csr| known_by_key(app, proven, csr));
    // A newcomer that keeps the key it came with stays what it is: a copy.
    let csr = csr.filter(|csr| {
        let key = app.ca.csr_key(csr).ok();
        key.is_none_or(|key| known.is_some() || !issue::held_by_another(app, &key.0, &[]))
    });
    for _ in 0..ATTEMPTS {
        // Also for a machine that does not play along: the operators hear of it.
        let place = match known {
            Some(place) => place,
            None => match suspect(app, proven, evidence, from).await {
                Ok(Some(place)) => place,
                Ok(None) => return Some(full()),
                Err(error) => return Some(unavailable(error)),
            },
        };
        let Some(generation) = generation(app, place, csr.as_ref()?) else {
            break;
        };
        let issued = match issue(app, csr.as_ref()?, proven.workspace, place, generation, 1) {
            Ok(issued) => issued,
            Err(error) => return Some(refusal(RefusalCode::Invalid, error.to_string(), LONG)),
        };
        let identity = Identity::from(&issued.identity);
        // Two copies that came at the same time were offered one place.
        match edit_host(app, place, |host, _| Ok(host.named(identity))).await {
            Ok(Some(_)) => {
                talk.grant(issued.grant).await;
                return None;
            }
            Ok(None) if known.is_none() => {}
            Ok(None) => break,
            Err(error) => return Some(unavailable(error)),
        }
    }
    Some(try_again(SHORTLY, app.now()))
}

/// The generation in which the holder of this key begins, or goes on.
fn generation(app: &App, place_of: HostId, csr: &[u8]) -> Option<u64> {
    let spki = app.ca.csr_key(csr).ok()?;
    let tables = app.catalog.read();
    let identity = tables.hosts.get(&place_of)?.decided().identity;
    let place = place(identity.as_ref(), &spki.0, Asking::Heir, app.fence());
    place.map(|place| place.generation)
}

/// The place that was given to this key before.
fn known_by_key(app: &App, proven: &ProvenHost, csr: &[u8]) -> Option<HostId> {
    let spki = app.ca.csr_key(csr).ok()?;
    let tables = app.catalog.read();
    let host = tables.host_by_key(&spki.0)?;
    (host.clone_of == Some(proven.host)).then_some(host.id)
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
    if !holds_another_clone(held) {
        return Ok(None);
    }
    let now = app.now();
    let id = app.new_id(HostId::new);
    let decided = original.as_ref().map(|original| original.decided());
    let record = HostRecordV1 {
        labels: original
            .as_ref()
            .map(|original| original.labels.clone())
            .unwrap_or_default(),
        ..HostRecordV1::fresh(&Host::suspect(id, proven, decided.as_ref()), now)
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
