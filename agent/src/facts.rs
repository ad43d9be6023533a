//! Reading the facts of this host: files only, no commands, nothing that can hang on
//! a network. What they mean is `agent_core::facts`.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use agent_core::exporter::Exporter;
use agent_core::facts::{Clues, Readings, assemble, mounts};
use agent_core::io::FactsDigest;
use model::facts::{Disk, Facts};
use prost::Message;
use protocol::v1;
use ring::digest::{SHA256, digest};
use rustix::fs::statvfs;

/// `/proc/cpuinfo` of a large machine has a few hundred KiB; no fact is further in.
const MAX_TEXT: u64 = 256 << 10;
/// Interfaces that are looked at: a host of containers has thousands.
const MAX_CARDS: usize = 256;

/// The facts read last.
#[derive(Debug, Default)]
pub struct FactsReader {
    last: Option<Facts>,
    wire: v1::Facts,
    digest: FactsDigest,
}

impl FactsReader {
    /// Reads them anew, with the names of these exporters.
    pub fn read(&mut self, exporters: &[Exporter]) -> FactsDigest {
        let readings = Readings {
            exporters: exporters.iter().map(|it| it.name().to_owned()).collect(),
            ..readings()
        };
        let facts = assemble(&readings, crate::VERSION, crate::ARCH, self.last.as_ref());
        if self.last.as_ref() != Some(&facts) {
            self.wire = facts.clone().into();
            self.digest
                .copy_from_slice(digest(&SHA256, &self.wire.encode_to_vec()).as_ref());
            self.last = Some(facts);
        }
        self.digest
    }

    /// The facts read last, for sending.
    pub fn wire(&self) -> &v1::Facts {
        &self.wire
    }

    /// SHA-256 of what is sent.
    pub fn digest(&self) -> FactsDigest {
        self.digest
    }
}

/// The name of this boot. In a container it is the container's, which only PID 1 sees:
/// a unit's sandbox (`ProtectKernelTunables`) mounts the kernel's own file over it, so
/// the unit passes on what systemd knows.
pub fn boot_id() -> String {
    let told = std::env::var("LOOPBACK_BOOT_ID").ok();
    let told = told.as_deref().and_then(dashed);
    told.unwrap_or_else(|| text("/proc/sys/kernel/random/boot_id").trim().to_owned())
}

/// systemd's spelling of a boot id, 32 hex digits, in the kernel's.
fn dashed(hex: &str) -> Option<String> {
    let good = hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    good.then(|| {
        [
            &hex[..8],
            &hex[8..12],
            &hex[12..16],
            &hex[16..20],
            &hex[20..],
        ]
        .join("-")
    })
}

fn readings() -> Readings {
    Readings {
        hostname: text("/proc/sys/kernel/hostname"),
        os_release: first_of(&["/etc/os-release", "/usr/lib/os-release"]),
        kernel: text("/proc/sys/kernel/osrelease"),
        cpuinfo: text("/proc/cpuinfo"),
        cpus_online: text("/sys/devices/system/cpu/online"),
        meminfo: text("/proc/meminfo"),
        stat: stat(),
        fib_trie: text("/proc/net/fib_trie"),
        if_inet6: text("/proc/net/if_inet6"),
        machine_id: first_of(&["/etc/machine-id", "/var/lib/dbus/machine-id"]),
        clues: clues(),
        disks: disks(),
        exporters: Vec::new(),
        cards: cards(),
        serial: text("/sys/class/dmi/id/product_serial"),
        system_uuid: text("/sys/class/dmi/id/product_uuid"),
        asset_tag: text("/sys/class/dmi/id/board_asset_tag"),
    }
}

/// Hardware addresses, and whether each is of an interface that the kernel made up.
fn cards() -> Vec<(String, bool)> {
    let Ok(folder) = std::fs::read_dir("/sys/class/net") else {
        return Vec::new();
    };
    let cards = folder.flatten().take(MAX_CARDS).map(|entry| {
        let path = entry.path();
        let leads_to = std::fs::read_link(&path).unwrap_or_default();
        let is_virtual = leads_to
            .components()
            .any(|part| part.as_os_str() == "virtual");
        (text(&path.join("address").to_string_lossy()), is_virtual)
    });
    cards.collect()
}

fn clues() -> Clues {
    let there = |path: &str| Path::new(path).exists();
    Clues {
        systemd_container: text("/run/systemd/container"),
        dockerenv: there("/.dockerenv"),
        containerenv: there("/run/.containerenv"),
        dmi_vendor: text("/sys/class/dmi/id/sys_vendor"),
        dmi_product: text("/sys/class/dmi/id/product_name"),
        hypervisor_type: text("/sys/hypervisor/type"),
        device_tree: text("/proc/device-tree/hypervisor/compatible"),
        dmi_present: there("/sys/class/dmi/id/sys_vendor"),
    }
}

fn disks() -> Vec<Disk> {
    mounts(&text("/proc/self/mountinfo"))
        .into_iter()
        .filter_map(|mount| {
            let size = statvfs(mount.path.as_str()).ok()?;
            Some(Disk {
                mount: mount.path,
                kind: mount.kind,
                size_bytes: size.f_blocks.saturating_mul(size.f_frsize),
                free_bytes: size.f_bavail.saturating_mul(size.f_frsize),
            })
        })
        .collect()
}

/// `btime` stands near the end, after a line per processor and a long one of
/// interrupts; the other lines are not needed.
fn stat() -> String {
    let whole = text("/proc/stat");
    whole
        .lines()
        .find(|line| line.starts_with("btime "))
        .unwrap_or_default()
        .to_owned()
}

fn first_of(paths: &[&str]) -> String {
    paths
        .iter()
        .map(|path| text(path))
        .find(|text| !text.is_empty())
        .unwrap_or_default()
}

/// What the file holds, as far as it is text; nothing when it cannot be read.
fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is good enough for a fact.
        let _ = file.take(MAX_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_facts_and_they_stay_the_same() {
        let mut reader = FactsReader::default();
        let first = reader.read(&[]);
        assert_eq!(reader.read(&[]), first);
        let facts = reader.wire();
        assert_eq!(facts.os, "linux");
        assert_eq!(facts.agent_version, crate::VERSION);
        assert!(!facts.hostname.is_empty() && !facts.kernel.is_empty());
        assert!(facts.cpus > 0 && facts.memory_bytes > 0 && facts.booted_at_secs > 0);
        assert_eq!(boot_id().len(), 36);
    }
}
