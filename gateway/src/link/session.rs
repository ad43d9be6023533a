//! The control stream of one host.
//!
//! ```text
//! Hello ─ admit ─┬─ refused: say why, close
//!                ├─ a clone: quarantine it
//!                └─ welcome: registered, counter raised
//!                      │
//!                      ▼
//!   loop { frame from the agent | request from inside | hourly counter }
//!                      │
//!                      ▼
//!   deregistered; unless another link took over or the gateway stops, the loss
//!   is written down
//! ```
//!
//! One task owns the stream and everything about this link, so that nothing here
//! needs a lock. Whoever wants something from it asks through its mailbox.
//!
//! There are tens of thousands of these, and all they do is wait for a heartbeat. So
//! what a link does once or seldom is a boxed future: its state takes memory while it
//! runs, and not in every session all the time.

mod admit;
mod frames;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, ReadError, write_message};
use gateway_core::seen::End;
use gateway_core::session::{ADVANCE_EVERY, Allowance, Told, flooding};
use model::host::Carrier;
use protocol::frame::MAX_FRAME;
use protocol::v1::{AgentFrame, GatewayFrame, Hello, RefusalCode, agent_frame, gateway_frame};
use tokio::sync::{mpsc, oneshot};

use super::registry::{LiveLink, ToSession};
use super::{ProvenHost, quarantine, refusal};
use crate::app::App;

/// For the stream to open and the hello to come.
const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// For an agent to take a frame from us.
const WRITE_WITHIN: Duration = Duration::from_secs(10);
/// A frame that has begun must end.
const FRAME_WITHIN: Duration = Duration::from_secs(10);
/// Enough for a last frame to arrive before the connection is closed.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The control stream, both ways.
struct Stream {
    reader: FrameReader<quinn::RecvStream>,
    send: quinn::SendStream,
    app: Arc<App>,
    /// For frames of unknown kinds, which nobody but the reader sees.
    unknown: Allowance,
}

impl Stream {
    async fn tell(&mut self, body: gateway_frame::Body) -> Result<(), End> {
        let frame = GatewayFrame { body: Some(body) };
        let written = write_message(&mut self.send, &frame, MAX_FRAME, WRITE_WITHIN).await;
        written.map_err(|error| End::Lost(model::error_chain(&error)))
    }

    async fn next(&mut self) -> Result<agent_frame::Body, End> {
        let mut paused = self.app.links.pulse().1;
        loop {
            match self.reader.next::<AgentFrame>().await {
                // It was this process that was not there. Whether the agent is, shows now.
                Err(ReadError::Idle(_)) if self.app.links.pulse().1 > paused => {
                    paused = self.app.links.pulse().1;
                }
                // A frame of a kind that this version does not know.
                Ok(Some(AgentFrame { body: None })) => {
                    if !self.unknown.spend(self.app.uptime()) {
                        return Err(End::Dismissed(flooding(self.app.now())));
                    }
                }
                Ok(Some(AgentFrame { body: Some(body) })) => return Ok(body),
                Ok(None) => return Err(End::Lost("the agent closed its stream".to_owned())),
                Err(error) => return Err(End::Lost(model::error_chain(&error))),
            }
        }
    }
}

/// A welcomed host's link, as its task sees it.
struct Session {
    app: Arc<App>,
    proven: ProvenHost,
    link: Arc<LiveLink>,
    stream: Stream,
    mailbox: mpsc::Receiver<ToSession>,
    probes: Vec<oneshot::Sender<()>>,
    hello: Hello,
    /// Newest counter sent.
    issued: u64,
    /// What the agent was told, so that only changes are told again.
    told: Told,
    allowance: Allowance,
}

/// Serves one connection until it ends.
pub async fn run(
    app: Arc<App>,
    connection: quinn::Connection,
    proven: ProvenHost,
    carrier: Carrier,
    from: SocketAddr,
) {
    let opened = tokio::time::timeout(HELLO_WITHIN, connection.accept_bi()).await;
    let Ok(Ok((send, receive))) = opened else {
        connection.close(2u32.into(), b"no control stream");
        return;
    };
    let idle = app
        .catalog
        .read()
        .workspaces
        .get(&proven.workspace)
        .map(|workspace| workspace.thresholds)
        .unwrap_or_default();
    let deadlines = Deadlines {
        idle: Duration::from_millis(idle.unreachable_ms.into()).max(HELLO_WITHIN),
        frame: FRAME_WITHIN,
    };
    let mut stream = Stream {
        reader: FrameReader::new(receive, MAX_FRAME, deadlines),
        send,
        unknown: Allowance::new(app.uptime()),
        app: Arc::clone(&app),
    };
    let first = tokio::time::timeout(HELLO_WITHIN, stream.next()).await;
    let Ok(Ok(agent_frame::Body::Hello(hello))) = first else {
        connection.close(2u32.into(), b"hello expected");
        return;
    };
    let admitted = Box::pin(admit::admit(&app, &proven, &hello, carrier, from)).await;
    let refused = match admitted {
        Ok(admit::Outcome::Welcome(welcome)) => {
            serve(
                app,
                &connection,
                stream,
                proven,
                hello,
                *welcome,
                carrier,
                from,
            )
            .await;
            return;
        }
        Ok(admit::Outcome::Clone(evidence)) => {
            Box::pin(quarantine::receive(
                &app,
                &proven,
                evidence,
                &mut stream_parts(&mut stream),
                from,
            ))
            .await
        }
        Err(refused) => Some(refused),
    };
    if let Some(refused) = refused {
        app.metrics.refused_handshake("refused");
        tracing::info!(host.id = %proven.host, source = %from, code = refused.code, reason = refused.message, "link refused");
        let _ = stream.tell(gateway_frame::Body::Refused(refused)).await;
    }
    Box::pin(finish(&mut stream, &connection)).await;
}

/// What quarantine needs of the stream.
struct Parts<'a>(&'a mut Stream);

fn stream_parts(stream: &mut Stream) -> Parts<'_> {
    Parts(stream)
}

impl quarantine::Talk for Parts<'_> {
    async fn ask_for_key(&mut self, reason: String) -> Option<Vec<u8>> {
        let reidentify = protocol::v1::Reidentify { reason };
        self.0
            .tell(gateway_frame::Body::Reidentify(reidentify))
            .await
            .ok()?;
        // One limit for all of it: who keeps talking of other things must not stay.
        tokio::time::timeout(HELLO_WITHIN, async {
            loop {
                match self.0.next().await {
                    Ok(agent_frame::Body::Renew(renew)) => return Some(renew.csr),
                    // Whatever else a host says while it is asked is of no interest.
                    Ok(_) => {}
                    Err(_) => return None,
                }
            }
        })
        .await
        .ok()
        .flatten()
    }

    async fn grant(&mut self, grant: protocol::v1::Grant) {
        let _ = self.0.tell(gateway_frame::Body::Renewed(grant)).await;
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "everything one link is made of, used once"
)]
async fn serve(
    app: Arc<App>,
    connection: &quinn::Connection,
    mut stream: Stream,
    proven: ProvenHost,
    hello: Hello,
    welcome: admit::Welcomed,
    carrier: Carrier,
    from: SocketAddr,
) {
    let _counted = app.metrics.link(carrier.as_str());
    let told = Told::after(&hello, &welcome.frame, app.ca.active_fingerprint());
    let issued = welcome.frame.counter;
    let (end, issued) = match stream
        .tell(gateway_frame::Body::Welcome(welcome.frame))
        .await
    {
        Err(end) => {
            app.links.deregister(proven.host, welcome.link.id);
            Box::pin(frames::write_down_loss(&app, proven.host, issued, &end)).await;
            return;
        }
        Ok(()) => {
            tracing::info!(host.id = %proven.host, source = %from, carrier = %carrier, version = %hello.agent_version, "host linked");
            let mut session = Session {
                app: Arc::clone(&app),
                proven,
                link: welcome.link,
                stream,
                mailbox: welcome.mailbox,
                probes: Vec::new(),
                hello,
                issued,
                told,
                allowance: Allowance::new(app.uptime()),
            };
            let end = session.talk().await;
            stream = session.stream;
            app.links.deregister(proven.host, session.link.id);
            (end, session.issued)
        }
    };
    tracing::info!(host.id = %proven.host, end = ?end, "link ended");
    match &end {
        End::Dismissed(why) => {
            let _ = stream.tell(gateway_frame::Body::Refused(why.clone())).await;
        }
        End::Stopping => {
            let spread =
                Duration::from_millis(u64::from(u16::from_be_bytes(crate::keys::random())) % 2000);
            let why = refusal(
                RefusalCode::Draining,
                "the gateway is restarting",
                Duration::from_millis(500) + spread,
            );
            let _ = stream.tell(gateway_frame::Body::Refused(why)).await;
        }
        End::Lost(_) | End::Goodbye(_) | End::TakenOver => {}
    }
    Box::pin(finish(&mut stream, connection)).await;
    Box::pin(frames::write_down_loss(&app, proven.host, issued, &end)).await;
}

impl Session {
    async fn talk(&mut self) -> End {
        let mut advance =
            tokio::time::interval_at(tokio::time::Instant::now() + ADVANCE_EVERY, ADVANCE_EVERY);
        // What happened between the admission's reading and the registration.
        if let Err(end) = Box::pin(self.look()).await {
            return end;
        }
        let app = Arc::clone(&self.app);
        loop {
            let step = tokio::select! {
                biased;
                () = app.tasks.stop().cancelled() => return End::Stopping,
                request = self.mailbox.recv() => match request {
                    Some(request) => Box::pin(self.requested(request)).await,
                    None => return End::TakenOver,
                },
                frame = self.stream.next() => match frame {
                    Ok(body) => self.arrived(body).await,
                    Err(end) => Err(end),
                },
                _ = advance.tick() => Box::pin(self.advance()).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }
}

/// Lets the last frame arrive, then closes.
async fn finish(stream: &mut Stream, connection: &quinn::Connection) {
    let _ = stream.send.finish();
    let _ = tokio::time::timeout(LAST_WORDS, stream.send.stopped()).await;
    connection.close(0u32.into(), b"done");
}
