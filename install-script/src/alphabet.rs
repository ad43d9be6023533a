//! The alphabet of each setting. Everything is ASCII and allow-listed: quotes,
//! `$`, backquotes, backslashes, control characters and look-alikes from
//! elsewhere in Unicode are outside without being named.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::InstallRefused;

/// A text that may stand between single quotes in a shell script. Only this
/// file makes them, each by one of the checks below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quotable<'a>(&'a str);

impl<'a> Quotable<'a> {
    pub(super) const EMPTY: Quotable<'static> = Quotable("");

    pub(super) fn as_str(self) -> &'a str {
        self.0
    }

    pub(super) fn flag(value: bool) -> Quotable<'static> {
        Quotable(if value { "true" } else { "false" })
    }
}

pub(super) fn refused(field: &'static str, rule: &'static str) -> InstallRefused {
    InstallRefused::Field { field, rule }
}

/// The gateway's URL and, for the preflight, the host in it without brackets.
pub(super) fn base_url(text: &str) -> Result<(Quotable<'_>, Quotable<'_>), InstallRefused> {
    let rule = "https://host[:port] without a path: lower-case name, IPv4 or [IPv6]; http:// only to loopback";
    let bad = || refused("base_url", rule);
    let (scheme, authority) = text.split_once("://").ok_or_else(bad)?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            host.parse::<Ipv6Addr>().map_err(|_| bad())?;
            // Some addresses have a form with letters outside the alphabet's case.
            check(host, 45, |b| b.is_ascii_hexdigit() || b":.".contains(&b)).ok_or_else(bad)?;
            let port = if rest.is_empty() {
                None
            } else {
                Some(rest.strip_prefix(':').ok_or_else(bad)?)
            };
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if !authority.starts_with('[') && !is_host_name(host) {
        return Err(bad());
    }
    if let Some(port) = port {
        let digits = check(port, 5, |b| b.is_ascii_digit()).ok_or_else(bad)?;
        if digits.starts_with('0') || digits.parse::<u16>().is_err() {
            return Err(bad());
        }
    }
    match scheme {
        "https" => {}
        "http" if is_loopback(host) => {}
        _ => return Err(bad()),
    }
    Ok((Quotable(text), Quotable(host)))
}

/// Labels as in RFC 1123; an IPv4 address is of the same shape.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        check(label, 63, |b| {
            b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'
        })
        .is_some()
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = host.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    host.len() <= 253
        && host.split('.').all(label)
        && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

pub(super) fn channel(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    match text {
        "stable" | "unstable" => Ok(Quotable(text)),
        _ => Err(refused("channel", "stable or unstable")),
    }
}

/// Where the gateway serves an installer.
pub(super) fn path(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    check(text, 128, |b| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b"/._-".contains(&b)
    })
    .filter(|text| text.starts_with("/v1/") && text.ends_with("/install.sh"))
    .filter(|text| !text.contains("//") && !text.contains("/."))
    .map(Quotable)
    .ok_or(refused(
        "script_path",
        "1 to 128 of a-z 0-9 / . _ -, from /v1/ to /install.sh, without empty parts",
    ))
}

pub(super) fn version(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    check(text, 64, |b| {
        b.is_ascii_alphanumeric() || b".-".contains(&b)
    })
    .filter(|text| text.starts_with(|first: char| first.is_ascii_digit()))
    .map(Quotable)
    .ok_or(refused(
        "version",
        "1 to 64 of A-Z a-z 0-9 . -, beginning with a digit",
    ))
}

pub(super) fn arch(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    check(text, 16, |b| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'
    })
    .map(Quotable)
    .ok_or(refused("binaries.arch", "1 to 16 of a-z 0-9 _"))
}

/// Also a component of a URL and of paths, so it is never `.`, `..` or an option.
pub(super) fn file_name(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    check(text, 64, |b| {
        b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)
    })
    .filter(|text| text.starts_with(|first: char| first.is_ascii_lowercase()))
    .map(Quotable)
    .ok_or(refused(
        "binaries.name",
        "1 to 64 of a-z 0-9 . _ -, beginning with a letter",
    ))
}

pub(super) fn sha256(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    check(text, 64, |b| {
        b.is_ascii_digit() || (b'a'..=b'f').contains(&b)
    })
    .filter(|text| text.len() == 64)
    .map(Quotable)
    .ok_or(refused("binaries.sha256", "64 lower-case hex digits"))
}

/// The same limit as a release's manifest.
pub(super) fn file_size(size: u64) -> Result<u64, InstallRefused> {
    if (1..=512 << 20).contains(&size) {
        Ok(size)
    } else {
        Err(refused("binaries.size", "between 1 byte and 512 MiB"))
    }
}

/// One pin, although curl takes several: the script is rendered when it is
/// asked for, so the key of that moment is enough.
pub(super) fn https_pin(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    text.strip_prefix("sha256//")
        .and_then(|hash| hash.strip_suffix('='))
        .filter(|hash| hash.len() == 43 && hash.bytes().all(is_base64))
        .map(|_| Quotable(text))
        .ok_or(refused("https_pin", "sha256//BASE64"))
}

/// One key per line.
pub(super) fn release_keys(keys: &[&str]) -> Result<Joined, InstallRefused> {
    let key = |key: &&str| {
        let mut parts = key.split(':');
        parts.next() == Some("loopback-release-1")
            && parts.next().is_some_and(|id| {
                id.len() == 16
                    && id
                        .bytes()
                        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
            })
            && parts
                .next()
                .and_then(|key| key.strip_suffix('='))
                .is_some_and(|key| key.len() == 43 && key.bytes().all(is_base64))
            && parts.next().is_none()
    };
    if (1..=4).contains(&keys.len()) && keys.iter().all(key) {
        Ok(Joined(keys.join("\n")))
    } else {
        Err(refused(
            "release_keys",
            "one to four of loopback-release-1:ID:KEY",
        ))
    }
}

/// A quotable text that was put together here: checked lines, or a number.
pub(super) struct Joined(String);

impl Joined {
    pub(super) fn number(number: u64) -> Self {
        Self(number.to_string())
    }

    pub(super) fn as_quotable(&self) -> Quotable<'_> {
        Quotable(&self.0)
    }
}

/// Certificates only: a private key that strays in here would be published. The
/// last newline is left out, whoever writes the file adds it.
pub(super) fn ca_pem(text: &str) -> Result<Quotable<'_>, InstallRefused> {
    let bad = || {
        refused(
            "ca_pem",
            "one to eight CERTIFICATE blocks in PEM, nothing around them, at most 32 KiB",
        )
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    if text.len() > 32 << 10 {
        return Err(bad());
    }
    let (mut blocks, mut inside, mut body) = (0, false, 0);
    for line in text.split('\n') {
        match line {
            "-----BEGIN CERTIFICATE-----" if !inside => {
                (inside, body, blocks) = (true, 0, blocks + 1);
            }
            "-----END CERTIFICATE-----" if inside && body > 0 => inside = false,
            _ if inside => {
                check(line, 64, |b| is_base64(b) || b == b'=').ok_or_else(bad)?;
                body += 1;
            }
            _ => return Err(bad()),
        }
    }
    if inside || !(1..=8).contains(&blocks) {
        Err(bad())
    } else {
        Ok(Quotable(text))
    }
}

/// The text when it has 1 to `max` bytes, all of the alphabet.
fn check(text: &str, max: usize, alphabet: impl Fn(u8) -> bool) -> Option<&str> {
    ((1..=max).contains(&text.len()) && text.bytes().all(alphabet)).then_some(text)
}

fn is_base64(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+/".contains(&byte)
}
