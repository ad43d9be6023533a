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
//! There are tens of thousands of these, and all they do is wait for a frame. A future has
//! room for whatever it may ever do, so everything but the waiting is a boxed future: its
//! state takes memory while it runs, and not in every session all the time. With all of it
//! in one future, a link's task took 5.2 KiB.

mod admit;
mod frames;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, ReadError, write_message};
use gateway_core::seen::End;
use gateway_core::session::{ADVANCE_EVERY, Allowance, RENEW_WITHIN, Told, flooding};
use model::host::Carrier;
use protocol::frame::MAX_FRAME;
use protocol::v1::{AgentFrame, GatewayFrame, Hello, RefusalCode, agent_frame, gateway_frame};
use tokio::sync::oneshot;

use super::registry::LiveLink;
use super::{ProvenHost, quarantine, refusal};
use crate::app::App;
use crate::metrics::Counted;

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
                Err(error) => {
                    if matches!(error, ReadError::Codec(_)) {
                        self.app.metrics.dismissed("malformed");
                    }
                    return Err(End::Lost(model::error_chain(&error)));
                }
            }
        }
    }
}

/// A welcomed host's link, as its task sees it.
pub struct Session {
    app: Arc<App>,
    connection: quinn::Connection,
    proven: ProvenHost,
    link: Arc<LiveLink>,
    stream: Stream,
    /// Asked, each with what its answer must repeat.
    probes: Vec<(u64, oneshot::Sender<()>)>,
    /// Digest of the facts that the agent has announced.
    facts_digest: Vec<u8>,
    /// Newest counter sent.
    issued: u64,
    /// What the agent was told, so that only changes are told again.
    told: Told,
    allowance: Allowance,
    _counted: Counted,
}

/// Hears a newcomer's hello, and answers it. `None` when that was all.
pub async fn begin(
    app: Arc<App>,
    connection: quinn::Connection,
    proven: ProvenHost,
    carrier: Carrier,
    from: SocketAddr,
) -> Option<Box<Session>> {
    let opened = tokio::time::timeout(HELLO_WITHIN, connection.accept_bi()).await;
    let Ok(Ok((send, receive))) = opened else {
        app.metrics.refused_handshake("no_stream");
        connection.close(2u32.into(), b"no control stream");
        return None;
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
        app.metrics.refused_handshake("no_hello");
        connection.close(2u32.into(), b"hello expected");
        return None;
    };
    let refused = match admit::admit(&app, &connection, &proven, &hello, carrier, from).await {
        Ok(admit::Outcome::Welcome(welcome)) => {
            return greet(
                app, connection, stream, proven, hello, *welcome, carrier, from,
            )
            .await;
        }
        Ok(admit::Outcome::Clone(evidence)) => {
            let mut talk = stream_parts(&mut stream);
            quarantine::receive(&app, &proven, evidence, &mut talk, from).await
        }
        Err(refused) => Some(refused),
    };
    if let Some(refused) = refused {
        app.metrics.refused_handshake("refused");
        tracing::info!(host.id = %proven.host, source = %from, code = refused.code, reason = refused.message, "link refused");
        let _ = stream.tell(gateway_frame::Body::Refused(refused)).await;
    }
    finish(&mut stream, &connection).await;
    None
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

/// Says welcome to a host that is registered already.
#[expect(
    clippy::too_many_arguments,
    reason = "everything one link is made of, used once"
)]
async fn greet(
    app: Arc<App>,
    connection: quinn::Connection,
    mut stream: Stream,
    proven: ProvenHost,
    hello: Hello,
    welcome: admit::Welcomed,
    carrier: Carrier,
    from: SocketAddr,
) -> Option<Box<Session>> {
    let counted = app.metrics.link(carrier.as_str());
    let told = Told::after(&hello, &welcome.frame, app.ca.active_fingerprint());
    let issued = welcome.frame.counter;
    if let Err(end) = stream
        .tell(gateway_frame::Body::Welcome(welcome.frame))
        .await
    {
        app.links.deregister(proven.host, welcome.link.id);
        frames::write_down_loss(&app, proven.host, issued, &end).await;
        return None;
    }
    tracing::info!(host.id = %proven.host, source = %from, carrier = %carrier, version = %hello.agent_version, "host linked");
    let allowance = Allowance::new(app.uptime());
    Some(Box::new(Session {
        app,
        connection,
        proven,
        link: welcome.link,
        stream,
        probes: Vec::new(),
        facts_digest: hello.facts_digest,
        issued,
        told,
        allowance,
        _counted: counted,
    }))
}

impl Session {
    /// Serves the link until it ends.
    pub async fn run(mut self: Box<Self>) {
        let end = self.talk().await;
        Box::pin(self.end(end)).await;
    }

    async fn talk(&mut self) -> End {
        // One timer for both: no link of an expired certificate sees its first hour.
        let first = if self.proven.expired {
            RENEW_WITHIN
        } else {
            ADVANCE_EVERY
        };
        let mut advance =
            tokio::time::interval_at(tokio::time::Instant::now() + first, ADVANCE_EVERY);
        // What happened between the admission's reading and the registration.
        if let Err(end) = Box::pin(self.look()).await {
            return end;
        }
        let app = Arc::clone(&self.app);
        loop {
            let step = tokio::select! {
                biased;
                () = app.tasks.stop().cancelled() => return End::Stopping,
                request = self.link.asked() => Box::pin(self.requested(request)).await,
                frame = self.stream.next() => match frame {
                    Ok(body) => Box::pin(self.arrived(body)).await,
                    Err(end) => Err(end),
                },
                _ = advance.tick() => Box::pin(self.advance()).await,
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Leaves the registry, says why, and writes down what is worth it.
    async fn end(mut self: Box<Self>, end: End) {
        self.app.links.deregister(self.proven.host, self.link.id);
        tracing::info!(host.id = %self.proven.host, end = ?end, "link ended");
        let last_words = match &end {
            End::Dismissed(why) => {
                self.app.metrics.dismissed(match why.code() {
                    RefusalCode::RateLimited => "flooding",
                    RefusalCode::HostRetired => "retired",
                    RefusalCode::Superseded => "superseded",
                    _ => "reconnect",
                });
                Some(why.clone())
            }
            End::Stopping => {
                let spread = u64::from(u16::from_be_bytes(crate::keys::random())) % 2000;
                Some(refusal(
                    RefusalCode::Draining,
                    "the gateway is restarting",
                    Duration::from_millis(500 + spread),
                ))
            }
            End::Lost(_) | End::Goodbye(_) | End::TakenOver => None,
        };
        if let Some(why) = last_words {
            let _ = self.stream.tell(gateway_frame::Body::Refused(why)).await;
        }
        finish(&mut self.stream, &self.connection).await;
        frames::write_down_loss(&self.app, self.proven.host, self.issued, &end).await;
    }
}

impl Drop for Session {
    /// However it ends, nobody shall wait for its answer.
    fn drop(&mut self) {
        self.link.close();
    }
}

/// Lets the last frame arrive, then closes.
async fn finish(stream: &mut Stream, connection: &quinn::Connection) {
    let _ = stream.send.finish();
    let _ = tokio::time::timeout(LAST_WORDS, stream.send.stopped()).await;
    connection.close(0u32.into(), b"done");
}
