//! What a welcomed host says, and what it is told.

use gateway_core::host::Host;
use gateway_core::identity::{Asking, Identity, place};
use gateway_core::refuse::{SHORTLY, try_again};
use gateway_core::seen::End;
use gateway_core::session::{Tell, Wanted, deregistered, flooding, look, out_of_time};
use model::facts::Facts;
use model::host::HostEvent;
use model::ids::HostId;
use protocol::v1::{
    CounterStored, Goodbye, GoodbyeReason, HeartbeatAck, Probe, Refusal, RefusalCode, Reidentify,
    Renew, Settings, agent_frame, gateway_frame,
};
use std::time::Duration;

use super::Session;
use crate::app::App;
use crate::error::Result;
use crate::link::registry::ToSession;
use crate::link::{issue, refusal};
use crate::state::change::{Origin, history};
use crate::state::edit::{edit, edit_host, edit_seen};
use crate::state::records::{HostFactsRecordV1, key_of};

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
            agent_frame::Body::ProbeReply(reply) => {
                for (_, probe) in self.probes.extract_if(.., |it| it.0 == reply.nonce) {
                    let _ = probe.send(());
                }
                Ok(())
            }
            // What is written outlives the link, and so does the allowance for it.
            agent_frame::Body::CounterStored(_)
            | agent_frame::Body::Facts(_)
            | agent_frame::Body::Renew(_)
                if self
                    .app
                    .rates
                    .host_writes
                    .take(&self.proven.host, self.app.uptime())
                    .is_err() =>
            {
                Err(End::Dismissed(flooding(now)))
            }
            agent_frame::Body::CounterStored(stored) => Box::pin(self.counter_stored(stored)).await,
            // Nobody asked a host for them whose certificate is out of its time.
            agent_frame::Body::Facts(_) if self.proven.expired => Ok(()),
            agent_frame::Body::Facts(facts) => Box::pin(self.facts(*facts)).await,
            agent_frame::Body::Renew(renew) => Box::pin(self.renew(renew)).await,
            agent_frame::Body::Goodbye(goodbye) => Box::pin(self.goodbye(goodbye)).await,
            agent_frame::Body::Hello(_) => Err(End::Lost("a second hello".to_owned())),
        }
    }

    pub(super) async fn requested(&mut self, request: ToSession) -> Result<(), End> {
        match request {
            ToSession::Look => self.look().await,
            ToSession::TakenOver => Err(End::TakenOver),
            ToSession::Probe(reply) => {
                let nonce = u64::from_be_bytes(crate::keys::random());
                self.probes.push((nonce, reply));
                self.stream
                    .tell(gateway_frame::Body::Probe(Probe { nonce }))
                    .await
            }
        }
    }

    /// Compares what should be with what the agent was told, and tells the rest.
    pub(super) async fn look(&mut self) -> Result<(), End> {
        let (host, heartbeat_ms) = {
            let tables = self.app.catalog.read();
            let record = tables.hosts.get(&self.proven.host);
            let workspace = tables.workspaces.get(&self.proven.workspace);
            (
                record.map(|record| record.decided()),
                workspace.map(|workspace| workspace.thresholds.heartbeat_ms),
            )
        };
        let Some(host) = host else { return Ok(()) };
        let trust = issue::trust(&self.app);
        let wanted = Wanted {
            host: &host,
            heartbeat_ms,
            trust_version: trust.version,
            authority: self.app.ca.active_fingerprint(),
            dice: u32::from_be_bytes(crate::keys::random()),
            now: self.app.now(),
        };
        let news = look(&mut self.told, &self.proven, &wanted).map_err(End::Dismissed)?;
        for tell in news {
            let body = match tell {
                Tell::Reidentify => gateway_frame::Body::Reidentify(Reidentify {
                    reason:
                        "an operator decided that this machine takes over another host's identity"
                            .to_owned(),
                }),
                Tell::Settings { heartbeat_ms } => {
                    gateway_frame::Body::Settings(Settings { heartbeat_ms })
                }
                Tell::Trust => gateway_frame::Body::Trust(trust.clone()),
            };
            self.stream.tell(body).await?;
        }
        Ok(())
    }

    /// Raises the counter on a live link.
    pub(super) async fn advance(&mut self) -> Result<(), End> {
        if self.proven.expired {
            return Err(End::Dismissed(out_of_time(self.app.now())));
        }
        let raised = edit_seen(&self.app, self.proven.host, |seen, _| {
            Ok(Some(seen.advanced()))
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
        let written = edit_seen(&self.app, self.proven.host, |seen, _| {
            Ok(seen.confirmed(stored.counter))
        });
        if let Err(error) = written.await {
            // The next hello confirms it as well.
            tracing::debug!(host.id = %self.proven.host, error = %error, "a confirmation was not written down");
        }
        Ok(())
    }

    async fn facts(&mut self, facts: protocol::v1::Facts) -> Result<(), End> {
        let facts: Facts = facts.into();
        let digest = std::mem::take(&mut self.facts_digest);
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
        let app = &self.app;
        let host_of = |id: HostId| {
            let tables = app.catalog.read();
            let record = tables.hosts.get(&id);
            record.map(|record| record.decided())
        };
        let own = host_of(self.proven.host);
        let own = own.ok_or_else(|| try_again(SHORTLY, app.now()))?;
        let (target, asking) = match own.pending_adoption {
            Some(original) => (original, Asking::Heir),
            None => (
                self.proven.host,
                Asking::Holder {
                    generation: self.proven.generation,
                },
            ),
        };
        if issue::held_by_another(app, &spki.0, &[own.id, target]) {
            return Err(issue::key_taken());
        }
        let now = app.now();
        let counter = match asking {
            Asking::Heir => {
                let current = host_of(target).and_then(|host| host.identity);
                let place = place(current.as_ref(), &spki.0, asking, app.fence());
                let again = place.is_some_and(|place| place.again);
                inherited_counter(app, target, again)
                    .await
                    .map_err(failed)?
            }
            Asking::Holder { .. } => self.issued,
        };
        let mut grant = None;
        let written = edit_host(app, target, |host, batch| {
            if !host.is_live() {
                return Ok(None);
            }
            let place = place(host.identity.as_ref(), &spki.0, asking, app.fence());
            let Some(place) = place else { return Ok(None) };
            let signed = issue::issue(
                app,
                &renew.csr,
                host.workspace,
                host.id,
                place.generation,
                counter,
            )
            .map_err(|error| crate::error::Error::invalid("csr", error.to_string()))?;
            grant = Some(signed.grant);
            let event = HostEvent::CertificateRenewed {
                not_after: signed.identity.not_after,
            };
            history(batch, host.id, now, event, None)?;
            Origin::host(self.proven.host, self.link.address.ip())
                .entry(now, "host.certificate.renew")
                .on(host.id)
                .with("generation", place.generation)
                .in_workspace(host.workspace, batch);
            Ok(Some(Host {
                identity: Some(Identity {
                    previous: place.previous,
                    ..Identity::from(&signed.identity)
                }),
                ..host
            }))
        });
        let host = written.await.map_err(failed)?;
        let (Some(host), Some(grant)) = (host, grant) else {
            return Err(refusal(
                RefusalCode::Invalid,
                "the host that this machine should become is gone",
                Duration::from_secs(60),
            ));
        };
        if asking == Asking::Heir {
            let generation = host.identity.map(|identity| identity.generation);
            edit_host(app, own.id, |own, _| {
                Ok(Some(Host {
                    adopting_generation: generation,
                    ..own
                }))
            })
            .await
            .map_err(failed)?;
        }
        Ok(grant)
    }

    async fn goodbye(&mut self, goodbye: Goodbye) -> Result<(), End> {
        let reason = GoodbyeReason::try_from(goodbye.reason).unwrap_or(GoodbyeReason::Unspecified);
        // For good: not by a certificate that is out of its time.
        if reason == GoodbyeReason::Uninstalled && !self.proven.expired {
            if let Err(error) = retire_itself(&self.app, self.proven.host, self.link.address).await
            {
                tracing::warn!(host.id = %self.proven.host, error = %error, "an uninstalled host could not be retired");
                return Err(End::Goodbye(GoodbyeReason::Stopping));
            }
            return Err(End::Dismissed(deregistered(self.app.now())));
        }
        Err(End::Goodbye(reason))
    }

    fn spend(&mut self) -> Result<(), End> {
        if self.allowance.spend(self.app.uptime()) {
            return Ok(());
        }
        Err(End::Dismissed(flooding(self.app.now())))
    }
}

/// The counter with which a machine begins its life as `host`: past everything that
/// any copy of it can hold. One that is told once more goes on where it is.
async fn inherited_counter(app: &App, host: HostId, again: bool) -> Result<u64> {
    let seen = edit_seen(app, host, |seen, _| {
        Ok(Some(if again { seen } else { seen.taken_over() }))
    });
    Ok(seen.await?.map_or(1, |seen| seen.issued))
}

async fn retire_itself(app: &App, host: HostId, from: std::net::SocketAddr) -> Result<()> {
    let now = app.now();
    edit_host(app, host, |found, batch| {
        let Some(gone) = found.retired(now) else {
            return Ok(None);
        };
        let reason = "uninstalled on the host".to_owned();
        history(batch, host, now, HostEvent::Retired { reason }, None)?;
        Origin::host(host, from.ip())
            .entry(now, "host.retire")
            .on(host)
            .with("reason", "uninstalled")
            .in_workspace(found.workspace, batch);
        Ok(Some(gone))
    })
    .await?;
    Ok(())
}

/// Writes down that the link which was sent `issued` last has ended, unless the host
/// is linked again already or it is the gateway that goes.
pub(super) async fn write_down_loss(app: &App, host: HostId, issued: u64, end: &End) {
    let Some(loss) = end.loss() else { return };
    if app.links.is_linked(host) {
        return;
    }
    let now = app.now();
    let written = edit_seen(app, host, |seen, batch| {
        let Some((seen, event)) = seen.lost(issued, &loss, now) else {
            return Ok(None);
        };
        history(batch, host, now, event, None)?;
        Ok(Some(seen))
    });
    if let Err(error) = written.await {
        tracing::warn!(host.id = %host, error = %error, "the loss of a link was not written down");
    }
}
