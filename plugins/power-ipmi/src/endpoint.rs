//! Where a controller is: `name`, `10.0.0.7:623`, `fd00::7` or `[fd00::7]:623`.

use std::net::Ipv6Addr;

use loopback_plugin_sdk::Error;

/// Where controllers listen.
const PORT: u16 = 623;

/// As the gateway wants it: `host:port` or `[v6]:port`. Whether the name is one, the gateway
/// judges.
pub(crate) fn read(address: &str) -> Result<String, Error> {
    let wrong = || {
        Error::invalid(
            "target.address",
            "must be a name or an address, with `:port` if it is not 623",
        )
        .detail("address", address)
    };
    let bare: Option<Ipv6Addr> = address.parse().ok();
    if bare.is_some() {
        return Ok(format!("[{address}]:{PORT}"));
    }
    let plain = |text: &str| {
        let part = |c: char| c.is_ascii_graphic() && !"/@?#%".contains(c);
        !text.is_empty() && text.chars().all(part)
    };
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (inner, rest) = rest.split_once(']').ok_or_else(wrong)?;
            let inner: Ipv6Addr = inner.parse().map_err(|_| wrong())?;
            let port = match rest {
                "" => None,
                rest => Some(rest.strip_prefix(':').ok_or_else(wrong)?),
            };
            (format!("[{inner}]"), port)
        }
        None => match address.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (address.to_owned(), None),
        },
    };
    if !plain(&host) {
        return Err(wrong());
    }
    let port = match port {
        None => PORT,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)?,
        Some(_) => return Err(wrong()),
    };
    Ok(format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_623_unless_said() {
        for (address, endpoint) in [
            ("bmc-7.example", Some("bmc-7.example:623")),
            ("10.0.0.7", Some("10.0.0.7:623")),
            ("10.0.0.7:1623", Some("10.0.0.7:1623")),
            ("fd00::7", Some("[fd00::7]:623")),
            ("[fd00::7]", Some("[fd00::7]:623")),
            ("[fd00::7]:1623", Some("[fd00::7]:1623")),
            ("", None),
            (":623", None),
            ("bmc:", None),
            ("bmc:0", None),
            ("bmc:+1", None),
            ("bmc:70000", None),
            ("[fd00::7", None),
            ("[fd00::7]1", None),
            ("[bmc]:623", None),
            ("https://bmc.example", None),
            ("user@bmc.example", None),
            ("bmc example", None),
        ] {
            let read = read(address);
            assert_eq!(read.ok().as_deref(), endpoint, "{address}");
        }
    }
}
