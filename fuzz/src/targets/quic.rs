//! First contact over QUIC, without I/O: datagrams of a stranger against the very
//! configuration that the gateway uses.
//!
//! Input: one byte that says what the rest is, then
//! * 0: datagrams, each after two bytes of length;
//! * 1: transport parameters, in a ClientHello that is good otherwise;
//! * 2: the bytes of CRYPTO frames in a good packet, so TLS;
//! * 3: frames in a good packet.
//!
//! Whatever comes, no more than three times as many bytes go back to an address that
//! has not been proven (RFC 9000, section 8.1), retransmissions included; and less than
//! one datagram, because quinn lets the one that crosses the limit go whole (their
//! issue 1082).

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use link::testing::initial::{
    DATAGRAM, client_hello, crypto_frame, initial, least_parameters, parameter,
};
use link::testing::{Authority, deployment, gateway_identity};
use link::tls::Verifier;
use link::transport::{IDLE_TIMEOUT, server_config};
use link::verify::system_clock;
use quinn_proto::{
    Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig, Transmit,
};

use crate::Target;

pub(crate) const TARGET: Target = Target {
    name: "quic",
    about: "first packets of QUIC: no panic, and at most three bytes back for each",
    run,
    seeds,
    longest: 4096,
};

const DESTINATION: [u8; 8] = [0xd5; 8];
const SOURCE: [u8; 8] = [0x5c; 8];
/// Timers to let fire: enough for every retransmission of a handshake that nobody
/// answers within its time.
const TIMERS: usize = 24;
/// What a flight can take.
const CRYPTO: usize = 1000;

fn run(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    let mut gateway = Gateway::new();
    match kind {
        0 => {
            let mut rest = rest;
            while let Some((length, after)) = rest.split_first_chunk() {
                let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
                let (datagram, after) = after.split_at(length);
                gateway.receive(datagram);
                rest = after;
            }
        }
        1 => {
            let hello = client_hello(world().authority.trust(), rest);
            gateway.receive(&packet(0, &crypto_frame(0, cut(&hello))));
        }
        2 => {
            let (first, second) = rest.split_at(rest.len().min(CRYPTO));
            gateway.receive(&packet(0, &crypto_frame(0, first)));
            gateway.receive(&packet(1, &crypto_frame(first.len(), cut(second))));
        }
        _ => gateway.receive(&packet(0, cut(rest))),
    }
    gateway.let_time_pass();
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(CRYPTO)]
}

fn packet(number: u8, payload: &[u8]) -> Vec<u8> {
    initial(&DESTINATION, &SOURCE, &[], number, payload)
}

struct World {
    authority: Authority,
    endpoint: Arc<EndpointConfig>,
    server: Arc<quinn_proto::ServerConfig>,
}

fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let authority = Authority::of_seed("fuzz", 1);
        let now = system_clock()();
        let own = authority.good(gateway_identity(1), now);
        let verifier = Verifier::of_agents(authority.trust(), deployment(1), system_clock());
        let server = server_config(verifier, own, IDLE_TIMEOUT).unwrap();
        World {
            authority,
            endpoint: Arc::new(link::transport::endpoint_config()),
            server: Arc::new(server),
        }
    })
}

/// An endpoint, and what it took from and gave to the one address of this story.
struct Gateway {
    endpoint: Endpoint,
    connections: Vec<(ConnectionHandle, Connection)>,
    now: Instant,
    taken: usize,
    given: usize,
}

impl Gateway {
    fn new() -> Self {
        let world = world();
        let endpoint = Endpoint::new(
            Arc::clone(&world.endpoint),
            Some(Arc::clone(&world.server)),
            true,
            Some([7; 32]),
        );
        Self {
            endpoint,
            connections: Vec::new(),
            now: Instant::now(),
            taken: 0,
            given: 0,
        }
    }

    fn receive(&mut self, datagram: &[u8]) {
        let remote = SocketAddr::from(([192, 0, 2, 1], 4433));
        self.taken += datagram.len();
        let mut answer = Vec::new();
        let event = self.endpoint.handle(
            self.now,
            remote,
            None,
            None,
            BytesMut::from(datagram),
            &mut answer,
        );
        match event {
            None => {}
            Some(DatagramEvent::Response(transmit)) => self.give(&transmit),
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let found = self
                    .connections
                    .iter_mut()
                    .find(|(known, _)| *known == handle);
                if let Some((_, connection)) = found {
                    connection.handle_event(event);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => {
                let mut answer = Vec::new();
                match self.endpoint.accept(incoming, self.now, &mut answer, None) {
                    Ok(connection) => self.connections.push(connection),
                    Err(refused) => {
                        if let Some(transmit) = refused.response {
                            self.give(&transmit);
                        }
                    }
                }
            }
        }
        self.drive();
    }

    /// Lets every connection say what it has to say.
    fn drive(&mut self) {
        let mut given = Vec::new();
        for (handle, connection) in &mut self.connections {
            while let Some(event) = connection.poll_endpoint_events() {
                if let Some(event) = self.endpoint.handle_event(*handle, event) {
                    connection.handle_event(event);
                }
            }
            while connection.poll().is_some() {}
            loop {
                let mut buffer = Vec::new();
                let Some(transmit) = connection.poll_transmit(self.now, 10, &mut buffer) else {
                    break;
                };
                given.push(transmit);
            }
        }
        for transmit in given {
            self.give(&transmit);
        }
    }

    fn give(&mut self, transmit: &Transmit) {
        self.given += transmit.size;
        assert!(
            self.given < 3 * self.taken + DATAGRAM,
            "{} bytes taken and {} given to an address that nobody has proven",
            self.taken,
            self.given
        );
    }

    fn let_time_pass(&mut self) {
        for _ in 0..TIMERS {
            let timers = self.connections.iter_mut();
            let Some(next) = timers
                .filter_map(|(_, connection)| connection.poll_timeout())
                .min()
            else {
                return;
            };
            self.now = self.now.max(next) + Duration::from_micros(1);
            for (_, connection) in &mut self.connections {
                connection.handle_timeout(self.now);
            }
            self.drive();
        }
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let hello = |parameters: &[u8]| client_hello(world().authority.trust(), parameters);
    let good = least_parameters(&SOURCE);
    let first = packet(0, &crypto_frame(0, &hello(&good)));
    let length = u16::try_from(first.len()).unwrap().to_be_bytes();
    let mut other_version = first.clone();
    other_version[1..5].copy_from_slice(&[0xba, 0xba, 0xba, 0xba]);
    let mut seeds = vec![
        [&[0], &length[..], &first].concat(),
        [&[0], &length[..], &other_version].concat(),
        [&[0, 0, 24, 0x40], &[7; 23][..]].concat(),
        [&[2], &hello(&good)[..]].concat(),
        [&[2], &hello(&[])[..]].concat(),
        [&[3], &crypto_frame(0, &hello(&good))[..]].concat(),
        // ACK of what was never sent, CONNECTION_CLOSE, PING, a STREAM frame too early.
        vec![3, 0x02, 0x05, 0x00, 0x00, 0x00],
        vec![3, 0x1c, 0x00, 0x00, 0x00],
        vec![3, 0x01],
        vec![3, 0x08, 0x00, 0x61],
        [&[1], &good[..]].concat(),
    ];
    // Parameters out of range, twice, for servers only, of wrong lengths, unknown; the
    // panic of CVE-2026-31812 was in reading these.
    let oddities = [
        parameter(0x01, &[0xff; 8]),
        parameter(0x03, &[0x00]),
        parameter(0x03, &[0x44, 0xaf]),
        parameter(0x04, &[0xff; 8]),
        parameter(0x08, &[0xd0, 0, 0, 0, 0, 0, 0, 1]),
        parameter(0x0a, &[0x40, 0x15]),
        parameter(0x0b, &[0x80, 0, 0x40, 0]),
        parameter(0x0e, &[0x00]),
        parameter(0x02, &[0; 16]),
        parameter(0x00, &SOURCE),
        parameter(0x0d, &[0; 41]),
        parameter(0x0f, &SOURCE),
        parameter(0x0f, &[0; 21]),
        parameter(0x20, &[0x80, 0, 0xff, 0xff]),
        parameter(0x2ab2, &[]),
        parameter(0x1b, &[1]),
        vec![0x04, 0x08, 0xff],
        vec![0x04],
        vec![0x40],
        vec![0xff; 8],
    ];
    for odd in oddities {
        seeds.push([&[1], &good[..], &odd[..]].concat());
    }
    seeds
}
