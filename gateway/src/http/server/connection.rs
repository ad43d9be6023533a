//! One connection from its first byte to its last.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use api::ProblemCode;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Request, Response, Version, header};
use futures_util::FutureExt as _;
use hyper::body::{Body as _, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use super::browser::{self, Way};
use super::client::{LocalAdmin, client_of};
use super::linger;
use super::seats::{Asking, Standing};
use super::stall::Stalling;
use super::{Server, Settings, Visitor};
use crate::error::Error;
use crate::http::problem;
use crate::tasks::Named;

/// Where requests on a connection come from.
#[derive(Clone)]
enum Origin {
    Peer(IpAddr, Way, Standing),
    Admin(LocalAdmin),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Server {
    /// Serves a connection to its end. The seat is given back when it ends or becomes
    /// something else than HTTP.
    pub(super) async fn attend(
        self: Arc<Self>,
        visitor: Visitor,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) {
        let _counted = self.metrics.http_connection();
        let limit = self.settings.stall;
        match visitor {
            Visitor::Admin {
                stream,
                uid,
                router,
                seat: _seat,
            } => {
                let stream = Stalling::new(stream, limit, ());
                let origin = Origin::Admin(LocalAdmin { uid });
                self.speak(stream, origin, Protocol::Http1, router).await;
            }
            Visitor::Tcp {
                stream,
                peer,
                seat,
                counted,
            } => {
                tune(&stream, limit);
                let stream = Stalling::new(stream, limit, counted);
                let way = match &tls {
                    Some(_) => Way::Encrypted,
                    None if self.settings.is_trusted(peer.ip()) => Way::Proxied,
                    None => Way::Plain,
                };
                let origin = Origin::Peer(peer.ip(), way, seat.standing());
                let served = self.shake_hands_and_speak(stream, peer, origin, tls);
                tokio::select! {
                    biased;
                    () = seat.lost() => tracing::debug!(%peer, "a silent connection made room for another"),
                    () = served => {}
                }
            }
        }
    }

    async fn shake_hands_and_speak<S>(
        self: Arc<Self>,
        stream: S,
        peer: SocketAddr,
        origin: Origin,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let router = self.router.clone();
        let Some(tls) = tls else {
            return self.speak(stream, origin, Protocol::Http1, router).await;
        };
        let handshake = TlsAcceptor::from(tls).accept(stream);
        match tokio::time::timeout(self.settings.handshake, handshake).await {
            Ok(Ok(stream)) => {
                let protocol = match stream.get_ref().1.alpn_protocol() {
                    Some(b"h2") => Protocol::Http2,
                    _ => Protocol::Http1,
                };
                self.speak(stream, origin, protocol, router).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    async fn speak<S>(
        self: Arc<Self>,
        stream: S,
        origin: Origin,
        protocol: Protocol,
        router: Router,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::new());
        let service = {
            let (server, activity) = (Arc::clone(&self), Arc::clone(&activity));
            service_fn(move |request| {
                let asking = match &origin {
                    Origin::Peer(_, _, standing) => Some(standing.ask()),
                    Origin::Admin(_) => None,
                };
                let busy = activity.begin(asking);
                let (server, router) = (Arc::clone(&server), router.clone());
                let origin = origin.clone();
                async move { Ok::<_, Infallible>(server.answer(request, origin, busy, router).await) }
            })
        };
        let builder = self.builder(protocol);
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let mut look = tokio::time::interval(look_every(&self.settings));
        let mut closing = false;
        loop {
            tokio::select! {
                biased;
                () = self.tasks.stop().cancelled(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %model::error_chain(&*error), "HTTP connection ended");
                    }
                    return;
                }
                _ = look.tick() => {
                    if activity.exceeds(&self.settings) {
                        if closing {
                            return;
                        }
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }

    fn builder(&self, protocol: Protocol) -> auto::Builder<Named> {
        let settings = &self.settings;
        let mut builder = auto::Builder::new(Named(self.tasks.clone(), "http.stream"));
        // hyper's own answer to a head that is too large has no body. It gets twice the
        // room, so that `answer` can say it in our words as long as that is reasonable.
        let room = settings.header_bytes.saturating_mul(2);
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.head)
            .max_buf_size(room.max(8 << 10));
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(settings.streams)
            .max_header_list_size(u32::try_from(room).unwrap_or(u32::MAX))
            // Streams opened and reset at once ("rapid reset"): a connection that has
            // this many of them waiting is closed.
            .max_pending_accept_reset_streams(20)
            .max_local_error_reset_streams(128)
            .keep_alive_interval(settings.idle / 3)
            .keep_alive_timeout(settings.idle / 3);
        match protocol {
            Protocol::Http1 => builder.http1_only(),
            Protocol::Http2 => builder.http2_only(),
        }
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        origin: Origin,
        busy: Busy,
        router: Router,
    ) -> Response<Body> {
        // HTTP/2 ends a stream without its connection, and a client that waits to be told so has
        // sent nothing.
        let lingers =
            request.version() < Version::HTTP_2 && !request.headers().contains_key(header::EXPECT);
        let (parts, body) = request.into_parts();
        let (body, rest) = linger::lend(body);
        let request = Request::from_parts(parts, Body::new(body));
        let last = is_ambiguous(&request);
        let response = self.decide(request, origin, router).await;
        if lingers {
            rest.discard().await;
        }
        busy.until_sent(end_if(last, response))
    }

    async fn decide(
        &self,
        mut request: Request<Body>,
        origin: Origin,
        router: Router,
    ) -> Response<Body> {
        let foreign = || match &origin {
            Origin::Peer(_, way, _) => {
                browser::refusal(&request, *way, self.settings.public_url.as_ref())
            }
            Origin::Admin(_) => None,
        };
        if let Some(error) = self.refusal(&request).or_else(foreign) {
            return problem::respond(&error, None);
        }
        match origin {
            Origin::Admin(admin) => request.extensions_mut().insert(admin).map(drop),
            Origin::Peer(peer, _, standing) => {
                request.extensions_mut().insert(standing);
                let client = client_of(peer, request.headers(), &self.settings.trusted_proxies);
                request.extensions_mut().insert(client).map(drop)
            }
        };
        let handled = AssertUnwindSafe(router.oneshot(request)).catch_unwind();
        match handled.await {
            Ok(Ok(response)) => response,
            Err(panic) => {
                self.tasks.report_panic("http.request", &*panic);
                let detail = "the gateway has failed; its log has the details";
                problem::respond(&Error::new(ProblemCode::Internal, detail), None)
            }
        }
    }

    /// What hyper lets through and we do not.
    fn refusal(&self, request: &Request<Body>) -> Option<Error> {
        let fields = request.headers().iter();
        let fields: usize = fields
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let target = request
            .uri()
            .path_and_query()
            .map_or(0, |target| target.as_str().len());
        let limit = self.settings.header_bytes;
        if fields + target > limit {
            let detail = format!("the request's head has more than {limit} bytes");
            return Some(Error::new(ProblemCode::HeadersTooLarge, detail));
        }
        // Two of them are how requests are smuggled past proxies.
        if request.headers().get_all(header::HOST).iter().count() > 1 {
            let detail = "the request names more than one host";
            return Some(Error::new(ProblemCode::MalformedRequest, detail));
        }
        None
    }
}

/// Whether a proxy before us might think that the request ends elsewhere. Of a transfer encoding
/// and a length hyper goes by the encoding, as RFC 9112 has it, and hides the length from us: so
/// what comes after any such request could be the rest of it in somebody else's eyes.
fn is_ambiguous(request: &Request<Body>) -> bool {
    request.headers().contains_key(header::TRANSFER_ENCODING)
}

/// The response, after which nothing else is read from the connection.
fn end_if(last: bool, mut response: Response<Body>) -> Response<Body> {
    if last {
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(header::CONNECTION, close);
    }
    response
}

/// Small packets at once, and a peer that has vanished is found out: by unanswered
/// data, or by probes on a connection that is silent for good reason (event streams).
fn tune(stream: &TcpStream, limit: Duration) {
    use rustix::net::sockopt;
    let millis = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    let tuned = stream
        .set_nodelay(true)
        .and_then(|()| Ok(sockopt::set_tcp_user_timeout(stream, millis)?))
        .and_then(|()| Ok(sockopt::set_socket_keepalive(stream, true)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepidle(stream, limit)?))
        .and_then(|()| Ok(sockopt::set_tcp_keepintvl(stream, limit / 4)?));
    if let Err(error) = tuned {
        tracing::debug!(%error, "cannot tune an HTTP connection");
    }
}

fn look_every(settings: &Settings) -> Duration {
    (settings.head.min(settings.idle) / 4).max(Duration::from_millis(10))
}

/// What goes on on a connection.
struct Activity {
    began: Instant,
    requests: AtomicUsize,
    served: AtomicUsize,
    /// When the last request ended, in milliseconds since the beginning.
    last: AtomicU64,
}

/// A request in progress.
struct Busy {
    activity: Arc<Activity>,
    _asking: Option<Asking>,
}

impl Activity {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            requests: AtomicUsize::new(0),
            served: AtomicUsize::new(0),
            last: AtomicU64::new(0),
        }
    }

    fn begin(self: &Arc<Self>, asking: Option<Asking>) -> Busy {
        self.requests.fetch_add(1, Ordering::SeqCst);
        self.served.fetch_add(1, Ordering::SeqCst);
        Busy {
            activity: Arc::clone(self),
            _asking: asking,
        }
    }

    /// Whether nothing has been asked for too long.
    fn exceeds(&self, settings: &Settings) -> bool {
        if self.requests.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let last = Duration::from_millis(self.last.load(Ordering::SeqCst));
        let idle = self.began.elapsed().saturating_sub(last);
        let first = self.served.load(Ordering::SeqCst) == 0;
        idle >= if first { settings.head } else { settings.idle }
    }
}

impl Busy {
    /// The response, which keeps the connection busy until its body is sent or given up.
    fn until_sent(self, response: Response<Body>) -> Response<Body> {
        response.map(|body| {
            if body.is_end_stream() {
                body
            } else {
                Body::new(BusyBody { body, _busy: self })
            }
        })
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let activity = &self.activity;
        let since = u64::try_from(activity.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        activity.last.store(since, Ordering::SeqCst);
        activity.requests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A response's body during which its connection is busy.
struct BusyBody {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for BusyBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
