//! A gateway that is killed and started again: its agents hear of it at their next
//! packet, long before any timeout of theirs.
#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::{LIMIT, now, soon};
use link::socket::{AGENT_BUFFER, bind_udp};
use link::testing::{Authority, agent_identity, deployment, gateway_identity};
use link::tls::{SERVER_NAME, Verifier};
use link::transport::{
    Client, IDLE_TIMEOUT, endpoint_config, gateway_endpoint_config, server_config,
};
use link::verify::system_clock;
use quinn::ConnectionError;

/// One life of a gateway, on threads of its own.
struct Life {
    runtime: tokio::runtime::Runtime,
    endpoint: quinn::Endpoint,
}

impl Life {
    fn begin(address: SocketAddr, secret: &[u8; 32], config: &quinn::ServerConfig) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let _within = runtime.enter();
        let socket = bind_udp(address, AGENT_BUFFER).unwrap().socket;
        let settings = gateway_endpoint_config(secret);
        let quic = Arc::new(quinn::TokioRuntime);
        let endpoint = quinn::Endpoint::new(settings, Some(config.clone()), socket, quic).unwrap();
        Self { runtime, endpoint }
    }

    /// Everything stops where it is, and nobody says goodbye.
    fn kill(self, connection: quinn::Connection) {
        self.runtime.shutdown_timeout(LIMIT);
        drop((connection, self.endpoint));
    }
}

#[test]
fn an_agent_hears_at_its_next_packet_that_its_gateway_was_restarted() {
    const { assert!(LIMIT.as_secs() < IDLE_TIMEOUT.as_secs()) };
    let authority = Authority::new("ours");
    let verifier = Verifier::of_agents(authority.trust(), deployment(1), system_clock());
    let own = authority.good(gateway_identity(1), now());
    let config = server_config(verifier, own, IDLE_TIMEOUT).unwrap();
    let life = Life::begin("127.0.0.1:0".parse().unwrap(), &[7; 32], &config);
    let address = life.endpoint.local_addr().unwrap();

    let here = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let (agent, other) = here.block_on(async {
        let agents = Verifier::of_gateways(authority.trust(), Some(deployment(1)), system_clock());
        let credentials = authority.good(agent_identity(1), now());
        let client = Client::new(agents, Some(credentials), IDLE_TIMEOUT).unwrap();
        let socket = bind_udp("127.0.0.1:0".parse().unwrap(), AGENT_BUFFER).unwrap();
        let quic = Arc::new(quinn::TokioRuntime);
        let dialler = quinn::Endpoint::new(endpoint_config(), None, socket.socket, quic).unwrap();
        let dialling = dialler.connect_with(client.quic().clone(), address, SERVER_NAME);
        let (agent, other) = tokio::join!(soon(dialling.unwrap()), accept(&life));
        (agent.unwrap(), other)
    });

    life.kill(other);
    let _again = Life::begin(address, &[7; 32], &config);
    here.block_on(async {
        // A packet of the connection's own may have told it already.
        if let Ok((mut stream, _)) = soon(agent.open_bi()).await {
            let _ = stream.write_all(b"are you there?").await;
        }
        assert_eq!(soon(agent.closed()).await, ConnectionError::Reset);
    });
}

/// The gateway's end of the next connection, driven by the gateway's own threads.
async fn accept(life: &Life) -> quinn::Connection {
    let incoming = soon(life.endpoint.accept()).await.unwrap();
    let connecting = {
        let _within = life.runtime.enter();
        incoming.accept().unwrap()
    };
    soon(connecting).await.unwrap()
}
