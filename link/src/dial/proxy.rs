//! HTTP proxies: which one to use for whom, and getting it to connect.
//!
//! The variables are those that curl and its kin read, in either case:
//! `HTTPS_PROXY`, else `ALL_PROXY`, else `HTTP_PROXY`, and `NO_PROXY`. The last resort
//! goes beyond the convention because machines with only `HTTP_PROXY` set are common
//! and their proxies usually connect to port 443 as well.
//!
//! Only `http://` proxies: one that wants TLS for itself would need its certificate
//! judged before it gets the password, by authorities that this program has none of.

use std::fmt;
use std::net::IpAddr;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::error::Reason;
use super::target::Target;

/// Longest head of a proxy's answer.
const MAX_ANSWER: usize = 16 << 10;
/// A proxy without a port in its URL: what curl takes.
const DEFAULT_PORT: u16 = 1080;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    target: Target,
    /// `user:password`.
    credentials: Option<Zeroizing<String>>,
}

/// A proxy and whom it is not for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRules {
    proxy: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// Why a proxy's URL cannot be used. The URL is not in the text: it may hold a
/// password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Another kind of proxy.
    #[error("proxy scheme `{0}` is not supported; use http://host:port")]
    Scheme(String),
    /// Not `http://[user:password@]host[:port]`.
    #[error("not a proxy's url; write it as http://user:password@proxy.example.com:3128")]
    Url,
    /// From the environment.
    #[error("read the proxy in {variable}")]
    Variable {
        /// The variable's name.
        variable: &'static str,
        /// What is wrong.
        #[source]
        source: Box<ProxyError>,
    },
}

impl ProxyRules {
    /// No proxy.
    pub const DIRECT: Self = Self {
        proxy: None,
        exceptions: Vec::new(),
    };

    /// `proxy` for everybody but `no_proxy`, which is written as `NO_PROXY` is.
    pub fn new(proxy: Proxy, no_proxy: &str) -> Self {
        let exceptions = no_proxy
            .split([',', ' '])
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(Exception::parse)
            .collect();
        Self {
            proxy: Some(proxy),
            exceptions,
        }
    }

    /// The rules in the environment that `lookup` reads. An empty variable is no
    /// variable.
    pub fn from_env(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ProxyError> {
        let read = |names: [&'static str; 2]| {
            names.into_iter().find_map(|name| {
                lookup(name)
                    .filter(|value| !value.trim().is_empty())
                    .map(|value| (name, value))
            })
        };
        let Some((variable, url)) = read(["HTTPS_PROXY", "https_proxy"])
            .or_else(|| read(["ALL_PROXY", "all_proxy"]))
            .or_else(|| read(["HTTP_PROXY", "http_proxy"]))
        else {
            return Ok(Self::DIRECT);
        };
        let proxy = Proxy::parse(url.trim()).map_err(|source| ProxyError::Variable {
            variable,
            source: Box::new(source),
        })?;
        let exceptions = read(["NO_PROXY", "no_proxy"]).map(|(_, value)| value);
        Ok(Self::new(proxy, &exceptions.unwrap_or_default()))
    }

    /// The proxy to use for `target`, if any.
    pub fn for_target(&self, target: &Target) -> Option<&Proxy> {
        let spared = self
            .exceptions
            .iter()
            .any(|exception| exception.covers(target));
        self.proxy.as_ref().filter(|_| !spared)
    }
}

/// One entry of `NO_PROXY`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    /// The name itself and everything below it; a leading dot means the same.
    Domain {
        name: String,
        port: Option<u16>,
    },
    Network {
        address: IpAddr,
        bits: u8,
    },
}

impl Exception {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        let (address, bits) = match entry.split_once('/') {
            Some((address, bits)) => (address, bits.parse().ok()),
            None => (
                entry.trim_start_matches('[').trim_end_matches(']'),
                Some(128),
            ),
        };
        if let (Ok(address), Some(bits)) = (address.parse::<IpAddr>(), bits) {
            return Self::Network { address, bits };
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) => (name, port.parse().ok()),
            None => (entry, None),
        };
        let name = name
            .trim_start_matches('*')
            .trim_start_matches('.')
            .to_ascii_lowercase();
        Self::Domain { name, port }
    }

    fn covers(&self, target: &Target) -> bool {
        match self {
            Self::All => true,
            Self::Network { address, bits } => target
                .ip()
                .is_some_and(|ip| same_network(ip, *address, *bits)),
            Self::Domain { name, port } => {
                let below = target.host().strip_suffix(name.as_str());
                below.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                    && !name.is_empty()
                    && port.is_none_or(|port| port == target.port())
            }
        }
    }
}

fn same_network(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let (one, other, width) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => {
            (u128::from(one.to_bits()), u128::from(other.to_bits()), 32)
        }
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits(), 128),
        _ => return false,
    };
    let below = width - u32::from(bits).min(width);
    // A shift by the whole width of the type has no result: all addresses are equal.
    one.checked_shr(below) == other.checked_shr(below)
}

impl Proxy {
    /// Reads `[http://][user:password@]host[:port][/]`; user and password may be
    /// percent-encoded.
    pub fn parse(url: &str) -> Result<Self, ProxyError> {
        let rest = match url.split_once("://") {
            None => url,
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) => {
                return Err(ProxyError::Scheme(scheme.escape_default().to_string()));
            }
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (credentials, authority) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user_info, authority)) => (Some(decode_percent(user_info)?), authority),
        };
        let target = Target::parse(authority, DEFAULT_PORT).map_err(|_| ProxyError::Url)?;
        Ok(Self {
            target,
            credentials,
        })
    }

    /// Where the proxy listens.
    pub fn target(&self) -> &Target {
        &self.target
    }
}

impl fmt::Debug for Proxy {
    /// Hides user and password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy")
            .field("target", &self.target)
            .field("credentials", &self.credentials.is_some())
            .finish()
    }
}

fn decode_percent(text: &str) -> Result<Zeroizing<String>, ProxyError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match (first, tail) {
            (b'%', [high, low, tail @ ..]) => {
                let digits = [high.to_ascii_lowercase(), low.to_ascii_lowercase()];
                let byte = data_encoding::HEXLOWER
                    .decode(&digits)
                    .map_err(|_| ProxyError::Url)?;
                (byte[0], tail)
            }
            (b'%', _) => return Err(ProxyError::Url),
            (byte, tail) => (*byte, tail),
        };
        bytes.push(byte);
        rest = tail;
    }
    str::from_utf8(&bytes)
        .map(|text| Zeroizing::new(text.to_owned()))
        .map_err(|_| ProxyError::Url)
}

/// Has the proxy at the other end of `stream` connect to `target`. Without a time
/// limit of its own.
pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    proxy: &Proxy,
    target: &Target,
) -> Result<(), Reason> {
    let mut request = Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: loopback-agent\r\n"
    ));
    if let Some(credentials) = &proxy.credentials {
        let encoded = Zeroizing::new(data_encoding::BASE64.encode(credentials.as_bytes()));
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&encoded);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(Reason::Io)?;
    stream.flush().await.map_err(Reason::Io)?;

    let head = read_head(stream).await?;
    let (status, line) = status_of(&head).ok_or(Reason::NotHttp)?;
    match status {
        200..=299 => Ok(()),
        407 if proxy.credentials.is_some() => Err(Reason::ProxyAuthRefused),
        407 => Err(Reason::ProxyAuthMissing),
        _ => Err(Reason::ProxyRefused(line)),
    }
}

/// Reads up to the empty line. Nothing may follow it: after a yes the next word is
/// ours, and of a no only the head is of interest.
async fn read_head<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Vec<u8>, Reason> {
    const START: &[u8] = b"HTTP/1.";
    let mut head = Vec::new();
    loop {
        // Byte by byte is slow and happens once per dial; it is what keeps the first
        // bytes of the tunnel in the stream.
        let byte = stream.read_u8().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof if head.is_empty() => Reason::Io(error),
            std::io::ErrorKind::UnexpectedEof => Reason::NotHttp,
            _ => Reason::Io(error),
        })?;
        head.push(byte);
        let compared = head.len().min(START.len());
        if head[..compared] != START[..compared] || head.len() > MAX_ANSWER {
            return Err(Reason::NotHttp);
        }
        if head.ends_with(b"\r\n\r\n") || head.ends_with(b"\n\n") {
            return Ok(head);
        }
    }
}

/// The status and its line, cleaned for printing.
fn status_of(head: &[u8]) -> Option<(u16, String)> {
    let line = head.split(|&byte| byte == b'\n').next()?;
    let line = printable(&String::from_utf8_lossy(line.get(b"HTTP/1.x ".len()..)?));
    let status = line.get(..3)?.parse().ok()?;
    Some((status, line))
}

/// What a stranger wrote, fit for a log line.
pub(super) fn printable(text: &str) -> String {
    text.trim()
        .chars()
        .filter(|letter| !letter.is_control())
        .take(120)
        .collect()
}

#[cfg(test)]
mod tests;
