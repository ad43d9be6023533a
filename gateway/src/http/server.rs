//! The doors that HTTP comes through, and what is enforced before a handler runs.
//!
//! ```text
//! HTTPS  [::]:8443 ──TLS 1.3──┐
//! plain  127.0.0.1 (if asked) ┼─► seats, per source ─► hyper (h1 | h2) ─► router
//! admin  STATE/admin.sock ────┘   └ admin: own seats, marked LocalAdmin
//! ```
//!
//! A peer can hold a connection only as long as it gets something done:
//! * the TLS handshake, a request's head, and the time until a first request have
//!   deadlines, and an idle connection ends;
//! * a peer that does not read what is sent to it is cut off (`stall`);
//! * reading a body has its deadline where bodies are read, in
//!   [`crate::http::dispatch`];
//! * connections are limited in all and per source, and when there is no room, those
//!   that never carried a valid key make room for newcomers (`seats`).
//!
//! Which protocol is spoken, ALPN decides and nobody guesses: hyper's detection from
//! the first bytes has no deadline. Without ALPN it is HTTP/1.1. Upgrades (agents'
//! WebSockets) work on HTTP/1.1; an upgraded connection gives its seat back but still
//! counts for its source.
//!
//! An answer that comes before a body was heard to its end is not lost (`linger`).
//! What web pages make browsers send is held against where it may come from (`browser`).
//!
//! Who the client is: the peer's address, or what a trusted proxy says in
//! `X-Forwarded-For` (`client`).
//!
//! Stop: no new connections; open ones finish the request they are in. The limit for
//! that is [`Tasks::finish`]'s.

mod browser;
mod client;
mod connection;
mod linger;
mod seats;
mod stall;

use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::seats::{Counted, Seat, Seats};
use crate::app::App;
use crate::ca::https::HttpsError;
use crate::config::{AddressRange, Config, PublicUrl};
use crate::metrics::Metrics;
use crate::rate::source_of;
use crate::tasks::Tasks;

pub use self::client::{ClientAddr, LocalAdmin};
pub use self::seats::Standing;

/// The admin socket's name in the state folder.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Connections on the admin socket: people and their scripts.
const ADMIN_CONNECTIONS: usize = 64;
/// How long accepting rests when the system refuses (out of file descriptors, mostly).
const REST: Duration = Duration::from_millis(200);

/// Opens all doors of `app`: HTTPS on `listener`, the admin socket with `admin` behind
/// it too, and plain HTTP where the configuration asks for it.
pub async fn spawn(
    app: &App,
    listener: TcpListener,
    router: Router,
    admin: Router,
) -> Result<(), ServeError> {
    let settings = Settings::from(&app.config);
    let tls = app.ca.https().server_config()?;
    let socket = bind_admin_socket(&app.config.state_dir.join(ADMIN_SOCKET))?;
    let admin = router.clone().merge(admin);
    let mut doors = vec![
        ("http.tls", Door::Https(listener, tls)),
        ("http.admin", Door::Admin(socket, admin)),
    ];
    if let Some(address) = app.config.insecure_http_listen {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|source| ServeError::Listen { address, source })?;
        tracing::warn!(%address, "plain HTTP is open on this machine");
        doors.push(("http.plain", Door::Plain(listener)));
    }
    let server = Server::new(router, settings, app.tasks.clone(), app.metrics.clone());
    for (name, door) in doors {
        app.tasks
            .spawn_critical(name, Arc::clone(&server).serve(door));
    }
    Ok(())
}

/// Why a door stays shut.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// There is no certificate.
    #[error("open HTTPS")]
    Https(#[from] HttpsError),
    /// The address is taken, or not this machine's.
    #[error("listen on {address} for plain HTTP")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The admin socket cannot be made.
    #[error("{verb} the admin socket {path}")]
    AdminSocket {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// What peers may do.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of a request's head.
    pub header_bytes: usize,
    /// Connections in all.
    pub connections: usize,
    /// Connections of one source; trusted proxies are exempt.
    pub connections_per_source: usize,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: Vec<AddressRange>,
    /// How people call this gateway.
    pub public_url: Option<PublicUrl>,
    /// For a TLS handshake.
    pub handshake: Duration,
    /// For a request's head, and from the handshake to the first request.
    pub head: Duration,
    /// Without a request in progress.
    pub idle: Duration,
    /// For a peer that reads nothing of what is sent to it.
    pub stall: Duration,
    /// Requests at a time on one HTTP/2 connection.
    pub streams: u32,
}

impl Settings {
    /// Whether a peer is one of the operator's proxies.
    fn is_trusted(&self, peer: std::net::IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|range| range.contains(peer))
    }
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            header_bytes: config.limits.header_bytes,
            connections: config.limits.connections,
            connections_per_source: config.limits.connections_per_source,
            trusted_proxies: config.trusted_proxies.clone(),
            public_url: config.public_url.clone(),
            // As for links: ten round trips of the slowest satellite path.
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            idle: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            // A page needs some ten; 100 is the least that RFC 9113 recommends.
            streams: 100,
        }
    }
}

/// A listener and what is behind it.
#[derive(Debug)]
pub enum Door {
    /// TLS over TCP.
    Https(TcpListener, Arc<rustls::ServerConfig>),
    /// Plain HTTP over TCP.
    Plain(TcpListener),
    /// The admin socket, and what is behind it instead of the router of the others.
    Admin(UnixListener, Router),
}

/// Serves one router behind any number of doors.
pub struct Server {
    router: Router,
    settings: Settings,
    tasks: Tasks,
    metrics: Metrics,
    seats: Arc<Seats>,
    admin_seats: Arc<Semaphore>,
}

/// What came through a door.
enum Visitor {
    Tcp {
        stream: TcpStream,
        peer: SocketAddr,
        seat: Seat,
        counted: Counted,
    },
    Admin {
        stream: UnixStream,
        uid: u32,
        router: Router,
        seat: OwnedSemaphorePermit,
    },
}

impl Server {
    /// A server that counts in `metrics` and runs its connections in `tasks`.
    pub fn new(router: Router, settings: Settings, tasks: Tasks, metrics: Metrics) -> Arc<Self> {
        Arc::new(Self {
            router,
            tasks,
            metrics,
            seats: Seats::new(settings.connections, settings.connections_per_source),
            admin_seats: Arc::new(Semaphore::new(ADMIN_CONNECTIONS)),
            settings,
        })
    }

    /// Takes in connections until the stop.
    pub async fn serve(self: Arc<Self>, door: Door) {
        let stop = self.tasks.stop().clone();
        let mut refusing = false;
        while let Some(accepted) = stop.run_until_cancelled(self.accept(&door)).await {
            match accepted {
                Ok(Some(visitor)) => {
                    refusing = false;
                    let tls = match &door {
                        Door::Https(_, tls) => Some(Arc::clone(tls)),
                        Door::Plain(_) | Door::Admin(..) => None,
                    };
                    let server = Arc::clone(&self);
                    self.tasks.spawn("http.connection", async move {
                        server.attend(visitor, tls).await;
                    });
                }
                Ok(None) => {}
                Err(error) => {
                    if !std::mem::replace(&mut refusing, true) {
                        tracing::warn!(%error, "the system lets no HTTP connection in; trying on");
                    }
                    stop.run_until_cancelled(tokio::time::sleep(REST)).await;
                }
            }
        }
    }

    /// The next connection; nothing when it was not let in.
    async fn accept(&self, door: &Door) -> io::Result<Option<Visitor>> {
        let accepted = match door {
            Door::Https(listener, _) | Door::Plain(listener) => {
                self.seats.wait().await;
                let accepted = listener.accept().await;
                accepted.map(|(stream, peer)| self.admit(stream, peer))
            }
            Door::Admin(listener, router) => {
                let seats = Arc::clone(&self.admin_seats);
                let seat = seats.acquire_owned().await.map_err(io::Error::other)?;
                listener.accept().await.map(|(stream, _)| {
                    let uid = stream.peer_cred().ok().map(|peer| peer.uid());
                    let Some(uid) = uid.filter(|uid| may_administer(*uid)) else {
                        tracing::warn!(
                            ?uid,
                            "somebody else than root and this user on the admin socket"
                        );
                        return None;
                    };
                    let router = router.clone();
                    Some(Visitor::Admin {
                        stream,
                        uid,
                        router,
                        seat,
                    })
                })
            }
        };
        match accepted {
            // The peer gave up while it waited.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
            accepted => accepted,
        }
    }

    fn admit(&self, stream: TcpStream, peer: SocketAddr) -> Option<Visitor> {
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let source = if self.settings.is_trusted(peer.ip()) {
            None
        } else {
            Some(source_of(peer.ip()))
        };
        let Some((seat, counted)) = self.seats.take(source) else {
            tracing::debug!(%peer, "too many connections from one source");
            return None;
        };
        Some(Visitor::Tcp {
            stream,
            peer,
            seat,
            counted,
        })
    }
}

/// Root and the gateway's own user, who could read its memory anyway. The socket's mode
/// says the same; this holds if somebody changes it.
fn may_administer(uid: u32) -> bool {
    uid == 0 || uid == rustix::process::geteuid().as_raw()
}

/// Makes the socket for administrators on this machine: mode 0600, in a folder that
/// is private already, so that it is never open to others.
pub fn bind_admin_socket(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |verb| {
        move |source| ServeError::AdminSocket {
            verb,
            path: path.to_owned(),
            source,
        }
    };
    // One left by an earlier gateway: the lock on the store says that none lives.
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(failed("replace"))?;
        }
        _ => {}
    }
    let listener = UnixListener::bind(path).map_err(failed("make"))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("close off"))?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
