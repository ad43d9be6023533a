//! What a welcomed host says, and what it is told.

use gateway_store::Batch;
use model::facts::Facts;
use model::host::{Connectivity, HostEvent, Membership};
use model::ids::HostId;
use protocol::v1::{
    CounterStored, Goodbye, GoodbyeReason, HeartbeatAck, Probe, Refusal, RefusalCode, Reidentify,
    Renew, Settings, agent_frame, gateway_frame,
};
use std::time::Duration;

use super::{End, FRAMES_BURST, FRAMES_PER_SECOND, Session};
use crate::app::App;
use crate::error::Result;
use crate::link::registry::ToSession;
use crate::link::{issue, refusal};
use crate::state::change::{Origin, history};
use crate::state::edit::edit;
use crate::state::records::{
    HostFactsRecordV1, HostRecordV1, HostSeenRecordV1, IdentityV1, key_of,
};

/// Reconnects that follow from a decision may come at once; those of a whole
/// fleet are spread.
const AT_ONCE: Duration = Duration::from_millis(100);
const SPREAD_MS: u32 = 30_000;

impl Session {
    pub(super) async fn arrived(&mut self, body: agent_frame::Body) -> Result<(), End> {
        self.spend()?;
        let now = self.app.now();
        self.app.links.heard(self.proven.host, now);
        match body {
            agent_frame::Body::Heartbeat(heartbeat) => {
                self.app.metrics.heartbeats.inc();
                let ack = HeartbeatAck {
                    sequence: heartbeat.sequence,
                    server_time_ms: now.as_millis(),
                };
                self.stream
                    .tell(gateway_frame::Body::HeartbeatAck(ack))
                    .await
            }
            agent_frame::Body::ProbeReply(_) => {
                for probe in self.probes.drain(..) {
                    let _ = probe.send(());
                }
                Ok(())
            }
            agent_frame::Body::CounterStored(stored) => self.counter_stored(stored).await,
            agent_frame::Body::Facts(facts) => self.facts(facts).await,
            agent_frame::Body::Renew(renew) => self.renew(renew).await,
            agent_frame::Body::Goodbye(goodbye) => self.goodbye(goodbye).await,
            agent_frame::Body::Hello(_) => Err(End::Lost("a second hello".to_owned())),
        }
    }

    pub(super) async fn requested(&mut self, request: ToSession) -> Result<(), End> {
        match request {
            ToSession::Look => self.look().await,
            ToSession::TakenOver => Err(End::TakenOver),
            ToSession::Probe(reply) => {
                self.probes.push(reply);
                let nonce = u64::from_be_bytes(crate::keys::random());
                self.stream
                    .tell(gateway_frame::Body::Probe(Probe { nonce }))
                    .await
            }
        }
    }

    /// Compares what should be with what the agent was told, and tells the rest.
    pub(super) async fn look(&mut self) -> Result<(), End> {
        let (record, thresholds) = {
            let tables = self.app.catalog.read();
            let record = tables.hosts.get(&self.proven.host).cloned();
            (
                record,
                tables
                    .workspaces
                    .get(&self.proven.workspace)
                    .map(|workspace| workspace.thresholds),
            )
        };
        let Some(record) = record else { return Ok(()) };
        if record.membership == Membership::Retired {
            return Err(End::Dismissed(refusal(
                RefusalCode::HostRetired,
                "this host was retired",
                Duration::from_secs(300),
            )));
        }
        let in_force = record.identity.as_ref().is_some_and(|identity| {
            self.proven.generation >= identity.generation
                || identity.previous == Some(self.proven.generation)
        });
        if !in_force {
            let why = "another machine holds this host's identity by an operator's decision";
            return Err(End::Dismissed(refusal(
                RefusalCode::Superseded,
                why,
                Duration::from_secs(300),
            )));
        }
        if self.told.quarantined && record.membership == Membership::Managed {
            return Err(End::Dismissed(refusal(
                RefusalCode::Unspecified,
                "this host is managed now; reconnect",
                AT_ONCE,
            )));
        }
        if record.pending_adoption.is_some() && !self.told.reidentify {
            self.told.reidentify = true;
            let reason = "an operator decided that this machine takes over another host's identity"
                .to_owned();
            self.stream
                .tell(gateway_frame::Body::Reidentify(Reidentify { reason }))
                .await?;
        }
        if let Some(thresholds) = thresholds
            && thresholds.heartbeat_ms != self.told.heartbeat_ms
        {
            self.told.heartbeat_ms = thresholds.heartbeat_ms;
            let settings = Settings {
                heartbeat_ms: thresholds.heartbeat_ms,
            };
            self.stream
                .tell(gateway_frame::Body::Settings(settings))
                .await?;
        }
        let trust = issue::trust(&self.app);
        if trust.version > self.told.trust_version {
            self.told.trust_version = trust.version;
            self.stream.tell(gateway_frame::Body::Trust(trust)).await?;
        }
        // Promoted while this link was up: its certificate should come from the
        // new authority, and a welcome is what asks for that.
        if self.told.authority != self.app.ca.active_fingerprint() {
            let spread = u32::from_be_bytes(crate::keys::random()) % SPREAD_MS;
            let why = "another authority signs certificates; reconnect to renew";
            return Err(End::Dismissed(refusal(
                RefusalCode::Unspecified,
                why,
                Duration::from_millis(spread.into()),
            )));
        }
        Ok(())
    }

    /// Raises the counter on a live link.
    pub(super) async fn advance(&mut self) -> Result<(), End> {
        let key = key_of::<HostSeenRecordV1>(self.proven.host);
        let raised = edit::<HostSeenRecordV1>(&self.app, &key, |seen, _: &mut Batch| {
            // One step at a time: an unconfirmed one is sent again as it is.
            Ok(seen.map(|seen| HostSeenRecordV1 {
                issued: seen.issued.max(seen.confirmed.saturating_add(1)),
                ..seen
            }))
        });
        match raised.await {
            Ok(Some(seen)) => {
                self.issued = seen.issued;
                self.stream
                    .tell(gateway_frame::Body::Advance(CounterStored {
                        counter: seen.issued,
                    }))
                    .await
            }
            Ok(None) => Ok(()),
            Err(error) => {
                tracing::debug!(host.id = %self.proven.host, error = %error, "the counter stays for now");
                Ok(())
            }
        }
    }

    async fn counter_stored(&mut self, stored: CounterStored) -> Result<(), End> {
        if stored.counter != self.issued {
            return Ok(());
        }
        let key = key_of::<HostSeenRecordV1>(self.proven.host);
        let written = edit::<HostSeenRecordV1>(&self.app, &key, |seen, _: &mut Batch| {
            Ok(seen
                .filter(|seen| stored.counter > seen.confirmed)
                .map(|seen| HostSeenRecordV1 {
                    confirmed: stored.counter,
                    ..seen
                }))
        });
        if let Err(error) = written.await {
            // The next hello confirms it as well.
            tracing::debug!(host.id = %self.proven.host, error = %error, "a confirmation was not written down");
        }
        Ok(())
    }

    async fn facts(&mut self, facts: protocol::v1::Facts) -> Result<(), End> {
        let facts: Facts = facts.into();
        let digest = std::mem::take(&mut self.hello.facts_digest);
        let host = self.proven.host;
        let now = self.app.now();
        let key = key_of::<HostFactsRecordV1>(host);
        let written = edit::<HostFactsRecordV1>(&self.app, &key, |before, batch| {
            if let Some(before) = &before
                && before.facts.hostname != facts.hostname
                && !before.facts.hostname.is_empty()
            {
                let event = HostEvent::HostnameChanged {
                    from: before.facts.hostname.clone(),
                    to: facts.hostname.clone(),
                };
                history(batch, host, now, event, None)?;
            }
            Ok(Some(HostFactsRecordV1 {
                digest: digest.clone(),
                facts: facts.clone(),
                at: now,
            }))
        });
        if let Err(error) = written.await {
            tracing::debug!(host.id = %host, error = %error, "facts were not written down; the next link brings them again");
        }
        Ok(())
    }

    async fn renew(&mut self, renew: Renew) -> Result<(), End> {
        let body = match self.signed(&renew).await {
            Ok(grant) => gateway_frame::Body::Renewed(grant),
            Err(refused) => {
                tracing::info!(host.id = %self.proven.host, reason = refused.message, "renewal refused");
                gateway_frame::Body::RenewRefused(refused)
            }
        };
        self.stream.tell(body).await
    }

    /// A certificate for the same host, or for the host it was decided to become.
    async fn signed(&mut self, renew: &Renew) -> Result<protocol::v1::Grant, Refusal> {
        let failed = |error: crate::error::Error| {
            refusal(
                RefusalCode::Unavailable,
                error.detail,
                Duration::from_secs(5),
            )
        };
        let invalid = |error: crate::ca::CaError| {
            refusal(
                RefusalCode::Invalid,
                error.to_string(),
                Duration::from_secs(60),
            )
        };
        let spki = self.app.ca.csr_key(&renew.csr).map_err(invalid)?;
        let own = self
            .app
            .catalog
            .read()
            .hosts
            .get(&self.proven.host)
            .cloned();
        let own = own.ok_or_else(|| {
            refusal(
                RefusalCode::Unavailable,
                "try again",
                Duration::from_secs(5),
            )
        })?;
        let (target, adopting) = match own.pending_adoption {
            Some(original) => (original, true),
            None => (self.proven.host, false),
        };
        let app = &self.app;
        let now = app.now();
        let counter = if adopting {
            adopted_counter(app, target).await.map_err(failed)?
        } else {
            self.issued
        };
        let mut grant = None;
        let key = key_of::<HostRecordV1>(target);
        let written = edit::<HostRecordV1>(app, &key, |found, batch| {
            let Some(record) = found.filter(|record| record.membership != Membership::Retired)
            else {
                return Ok(None);
            };
            let current = record.identity.as_ref();
            let current_generation = current.map_or(0, |identity| identity.generation);
            let same_key = current.is_some_and(|identity| {
                identity.spki_sha256 == spki.0 || identity.spki_sha256 == [0; 32]
            });
            let generation = if same_key && !adopting {
                current_generation.max(1)
            } else {
                current_generation + 1
            };
            let signed = issue::issue(
                app,
                &renew.csr,
                record.workspace,
                record.id,
                generation,
                counter,
            )
            .map_err(|error| crate::error::Error::invalid("csr", error.to_string()))?;
            grant = Some(signed.grant);
            let previous = (!adopting && !same_key).then_some(self.proven.generation);
            let event = HostEvent::CertificateRenewed {
                not_after: signed.identity.not_after,
            };
            history(batch, record.id, now, event, None)?;
            Origin::host(self.proven.host, self.link.address.ip())
                .entry(now, "host.certificate.renew")
                .on(record.id)
                .with("generation", generation)
                .in_workspace(record.workspace, batch);
            Ok(Some(HostRecordV1 {
                identity: Some(IdentityV1 {
                    previous,
                    ..signed.identity
                }),
                ..record
            }))
        });
        let record = written.await.map_err(failed)?;
        let (Some(record), Some(grant)) = (record, grant) else {
            return Err(refusal(
                RefusalCode::Invalid,
                "the host that this machine should become is gone",
                Duration::from_secs(60),
            ));
        };
        if adopting {
            let generation = record.identity.as_ref().map(|identity| identity.generation);
            edit::<HostRecordV1>(
                app,
                &key_of::<HostRecordV1>(own.id),
                |found, _: &mut Batch| {
                    Ok(found.map(|record| HostRecordV1 {
                        adopting_generation: generation,
                        ..record
                    }))
                },
            )
            .await
            .map_err(failed)?;
        }
        Ok(grant)
    }

    async fn goodbye(&mut self, goodbye: Goodbye) -> Result<(), End> {
        let reason = GoodbyeReason::try_from(goodbye.reason).unwrap_or(GoodbyeReason::Unspecified);
        if reason == GoodbyeReason::Uninstalled {
            if let Err(error) = retire_itself(&self.app, self.proven.host, self.link.address).await
            {
                tracing::warn!(host.id = %self.proven.host, error = %error, "an uninstalled host could not be retired");
                return Err(End::Goodbye(GoodbyeReason::Stopping));
            }
            return Err(End::Dismissed(refusal(
                RefusalCode::HostRetired,
                "goodbye",
                Duration::from_secs(300),
            )));
        }
        Err(End::Goodbye(reason))
    }

    /// A token bucket against an agent that floods its control stream.
    fn spend(&mut self) -> Result<(), End> {
        let now = tokio::time::Instant::now();
        let refill = (now - self.allowance_at).as_secs_f64() * FRAMES_PER_SECOND;
        self.allowance = (self.allowance + refill).min(FRAMES_BURST) - 1.0;
        self.allowance_at = now;
        if self.allowance >= 0.0 {
            return Ok(());
        }
        Err(End::Dismissed(refusal(
            RefusalCode::RateLimited,
            "too many frames on the control stream",
            Duration::from_secs(30),
        )))
    }
}

/// The counter with which a machine begins its life as `host`: past everything
/// that any copy of it can hold.
async fn adopted_counter(app: &App, host: HostId) -> Result<u64> {
    let now = app.now();
    let key = key_of::<HostSeenRecordV1>(host);
    let seen = edit::<HostSeenRecordV1>(app, &key, |seen, _: &mut Batch| {
        let seen = seen.unwrap_or_else(|| HostSeenRecordV1::never(now));
        let next = seen.issued.max(seen.confirmed).saturating_add(1);
        Ok(Some(HostSeenRecordV1 {
            issued: next,
            confirmed: next,
            ..seen
        }))
    });
    Ok(seen.await?.map_or(1, |seen| seen.issued))
}

async fn retire_itself(app: &App, host: HostId, from: std::net::SocketAddr) -> Result<()> {
    let now = app.now();
    edit::<HostRecordV1>(app, &key_of::<HostRecordV1>(host), |found, batch| {
        let Some(record) = found.filter(|record| record.membership != Membership::Retired) else {
            return Ok(None);
        };
        history(
            batch,
            host,
            now,
            HostEvent::Retired {
                reason: "uninstalled on the host".to_owned(),
            },
            None,
        )?;
        Origin::host(host, from.ip())
            .entry(now, "host.retire")
            .on(host)
            .with("reason", "uninstalled")
            .in_workspace(record.workspace, batch);
        Ok(Some(crate::handlers::host::retired(&record, now)))
    })
    .await?;
    Ok(())
}

/// Writes down that a link ended, unless the host is linked again already or it
/// is the gateway that goes.
pub(super) async fn write_down_loss(app: &App, host: HostId, end: &End) {
    let (reason, planned) = match end {
        End::Lost(why) => (model::names::clean(why, 200), false),
        End::Goodbye(GoodbyeReason::Stopping) => ("the agent was stopped".to_owned(), true),
        End::Goodbye(GoodbyeReason::HostShutdown) => ("the host is shutting down".to_owned(), true),
        End::Goodbye(GoodbyeReason::CarrierChange) | End::TakenOver | End::Stopping => return,
        End::Goodbye(_) => ("the agent said goodbye".to_owned(), true),
        End::Dismissed(why) => (why.message.clone(), true),
    };
    if app.links.is_linked(host) {
        return;
    }
    let now = app.now();
    let key = key_of::<HostSeenRecordV1>(host);
    let written = edit::<HostSeenRecordV1>(app, &key, |seen, batch| {
        let Some(seen) = seen.filter(|_| !app.links.is_linked(host)) else {
            return Ok(None);
        };
        history(
            batch,
            host,
            now,
            HostEvent::LinkLost {
                reason: reason.clone(),
            },
            None,
        )?;
        Ok(Some(HostSeenRecordV1 {
            connectivity: Connectivity::Late,
            since: now,
            last_seen_at: Some(now),
            said_goodbye: planned,
            ..seen
        }))
    });
    if let Err(error) = written.await {
        tracing::warn!(host.id = %host, error = %error, "the loss of a link was not written down");
    }
}
