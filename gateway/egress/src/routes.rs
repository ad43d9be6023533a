//! Ways out of the machine other than its own network: through an agent near the target.
//!
//! The seam is here so that a route changes where a connection begins and nothing else: grant,
//! TLS, credentials, bounds and records stay with this crate. What is spoken over a route is TLS
//! between this gateway and the target, as it is without one.
//!
//! A name is resolved where the route ends, because a management network has names of its own.
//! So the rules go there with the request and are held against each address; the address that was
//! used comes back and is held against them once more, here, before a byte is sent.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use model::names::Name;
use model::plugin::wake::Mac;
use model::plugin::{Cidr, Grant, Route};
use plugin_host::ports::{CallContext, ErrorKind, GuestError};

use crate::error::{code, denied};
use crate::target::Host;
use crate::wire::Stream;

/// A route of a grant.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    /// What the grant calls it.
    pub name: &'a Name,
    /// Where it leads through.
    pub route: &'a Route,
}

/// What is spoken with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A stream of bytes.
    Tcp,
    /// Datagrams, each after its length in two bytes, the larger first.
    Udp,
}

/// What a rule of the grant permits: networks (none, with TCP: public addresses) and ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteRule {
    /// Networks of the target's address.
    pub networks: Vec<Cidr>,
    /// Ports.
    pub ports: Vec<u16>,
}

/// What is to be connected to.
#[derive(Clone, Copy, Debug)]
pub struct RouteTarget<'a> {
    /// How.
    pub transport: Transport,
    /// Whom.
    pub host: &'a Host,
    /// Where.
    pub port: u16,
    /// One of these must permit the address.
    pub rules: &'a [RouteRule],
    /// How long it may take.
    pub within: Duration,
}

/// A connection through somebody else.
pub struct Routed {
    /// The connection.
    pub stream: Box<dyn Stream>,
    /// With whom, as far as who connected can be believed.
    pub address: SocketAddr,
    /// Through whom, for the record.
    pub via: String,
}

/// Who knows routes.
#[async_trait]
pub trait Routes: Send + Sync {
    /// A connection with the target, by this route.
    async fn open(
        &self,
        call: &CallContext,
        way: Way<'_>,
        target: RouteTarget<'_>,
    ) -> Result<Routed, GuestError>;

    /// Sends a packet that wakes a machine where the route leads. Answers through whom.
    async fn wake(
        &self,
        call: &CallContext,
        way: Way<'_>,
        mac: Mac,
        rules: &[RouteRule],
    ) -> Result<String, GuestError>;
}

/// There are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRoutes;

#[async_trait]
impl Routes for NoRoutes {
    async fn open(
        &self,
        _: &CallContext,
        _: Way<'_>,
        target: RouteTarget<'_>,
    ) -> Result<Routed, GuestError> {
        Err(unsupported(match target.transport {
            Transport::Tcp => code::ROUTE_UNSUPPORTED,
            Transport::Udp => code::DATAGRAM_ROUTE_UNSUPPORTED,
        }))
    }

    async fn wake(
        &self,
        _: &CallContext,
        _: Way<'_>,
        _: Mac,
        _: &[RouteRule],
    ) -> Result<String, GuestError> {
        Err(unsupported(code::DATAGRAM_ROUTE_UNSUPPORTED))
    }
}

fn unsupported(code: &str) -> GuestError {
    GuestError::new(
        ErrorKind::Unsupported,
        code,
        "requests leave from here only: there are no agents to route them through",
    )
}

/// The route that a request names, if the grant has it.
pub(crate) fn way<'a>(grant: &'a Grant, name: &str) -> Result<Way<'a>, GuestError> {
    grant
        .routes
        .iter()
        .find(|(known, _)| known.as_str() == name)
        .map(|(name, route)| Way { name, route })
        .ok_or_else(|| {
            denied(
                code::ROUTE_NOT_GRANTED,
                "the grant has no route of this name",
            )
        })
}

/// Whether a rule with these routes covers a request that names `route`. One with routes covers
/// nothing that leaves from here: its networks are those of other places.
pub(crate) fn covers(routes: &[Name], route: Option<&str>) -> bool {
    match route {
        None => routes.is_empty(),
        Some(route) => routes.iter().any(|name| name.as_str() == route),
    }
}
