//! What went wrong on the way to a gateway: where, why, and what kind of trouble it
//! is.

use std::fmt;
use std::io;
use std::time::Duration;

use quinn::ConnectionError;

use crate::verify::VerifyError;

/// The step that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rung {
    /// Resolving the name.
    Dns,
    /// Sending UDP packets and hearing anything back.
    Udp,
    /// Connecting by TCP, to the gateway or to the proxy.
    Tcp,
    /// Getting the proxy to connect.
    Proxy,
    /// The outer TLS handshake.
    Tls,
    /// The WebSocket handshake.
    WebSocket,
    /// The QUIC handshake, which proves who is who.
    Quic,
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "dns",
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::WebSocket => "websocket",
            Self::Quic => "quic",
        })
    }
}

/// A dial that failed.
#[derive(Debug, thiserror::Error)]
#[error("reach {peer}: {rung}")]
pub struct DialError {
    /// The step that failed.
    pub rung: Rung,
    /// The other side of that step, as `host:port`.
    pub peer: String,
    /// Why.
    #[source]
    pub reason: Reason,
}

impl DialError {
    /// What kind of trouble it is.
    pub fn class(&self) -> Class {
        self.reason.class()
    }
}

/// What kind of trouble a failure is, and so what to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The network or a box in it: back off and try again, other ways too.
    Network,
    /// This machine's settings (a proxy's password, say): trying again will not help
    /// before a person acts, but costs little.
    Settings,
    /// Whoever answered is not our gateway. Never weaken the check for it.
    NotOurGateway,
    /// The gateway refused us. Come back slowly; keep the identity.
    Refused,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// Nothing came back in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The name has no address.
    #[error("the name has no address")]
    NoAddress,
    /// The operating system refused.
    #[error("the operating system reports an error")]
    Io(#[source] io::Error),
    /// Packets may not even leave this machine: a firewall or no route.
    #[error("packets cannot leave this machine (firewall or no route)")]
    Blocked(#[source] io::Error),
    /// The proxy wants a user and a password.
    #[error("the proxy demands authentication; put user and password into its URL")]
    ProxyAuthMissing,
    /// The proxy does not take those given.
    #[error("the proxy refused the user or password given")]
    ProxyAuthRefused,
    /// The proxy answered something else than yes.
    #[error("the proxy refused to connect: {0}")]
    ProxyRefused(String),
    /// The answer is no HTTP.
    #[error("the answer is not HTTP; is this the proxy's port?")]
    NotHttp,
    /// The outer TLS handshake failed.
    #[error("the outer tls handshake failed")]
    OuterTls(#[source] io::Error),
    /// A web server answered that knows no agents.
    #[error(
        "answered with {0} instead of a websocket; a middle box, a captive portal or another web \
         server stands where the gateway should"
    )]
    NotAWebSocket(String),
    /// A gateway without our subprotocol.
    #[error("the server speaks no agent link on its websocket")]
    Subprotocol,
    /// The WebSocket handshake broke otherwise.
    #[error("the websocket handshake failed: {0}")]
    WebSocket(String),
    /// The WebSocket ended during the QUIC handshake.
    #[error("the websocket ended")]
    CarrierEnded(#[source] crate::carrier::PumpEnd),
    /// Whoever answered has no certificate that we believe.
    #[error("the answer does not come from a gateway of this deployment")]
    Untrusted(#[source] VerifyError),
    /// The gateway did not accept us.
    #[error("the gateway refused this host: {0}")]
    Refused(String),
    /// The connection ended otherwise.
    #[error("the connection ended")]
    Connection(#[source] ConnectionError),
    /// The connection could not be started.
    #[error("start the connection")]
    Connect(#[source] quinn::ConnectError),
}

impl Reason {
    /// What the end of a connection means.
    pub fn of(error: ConnectionError) -> Self {
        match &error {
            ConnectionError::ApplicationClosed(close) => Self::Refused(close.to_string()),
            ConnectionError::ConnectionClosed(close)
                if is_tls_alert(close.error_code)
                    || close.error_code == quinn::TransportErrorCode::CONNECTION_REFUSED =>
            {
                Self::Refused(close.to_string())
            }
            _ => Self::Connection(error),
        }
    }

    /// What kind of trouble it is.
    pub fn class(&self) -> Class {
        match self {
            Self::Timeout(_)
            | Self::NoAddress
            | Self::Io(_)
            | Self::Blocked(_)
            | Self::ProxyRefused(_)
            | Self::NotHttp
            | Self::OuterTls(_)
            | Self::NotAWebSocket(_)
            | Self::WebSocket(_)
            | Self::CarrierEnded(_)
            | Self::Connection(_)
            | Self::Connect(_) => Class::Network,
            Self::ProxyAuthMissing | Self::ProxyAuthRefused => Class::Settings,
            Self::Subprotocol | Self::Untrusted(_) => Class::NotOurGateway,
            Self::Refused(_) => Class::Refused,
        }
    }
}

/// RFC 9001 section 4.8: codes 0x0100 to 0x01ff are TLS alerts.
fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}
