//! Admission of new connections at a gateway.
//!
//! A handshake costs the gateway CPU before it knows who is asking. Two bounds keep
//! strangers from starving those already connected:
//!
//! * when many handshakes are pending, an address must first prove that it is real
//!   (a QUIC Retry: stateless, and smaller than what was sent, so nothing is
//!   amplified towards a forged address);
//! * when too many are pending, newcomers are dropped without an answer: QUIC clients
//!   send their first packet again with growing pauses, while a refusal would send
//!   all of them into their backoff at the same time.
//!
//! An admitted handshake counts until it succeeded, failed, timed out or was dropped.
//! [`decide`] is the rule; [`Acceptor`] applies it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::transport::HANDSHAKE_TIMEOUT;

/// When newcomers have to prove their address or wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Pending handshakes from which an address must be proven.
    pub retry_from: usize,
    /// Pending handshakes from which newcomers are dropped.
    pub drop_from: usize,
    /// Time for one handshake.
    pub handshake_timeout: Duration,
}

/// Pending handshakes that a core may have; from half of it on, addresses must be proven.
///
/// A handshake costs a gateway some two milliseconds, so these are an eighth of a second of
/// work: less than any agent waits for, of those that dial and of those that are linked and
/// expect their heartbeats answered. With 1,024 pending, whatever the machine, 10,000 agents
/// that came back together did so never: handshakes were given up by their agents before it
/// was their turn, and agents just linked gave their links up because nobody answered.
/// A path of 100 ms still lets a core complete what it can.
const PENDING_PER_CORE: usize = 64;

impl AdmissionLimits {
    /// For a machine with this many cores.
    pub fn for_cores(cores: usize) -> Self {
        let drop_from = PENDING_PER_CORE.saturating_mul(cores.max(1));
        Self {
            retry_from: drop_from / 2,
            drop_from,
            handshake_timeout: HANDSHAKE_TIMEOUT,
        }
    }
}

impl Default for AdmissionLimits {
    /// For the smallest machine.
    fn default() -> Self {
        Self::for_cores(1)
    }
}

/// What to do with a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Start the handshake.
    Accept,
    /// Have it prove its address.
    Retry,
    /// Forget the packet.
    Drop,
}

/// The rule. `validated` says whether the newcomer's address is proven.
pub fn decide(limits: &AdmissionLimits, pending: usize, validated: bool) -> Admission {
    if pending >= limits.drop_from {
        Admission::Drop
    } else if pending >= limits.retry_from && !validated {
        Admission::Retry
    } else {
        Admission::Accept
    }
}

/// Accepts connections of one endpoint under [`AdmissionLimits`]. Endpoints that
/// share a machine share the count: clone the acceptor with
/// [`Acceptor::for_endpoint`].
#[derive(Debug, Clone)]
pub struct Acceptor {
    endpoint: quinn::Endpoint,
    limits: AdmissionLimits,
    pending: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
}

impl Acceptor {
    /// For `endpoint`, which must have a server configuration.
    pub fn new(endpoint: quinn::Endpoint, limits: AdmissionLimits) -> Self {
        Self {
            endpoint,
            limits,
            pending: Arc::default(),
            dropped: Arc::default(),
        }
    }

    /// For another endpoint, under the same count.
    pub fn for_endpoint(&self, endpoint: quinn::Endpoint) -> Self {
        Self {
            endpoint,
            ..self.clone()
        }
    }

    /// Handshakes under way.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }

    /// Newcomers dropped so far.
    pub fn dropped(&self) -> usize {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The next handshake admitted, or nothing once the endpoint is closed. Finish it
    /// in a task of its own: this only takes it in.
    pub async fn next(&self) -> Option<Handshake> {
        loop {
            let incoming = self.endpoint.accept().await?;
            let validated = incoming.remote_address_validated() || !incoming.may_retry();
            match decide(&self.limits, self.pending(), validated) {
                Admission::Accept => {}
                Admission::Retry => {
                    // Fails only when it may not retry, which `validated` covers.
                    let _ = incoming.retry();
                    continue;
                }
                Admission::Drop => {
                    self.dropped.fetch_add(1, Ordering::Relaxed);
                    incoming.ignore();
                    continue;
                }
            }
            let remote = incoming.remote_address();
            match incoming.accept() {
                Ok(connecting) => {
                    return Some(Handshake {
                        connecting,
                        remote,
                        timeout: self.limits.handshake_timeout,
                        _pending: Pending::count(&self.pending),
                    });
                }
                Err(error) => tracing::debug!(%remote, %error, "first packet refused"),
            }
        }
    }
}

/// An admitted handshake; dropping it ends it.
#[derive(Debug)]
pub struct Handshake {
    connecting: quinn::Connecting,
    remote: SocketAddr,
    timeout: Duration,
    _pending: Pending,
}

/// Why a handshake did not become a connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer did not finish in time.
    #[error("handshake not finished within {0:?}")]
    Timeout(Duration),
    /// The connection was lost or refused.
    #[error("handshake ended")]
    Connection(#[source] quinn::ConnectionError),
}

impl Handshake {
    /// Where it comes from; an address of the carrier for a WebSocket.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Waits for the handshake's end, within the limit.
    pub async fn finish(self) -> Result<quinn::Connection, HandshakeError> {
        match tokio::time::timeout(self.timeout, self.connecting).await {
            Ok(result) => result.map_err(HandshakeError::Connection),
            Err(_) => Err(HandshakeError::Timeout(self.timeout)),
        }
    }
}

/// One count of pending handshakes, given back on drop.
#[derive(Debug)]
struct Pending(Arc<AtomicUsize>);

impl Pending {
    fn count(pending: &Arc<AtomicUsize>) -> Self {
        pending.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(pending))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_machine_takes_more_at_a_time() {
        let (none, four) = (AdmissionLimits::for_cores(0), AdmissionLimits::for_cores(4));
        assert_eq!(none, AdmissionLimits::default());
        assert_eq!(four.drop_from, 4 * none.drop_from);
        assert!(four.retry_from < four.drop_from);
    }

    #[test]
    fn pressure_first_asks_for_proof_and_then_drops() {
        let limits = AdmissionLimits {
            retry_from: 2,
            drop_from: 4,
            ..Default::default()
        };
        let verdicts = |validated| {
            (0..5)
                .map(|n| decide(&limits, n, validated))
                .collect::<Vec<_>>()
        };
        use Admission::{Accept, Drop, Retry};
        assert_eq!(verdicts(false), [Accept, Accept, Retry, Retry, Drop]);
        assert_eq!(verdicts(true), [Accept, Accept, Accept, Accept, Drop]);
    }
}
