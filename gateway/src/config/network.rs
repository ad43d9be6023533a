//! Addresses in the configuration: the public URL and ranges of addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use link::dial::Target;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// How others reach this gateway: `https://` with a name or address and a port.
/// Its characters are safe in shell scripts and headers, because the installer's
/// script carries it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(Target);

/// The text is not a public URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a public URL; write it as https://gateway.example.com:8443, without a path")]
pub struct NotAPublicUrl(String);

impl PublicUrl {
    /// This machine's own, for a gateway that was not told its name.
    pub fn localhost(port: u16) -> Self {
        Self(Target::new("localhost", port.max(1)).expect("a name and a port above 0"))
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        self.0.host()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// What to dial.
    pub fn target(&self) -> &Target {
        &self.0
    }

    /// What browsers send as `Origin` and, without the scheme, as `Host`.
    pub fn origin(&self) -> String {
        self.to_string()
    }
}

impl FromStr for PublicUrl {
    type Err = NotAPublicUrl;

    fn from_str(text: &str) -> Result<Self, NotAPublicUrl> {
        let refuse = || NotAPublicUrl(text.escape_default().to_string());
        if !text.starts_with("https://") {
            return Err(refuse());
        }
        Target::parse(text, 443).map(Self).map_err(|_| refuse())
    }
}

/// As browsers print it: without the port 443.
impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host();
        let (open, close) = if host.contains(':') {
            ("[", "]")
        } else {
            ("", "")
        };
        write!(f, "https://{open}{host}{close}")?;
        match self.0.port() {
            443 => Ok(()),
            port => write!(f, ":{port}"),
        }
    }
}

/// An address or a block of them: `10.0.0.7`, `10.0.0.0/8`, `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressRange {
    network: IpAddr,
    prefix: u8,
}

/// The text is not an address or a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an address or a block of addresses: {reason}")]
pub struct NotARange {
    text: String,
    reason: &'static str,
}

impl AddressRange {
    /// Whether `address` lies in it. IPv4 addresses that arrive on an IPv6 socket
    /// count as what they are.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = !u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                u32::from(network) == u32::from(address) & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = !u128::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
                u128::from(network) == u128::from(address) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl FromStr for AddressRange {
    type Err = NotARange;

    fn from_str(text: &str) -> Result<Self, NotARange> {
        let refuse = |reason| NotARange {
            text: text.to_owned(),
            reason,
        };
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let network: IpAddr = address
            .parse()
            .map_err(|_| refuse("write it as 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32"))?;
        if network != network.to_canonical() {
            return Err(refuse("write an IPv4 address without ::ffff:"));
        }
        let widest = if network.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => widest,
            Some(prefix) => prefix
                .parse()
                .ok()
                .filter(|bits| *bits <= widest && prefix.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| refuse("the number of bits after the slash is out of range"))?,
        };
        let range = Self { network, prefix };
        if range.contains(network) {
            Ok(range)
        } else {
            // Guessing which of the two was meant could trust too many.
            Err(refuse("the address has bits beyond the prefix"))
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

macro_rules! serde_as_text {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from)?.parse().map_err(de::Error::custom)
            }
        }
    )*};
}

serde_as_text!(PublicUrl, AddressRange);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_addresses_and_no_others() {
        let holds = |range: &str, address: &str| {
            range
                .parse::<AddressRange>()
                .unwrap()
                .contains(address.parse().unwrap())
        };
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.0.0.7", "10.0.0.7"));
        assert!(!holds("10.0.0.7", "10.0.0.8"));
        assert!(holds("0.0.0.0/0", "203.0.113.9"));
        assert!(!holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("::/0", "2001:db8::1"));
    }

    #[test]
    fn ranges_that_are_slips_are_refused() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "::1/129",
            "host",
            "::ffff:1.2.3.4",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text} was accepted");
        }
    }

    #[test]
    fn a_public_url_is_printed_as_browsers_do() {
        for (text, printed) in [
            ("https://gateway.example.com", "https://gateway.example.com"),
            (
                "https://Gateway.example.com:443/",
                "https://gateway.example.com",
            ),
            (
                "https://gateway.example.com:8443",
                "https://gateway.example.com:8443",
            ),
            ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
        ] {
            assert_eq!(text.parse::<PublicUrl>().unwrap().to_string(), printed);
        }
        for text in [
            "http://gateway.example.com",
            "gateway.example.com",
            "https://gateway.example.com/path",
            "https://user@gateway.example.com",
            "https://gate'way",
            "https://$(id)",
            "https://gateway:0",
            "https://",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text} was accepted");
        }
    }
}
