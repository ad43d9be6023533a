//! Who the client of a request is.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderName};

use crate::config::AddressRange;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address, an extension of every request that came over the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// Marks requests over the admin socket. Only the gateway's own user and root can
/// open it, so limits against guessing do not apply: nobody outside must be able to
/// lock the people who own the machine out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAdmin {
    /// The process at the other end runs as this user.
    pub uid: u32,
}

/// Where a request comes from: the peer, or, as far as the peer and those before it
/// are `trusted` proxies, the address they were called from. Every proxy appends its
/// own caller, so the list is read from its end; what an untrusted party wrote before
/// is never reached.
pub(super) fn client_of(peer: IpAddr, headers: &HeaderMap, trusted: &[AddressRange]) -> ClientAddr {
    let believed = |address: IpAddr| trusted.iter().any(|range| range.contains(address));
    let mut client = peer.to_canonical();
    let fields = headers.get_all(FORWARDED_FOR).iter().rev();
    let hops = fields.flat_map(|field| field.to_str().unwrap_or_default().rsplit(','));
    for hop in hops {
        if !believed(client) {
            break;
        }
        // A hop that cannot be read ends what can be believed.
        let Some(before) = parse_hop(hop.trim()) else {
            break;
        };
        client = before;
    }
    ClientAddr(client)
}

/// An address, perhaps in brackets, perhaps with a port, as different proxies write it.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let with_port = || {
        hop.parse::<std::net::SocketAddr>()
            .ok()
            .map(|address| address.ip())
    };
    let bare = hop
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(hop);
    bare.parse::<IpAddr>()
        .ok()
        .or_else(with_port)
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(peer: &str, fields: &[&str]) -> String {
        let trusted: Vec<AddressRange> = ["10.0.0.0/8", "2001:db8::/32"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(FORWARDED_FOR, field.parse().unwrap());
        }
        client_of(peer.parse().unwrap(), &headers, &trusted)
            .0
            .to_string()
    }

    #[test]
    fn abuse_24_strangers_cannot_say_who_they_are() {
        assert_eq!(client("203.0.113.9", &["192.0.2.1"]), "203.0.113.9");
        assert_eq!(client("203.0.113.9", &[]), "203.0.113.9");
    }

    #[test]
    fn a_trusted_proxy_says_who_called_it() {
        assert_eq!(client("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(client("::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(client("2001:db8::1", &["[2001:db9::7]:443"]), "2001:db9::7");
        assert_eq!(client("10.0.0.1", &["192.0.2.1:5555"]), "192.0.2.1");
    }

    #[test]
    fn abuse_24_what_the_client_itself_wrote_is_never_reached() {
        assert_eq!(
            client("10.0.0.1", &["127.0.0.1, 192.0.2.1, 10.0.0.2"]),
            "192.0.2.1"
        );
        assert_eq!(
            client("10.0.0.1", &["127.0.0.1", "192.0.2.1", "10.0.0.2"]),
            "192.0.2.1"
        );
        assert_eq!(
            client("10.0.0.1", &["192.0.2.1, garbage, 10.0.0.2"]),
            "10.0.0.2"
        );
        assert_eq!(client("10.0.0.1", &[""]), "10.0.0.1");
    }
}
