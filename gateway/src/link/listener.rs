//! Takes in connections from UDP and from the carrier, finds out what they are,
//! and gives each to enrolment or to a session.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::link::accept::{Acceptor, AdmissionLimits, Handshake};
use ::link::carrier::Hub;
use ::link::frame::{Deadlines, FrameReader, write_message};
use ::link::identity::CertIdentity;
use ::link::tls::{Peer, Verifier, peer_of};
use model::host::Carrier;
use protocol::frame::MAX_ENROL_FRAME;
use protocol::v1::EnrolRequest;

use super::session::{self, Session};
use super::{ProvenHost, enrolment};
use crate::app::App;

/// For the one question and the one answer of an enrolment.
const ENROLMENT_WITHIN: Duration = Duration::from_secs(10);

/// Accepts on one endpoint until it is closed.
pub async fn accept(
    app: Arc<App>,
    mut acceptor: Acceptor,
    verifier: Arc<Verifier>,
    hub: Option<Arc<Hub>>,
) {
    while let Some(handshake) = acceptor.next().await {
        let tasks = app.tasks.clone();
        // What comes before the session is boxed, and given back when the session begins:
        // a link lives in this task for weeks.
        let newcomer = take_in(
            Arc::clone(&app),
            handshake,
            Arc::clone(&verifier),
            hub.clone(),
        );
        let newcomer = Box::pin(newcomer);
        tasks.spawn("link", async move {
            let session = newcomer.await;
            if let Some(session) = session {
                session.run().await;
            }
        });
    }
}

/// Limits for newcomers, by the size of this machine.
pub fn admission() -> AdmissionLimits {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    AdmissionLimits::for_cores(cores)
}

/// Finds out who it is, and answers a session if it is a host that is welcome.
async fn take_in(
    app: Arc<App>,
    handshake: Handshake,
    verifier: Arc<Verifier>,
    hub: Option<Arc<Hub>>,
) -> Option<Box<Session>> {
    let remote = handshake.remote();
    let connection = match handshake.finish().await {
        Ok(connection) => connection,
        Err(error) => {
            app.metrics.refused_handshake(error.reason());
            tracing::debug!(source = %remote, error = %model::error_chain(&error), "handshake failed");
            return None;
        }
    };
    let (carrier, from) = match &hub {
        Some(hub) => (Carrier::WebSocket, hub.remote_of(remote).unwrap_or(remote)),
        None => (Carrier::Udp, remote),
    };
    match peer_of(&connection, &verifier) {
        Ok(Peer::Enrolling) => enrol(&app, &connection, from).await,
        Ok(Peer::Agent(peer)) => {
            let CertIdentity::Agent {
                workspace,
                host,
                generation,
                ..
            } = peer.identity
            else {
                // The verifier lets only agents through.
                connection.close(1u32.into(), b"not an agent");
                return None;
            };
            let proven = ProvenHost {
                workspace,
                host,
                generation,
                spki_sha256: peer.spki_sha256.0,
                expired: peer.expired,
            };
            return session::begin(app, connection, proven, carrier, from).await;
        }
        Err(error) => {
            app.metrics.refused_handshake(error.reason());
            tracing::info!(source = %from, error = %model::error_chain(&error), "connection refused");
            connection.close(1u32.into(), b"certificate refused");
        }
    }
    None
}

async fn enrol(app: &Arc<App>, connection: &quinn::Connection, from: SocketAddr) {
    let Some(_place) = app.strangers.seat(from.ip()) else {
        app.metrics.enrolment("too_many");
        tracing::debug!(source = %from, "too many enrolments at a time");
        connection.close(3u32.into(), b"too many enrolments at a time");
        return;
    };
    let exchange = async {
        let (mut send, receive) = connection.accept_bi().await.ok()?;
        let deadlines = Deadlines {
            idle: ENROLMENT_WITHIN,
            frame: ENROLMENT_WITHIN,
        };
        let mut reader = FrameReader::new(receive, MAX_ENROL_FRAME, deadlines);
        let request: EnrolRequest = reader.next().await.ok()??;
        let reply = enrolment::answer(app, request, from).await;
        write_message(&mut send, &reply, MAX_ENROL_FRAME, ENROLMENT_WITHIN)
            .await
            .ok()?;
        send.finish().ok()?;
        // The answer is worth more than the time: let it arrive.
        let _ = send.stopped().await;
        Some(())
    };
    if !matches!(
        tokio::time::timeout(ENROLMENT_WITHIN, exchange).await,
        Ok(Some(()))
    ) {
        app.metrics.enrolment("broken_off");
        tracing::debug!(source = %from, "enrolment was broken off");
    }
    connection.close(0u32.into(), b"done");
}
