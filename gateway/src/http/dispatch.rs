//! From an HTTP request to a handler, the same way for every operation.
//!
//! ```text
//! request id -> (public: skip) who -> rate -> what the path names -> may they?
//!            -> query -> body -> seen before? -> handler -> answer
//! ```
//!
//! Nothing of the body is read before the caller is known to be allowed. The
//! order is the same for all, so that what a stranger can learn from an answer is
//! the same everywhere.
//!
//! Routes can only be added through [`Routes`], which takes an
//! [`Endpoint`] and a handler of exactly its types: a handler without a proof, or
//! a route without a permission, does not compile.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::endpoint::{Nothing, Raw};
use api::{Access, Endpoint, Method, ProblemCode};
use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts as _, Query, RawPathParams, Request};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue,
};
use axum::http::request::Parts;
use axum::http::{Response, StatusCode};
use axum::routing::{MethodFilter, on};
use gateway_store::Record as _;
use http_body_util::{BodyExt as _, Limited};
use model::ids::RequestId;
use model::tenancy::Scope;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use super::call::{Call, Meta, PublicCall, Remember};
use super::problem;
use super::server::{ClientAddr, LocalAdmin, Standing};
use crate::app::App;
use crate::auth::{self, Caller, Denied, Proof, Target};
use crate::error::{Error, Result};
use crate::policy::{self, Permit};
use crate::state::records::IdempotencyRecordV1;

/// Bytes of a body that a stranger may have us keep; the longest an operation that is open to
/// everybody needs is a name and a secret. A hundred streams of one connection times all
/// connections of one source are bearable at this size, and not at that of ordinary bodies.
const STRANGERS_BODY: usize = 4096;
/// An answer that takes longer than this is given up. Streams are exempt.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// The router in the making.
pub struct Routes {
    app: Arc<App>,
    router: Router,
    mounted: Vec<&'static str>,
}

impl Routes {
    /// No routes yet.
    pub fn new(app: Arc<App>) -> Self {
        Self {
            app,
            router: Router::new(),
            mounted: Vec::new(),
        }
    }

    /// Mounts an operation that needs a permission and answers JSON.
    ///
    /// A handler that takes no proof of this very operation does not compile:
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use api::{Page, v1::host::{Host, ListHosts}};
    /// # use gateway::{app::App, error::Result, http::call::Call, http::dispatch::Routes};
    /// async fn good(_: Arc<App>, _: Call<ListHosts>) -> Result<Page<Host>> { unreachable!() }
    /// fn mount(routes: Routes) -> Routes { routes.guarded::<ListHosts, _, _>(good) }
    /// ```
    ///
    /// ```compile_fail,E0593
    /// # use std::sync::Arc;
    /// # use api::{Page, v1::host::{Host, ListHosts}};
    /// # use gateway::{app::App, error::Result, http::call::Call, http::dispatch::Routes};
    /// async fn unguarded(_: Arc<App>) -> Result<Page<Host>> { unreachable!() }
    /// fn mount(routes: Routes) -> Routes { routes.guarded::<ListHosts, _, _>(unguarded) }
    /// ```
    #[must_use]
    pub fn guarded<E, F, Fut>(self, handler: F) -> Self
    where
        E: Endpoint,
        F: Fn(Arc<App>, Call<E>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Reply>> + Send + 'static,
    {
        self.guarded_within::<E, _, _>(ANSWER_WITHIN, handler)
    }

    /// The same for an operation whose answer may take another time than most.
    #[must_use]
    pub fn guarded_within<E, F, Fut>(self, limit: Duration, handler: F) -> Self
    where
        E: Endpoint,
        F: Fn(Arc<App>, Call<E>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Reply>> + Send + 'static,
    {
        self.mount::<E, _, _>(move |app, request| {
            let handler = handler.clone();
            async move {
                let Prepared { call, replay } = prepare::<E>(&app, request).await?;
                if let Some(reply) = replay {
                    return json::<E>(&reply);
                }
                let remember = call.remember.clone();
                let handled = tokio::time::timeout(limit, handler(Arc::clone(&app), call)).await;
                match handled.map_err(|_| too_slow())? {
                    Ok(reply) => json::<E>(&reply),
                    // The same request won the race: answer what it was answered.
                    Err(error) if error.code == ProblemCode::Conflict => match remember {
                        Some(remember) => match recall::<E>(&app, &remember).await? {
                            Some(reply) => json::<E>(&reply),
                            None => Err(error),
                        },
                        None => Err(error),
                    },
                    Err(error) => Err(error),
                }
            }
        })
    }

    /// Mounts an operation that needs a permission and makes its own response.
    #[must_use]
    pub fn guarded_raw<E, F, Fut>(self, handler: F) -> Self
    where
        E: Endpoint<Reply = Raw>,
        F: Fn(Arc<App>, Call<E>, Parts) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>>> + Send + 'static,
    {
        self.mount::<E, _, _>(move |app, request| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let kept = parts.clone();
                let Prepared { call, .. } =
                    prepare::<E>(&app, Request::from_parts(parts, body)).await?;
                handler(app, call, kept).await
            }
        })
    }

    /// Mounts an operation that needs a permission, reads a body that is not JSON, and
    /// answers JSON. The handler gets the body unread: limits and deadlines of its content
    /// are its own, and nothing of it comes before the proof.
    #[must_use]
    pub fn guarded_upload<E, F, Fut>(self, handler: F) -> Self
    where
        E: Endpoint<Body = Raw>,
        F: Fn(Arc<App>, Call<E>, Parts, Body) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Reply>> + Send + 'static,
    {
        self.mount::<E, _, _>(move |app, request| {
            let handler = handler.clone();
            async move {
                let (parts, body) = request.into_parts();
                let kept = parts.clone();
                let bare = Request::from_parts(parts, Body::empty());
                let Prepared { call, .. } = prepare::<E>(&app, bare).await?;
                if kept.headers.contains_key(CONTENT_ENCODING) {
                    return Err(encoded());
                }
                json::<E>(&handler(app, call, kept, body).await?)
            }
        })
    }

    /// Mounts an operation that anybody may call and that answers JSON.
    #[must_use]
    pub fn public<E, F, Fut>(self, handler: F) -> Self
    where
        E: Endpoint,
        F: Fn(Arc<App>, PublicCall<E>) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<E::Reply>> + Send + 'static,
    {
        self.mount::<E, _, _>(move |app, request| {
            let handler = handler.clone();
            async move {
                let (call, _) = prepare_public::<E>(&app, request).await?;
                let handled = tokio::time::timeout(ANSWER_WITHIN, handler(app, call)).await;
                json::<E>(&handled.map_err(|_| too_slow())??)
            }
        })
    }

    /// Mounts an operation that anybody may call and that makes its own response.
    #[must_use]
    pub fn public_raw<E, F, Fut>(self, handler: F) -> Self
    where
        E: Endpoint<Reply = Raw>,
        F: Fn(Arc<App>, PublicCall<E>, Parts) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>>> + Send + 'static,
    {
        self.mount::<E, _, _>(move |app, request| {
            let handler = handler.clone();
            async move {
                let (call, parts) = prepare_public::<E>(&app, request).await?;
                handler(app, call, parts).await
            }
        })
    }

    /// The router, with answers for paths and methods that do not exist, and the
    /// ids of what was mounted.
    pub fn finish(self) -> (Router, Vec<&'static str>) {
        let no_path = || async {
            problem::respond(
                &Error::new(
                    ProblemCode::NotFound,
                    "there is no such path; see /v1/openapi.json",
                ),
                None,
            )
        };
        let no_method = || async {
            problem::respond(
                &Error::new(
                    ProblemCode::MethodNotAllowed,
                    "this path has other methods; see /v1/openapi.json",
                ),
                None,
            )
        };
        (
            self.router
                .fallback(no_path)
                .method_not_allowed_fallback(no_method),
            self.mounted,
        )
    }

    fn mount<E, F, Fut>(mut self, answer: F) -> Self
    where
        E: Endpoint,
        F: Fn(Arc<App>, Request) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Result<Response<Body>>> + Send + 'static,
    {
        let app = Arc::clone(&self.app);
        let route = on(filter(E::METHOD), move |mut request: Request| {
            let (app, answer) = (Arc::clone(&app), answer.clone());
            async move {
                let id = app.new_id(RequestId::new);
                request.extensions_mut().insert(id);
                let span = tracing::info_span!("request", request.id = %id, operation = E::ID);
                let began = Instant::now();
                let outcome = answer(Arc::clone(&app), request)
                    .instrument(span.clone())
                    .await;
                let mut response = outcome.unwrap_or_else(|error| {
                    span.in_scope(|| {
                        tracing::debug!(code = error.code.as_str(), "request refused")
                    });
                    problem::respond(&error, Some(id))
                });
                app.metrics
                    .request(E::ID, response.status().as_u16(), began.elapsed());
                let headers = response.headers_mut();
                if let Ok(id) = HeaderValue::from_str(&id.to_string()) {
                    headers.insert("x-request-id", id);
                }
                headers
                    .entry(CACHE_CONTROL)
                    .or_insert(HeaderValue::from_static("no-store"));
                problem::harden(headers);
                response
            }
        });
        self.router = self.router.route(E::PATH, route);
        self.mounted.push(E::ID);
        self
    }
}

struct Prepared<E: Endpoint> {
    call: Call<E>,
    /// What the same request was answered before.
    replay: Option<E::Reply>,
}

async fn prepare<E: Endpoint>(app: &App, request: Request) -> Result<Prepared<E>> {
    let (mut parts, body) = request.into_parts();
    let meta = meta(app, &parts);
    let caller = identify(app, &parts, &meta).await?;
    let (path, target) = path_of::<E>(&mut parts).await?;
    let host = target.host;
    let proof = prove::<E>(app, &caller, target, &meta).await?;
    // A path that reads as text but not as its ids names nothing.
    let path = path.ok_or_else(|| Error::not_found("thing"))?;
    let query = query_of::<E>(&parts)?;
    let bytes = read_body::<E>(&parts, body, app.config.limits.body_bytes).await?;
    let remember = remember::<E>(&parts, &caller, &bytes)?;
    if let Some(remember) = &remember
        && let Some(reply) = recall::<E>(app, remember).await?
    {
        let body = parse_body::<E>(&bytes)?;
        return Ok(Prepared {
            call: Call {
                proof,
                path,
                query,
                body,
                meta,
                // Nothing is done again.
                permit: Permit::replayed(),
                remember: None,
            },
            replay: Some(reply),
        });
    }
    let body = parse_body::<E>(&bytes)?;
    let uri = parts.uri.path_and_query().map_or("", |it| it.as_str());
    let permit = policy::before_handler::<E>(app, &proof, &meta, host, &bytes, uri).await?;
    Ok(Prepared {
        call: Call {
            proof,
            path,
            query,
            body,
            meta,
            permit,
            remember,
        },
        replay: None,
    })
}

async fn prepare_public<E: Endpoint>(
    app: &App,
    request: Request,
) -> Result<(PublicCall<E>, Parts)> {
    let (mut parts, body) = request.into_parts();
    let meta = meta(app, &parts);
    let (path, _) = path_of::<E>(&mut parts).await?;
    let path = path.ok_or_else(|| Error::not_found("thing"))?;
    let query = query_of::<E>(&parts)?;
    let bytes = read_body::<E>(&parts, body, STRANGERS_BODY).await?;
    let body = parse_body::<E>(&bytes)?;
    Ok((
        PublicCall {
            path,
            query,
            body,
            meta,
        },
        parts,
    ))
}

fn meta(app: &App, parts: &Parts) -> Meta {
    let local = parts.extensions.get::<LocalAdmin>().is_some();
    let source = parts
        .extensions
        .get::<ClientAddr>()
        .map(|address| address.0);
    let ticket = parts
        .headers
        .get("x-loopback-ticket")
        .and_then(|value| value.to_str().ok());
    Meta {
        request: parts
            .extensions
            .get::<RequestId>()
            .copied()
            .unwrap_or_else(|| app.new_id(RequestId::new)),
        source: source.filter(|_| !local),
        ticket: ticket.map(|ticket| model::names::clean(ticket, 128)),
        break_glass: parts
            .headers
            .get(policy::BREAK_GLASS)
            .map(|value| model::names::clean(&String::from_utf8_lossy(value.as_bytes()), 256)),
        now: app.now(),
    }
}

async fn identify(app: &App, parts: &Parts, meta: &Meta) -> Result<Arc<Caller>> {
    // Over the local socket there is no source, and so no limit that an attacker
    // from outside could exhaust for the people who own the machine.
    if let Some(source) = meta.source
        && let Err(wait) = app.rates.failed_auth.check(&source, app.uptime())
    {
        return Err(Error::rate_limited(wait));
    }
    // Of two, a proxy may have checked one and we would take the other.
    let mut fields = parts.headers.get_all(AUTHORIZATION).iter();
    let authorization = match (fields.next(), fields.next()) {
        (Some(only), None) => only.to_str().ok(),
        _ => None,
    };
    match auth::authenticate(app, authorization, meta.now) {
        Ok(caller) => {
            if let Some(standing) = parts.extensions.get::<Standing>() {
                standing.prove();
            }
            if let Err(wait) = app.rates.requests.take(&caller.api_key.id, app.uptime()) {
                return Err(Error::rate_limited(wait));
            }
            app.key_uses.note(caller.api_key.id, meta.now);
            Ok(caller)
        }
        Err(error) => {
            if let Some(source) = meta.source
                && app.rates.failed_auth.take(&source, app.uptime()).is_err()
            {
                crate::refusals::burst(app, source, "api_key", meta).await;
            }
            Err(error)
        }
    }
}

async fn prove<E: Endpoint>(
    app: &App,
    caller: &Arc<Caller>,
    target: Target,
    meta: &Meta,
) -> Result<Proof<E>> {
    match auth::authorize::<E>(app, caller, target) {
        Ok(proof) => Ok(proof),
        Err(Denied::NotFound(what)) => Err(Error::not_found(what)),
        Err(Denied::Forbidden(scope)) => {
            let Access::Needs(permission) = E::ACCESS else {
                return Err(Error::not_found("operation"));
            };
            crate::refusals::forbidden(app, caller, permission, scope, meta).await;
            let whereabouts = match scope {
                Scope::Deployment => "for the deployment",
                Scope::Project { .. } => "in this project",
                Scope::Workspace { .. } => "in this workspace",
            };
            let detail = format!(
                "you lack the permission `{permission}` {whereabouts}; ask whoever administers access for a role with it"
            );
            Err(Error::new(ProblemCode::Forbidden, detail))
        }
    }
}

/// The path parameters, and which scope they name. Parameters that are not ids
/// name nothing, which is decided after the caller is known.
async fn path_of<E: Endpoint>(parts: &mut Parts) -> Result<(Option<E::Path>, Target)> {
    let raw = RawPathParams::from_request_parts(parts, &()).await;
    let raw =
        raw.map_err(|_| Error::new(ProblemCode::MalformedRequest, "the path is not valid UTF-8"))?;
    let mut fields = Map::new();
    for (name, value) in &raw {
        fields.insert(name.to_owned(), Value::String(value.to_owned()));
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str);
    let target = match (
        text("workspace").map(str::parse),
        text("project").map(str::parse),
    ) {
        (Some(Err(_)), _) => return Err(Error::not_found("workspace")),
        (_, Some(Err(_))) => return Err(Error::not_found("project")),
        (workspace, project) => Target {
            workspace: workspace.and_then(Result::ok),
            project: project.and_then(Result::ok),
            host: text("host").and_then(|host| host.parse().ok()),
        },
    };
    Ok((serde_json::from_value(Value::Object(fields)).ok(), target))
}

fn query_of<E: Endpoint>(parts: &Parts) -> Result<E::Query> {
    let query = Query::<E::Query>::try_from_uri(&parts.uri);
    query.map(|Query(query)| query).map_err(|error| {
        let why = model::names::clean(&error.body_text(), 256);
        Error::new(
            ProblemCode::MalformedRequest,
            format!("the query cannot be read: {why}"),
        )
    })
}

/// Whether there is a body of JSON.
fn takes_body<E: Endpoint>() -> bool {
    let body = std::any::TypeId::of::<E::Body>();
    body != std::any::TypeId::of::<Nothing>() && body != std::any::TypeId::of::<Raw>()
}

fn encoded() -> Error {
    Error::new(
        ProblemCode::UnsupportedMediaType,
        "send the body as it is, without a content encoding",
    )
}

async fn read_body<E: Endpoint>(parts: &Parts, body: Body, limit: usize) -> Result<Vec<u8>> {
    if !takes_body::<E>() {
        return Ok(Vec::new());
    }
    let json = parts
        .headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        });
    if !json {
        return Err(Error::new(
            ProblemCode::UnsupportedMediaType,
            "send the body with `Content-Type: application/json`",
        ));
    }
    // Nothing is decompressed here, so no bomb is: the limit is on what is read.
    if parts.headers.contains_key(CONTENT_ENCODING) {
        return Err(encoded());
    }
    let read = tokio::time::timeout(ANSWER_WITHIN, Limited::new(body, limit).collect()).await;
    match read.map_err(|_| too_slow())? {
        Ok(collected) => Ok(collected.to_bytes().to_vec()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(Error::new(
            ProblemCode::BodyTooLarge,
            format!("the body has more than {limit} bytes"),
        )),
        Err(_) => Err(Error::new(
            ProblemCode::MalformedRequest,
            "the body ended early",
        )),
    }
}

fn parse_body<E: Endpoint>(bytes: &[u8]) -> Result<E::Body> {
    let bytes = if takes_body::<E>() { bytes } else { b"{}" };
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Error::new(
            ProblemCode::Invalid,
            model::names::clean(&without_long_words(&error.to_string()), 512),
        ),
        _ => Error::new(
            ProblemCode::MalformedRequest,
            format!(
                "the body is not JSON: {}",
                model::names::clean(&without_long_words(&error.to_string()), 256)
            ),
        ),
    })
}

/// What a reader of JSON says of a body repeats words of it, which helps with a misspelt
/// field and not with a secret that stands in a wrong place: answers end up in logs and
/// tickets. Words of ours are shorter than this, and secrets are longer.
fn without_long_words(said: &str) -> String {
    const LONG: usize = 40;
    let in_word = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == '-';
    let mut kept = String::with_capacity(said.len());
    for piece in said.split_inclusive(|letter| !in_word(letter)) {
        let word = piece.trim_end_matches(|letter| !in_word(letter));
        if word.len() >= LONG {
            kept.push('…');
            kept.push_str(&piece[word.len()..]);
        } else {
            kept.push_str(piece);
        }
    }
    kept
}

fn remember<E: Endpoint>(parts: &Parts, caller: &Caller, body: &[u8]) -> Result<Option<Remember>> {
    if E::METHOD != Method::Post {
        return Ok(None);
    }
    let Some(value) = parts.headers.get("idempotency-key") else {
        return Ok(None);
    };
    let good = |key: &&str| {
        (8..=64).contains(&key.len())
            && key
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    let Some(key) = value.to_str().ok().filter(good) else {
        return Err(Error::new(
            ProblemCode::MalformedRequest,
            "an idempotency key has 8 to 64 of A-Z, a-z, 0-9, `_`, `-`",
        ));
    };
    let mut digest = Sha256::new();
    for part in [E::ID.as_bytes(), parts.uri.path().as_bytes(), body] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    // By API key, not by user: the answer may hold a secret that allows more than a narrower
    // key of the same user does.
    let key = IdempotencyRecordV1::key(&[&caller.api_key.id.to_string(), key])?;
    Ok(Some(Remember {
        key,
        request: digest.finalize().into(),
    }))
}

/// What this very request was answered before.
async fn recall<E: Endpoint>(app: &App, remember: &Remember) -> Result<Option<E::Reply>> {
    let read = gateway_store::Read::Linearizable;
    let Some(stored) =
        gateway_store::fetch::<IdempotencyRecordV1>(&*app.store, &remember.key, read).await?
    else {
        return Ok(None);
    };
    if stored.record.request != remember.request {
        let detail = "this idempotency key was used for a different request; use a new key for a new request";
        return Err(Error::new(ProblemCode::IdempotencyMismatch, detail));
    }
    let Some(bytes) = app
        .keys
        .open(remember.key.as_bytes(), &stored.record.sealed_reply)
    else {
        return Err(Error::new(
            ProblemCode::IdempotencyMismatch,
            "the earlier answer can no longer be opened; use a new key",
        ));
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| Error::internal(&error))
}

fn json<E: Endpoint>(reply: &E::Reply) -> Result<Response<Body>> {
    let status = StatusCode::from_u16(E::SUCCESS).unwrap_or(StatusCode::OK);
    if status == StatusCode::NO_CONTENT {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = status;
        return Ok(response);
    }
    let bytes = serde_json::to_vec(reply).map_err(|error| Error::internal(&error))?;
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

fn too_slow() -> Error {
    Error::new(
        ProblemCode::Timeout,
        "the request took too long; it may still have been carried out, so look before you repeat it",
    )
}

fn filter(method: Method) -> MethodFilter {
    match method {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Put => MethodFilter::PUT,
        Method::Patch => MethodFilter::PATCH,
        Method::Delete => MethodFilter::DELETE,
    }
}

/// Reads a cursor that [`cursor`] wrote.
pub fn read_cursor<T: DeserializeOwned>(text: &str) -> Result<T> {
    let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let value = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    value.ok_or_else(|| {
        Error::invalid(
            "after",
            "this cursor is not one of ours; begin again without `after`",
        )
    })
}

/// A cursor: opaque to clients.
pub fn cursor(value: &impl serde::Serialize) -> String {
    let bytes = serde_json::to_vec(value).expect("cursors are ids and numbers");
    data_encoding::BASE64URL_NOPAD.encode(&bytes)
}
