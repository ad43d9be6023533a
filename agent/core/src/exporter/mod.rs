//! Exporters: programs beside the agent that measure, and how they are asked.
//!
//! An exporter is reached over HTTP on this host's own loopback and nowhere else: the
//! agent must not become a way from the gateway into the host's network. That is
//! checked when the configuration is read ([`Exporter::new`]), on addresses, so that no
//! resolver has a say; a redirect is an answer like any other that is not 200.
//!
//! The HTTP that is spoken ([`http`]) is what such a GET needs: one request on one
//! connection, one answer of bounded size. A library would be a tenth of the agent.

pub mod http;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use model::facts::is_exporter_name;

/// Longest URL.
const MAX_URL: usize = 512;

/// One exporter, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exporter {
    name: String,
    host: String,
    addresses: Vec<SocketAddr>,
    target: String,
}

/// Why it cannot be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAnExporter {
    /// The name.
    Name,
    /// Another scheme.
    Scheme,
    /// Not on this host.
    NotLoopback,
    /// No URL otherwise.
    Url,
}

impl fmt::Display for NotAnExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a name has 1 to 64 of a-z, 0-9, `_`, `-`, begins with a letter or digit, and is not `agent`",
            Self::Scheme => "the URL must begin with http://",
            Self::NotLoopback => {
                "only exporters on this host are asked: the URL's host must be localhost, [::1] or an address in 127.0.0.0/8"
            }
            Self::Url => "the URL must be http://HOST[:PORT]/PATH[?QUERY], without user, fragment or blanks",
        })
    }
}

impl std::error::Error for NotAnExporter {}

impl Exporter {
    /// The exporter `name` at `url`.
    pub fn new(name: &str, url: &str) -> Result<Self, NotAnExporter> {
        if !is_exporter_name(name) {
            return Err(NotAnExporter::Name);
        }
        let rest = url.strip_prefix("http://").ok_or(NotAnExporter::Scheme)?;
        let plain = |byte: u8| byte.is_ascii_graphic() && !b"#\"<>\\^`{|}".contains(&byte);
        if url.len() > MAX_URL || !rest.bytes().all(plain) {
            return Err(NotAnExporter::Url);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(NotAnExporter::Url);
        }
        let (host, port) = split_port(authority)?;
        let target = match path.as_bytes().first() {
            Some(b'/') => path.to_owned(),
            _ => format!("/{path}"),
        };
        Ok(Self {
            name: name.to_owned(),
            host: authority.to_owned(),
            addresses: addresses(host)?
                .into_iter()
                .map(|address| SocketAddr::new(address, port))
                .collect(),
            target,
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens: the first of these that takes a connection.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// For the field `Host`.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Path and query.
    pub fn target(&self) -> &str {
        &self.target
    }
}

/// `127.0.0.1:9100`, `[::1]`, `localhost:80`.
fn split_port(authority: &str) -> Result<(&str, u16), NotAnExporter> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(NotAnExporter::Url)?;
            match port.strip_prefix(':') {
                Some(port) => (host, port),
                None if port.is_empty() => (host, "80"),
                None => return Err(NotAnExporter::Url),
            }
        }
        None => authority.split_once(':').unwrap_or((authority, "80")),
    };
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = port.parse().ok().filter(|port| digits && *port != 0);
    Ok((host, port.ok_or(NotAnExporter::Url)?))
}

fn addresses(host: &str) -> Result<Vec<IpAddr>, NotAnExporter> {
    if host.eq_ignore_ascii_case("localhost") {
        // What the name means is settled here: a resolver could be made to say otherwise.
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let address: IpAddr = host.parse().map_err(|_| NotAnExporter::NotLoopback)?;
    match address.is_loopback() {
        true => Ok(vec![address]),
        false => Err(NotAnExporter::NotLoopback),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exporters_are_on_this_host() {
        for (url, addresses, target) in [
            (
                "http://127.0.0.1:9100/metrics",
                vec!["127.0.0.1:9100"],
                "/metrics",
            ),
            ("http://127.8.9.1/", vec!["127.8.9.1:80"], "/"),
            ("http://[::1]:9104/m?a=b", vec!["[::1]:9104"], "/m?a=b"),
            ("http://localhost:1", vec!["127.0.0.1:1", "[::1]:1"], "/"),
            ("http://127.0.0.1:1?x=1", vec!["127.0.0.1:1"], "/?x=1"),
        ] {
            let exporter = Exporter::new("node", url).unwrap();
            let found: Vec<_> = exporter
                .addresses()
                .iter()
                .map(ToString::to_string)
                .collect();
            assert_eq!(
                (found, exporter.target()),
                (addresses.iter().map(ToString::to_string).collect(), target),
                "{url}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        use NotAnExporter as E;
        for (url, why) in [
            ("https://127.0.0.1/metrics", E::Scheme),
            ("file:///etc/passwd", E::Scheme),
            ("http://192.0.2.1/metrics", E::NotLoopback),
            ("http://10.0.0.1:9100", E::NotLoopback),
            ("http://0.0.0.0:9100/metrics", E::NotLoopback),
            ("http://169.254.169.254/latest", E::NotLoopback),
            ("http://[::]:9100/", E::NotLoopback),
            ("http://[::ffff:10.0.0.1]/", E::NotLoopback),
            ("http://[::ffff:127.0.0.1]/", E::NotLoopback),
            ("http://2130706433/", E::NotLoopback),
            ("http://127.1/", E::NotLoopback),
            ("http://0x7f.0.0.1/", E::NotLoopback),
            ("http://localhost.example.com/", E::NotLoopback),
            ("http://127.0.0.1@192.0.2.1/", E::Url),
            ("http://127.0.0.1:0/", E::Url),
            ("http://127.0.0.1:+1/", E::Url),
            ("http://127.0.0.1:99999/", E::Url),
            ("http://127.0.0.1:/", E::Url),
            ("http://[::1/", E::Url),
            ("http://[::1]x/", E::Url),
            ("http://127.0.0.1/a b", E::Url),
            ("http://127.0.0.1/a\r\nHost: x", E::Url),
            ("http://127.0.0.1/#x", E::Url),
            ("http:///metrics", E::NotLoopback),
        ] {
            assert_eq!(Exporter::new("node", url), Err(why), "{url}");
        }
        for name in [
            "",
            "-x",
            "agent",
            "Node",
            "a/b",
            "a b",
            "é",
            &"a".repeat(65),
        ] {
            let made = Exporter::new(name, "http://127.0.0.1/");
            assert_eq!(made, Err(E::Name), "{name}");
        }
    }
}
