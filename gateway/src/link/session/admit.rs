//! Carries out what [`gateway_core::join`] decides about a newcomer.

use std::net::SocketAddr;
use std::sync::Arc;

use api::ProblemCode;
use gateway_core::clone::{Evidence, LiveLink as CoreLink};
use gateway_core::host::Host;
use gateway_core::join::{Done, Join, Known, PROBE_WITHIN, Refused, Step};
use gateway_core::refuse::{self, SHORTLY};
use gateway_core::seen::{Arrival, Seen};
use gateway_core::session::{Greeting, greet};
use model::Timestamp;
use model::host::{Carrier, Connectivity, HostEvent, Membership};
use protocol::v1::{Hello, Refusal, RefusalCode, Welcome};
use tokio::sync::oneshot;

use crate::app::App;
use crate::error::{Error, Result as GatewayResult};
use crate::link::registry::{LiveLink, NewLink, ToSession};
use crate::link::{ProvenHost, issue, refusal};
use crate::state::change::{Origin, history};
use crate::state::edit::{edit, edit_host, edit_seen};
use crate::state::records::{HostRecordV1, key_of};

/// A welcomed host.
pub(super) struct Welcomed {
    /// What to tell it.
    pub(super) frame: Welcome,
    /// Its place in the registry.
    pub(super) link: Arc<LiveLink>,
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
    connection: &quinn::Connection,
    proven: &ProvenHost,
    hello: &Hello,
    carrier: Carrier,
    from: SocketAddr,
) -> Result<Outcome, Refusal> {
    // A host that comes back in a loop writes to the store each time, and would get a
    // new allowance for its frames each time.
    if let Err(wait) = app.rates.links.take(&proven.host, app.uptime()) {
        let text = "this host links too often; its agent waits before it comes again";
        return Err(refusal(RefusalCode::RateLimited, text, wait.max(SHORTLY)));
    }
    let mut join = Join::new(*proven, hello);
    let mut done = Done::Nothing;
    let mut counter = 0;
    loop {
        let live = app.links.live(proven.host);
        let step = join.next(done, &known(app, proven, live.as_deref()));
        done = match step {
            Step::Adopt => {
                let adopted = adopt(app, proven, from).await;
                adopted
                    .map(|()| Done::Adopted)
                    .map_err(|error| busy(&error))?
            }
            Step::Probe => Done::Probed(probe(live.as_deref()).await),
            Step::Mark => {
                let marked = mark(app, proven, hello, carrier, from, live.as_deref()).await;
                Done::Marked(marked.map_err(|error| busy(&error))?.map(|seen| {
                    counter = seen.issued;
                }))
            }
            Step::Settle => {
                match settle(app, proven, from).await {
                    // The identity before this one stays in force until the next link.
                    Err(error) if error.code == ProblemCode::StorageFull => Done::Settled,
                    settled => settled
                        .map(|()| Done::Settled)
                        .map_err(|error| busy(&error))?,
                }
            }
            Step::Welcome => {
                let welcomed = welcome(app, connection, proven, hello, counter, carrier, from);
                return welcomed.map(|it| Outcome::Welcome(Box::new(it)));
            }
            Step::Clone(evidence) => return Ok(Outcome::Clone(evidence)),
            Step::Refuse(refused) => return Err(refuse_aloud(app, proven, refused, from).await),
        };
    }
}

/// What the gateway knows at this moment.
fn known<'a>(app: &App, proven: &ProvenHost, live: Option<&'a LiveLink>) -> Known<'a> {
    let tables = app.catalog.read();
    let host = tables.hosts.get(&proven.host);
    let seen = tables.seen.get(&proven.host);
    Known {
        host: host.map(|record| record.decided()),
        workspace: tables.workspaces.contains_key(&proven.workspace),
        counters: seen.map(|seen| gateway_core::clone::Counters {
            issued: seen.issued,
            confirmed: seen.confirmed,
        }),
        live: live.map(|live| CoreLink {
            instance: &live.instance,
            boot_id: &live.boot_id,
        }),
        late_return: app.config.agents.late_return,
        now: app.now(),
    }
}

/// Somebody who uses an identity that was taken from it is worth an entry.
async fn refuse_aloud(
    app: &App,
    proven: &ProvenHost,
    refused: Refused,
    from: SocketAddr,
) -> Refusal {
    if refused.superseded && crate::refusals::worth_an_entry(app, Some(from.ip())) {
        let entry = Origin::host(proven.host, from.ip()).entry(app.now(), "host.link");
        let entry = entry
            .on(proven.host)
            .with("generation", proven.generation)
            .refused("superseded identity");
        let scope = {
            let tables = app.catalog.read();
            let record = tables.hosts.get(&proven.host);
            record.and_then(|record| tables.scope_of(record.workspace))
        };
        let scope = scope.unwrap_or(model::tenancy::Scope::Deployment);
        crate::refusals::write(app, scope, entry).await;
    }
    refused.refusal
}

/// A certificate of ours whose host is not in the store, or has no identity there: the
/// store is older than the host (restored from a backup).
async fn adopt(app: &App, proven: &ProvenHost, from: SocketAddr) -> GatewayResult<()> {
    let now = app.now();
    let key = key_of::<HostRecordV1>(proven.host);
    edit::<HostRecordV1>(app, &key, |found, batch| {
        let record = match found {
            None => {
                history(batch, proven.host, now, HostEvent::Created, None)?;
                HostRecordV1::fresh(&Host::adopted(proven, now), now)
            }
            Some(record) if record.decided().is_older_than(proven) => {
                let host = record.decided().recognised(proven, now);
                record.with(&host)
            }
            Some(_) => return Ok(None),
        };
        Origin::host(proven.host, from.ip())
            .entry(now, "host.adopt")
            .on(proven.host)
            .with("generation", proven.generation)
            .noticed()
            .in_workspace(proven.workspace, batch);
        Ok(Some(record))
    })
    .await?;
    Ok(())
}

/// Whether the old link shows that it lives.
async fn probe(live: Option<&LiveLink>) -> bool {
    let Some(live) = live else { return false };
    let (reply, answered) = oneshot::channel();
    live.tell(ToSession::Probe(reply))
        && matches!(
            tokio::time::timeout(PROBE_WITHIN, answered).await,
            Ok(Ok(()))
        )
}

/// Writes down that the host is here, and the next counter.
async fn mark(
    app: &App,
    proven: &ProvenHost,
    hello: &Hello,
    carrier: Carrier,
    from: SocketAddr,
    replaces: Option<&LiveLink>,
) -> GatewayResult<Result<Seen, Evidence>> {
    let now = app.now();
    let address = from.ip().to_string();
    let arrival = Arrival {
        hello,
        carrier,
        address: &address,
        replaces: replaces.map(|link| link.carrier),
        now,
    };
    let mut verdict = None;
    let written = edit_seen(app, proven.host, |before, batch| {
        // One that was just adopted has its entry already.
        let issued = before.issued;
        let behind = hello.counter > issued && before.connectivity != Connectivity::Never;
        match before.welcomed(&arrival) {
            Ok((seen, events)) => {
                if behind {
                    tracing::warn!(host.id = %proven.host, "the host's counter is ahead of ours: this gateway's state is older than the host");
                    Origin::host(proven.host, from.ip())
                        .entry(now, "host.ahead")
                        .on(proven.host)
                        .with("counter", hello.counter)
                        .with("known", issued)
                        .with("incarnation", app.incarnation())
                        .noticed()
                        .in_workspace(proven.workspace, batch);
                }
                for event in events {
                    history(batch, proven.host, now, event, None)?;
                }
                Ok(Some(seen))
            }
            Err(evidence) => {
                verdict = Some(evidence);
                Ok(None)
            }
        }
    });
    let written = match written.await {
        Err(error) if error.code == ProblemCode::StorageFull => {
            tracing::warn!(host.id = %proven.host, "the disk is full: the host is welcome, and nothing about it is written down");
            return Ok(unwritten(app, proven, &arrival));
        }
        written => written?,
    };
    match (written, verdict) {
        (Some(seen), _) => Ok(Ok(seen)),
        (None, Some(evidence)) => Ok(Err(evidence)),
        (None, None) => Err(Error::conflict("the host was not written down")),
    }
}

/// Judges a newcomer by what is on record and leaves that as it is: a full disk must not
/// keep a fleet away. Its counter does not move until there is room, so that a copy made
/// meanwhile is told apart by its link alone.
fn unwritten(app: &App, proven: &ProvenHost, arrival: &Arrival<'_>) -> Result<Seen, Evidence> {
    let tables = app.catalog.read();
    let known = tables.seen.get(&proven.host);
    let known = known.map(|seen| Seen::from((**seen).clone()));
    let known = known.unwrap_or_else(|| Seen::never(arrival.now));
    known.clone().welcomed(arrival)?;
    Ok(known)
}

/// The first use of a new identity ends the one before it, and the record that a
/// repaired clone had meanwhile.
async fn settle(app: &App, proven: &ProvenHost, from: SocketAddr) -> GatewayResult<()> {
    let now = app.now();
    let (stale, leftovers) = {
        let tables = app.catalog.read();
        let record = tables.hosts.get(&proven.host);
        let identity = record.and_then(|record| record.decided().identity);
        let stale = identity.is_some_and(|identity| identity.used(proven).is_some());
        // Another machine's identity is taken over in a generation of its own: the
        // first one has no leftovers, and most hosts are in their first.
        let hosts = (proven.generation > 1).then(|| tables.hosts_of(proven.workspace));
        let leftovers: Vec<_> = hosts
            .into_iter()
            .flatten()
            .filter(|id| {
                let host = tables.hosts.get(id);
                host.is_some_and(|host| host.decided().became(proven))
            })
            .collect();
        (stale, leftovers)
    };
    if stale {
        edit_host(app, proven.host, |host, batch| {
            let Some(before) = host.identity else {
                return Ok(None);
            };
            if before.is_behind(proven) {
                Origin::host(proven.host, from.ip())
                    .entry(now, "host.ahead")
                    .on(proven.host)
                    .with("generation", proven.generation)
                    .with("known", before.generation)
                    .with("incarnation", app.incarnation())
                    .noticed()
                    .in_workspace(host.workspace, batch);
            }
            Ok(before.used(proven).map(|identity| Host {
                identity: Some(identity),
                ..host
            }))
        })
        .await?;
    }
    for leftover in leftovers {
        edit_host(app, leftover, |host, batch| {
            let quarantined = host.membership == Membership::Quarantined;
            let Some(gone) = host.retired(now).filter(|_| quarantined) else {
                return Ok(None);
            };
            let reason = format!("became {}", proven.host);
            history(batch, leftover, now, HostEvent::Retired { reason }, None)?;
            Origin::gateway()
                .entry(now, "host.retire")
                .on(leftover)
                .with("became", proven.host)
                .in_workspace(host.workspace, batch);
            Ok(Some(gone))
        })
        .await?;
    }
    Ok(())
}

/// Registers the link. What changed since the verdict is found by the session's
/// first look.
fn welcome(
    app: &App,
    connection: &quinn::Connection,
    proven: &ProvenHost,
    hello: &Hello,
    counter: u64,
    carrier: Carrier,
    from: SocketAddr,
) -> Result<Welcomed, Refusal> {
    let now = app.now();
    let frame = frame(app, proven, hello, counter, now)
        .ok_or_else(|| refuse::try_again(refuse::SOON, now))?;
    let new = NewLink {
        instance: hello.instance.clone(),
        boot_id: hello.boot_id.clone(),
        carrier,
        address: from,
        generation: proven.generation,
        connection: connection.clone(),
        renewal_only: proven.expired,
    };
    let (link, old) = app.links.register(proven.host, new, now);
    if let Some(old) = old {
        old.tell(ToSession::TakenOver);
    }
    Ok(Welcomed { frame, link })
}

fn frame(
    app: &App,
    proven: &ProvenHost,
    hello: &Hello,
    counter: u64,
    now: Timestamp,
) -> Option<Welcome> {
    let tables = app.catalog.read();
    let record = tables.hosts.get(&proven.host)?;
    let facts = tables.facts.get(&proven.host);
    let thresholds = tables
        .workspaces
        .get(&proven.workspace)
        .map(|workspace| workspace.thresholds)
        .unwrap_or_default();
    let hostname = facts.map(|facts| facts.hostname());
    let facts = facts.and_then(|facts| facts.record());
    let greeting = Greeting {
        host: &record.decided(),
        name: crate::view::name_of(record, hostname),
        counter,
        heartbeat_ms: thresholds.heartbeat_ms,
        expired: proven.expired,
        facts_digest: facts.map_or(&[], |facts| facts.digest.as_slice()),
        trust: issue::trust(app),
        lifetime: app.config.agents.certificate_lifetime,
        authority: app.ca.active_fingerprint(),
        now,
    };
    Some(greet(hello, greeting))
}

fn busy(error: &Error) -> Refusal {
    tracing::warn!(error = %error, "a link could not be written down");
    refuse::cannot_store(crate::app::wall_clock())
}
