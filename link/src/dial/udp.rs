//! Straight UDP.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustix::io::Errno;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::error::{DialError, Reason, Rung};
use super::race::{race, resolve};
use super::target::Target;
use super::{DialLimits, Link, Path};
use crate::socket::{AGENT_BUFFER, bind_udp};
use crate::tls::SERVER_NAME;
use crate::transport::{Client, endpoint_config};

/// Dials `target` over UDP, all its addresses with head starts.
///
/// Silence is reported as [`Rung::Udp`]: packets are lost somewhere. An answer that
/// does not please is [`Rung::Quic`].
pub async fn dial_udp(
    target: &Target,
    client: &Client,
    limits: &DialLimits,
) -> Result<Link, DialError> {
    let addresses = resolve(target, limits).await?;
    let attempts = addresses
        .into_iter()
        .map(|address| attempt(address, client));
    let fail = |(rung, reason)| DialError {
        rung,
        peer: target.to_string(),
        reason,
    };
    match timeout(limits.quic, race(attempts, limits.stagger)).await {
        Ok(Some(result)) => result.map_err(fail),
        Ok(None) => Err(fail((Rung::Dns, Reason::NoAddress))),
        Err(_) => Err(fail((Rung::Udp, Reason::Timeout(limits.quic)))),
    }
}

async fn attempt(remote: SocketAddr, client: &Client) -> Result<Link, (Rung, Reason)> {
    let local = match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let bound =
        bind_udp(local, AGENT_BUFFER).map_err(|error| (Rung::Udp, Reason::Blocked(error)))?;
    // quinn takes a send that fails for a lost packet and would wait for the timeout.
    // An empty datagram, which every QUIC server ignores, tells at once whether a
    // firewall here or a missing route lets nothing out.
    if let Err(error) = bound.socket.send_to(&[], remote)
        && is_blocked(&error)
    {
        return Err((Rung::Udp, Reason::Blocked(error)));
    }
    let endpoint = quinn::Endpoint::new(
        endpoint_config(),
        None,
        bound.socket,
        Arc::new(quinn::TokioRuntime),
    )
    .map_err(|error| (Rung::Udp, Reason::Io(error)))?;
    let connection = connect(&endpoint, remote, client).await?;
    Ok(Link {
        connection,
        endpoint,
        path: Path::Udp { remote },
        carrier: JoinSet::new(),
    })
}

fn is_blocked(error: &std::io::Error) -> bool {
    const BLOCKED: [Errno; 7] = [
        Errno::PERM,
        Errno::ACCESS,
        Errno::NETUNREACH,
        Errno::HOSTUNREACH,
        Errno::NETDOWN,
        Errno::ADDRNOTAVAIL,
        Errno::AFNOSUPPORT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| BLOCKED.contains(&errno))
}

/// The QUIC handshake, over whatever carries it.
pub(super) async fn connect(
    endpoint: &quinn::Endpoint,
    remote: SocketAddr,
    client: &Client,
) -> Result<quinn::Connection, (Rung, Reason)> {
    // What an earlier dial left is not about this one.
    client.verifier.take_refusal();
    let connecting = endpoint
        .connect_with(client.quic.clone(), remote, SERVER_NAME)
        .map_err(|error| (Rung::Quic, Reason::Connect(error)))?;
    connecting
        .await
        .map_err(|error| match client.verifier.take_refusal() {
            Some(refusal) => (Rung::Quic, Reason::Untrusted(refusal)),
            None => (Rung::Quic, Reason::of(error)),
        })
}
