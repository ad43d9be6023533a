//! Where to dial: a name or address and a port.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use rustls_pki_types::ServerName;

/// A host and a port. Its host is safe to put into a request: letters, digits, `.`,
/// `-`, `_` of a name, or an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    host: String,
    port: u16,
}

/// The text names no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a gateway's address; write it as gateway.example.com:443")]
pub struct NotATarget(String);

impl Target {
    /// `host` is a DNS name or an address; brackets around an IPv6 address are fine.
    pub fn new(host: &str, port: u16) -> Result<Self, NotATarget> {
        let plain = host
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .unwrap_or(host);
        let named = ServerName::try_from(plain).is_ok() && plain.is_ascii();
        if named && port != 0 {
            Ok(Self {
                host: plain.to_ascii_lowercase(),
                port,
            })
        } else {
            Err(NotATarget(host.escape_default().to_string()))
        }
    }

    /// Reads `https://host[:port][/]` or `host[:port]`; without a port it is
    /// `default_port`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, NotATarget> {
        let refuse = || NotATarget(text.escape_default().to_string());
        let authority = text.strip_prefix("https://").unwrap_or(text);
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        // A bare IPv6 address has more than one colon and no port.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port))
                if authority.parse::<Ipv6Addr>().is_err() && !port.ends_with(']') =>
            {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                (
                    host,
                    port.parse().ok().filter(|_| digits).ok_or_else(refuse)?,
                )
            }
            _ => (authority, default_port),
        };
        if host.contains(':') && !host.starts_with('[') && authority.parse::<Ipv6Addr>().is_err() {
            return Err(refuse());
        }
        Self::new(host, port).map_err(|_| refuse())
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, when no name needs resolving.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    pub(super) fn server_name(&self) -> Option<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).ok()
    }
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Target {
    type Err = NotATarget;

    /// [`Target::parse`] with HTTPS' port.
    fn from_str(text: &str) -> Result<Self, NotATarget> {
        Self::parse(text, 443)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_spellings_are_read() {
        for (text, expected) in [
            ("gateway.example.com", "gateway.example.com:443"),
            ("Gateway.Example.com:8443", "gateway.example.com:8443"),
            ("https://gateway.example.com/", "gateway.example.com:443"),
            ("https://10.0.0.1:8443", "10.0.0.1:8443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
            ("[2001:db8::1]", "[2001:db8::1]:443"),
            ("2001:db8::1", "[2001:db8::1]:443"),
            ("localhost:1", "localhost:1"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), expected);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            ":443",
            "gateway:",
            "gateway:0",
            "gateway:65536",
            "gateway:+1",
            "http://gateway",
            "gateway/path",
            "gate way",
            "gateway\r\nX-Header: 1",
            "user@gateway",
            "a:b:1",
            "gätewäy",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?} was accepted");
        }
    }
}
