//! An address as a plugin gives it, read so that nobody can read it differently.
//!
//! Most ways around a check of addresses are two readers of one text: a backslash that one takes
//! for a slash, a name behind `@`, a tab that one drops, `0x7f.1` that is a name here and
//! 127.0.0.1 there. So this reader is its own and knows little. What it accepts every reader
//! accepts with the same meaning (a test holds it against the one that browsers use); the rest is
//! refused instead of repaired:
//!
//! * ASCII only, no blanks, controls or backslashes, `%` only before two hexadecimal digits;
//! * `http` or `https` and `//`, no user information, no fragment;
//! * a host that is an IPv6 address in brackets (without a zone), something that anybody reads as
//!   an IPv4 address (`127.1`, `0177.0.0.1`, `0x7f000001`, `2130706433`: canonicalised here, then
//!   judged as an address), or a DNS name;
//! * names outside of ASCII come as `xn--…` already: mapping them is a table that changes from
//!   year to year, and then the grant and the request would name different hosts;
//! * no dot at a name's end. `example.com.` is the same name to DNS and another one to
//!   certificates and virtual hosts.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest address, in bytes.
const MAX_URL: usize = 8 << 10;

/// Why an address is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Longer than 8 KiB.
    #[error("the URL is longer than 8 KiB")]
    TooLong,
    /// Something that is not allowed in an URL.
    #[error("the URL contains a character that must be percent-encoded")]
    Character,
    /// Neither `http` nor `https`.
    #[error("the URL does not begin with https:// or http://")]
    Scheme,
    /// `user@`.
    #[error("the URL contains user information; use a credential")]
    UserInfo,
    /// `#…`.
    #[error("the URL contains a fragment")]
    Fragment,
    /// Not a host.
    #[error("the URL's host is neither a DNS name nor an address")]
    Host,
    /// A dot at the end of the name.
    #[error("the URL's host ends with a dot")]
    TrailingDot,
    /// Not a port.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
}

/// How the server is spoken with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// The port when none is given.
    pub fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    /// As in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A host, in the one form that is compared and connected to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Host {
    /// In lower case.
    Name(String),
    /// An address.
    Address(IpAddr),
}

impl Host {
    /// Reads a host as it stands in an URL: an IPv6 address in brackets.
    pub fn parse(text: &str) -> Result<Self, InvalidUrl> {
        if let Some(inner) = text.strip_prefix('[') {
            let address: Ipv6Addr = inner
                .strip_suffix(']')
                .and_then(|inner| inner.parse().ok())
                .ok_or(InvalidUrl::Host)?;
            return Ok(Self::Address(address.into()));
        }
        if text.ends_with('.') {
            return Err(InvalidUrl::TrailingDot);
        }
        let last = text.rsplit('.').next().unwrap_or_default();
        if is_numeric(last) {
            return address_v4(text)
                .map(|address| Self::Address(address.into()))
                .ok_or(InvalidUrl::Host);
        }
        if !is_name(text) {
            return Err(InvalidUrl::Host);
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

impl fmt::Display for Host {
    /// As in a grant: without brackets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// An address, read.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// How.
    pub scheme: Scheme,
    /// Whom.
    pub host: Host,
    /// Where.
    pub port: u16,
    /// Begins with `/`.
    pub path: String,
    /// What stands behind `?`.
    pub query: Option<String>,
}

impl fmt::Debug for Target {
    /// Path and query may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/…", self.scheme.as_str(), self.authority())
    }
}

impl Target {
    /// Reads an URL.
    pub fn parse(url: &str) -> Result<Self, InvalidUrl> {
        if url.len() > MAX_URL {
            return Err(InvalidUrl::TooLong);
        }
        if url.contains('#') {
            return Err(InvalidUrl::Fragment);
        }
        if !characters_hold(url) {
            return Err(InvalidUrl::Character);
        }
        let (scheme, rest) = url.split_once("://").ok_or(InvalidUrl::Scheme)?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            _ => return Err(InvalidUrl::Scheme),
        };
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err(InvalidUrl::UserInfo);
        }
        let (host, port) = split_port(authority)?;
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest, None),
        };
        Ok(Self {
            scheme,
            host: Host::parse(host)?,
            port: port.unwrap_or(scheme.port()),
            path: if path.is_empty() { "/" } else { path }.to_owned(),
            query,
        })
    }

    /// `host:port` as in the `Host` header: the scheme's own port is left out.
    pub fn authority(&self) -> String {
        let host = match &self.host {
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(IpAddr::V4(_)) | Host::Name(_) => self.host.to_string(),
        };
        if self.port == self.scheme.port() {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }
}

/// `host:port` or `[v6]:port`, as in the address of a datagram's receiver.
pub fn endpoint(text: &str) -> Result<(Host, u16), InvalidUrl> {
    if text.len() > 300 || !characters_hold(text) || text.contains('@') {
        return Err(InvalidUrl::Host);
    }
    let (host, port) = split_port(text)?;
    Ok((Host::parse(host)?, port.ok_or(InvalidUrl::Port)?))
}

fn split_port(authority: &str) -> Result<(&str, Option<u16>), InvalidUrl> {
    let colon = match authority.rfind(']') {
        Some(bracket) => authority[bracket..].find(':').map(|at| bracket + at),
        None if authority.starts_with('[') => return Err(InvalidUrl::Host),
        None => authority.find(':'),
    };
    let Some(colon) = colon else {
        return Ok((authority, None));
    };
    let digits = &authority[colon + 1..];
    let plain =
        !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match digits.parse() {
        Ok(port) if plain && port != 0 => Ok((&authority[..colon], Some(port))),
        _ => Err(InvalidUrl::Port),
    }
}

fn characters_hold(url: &str) -> bool {
    let bytes = url.as_bytes();
    bytes.iter().enumerate().all(|(at, byte)| match byte {
        b'%' => bytes
            .get(at + 1..at + 3)
            .is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit)),
        b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => false,
        other => other.is_ascii_graphic(),
    })
}

/// Whether some resolvers read a host with this last label as an address.
fn is_numeric(label: &str) -> bool {
    let hex = label
        .strip_prefix("0x")
        .or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Reads an IPv4 address in any of the forms of `inet_aton`.
fn address_v4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    if *last >= 256_u64.pow(4 - u32::try_from(first.len()).ok()?) {
        return None;
    }
    let high = first
        .iter()
        .zip([24, 16, 8])
        .fold(0, |sum, (part, shift)| sum | part << shift);
    u32::try_from(high | last).ok().map(Ipv4Addr::from_bits)
}

fn number(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let (digits, radix) = match hex {
        // `0x` alone is zero to those who read it at all; nobody means it.
        Some(digits) => (digits, 16),
        None if text.len() > 1 && text.starts_with('0') => (&text[1..], 8),
        None => (text, 10),
    };
    if digits.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    u64::from_str_radix(digits, radix).ok()
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                // Underscores are no host names by the book, and common in networks of one's own.
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= 253 && text.split('.').all(label)
}

#[cfg(test)]
mod tests;
