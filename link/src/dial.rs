//! The agent's ways to a gateway.
//!
//! [`dial_udp`] is the direct way; [`dial_websocket`] carries the same QUIC packets
//! through the gateway's HTTPS port, directly or through an HTTP proxy. Each tries
//! once and says in a [`DialError`] which rung of the ladder broke and why; when to
//! try what again is the agent's decision. [`DialError::class`] is what that decision
//! needs: a network that fails is worth a quick second try, a gateway that refuses us
//! is not to be hammered, and one that we refuse is a matter for a person.
//!
//! The host's own certificate is judged by the gateway after our side of the
//! handshake is complete (TLS 1.3 works that way round). Its refusal therefore shows
//! as the end of a connection that was just made: ask [`Reason::of`] about it.

mod error;
mod outer;
mod proxy;
mod race;
mod target;
mod udp;
mod websocket;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;

pub use error::{Class, DialError, Reason, Rung};
pub use outer::OuterTls;
pub use proxy::{Proxy, ProxyError, ProxyRules};
pub use target::{NotATarget, Target};
pub use udp::dial_udp;
pub use websocket::dial_websocket;

use crate::carrier::PumpEnd;

/// How long a close may take: the close is sent at once, and the wait is only for
/// stragglers to be answered.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Time for each rung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DialLimits {
    /// Name resolution.
    pub dns: Duration,
    /// The TCP connection, over all addresses.
    pub tcp: Duration,
    /// The proxy's answer.
    pub proxy: Duration,
    /// The outer TLS handshake.
    pub tls: Duration,
    /// The WebSocket handshake.
    pub websocket: Duration,
    /// The QUIC handshake, over all addresses.
    pub quic: Duration,
    /// Head start of an address over the next one (RFC 8305).
    pub stagger: Duration,
}

impl Default for DialLimits {
    /// QUIC answers within three round trips or not at all; five seconds cover a
    /// lost packet or two on a bad line and keep the fallback within seconds.
    fn default() -> Self {
        let each = Duration::from_secs(5);
        Self {
            dns: each,
            tcp: each,
            proxy: each,
            tls: each,
            websocket: each,
            quic: each,
            stagger: Duration::from_millis(250),
        }
    }
}

/// A connection to a gateway that has proven to be one.
#[derive(Debug)]
pub struct Link {
    /// The QUIC connection.
    pub connection: quinn::Connection,
    /// Its endpoint.
    pub endpoint: quinn::Endpoint,
    /// The way it took.
    pub path: Path,
    /// The pump of a WebSocket; stops when this is dropped.
    carrier: JoinSet<PumpEnd>,
}

/// The way a connection took.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Straight UDP.
    Udp {
        /// The gateway's address.
        remote: SocketAddr,
    },
    /// Inside a WebSocket.
    WebSocket {
        /// The other end of the TCP connection: the gateway's or the proxy's.
        remote: SocketAddr,
        /// The proxy, as `host:port`.
        proxy: Option<String>,
        /// What the outer TLS showed, for reports.
        outer: OuterTls,
    },
}

impl Link {
    /// Closes the connection and gives the peer's endpoint a moment to hear of it.
    /// A link that is only dropped leaves the gateway waiting for its idle timeout.
    pub async fn close(self, code: quinn::VarInt, reason: &[u8]) {
        self.connection.close(code, reason);
        let _ = tokio::time::timeout(CLOSE_TIME, self.endpoint.wait_idle()).await;
    }

    /// Waits for the end of the WebSocket and says why it ended; the connection is
    /// closed then. Over UDP, never returns.
    pub async fn carrier_ended(&mut self) -> PumpEnd {
        match self.carrier.join_next().await {
            Some(Ok(end)) => end,
            Some(Err(error)) => PumpEnd::Failed(error.to_string()),
            None => std::future::pending().await,
        }
    }
}
