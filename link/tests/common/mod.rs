//! A gateway on loopback that echoes streams, over UDP and over a WebSocket behind
//! TLS, and a small CONNECT proxy.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future};
use link::accept::{Acceptor, AdmissionLimits, Handshakes};
use link::carrier::{Hub, PATH, PumpLimits, SUBPROTOCOL, WsMessage, pump};
use link::dial::{DialLimits, Link, Target};
use link::identity::CertIdentity;
use link::socket::{GATEWAY_BUFFER, bind_udp};
use link::testing::{Authority, agent_identity, deployment, gateway_identity};
use link::tls::{Credentials, Peer, PeerError, Verifier, peer_of};
use link::transport::{Client, IDLE_TIMEOUT, server_config};
use link::trust::TrustStore;
use link::verify::system_clock;
use model::Timestamp;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn now() -> Timestamp {
    system_clock()()
}

/// Waits for `future`, for long enough that only a fault reaches the limit.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("in time")
}

pub(crate) fn limits() -> DialLimits {
    let each = Duration::from_secs(10);
    DialLimits {
        dns: each,
        tcp: each,
        proxy: each,
        tls: each,
        websocket: each,
        quic: each,
        ..DialLimits::default()
    }
}

pub(crate) struct Gateway {
    pub(crate) authority: Authority,
    pub(crate) trust: TrustStore,
    pub(crate) udp: Target,
    pub(crate) https: Target,
    pub(crate) handshakes: Arc<Handshakes>,
    pub(crate) hub: Arc<Hub>,
    /// Who connected, in order.
    pub(crate) peers: mpsc::UnboundedReceiver<Result<Peer, PeerError>>,
    /// Where TCP connections to the HTTPS port are told to end.
    pub(crate) cut: Arc<tokio::sync::Notify>,
    tasks: JoinSet<()>,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        Self::start_with(gateway_identity(1), AdmissionLimits::default())
    }

    pub(crate) fn start_with(identity: CertIdentity, admission: AdmissionLimits) -> Self {
        let authority = Authority::new("ours");
        let credentials = authority.good(identity, now());
        Self::start_as(authority, credentials, admission)
    }

    pub(crate) fn start_as(
        authority: Authority,
        credentials: Credentials,
        admission: AdmissionLimits,
    ) -> Self {
        let trust = authority.trust();
        let verifier = Verifier::of_agents(trust.clone(), deployment(1), system_clock());
        let config = server_config(Arc::clone(&verifier), credentials, IDLE_TIMEOUT).unwrap();

        let socket = bind_udp("127.0.0.1:0".parse().unwrap(), GATEWAY_BUFFER)
            .unwrap()
            .socket;
        let udp = target(socket.local_addr().unwrap());
        let endpoint = quinn::Endpoint::new(
            link::transport::endpoint_config(),
            Some(config.clone()),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .unwrap();
        let hub = Hub::new();
        let inner = hub.endpoint(Some(config)).unwrap();
        let acceptor = Acceptor::new(endpoint, admission);

        let (announce, peers) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let handshakes = Arc::clone(acceptor.handshakes());
        let carrier = acceptor.for_endpoint(inner);
        for acceptor in [acceptor, carrier] {
            tasks.spawn(serve(acceptor, Arc::clone(&verifier), announce.clone()));
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let https = target(listener.local_addr().unwrap());
        let cut = Arc::new(tokio::sync::Notify::new());
        tasks.spawn(serve_https(
            TcpListener::from_std(listener).unwrap(),
            Arc::clone(&hub),
            Arc::clone(&cut),
        ));
        Self {
            authority,
            trust,
            udp,
            https,
            handshakes,
            hub,
            peers,
            cut,
            tasks,
        }
    }

    /// What an agent of this gateway dials with.
    pub(crate) fn client(&self, credentials: Option<Credentials>) -> Client {
        let verifier =
            Verifier::of_gateways(self.authority.trust(), Some(deployment(1)), system_clock());
        Client::new(verifier, credentials, IDLE_TIMEOUT).unwrap()
    }

    pub(crate) fn agent(&self) -> Client {
        self.client(Some(self.authority.good(agent_identity(1), now())))
    }

    pub(crate) async fn next_peer(&mut self) -> Result<Peer, PeerError> {
        soon(self.peers.recv()).await.expect("a peer")
    }
}

pub(crate) fn target(address: SocketAddr) -> Target {
    Target::new(&address.ip().to_string(), address.port()).unwrap()
}

async fn serve(
    mut acceptor: Acceptor,
    verifier: Arc<Verifier>,
    announce: mpsc::UnboundedSender<Result<Peer, PeerError>>,
) {
    let mut tasks = JoinSet::new();
    while let Some(handshake) = acceptor.next().await {
        let (verifier, announce) = (Arc::clone(&verifier), announce.clone());
        tasks.spawn(async move {
            let Ok(connection) = handshake.finish().await else {
                return;
            };
            let _ = announce.send(peer_of(&connection, &verifier));
            while let Ok((mut send, mut receive)) = connection.accept_bi().await {
                let _ = tokio::io::copy(&mut receive, &mut send).await;
                let _ = send.finish();
            }
        });
    }
}

async fn serve_https(listener: TcpListener, hub: Arc<Hub>, cut: Arc<tokio::sync::Notify>) {
    let acceptor = tls_acceptor();
    let mut tasks = JoinSet::new();
    while let Ok((stream, remote)) = listener.accept().await {
        let (acceptor, hub, cut) = (acceptor.clone(), Arc::clone(&hub), Arc::clone(&cut));
        tasks.spawn(async move {
            let stream = acceptor.accept(stream).await.unwrap();
            #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
            let agree = |request: &Request, mut response: Response| {
                assert_eq!(request.uri().path(), PATH);
                let protocol = request.headers()["sec-websocket-protocol"].clone();
                assert_eq!(protocol, SUBPROTOCOL);
                response
                    .headers_mut()
                    .insert("sec-websocket-protocol", protocol);
                Ok(response)
            };
            let (to_peer, from_peer) = accept_hdr_async(stream, agree).await.unwrap().split();
            let to_peer = to_peer.with(|message| {
                future::ready(Ok::<_, Error>(match message {
                    WsMessage::Datagrams(bytes) => Message::Binary(bytes),
                    _ => Message::Close(None),
                }))
            });
            let from_peer = from_peer.map(|message| {
                message.map(|message| match message {
                    Message::Binary(bytes) => WsMessage::Datagrams(bytes),
                    Message::Ping(bytes) => WsMessage::Ping(bytes),
                    Message::Pong(_) => WsMessage::Pong,
                    Message::Close(_) => WsMessage::Close,
                    _ => WsMessage::Other,
                })
            });
            tokio::select! {
                _ = pump(from_peer, to_peer, hub.attach(remote), PumpLimits::GATEWAY) => {}
                () = cut.notified() => {}
            }
        });
    }
}

/// TLS with a certificate that nobody has a reason to believe.
pub(crate) fn tls_acceptor() -> tokio_rustls::TlsAcceptor {
    let web = rcgen::generate_simple_self_signed(vec!["somebody.example".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(web.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![web.cert.der().clone()], key)
        .unwrap();
    tokio_rustls::TlsAcceptor::from(Arc::new(config))
}

/// A CONNECT proxy that wants `Basic bWU6cHc=` (me:pw) when `guarded`.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    pub(crate) async fn start(guarded: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut tunnels = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                tunnels.spawn(tunnel(stream, guarded));
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

async fn tunnel(stream: TcpStream, guarded: bool) {
    let mut stream = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        if line.trim().is_empty() {
            break;
        }
        head.push(line.trim().to_owned());
    }
    if guarded
        && !head
            .iter()
            .any(|line| line == "Proxy-Authorization: Basic bWU6cHc=")
    {
        let no = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        let _ = stream.write_all(no).await;
        return;
    }
    let to = head[0]
        .strip_prefix("CONNECT ")
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let mut onward = TcpStream::connect(to).await.unwrap();
    stream
        .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await
        .unwrap();
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut onward).await;
}

/// Answers every TCP connection with `answer` and hangs up; with `tls`, inside TLS.
pub(crate) async fn answering(answer: &'static str, tls: bool) -> (Target, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = target(listener.local_addr().unwrap());
    let acceptor = tls_acceptor();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 2048];
            if tls {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            } else {
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    (place, tasks)
}

/// Sends `size` bytes over a stream and checks that they come back.
pub(crate) async fn echo(link: &Link, size: usize) {
    let data: Vec<u8> = (0..size).map(|n| u8::try_from(n % 251).unwrap()).collect();
    soon(async {
        let (mut send, mut receive) = link.connection.open_bi().await.unwrap();
        let write = async {
            send.write_all(&data).await.unwrap();
            send.finish().unwrap();
        };
        let ((), back) = tokio::join!(write, receive.read_to_end(size + 1));
        assert!(back.unwrap() == data, "echo differs");
    })
    .await;
}
