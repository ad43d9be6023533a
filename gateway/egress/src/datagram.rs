//! UDP: channels with one peer, and the packet that wakes a machine.
//!
//! A channel is a connected socket: the kernel drops what comes from anybody else. Unlike with
//! HTTP there are no addresses that need no network in the rule: what is spoken over UDP is
//! spoken with devices of one's own.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use plugin_host::ports::{CallContext, Datagrams, ErrorKind, GuestError};
use tokio::net::UdpSocket;

use crate::address;
use crate::audit::{Pending, Stage};
use crate::dial::Dialler;
use crate::error::{code, denied, invalid};
use crate::routes::unsupported;
use crate::target;

/// Longest datagram to send: what fits an Ethernet frame.
const MAX_DATAGRAM: usize = 1_472;
/// For resolving the peer's name.
const RESOLVE: Duration = Duration::from_secs(5);
/// Networks that one packet is sent on.
const MAX_NETWORKS: usize = 64;
/// Everybody on the wire, at the port that network cards do not care about.
const WAKE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::BROADCAST), 9);

pub(crate) async fn open(
    dialler: &Dialler,
    call: &CallContext,
    endpoint: &str,
    route: Option<&str>,
    pending: &mut Pending,
) -> Result<Box<dyn Datagrams>, GuestError> {
    let (host, port) = target::endpoint(endpoint).map_err(|_| {
        invalid(
            code::ENDPOINT_INVALID,
            "an endpoint is host:port or [v6]:port",
        )
    })?;
    pending.host = host.to_string();
    pending.port = port;
    if route.is_some() {
        return Err(unsupported(code::DATAGRAM_ROUTE_UNSUPPORTED));
    }
    if !call
        .grant
        .datagrams
        .iter()
        .any(|rule| rule.ports.contains(&port))
    {
        // Before the name is resolved: a look-up is a message to whoever runs its zone.
        return Err(not_granted(&host.to_string(), port));
    }
    pending.progress.enter(Stage::Resolving);
    let unresolved = |why: &str| {
        GuestError::new(
            ErrorKind::Unreachable,
            code::PEER_NOT_RESOLVED,
            format!("the name {host} has no address: {why}"),
        )
    };
    let addresses = tokio::time::timeout(RESOLVE, dialler.addresses(&host, port))
        .await
        .map_err(|_| unresolved("the resolver does not answer"))?
        .map_err(|why| unresolved(&why))?;
    if addresses.is_empty() {
        return Err(unresolved("the resolver answered none"));
    }
    let peer = addresses
        .into_iter()
        .find(|address| granted(call, *address))
        .ok_or_else(|| not_granted(&host.to_string(), port))?;
    pending.progress.connecting_to(peer);
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await.map_err(|error| io(&error))?;
    socket.connect(peer).await.map_err(|error| io(&error))?;
    Ok(Box::new(Channel {
        socket,
        peer,
        buffer: vec![0; 64 << 10],
    }))
}

fn granted(call: &CallContext, peer: SocketAddr) -> bool {
    call.grant.datagrams.iter().any(|rule| {
        rule.ports.contains(&peer.port()) && address::permits_listed(&rule.networks, peer.ip())
    })
}

fn not_granted(host: &str, port: u16) -> GuestError {
    denied(
        code::PEER_NOT_GRANTED,
        format!("no rule of the grant has {host} and UDP port {port}"),
    )
}

fn io(error: &std::io::Error) -> GuestError {
    GuestError::new(
        ErrorKind::Unreachable,
        code::DATAGRAM_FAILED,
        format!("the datagram could not be exchanged: {}", error.kind()),
    )
}

struct Channel {
    socket: UdpSocket,
    peer: SocketAddr,
    buffer: Vec<u8>,
}

#[async_trait]
impl Datagrams for Channel {
    fn peer(&self) -> SocketAddr {
        self.peer
    }

    async fn send(&mut self, data: &[u8]) -> Result<(), GuestError> {
        if data.len() > MAX_DATAGRAM {
            return Err(invalid(
                code::DATAGRAM_TOO_LONG,
                format!("a datagram is at most {MAX_DATAGRAM} bytes"),
            ));
        }
        let sent = self.socket.send(data).await;
        sent.map(drop).map_err(|error| io(&error))
    }

    async fn recv(&mut self, timeout: Duration) -> Result<Vec<u8>, GuestError> {
        let received = tokio::time::timeout(timeout, self.socket.recv(&mut self.buffer)).await;
        match received {
            Err(_) => Err(GuestError::new(
                ErrorKind::Timeout,
                code::DATAGRAM_TIMEOUT,
                format!("no datagram came within {} ms", timeout.as_millis()),
            )),
            Ok(Err(error)) => Err(io(&error)),
            Ok(Ok(length)) => Ok(self.buffer[..length].to_vec()),
        }
    }
}

pub(crate) async fn wake(
    call: &CallContext,
    mac: &str,
    route: Option<&str>,
    pending: &mut Pending,
) -> Result<(), GuestError> {
    pending.host = WAKE.ip().to_string();
    pending.port = WAKE.port();
    let packet = magic_packet(mac)
        .ok_or_else(|| invalid(code::MAC_INVALID, "a hardware address is aa:bb:cc:dd:ee:ff"))?;
    if route.is_some() {
        return Err(unsupported(code::DATAGRAM_ROUTE_UNSUPPORTED));
    }
    if !granted(call, WAKE) {
        return Err(not_granted(&WAKE.ip().to_string(), WAKE.port()));
    }
    pending.progress.connecting_to(WAKE);
    let sent = broadcast(&packet).await.map_err(|error| io(&error))?;
    pending.progress.wrote(sent);
    Ok(())
}

/// Sends on every network that this machine is attached to: a broadcast goes no further than the
/// wire it is sent on, and by the routing table it would be sent on the default route's alone, or
/// nowhere where there is none. It has arrived if it was sent on one of them, so the others may
/// fail.
async fn broadcast(packet: &[u8]) -> std::io::Result<usize> {
    let mut sent = 0;
    for network in attached().await {
        sent += broadcast_on(Some(&network), packet).await.unwrap_or(0);
    }
    // Nobody is attached that the kernel tells of, or it lets nobody but root choose: before 5.7.
    if sent == 0 {
        sent = broadcast_on(None, packet).await?;
    }
    Ok(sent)
}

async fn broadcast_on(network: Option<&str>, packet: &[u8]) -> std::io::Result<usize> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.set_broadcast(true)?;
    socket.bind_device(network.map(str::as_bytes))?;
    socket.send_to(packet, WAKE).await
}

/// Interfaces with an IPv4 network behind them, as the routing table names them: those that are up
/// and have an address.
async fn attached() -> Vec<String> {
    let table = tokio::fs::read_to_string("/proc/self/net/route").await;
    interfaces(&table.unwrap_or_default())
}

fn interfaces(table: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in table.lines().skip(1) {
        let mut words = line.split_ascii_whitespace();
        let (Some(name), Some(_), Some(gateway)) = (words.next(), words.next(), words.next())
        else {
            continue;
        };
        let new = !found.iter().any(|known| known == name);
        if gateway == "00000000" && new && found.len() < MAX_NETWORKS {
            found.push(name.to_owned());
        }
    }
    found
}

fn magic_packet(mac: &str) -> Option<Vec<u8>> {
    let octets: Vec<u8> = mac
        .split(':')
        .map(|text| {
            let hex = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
        })
        .collect::<Option<_>>()?;
    // A group's address wakes nobody in particular.
    (octets.len() == 6 && octets[0] & 1 == 0).then(|| [vec![0xff; 6], octets.repeat(16)].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_those_without_a_gateway_once_each() {
        let table = "Iface\tDestination\tGateway \tFlags\n\
            eth0\t00000000\t0100000A\t0003\n\
            eth0\t0000000A\t00000000\t0001\n\
            eth0\t0000010A\t00000000\t0001\n\
            eth1\t0000100A\t00000000\t0001\n\
            eth2\t0000200A\t0100000A\t0003\n\
            odd\n";
        assert_eq!(interfaces(table), ["eth0", "eth1"]);
        assert!(interfaces("").is_empty());
    }

    #[test]
    fn a_magic_packet_is_six_ff_and_sixteen_times_the_address() {
        let packet = magic_packet("02:00:5e:AA:bb:01").expect("an address");
        assert_eq!(packet.len(), 102);
        assert_eq!(packet[..6], [0xff; 6]);
        for copy in packet[6..].chunks(6) {
            assert_eq!(copy, [2, 0, 0x5e, 0xaa, 0xbb, 1]);
        }
        for bad in [
            "",
            "02:00:5e:aa:bb",
            "02:00:5e:aa:bb:01:02",
            "2:0:5e:aa:bb:1",
            "02-00-5e-aa-bb-01",
            "ff:ff:ff:ff:ff:ff",
            "+2:00:5e:aa:bb:01",
        ] {
            assert_eq!(magic_packet(bad), None, "{bad}");
        }
    }
}
