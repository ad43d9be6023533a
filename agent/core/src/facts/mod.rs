//! What a host is, from what its kernel says.
//!
//! The edge reads files into [`Readings`], one text each, absent ones empty; the
//! parsers here turn them into facts. They never fail: a text that is not
//! understood gives an empty fact, because a host with an odd `/proc` is still a
//! host. Everything that comes out has been through [`Facts::cleaned`], so a kernel,
//! a container runtime or a user who owns the mount points cannot smuggle terminal
//! escapes into a log.
//!
//! Facts are sent when their digest changes. What changes all the time is therefore
//! made coarse: free space is rounded down to twentieths of the disk, and the boot
//! time, which the kernel derives from a clock that is being adjusted, keeps its
//! last value until it moves by more than a minute.

mod cpu;
mod disks;
mod network;
mod system;
mod virtualization;

use model::facts::{Disk, Facts};

pub use disks::{Mount, mounts};
pub use network::addresses;
pub use virtualization::Clues;

/// Texts of files, as they are; empty when absent.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// `/proc/sys/kernel/hostname`.
    pub hostname: String,
    /// `/etc/os-release`.
    pub os_release: String,
    /// `/proc/sys/kernel/osrelease`.
    pub kernel: String,
    /// `/proc/cpuinfo`.
    pub cpuinfo: String,
    /// `/sys/devices/system/cpu/online`.
    pub cpus_online: String,
    /// `/proc/meminfo`.
    pub meminfo: String,
    /// `/proc/stat`.
    pub stat: String,
    /// `/proc/net/fib_trie`.
    pub fib_trie: String,
    /// `/proc/net/if_inet6`.
    pub if_inet6: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// What hints at virtualization.
    pub clues: Clues,
    /// Disks, with their sizes asked from the kernel.
    pub disks: Vec<Disk>,
    /// Names of the exporters that are configured.
    pub exporters: Vec<String>,
    /// `address` and whether it is virtual, of each interface.
    pub cards: Vec<(String, bool)>,
    /// `/sys/class/dmi/id/product_serial`.
    pub serial: String,
    /// `/sys/class/dmi/id/product_uuid`.
    pub system_uuid: String,
    /// `/sys/class/dmi/id/board_asset_tag`.
    pub asset_tag: String,
}

/// The facts in `readings`, of an agent of this `agent_version` built for `arch`;
/// `previous` are the facts of the last reading, if there was one.
pub fn assemble(
    readings: &Readings,
    agent_version: &str,
    arch: &str,
    previous: Option<&Facts>,
) -> Facts {
    let cpus =
        cpu::count(&readings.cpus_online).or_else(|| cpu::count_of_cpuinfo(&readings.cpuinfo));
    Facts {
        hostname: first_line(&readings.hostname).to_owned(),
        os: "linux".to_owned(),
        os_version: system::os_name(&readings.os_release),
        kernel: first_line(&readings.kernel).to_owned(),
        arch: arch.to_owned(),
        addresses: addresses(&readings.fib_trie, &readings.if_inet6),
        cpus: cpus.unwrap_or(0),
        cpu_model: cpu::model(&readings.cpuinfo),
        memory_bytes: system::memory(&readings.meminfo).unwrap_or(0),
        disks: readings.disks.iter().cloned().map(disks::coarse).collect(),
        virtualization: virtualization::name(&readings.clues, &readings.cpuinfo).to_owned(),
        machine_id: system::machine_id(&readings.machine_id).to_owned(),
        agent_version: agent_version.to_owned(),
        booted_at_secs: boot_time(&readings.stat, previous),
        exporters: readings.exporters.clone(),
        macs: system::macs(&readings.cards),
        serial: system::firmware_text(&readings.serial).to_owned(),
        system_uuid: system::firmware_text(&readings.system_uuid).to_owned(),
        asset_tag: system::firmware_text(&readings.asset_tag).to_owned(),
    }
    .cleaned()
}

/// A clock that is being disciplined moves the boot time by seconds; a clock that is
/// set, or a boot, by more.
const BOOT_TIME_JITTER_SECS: u64 = 60;

fn boot_time(stat: &str, previous: Option<&Facts>) -> i64 {
    let read = system::boot_time(stat).unwrap_or(0);
    match previous {
        Some(last) if last.booted_at_secs.abs_diff(read) <= BOOT_TIME_JITTER_SECS => {
            last.booted_at_secs
        }
        _ => read,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests;
