//! What an agent says about its host. Facts describe; they never identify: a
//! machine id is copied with the disk, a MAC appears with a VPN, and both are
//! shared inside containers. The host's key is its identity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::clean;

/// One report of facts. Every text has been through [`Facts::cleaned`] before
/// it is stored or shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Facts {
    /// The host's own name for itself.
    pub hostname: String,
    /// `linux`.
    pub os: String,
    /// Pretty name of the distribution.
    pub os_version: String,
    /// Kernel release.
    pub kernel: String,
    /// `x86_64`, `aarch64`.
    pub arch: String,
    /// Addresses of the host's interfaces, without loopback and link-local.
    pub addresses: Vec<String>,
    /// Logical processors.
    pub cpus: u32,
    /// Model of the first processor.
    pub cpu_model: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Mounted disks.
    pub disks: Vec<Disk>,
    /// `none`, `kvm`, `lxc`, ... or empty when unknown.
    pub virtualization: String,
    /// `/etc/machine-id`: a fact, never a key.
    pub machine_id: String,
    /// The agent's version.
    pub agent_version: String,
    /// When the host booted, by its own clock, seconds since the epoch.
    pub booted_at_secs: i64,
    /// Names of the exporters on the host that its metrics can be scraped from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exporters: Vec<String>,
    /// Hardware addresses of the network cards, `aa:bb:cc:dd:ee:ff`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub macs: Vec<String>,
    /// Serial number of the machine, as its firmware tells it. Some clouds put the machine's id here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// UUID of the machine, as its firmware tells it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system_uuid: String,
    /// Asset tag of the board or chassis. Some clouds put the machine's id here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub asset_tag: String,
}

/// One mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// Type of file system.
    pub kind: String,
    /// Size in bytes.
    pub size_bytes: u64,
    /// Free for unprivileged users, in bytes.
    pub free_bytes: u64,
}

const SHORT: usize = 128;
const MANY: usize = 64;

/// Most exporters of one host.
pub const MAX_EXPORTERS: usize = 16;

/// What the agent's own samples are called where exporters have names. No exporter is
/// called so.
pub const OWN_EXPORTER: &str = "agent";

/// Whether this can be the name of an exporter: 1 to 64 of `a-z`, `0-9`, `_` and `-`,
/// beginning with a letter or digit. Names stand in URLs and labels.
pub fn is_exporter_name(name: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name != OWN_EXPORTER
        && (1..=64).contains(&name.len())
        && name.bytes().all(|byte| word(byte) || b"_-".contains(&byte))
        && name.as_bytes().first().copied().is_some_and(word)
}

impl Facts {
    /// The same facts, bounded and harmless to print.
    pub fn cleaned(mut self) -> Self {
        for text in [
            &mut self.hostname,
            &mut self.os,
            &mut self.os_version,
            &mut self.kernel,
            &mut self.arch,
            &mut self.cpu_model,
            &mut self.virtualization,
            &mut self.machine_id,
            &mut self.agent_version,
            &mut self.serial,
            &mut self.system_uuid,
            &mut self.asset_tag,
        ] {
            *text = clean(text, SHORT);
        }
        self.exporters.retain(|name| is_exporter_name(name));
        self.exporters.truncate(MAX_EXPORTERS);
        self.exporters.shrink_to_fit();
        self.macs.truncate(MANY);
        self.macs.shrink_to_fit();
        for mac in &mut self.macs {
            *mac = clean(mac, SHORT);
        }
        self.addresses.truncate(MANY);
        self.disks.truncate(MANY);
        // Half a million empty entries fit into one frame; what held them must go, too.
        self.addresses.shrink_to_fit();
        self.disks.shrink_to_fit();
        for address in &mut self.addresses {
            *address = clean(address, SHORT);
        }
        for disk in &mut self.disks {
            disk.mount = clean(&disk.mount, SHORT);
            disk.kind = clean(&disk.kind, SHORT);
        }
        self
    }
}
