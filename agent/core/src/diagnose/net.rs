//! Sockets, interfaces and routes, from `/proc/net`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use model::diagnose::{Interface, Route, Socket};

/// The sockets in `/proc/net/tcp` and its kin; `protocol` is what to call them.
pub fn inet_sockets(text: &str, protocol: &str) -> Vec<Socket> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (sends, receives) = fields.get(4)?.split_once(':')?;
        let queue = |hex| u64::from_str_radix(hex, 16).unwrap_or(0);
        Some(Socket {
            protocol: protocol.to_owned(),
            local: address(fields.get(1)?)?.to_string(),
            remote: address(fields.get(2)?)?.to_string(),
            state: state(fields.get(3)?, protocol).to_owned(),
            uid: fields.get(7)?.parse().ok()?,
            inode: fields.get(9)?.parse().ok()?,
            send_queue: queue(sends),
            receive_queue: queue(receives),
            ..Socket::default()
        })
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// The sockets in `/proc/net/unix`.
pub fn unix_sockets(text: &str) -> Vec<Socket> {
    let one = |line: &str| {
        let mut fields = line.split_whitespace();
        let flags = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let kind = fields.next()?;
        let connected = fields.next()?;
        let inode = fields.next()?.parse().ok()?;
        let path: Vec<&str> = fields.collect();
        // SO_ACCEPTCON in the kernel's flags.
        let listens = flags & 0x1_0000 != 0;
        Some(Socket {
            protocol: match kind {
                "0001" => "unix",
                "0002" => "unix-datagram",
                "0005" => "unix-packet",
                _ => "unix-other",
            }
            .to_owned(),
            local: path.join(" "),
            state: match (listens, connected) {
                (true, _) => "listen",
                (false, "03") => "established",
                (false, _) => "unconnected",
            }
            .to_owned(),
            inode,
            ..Socket::default()
        })
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// The kernel prints addresses as words of the machine's byte order, ports as numbers.
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| -> Option<[u8; 4]> {
        let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
        Some(word.to_ne_bytes())
    };
    let ip = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for (place, chunk) in bytes.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(place * 8)?);
            }
            Ipv6Addr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

fn state(hex: &str, protocol: &str) -> &'static str {
    match (hex, protocol.starts_with("udp")) {
        ("01", _) => "established",
        ("07", true) => "unconnected",
        ("02", _) => "syn_sent",
        ("03", _) => "syn_received",
        ("04", _) => "fin_wait_1",
        ("05", _) => "fin_wait_2",
        ("06", _) => "time_wait",
        ("07", _) => "closed",
        ("08", _) => "close_wait",
        ("09", _) => "last_ack",
        ("0A", _) => "listen",
        ("0B", _) => "closing",
        _ => "unknown",
    }
}

/// The interfaces in `/proc/net/dev`, without their states.
pub fn interfaces(text: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, counts) = line.split_once(':')?;
        let counts: Vec<u64> = counts
            .split_whitespace()
            .map(|it| it.parse().unwrap_or(0))
            .collect();
        let count = |place: usize| counts.get(place).copied().unwrap_or(0);
        Some(Interface {
            name: name.trim().to_owned(),
            received_bytes: count(0),
            receive_errors: count(2).saturating_add(count(3)),
            sent_bytes: count(8),
            send_errors: count(10).saturating_add(count(11)),
            ..Interface::default()
        })
    };
    text.lines().skip(2).filter_map(one).collect()
}

/// The routes in `/proc/net/route`.
pub fn routes_v4(text: &str) -> Vec<Route> {
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ip = |place: usize| -> Option<Ipv4Addr> {
            let word = u32::from_str_radix(fields.get(place)?, 16).ok()?;
            Some(Ipv4Addr::from(word.to_ne_bytes()))
        };
        let (to, via, mask) = (ip(1)?, ip(2)?, ip(7)?);
        let bits = u32::from(mask).count_ones();
        Some(Route {
            to: if bits == 0 {
                "default".to_owned()
            } else {
                format!("{to}/{bits}")
            },
            via: if via.is_unspecified() {
                String::new()
            } else {
                via.to_string()
            },
            interface: (*fields.first()?).to_owned(),
            metric: fields.get(6)?.parse().ok()?,
        })
    };
    text.lines().skip(1).filter_map(one).collect()
}

/// The routes in `/proc/net/ipv6_route`, without those to the host itself.
pub fn routes_v6(text: &str) -> Vec<Route> {
    let ip = |hex: &str| -> Option<Ipv6Addr> {
        (hex.len() == 32).then_some(())?;
        u128::from_str_radix(hex, 16).ok().map(Ipv6Addr::from)
    };
    let one = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let to = ip(fields.first()?)?;
        let bits = u8::from_str_radix(fields.get(1)?, 16).ok()?;
        let via = ip(fields.get(4)?)?;
        let flags = u32::from_str_radix(fields.get(8)?, 16).ok()?;
        // RTF_LOCAL, RTF_REJECT, and multicast, which every interface has.
        if flags & 0x8000_0200 != 0 || to.is_multicast() {
            return None;
        }
        Some(Route {
            to: if bits == 0 {
                "default".to_owned()
            } else {
                format!("{to}/{bits}")
            },
            via: if via.is_unspecified() {
                String::new()
            } else {
                via.to_string()
            },
            interface: (*fields.get(9)?).to_owned(),
            metric: u32::from_str_radix(fields.get(5)?, 16).ok()?,
        })
    };
    text.lines().filter_map(one).collect()
}

/// The name servers in `/etc/resolv.conf`.
pub fn nameservers(text: &str) -> Vec<String> {
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        (words.next()? == "nameserver").then(|| words.next().map(ToOwned::to_owned))?
    };
    text.lines().filter_map(one).take(8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn sockets_are_read_with_their_queues_and_owners() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   0: 0100007F:1F90 00000000:0000 0A 00000000:00000003 00:00000000 00000000    33        0 4242 1\n junk\n";
        let found = inet_sockets(tcp, "tcp");
        assert_eq!(found.len(), 1);
        let one = &found[0];
        assert_eq!(
            (one.local.as_str(), one.state.as_str()),
            ("127.0.0.1:8080", "listen")
        );
        assert_eq!((one.uid, one.inode, one.receive_queue), (33, 4242, 3));
        let tcp6 = "h\n 0: 00000000000000000000000001000000:0016 00000000000000000000000000000000:0000 07 00000000:00000000 0 0 0 0 7\n";
        let found = inet_sockets(tcp6, "udp6");
        assert_eq!(
            (found[0].local.as_str(), found[0].state.as_str()),
            ("[::1]:22", "unconnected")
        );
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n0000: 00000002 00000000 00010000 0001 01 17 /run/a b\n0000: 00000003 00000000 00000000 0001 03 18\n";
        let found = unix_sockets(unix);
        assert_eq!(
            (found[0].local.as_str(), found[0].state.as_str()),
            ("/run/a b", "listen")
        );
        assert_eq!(
            (found[1].inode, found[1].state.as_str()),
            (18, "established")
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn interfaces_and_routes_are_read() {
        let dev = "Inter-|   Receive\n face |bytes\n  eth0: 10 1 2 3 0 0 0 0 20 1 4 5 0 0 0 0\n";
        let found = interfaces(dev);
        assert_eq!(
            (
                found[0].name.as_str(),
                found[0].received_bytes,
                found[0].sent_bytes
            ),
            ("eth0", 10, 20)
        );
        assert_eq!((found[0].receive_errors, found[0].send_errors), (5, 9));
        let route = "Iface\tDestination\nens3\t00000000\t0102000A\t0003\t0\t0\t100\t00000000\t0\t0\t0\nens3\t0002000A\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        let found = routes_v4(route);
        let told: Vec<_> = found
            .iter()
            .map(|it| (it.to.as_str(), it.via.as_str()))
            .collect();
        assert_eq!(told, [("default", "10.0.2.1"), ("10.0.2.0/24", "")]);
        let v6 = "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 1 0 00000003 ens3\n00000000000000000000000000000001 80 0 0 00000000000000000000000000000000 00000000 1 0 80200001 lo\n";
        let found = routes_v6(v6);
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].to.as_str(), found[0].via.as_str(), found[0].metric),
            ("2001:db8::/64", "fe80::1", 1024)
        );
        assert_eq!(
            nameservers("# x\nnameserver 9.9.9.9 \nsearch a\nnameserver\n"),
            ["9.9.9.9"]
        );
    }

    proptest! {
        #[test]
        fn no_table_is_too_odd(text in "[0-9A-Fa-f: \t\n/äé.-]{0,300}") {
            let _ = (inet_sockets(&text, "tcp"), unix_sockets(&text), interfaces(&text));
            let _ = (routes_v4(&text), routes_v6(&text), nameservers(&text));
            let _ = super::super::mounts::mounts(&text.replace('-', " - "));
        }
    }
}
