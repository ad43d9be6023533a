//! What may be reached through this host, and what a request for it asks.
//!
//! Two must agree, and neither trusts the other: the operator who granted a plugin its rules,
//! which come with the request, and the host's owner, whose configuration says what may be
//! reached through the host at all. The gateway has held the request against the grant; the host
//! does so again, because it alone knows which addresses a name has in its network. Without a
//! configuration nothing is reached, whatever a gateway says.
//!
//! The port is judged before a name is resolved: a look-up is itself a message to somebody.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use model::plugin::wake::{Mac, WAKE};
use model::plugin::{Cidr, reach};
use protocol::v1::{ForwardRefusal, ForwardRequest, ForwardTarget, forward_request::Kind};

/// Most networks, and most ports, of a configuration or a rule.
pub const MOST: usize = 256;
/// Most rules that come with a request.
const MOST_RULES: usize = 64;
/// Longest name of a host.
const MOST_LETTERS: usize = 253;

/// What the host's owner allows. The default is: nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    networks: Vec<Cidr>,
    ports: Vec<u16>,
}

/// Why a configuration allows nothing that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotAllow {
    /// Not a network.
    Network(String),
    /// Port 0.
    Port,
    /// One list without the other.
    Half,
    /// More than anybody reads.
    TooMany,
}

impl fmt::Display for NotAllow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(text) => write!(
                f,
                "`{text}` is no network; write an address and a length without bits behind it, as \
                 10.9.0.0/16, or a single address as 10.9.0.7/32"
            ),
            Self::Port => f.write_str("a port is 1 to 65535"),
            Self::Half => {
                f.write_str("name networks and ports: one without the other allows nothing")
            }
            Self::TooMany => write!(f, "at most {MOST} networks and {MOST} ports"),
        }
    }
}

impl std::error::Error for NotAllow {}

impl Allow {
    /// These networks at these ports.
    pub fn new(networks: &[String], ports: &[u16]) -> Result<Self, NotAllow> {
        if networks.len() > MOST || ports.len() > MOST {
            return Err(NotAllow::TooMany);
        }
        if networks.is_empty() != ports.is_empty() {
            return Err(NotAllow::Half);
        }
        if ports.contains(&0) {
            return Err(NotAllow::Port);
        }
        let network = |text: &String| {
            let parsed = text.parse();
            parsed.map_err(|_| NotAllow::Network(model::names::clean(text, 64)))
        };
        Ok(Self {
            networks: networks.iter().map(network).collect::<Result<_, _>>()?,
            ports: ports.to_vec(),
        })
    }

    /// Whether nothing is allowed.
    pub fn is_nothing(&self) -> bool {
        self.networks.is_empty()
    }
}

/// Why there is no way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What kind of reason.
    pub reason: ForwardRefusal,
    /// In words.
    pub message: String,
}

impl Refused {
    /// For this reason.
    pub fn new(reason: ForwardRefusal, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { reason, message }
    }
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A TCP connection.
    Tcp,
    /// A UDP socket.
    Udp,
    /// A packet that wakes a machine.
    Wake(Mac),
}

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is wanted.
    pub what: What,
    /// With whom: a name or an address.
    pub host: String,
    /// Where.
    pub port: u16,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    networks: Vec<Cidr>,
    ports: Vec<u16>,
}

impl Wanted {
    /// Reads a request.
    pub fn read(request: &ForwardRequest) -> Result<Self, Refused> {
        let malformed = |message: &str| Refused::new(ForwardRefusal::Malformed, message);
        let (what, host, port) = match &request.kind {
            None => return Err(malformed("this host does not know what is asked of it")),
            Some(Kind::Tcp(target)) => (What::Tcp, host_of(target), target.port),
            Some(Kind::Udp(target)) => (What::Udp, host_of(target), target.port),
            Some(Kind::Wake(wake)) => {
                let mac = Mac::new(&wake.mac).ok_or_else(|| malformed("no hardware address"))?;
                let host = Some(WAKE.ip().to_string());
                (What::Wake(mac), host, WAKE.port().into())
            }
        };
        let host = host.ok_or_else(|| malformed("neither a name nor an address"))?;
        let port = port_of(port).ok_or_else(|| malformed("a port is 1 to 65535"))?;
        if request.rules.len() > MOST_RULES {
            return Err(malformed("too many rules"));
        }
        // A rule that is not understood permits nothing, and which part of it was meant is not
        // for a host to guess.
        let rule = |rule: &protocol::v1::ForwardRule| {
            if rule.networks.len() > MOST || rule.ports.len() > MOST {
                return None;
            }
            let networks = rule.networks.iter().map(|text| text.parse().ok());
            let ports = rule.ports.iter().map(|port| port_of(*port));
            Some(Rule {
                networks: networks.collect::<Option<_>>()?,
                ports: ports.collect::<Option<_>>()?,
            })
        };
        let rules: Option<Vec<_>> = request.rules.iter().map(rule).collect();
        Ok(Self {
            what,
            host,
            port,
            rules: rules.ok_or_else(|| malformed("a rule makes no sense"))?,
        })
    }

    /// Holds the port against both sides.
    pub fn check_port(&self, allow: &Allow) -> Result<(), Refused> {
        if allow.is_nothing() {
            let message = "this host's agent forwards nothing: its configuration has no [forward]";
            return Err(Refused::new(ForwardRefusal::NotAllowed, message));
        }
        if !allow.ports.contains(&self.port) {
            let message = format!(
                "this host's configuration does not allow port {} in [forward]",
                self.port
            );
            return Err(Refused::new(ForwardRefusal::NotAllowed, message));
        }
        if !self
            .rules
            .iter()
            .any(|rule| rule.ports.contains(&self.port))
        {
            let message = format!("no rule of the grant has port {}", self.port);
            return Err(Refused::new(ForwardRefusal::NotGranted, message));
        }
        Ok(())
    }

    /// Those of the host's addresses that both sides permit: the only ones to be used. The port
    /// has been judged.
    pub fn judge(&self, allow: &Allow, addresses: &[IpAddr]) -> Result<Vec<SocketAddr>, Refused> {
        let Some(first) = addresses.first() else {
            let message = format!("the name {} has no address there", self.host);
            return Err(Refused::new(ForwardRefusal::NotResolved, message));
        };
        let granted: Vec<IpAddr> = addresses
            .iter()
            .copied()
            .filter(|address| self.grants(*address))
            .collect();
        let Some(first_granted) = granted.first() else {
            let kind = reach::reach(*first).as_str();
            let message = format!(
                "{} leads to {kind} address there ({first}), which no network of the grant's rule covers",
                self.host
            );
            return Err(Refused::new(ForwardRefusal::NotGranted, message));
        };
        let permitted: Vec<_> = granted
            .iter()
            .filter(|address| reach::permits_listed(&allow.networks, **address))
            .map(|address| SocketAddr::new(*address, self.port))
            .collect();
        if permitted.is_empty() {
            let kind = reach::reach(*first_granted).as_str();
            let message = format!(
                "{} leads to {kind} address there ({first_granted}), which the host's configuration does not \
                 allow in [forward]",
                self.host
            );
            return Err(Refused::new(ForwardRefusal::NotAllowed, message));
        }
        Ok(permitted)
    }

    fn grants(&self, address: IpAddr) -> bool {
        self.rules.iter().any(|rule| {
            rule.ports.contains(&self.port)
                && match self.what {
                    // As the gateway judges requests that leave from itself: what is spoken over
                    // UDP is spoken with devices of one's own.
                    What::Tcp => reach::permits(&rule.networks, address),
                    What::Udp | What::Wake(_) => reach::permits_listed(&rule.networks, address),
                }
        })
    }
}

fn host_of(target: &ForwardTarget) -> Option<String> {
    let host = &target.host;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let name = (1..=MOST_LETTERS).contains(&host.len()) && host.bytes().all(letter);
    (name || host.parse::<IpAddr>().is_ok()).then(|| host.clone())
}

fn port_of(port: u32) -> Option<u16> {
    u16::try_from(port).ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests;
