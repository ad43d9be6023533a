//! UDP sockets for QUIC.
//!
//! Thousands of agents share the gateway's one socket, and a burst (a mass
//! reconnect) that finds its buffer full is lost. So much room is asked for: past the
//! system's limit when running as root, as far as the limit allows otherwise, and
//! [`BoundUdp::advice`] says what to change when less was granted. Less works, with
//! more loss under load.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

/// Bytes to ask for in each direction at a gateway.
pub const GATEWAY_BUFFER: usize = 16 << 20;
/// Bytes to ask for in each direction at an agent, which has a single peer: one
/// receive window of a stream.
pub const AGENT_BUFFER: usize = 2 << 20;

/// A UDP socket and the buffers it got.
#[derive(Debug)]
pub struct BoundUdp {
    /// The socket, non-blocking.
    pub socket: UdpSocket,
    /// Bytes asked for in each direction.
    pub wanted: usize,
    /// Bytes of receive buffer granted.
    pub receive_buffer: usize,
    /// Bytes of send buffer granted.
    pub send_buffer: usize,
}

impl BoundUdp {
    /// What an operator should do about small buffers, if anything. Log it once.
    pub fn advice(&self) -> Option<String> {
        let wanted = self.wanted;
        let short: Vec<_> = [("rmem", self.receive_buffer), ("wmem", self.send_buffer)]
            .into_iter()
            .filter(|(_, granted)| *granted < wanted)
            .map(|(which, granted)| {
                format!("net.core.{which}_max={wanted} (granted {granted} bytes)")
            })
            .collect();
        (!short.is_empty()).then(|| {
            format!(
                "UDP buffers are smaller than wanted, bursts will lose packets; set with sysctl: {}",
                short.join(", ")
            )
        })
    }
}

/// Binds a socket with `buffer` bytes of room in each direction, if it can be had. An unspecified IPv6 address takes IPv4 as
/// well, whatever the system's default says.
pub fn bind_udp(address: SocketAddr, buffer: usize) -> io::Result<BoundUdp> {
    let family = if address.is_ipv6() {
        AddressFamily::INET6
    } else {
        AddressFamily::INET
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::DGRAM, flags, None)?;
    if address.is_ipv6() {
        let dual = address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        sockopt::set_ipv6_v6only(&socket, !dual)?;
    }
    // Root only; the second call is what everybody may ask for, and it is the limit
    // of the system, not an error, when less comes back.
    if sockopt::set_socket_recv_buffer_size_force(&socket, buffer).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(&socket, buffer);
    }
    if sockopt::set_socket_send_buffer_size_force(&socket, buffer).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(&socket, buffer);
    }
    rustix::net::bind(&socket, &address)?;
    // Linux answers with twice the usable size.
    let receive_buffer = sockopt::socket_recv_buffer_size(&socket)? / 2;
    let send_buffer = sockopt::socket_send_buffer_size(&socket)? / 2;
    Ok(BoundUdp {
        socket: UdpSocket::from(socket),
        wanted: buffer,
        receive_buffer,
        send_buffer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_address_takes_both_families() {
        let Ok(bound) = bind_udp("[::]:0".parse().unwrap(), GATEWAY_BUFFER) else {
            return; // a machine without IPv6
        };
        let port = bound.socket.local_addr().unwrap().port();
        bound.socket.set_nonblocking(false).unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"hello", ("127.0.0.1", port)).unwrap();
        let mut buffer = [0; 8];
        let (length, _) = bound.socket.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"hello");
    }

    #[test]
    fn small_buffers_come_with_advice() {
        let bound = bind_udp("127.0.0.1:0".parse().unwrap(), GATEWAY_BUFFER).unwrap();
        let small = BoundUdp {
            receive_buffer: 212_992,
            ..bound
        };
        let advice = small.advice().unwrap();
        assert!(
            advice.contains("net.core.rmem_max=16777216 (granted 212992 bytes)"),
            "{advice}"
        );
        let large = BoundUdp {
            receive_buffer: GATEWAY_BUFFER,
            send_buffer: GATEWAY_BUFFER,
            ..small
        };
        assert_eq!(large.advice(), None);
    }
}
