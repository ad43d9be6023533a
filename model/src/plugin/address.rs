//! Whom a plugin may speak to: names and networks.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

/// The text is not a pattern of host names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a host is a lower-case DNS name (`api.example.com`), all names below one (`*.example.com`) or \
     an address (`192.0.2.7`, `2001:db8::7`)"
)]
pub struct NotAHostPattern;

/// A host name, an address, or all names below a domain.
///
/// `*.example.com` covers `a.example.com` and `a.b.example.com`, not `example.com`. There is no
/// pattern for everything: an operator who wants a plugin to reach the whole network says so by
/// its domains.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum HostPattern {
    /// This name.
    Name(String),
    /// All names below this domain.
    Below(String),
    /// This address, as it stands in an URL.
    Address(IpAddr),
}

impl HostPattern {
    /// Whether a host of an URL is covered. `host` is in lower case, without a dot at its
    /// end and without the brackets of an IPv6 address.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name == host,
            Self::Below(domain) => host
                .strip_suffix(domain.as_str())
                .and_then(|rest| rest.strip_suffix('.'))
                .is_some_and(|rest| !rest.is_empty()),
            Self::Address(address) => host.parse::<IpAddr>().is_ok_and(|host| host == *address),
        }
    }
}

/// Whether a text is a lower-case DNS name: letters, digits and hyphens, labels of 1 to 63, at
/// most 253 altogether, no dot at the end, not all of it digits (which others read as an address).
fn is_dns_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let last = text.rsplit('.').next().unwrap_or_default();
    // `0x7f.1`, `127.1` and `2130706433` are addresses to some resolvers.
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit())
        || last
            .strip_prefix("0x")
            .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()));
    text.len() <= 253 && text.split('.').all(label) && !numeric
}

impl FromStr for HostPattern {
    type Err = NotAHostPattern;

    fn from_str(text: &str) -> Result<Self, NotAHostPattern> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        match text.strip_prefix("*.") {
            Some(domain) if is_dns_name(domain) => Ok(Self::Below(domain.to_owned())),
            None if is_dns_name(text) => Ok(Self::Name(text.to_owned())),
            Some(_) | None => Err(NotAHostPattern),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

as_text!(HostPattern, "HostPattern", {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
});

/// The text is not a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a network is an address and a length without bits behind it, as `10.0.0.0/8` or `fd00::/8`"
)]
pub struct NotACidr;

/// A network: `10.0.0.0/8`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cidr {
    network: IpAddr,
    length: u8,
}

impl Cidr {
    /// Whether an address lies in it. An IPv4 address inside IPv6 (`::ffff:10.0.0.1`) is judged
    /// as the IPv4 address that it reaches.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.network, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = u32::MAX
                    .checked_shl(32 - u32::from(self.length))
                    .unwrap_or(0);
                network.to_bits() == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                network.to_bits() == address.to_bits() & mask_v6(self.length)
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// Whether all of it lies in `outer`.
    pub fn is_within(&self, outer: &Self) -> bool {
        self.length >= outer.length && outer.contains(self.network)
    }
}

fn mask_v6(length: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (network, length) = text.split_once('/').ok_or(NotACidr)?;
        let network: IpAddr = network.parse().map_err(|_| NotACidr)?;
        let length: u8 = length.parse().map_err(|_| NotACidr)?;
        let mapped = matches!(network, IpAddr::V6(address) if is_mapped(address));
        let most = if network.is_ipv4() { 32 } else { 128 };
        let cidr = Self { network, length };
        // A network with bits behind its length is a slip, and none knows which part of it.
        if mapped || length > most || !cidr.contains(network) {
            return Err(NotACidr);
        }
        Ok(cidr)
    }
}

fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.length)
    }
}

as_text!(Cidr, "Cidr", {
    "type": "string",
    "minLength": 4,
    "maxLength": 43,
});
