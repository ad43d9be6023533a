//! What a host measures, in Prometheus' text form.
//!
//! The edge reads files into [`Readings`] when somebody asks, and [`exposition`] turns
//! them into text; nothing is sampled in between, so an agent that nobody asks costs
//! nothing. Names and labels are those of node_exporter: dashboards and alerts that
//! people have go on working. What node_exporter has and this has not is what needs
//! more than a read of a small file; a host that wants it runs the real one, and the
//! agent passes it on (`exporter`).
//!
//! Parsers never fail. A file that is absent gives no series; one that makes no sense
//! gives `node_scrape_collector_success` 0, so that a gap is told from a zero.
//! [`system`] is what the kernel counts, [`devices`] what it counts per device,
//! [`units`] what systemd knows.

mod devices;
mod system;
mod text;
pub mod units;

#[cfg(test)]
mod tests;

use self::text::{Kind, Text};

/// Texts of files, as they are; empty when absent.
#[derive(Clone, Debug, Default)]
pub struct Readings {
    /// `/proc/stat`.
    pub stat: String,
    /// `/proc/meminfo`.
    pub meminfo: String,
    /// `/proc/diskstats`.
    pub diskstats: String,
    /// `/proc/net/dev`.
    pub net_dev: String,
    /// `/proc/loadavg`.
    pub loadavg: String,
    /// `/proc/uptime`.
    pub uptime: String,
    /// `/proc/vmstat`.
    pub vmstat: String,
    /// `/proc/sys/fs/file-nr`.
    pub file_nr: String,
    /// `/proc/pressure/cpu`.
    pub pressure_cpu: String,
    /// `/proc/pressure/io`.
    pub pressure_io: String,
    /// `/proc/pressure/memory`.
    pub pressure_memory: String,
    /// Disks, with what the kernel says of them.
    pub disks: Vec<Disk>,
    /// Failed units: `None` where nobody can be asked.
    pub failed_units: Option<Result<Vec<String>, units::NotAnswered>>,
    /// What `uname` says.
    pub uname: Uname,
    /// Ticks of `/proc/stat` in a second.
    pub ticks_per_second: u64,
    /// The host's clock, milliseconds since the epoch.
    pub now_ms: i64,
    /// Version of the agent.
    pub agent_version: String,
}

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// What is mounted.
    pub device: String,
    /// Type of file system.
    pub kind: String,
    /// Where.
    pub mount: String,
    /// Its numbers; `None` when the kernel does not answer.
    pub space: Option<Space>,
}

/// How full a file system is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    /// Bytes in all.
    pub size: u64,
    /// Bytes that are free.
    pub free: u64,
    /// Bytes that are free for users other than root.
    pub available: u64,
    /// Files that it can hold.
    pub files: u64,
    /// Files that it can still hold.
    pub files_free: u64,
}

/// What `uname` says.
#[derive(Clone, Debug, Default)]
pub struct Uname {
    /// `Linux`.
    pub sysname: String,
    /// The hostname.
    pub nodename: String,
    /// Kernel release.
    pub release: String,
    /// Kernel version.
    pub version: String,
    /// Architecture.
    pub machine: String,
    /// NIS domain.
    pub domainname: String,
}

/// The text.
pub fn exposition(readings: &Readings) -> String {
    let mut text = Text::default();
    let collectors = [
        ("cpu", system::cpu(&mut text, readings)),
        ("loadavg", system::load(&mut text, readings)),
        ("meminfo", system::memory(&mut text, readings)),
        ("vmstat", system::vmstat(&mut text, readings)),
        ("pressure", system::pressure(&mut text, readings)),
        ("filefd", system::open_files(&mut text, readings)),
        ("filesystem", devices::file_systems(&mut text, readings)),
        ("diskstats", devices::disks(&mut text, readings)),
        ("netdev", devices::network(&mut text, readings)),
        ("systemd", units::failed(&mut text, readings)),
    ];
    system::identity(&mut text, readings);
    let mut success = text.family(
        "node_scrape_collector_success",
        "Whether a part of the samples could be taken.",
        Kind::Gauge,
    );
    for (collector, outcome) in collectors {
        match outcome {
            Outcome::Absent => {}
            Outcome::Taken => success.sample(&[("collector", collector)], 1),
            Outcome::Senseless => success.sample(&[("collector", collector)], 0),
        }
    }
    text.finish()
}

/// What became of one part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// This host has no such thing.
    Absent,
    /// There is.
    Taken,
    /// There is, and it makes no sense.
    Senseless,
}

impl Outcome {
    /// Of a `source` in which `found` samples were found.
    fn of(source: &str, found: usize) -> Self {
        match (source.is_empty(), found) {
            (true, _) => Self::Absent,
            (false, 0) => Self::Senseless,
            (false, _) => Self::Taken,
        }
    }
}
