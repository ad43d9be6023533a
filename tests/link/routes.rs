//! Requests of plugins that leave through an agent: a real gateway, its client of requests, real
//! QUIC, and at the other end either the agent's own code or a host that lies.
#![expect(
    clippy::disallowed_methods,
    reason = "what a test spawns ends with its runtime"
)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agent::forward::Forwarder;
use agent_core::forward::Allow;
use anyhow::{Context as _, bail, ensure};
use egress::{Audit, Client, Options, Outcome, Record, Routes, SystemResolver, code};
use gateway::plugins::routes::LinkRoutes;
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use plugin_host::ports::{
    CallContext, Egress as _, ErrorKind, GuestError, HttpRequest, HttpResponse,
};
use protocol::v1::{ForwardOpened, ForwardReply, ForwardRequest, Opening, forward_reply, opening};
use quinn::{RecvStream, SendStream};
use tests::agent::{Agent, Member};
use tests::{LIMIT, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, UdpSocket};

use super::World;

#[derive(Default)]
struct Recorder(Mutex<Vec<Record>>);

impl Audit for Recorder {
    fn request_ended(&self, record: Record) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(record);
    }
}

/// A plugin's call.
struct Caller {
    client: Client,
    call: CallContext,
    audit: Arc<Recorder>,
}

impl Caller {
    /// Rules for `localhost` and 127.0.0.1 at `port`, within these networks, by a route through
    /// these hosts and by no other way.
    fn new(world: &World, hosts: &[&Member], port: u16, networks: &str) -> anyhow::Result<Self> {
        let hosts: Vec<_> = hosts.iter().map(|member| &member.grant.host).collect();
        let grant = serde_json::json!({
            "http": [{"need": "bmc", "hosts": ["127.0.0.1", "localhost", "169.254.169.254"],
                "ports": [port], "networks": [networks], "plain": true, "routes": ["near"]}],
            "datagrams": [{"need": "ipmi", "networks": [networks], "ports": [port], "routes": ["near"]}],
            "routes": {"near": {"workspace": world.workspace.id, "hosts": hosts}, "unused":
                {"workspace": world.workspace.id, "hosts": hosts}},
        });
        let routes = LinkRoutes::default();
        routes.attach(&world.gateway.app);
        let audit = Arc::new(Recorder::default());
        Ok(Self {
            client: Client::new(
                Options::default(),
                Arc::new(SystemResolver::default()),
                Arc::clone(&audit) as Arc<dyn Audit>,
                Arc::new(routes) as Arc<dyn Routes>,
            ),
            call: CallContext {
                plugin: "bmc".parse()?,
                workspace: None,
                call: "call_1".into(),
                grant: Arc::new(serde_json::from_value(grant)?),
            },
            audit,
        })
    }

    async fn get(&self, url: &str, route: Option<&str>) -> Result<HttpResponse, GuestError> {
        let request = HttpRequest {
            method: "GET".into(),
            url: url.into(),
            headers: Vec::new(),
            body: Vec::new(),
            tls_profile: None,
            route: route.map(str::to_owned),
            timeout: Duration::from_secs(20),
            max_response_bytes: 1 << 20,
        };
        self.client.send(&self.call, request, Vec::new()).await
    }

    async fn refused(&self, url: &str, route: Option<&str>) -> anyhow::Result<GuestError> {
        match self.get(url, route).await {
            Ok(answer) => bail!("answered {}", answer.status),
            Err(error) => Ok(error),
        }
    }

    fn last(&self) -> anyhow::Result<Record> {
        let records = self.audit.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.last().cloned().context("a record")
    }
}

async fn linked(world: &World, hostname: &str) -> anyhow::Result<(Member, Agent)> {
    let member = world.member(hostname).await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    Ok((member, agent))
}

/// The next way that the gateway asks for.
async fn asked(
    connection: &quinn::Connection,
) -> anyhow::Result<(ForwardRequest, SendStream, RecvStream)> {
    let (send, receive) = soon(connection.accept_bi()).await??;
    let deadlines = Deadlines {
        idle: LIMIT,
        frame: LIMIT,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let opening: Option<Opening> = reader.next().await?;
    match opening.and_then(|opening| opening.kind) {
        Some(opening::Kind::Forward(request)) => Ok((request, send, reader.into_inner())),
        other => bail!("no forward: {other:?}"),
    }
}

/// Serves every way as an agent does that allows these.
fn serve(agent: &Agent, member: &Member, networks: &[&str], ports: &[u16]) -> anyhow::Result<()> {
    let networks: Vec<_> = networks.iter().map(|&text| text.to_owned()).collect();
    let allow = Allow::new(&networks, ports)?;
    let (host, generation) = (member.grant.host.parse()?, member.grant.generation);
    let forwarder = Arc::new(Forwarder::new(host, generation, allow));
    let connection = agent.connection.clone();
    tokio::spawn(async move {
        while let Ok((request, send, receive)) = asked(&connection).await {
            let forwarder = Arc::clone(&forwarder);
            tokio::spawn(async move { forwarder.serve(request, send, receive, false).await });
        }
    });
    Ok(())
}

/// Answers every request with this.
async fn server(answer: &'static str) -> anyhow::Result<(SocketAddr, Arc<Mutex<usize>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let connections = Arc::new(Mutex::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            *count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            let mut heard = Vec::new();
            while !heard.ends_with(b"\r\n\r\n")
                && stream.read_buf(&mut heard).await.unwrap_or(0) > 0
            {}
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    Ok((address, connections))
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_leaves_through_the_first_host_that_is_linked() -> anyhow::Result<()> {
    let world = World::new().await?;
    let away = world.member("away").await?;
    let (member, agent) = linked(&world, "jump").await?;
    let (address, connections) = server(OK).await?;
    serve(&agent, &member, &["127.0.0.0/8"], &[address.port()])?;
    let caller = Caller::new(&world, &[&away, &member], address.port(), "127.0.0.0/8")?;
    let url = format!("http://localhost:{}/", address.port());
    let answer = caller.get(&url, Some("near")).await?;
    ensure!(answer.status == 200 && answer.body == b"ok");
    let record = caller.last()?;
    ensure!(record.route.as_deref() == Some("near") && record.address == Some(address));
    ensure!(
        record.via.as_deref() == Some(&*member.grant.host),
        "{record:?}"
    );
    ensure!(record.outcome == Outcome::Status(200));

    // The rule is for this route alone.
    for route in [None, Some("unused"), Some("nowhere")] {
        let error = caller.refused(&url, route).await?;
        ensure!(
            error.code == code::ROUTE_NOT_GRANTED && error.kind == ErrorKind::Denied,
            "{error}"
        );
    }
    ensure!(*connections.lock().unwrap_or_else(PoisonError::into_inner) == 1);

    agent.connection.close(0u32.into(), b"bye");
    tests::until("no link", || world.tasks() == 0).await?;
    let error = caller.refused(&url, Some("near")).await?;
    ensure!(
        error.code == code::ROUTE_NOT_LINKED && !error.outcome_unknown,
        "{error}"
    );
    world.gateway.stop().await
}

#[tokio::test]
async fn abuse_34_what_grant_or_owner_lack_is_not_reached_through_a_host() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "jump").await?;
    let (address, connections) = server(OK).await?;
    let port = address.port();
    serve(&agent, &member, &["127.0.0.1/32"], &[port])?;
    let url = |host: &str| format!("http://{host}:{port}/");
    // Where a name leads is known at the host, an address everywhere.
    let narrow = Caller::new(&world, &[&member], port, "10.0.0.0/8")?;
    for (host, expected) in [
        ("localhost", code::ROUTE_NETWORK_NOT_GRANTED),
        ("127.0.0.1", code::NETWORK_NOT_GRANTED),
        ("169.254.169.254", code::NETWORK_NOT_GRANTED),
    ] {
        let error = narrow.refused(&url(host), Some("near")).await?;
        ensure!(error.code == expected, "{host}: {error}");
    }
    let metadata = Caller::new(&world, &[&member], port, "169.254.169.254/32")?;
    let error = metadata
        .refused(&url("169.254.169.254"), Some("near"))
        .await?;
    ensure!(error.code == code::ROUTE_REFUSED_BY_HOST, "{error}");
    ensure!(*connections.lock().unwrap_or_else(PoisonError::into_inner) == 0);
    world.gateway.stop().await
}

#[tokio::test]
async fn abuse_34_a_redirect_leads_nowhere_through_a_host_either() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "jump").await?;
    let moved =
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n";
    let (address, connections) = server(moved).await?;
    serve(&agent, &member, &["127.0.0.0/8"], &[address.port()])?;
    let caller = Caller::new(&world, &[&member], address.port(), "127.0.0.0/8")?;
    let url = format!("http://127.0.0.1:{}/", address.port());
    let answer = caller.get(&url, Some("near")).await?;
    ensure!(answer.status == 302);
    ensure!(*connections.lock().unwrap_or_else(PoisonError::into_inner) == 1);
    world.gateway.stop().await
}

#[tokio::test]
async fn datagrams_go_and_come_through_a_host() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "jump").await?;
    let device = UdpSocket::bind("127.0.0.1:0").await?;
    let address = device.local_addr()?;
    serve(&agent, &member, &["127.0.0.0/8"], &[address.port()])?;
    let caller = Caller::new(&world, &[&member], address.port(), "127.0.0.0/8")?;
    let endpoint = format!("localhost:{}", address.port());
    let direct = caller.client.datagrams(&caller.call, &endpoint, None).await;
    ensure!(direct.err().context("refused")?.code == code::ROUTE_NOT_GRANTED);
    let opened = caller
        .client
        .datagrams(&caller.call, &endpoint, Some("near"));
    let mut channel = opened.await?;
    ensure!(channel.peer() == address);
    channel.send(b"ping").await?;
    let mut buffer = [0; 100];
    let (length, from) = soon(device.recv_from(&mut buffer)).await??;
    ensure!(&buffer[..length] == b"ping");
    device.send_to(b"pong", from).await?;
    ensure!(channel.recv(LIMIT).await? == b"pong");
    let silence = channel.recv(Duration::from_millis(20)).await;
    ensure!(silence.err().context("silence")?.code == code::DATAGRAM_TIMEOUT);

    agent.connection.close(0u32.into(), b"bye");
    let cut = channel.recv(LIMIT).await.err().context("cut")?;
    ensure!(cut.code == code::DATAGRAM_FAILED, "{cut}");
    world.gateway.stop().await
}

#[tokio::test]
async fn a_host_that_is_too_old_or_lies_is_told_from_one_that_refuses() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "jump").await?;
    let caller = Caller::new(&world, &[&member], 8080, "127.0.0.0/8")?;
    let url = "http://localhost:8080/";

    // As an agent does that does not know the kind of stream.
    let old = async {
        let (_, mut send, _) = asked(&agent.connection).await?;
        send.reset(1u32.into())?;
        anyhow::Ok(())
    };
    let (error, old) = tokio::join!(caller.refused(url, Some("near")), old);
    old?;
    let error = error?;
    ensure!(error.code == code::ROUTE_UNSUPPORTED_BY_AGENT && error.kind == ErrorKind::Unsupported);

    // One that has connected elsewhere, and says so.
    let liar = async {
        let (request, mut send, mut receive) = asked(&agent.connection).await?;
        ensure!(request.plugin == "bmc" && request.rules[0].networks == ["127.0.0.0/8"]);
        let address = "10.0.0.1:8080".to_owned();
        let body = Some(forward_reply::Body::Opened(ForwardOpened { address }));
        write_message(&mut send, &ForwardReply { body }, MAX_FRAME, LIMIT).await?;
        // Nothing of the request comes here.
        ensure!(soon(receive.read(&mut [0; 8])).await?.is_err());
        anyhow::Ok(())
    };
    let (error, liar) = tokio::join!(caller.refused(url, Some("near")), liar);
    liar?;
    let error = error?;
    ensure!(
        error.code == code::NETWORK_NOT_GRANTED && !error.outcome_unknown,
        "{error}"
    );
    world.gateway.stop().await
}

#[tokio::test]
async fn a_link_that_is_cut_in_the_middle_leaves_the_outcome_unknown() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "jump").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    serve(&agent, &member, &["127.0.0.0/8"], &[port])?;
    let caller = Caller::new(&world, &[&member], port, "127.0.0.0/8")?;
    let cut = async {
        let (mut stream, _) = soon(listener.accept()).await??;
        let mut heard = Vec::new();
        while !heard.ends_with(b"\r\n\r\n") {
            ensure!(soon(stream.read_buf(&mut heard)).await?? > 0);
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            .await?;
        agent.connection.close(0u32.into(), b"cut");
        anyhow::Ok(())
    };
    let url = format!("http://127.0.0.1:{port}/");
    let (error, cut) = tokio::join!(caller.refused(&url, Some("near")), cut);
    cut?;
    let error = error?;
    ensure!(error.code == code::CONNECTION_LOST, "{error}");
    ensure!(error.outcome_unknown && error.kind == ErrorKind::Unreachable);
    world.gateway.stop().await
}
