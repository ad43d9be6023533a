//! Admission of new connections at a gateway.
//!
//! A handshake costs the gateway CPU before it knows who is asking. Two bounds keep
//! strangers from starving those already connected:
//!
//! * when many handshakes are pending, an address must first prove that it is real
//!   (a QUIC Retry: stateless, and smaller than what was sent, so nothing is
//!   amplified towards a forged address);
//! * when too many are pending, of everybody or of one source, newcomers whose address
//!   is proven wait in a queue. Those for whom that has no room are dropped without an
//!   answer: QUIC clients send their first packet again with growing pauses, while a
//!   refusal would send all of them into their backoff at the same time.
//!
//! The bound per source is what a single machine meets that begins handshakes and never
//! finishes them: it fills its own share, and the others' handshakes go on.
//!
//! An admitted handshake counts until it succeeded, failed, timed out or was dropped.
//! [`decide`] is the rule; [`Acceptor`] applies it and [`Handshakes`] counts.

mod queue;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use quinn::ConnectionError;
use tokio::sync::Notify;

pub use self::queue::QueueLimits;
use self::queue::{Full, Queue, Taken};
use crate::carrier::is_synthetic;
use crate::transport::HANDSHAKE_TIMEOUT;

/// When newcomers have to prove their address or wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdmissionLimits {
    /// Pending handshakes from which an address must be proven.
    pub retry_from: usize,
    /// Pending handshakes from which newcomers wait.
    pub full_from: usize,
    /// The same for the pending handshakes of one source.
    pub full_from_source: usize,
    /// Who may wait.
    pub queue: QueueLimits,
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
/// Newcomers that may wait for a core: a few seconds of its work, and a few kilobytes each.
const WAITING_PER_CORE: usize = 2048;
/// An agent gives a dial up after twelve seconds; what is left is for the handshake.
const PATIENCE: Duration = Duration::from_secs(8);

impl AdmissionLimits {
    /// For a machine with this many cores.
    pub fn for_cores(cores: usize) -> Self {
        let full_from = PENDING_PER_CORE.saturating_mul(cores.max(1));
        let waiting = WAITING_PER_CORE.saturating_mul(cores.max(1));
        Self {
            retry_from: full_from / 2,
            full_from,
            // More than what packets with forged addresses can fill in anybody's name.
            full_from_source: full_from / 4 * 3,
            queue: QueueLimits {
                all: waiting,
                of_source: waiting / 4 * 3,
                patience: PATIENCE,
            },
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
    /// Have it wait for its turn.
    Wait,
}

/// The rule. `pending` are the handshakes of everybody, `own` those of the newcomer's
/// source; `validated` says whether its address is proven.
pub fn decide(limits: &AdmissionLimits, pending: usize, own: usize, validated: bool) -> Admission {
    if pending >= limits.retry_from && !validated {
        Admission::Retry
    } else if pending >= limits.full_from || own >= limits.full_from_source {
        Admission::Wait
    } else {
        Admission::Accept
    }
}

/// Accepts connections of one endpoint under [`AdmissionLimits`]. Endpoints that
/// share a machine share the count: make the second acceptor with
/// [`Acceptor::for_endpoint`].
#[derive(Debug)]
pub struct Acceptor {
    endpoint: quinn::Endpoint,
    limits: AdmissionLimits,
    handshakes: Arc<Handshakes>,
    waiting: Queue<quinn::Incoming>,
}

/// What becomes of handshakes, over all endpoints of a gateway.
#[derive(Debug, Default)]
pub struct Handshakes {
    pending: Mutex<Pending>,
    /// Told whenever one ends.
    ended: Notify,
    retried: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Pending {
    all: usize,
    of: HashMap<IpAddr, usize>,
}

impl Handshakes {
    /// Under way.
    pub fn pending(&self) -> usize {
        self.lock().all
    }

    /// Newcomers asked to prove their address so far.
    pub fn retried(&self) -> u64 {
        self.retried.load(Ordering::Relaxed)
    }

    /// Newcomers dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts a newcomer, if [`decide`] lets it in.
    fn admit(
        self: &Arc<Self>,
        limits: &AdmissionLimits,
        source: IpAddr,
        validated: bool,
    ) -> Result<Counted, Admission> {
        let mut pending = self.lock();
        let own = pending.of.get(&source).copied().unwrap_or(0);
        match decide(limits, pending.all, own, validated) {
            Admission::Accept => {}
            refused @ (Admission::Retry | Admission::Wait) => return Err(refused),
        }
        pending.all += 1;
        *pending.of.entry(source).or_default() += 1;
        drop(pending);
        Ok(Counted {
            handshakes: Arc::clone(self),
            source,
        })
    }

    /// The same for one that waits.
    fn place(self: &Arc<Self>, limits: &AdmissionLimits, source: IpAddr) -> Result<Counted, Full> {
        self.admit(limits, source, true).map_err(|_| {
            if self.pending() >= limits.full_from {
                Full::All
            } else {
                Full::Source
            }
        })
    }

    /// Only counting runs under this lock.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where an address belongs as far as limits are concerned: an IPv4 address stands
/// for itself, an IPv6 address for its /64, the least that a single customer gets.
pub fn source_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            Ipv6Addr::from(network).into()
        }
    }
}

/// All WebSockets of the carrier share one network; each is a source of its own.
fn source_of_remote(remote: SocketAddr) -> IpAddr {
    if is_synthetic(remote) {
        remote.ip()
    } else {
        source_of(remote.ip())
    }
}

impl Acceptor {
    /// For `endpoint`, which must have a server configuration.
    pub fn new(endpoint: quinn::Endpoint, limits: AdmissionLimits) -> Self {
        Self {
            endpoint,
            limits,
            handshakes: Arc::default(),
            waiting: Queue::new(limits.queue),
        }
    }

    /// Counts in `handshakes`, which others can look at.
    pub fn counting_in(self, handshakes: Arc<Handshakes>) -> Self {
        Self { handshakes, ..self }
    }

    /// For another endpoint, under the same count.
    pub fn for_endpoint(&self, endpoint: quinn::Endpoint) -> Self {
        Self::new(endpoint, self.limits).counting_in(Arc::clone(&self.handshakes))
    }

    /// What became of newcomers.
    pub fn handshakes(&self) -> &Arc<Handshakes> {
        &self.handshakes
    }

    /// The next handshake admitted, or nothing once the endpoint is closed. Finish it
    /// in a task of its own: this only takes it in.
    pub async fn next(&mut self) -> Option<Handshake> {
        let handshakes = Arc::clone(&self.handshakes);
        loop {
            // Listens before it looks: none that ends in between is missed.
            let ended = handshakes.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if let Some(handshake) = self.next_waiting() {
                return Some(handshake);
            }
            tokio::select! {
                incoming = self.endpoint.accept() => {
                    if let Some(handshake) = self.receive(incoming?) {
                        return Some(handshake);
                    }
                }
                () = ended, if !self.waiting.is_empty() => {}
            }
        }
    }

    fn next_waiting(&mut self) -> Option<Handshake> {
        loop {
            let (handshakes, limits) = (&self.handshakes, &self.limits);
            let place = |source| handshakes.place(limits, source);
            match self.waiting.take(Instant::now(), place) {
                Taken::Next(incoming, counted) => {
                    if let Some(handshake) = self.begin(incoming, counted) {
                        return Some(handshake);
                    }
                }
                Taken::Late(incoming) => self.forget(incoming),
                Taken::Nobody => return None,
            }
        }
    }

    fn receive(&mut self, incoming: quinn::Incoming) -> Option<Handshake> {
        let validated = incoming.remote_address_validated() || !incoming.may_retry();
        let source = source_of_remote(incoming.remote_address());
        match self.handshakes.admit(&self.limits, source, validated) {
            Ok(counted) => return self.begin(incoming, counted),
            Err(Admission::Retry) => {
                self.handshakes.retried.fetch_add(1, Ordering::Relaxed);
                // Fails only when it may not retry, which `validated` covers.
                let _ = incoming.retry();
            }
            Err(Admission::Accept | Admission::Wait) => {
                // An address that nobody has proven takes no place from others.
                let queued = if validated {
                    self.waiting.push(source, incoming, Instant::now())
                } else {
                    Err(incoming)
                };
                if let Err(incoming) = queued {
                    self.forget(incoming);
                }
            }
        }
        None
    }

    fn begin(&self, incoming: quinn::Incoming, counted: Counted) -> Option<Handshake> {
        let remote = incoming.remote_address();
        match incoming.accept() {
            Ok(connecting) => Some(Handshake {
                connecting,
                remote,
                timeout: self.limits.handshake_timeout,
                _counted: counted,
            }),
            Err(error) => {
                tracing::debug!(%remote, %error, "first packet refused");
                None
            }
        }
    }

    fn forget(&self, incoming: quinn::Incoming) {
        self.handshakes.dropped.fetch_add(1, Ordering::Relaxed);
        incoming.ignore();
    }
}

/// An admitted handshake; dropping it ends it.
#[derive(Debug)]
pub struct Handshake {
    connecting: quinn::Connecting,
    remote: SocketAddr,
    timeout: Duration,
    _counted: Counted,
}

/// Why a handshake did not become a connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer did not finish in time.
    #[error("handshake not finished within {0:?}")]
    Timeout(Duration),
    /// The connection was lost or refused.
    #[error("handshake ended")]
    Connection(#[source] ConnectionError),
}

impl HandshakeError {
    /// Why, in a word of a small set: for counting.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout(_) | Self::Connection(ConnectionError::TimedOut) => "timeout",
            Self::Connection(error) => match error {
                ConnectionError::TransportError(error) => reason_of_code(error.code.into()),
                ConnectionError::ConnectionClosed(_)
                | ConnectionError::ApplicationClosed(_)
                | ConnectionError::Reset => "closed_by_peer",
                ConnectionError::VersionMismatch => "version",
                ConnectionError::LocallyClosed => "stopping",
                ConnectionError::TimedOut | ConnectionError::CidsExhausted => "transport",
            },
        }
    }
}

/// TLS alerts travel as QUIC errors 0x100 to 0x1ff (RFC 9001, section 4.8); which of
/// them stands for which verdict on a certificate is decided in [`crate::tls`].
fn reason_of_code(code: u64) -> &'static str {
    const ALERTS: u64 = 0x100;
    match code.checked_sub(ALERTS) {
        Some(40 | 42 | 46 | 50) => "malformed_certificate",
        Some(43) => "wrong_usage",
        Some(48) => "unknown_issuer",
        Some(49) => "wrong_role",
        Some(51) => "bad_signature",
        Some(116) => "no_certificate",
        Some(120) => "protocol",
        Some(0..=0xff) => "tls",
        Some(_) | None => "transport",
    }
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
struct Counted {
    handshakes: Arc<Handshakes>,
    source: IpAddr,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut pending = self.handshakes.lock();
        pending.all -= 1;
        if let Some(own) = pending.of.get_mut(&self.source) {
            *own -= 1;
            if *own == 0 {
                pending.of.remove(&self.source);
            }
        }
        drop(pending);
        self.handshakes.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_machine_takes_more_at_a_time() {
        let (none, four) = (AdmissionLimits::for_cores(0), AdmissionLimits::for_cores(4));
        assert_eq!(none, AdmissionLimits::default());
        assert_eq!(four.full_from, 4 * none.full_from);
        assert!(four.retry_from < four.full_from);
    }

    #[test]
    fn pressure_first_asks_for_proof_and_then_has_newcomers_wait() {
        let limits = AdmissionLimits {
            retry_from: 2,
            full_from: 4,
            ..Default::default()
        };
        let verdicts = |validated| {
            (0..5)
                .map(|n| decide(&limits, n, 0, validated))
                .collect::<Vec<_>>()
        };
        use Admission::{Accept, Retry, Wait};
        assert_eq!(verdicts(false), [Accept, Accept, Retry, Retry, Retry]);
        assert_eq!(verdicts(true), [Accept, Accept, Accept, Accept, Wait]);
    }

    #[test]
    fn abuse_17_one_source_fills_its_own_share_of_handshakes_and_no_more() {
        let limits = AdmissionLimits {
            retry_from: 100,
            full_from: 100,
            full_from_source: 3,
            ..Default::default()
        };
        let handshakes = Arc::new(Handshakes::default());
        let admit = |address: &str| {
            let remote = SocketAddr::new(address.parse().unwrap(), 4433);
            handshakes.admit(&limits, source_of_remote(remote), false)
        };
        let mut held: Vec<_> = (0..3).map(|_| admit("192.0.2.1").unwrap()).collect();
        assert_eq!(admit("192.0.2.1").unwrap_err(), Admission::Wait);
        let other = admit("192.0.2.2").unwrap();
        // Addresses of one customer's network count together, WebSockets do not.
        for last in 1..=3 {
            held.push(admit(&format!("2001:db8::{last}")).unwrap());
        }
        assert_eq!(admit("2001:db8::4").unwrap_err(), Admission::Wait);
        for last in 1..=4 {
            held.push(admit(&format!("100::{last}")).unwrap());
        }
        assert_eq!(handshakes.pending(), 11);
        drop((held, other));
        assert_eq!(handshakes.pending(), 0);
        assert!(handshakes.lock().of.is_empty(), "nothing is remembered");
        admit("192.0.2.1").unwrap();
    }
}
