//! Wake-on-LAN: the address of a network card, and the packet that it wakes from.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Where it is sent: everybody on the wire, at the port that network cards do not care about.
pub const WAKE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::BROADCAST), 9);

/// The address of one network card.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mac([u8; 6]);

impl Mac {
    /// From six bytes. A group's address is none: it wakes nobody in particular.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let octets: [u8; 6] = octets.try_into().ok()?;
        (octets[0] & 1 == 0).then_some(Self(octets))
    }

    /// From `aa:bb:cc:dd:ee:ff`.
    pub fn parse(text: &str) -> Option<Self> {
        let octet = |text: &str| {
            let hex = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u8::from_str_radix(text, 16).ok()).flatten()
        };
        let octets: Vec<u8> = text.split(':').map(octet).collect::<Option<_>>()?;
        Self::new(&octets)
    }

    /// The six bytes.
    pub fn octets(&self) -> [u8; 6] {
        self.0
    }

    /// The packet.
    pub fn magic_packet(&self) -> Vec<u8> {
        [vec![0xff; 6], self.0.repeat(16)].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_magic_packet_is_six_ff_and_sixteen_times_the_address() {
        let packet = Mac::parse("02:00:5e:AA:bb:01").map(|mac| mac.magic_packet());
        let packet = packet.expect("an address");
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
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }
}
