//! What the host of plugins asks of its surroundings.
//!
//! The host knows limits, handles and grants; where secrets and values lie and how a request
//! leaves the machine is not its matter. So a gateway, an author's test bench and a replay of a
//! recorded call put different things behind the same traits, and a plugin cannot tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use model::ids::WorkspaceId;
use model::names::Name;
use model::plugin::Grant;

/// For whom something is done: the same through a whole call.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The plugin, by the name it is installed as.
    pub plugin: Name,
    /// For which workspace it is called; none for the deployment itself.
    pub workspace: Option<WorkspaceId>,
    /// `call_…`, in logs, audit and traces.
    pub call: String,
    /// What it may do.
    pub grant: Arc<Grant>,
}

/// What kind of thing went wrong, as in `loopback:base/types.error-kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The request makes no sense.
    Invalid,
    /// A credential was refused.
    Auth,
    /// The credential may not do this.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// Cannot be done at all.
    Unsupported,
    /// Not in this state.
    Conflict,
    /// Not at the moment.
    Busy,
    /// Too often.
    Throttled,
    /// Nothing answers.
    Unreachable,
    /// Answered too late.
    Timeout,
    /// The target's own error.
    Upstream,
    /// Not granted.
    Denied,
    /// Asked to stop.
    Cancelled,
    /// A fault.
    Internal,
    /// Something else.
    Other,
}

/// An error that a plugin reads, or says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct GuestError {
    /// What kind.
    pub kind: ErrorKind,
    /// A stable word.
    pub code: String,
    /// For people.
    pub message: String,
    /// Not before this.
    pub retry_after: Option<Duration>,
    /// Whether it may have happened nevertheless.
    pub outcome_unknown: bool,
    /// More for people.
    pub details: Vec<(String, String)>,
}

impl GuestError {
    /// Without anything more to say.
    pub fn new(kind: ErrorKind, code: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: code.to_owned(),
            message: message.into(),
            retry_after: None,
            outcome_unknown: false,
            details: Vec::new(),
        }
    }
}

/// The bytes of a secret. Shown nowhere, wiped when dropped.
#[derive(Clone)]
pub struct SecretValue(Arc<zeroize::Zeroizing<Vec<u8>>>);

impl SecretValue {
    /// Takes the bytes over.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Arc::new(zeroize::Zeroizing::new(bytes)))
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// A secret as it was when a call opened it.
#[derive(Clone, Debug)]
pub struct Secret {
    /// The plugin's name for it.
    pub name: Name,
    /// Grows when it is replaced.
    pub version: u64,
    /// What it is.
    pub value: SecretValue,
}

/// Where secrets lie.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The secret that the grant ties to this name.
    async fn open(&self, call: &CallContext, name: &Name) -> Result<Secret, GuestError>;
}

/// Where in a request a secret goes, as in `loopback:base/http.placement`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// `Authorization: Bearer`.
    Bearer,
    /// `Authorization: Basic` with this user.
    BasicUser(String),
    /// A header.
    Header {
        /// Its name.
        name: String,
        /// What stands before the secret.
        prefix: String,
    },
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// Instead of this text in the path.
    Path(String),
    /// A string in a JSON body.
    JsonPointer(String),
}

/// A secret and its place.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Which.
    pub secret: Secret,
    /// Where.
    pub placement: Placement,
}

/// What a plugin asks of a server.
#[derive(Clone, Debug)]
pub struct HttpRequest {
    /// As in `GET`.
    pub method: String,
    /// Absolute.
    pub url: String,
    /// As the plugin gave them, unchecked.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
    /// A name from the grant.
    pub tls_profile: Option<String>,
    /// A name from the grant.
    pub route: Option<String>,
    /// For all of it; never more than what is left of the call.
    pub timeout: Duration,
    /// Of the answer's body; never more than what the call may still receive.
    pub max_response_bytes: u64,
}

/// What a server answered.
#[derive(Clone, Debug)]
pub struct HttpResponse {
    /// The status.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// How requests leave the machine.
#[async_trait]
pub trait Egress: Send + Sync {
    /// Sends one request, within the grant of the call.
    async fn send(
        &self,
        call: &CallContext,
        request: HttpRequest,
        credentials: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError>;

    /// Opens a channel to `host:port`, within the grant of the call.
    async fn datagrams(
        &self,
        call: &CallContext,
        endpoint: &str,
        route: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError>;

    /// Sends a Wake-on-LAN packet.
    async fn wake_on_lan(
        &self,
        call: &CallContext,
        mac: &str,
        route: Option<&str>,
    ) -> Result<(), GuestError>;
}

/// A socket that speaks with one address.
#[async_trait]
pub trait Datagrams: Send {
    /// With whom.
    fn peer(&self) -> SocketAddr;
    /// Sends one.
    async fn send(&mut self, data: &[u8]) -> Result<(), GuestError>;
    /// The next one.
    async fn recv(&mut self, timeout: Duration) -> Result<Vec<u8>, GuestError>;
}

/// A value as it was when read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateEntry {
    /// The bytes.
    pub value: Vec<u8>,
    /// Grows with each change of the key.
    pub revision: u64,
}

/// Where values lie. Implementations keep plugins and workspaces of the context apart.
#[async_trait]
pub trait State: Send + Sync {
    /// The value of a key.
    async fn get(&self, call: &CallContext, key: &str) -> Result<Option<StateEntry>, GuestError>;
    /// Sets a value, on condition of its revision (0: absent) if there is one.
    async fn put(
        &self,
        call: &CallContext,
        key: &str,
        value: Vec<u8>,
        if_revision: Option<u64>,
    ) -> Result<u64, GuestError>;
    /// Removes a key.
    async fn delete(&self, call: &CallContext, key: &str) -> Result<(), GuestError>;
    /// Keys that begin with `prefix`, in order, after `after`.
    async fn keys(
        &self,
        call: &CallContext,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<String>, GuestError>;
}

/// Everything around the host.
#[derive(Clone)]
pub struct Services {
    /// Where secrets lie.
    pub secrets: Arc<dyn Secrets>,
    /// How requests leave.
    pub egress: Arc<dyn Egress>,
    /// Where values lie.
    pub state: Arc<dyn State>,
}

impl Services {
    /// For plugins that have nothing around them: whatever they ask for is denied.
    pub fn none() -> Self {
        Self {
            secrets: Arc::new(Nothing),
            egress: Arc::new(Nothing),
            state: Arc::new(Nothing),
        }
    }
}

struct Nothing;

fn nothing<T>() -> Result<T, GuestError> {
    let what = "there is nothing around this plugin";
    Err(GuestError::new(ErrorKind::Denied, "denied.nothing", what))
}

#[async_trait]
impl Secrets for Nothing {
    async fn open(&self, _: &CallContext, _: &Name) -> Result<Secret, GuestError> {
        nothing()
    }
}

#[async_trait]
impl Egress for Nothing {
    async fn send(
        &self,
        _: &CallContext,
        _: HttpRequest,
        _: Vec<Credential>,
    ) -> Result<HttpResponse, GuestError> {
        nothing()
    }

    async fn datagrams(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<Box<dyn Datagrams>, GuestError> {
        nothing()
    }

    async fn wake_on_lan(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
    ) -> Result<(), GuestError> {
        nothing()
    }
}

#[async_trait]
impl State for Nothing {
    async fn get(&self, _: &CallContext, _: &str) -> Result<Option<StateEntry>, GuestError> {
        nothing()
    }

    async fn put(
        &self,
        _: &CallContext,
        _: &str,
        _: Vec<u8>,
        _: Option<u64>,
    ) -> Result<u64, GuestError> {
        nothing()
    }

    async fn delete(&self, _: &CallContext, _: &str) -> Result<(), GuestError> {
        nothing()
    }

    async fn keys(
        &self,
        _: &CallContext,
        _: &str,
        _: Option<&str>,
        _: u32,
    ) -> Result<Vec<String>, GuestError> {
        nothing()
    }
}
