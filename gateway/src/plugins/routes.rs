//! Requests of plugins that leave through an agent.
//!
//! A route of a grant names hosts. The first that is linked is asked to open a way, and the next
//! one when it has none to give: a refusal comes before anything was sent, so that trying
//! elsewhere repeats nothing. Once a way is open there is no other: what was sent by it may have
//! arrived, and whoever sent it hears so.
//!
//! The client of requests is made before the gateway is, so the routes learn of it later
//! ([`LinkRoutes::attach`]); nothing is called before that.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use ::link::frame::{Deadlines, FrameReader, MAX_FRAME, ReadError, write_message};
use async_trait::async_trait;
use egress::{RouteRule, RouteTarget, Routed, Routes, Transport, Way, code};
use model::host::Membership;
use model::ids::HostId;
use model::names::clean;
use model::plugin::Route;
use model::plugin::wake::Mac;
use model::selector::Selector;
use plugin_host::ports::{CallContext, ErrorKind, GuestError};
use protocol::v1::{
    ForwardRefusal, ForwardReply, ForwardRequest, ForwardRule, ForwardTarget, ForwardWake, Opening,
    forward_reply, forward_request, opening,
};
use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use crate::app::App;
use crate::link::registry::LiveLink;

/// Most hosts of a route that are asked for one request.
const ASKED: usize = 4;
/// The longest that a host is given to open a way. It allows itself no more.
const LONGEST: Duration = Duration::from_secs(30);
/// What the host is given less than the asker, so that its own words arrive in time.
const MARGIN: Duration = Duration::from_millis(250);
/// For a packet that wakes a machine.
const WAKING: Duration = Duration::from_secs(10);
/// Longest reason of a host that is passed on.
const MAX_REASON: usize = 300;
/// Told to a host whose way nobody uses any more.
const NOT_WANTED: VarInt = VarInt::from_u32(0);
/// What an agent says to a stream of a kind that it does not know.
const UNKNOWN_KIND: VarInt = VarInt::from_u32(1);

/// Routes over the links of this gateway.
#[derive(Default)]
pub struct LinkRoutes(OnceLock<Weak<App>>);

impl LinkRoutes {
    /// From now on over the links of `app`.
    pub fn attach(&self, app: &Arc<App>) {
        // The first one stays; there is one gateway in its process' life.
        let _ = self.0.set(Arc::downgrade(app));
    }

    /// Asks one host after the other for a way.
    async fn ask(
        &self,
        call: &CallContext,
        way: Way<'_>,
        kind: forward_request::Kind,
        rules: &[RouteRule],
        within: Duration,
    ) -> Result<Opened, Failed> {
        let deadline = Instant::now() + within.min(LONGEST);
        let app = self.0.get().and_then(Weak::upgrade);
        let links = app.map_or_else(Vec::new, |app| linked(&app, way.route));
        let mut last = Failed::not_linked(format!("no host of the route {} is linked", way.name));
        for (host, link) in links.into_iter().take(ASKED) {
            let left = deadline.saturating_duration_since(Instant::now());
            let request = ForwardRequest {
                host: host.to_string(),
                generation: link.generation,
                kind: Some(kind.clone()),
                rules: rules.iter().map(wire).collect(),
                deadline_ms: u32::try_from(left.saturating_sub(MARGIN).as_millis())
                    .unwrap_or(u32::MAX),
                plugin: call.plugin.to_string(),
            };
            match timeout(left, open(&link, request)).await {
                Ok(Ok((send, receive, address))) => {
                    let stream = Forwarded {
                        send,
                        receive,
                        ended: false,
                    };
                    return Ok(Opened {
                        stream,
                        address,
                        host,
                    });
                }
                Ok(Err(failed)) => {
                    tracing::debug!(%host, plugin = %call.plugin, code = failed.error.code, why = %failed.error.message, "a host opens no way");
                    let elsewhere = failed.elsewhere;
                    last = failed;
                    if !elsewhere {
                        break;
                    }
                }
                Err(_) => {
                    let message = "the host of the route did not answer in time";
                    return Err(Failed::here(
                        ErrorKind::Timeout,
                        code::ROUTE_TIMEOUT,
                        message,
                    ));
                }
            }
        }
        Err(last)
    }
}

struct Opened {
    stream: Forwarded,
    address: SocketAddr,
    host: HostId,
}

/// Why a host opens no way.
struct Failed {
    error: GuestError,
    /// Whether another host may.
    elsewhere: bool,
}

impl Failed {
    fn here(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            error: GuestError::new(kind, code, message),
            elsewhere: false,
        }
    }

    fn elsewhere(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            elsewhere: true,
            ..Self::here(kind, code, message)
        }
    }

    fn not_linked(message: impl Into<String>) -> Self {
        Self::elsewhere(ErrorKind::Unreachable, code::ROUTE_NOT_LINKED, message)
    }

    fn unsupported() -> Self {
        let message = "the agent on the route's host is too old to open ways; update it";
        Self::elsewhere(
            ErrorKind::Unsupported,
            code::ROUTE_UNSUPPORTED_BY_AGENT,
            message,
        )
    }

    /// What a host said.
    fn refused(reason: ForwardRefusal, said: &str) -> Self {
        let said = clean(said, MAX_REASON);
        let message = match said.as_str() {
            "" => "the host of the route gave no reason".to_owned(),
            said => format!("the host of the route says: {said}"),
        };
        match reason {
            // Its identity has changed since the link began: the next link is about to be there.
            ForwardRefusal::NotMine => Self::not_linked(message),
            ForwardRefusal::Paused
            | ForwardRefusal::NotAllowed
            | ForwardRefusal::Malformed
            | ForwardRefusal::Unspecified => {
                Self::elsewhere(ErrorKind::Denied, code::ROUTE_REFUSED_BY_HOST, message)
            }
            ForwardRefusal::Busy => Self::elsewhere(ErrorKind::Busy, code::ROUTE_BUSY, message),
            ForwardRefusal::NotGranted => {
                Self::here(ErrorKind::Denied, code::ROUTE_NETWORK_NOT_GRANTED, message)
            }
            ForwardRefusal::NotResolved => {
                let (kind, code) = (ErrorKind::Unreachable, code::ROUTE_NAME_NOT_RESOLVED);
                Self::elsewhere(kind, code, message)
            }
            ForwardRefusal::Unreachable => {
                Self::here(ErrorKind::Unreachable, code::ROUTE_CONNECT_FAILED, message)
            }
            ForwardRefusal::TimedOut => {
                Self::here(ErrorKind::Timeout, code::ROUTE_TIMEOUT, message)
            }
        }
    }

    /// The stream broke before there was an answer.
    fn lost(error: &ReadError) -> Self {
        let reset = match error {
            ReadError::Io(error) => error
                .get_ref()
                .and_then(|inner| inner.downcast_ref::<quinn::ReadError>()),
            _ => None,
        };
        match reset {
            Some(quinn::ReadError::Reset(UNKNOWN_KIND)) => Self::unsupported(),
            _ => Self::not_linked("the host of the route lost its link before it answered"),
        }
    }
}

/// Hosts of a route that are linked: those that it names, in its order, then those that its
/// selector matches.
fn linked(app: &App, route: &Route) -> Vec<(HostId, Arc<LiveLink>)> {
    // Checked when it was granted; what does not parse matches nobody.
    let selector: Option<Selector> = route.selector.as_ref().and_then(|text| text.parse().ok());
    let tables = app.catalog.read();
    let mut hosts = route.hosts.clone();
    if let Some(selector) = selector.filter(|selector| !selector.is_empty()) {
        let selected = tables.hosts_of(route.workspace).filter(|id| {
            let record = tables.hosts.get(id);
            record.is_some_and(|record| selector.matches(&record.labels))
        });
        hosts.extend(selected);
    }
    let mut found: Vec<(HostId, Arc<LiveLink>)> = Vec::new();
    for host in hosts {
        let ours = tables.hosts.get(&host).is_some_and(|record| {
            record.workspace == route.workspace && record.membership == Membership::Managed
        });
        if !ours || found.iter().any(|(known, _)| *known == host) {
            continue;
        }
        if let Some(link) = app.links.live(host).filter(|link| !link.renewal_only) {
            found.push((host, link));
        }
    }
    found
}

fn wire(rule: &RouteRule) -> ForwardRule {
    ForwardRule {
        networks: rule.networks.iter().map(ToString::to_string).collect(),
        ports: rule.ports.iter().copied().map(u32::from).collect(),
    }
}

async fn open(
    link: &LiveLink,
    request: ForwardRequest,
) -> Result<(SendStream, RecvStream, SocketAddr), Failed> {
    let gone = || Failed::not_linked("the host of the route has just lost its link");
    let streams = link.connection.open_bi().await;
    let (mut send, receive) = streams.map_err(|_| gone())?;
    let opening = Opening {
        kind: Some(opening::Kind::Forward(request)),
    };
    write_message(&mut send, &opening, MAX_FRAME, LONGEST)
        .await
        .map_err(|_| gone())?;
    let deadlines = Deadlines {
        idle: LONGEST,
        frame: LONGEST,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let reply: Option<ForwardReply> = reader.next().await.map_err(|error| Failed::lost(&error))?;
    match reply.map(|reply| reply.body) {
        None => Err(Failed::unsupported()),
        Some(Some(forward_reply::Body::Opened(opened))) => match opened.address.parse() {
            Ok(address) => Ok((send, reader.into_inner(), address)),
            Err(_) => Err(Failed::refused(ForwardRefusal::Unspecified, "")),
        },
        Some(Some(forward_reply::Body::Refused(refused))) => {
            Err(Failed::refused(refused.reason(), &refused.message))
        }
        Some(None) => Err(Failed::refused(ForwardRefusal::Unspecified, "")),
    }
}

#[async_trait]
impl Routes for LinkRoutes {
    async fn open(
        &self,
        call: &CallContext,
        way: Way<'_>,
        target: RouteTarget<'_>,
    ) -> Result<Routed, GuestError> {
        let whom = ForwardTarget {
            host: target.host.to_string(),
            port: target.port.into(),
        };
        let kind = match target.transport {
            Transport::Tcp => forward_request::Kind::Tcp(whom),
            Transport::Udp => forward_request::Kind::Udp(whom),
        };
        let asked = self.ask(call, way, kind, target.rules, target.within).await;
        let opened = asked.map_err(|failed| failed.error)?;
        Ok(Routed {
            stream: Box::new(opened.stream),
            address: opened.address,
            via: opened.host.to_string(),
        })
    }

    async fn wake(
        &self,
        call: &CallContext,
        way: Way<'_>,
        mac: Mac,
        rules: &[RouteRule],
    ) -> Result<String, GuestError> {
        let kind = forward_request::Kind::Wake(ForwardWake {
            mac: mac.octets().to_vec(),
        });
        let asked = self.ask(call, way, kind, rules, WAKING).await;
        let opened = asked.map_err(|failed| failed.error)?;
        Ok(opened.host.to_string())
    }
}

/// A stream of a link in place of a socket. Dropped before its end, it ends in no order at the
/// other side, too: half a request must not look like a whole one.
struct Forwarded {
    send: SendStream,
    receive: RecvStream,
    ended: bool,
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.receive), context, buffer)
    }
}

impl AsyncWrite for Forwarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.send), context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.send), context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.ended = true;
        AsyncWrite::poll_shutdown(Pin::new(&mut self.send), context)
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        if !self.ended {
            let _ = self.send.reset(NOT_WANTED);
        }
        let _ = self.receive.stop(NOT_WANTED);
    }
}
