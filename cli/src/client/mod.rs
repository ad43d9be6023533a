//! A client of the API, generic over its operations.
//!
//! An operation is a type ([`api::Endpoint`]): its URL, method and types follow
//! from there, so this client has no list of calls to keep up to date.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use api::v1::{InWorkspace, host::ListHosts};
//! let client = cli::client::Client::builder("https://gateway.example:8443".parse()?).build()?;
//! let workspace = "wsp_0000000000000000000000000a".parse()?;
//! let page = client.fetch::<ListHosts>(&InWorkspace { workspace })?;
//! # let _ = page; Ok(()) }
//! ```
//!
//! Calls are synchronous: a command line does one thing at a time, and tests
//! that want more use threads. Redirects are not followed, because a gateway
//! sends none and a key must not travel to where one points.

mod address;
mod call;
mod connect;
mod error;
mod events;
mod retry;
pub mod sse;
mod tls;
mod transfer;

use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::endpoint::Nothing;
use api::{Endpoint, Method, Page, Problem};
use model::ids::ApiKeyId;
use model::token::Secret;
use serde::de::DeserializeOwned;
use ureq::http::{Request, Response};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body};

use call::{Call, jitter, to_value};

pub use address::{BadParameter, BadUrl, BaseUrl};
pub use error::ClientError;
pub use events::{EventStream, Follow, Followed};
pub use retry::Patience;
pub(crate) use tls::parse_pem;
pub use tls::{BadPin, Pin, Trust, TrustError};
pub use transfer::Content;

/// Largest reply that is read into memory.
const MAX_REPLY: u64 = 64 << 20;

/// A stream that is quiet for this long is taken for dead. The gateway sends a
/// comment far more often than that.
const STREAM_IDLE: Duration = Duration::from_secs(60);

/// Items asked for at once when a list is fetched whole: few round trips, and
/// pages that stay well under [`MAX_REPLY`] with all facts of all hosts.
const PAGE: usize = 500;

/// Calls a gateway.
pub struct Client {
    base: BaseUrl,
    key: Option<Secret<ApiKeyId>>,
    ticket: Option<String>,
    break_glass: Option<String>,
    patience: Patience,
    agent: Agent,
    observe: Option<Observer>,
}

/// Hears of every exchange: for `--verbose`.
pub type Observer = Arc<dyn Fn(&Exchange<'_>) + Send + Sync>;

/// One exchange, without anything secret in it.
#[derive(Debug)]
pub struct Exchange<'a> {
    /// HTTP method.
    pub method: &'static str,
    /// The whole URL.
    pub url: &'a str,
    /// The status, or what went wrong.
    pub outcome: Result<u16, String>,
    /// The gateway's name for the request.
    pub request_id: Option<&'a str>,
    /// How long it took until the head of the reply.
    pub took: Duration,
}

/// Makes a [`Client`].
pub struct Builder {
    base: BaseUrl,
    trust: Trust,
    key: Option<Secret<ApiKeyId>>,
    ticket: Option<String>,
    break_glass: Option<String>,
    timeout: Duration,
    patience: Patience,
    observe: Option<Observer>,
}

impl Builder {
    /// How to know the gateway; [`Trust::System`] unless called.
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// The API key to call with.
    pub fn api_key(mut self, key: Option<Secret<ApiKeyId>>) -> Self {
        self.key = key;
        self
    }

    /// The ticket that the calls are made under, for the audit trail.
    pub fn ticket(mut self, ticket: Option<String>) -> Self {
        self.ticket = ticket;
        self
    }

    /// Why policies are not to be obeyed, in an emergency.
    pub fn break_glass(mut self, reason: Option<String>) -> Self {
        self.break_glass = reason;
        self
    }

    /// How long one attempt may take; 30 s unless called. Streams may take
    /// longer once they have begun.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// When to try again.
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Who hears of every exchange.
    pub fn observe(mut self, observe: Observer) -> Self {
        self.observe = Some(observe);
        self
    }

    /// The client. Nothing is connected yet.
    pub fn build(self) -> Result<Client, ClientError> {
        let config = self
            .base
            .is_tls()
            .then(|| tls::client_config(&self.trust))
            .transpose()?;
        let mut settings = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("loopback/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.timeout.min(Duration::from_secs(10))))
            .timeout_global(Some(self.timeout));
        if self.base.is_loopback() {
            // A proxy's own loopback is not ours.
            settings = settings.proxy(None);
        }
        let connector = connect::connector(self.base.socket().map(ToOwned::to_owned), config);
        let agent = Agent::with_parts(settings.build(), connector, DefaultResolver::default());
        Ok(Client {
            base: self.base,
            key: self.key,
            ticket: self.ticket,
            break_glass: self.break_glass,
            patience: self.patience,
            agent,
            observe: self.observe,
        })
    }
}

impl Client {
    /// Begins a client of the gateway at `base`.
    pub fn builder(base: BaseUrl) -> Builder {
        Builder {
            base,
            trust: Trust::System,
            key: None,
            ticket: None,
            break_glass: None,
            timeout: Duration::from_secs(30),
            patience: Patience::default(),
            observe: None,
        }
    }

    /// The same client, never trying twice.
    pub fn once(mut self) -> Self {
        self.patience = Patience::NONE;
        self
    }

    /// Where the gateway is.
    pub fn base(&self) -> &BaseUrl {
        &self.base
    }

    /// Calls `E` and reads its reply.
    pub fn call<E: Endpoint>(
        &self,
        path: &E::Path,
        query: &E::Query,
        body: &E::Body,
    ) -> Result<E::Reply, ClientError> {
        let call = Call::new::<E>(&self.base, path, &to_value::<E>(query)?, body)?;
        self.reply::<E>(&call)
    }

    /// Calls an operation that takes no body, without a query.
    pub fn fetch<E: Endpoint<Body = Nothing>>(
        &self,
        path: &E::Path,
    ) -> Result<E::Reply, ClientError> {
        self.call::<E>(path, &E::Query::default(), &Nothing {})
    }

    /// Calls an operation that takes a body, without a query.
    pub fn send<E: Endpoint>(
        &self,
        path: &E::Path,
        body: &E::Body,
    ) -> Result<E::Reply, ClientError> {
        self.call::<E>(path, &E::Query::default(), body)
    }

    /// Fetches a list page by page, up to `at_most` items. `next` of the answer
    /// is set when there is more.
    pub fn list<E, T>(
        &self,
        path: &E::Path,
        query: &E::Query,
        at_most: Option<usize>,
    ) -> Result<Page<T>, ClientError>
    where
        E: Endpoint<Body = Nothing, Reply = Page<T>>,
        T: DeserializeOwned,
    {
        let mut query = to_value::<E>(query)?;
        let mut all = Page {
            items: Vec::new(),
            next: None,
        };
        loop {
            let missing = at_most.map_or(PAGE, |limit| {
                limit.saturating_sub(all.items.len()).min(PAGE)
            });
            if missing == 0 {
                return Ok(all);
            }
            if let Some(fields) = query.as_object_mut() {
                fields.insert("limit".to_owned(), missing.into());
                fields.insert("after".to_owned(), all.next.take().into());
            }
            let page = self.reply::<E>(&Call::new::<E>(&self.base, path, &query, &Nothing {})?)?;
            all.items.extend(page.items);
            all.next = page.next;
            if all.next.is_none() {
                return Ok(all);
            }
        }
    }

    /// Calls an operation whose reply is not JSON and hands its body over as it
    /// arrives. The body may take as long as it keeps coming.
    pub fn stream<E>(
        &self,
        path: &E::Path,
        query: &E::Query,
    ) -> Result<Box<dyn Read + Send>, ClientError>
    where
        E: Endpoint<Body = Nothing>,
    {
        let call = Call::new::<E>(&self.base, path, &to_value::<E>(query)?, &Nothing {})?
            .streaming(E::MEDIA);
        let reply = self.patiently(|| self.attempt(&call))?;
        Ok(Box::new(
            reply
                .into_body()
                .into_with_config()
                .limit(u64::MAX)
                .reader(),
        ))
    }

    fn reply<E: Endpoint>(&self, call: &Call) -> Result<E::Reply, ClientError> {
        let mut lost = false;
        let bytes = self.patiently(|| {
            let result = self
                .attempt(call)
                .and_then(|reply| read_all(&call.url, reply));
            let gone = result
                .as_ref()
                .is_err_and(|error| error.code() == Some("not_found"));
            if lost && gone && call.method == Method::Delete && E::SUCCESS == 204 {
                // An earlier attempt took it away; only its reply was lost.
                return Ok(Vec::new());
            }
            lost |= matches!(
                result,
                Err(ClientError::Lost { .. } | ClientError::Cut { .. })
            );
            result
        })?;
        let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|source| ClientError::Unreadable {
            operation: E::ID,
            source,
        })
    }

    fn patiently<T>(
        &self,
        mut attempt: impl FnMut() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut waited = Duration::ZERO;
        let mut attempts = 0;
        loop {
            attempts += 1;
            let error = match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(wait) = self.patience.wait(attempts, &error, waited, jitter()) else {
                return Err(error);
            };
            std::thread::sleep(wait);
            waited += wait;
        }
    }

    fn attempt(&self, call: &Call) -> Result<Response<Body>, ClientError> {
        let reply = self.observed(call, || self.exchange(call))?;
        if reply.status().is_success() {
            Ok(reply)
        } else {
            Err(refusal(&call.url, reply))
        }
    }

    fn observed(
        &self,
        call: &Call,
        exchange: impl FnOnce() -> Result<Response<Body>, ClientError>,
    ) -> Result<Response<Body>, ClientError> {
        let began = Instant::now();
        let result = exchange();
        if let Some(observe) = &self.observe {
            let request_id = result
                .as_ref()
                .ok()
                .and_then(|reply| reply.headers().get("x-request-id"));
            observe(&Exchange {
                method: call.method.as_str(),
                url: &call.url,
                outcome: result
                    .as_ref()
                    .map(|reply| reply.status().as_u16())
                    .map_err(|error| model::error_chain(error)),
                request_id: request_id.and_then(|value| value.to_str().ok()),
                took: began.elapsed(),
            });
        }
        result
    }

    fn exchange(&self, call: &Call) -> Result<Response<Body>, ClientError> {
        let mut request = Request::builder()
            .method(call.method.as_str())
            .uri(&call.url)
            .header("accept", call.accept);
        if let Some(key) = &self.key {
            request = request.header("authorization", format!("Bearer {}", key.reveal()));
        }
        if let Some(ticket) = &self.ticket {
            request = request.header("x-loopback-ticket", ticket);
        }
        if let Some(reason) = &self.break_glass {
            request = request.header("x-loopback-break-glass", reason);
        }
        if let Some(key) = &call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        if let Some(id) = &call.last_event_id {
            request = request.header("last-event-id", id);
        }
        let lost =
            |error| error::transport(call.method.as_str(), self.base.as_str(), &call.url, error);
        let reply = match &call.body {
            Some(body) => {
                let request = request
                    .header("content-type", "application/json")
                    .body(body.as_slice());
                self.agent
                    .run(request.map_err(|error| lost(ureq::Error::Http(error)))?)
            }
            None => {
                let request = request
                    .body(())
                    .map_err(|error| lost(ureq::Error::Http(error)))?;
                let request = if call.streaming {
                    let settings = self.agent.configure_request(request);
                    let limit = self.agent.config().timeouts().global;
                    settings
                        .timeout_global(None)
                        .timeout_recv_response(limit)
                        .timeout_per_read(Some(STREAM_IDLE))
                        .build()
                } else {
                    request
                };
                self.agent.run(request)
            }
        };
        reply.map_err(lost)
    }
}

fn read_all(url: &str, reply: Response<Body>) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    let mut reader = reply
        .into_body()
        .into_with_config()
        .limit(MAX_REPLY)
        .reader();
    reader
        .read_to_end(&mut bytes)
        .map_err(|source| ClientError::Cut {
            url: error::without_query(url),
            source,
        })?;
    Ok(bytes)
}

/// The problem in a reply that is not a success. Where there is none, somebody
/// else has answered: a proxy, or another program on that port.
fn refusal(url: &str, reply: Response<Body>) -> ClientError {
    let status = reply.status().as_u16();
    let retry_after = reply
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let bytes = match read_all(url, reply) {
        Ok(bytes) => bytes,
        Err(error) => return error,
    };
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(mut problem) => {
            problem.retry_after_ms = problem
                .retry_after_ms
                .or(retry_after.map(|seconds| seconds.saturating_mul(1000)));
            ClientError::Problem(Box::new(problem))
        }
        Err(_) => ClientError::NotOurs {
            url: error::without_query(url),
            status,
            excerpt: model::names::clean(&String::from_utf8_lossy(&bytes), 120),
        },
    }
}
