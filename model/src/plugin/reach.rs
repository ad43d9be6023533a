//! Which addresses may be connected to.
//!
//! A name says nothing about where it leads: whoever runs its zone decides, at any moment. So the
//! address is judged, each that a name resolves to, and the very address that was judged is
//! connected to. What is not globally reachable is refused unless the grant has a network for it:
//!
//! ```text
//! public        without a network in the rule, or within one of them
//! local         10/8, fc00::/7, shared, documentation, reserved..: within a network of the rule
//! guarded       loopback, link-local, multicast, broadcast: within a network of the rule that
//!               itself lies in that block; `0.0.0.0/0` was not written with them in mind
//! metadata      services that give a cloud's credentials to whoever asks: a network of the rule
//!               with this address alone
//! nowhere       0.0.0.0 and ::, which some systems read as "this machine": never
//! ```
//!
//! An IPv4 address inside IPv6 (mapped, translated, tunnelled) is judged as what it reaches: as
//! the IPv4 address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Cidr;

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The Internet's.
    Public,
    /// Of somebody's own network, or of none.
    Local,
    /// Of this machine, of this wire, or of many at once.
    Guarded(Block),
    /// A cloud's metadata service.
    Metadata,
    /// Not an address to connect to.
    Nowhere,
}

/// Blocks that need a network of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// This machine.
    Loopback,
    /// This wire.
    LinkLocal,
    /// Many at once.
    Multicast,
    /// All on this wire.
    Broadcast,
}

impl Block {
    fn networks(self) -> [&'static str; 2] {
        match self {
            Self::Loopback => ["127.0.0.0/8", "::1/128"],
            Self::LinkLocal => ["169.254.0.0/16", "fe80::/10"],
            Self::Multicast => ["224.0.0.0/4", "ff00::/8"],
            Self::Broadcast => ["255.255.255.255/32", "255.255.255.255/32"],
        }
    }

    /// For people.
    fn as_str(self) -> &'static str {
        match self {
            Self::Loopback => "a loopback",
            Self::LinkLocal => "a link-local",
            Self::Multicast => "a multicast",
            Self::Broadcast => "the broadcast",
        }
    }
}

impl Reach {
    /// For people, before the word "address".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "a public",
            Self::Local => "a private or reserved",
            Self::Guarded(block) => block.as_str(),
            Self::Metadata => "a cloud metadata",
            Self::Nowhere => "no usable",
        }
    }
}

/// Metadata services that are known, and where else a credential is had by asking. Beside those of
/// the link-local block there are some in blocks that look harmless.
const METADATA_V4: &[Ipv4Addr] = &[
    Ipv4Addr::new(169, 254, 169, 254),
    // AWS: of containers, of pods; time and names are harmless and left out.
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    // Alibaba.
    Ipv4Addr::new(100, 100, 100, 200),
    // Oracle.
    Ipv4Addr::new(192, 0, 0, 192),
    // Azure's wire server: a public address that only Azure routes.
    Ipv4Addr::new(168, 63, 129, 16),
];

const METADATA_V6: &[Ipv6Addr] = &[
    // AWS.
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    // Google.
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    // OpenStack.
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// The address that is reached by connecting to this one.
pub fn reached(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => embedded(v6).map_or(address, IpAddr::V4),
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match [a, b, c, d, e, f] {
        // Compatible (::a.b.c.d); :: and ::1 are addresses of their own.
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => Some(v4(g, h)),
        // Mapped, and translated as RFC 2765 has it.
        [0, 0, 0, 0, 0, 0xffff] | [0, 0, 0, 0, 0xffff, 0] => Some(v4(g, h)),
        // NAT64.
        [0x64, 0xff9b, 0, 0, 0, 0] => Some(v4(g, h)),
        // 6to4: what is outside of the packet is the IPv4 address.
        [0x2002, high, low, ..] => Some(v4(high, low)),
        _ => None,
    }
}

/// What kind of address is reached by connecting to this one.
pub fn reach(address: IpAddr) -> Reach {
    match reached(address) {
        IpAddr::V4(v4) => reach_v4(v4),
        IpAddr::V6(v6) => reach_v6(v6),
    }
}

fn reach_v4(address: Ipv4Addr) -> Reach {
    if METADATA_V4.contains(&address) {
        return Reach::Metadata;
    }
    match address.octets() {
        [0, 0, 0, 0] => Reach::Nowhere,
        [127, ..] => Reach::Guarded(Block::Loopback),
        [169, 254, ..] => Reach::Guarded(Block::LinkLocal),
        [255, 255, 255, 255] => Reach::Guarded(Block::Broadcast),
        [224..=239, ..] => Reach::Guarded(Block::Multicast),
        [0 | 10 | 240..=255, ..]
        | [100, 64..=127, ..]
        | [172, 16..=31, ..]
        | [192, 168, ..]
        // Protocol assignments, documentation, the relay of 6to4, benchmarks.
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 18..=19, ..]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Local,
        _ => Reach::Public,
    }
}

fn reach_v6(address: Ipv6Addr) -> Reach {
    if METADATA_V6.contains(&address) {
        return Reach::Metadata;
    }
    if address.is_unspecified() {
        return Reach::Nowhere;
    }
    if address.is_loopback() {
        return Reach::Guarded(Block::Loopback);
    }
    match address.segments() {
        [0xfe80..=0xfebf, ..] => Reach::Guarded(Block::LinkLocal),
        [0xff00..=0xffff, ..] => Reach::Guarded(Block::Multicast),
        // Of 2000::/3, without protocol assignments (Teredo among them) and documentation.
        [0x2001, 0x0000..=0x01ff | 0x0db8, ..] | [0x3fff, 0x0000..=0x0fff, ..] => Reach::Local,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Local,
    }
}

/// Whether an address may be connected to under a rule with these networks, where a rule without
/// any means public addresses.
pub fn permits(networks: &[Cidr], address: IpAddr) -> bool {
    if networks.is_empty() {
        return reach(address) == Reach::Public;
    }
    permits_listed(networks, address)
}

/// Whether an address may be connected to under a rule that means these networks alone.
pub fn permits_listed(networks: &[Cidr], address: IpAddr) -> bool {
    let reached = reached(address);
    let mut covering = networks.iter().filter(|network| network.contains(reached));
    match reach(address) {
        Reach::Public | Reach::Local => covering.next().is_some(),
        Reach::Guarded(block) => covering.any(|network| lies_in(network, block)),
        Reach::Metadata => covering.any(|network| *network == alone(reached)),
        Reach::Nowhere => false,
    }
}

fn lies_in(network: &Cidr, block: Block) -> bool {
    block
        .networks()
        .iter()
        .filter_map(|outer| outer.parse().ok())
        .any(|outer| network.is_within(&outer))
}

fn alone(address: IpAddr) -> Cidr {
    let length = if address.is_ipv4() { 32 } else { 128 };
    format!("{address}/{length}")
        .parse()
        .expect("an address and its full length are a network")
}

#[cfg(test)]
mod tests;
