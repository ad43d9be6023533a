//! Ways through this host for the gateway: TCP connections, UDP sockets, and packets that wake
//! machines, to what the host's owner allows in `[forward]`.
//!
//! ```text
//! read ─► port ─► resolve once ─► judge every address ─► connect to one that was judged
//!      ─► tell the gateway ─► carry bytes until an end, silence, or a cap
//! ```
//!
//! What may be reached is decided in [`agent_core::forward`]. Nothing is read of what passes: it
//! is TLS between the gateway and the device, where they speak TLS.

mod carry;
mod wake;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use agent_core::forward::{Allow, Refused, Wanted, What};
use link::frame::{MAX_FRAME, write_message};
use model::ids::HostId;
use model::names::clean;
use model::plugin::wake::{Mac, WAKE};
use protocol::v1::{
    ForwardOpened, ForwardRefusal, ForwardRefused, ForwardReply, ForwardRequest, forward_reply,
};
use quinn::{RecvStream, SendStream};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

/// Forwards at a time; a gateway that asks for more is told so.
const AT_A_TIME: usize = 32;
/// Look-ups at a time. Each holds a thread until the system answers, however early its asker
/// gives up.
const LOOKUPS: usize = 8;
/// The longest that opening may take, whatever the gateway asks.
const LONGEST: Duration = Duration::from_secs(30);
/// Most addresses of a name that are looked at, and most that are tried.
const MAX_ADDRESSES: usize = 16;
const MAX_ATTEMPTS: usize = 4;
/// For one address: time for a second packet after a lost first one.
const ATTEMPT: Duration = Duration::from_secs(3);
/// For the gateway to take the reply.
const WRITE_WITHIN: Duration = Duration::from_secs(10);

/// Who opens ways for one link.
#[derive(Debug)]
pub struct Forwarder {
    host: HostId,
    generation: u64,
    allow: Allow,
    seats: Semaphore,
    lookups: Arc<Semaphore>,
}

/// What was opened.
enum Way {
    Tcp(TcpStream),
    Udp(UdpSocket),
    /// A packet was sent, and that is all.
    Sent,
}

impl Forwarder {
    /// Opens ways as this identity, to what is allowed.
    pub fn new(host: HostId, generation: u64, allow: Allow) -> Self {
        Self {
            host,
            generation,
            allow,
            seats: Semaphore::new(AT_A_TIME),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
        }
    }

    /// Serves one request to its end.
    pub async fn serve(
        &self,
        request: ForwardRequest,
        mut send: SendStream,
        receive: RecvStream,
        paused: bool,
    ) {
        let seat = self.seats.try_acquire();
        let opened = match &seat {
            _ if paused => Err(Refused::new(
                ForwardRefusal::Paused,
                "this host is paused: its owner lets nothing be done through it",
            )),
            Ok(_) => self.open(&request).await,
            Err(_) => Err(Refused::new(
                ForwardRefusal::Busy,
                format!("this host serves {AT_A_TIME} forwards already"),
            )),
        };
        let plugin = clean(&request.plugin, 64);
        let (way, body) = match opened {
            Ok((way, address)) => {
                tracing::info!(%plugin, %address, "the gateway reaches through this host");
                let address = address.to_string();
                (way, forward_reply::Body::Opened(ForwardOpened { address }))
            }
            Err(Refused { reason, message }) => {
                tracing::info!(%plugin, ?reason, %message, "a forward was refused");
                let reason = reason.into();
                let refused = ForwardRefused { reason, message };
                (Way::Sent, forward_reply::Body::Refused(refused))
            }
        };
        let reply = ForwardReply { body: Some(body) };
        if write_message(&mut send, &reply, MAX_FRAME, WRITE_WITHIN)
            .await
            .is_err()
        {
            return;
        }
        match way {
            Way::Tcp(stream) => carry::tcp(stream, send, receive).await,
            Way::Udp(socket) => carry::udp(socket, send, receive).await,
            Way::Sent => carry::end(send).await,
        }
    }

    async fn open(&self, request: &ForwardRequest) -> Result<(Way, SocketAddr), Refused> {
        if request.host != self.host.to_string() || request.generation != self.generation {
            let message = "this host has another identity";
            return Err(Refused::new(ForwardRefusal::NotMine, message));
        }
        let wanted = Wanted::read(request)?;
        wanted.check_port(&self.allow)?;
        let within = Duration::from_millis(request.deadline_ms.into()).min(LONGEST);
        let deadline = Instant::now() + within;
        let late = |doing: &str| {
            let message = format!("ran out of time while {doing} {}", wanted.host);
            Refused::new(ForwardRefusal::TimedOut, message)
        };
        let resolving = timeout_at(deadline, self.addresses(&wanted.host)).await;
        let addresses = resolving.map_err(|_| late("resolving"))?.map_err(|error| {
            let message = format!("the name {} has no address there: {error}", wanted.host);
            Refused::new(ForwardRefusal::NotResolved, clean(&message, 300))
        })?;
        let permitted = wanted.judge(&self.allow, &addresses)?;
        let connecting = connect(&wanted.what, &permitted);
        let connected = timeout_at(deadline, connecting).await;
        connected
            .map_err(|_| late("connecting to"))?
            .map_err(|error| {
                let (host, port) = (&wanted.host, wanted.port);
                let reason = match error.kind() {
                    io::ErrorKind::TimedOut => ForwardRefusal::TimedOut,
                    _ => ForwardRefusal::Unreachable,
                };
                let message = format!("{host}, port {port}, is not reached from there: {error}");
                Refused::new(reason, message)
            })
    }

    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        let lookups = Arc::clone(&self.lookups);
        let permit = lookups.acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let looked = tokio::task::spawn_blocking(move || {
            let _held = permit;
            let mut found: Vec<IpAddr> = Vec::new();
            for address in (host.as_str(), 0).to_socket_addrs()? {
                if !found.contains(&address.ip()) && found.len() < MAX_ADDRESSES {
                    found.push(address.ip());
                }
            }
            Ok(found)
        });
        looked.await.map_err(io::Error::other)?
    }
}

/// Connects to the first of these that can be connected to. Between judging and connecting
/// nothing is looked up.
async fn connect(what: &What, addresses: &[SocketAddr]) -> io::Result<(Way, SocketAddr)> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses.iter().take(MAX_ATTEMPTS) {
        let way = match what {
            What::Tcp => timeout(ATTEMPT, tcp(*address))
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
            What::Udp => udp(*address).await,
            What::Wake(mac) => woken(*mac).await,
        };
        match way {
            Ok(way) => return Ok((way, *address)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn tcp(address: SocketAddr) -> io::Result<Way> {
    let stream = TcpStream::connect(address).await?;
    // The gateway has gathered already what belongs together.
    stream.set_nodelay(true)?;
    Ok(Way::Tcp(stream))
}

/// Connected, so that the kernel drops what comes from anybody else.
async fn udp(address: SocketAddr) -> io::Result<Way> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(Way::Udp(socket))
}

async fn woken(mac: Mac) -> io::Result<Way> {
    wake::send(&mac.magic_packet(), WAKE).await?;
    Ok(Way::Sent)
}
