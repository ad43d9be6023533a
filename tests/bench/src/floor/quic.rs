//! `bench serve-quic`: bare quinn with the gateway's TLS, and nothing behind it.
//!
//! Takes the same swarm as a gateway: verifies certificates, welcomes every hello, acknowledges
//! heartbeats. No registry, no store, one small task a connection. `--stock` leaves quinn's own
//! transport settings and the system's socket buffers as they are.

use std::{
    net::{SocketAddr, UdpSocket},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use lexopt::{Arg, Parser, ValueExt};
use link::{
    frame::{Deadlines, FrameReader, MAX_FRAME, write_message},
    socket::{GATEWAY_BUFFER, bind_udp},
    tls::Verifier,
    transport::{IDLE_TIMEOUT, endpoint_config, server_config},
    verify::system_clock,
};
use protocol::v1::{
    AgentFrame, GatewayFrame, HeartbeatAck, Settings, Welcome, agent_frame, gateway_frame,
};
use tokio_util::task::TaskTracker;

const WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn main(mut args: Parser) -> Result<ExitCode> {
    let (mut state, mut address, mut stock) = (PathBuf::new(), None, false);
    let mut heartbeat_ms = 10_000;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("state") => state = args.value()?.into(),
            Arg::Long("listen") => address = Some(args.value()?.parse::<SocketAddr>()?),
            Arg::Long("heartbeat-ms") => heartbeat_ms = args.value()?.parse()?,
            Arg::Long("stock") => stock = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let address = address.context("--listen ADDRESS")?;
    let (deployment, authority) = crate::fleet::authority(&state)?;
    let verifier = Verifier::of_agents(authority.trust_store(), deployment, system_clock());
    let (credentials, _) = authority.issue_gateway(gateway::app::wall_clock())?;
    let mut config = server_config(verifier, credentials, IDLE_TIMEOUT)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = if stock {
            config.transport_config(Arc::default());
            UdpSocket::bind(address)?
        } else {
            bind_udp(address, GATEWAY_BUFFER)?.socket
        };
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(endpoint_config(), Some(config), socket, runtime)?;
        println!("ready");
        let links = TaskTracker::new();
        while let Some(incoming) = endpoint.accept().await {
            links.spawn(async move {
                // A client that goes is no trouble of ours.
                let _ = serve(incoming, heartbeat_ms).await;
            });
        }
        Ok(ExitCode::SUCCESS)
    })
}

async fn serve(incoming: quinn::Incoming, heartbeat_ms: u32) -> Result<()> {
    let connection = incoming.await?;
    let (mut send, receive) = connection.accept_bi().await?;
    let deadlines = Deadlines {
        idle: Duration::from_secs(3600),
        frame: WITHIN,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    while let Some(AgentFrame { body }) = reader.next().await? {
        let answer = match body {
            Some(agent_frame::Body::Hello(hello)) => gateway_frame::Body::Welcome(Welcome {
                version: 1,
                counter: hello.counter + 1,
                settings: Some(Settings { heartbeat_ms }),
                ..Welcome::default()
            }),
            Some(agent_frame::Body::Heartbeat(heartbeat)) => {
                gateway_frame::Body::HeartbeatAck(HeartbeatAck {
                    sequence: heartbeat.sequence,
                    server_time_ms: 0,
                })
            }
            _ => continue,
        };
        let answer = GatewayFrame { body: Some(answer) };
        write_message(&mut send, &answer, MAX_FRAME, WITHIN).await?;
    }
    Ok(())
}
