//! Requests of plugins, from the words of a guest to an answer or an error.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ACCEPT_ENCODING, HOST, HeaderMap, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use model::names::Name;
use plugin_host::ports::{
    CallContext, Credential, Datagrams, Egress, ErrorKind, GuestError, HttpRequest, HttpResponse,
};
use tokio::time::Instant;

use crate::address;
use crate::audit::{Audit, Outcome, Pending, Progress, Stage};
use crate::dial::Dialler;
use crate::error::{cleaned, code, denied, failed, invalid};
use crate::place::{Placed, place};
use crate::resolve::Resolver;
use crate::routes::{RouteTarget, Routes, Transport, way};
use crate::rule::{Covering, covering};
use crate::scrub::Scrubber;
use crate::slots::Slots;
use crate::target::{Host, Scheme, Target};
use crate::{datagram, head, wire};

/// Most bytes of a request's body, as the contract says.
const MAX_BODY: usize = 4 << 20;
/// Most bytes of an answer's body, whatever is asked for.
const MAX_ANSWER: u64 = 64 << 20;
/// Longest time of a request, whatever is asked for.
const MAX_TIMEOUT: Duration = Duration::from_secs(300);

/// Bounds that do not come from a grant.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many requests may be at one host and port at a time, of all plugins together.
    pub requests_per_target: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            requests_per_target: 8,
        }
    }
}

/// Sends requests of plugins within their grants.
pub struct Client {
    dialler: Dialler,
    slots: Arc<Slots>,
    audit: Arc<dyn Audit>,
    routes: Arc<dyn Routes>,
}

impl Client {
    /// A client with its surroundings.
    pub fn new(
        options: Options,
        resolver: Arc<dyn Resolver>,
        audit: Arc<dyn Audit>,
        routes: Arc<dyn Routes>,
    ) -> Self {
        Self {
            dialler: Dialler::new(resolver),
            slots: Slots::new(options.requests_per_target),
            audit,
            routes,
        }
    }

    async fn request(
        &self,
        call: &CallContext,
        request: HttpRequest,
        credentials: &[Credential],
        pending: &mut Pending,
    ) -> Result<HttpResponse, GuestError> {
        let deadline = deadline(request.timeout);
        let max_body = match request.max_response_bytes {
            0 => MAX_ANSWER,
            asked => asked.min(MAX_ANSWER),
        };
        let method = head::method(&request.method)?;
        pending.method = method.as_str().to_owned();
        let target = Target::parse(&request.url)
            .map_err(|error| invalid(code::URL_INVALID, error.to_string()))?;
        pending.host = target.host.to_string();
        pending.port = target.port;
        let secrets: Vec<&Name> = credentials
            .iter()
            .map(|credential| &credential.secret.name)
            .collect();
        let profile = request.tls_profile.as_deref();
        let route = request.route.as_deref();
        pending.route = route.map(cleaned);
        let covering = covering(&call.grant, &target, profile, &secrets, route)?;
        if request.body.len() > MAX_BODY {
            return Err(invalid(
                code::BODY_TOO_LARGE,
                format!("the body is longer than {MAX_BODY} bytes"),
            ));
        }
        let headers = head::headers(&request.headers)?;
        let placed = place(&target, headers, request.body, credentials)?;
        let scrubber = scrubber(credentials, &placed);
        let outgoing = outgoing(method, &target, placed)?;

        let progress = Arc::clone(&pending.progress);
        let via = &mut pending.via;
        let work = async {
            let _slot = self.slots.take(&target.host, target.port).await;
            let stream = self
                .stream(call, &target, &covering, route, deadline, &progress, via)
                .await?;
            wire::exchange(stream, outgoing, max_body, &progress).await
        };
        let answer = tokio::time::timeout_at(deadline, work)
            .await
            .unwrap_or_else(|_| Err(late(&target, &progress)))?;
        Ok(HttpResponse {
            status: answer.status,
            headers: answer
                .headers
                .into_iter()
                .map(|(name, value)| (scrubber.text(&name), scrubber.text(&value)))
                .collect(),
            body: scrubber.scrub(&answer.body).into_owned(),
        })
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "what a request has come to, taken apart so that each part can be borrowed"
    )]
    async fn stream(
        &self,
        call: &CallContext,
        target: &Target,
        covering: &Covering<'_>,
        route: Option<&str>,
        deadline: Instant,
        progress: &Progress,
        via: &mut Option<String>,
    ) -> Result<Box<dyn wire::Stream>, GuestError> {
        let permits = |address| covering.permits(address);
        let stream = match route {
            None => {
                self.dialler
                    .connect(&target.host, target.port, permits, progress)
                    .await?
            }
            Some(route) => {
                let way = way(&call.grant, route)?;
                let not_granted = |address: IpAddr| {
                    let kind = address::reach(address).as_str();
                    denied(
                        code::NETWORK_NOT_GRANTED,
                        format!(
                            "{} leads to {kind} address ({address}), which no network of the grant's rule covers",
                            target.host
                        ),
                    )
                };
                if let Host::Address(address) = target.host
                    && !permits(address)
                {
                    return Err(not_granted(address));
                }
                progress.enter(Stage::Connecting);
                let wanted = RouteTarget {
                    transport: Transport::Tcp,
                    host: &target.host,
                    port: target.port,
                    rules: &covering.elsewhere(target.port),
                    within: deadline.saturating_duration_since(Instant::now()),
                };
                let routed = self.routes.open(call, way, wanted).await?;
                progress.connecting_to(routed.address);
                *via = Some(routed.via);
                if routed.address.port() != target.port || !permits(routed.address.ip()) {
                    return Err(not_granted(routed.address.ip()));
                }
                routed.stream
            }
        };
        match target.scheme {
            Scheme::Http => Ok(stream),
            Scheme::Https => {
                self.dialler
                    .secure(stream, target, &covering.profile, progress)
                    .await
            }
        }
    }
}

#[async_trait]
impl Egress for Client {
    async fn send(
        &self,
        call: &CallContext,
        request: HttpRequest,
        credentials: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        let mut pending = Pending::new(Arc::clone(&self.audit), call);
        let result = self
            .request(call, request, &credentials, &mut pending)
            .await;
        pending.end(result, |response| Outcome::Status(response.status))
    }

    async fn datagrams(
        &self,
        call: &CallContext,
        endpoint: &str,
        route: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        let mut pending = Pending::new(Arc::clone(&self.audit), call);
        pending.method = "UDP".to_owned();
        pending.route = route.map(cleaned);
        let (dialler, routes) = (&self.dialler, &*self.routes);
        let result = datagram::open(dialler, routes, call, endpoint, route, &mut pending).await;
        pending.end(result, |_| Outcome::Done)
    }

    async fn wake_on_lan(
        &self,
        call: &CallContext,
        mac: &str,
        route: Option<&str>,
    ) -> Result<(), GuestError> {
        let mut pending = Pending::new(Arc::clone(&self.audit), call);
        pending.method = "WAKE".to_owned();
        pending.route = route.map(cleaned);
        let result = datagram::wake(&*self.routes, call, mac, route, &mut pending).await;
        pending.end(result, |()| Outcome::Done)
    }
}

/// Zero stands for no wish.
fn deadline(timeout: Duration) -> Instant {
    let timeout = if timeout.is_zero() {
        MAX_TIMEOUT
    } else {
        timeout.min(MAX_TIMEOUT)
    };
    Instant::now() + timeout
}

fn scrubber(credentials: &[Credential], placed: &Placed) -> Scrubber {
    let secrets = credentials
        .iter()
        .map(|credential| credential.secret.value.expose());
    Scrubber::new(secrets.chain(placed.forms.iter().map(|form| form.as_slice())))
}

fn outgoing(
    method: Method,
    target: &Target,
    placed: Placed,
) -> Result<Request<Full<Bytes>>, GuestError> {
    let unsendable = || invalid(code::URL_INVALID, "the URL cannot be sent");
    let uri: Uri = placed.path_and_query.parse().map_err(|_| unsendable())?;
    let host = HeaderValue::from_str(&target.authority()).map_err(|_| unsendable())?;
    let mut request = Request::new(Full::new(Bytes::from(placed.body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    // First, as servers expect it.
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    default(headers, &placed.headers, USER_AGENT, "loopback");
    // Nothing here unpacks anything, so that nothing here can be made to unpack a bomb.
    default(headers, &placed.headers, ACCEPT_ENCODING, "identity");
    headers.extend(placed.headers);
    Ok(request)
}

fn default(
    headers: &mut HeaderMap,
    given: &HeaderMap,
    name: hyper::header::HeaderName,
    value: &'static str,
) {
    if !given.contains_key(&name) {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

fn late(target: &Target, progress: &Progress) -> GuestError {
    let stage = progress.stage();
    if stage == Stage::Waiting {
        return GuestError::new(
            ErrorKind::Busy,
            code::TARGET_SATURATED,
            format!(
                "as many requests as allowed are at {}, port {}",
                target.host, target.port
            ),
        );
    }
    failed(
        ErrorKind::Timeout,
        code::TIMEOUT,
        format!("ran out of time while {} ({})", stage.as_str(), target.host),
        progress,
    )
}
