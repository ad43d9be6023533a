//! The gateway.

use std::net::{SocketAddr, TcpListener as StdTcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt, future};
use link::accept::{Acceptor, AdmissionLimits};
use link::carrier::{Hub, PumpLimits, SUBPROTOCOL, WsMessage, pump};
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use link::identity::CertIdentity;
use link::tls::{Peer, Verifier, peer_of};
use link::transport::{IDLE_TIMEOUT, endpoint_config, server_config};
use link::trust::TrustStore;
use link::verify::system_clock;
use model::ids::HostId;
use protocol::v1::{
    AgentFrame, EnrolReply, EnrolRequest, Facts, GatewayFrame, GoodbyeReason, Grant, HeartbeatAck,
    Hello, Refusal, RefusalCode, Reidentify, Settings, Welcome, agent_frame, enrol_reply,
    gateway_frame,
};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::LIMIT;
use super::authority::{Authority, deployment, now};

/// What the gateway saw of its agents.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Saw {
    Enrolment {
        csr: Vec<u8>,
        facts: Box<Facts>,
    },
    Hello {
        rung: &'static str,
        hello: Box<Hello>,
    },
    Stored(u64),
    Beat(u64),
    Facts(Box<Facts>),
    Renewal,
    Goodbye(GoodbyeReason),
    Probed(u64),
}

/// How it answers; changed by tests while it runs.
#[derive(Default)]
pub(crate) struct Manners {
    /// Hang up on this many enrolments after the identity was granted.
    pub(crate) lose_enrolments: u32,
    pub(crate) refuse_enrolment: Option<RefusalCode>,
    pub(crate) refuse_link: Option<RefusalCode>,
    pub(crate) want_renewal: bool,
    /// Ask for a new key once, in a link that is up.
    pub(crate) reidentify: bool,
    pub(crate) probe: Option<u64>,
    pub(crate) time_offset_ms: i64,
    /// The link that was welcomed last, for streams beside the control stream.
    pub(crate) link: Option<(quinn::Connection, HostId)>,
    host: u8,
    counter: u64,
}

#[derive(Clone)]
struct Shared {
    authority: Arc<Authority>,
    manners: Arc<Mutex<Manners>>,
    saw: mpsc::UnboundedSender<Saw>,
    verifier: Arc<Verifier>,
    /// The newest link.
    link: Arc<Mutex<Option<quinn::Connection>>>,
}

pub(crate) struct Gateway {
    pub(crate) authority: Arc<Authority>,
    pub(crate) manners: Arc<Mutex<Manners>>,
    address: SocketAddr,
    saw: mpsc::UnboundedReceiver<Saw>,
    tasks: JoinSet<()>,
    shared: Shared,
    config: quinn::ServerConfig,
    /// Takes packets and answers none.
    deaf: Option<UdpSocket>,
}

impl Gateway {
    pub(crate) fn start() -> Self {
        let mut gateway = Self::start_without_udp();
        gateway.open_udp();
        gateway
    }

    /// UDP packets arrive and nobody answers, as behind a firewall that drops.
    pub(crate) fn start_without_udp() -> Self {
        let authority = Arc::new(Authority::new());
        let (tcp, udp) = sockets();
        let address = tcp.local_addr().unwrap();
        let verifier = Verifier::of_agents(
            TrustStore::new(authority.bundle(1)),
            deployment(),
            system_clock(),
        );
        let config =
            server_config(Arc::clone(&verifier), authority.gateway(), IDLE_TIMEOUT).unwrap();
        let manners = Arc::new(Mutex::new(Manners {
            host: 10,
            counter: 10,
            ..Manners::default()
        }));
        let (tell, saw) = mpsc::unbounded_channel();
        let shared = Shared {
            authority: Arc::clone(&authority),
            manners: Arc::clone(&manners),
            saw: tell,
            verifier,
            link: Arc::default(),
        };
        let hub = Hub::new();
        let acceptor = Acceptor::new(
            hub.endpoint(Some(config.clone())).unwrap(),
            AdmissionLimits::default(),
        );
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(acceptor, "websocket", shared.clone()));
        tasks.spawn(serve_https(TcpListener::from_std(tcp).unwrap(), hub));
        Self {
            authority,
            manners,
            address,
            saw,
            tasks,
            shared,
            config,
            deaf: Some(udp),
        }
    }

    pub(crate) fn open_udp(&mut self) {
        let socket = self.deaf.take().unwrap();
        let endpoint = quinn::Endpoint::new(
            endpoint_config(),
            Some(self.config.clone()),
            socket,
            Arc::new(quinn::TokioRuntime),
        )
        .unwrap();
        let acceptor = Acceptor::new(endpoint, AdmissionLimits::default());
        self.tasks
            .spawn(serve(acceptor, "udp", self.shared.clone()));
    }

    /// A stream of ours on the newest link.
    pub(crate) async fn stream(&self) -> (quinn::SendStream, Reader) {
        let link = self.shared.link.lock().unwrap().clone().expect("a link");
        let (send, receive) = link.open_bi().await.unwrap();
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        (send, FrameReader::new(receive, MAX_FRAME, deadlines))
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn manners<T>(&self, change: impl FnOnce(&mut Manners) -> T) -> T {
        change(&mut self.manners.lock().unwrap())
    }

    /// The next thing seen that `pick` takes; others are passed over.
    pub(crate) async fn sees<T>(&mut self, mut pick: impl FnMut(&Saw) -> Option<T>) -> T {
        let found = async {
            loop {
                let saw = self.saw.recv().await.expect("a gateway");
                if let Some(found) = pick(&saw) {
                    return found;
                }
            }
        };
        tokio::time::timeout(LIMIT, found)
            .await
            .expect("the agent did what the test waits for")
    }

    pub(crate) async fn sees_hello(&mut self) -> (&'static str, Hello) {
        self.sees(|saw| match saw {
            Saw::Hello { rung, hello } => Some((*rung, Hello::clone(hello))),
            _ => None,
        })
        .await
    }

    pub(crate) async fn sees_goodbye(&mut self) -> GoodbyeReason {
        self.sees(|saw| {
            if let Saw::Goodbye(reason) = saw {
                Some(*reason)
            } else {
                None
            }
        })
        .await
    }
}

/// TCP and UDP on the same port.
fn sockets() -> (StdTcpListener, UdpSocket) {
    loop {
        let tcp = StdTcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            tcp.set_nonblocking(true).unwrap();
            return (tcp, udp);
        }
    }
}

async fn serve(mut acceptor: Acceptor, rung: &'static str, shared: Shared) {
    let mut tasks = JoinSet::new();
    while let Some(handshake) = acceptor.next().await {
        let shared = shared.clone();
        tasks.spawn(async move {
            let Ok(connection) = handshake.finish().await else {
                return;
            };
            match peer_of(&connection, &shared.verifier) {
                Ok(Peer::Enrolling) => enrol(&connection, &shared).await,
                Ok(Peer::Agent(_)) => talk(&connection, rung, &shared).await,
                Err(_) => None,
            };
            connection.close(0u32.into(), b"done");
        });
    }
}

pub(crate) type Reader = FrameReader<quinn::RecvStream>;

async fn streams(connection: &quinn::Connection) -> Option<(quinn::SendStream, Reader)> {
    let (send, receive) = connection.accept_bi().await.ok()?;
    let deadlines = Deadlines {
        idle: Duration::from_secs(600),
        frame: LIMIT,
    };
    Some((send, FrameReader::new(receive, MAX_FRAME, deadlines)))
}

async fn enrol(connection: &quinn::Connection, shared: &Shared) -> Option<()> {
    let (mut send, mut reader) = streams(connection).await?;
    let request: EnrolRequest = reader.next().await.ok()??;
    assert_eq!(request.token, super::token());
    let facts = Box::new(request.facts.clone().unwrap());
    let _ = shared.saw.send(Saw::Enrolment {
        csr: request.csr.clone(),
        facts,
    });
    let answer = {
        let mut manners = shared.manners.lock().unwrap();
        if manners.lose_enrolments > 0 {
            manners.lose_enrolments -= 1;
            return None;
        }
        match manners.refuse_enrolment {
            Some(code) => enrol_reply::Answer::Refused(refusal(code)),
            None => enrol_reply::Answer::Granted(grant(shared, &manners, &request.csr)),
        }
    };
    let reply = EnrolReply {
        answer: Some(answer),
    };
    write_message(&mut send, &reply, MAX_FRAME, LIMIT)
        .await
        .ok()?;
    let _ = send.finish();
    let _ = send.stopped().await;
    Some(())
}

fn grant(shared: &Shared, manners: &Manners, csr: &[u8]) -> Grant {
    let mut grant = shared
        .authority
        .grant(csr, manners.host, 1, manners.counter);
    grant.server_time_ms += manners.time_offset_ms;
    grant
}

fn refusal(code: RefusalCode) -> Refusal {
    let message = format!("no, because of {code:?} \u{1b}[31m");
    Refusal {
        code: code.into(),
        message,
        retry_after_ms: 0,
        server_time_ms: now().as_millis(),
    }
}

async fn talk(connection: &quinn::Connection, rung: &'static str, shared: &Shared) -> Option<()> {
    let (mut send, mut reader) = streams(connection).await?;
    let frame: AgentFrame = reader.next().await.ok()??;
    let Some(agent_frame::Body::Hello(hello)) = frame.body else {
        panic!("no hello first")
    };
    let _ = shared.saw.send(Saw::Hello {
        rung,
        hello: Box::new(hello),
    });
    let first = shared.manners.lock().unwrap().welcome();
    let refused = matches!(first, gateway_frame::Body::Refused(_));
    if let Ok(Peer::Agent(proven)) = peer_of(connection, &shared.verifier)
        && let CertIdentity::Agent { host, .. } = proven.identity
    {
        shared.manners.lock().unwrap().link = Some((connection.clone(), host));
    }
    tell(&mut send, first).await?;
    if refused {
        return finish(send).await;
    }
    *shared.link.lock().unwrap() = Some(connection.clone());
    loop {
        let frame: AgentFrame = reader.next().await.ok()??;
        let (saw, answer) = hear(frame.body?, shared);
        let _ = shared.saw.send(saw.clone());
        let asked = {
            let mut manners = shared.manners.lock().unwrap();
            let probe = manners.probe.take();
            let probe =
                probe.map(|nonce| gateway_frame::Body::Probe(protocol::v1::Probe { nonce }));
            let again = std::mem::take(&mut manners.reidentify).then(|| {
                manners.host += 1;
                gateway_frame::Body::Reidentify(Reidentify {
                    reason: "split".into(),
                })
            });
            [probe, again]
        };
        for body in answer.into_iter().chain(asked.into_iter().flatten()) {
            let last = matches!(body, gateway_frame::Body::Refused(_));
            tell(&mut send, body).await?;
            if last {
                return finish(send).await;
            }
        }
    }
}

impl Manners {
    fn welcome(&mut self) -> gateway_frame::Body {
        if let Some(code) = self.refuse_link {
            return gateway_frame::Body::Refused(refusal(code));
        }
        self.counter += 1;
        gateway_frame::Body::Welcome(Welcome {
            version: 1,
            counter: self.counter,
            settings: Some(Settings { heartbeat_ms: 500 }),
            server_time_ms: now().as_millis() + self.time_offset_ms,
            want_facts: true,
            want_renewal: self.want_renewal,
            trust: None,
            display_name: "web-1\u{1b}[31m".to_owned(),
            quarantined: false,
        })
    }
}

fn hear(body: agent_frame::Body, shared: &Shared) -> (Saw, Option<gateway_frame::Body>) {
    let mut manners = shared.manners.lock().unwrap();
    match body {
        agent_frame::Body::Hello(_) => panic!("a second hello"),
        agent_frame::Body::Heartbeat(beat) => {
            let server_time_ms = now().as_millis() + manners.time_offset_ms;
            let ack = HeartbeatAck {
                sequence: beat.sequence,
                server_time_ms,
            };
            (
                Saw::Beat(beat.sequence),
                Some(gateway_frame::Body::HeartbeatAck(ack)),
            )
        }
        agent_frame::Body::Facts(facts) => (Saw::Facts(facts), None),
        agent_frame::Body::Renew(renew) => {
            manners.want_renewal = false;
            let granted = grant(shared, &manners, &renew.csr);
            (Saw::Renewal, Some(gateway_frame::Body::Renewed(granted)))
        }
        agent_frame::Body::CounterStored(stored) => (Saw::Stored(stored.counter), None),
        agent_frame::Body::ProbeReply(probe) => (Saw::Probed(probe.nonce), None),
        agent_frame::Body::Goodbye(goodbye) => {
            let reason = goodbye.reason();
            let gone = (reason == GoodbyeReason::Uninstalled)
                .then(|| gateway_frame::Body::Refused(refusal(RefusalCode::HostRetired)));
            (Saw::Goodbye(reason), gone)
        }
    }
}

async fn tell(send: &mut quinn::SendStream, body: gateway_frame::Body) -> Option<()> {
    let frame = GatewayFrame { body: Some(body) };
    write_message(send, &frame, MAX_FRAME, LIMIT).await.ok()
}

async fn finish(mut send: quinn::SendStream) -> Option<()> {
    let _ = send.finish();
    let _ = tokio::time::timeout(Duration::from_secs(2), send.stopped()).await;
    Some(())
}

async fn serve_https(listener: TcpListener, hub: Arc<Hub>) {
    let acceptor = tls_acceptor();
    let mut tasks = JoinSet::new();
    while let Ok((stream, remote)) = listener.accept().await {
        let (acceptor, hub) = (acceptor.clone(), Arc::clone(&hub));
        tasks.spawn(async move {
            let _ = carry(stream, remote, acceptor, &hub).await;
        });
    }
}

async fn carry(
    stream: TcpStream,
    remote: SocketAddr,
    acceptor: tokio_rustls::TlsAcceptor,
    hub: &Arc<Hub>,
) -> Option<()> {
    let stream = acceptor.accept(stream).await.ok()?;
    #[allow(clippy::result_large_err, reason = "tungstenite's signature")]
    let agree = |_: &Request, mut response: Response| {
        response
            .headers_mut()
            .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        Ok(response)
    };
    let (to_peer, from_peer) = tokio_tungstenite::accept_hdr_async(stream, agree)
        .await
        .ok()?
        .split();
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
    let _ = pump(from_peer, to_peer, hub.attach(remote), PumpLimits::GATEWAY).await;
    Some(())
}

fn tls_acceptor() -> tokio_rustls::TlsAcceptor {
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
