//! UDP: channels with one peer, and the packet that wakes a machine.
//!
//! A channel is a connected socket: the kernel drops what comes from anybody else. Unlike with
//! HTTP there are no addresses that need no network in the rule: what is spoken over UDP is
//! spoken with devices of one's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use model::plugin::DatagramRule;
use model::plugin::wake::{Mac, WAKE};
use plugin_host::ports::{CallContext, Datagrams, ErrorKind, GuestError};
use tokio::net::UdpSocket;

use crate::address;
use crate::audit::{Pending, Stage};
use crate::dial::Dialler;
use crate::error::{code, denied, invalid};
use crate::framed::Framed;
use crate::routes::{RouteRule, RouteTarget, Routes, Transport, covers, way};
use crate::target::{self, Host};

/// Longest datagram to send: what fits an Ethernet frame.
pub(crate) const MAX_DATAGRAM: usize = 1_472;
/// For resolving the peer's name.
const RESOLVE: Duration = Duration::from_secs(5);
/// Networks that one packet is sent on.
const MAX_NETWORKS: usize = 64;
/// For opening a channel where a route leads, which includes resolving the name there.
const ROUTED: Duration = Duration::from_secs(10);

pub(crate) async fn open(
    dialler: &Dialler,
    routes: &dyn Routes,
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
    let rules = rules(call, port, route);
    if rules.is_empty() {
        // Before the name is resolved: a look-up is a message to whoever runs its zone.
        return Err(uncovered(call, &host.to_string(), port));
    }
    if let Some(route) = route {
        return routed(routes, call, (&host, port), route, &rules, pending).await;
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
        .find(|address| granted(&rules, address.ip()))
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

async fn routed(
    routes: &dyn Routes,
    call: &CallContext,
    (host, port): (&Host, u16),
    route: &str,
    rules: &[&DatagramRule],
    pending: &mut Pending,
) -> Result<Box<dyn Datagrams>, GuestError> {
    let way = way(&call.grant, route)?;
    if let Host::Address(address) = host
        && !granted(rules, *address)
    {
        return Err(not_granted(&host.to_string(), port));
    }
    pending.progress.enter(Stage::Connecting);
    let target = RouteTarget {
        transport: Transport::Udp,
        host,
        port,
        rules: &elsewhere(rules, port),
        within: ROUTED,
    };
    let opened = tokio::time::timeout(ROUTED + RESOLVE, routes.open(call, way, target)).await;
    let routed = opened.map_err(|_| {
        let message = "the host of the route does not answer";
        GuestError::new(ErrorKind::Timeout, code::ROUTE_TIMEOUT, message)
    })??;
    pending.progress.connecting_to(routed.address);
    pending.via = Some(routed.via);
    if routed.address.port() != port || !granted(rules, routed.address.ip()) {
        return Err(not_granted(&host.to_string(), port));
    }
    Ok(Box::new(Framed::new(routed.stream, routed.address)))
}

/// The rules for a port, by this route or from here.
fn rules<'a>(call: &'a CallContext, port: u16, route: Option<&str>) -> Vec<&'a DatagramRule> {
    let all = call.grant.datagrams.iter();
    all.filter(|rule| rule.ports.contains(&port) && covers(&rule.routes, route))
        .collect()
}

fn granted(rules: &[&DatagramRule], address: IpAddr) -> bool {
    rules
        .iter()
        .any(|rule| address::permits_listed(&rule.networks, address))
}

/// The same, for whoever judges addresses elsewhere.
fn elsewhere(rules: &[&DatagramRule], port: u16) -> Vec<RouteRule> {
    let rule = |rule: &&DatagramRule| RouteRule {
        networks: rule.networks.clone(),
        ports: vec![port],
    };
    rules.iter().map(rule).collect()
}

/// No rule is left: because of the port, or because of the way alone.
fn uncovered(call: &CallContext, host: &str, port: u16) -> GuestError {
    let mut all = call.grant.datagrams.iter();
    if all.any(|rule| rule.ports.contains(&port)) {
        let message = format!(
            "no rule of the grant has UDP port {port} of {host} by this route, or without one"
        );
        return denied(code::ROUTE_NOT_GRANTED, message);
    }
    not_granted(host, port)
}

fn not_granted(host: &str, port: u16) -> GuestError {
    denied(
        code::PEER_NOT_GRANTED,
        format!("no rule of the grant has {host} and UDP port {port}"),
    )
}

pub(crate) fn io(error: &std::io::Error) -> GuestError {
    GuestError::new(
        ErrorKind::Unreachable,
        code::DATAGRAM_FAILED,
        format!("the datagram could not be exchanged: {}", error.kind()),
    )
}

pub(crate) fn silent(within: Duration) -> GuestError {
    GuestError::new(
        ErrorKind::Timeout,
        code::DATAGRAM_TIMEOUT,
        format!("no datagram came within {} ms", within.as_millis()),
    )
}

pub(crate) fn fits(data: &[u8]) -> Result<(), GuestError> {
    if data.len() > MAX_DATAGRAM {
        return Err(invalid(
            code::DATAGRAM_TOO_LONG,
            format!("a datagram is at most {MAX_DATAGRAM} bytes"),
        ));
    }
    Ok(())
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
        fits(data)?;
        let sent = self.socket.send(data).await;
        sent.map(drop).map_err(|error| io(&error))
    }

    async fn recv(&mut self, timeout: Duration) -> Result<Vec<u8>, GuestError> {
        let received = tokio::time::timeout(timeout, self.socket.recv(&mut self.buffer)).await;
        match received {
            Err(_) => Err(silent(timeout)),
            Ok(Err(error)) => Err(io(&error)),
            Ok(Ok(length)) => Ok(self.buffer[..length].to_vec()),
        }
    }
}

pub(crate) async fn wake(
    routes: &dyn Routes,
    call: &CallContext,
    mac: &str,
    route: Option<&str>,
    pending: &mut Pending,
) -> Result<(), GuestError> {
    pending.host = WAKE.ip().to_string();
    pending.port = WAKE.port();
    let mac = Mac::parse(mac)
        .ok_or_else(|| invalid(code::MAC_INVALID, "a hardware address is aa:bb:cc:dd:ee:ff"))?;
    let rules = rules(call, WAKE.port(), route);
    let everybody = WAKE.ip().to_string();
    if rules.is_empty() {
        return Err(uncovered(call, &everybody, WAKE.port()));
    }
    if !granted(&rules, WAKE.ip()) {
        return Err(not_granted(&everybody, WAKE.port()));
    }
    pending.progress.connecting_to(WAKE);
    let packet = mac.magic_packet();
    if let Some(route) = route {
        let way = way(&call.grant, route)?;
        let rules = elsewhere(&rules, WAKE.port());
        pending.via = Some(routes.wake(call, way, mac, &rules).await?);
        pending.progress.wrote(packet.len());
        return Ok(());
    }
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
}
