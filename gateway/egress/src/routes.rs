//! Ways out of the machine other than its own network: through an agent near the target.
//!
//! The seam is here so that a route changes where a connection begins and nothing else: grant,
//! TLS, credentials, bounds and records stay with this crate. Whoever carries a connection to
//! another network resolves the name there, and must hold each address against
//! [`RouteTarget::permits`] before connecting to it.

use std::net::IpAddr;

use async_trait::async_trait;
use plugin_host::ports::{CallContext, ErrorKind, GuestError};

use crate::error::code;
use crate::target::Host;
use crate::wire::Stream;

/// What is to be connected to.
pub struct RouteTarget<'a> {
    /// Whom.
    pub host: &'a Host,
    /// Where.
    pub port: u16,
    /// Whether an address of the host may be connected to.
    pub permits: &'a (dyn Fn(IpAddr) -> bool + Send + Sync),
}

/// Who knows routes.
#[async_trait]
pub trait Routes: Send + Sync {
    /// A connection with the target, by this route.
    async fn connect(
        &self,
        call: &CallContext,
        route: &str,
        target: RouteTarget<'_>,
    ) -> Result<Box<dyn Stream>, GuestError>;
}

/// There are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRoutes;

#[async_trait]
impl Routes for NoRoutes {
    async fn connect(
        &self,
        _: &CallContext,
        _: &str,
        _: RouteTarget<'_>,
    ) -> Result<Box<dyn Stream>, GuestError> {
        Err(unsupported(code::ROUTE_UNSUPPORTED))
    }
}

pub(crate) fn unsupported(code: &str) -> GuestError {
    GuestError::new(
        ErrorKind::Unsupported,
        code,
        "requests leave from the gateway only: this gateway has no routes through agents",
    )
}
