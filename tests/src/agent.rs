//! Agents that do what a test tells them to: real QUIC, real TLS and real messages to a
//! real gateway, and whatever a hostile one would put into them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use link::socket::{AGENT_BUFFER, bind_udp};
use link::tls::{Alpn, Credentials, SERVER_NAME, Verifier};
use link::transport::{Client, IDLE_TIMEOUT, endpoint_config};
use link::verify::system_clock;
use model::ids::HostId;
use protocol::v1::{
    AgentFrame, CounterStored, EnrolReply, EnrolRequest, Facts, GatewayFrame, Grant, Heartbeat,
    Hello, Refusal, Renew, Welcome, agent_frame, enrol_reply, gateway_frame,
};
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::{LIMIT, TestGateway, soon};

const DEADLINES: Deadlines = Deadlines {
    idle: LIMIT,
    frame: LIMIT,
};

/// Where connections to one gateway come from: one UDP socket.
pub struct Caller {
    /// The socket, for what is below connections.
    pub endpoint: quinn::Endpoint,
    /// The gateway.
    pub gateway: SocketAddr,
    verifier: Arc<Verifier>,
}

impl Caller {
    /// A new socket towards `gateway`.
    pub fn of(gateway: &TestGateway) -> anyhow::Result<Self> {
        let bound = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)), AGENT_BUFFER)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let app = &gateway.app;
        Ok(Self {
            endpoint: quinn::Endpoint::new(endpoint_config(), None, bound.socket, runtime)?,
            gateway: gateway.address,
            verifier: Verifier::of_gateways(
                app.ca.trust_store(),
                Some(app.deployment),
                system_clock(),
            ),
        })
    }

    /// As an agent dials; without credentials as one that wants to enrol.
    pub async fn dial(
        &self,
        credentials: Option<Credentials>,
    ) -> anyhow::Result<quinn::Connection> {
        let verifier = Arc::clone(&self.verifier);
        let client = Client::new(verifier, credentials, IDLE_TIMEOUT)?;
        self.connect(client.quic().clone())?
            .await
            .context("handshake")
    }

    /// With TLS of one's own.
    pub fn connect(&self, config: quinn::ClientConfig) -> anyhow::Result<quinn::Connecting> {
        Ok(self
            .endpoint
            .connect_with(config, self.gateway, SERVER_NAME)?)
    }

    /// TLS settings that no agent has: any chain, any protocol. Change them and hand them
    /// to [`quic`].
    pub fn tls(
        &self,
        alpn: Alpn,
        certificates: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> anyhow::Result<rustls::ClientConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&self.verifier) as _);
        let mut config = match certificates {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
        Ok(config)
    }

    /// Asks for enrolment and reads the answer.
    pub async fn enrol(&self, request: &EnrolRequest) -> anyhow::Result<EnrolReply> {
        let connection = self.dial(None).await?;
        let (mut send, receive) = connection.open_bi().await?;
        write_message(&mut send, request, usize::MAX, LIMIT).await?;
        let mut reader = FrameReader::new(receive, MAX_FRAME, DEADLINES);
        let reply = reader.next().await?.context("an answer")?;
        connection.close(0u32.into(), b"done");
        Ok(reply)
    }

    /// Enrols a new host, which must be let in.
    pub async fn join(&self, token: &str, hostname: &str) -> anyhow::Result<Member> {
        let key = Key::new()?;
        match soon(self.enrol(&key.request(token, hostname)?))
            .await??
            .answer
        {
            Some(enrol_reply::Answer::Granted(grant)) => Ok(Member { key, grant }),
            other => bail!("not let in: {other:?}"),
        }
    }

    /// Presents `member`'s certificate and says `hello`.
    pub async fn link(&self, member: &Member, hello: Hello) -> anyhow::Result<Linked> {
        let connection = soon(self.dial(Some(member.credentials()?))).await??;
        let mut agent = Agent::open(connection).await?;
        agent.say(agent_frame::Body::Hello(hello)).await?;
        Ok(match agent.hear().await? {
            gateway_frame::Body::Welcome(welcome) => {
                let counter = welcome.counter;
                agent
                    .say(agent_frame::Body::CounterStored(CounterStored { counter }))
                    .await?;
                Linked::Welcome(agent, welcome)
            }
            gateway_frame::Body::Refused(refusal) => Linked::Refused(refusal),
            gateway_frame::Body::Reidentify(_) => Linked::Asked(agent),
            other => bail!("neither welcome nor refusal: {other:?}"),
        })
    }

    /// The same for a member that must be welcome, in its first link.
    pub async fn welcome(&self, member: &Member) -> anyhow::Result<(Agent, Welcome)> {
        match self.link(member, member.hello()).await? {
            Linked::Welcome(agent, welcome) => Ok((agent, welcome)),
            Linked::Refused(refusal) => bail!("refused: {}", refusal.message),
            Linked::Asked(_) => bail!("taken for a clone"),
        }
    }
}

/// For [`Caller::connect`].
pub fn quic(tls: rustls::ClientConfig) -> anyhow::Result<quinn::ClientConfig> {
    let crypto = QuicClientConfig::try_from(tls)?;
    Ok(quinn::ClientConfig::new(Arc::new(crypto)))
}

/// What became of a hello.
pub enum Linked {
    /// It is linked.
    Welcome(Agent, Welcome),
    /// It was sent away.
    Refused(Refusal),
    /// It was asked for a new key.
    Asked(Agent),
}

/// A host's key.
pub struct Key(KeyPair);

impl Key {
    /// A new one.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self(KeyPair::generate()?))
    }

    /// A request for a certificate.
    pub fn csr(&self) -> anyhow::Result<Vec<u8>> {
        self.csr_with(CertificateParams::default())
    }

    /// A request that asks for more than a key.
    pub fn csr_with(&self, params: CertificateParams) -> anyhow::Result<Vec<u8>> {
        Ok(params.serialize_request(&self.0)?.der().to_vec())
    }

    /// A request for enrolment.
    pub fn request(&self, token: &str, hostname: &str) -> anyhow::Result<EnrolRequest> {
        Ok(EnrolRequest {
            token: token.to_owned(),
            csr: self.csr()?,
            facts: Some(Facts {
                hostname: hostname.to_owned(),
                ..Facts::default()
            }),
            version_max: protocol::VERSION,
            version_min: protocol::VERSION_MIN,
        })
    }

    /// The private key.
    pub fn private(&self) -> anyhow::Result<PrivateKeyDer<'static>> {
        PrivateKeyDer::try_from(self.0.serialize_der()).map_err(anyhow::Error::msg)
    }
}

/// A host that was let in.
pub struct Member {
    /// Its key.
    pub key: Key,
    /// What it was granted.
    pub grant: Grant,
}

impl Member {
    /// Certificate and key.
    pub fn credentials(&self) -> anyhow::Result<Credentials> {
        Ok(Credentials {
            certificate: self.certificate(),
            key: self.key.private()?,
        })
    }

    /// Its certificate.
    pub fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.grant.certificate.clone())
    }

    /// Which host it is.
    pub fn host(&self) -> anyhow::Result<HostId> {
        Ok(self.grant.host.parse()?)
    }

    /// The first hello of its only process.
    pub fn hello(&self) -> Hello {
        Hello {
            version_max: protocol::VERSION,
            version_min: protocol::VERSION_MIN,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: "3d1f2b6a-0000-4000-8000-0123456789ab".to_owned(),
            instance: b"a process".to_vec(),
            counter: self.grant.counter,
            facts_digest: vec![7; 32],
            trust_version: self.grant.trust.as_ref().map_or(0, |trust| trust.version),
            host_time_ms: self.grant.server_time_ms,
        }
    }
}

/// An agent with its control stream.
pub struct Agent {
    /// The connection.
    pub connection: quinn::Connection,
    /// The control stream towards the gateway.
    pub send: quinn::SendStream,
    reader: FrameReader<quinn::RecvStream>,
    sequence: u64,
}

impl Agent {
    /// Opens the control stream of a connection and says nothing.
    pub async fn open(connection: quinn::Connection) -> anyhow::Result<Self> {
        let (send, receive) = soon(connection.open_bi()).await??;
        Ok(Self {
            connection,
            send,
            reader: FrameReader::new(receive, MAX_FRAME, DEADLINES),
            sequence: 0,
        })
    }

    /// Sends a frame.
    pub async fn say(&mut self, body: agent_frame::Body) -> anyhow::Result<()> {
        let frame = AgentFrame { body: Some(body) };
        Ok(write_message(&mut self.send, &frame, usize::MAX, LIMIT).await?)
    }

    /// Sends bytes that need not be a frame.
    pub async fn say_raw(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.send.write_all(bytes).await?)
    }

    /// The next frame. Probes are answered on the way.
    pub async fn hear(&mut self) -> anyhow::Result<gateway_frame::Body> {
        loop {
            let frame: Option<GatewayFrame> = self.reader.next().await?;
            match frame.context("the gateway ended the stream")?.body {
                Some(gateway_frame::Body::Probe(probe)) => {
                    self.say(agent_frame::Body::ProbeReply(probe)).await?;
                }
                Some(body) => return Ok(body),
                None => {}
            }
        }
    }

    /// A heartbeat, and the acknowledgement of this very one.
    pub async fn beat(&mut self) -> anyhow::Result<()> {
        self.sequence += 1;
        let sequence = self.sequence;
        self.say(agent_frame::Body::Heartbeat(Heartbeat { sequence }))
            .await?;
        match self.hear().await? {
            gateway_frame::Body::HeartbeatAck(ack) => {
                ensure!(ack.sequence == sequence, "{} for {sequence}", ack.sequence);
                Ok(())
            }
            other => bail!("not acknowledged: {other:?}"),
        }
    }

    /// Asks for a certificate.
    pub async fn renew(&mut self, csr: Vec<u8>) -> anyhow::Result<Result<Grant, Refusal>> {
        self.say(agent_frame::Body::Renew(Renew { csr })).await?;
        match self.hear().await? {
            gateway_frame::Body::Renewed(grant) => Ok(Ok(grant)),
            gateway_frame::Body::RenewRefused(refusal) | gateway_frame::Body::Refused(refusal) => {
                Ok(Err(refusal))
            }
            other => bail!("no answer: {other:?}"),
        }
    }

    /// Reads until the gateway says why it ends the link.
    pub async fn dismissed(&mut self) -> anyhow::Result<Refusal> {
        loop {
            if let gateway_frame::Body::Refused(refusal) = self.hear().await? {
                return Ok(refusal);
            }
        }
    }

    /// Waits for the gateway to close the connection.
    pub async fn closed(&self) -> anyhow::Result<quinn::ConnectionError> {
        soon(self.connection.closed()).await
    }
}

/// Beats until `stop`, and answers how often.
pub async fn beat_while<F: Future>(agent: &mut Agent, work: F) -> anyhow::Result<(u32, F::Output)> {
    let mut work = std::pin::pin!(work);
    let mut beats = 0;
    let mut rest = tokio::time::interval(Duration::from_millis(150));
    loop {
        tokio::select! {
            output = &mut work => {
                agent.beat().await?;
                return Ok((beats + 1, output));
            }
            _ = rest.tick() => {
                soon(agent.beat()).await??;
                beats += 1;
            }
        }
    }
}
