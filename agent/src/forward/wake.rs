//! A broadcast on every wire of this host.
//!
//! A packet to everybody leaves by one interface only, that of the default route, and the network
//! where machines are woken is often another one. A socket that is bound to an address of this
//! host sends it by the interface of that address, so there is one for each.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use agent_core::facts::addresses;
use tokio::net::UdpSocket;

/// Most addresses of this host from which it is sent.
const MOST: usize = 32;

/// Sends `packet` on each wire; well, if it left by one of them.
pub(super) async fn send(packet: &[u8], to: SocketAddr) -> io::Result<()> {
    let table = fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let own = addresses(&table, "");
    let own = own.iter().filter_map(|text| text.parse::<Ipv4Addr>().ok());
    let mut sent = Err(io::ErrorKind::AddrNotAvailable.into());
    for address in own.take(MOST) {
        match send_from(address, packet, to).await {
            Ok(()) => sent = Ok(()),
            Err(error) if sent.is_err() => sent = Err(error),
            Err(_) => {}
        }
    }
    match sent {
        Ok(()) => Ok(()),
        // Without an address to send from, the routes decide.
        Err(_) => send_from(Ipv4Addr::UNSPECIFIED, packet, to).await,
    }
}

async fn send_from(address: Ipv4Addr, packet: &[u8], to: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((address, 0)).await?;
    socket.set_broadcast(true)?;
    socket.send_to(packet, to).await.map(drop)
}
