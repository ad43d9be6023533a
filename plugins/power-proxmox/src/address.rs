//! Where a machine is: `https://pve.example:8006/nodes/NODE/qemu/100`, or `lxc`.

use loopback_plugin_sdk::Error;
use loopback_plugin_sdk::power::Target;

/// What runs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Qemu,
    Lxc,
}

impl Kind {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Lxc => "lxc",
        }
    }
}

/// A machine at a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Machine {
    /// As in `https://pve.example:8006`.
    pub(crate) server: String,
    pub(crate) node: String,
    pub(crate) kind: Kind,
    pub(crate) id: u32,
}

impl Machine {
    pub(crate) fn of(target: &Target) -> Result<Self, Error> {
        Self::read(&target.address).ok_or_else(|| {
            let message = "must be as in https://pve.example:8006/nodes/NODE/qemu/100, or lxc";
            Error::invalid("target.address", message).detail("address", &target.address)
        })
    }

    fn read(address: &str) -> Option<Self> {
        let (scheme, rest) = address.split_once("://")?;
        let (authority, path) = rest.split_once('/')?;
        let server = server(&format!("{scheme}://{authority}"))?;
        let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let [nodes, node, kind, id] = parts[..] else {
            return None;
        };
        let kind = match kind {
            "qemu" => Kind::Qemu,
            "lxc" => Kind::Lxc,
            _ => return None,
        };
        let digits = id.bytes().all(|byte| byte.is_ascii_digit()) && !id.starts_with('0');
        let fits = nodes == "nodes" && is_node(node) && digits;
        Some(Self {
            server,
            node: node.to_owned(),
            kind,
            id: fits.then(|| id.parse().ok()).flatten()?,
        })
    }

    /// Beneath the API.
    pub(crate) fn url(&self, rest: &str) -> String {
        let (node, kind, id) = (&self.node, self.kind.word(), self.id);
        format!("{}/api2/json/nodes/{node}/{kind}/{id}/{rest}", self.server)
    }
}

/// A server without anything behind it; what is sent to a server goes into a header with a token,
/// so nothing that could be read in two ways is taken.
pub(crate) fn server(text: &str) -> Option<String> {
    let (scheme, authority) = text.trim_end_matches('/').split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    let fits = matches!(scheme, "https" | "http") && !authority.is_empty();
    (fits && authority.chars().all(plain)).then(|| format!("{scheme}://{authority}"))
}

/// Names of nodes are those of hosts.
pub(crate) fn is_node(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_names_server_node_and_machine() {
        let read = Machine::read("https://pve.example:8006/nodes/pve-1/qemu/100").unwrap();
        assert_eq!(
            read.url("status/current"),
            "https://pve.example:8006/api2/json/nodes/pve-1/qemu/100/status/current"
        );
        let read = Machine::read("https://[fd00::1]:8006/nodes/a/lxc/101/").unwrap();
        assert_eq!((read.kind, read.id), (Kind::Lxc, 101));
        for bad in [
            "",
            "pve.example/nodes/a/qemu/100",
            "ftp://pve.example/nodes/a/qemu/100",
            "https:///nodes/a/qemu/100",
            "https://u:p@pve.example/nodes/a/qemu/100",
            "https://pve.example/nodes/../qemu/100",
            "https://pve.example/nodes/a/qemu/0100",
            "https://pve.example/nodes/a/qemu/100?x",
            "https://pve.example/nodes/a/qemu/+100",
            "https://pve.example/nodes/a/qemu/99999999999",
            "https://pve.example/nodes/a/docker/100",
            "https://pve.example/nodes/a/qemu",
            "https://pve.example/nodes/a/qemu/100/status",
            "https://pve.example",
        ] {
            assert_eq!(Machine::read(bad), None, "{bad}");
        }
    }
}
