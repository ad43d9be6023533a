//! Many WebSockets as one UDP socket.
//!
//! Every attached WebSocket gets an address of its own from `100::/64`, the prefix
//! that RFC 6666 reserves for discarding: quinn needs *some* address per peer, and
//! this one can never be confused with, or routed to, a real one. Addresses are not
//! used twice in a process, so a late packet for a closed WebSocket finds nobody.
//!
//! What happens when a queue is full differs by direction:
//! * outbound (QUIC to WebSocket): the datagram is dropped, as a router would. The
//!   endpoint must not wait for one agent that does not read, and QUIC's congestion
//!   control takes the loss for what it is;
//! * inbound (WebSocket to QUIC): the pump waits, so TCP slows down the sender. Each
//!   WebSocket has a share of the common queue, so a flooding agent waits for itself
//!   before it could crowd out others.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::message;

/// Datagrams waiting for the endpoint, of all WebSockets together.
const INBOUND: usize = 4096;
/// Of these, from one WebSocket: a burst of some 90 KB, and 64 agents flooding at
/// once before anybody else waits.
const INBOUND_SHARE: usize = 64;
/// Messages waiting for one WebSocket. Each is up to ten datagrams.
const OUTBOUND: usize = 64;

const PREFIX: u16 = 0x0100;
const PORT: u16 = 1;

/// See the module's head.
pub struct Hub {
    inbound: Mutex<mpsc::Receiver<Inbound>>,
    inbound_sender: mpsc::Sender<Inbound>,
    slots: Mutex<HashMap<SocketAddr, Slot>>,
    last: AtomicU64,
    dropped: AtomicU64,
}

struct Inbound {
    from: SocketAddr,
    datagram: Bytes,
    /// Given back to the WebSocket's share when quinn took the datagram.
    _share: OwnedSemaphorePermit,
}

struct Slot {
    remote: SocketAddr,
    outbound: mpsc::Sender<Bytes>,
}

impl Hub {
    /// A hub without WebSockets.
    pub fn new() -> Arc<Self> {
        let (inbound_sender, inbound) = mpsc::channel(INBOUND);
        Arc::new(Self {
            inbound: Mutex::new(inbound),
            inbound_sender,
            slots: Mutex::default(),
            last: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// A quinn endpoint over this hub, which accepts when `server` is given. Must be
    /// called within a tokio runtime.
    pub fn endpoint(
        self: &Arc<Self>,
        server: Option<quinn::ServerConfig>,
    ) -> io::Result<quinn::Endpoint> {
        quinn::Endpoint::new_with_abstract_socket(
            crate::transport::endpoint_config(),
            server,
            Arc::clone(self) as Arc<dyn AsyncUdpSocket>,
            Arc::new(quinn::TokioRuntime),
        )
    }

    /// Takes in a WebSocket whose TCP peer is `remote`. It is detached when the
    /// result is dropped.
    pub fn attach(self: &Arc<Self>, remote: SocketAddr) -> Attached {
        let address = synthetic(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (sender, outbound) = mpsc::channel(OUTBOUND);
        self.slots().insert(
            address,
            Slot {
                remote,
                outbound: sender,
            },
        );
        Attached {
            address,
            delivery: Delivery {
                from: address,
                inbound: self.inbound_sender.clone(),
                share: Arc::new(Semaphore::new(INBOUND_SHARE)),
            },
            outbound,
            _detach: Detach {
                hub: Arc::clone(self),
                address,
            },
        }
    }

    /// The TCP peer behind the address that quinn shows.
    pub fn remote_of(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.slots().get(&address).map(|slot| slot.remote)
    }

    /// WebSockets attached.
    pub fn attached(&self) -> usize {
        self.slots().len()
    }

    /// Outbound messages dropped because a WebSocket did not take them.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Only single lookups, inserts and removals run under this lock, and none of
    /// them can stop half way.
    fn slots(&self) -> MutexGuard<'_, HashMap<SocketAddr, Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn synthetic(number: u64) -> SocketAddr {
    let address = (u128::from(PREFIX) << 112) | u128::from(number);
    SocketAddr::new(Ipv6Addr::from_bits(address).into(), PORT)
}

/// Whether `address` stands for a WebSocket of some hub.
pub fn is_synthetic(address: SocketAddr) -> bool {
    matches!(address, SocketAddr::V6(v6)
        if v6.ip().segments()[..4] == [PREFIX, 0, 0, 0])
}

/// A WebSocket's place in a hub, to be given to [`super::pump()`].
#[derive(Debug)]
pub struct Attached {
    pub(super) address: SocketAddr,
    pub(super) delivery: Delivery,
    pub(super) outbound: mpsc::Receiver<Bytes>,
    pub(super) _detach: Detach,
}

impl Attached {
    /// The address under which quinn knows this WebSocket.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The way in.
#[derive(Debug)]
pub(super) struct Delivery {
    from: SocketAddr,
    inbound: mpsc::Sender<Inbound>,
    share: Arc<Semaphore>,
}

impl Delivery {
    /// Passes a datagram to quinn, waiting for room. False when the hub is gone.
    pub(super) async fn deliver(&self, datagram: Bytes) -> bool {
        // Neither the semaphore nor, while a hub lives, the queue is ever closed.
        let Ok(share) = Arc::clone(&self.share).acquire_owned().await else {
            return false;
        };
        self.inbound
            .send(Inbound {
                from: self.from,
                datagram,
                _share: share,
            })
            .await
            .is_ok()
    }
}

#[derive(Debug)]
pub(super) struct Detach {
    hub: Arc<Hub>,
    address: SocketAddr,
}

impl Drop for Detach {
    fn drop(&mut self) {
        self.hub.slots().remove(&self.address);
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("attached", &self.attached())
            .finish_non_exhaustive()
    }
}

impl AsyncUdpSocket for Hub {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    /// Never would-block: a full queue drops.
    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(queue) = self
            .slots()
            .get(&transmit.destination)
            .map(|slot| slot.outbound.clone())
        else {
            return Ok(()); // gone, as a UDP peer may be
        };
        let size = transmit
            .segment_size
            .unwrap_or(transmit.contents.len())
            .max(1);
        let sent = message::encode(transmit.contents.chunks(size))
            .is_ok_and(|message| queue.try_send(message).is_ok());
        if !sent {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut inbound = self.inbound.lock().unwrap_or_else(PoisonError::into_inner);
        let mut filled = 0;
        while filled < buffers.len().min(meta.len()) {
            let Poll::Ready(Some(Inbound { from, datagram, .. })) = inbound.poll_recv(cx) else {
                // Never the end of the queue: the hub itself holds a sender.
                break;
            };
            let Some(room) = buffers[filled].get_mut(..datagram.len()) else {
                continue; // longer than this endpoint said it takes
            };
            room.copy_from_slice(&datagram);
            meta[filled] = RecvMeta {
                addr: from,
                len: datagram.len(),
                stride: datagram.len(),
                ecn: None,
                dst_ip: None,
            };
            filled += 1;
        }
        if filled == 0 {
            Poll::Pending
        } else {
            Poll::Ready(Ok(filled))
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(synthetic(0))
    }

    fn max_transmit_segments(&self) -> usize {
        message::MAX_BATCH
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests;
