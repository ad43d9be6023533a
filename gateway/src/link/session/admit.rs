//! Whether a host that proved an identity is welcome, and as what.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gateway_core::clone::{
    Counters, Evidence, LiveLink as CoreLink, Newcomer, Verdict, after_probe, judge,
};
use gateway_store::Batch;
use model::Timestamp;
use model::host::{Carrier, Connectivity, HostEvent, Membership};
use model::names::clean;
use protocol::v1::{Hello, Refusal, RefusalCode, Settings, Welcome};
use tokio::sync::{mpsc, oneshot};

use crate::app::App;
use crate::error::Error;
use crate::link::registry::{LiveLink, NewLink, ToSession};
use crate::link::{ProvenHost, issue, refusal};
use crate::state::catalog::Kept;
use crate::state::change::{Origin, history};
use crate::state::edit::edit;
use crate::state::records::{HostRecordV1, HostSeenRecordV1, IdentityV1, key_of};

/// For the old link to show that it lives. A live agent answers in a round trip.
const PROBE_WITHIN: Duration = Duration::from_secs(2);
/// Somebody must decide before this host can come back.
const LONG: Duration = Duration::from_secs(300);
/// A store that hiccups.
const SOON: Duration = Duration::from_secs(2);

/// A welcomed host.
pub(super) struct Welcomed {
    /// What to tell it.
    pub(super) frame: Welcome,
    /// Its place in the registry.
    pub(super) link: Arc<LiveLink>,
    /// Requests to it.
    pub(super) mailbox: mpsc::Receiver<ToSession>,
}

/// What a hello leads to.
pub(super) enum Outcome {
    /// It is the host.
    Welcome(Box<Welcomed>),
    /// It is a copy of it.
    Clone(Evidence),
}

/// Decides about a hello and writes the decision down.
pub(super) async fn admit(
    app: &Arc<App>,
    proven: &ProvenHost,
    hello: &Hello,
    carrier: Carrier,
    from: SocketAddr,
) -> Result<Outcome, Refusal> {
    if hello.version_min > protocol::VERSION || hello.version_max < protocol::VERSION_MIN {
        return Err(refusal(
            RefusalCode::VersionUnsupported,
            "agent and gateway have no protocol version in common; upgrade the older one",
            LONG,
        ));
    }
    let record = identified(app, proven, from).await?;
    let verdict = verdict(app, proven, hello).await;
    match verdict {
        Verdict::Clone(evidence) => Ok(Outcome::Clone(evidence)),
        Verdict::Welcome {
            issue,
            gateway_was_behind,
        } => {
            if gateway_was_behind {
                tracing::warn!(host.id = %proven.host, "the host's counter is ahead of ours: this gateway's state is older than the host");
            }
            welcome(app, proven, &record, hello, issue, carrier, from)
                .await
                .map(|welcomed| Outcome::Welcome(Box::new(welcomed)))
        }
        // `verdict` has asked already.
        Verdict::Probe => Err(refusal(RefusalCode::Unavailable, "try again", SOON)),
    }
}

/// The record that the certificate speaks of, if the certificate is in force.
async fn identified(
    app: &Arc<App>,
    proven: &ProvenHost,
    from: SocketAddr,
) -> Result<Kept<HostRecordV1>, Refusal> {
    let found = app.catalog.read().hosts.get(&proven.host).cloned();
    let record = match found {
        Some(record) => record,
        None => adopt(app, proven, from).await?,
    };
    if record.membership == Membership::Retired {
        return Err(refusal(
            RefusalCode::HostRetired,
            "this host was retired; to bring it back, reset the agent and join with a new token",
            LONG,
        ));
    }
    let identity = record
        .identity
        .as_ref()
        .filter(|_| record.workspace == proven.workspace);
    let in_force = identity.is_some_and(|identity| {
        // A generation ahead of ours was signed by this deployment before its
        // state was restored from an older copy.
        proven.generation >= identity.generation || identity.previous == Some(proven.generation)
    });
    if !in_force {
        let entry = Origin::host(proven.host, from.ip()).entry(app.now(), "host.link");
        let entry = entry
            .on(proven.host)
            .with("generation", proven.generation)
            .refused("superseded identity");
        if crate::refusals::worth_an_entry(app, Some(from.ip())) {
            let scope = app
                .catalog
                .read()
                .scope_of(record.workspace)
                .unwrap_or(model::tenancy::Scope::Deployment);
            crate::refusals::write(app, scope, entry).await;
        }
        return Err(refusal(
            RefusalCode::Superseded,
            "another machine holds this host's identity by an operator's decision; reset this agent and join again if it should be a host of its own",
            LONG,
        ));
    }
    if proven.expired {
        let not_after = identity.map_or(Timestamp::default(), |identity| identity.not_after);
        if app.now().since(not_after) > app.config.agents.late_return {
            return Err(refusal(
                RefusalCode::CertificateExpired,
                "the certificate expired too long ago; reset the agent and join with a new token",
                LONG,
            ));
        }
    }
    Ok(record)
}

/// A certificate of ours whose host is not in the store: the store is older than
/// the host (restored from a backup). Hosts are never deleted, so there is no
/// other way. The host is taken in again under its own id.
async fn adopt(
    app: &Arc<App>,
    proven: &ProvenHost,
    from: SocketAddr,
) -> Result<Kept<HostRecordV1>, Refusal> {
    let now = app.now();
    if !app
        .catalog
        .read()
        .workspaces
        .contains_key(&proven.workspace)
    {
        return Err(refusal(
            RefusalCode::HostRetired,
            "this host's workspace is gone; reset the agent and join with a new token",
            LONG,
        ));
    }
    let key = key_of::<HostRecordV1>(proven.host);
    let adopted = edit::<HostRecordV1>(app, &key, |found, batch| {
        if found.is_some() {
            return Ok(None);
        }
        history(batch, proven.host, now, HostEvent::Created, None)?;
        Origin::host(proven.host, from.ip())
            .entry(now, "host.adopt")
            .on(proven.host)
            .with("generation", proven.generation)
            .noticed()
            .in_workspace(proven.workspace, batch);
        Ok(Some(HostRecordV1 {
            id: proven.host,
            workspace: proven.workspace,
            membership: Membership::Managed,
            display_name: None,
            labels: Default::default(),
            maintenance: None,
            ephemeral: false,
            clone_of: None,
            awaited_hostname: None,
            identity: Some(IdentityV1 {
                generation: proven.generation,
                // Renewal, which is asked for at once, fills these in.
                spki_sha256: [0; 32],
                not_after: now,
                issuer: [0; 32],
                previous: None,
            }),
            token: None,
            created_at: now,
            enrolled_at: Some(now),
            retired_at: None,
            pending_adoption: None,
            adopting_generation: None,
        }))
    });
    adopted.await.map_err(|error| busy(&error))?;
    app.catalog
        .read()
        .hosts
        .get(&proven.host)
        .cloned()
        .ok_or_else(|| refusal(RefusalCode::Unavailable, "try again", SOON))
}

async fn verdict(app: &Arc<App>, proven: &ProvenHost, hello: &Hello) -> Verdict {
    let seen = app.catalog.read().seen.get(&proven.host).cloned();
    let counters = seen.map_or(
        Counters {
            issued: 1,
            confirmed: 0,
        },
        |seen| Counters {
            issued: seen.issued,
            confirmed: seen.confirmed,
        },
    );
    let newcomer = Newcomer {
        counter: hello.counter,
        instance: &hello.instance,
        boot_id: &hello.boot_id,
    };
    let live = app.links.live(proven.host);
    let core_link = live.as_ref().map(|live| CoreLink {
        instance: &live.instance,
        boot_id: &live.boot_id,
    });
    match (judge(counters, newcomer, core_link), live) {
        (Verdict::Probe, Some(live)) => {
            let (reply, answered) = oneshot::channel();
            let answered = live.tell(ToSession::Probe(reply))
                && matches!(
                    tokio::time::timeout(PROBE_WITHIN, answered).await,
                    Ok(Ok(()))
                );
            after_probe(counters, newcomer, answered)
        }
        (verdict, _) => verdict,
    }
}

async fn welcome(
    app: &Arc<App>,
    proven: &ProvenHost,
    record: &Kept<HostRecordV1>,
    hello: &Hello,
    issue: u64,
    carrier: Carrier,
    from: SocketAddr,
) -> Result<Welcomed, Refusal> {
    let now = app.now();
    let was_linked = app.links.live(proven.host).map(|link| link.carrier);
    let key = key_of::<HostSeenRecordV1>(proven.host);
    let wrote = edit::<HostSeenRecordV1>(app, &key, |seen, batch| {
        let before = seen.unwrap_or_else(|| HostSeenRecordV1::never(now));
        for event in events(&before, hello, was_linked, carrier, from) {
            history(batch, proven.host, now, event, None)?;
        }
        let connected = before.connectivity == Connectivity::Connected;
        Ok(Some(HostSeenRecordV1 {
            issued: before.issued.max(issue),
            // What is presented is on the host's disk.
            confirmed: before.confirmed.max(hello.counter),
            connectivity: Connectivity::Connected,
            since: if connected { before.since } else { now },
            last_seen_at: Some(now),
            boot_id: Some(clean(&hello.boot_id, 64)),
            address: Some(from.ip().to_string()),
            agent_version: Some(clean(&hello.agent_version, 64)),
            clock_skew_ms: Some(hello.host_time_ms.saturating_sub(now.as_millis())),
            said_goodbye: false,
        }))
    });
    let seen = wrote
        .await
        .map_err(|error| busy(&error))?
        .ok_or_else(|| refusal(RefusalCode::Unavailable, "try again", SOON))?;
    settle(app, proven, record, now)
        .await
        .map_err(|error| busy(&error))?;
    let new = NewLink {
        instance: hello.instance.clone(),
        boot_id: hello.boot_id.clone(),
        carrier,
        address: from,
        generation: proven.generation,
    };
    let (link, mailbox, old) = app.links.register(proven.host, new, now);
    if let Some(old) = old {
        old.tell(ToSession::TakenOver);
    }
    Ok(Welcomed {
        frame: frame(app, proven, record, hello, seen.issued, now),
        link,
        mailbox,
    })
}

fn frame(
    app: &App,
    proven: &ProvenHost,
    record: &HostRecordV1,
    hello: &Hello,
    counter: u64,
    now: Timestamp,
) -> Welcome {
    let tables = app.catalog.read();
    let facts = tables.facts.get(&proven.host);
    let thresholds = tables
        .workspaces
        .get(&proven.workspace)
        .map(|workspace| workspace.thresholds)
        .unwrap_or_default();
    let trust = issue::trust(app);
    Welcome {
        version: protocol::VERSION.min(hello.version_max),
        counter,
        settings: Some(Settings {
            heartbeat_ms: thresholds.heartbeat_ms,
        }),
        server_time_ms: now.as_millis(),
        want_facts: facts
            .is_none_or(|facts| facts.digest.is_empty() || facts.digest != hello.facts_digest),
        want_renewal: wants_renewal(app, record, now),
        trust: (trust.version > hello.trust_version).then_some(trust),
        display_name: crate::view::name_of(
            record,
            facts.map(|facts| facts.facts.hostname.as_str()),
        ),
        quarantined: record.membership == Membership::Quarantined,
    }
}

/// Half of the certificate's life is over, or another authority signs by now.
fn wants_renewal(app: &App, record: &HostRecordV1, now: Timestamp) -> bool {
    let Some(identity) = &record.identity else {
        return true;
    };
    let half = app.config.agents.certificate_lifetime / 2;
    now >= identity.not_after.saturating_sub(half) || identity.issuer != app.ca.active_fingerprint()
}

/// What a hello tells apart from "I am here".
fn events(
    before: &HostSeenRecordV1,
    hello: &Hello,
    was_linked: Option<Carrier>,
    carrier: Carrier,
    from: SocketAddr,
) -> Vec<HostEvent> {
    let mut events = Vec::new();
    let changed = |before: &Option<String>, now: String| {
        before
            .clone()
            .filter(|before| *before != now)
            .map(|before| (before, now))
    };
    if let Some((from, to)) = changed(&before.boot_id, clean(&hello.boot_id, 64)) {
        events.push(HostEvent::Rebooted { from, to });
    }
    if let Some((from, to)) = changed(&before.agent_version, clean(&hello.agent_version, 64)) {
        events.push(HostEvent::VersionChanged { from, to });
    }
    if let Some((from, to)) = changed(&before.address, from.ip().to_string()) {
        events.push(HostEvent::AddressChanged { from, to });
    }
    match was_linked {
        Some(old) if old != carrier => events.push(HostEvent::CarrierChanged { carrier }),
        Some(_) => {}
        None => events.push(HostEvent::Connected {
            carrier,
            address: from.ip().to_string(),
        }),
    }
    events
}

/// The first use of a new identity ends the one before it, and the record that a
/// repaired clone had meanwhile.
async fn settle(
    app: &Arc<App>,
    proven: &ProvenHost,
    record: &Kept<HostRecordV1>,
    now: Timestamp,
) -> crate::error::Result<()> {
    let stale = record.identity.as_ref().is_some_and(|identity| {
        proven.generation > identity.generation
            || (proven.generation == identity.generation && identity.previous.is_some())
    });
    let leftovers: Vec<_> = {
        let tables = app.catalog.read();
        let hosts = tables
            .hosts_of(proven.workspace)
            .filter_map(|id| tables.hosts.get(&id));
        hosts
            .filter(|host| {
                host.pending_adoption == Some(proven.host)
                    && host.adopting_generation == Some(proven.generation)
            })
            .map(|host| host.id)
            .collect()
    };
    if stale {
        let key = key_of::<HostRecordV1>(proven.host);
        edit::<HostRecordV1>(app, &key, |found, _: &mut Batch| {
            Ok(found.map(|mut record| {
                if let Some(identity) = &mut record.identity {
                    identity.previous = None;
                    identity.generation = identity.generation.max(proven.generation);
                }
                record
            }))
        })
        .await?;
    }
    for leftover in leftovers {
        let key = key_of::<HostRecordV1>(leftover);
        edit::<HostRecordV1>(app, &key, |found, batch| {
            let Some(record) = found.filter(|record| record.membership == Membership::Quarantined)
            else {
                return Ok(None);
            };
            history(
                batch,
                leftover,
                now,
                HostEvent::Retired {
                    reason: format!("became {}", proven.host),
                },
                None,
            )?;
            Origin::gateway()
                .entry(now, "host.retire")
                .on(leftover)
                .with("became", proven.host)
                .in_workspace(record.workspace, batch);
            Ok(Some(crate::handlers::host::retired(&record, now)))
        })
        .await?;
    }
    Ok(())
}

fn busy(error: &Error) -> Refusal {
    tracing::warn!(error = %error, "a link could not be written down");
    refusal(
        RefusalCode::Unavailable,
        "the gateway cannot store this at the moment",
        SOON,
    )
}
