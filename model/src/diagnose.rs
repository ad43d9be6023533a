//! What a host shows of itself when it is diagnosed: sections with fixed names, each a
//! JSON document of a type in here, or text.
//!
//! The names are the only ones there are: they become paths of the API and files of a
//! bundle, so nothing that a host says ever names a file. The types are what agents
//! write and command lines read. Every field may be absent and unknown ones are
//! skipped, because hosts and command lines are of different versions.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Most bytes of one section, as the host sends it.
pub const MAX_SECTION: usize = 4 << 20;
/// Most bytes of all sections of one diagnosis.
pub const MAX_TOTAL: usize = 32 << 20;
/// Most lines of a journal that may be asked for.
pub const MAX_LINES: u32 = 10_000;
/// Most places that a host is asked to reach at once.
pub const MAX_TARGETS: usize = 16;

macro_rules! sections {
    ($($(#[$doc:meta])* $variant:ident $name:literal $file:literal,)*) => {
        /// One section, in the order in which they are gathered: quick ones first, so
        /// that something is there when a host is too ill for the others.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum Section {
            $($(#[$doc])* $variant,)*
        }

        impl Section {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            /// Its file in a bundle.
            pub fn file(self) -> &'static str {
                match self { $(Self::$variant => $file),* }
            }
        }
    };
}

sections! {
    /// Operating system, uptime, load, memory, clocks: [`SystemView`].
    System "system" "system.json",
    /// Processes: [`Processes`].
    Processes "processes" "processes.json",
    /// Mounted file systems: [`Disks`].
    Disks "disks" "disks.json",
    /// Sockets and whose they are: [`Sockets`].
    Sockets "sockets" "sockets.json",
    /// Units of the service manager: [`Units`].
    Units "units" "units.json",
    /// The agent about itself: [`AgentView`].
    Agent "agent" "agent.json",
    /// Addresses, routes, and whether places can be reached: [`Network`].
    Network "network" "network.json",
    /// The kernel's latest messages, text.
    Kernel "kernel" "kernel.txt",
    /// The journal's latest lines, text.
    Journal "journal" "journal.txt",
}

impl Section {
    /// Whether it is text rather than JSON.
    pub fn is_text(self) -> bool {
        matches!(self, Self::Kernel | Self::Journal)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// There is no such section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no section `{0}`; there are system, processes, disks, sockets, units, agent, network, kernel, journal"
)]
pub struct NoSuchSection(String);

impl FromStr for Section {
    type Err = NoSuchSection;

    fn from_str(text: &str) -> Result<Self, NoSuchSection> {
        let found = Self::ALL.iter().copied().find(|it| it.as_str() == text);
        found.ok_or_else(|| NoSuchSection(crate::names::clean(text, 64)))
    }
}

/// How a section came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is all there.
    Ok,
    /// What is there is right, and something is missing; the reason says what.
    Partial,
    /// There is nothing; the reason says why.
    Failed,
}

impl Outcome {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }
}

/// Whether `text` can be the name of a unit, which ends up as an argument of the
/// service manager's own tools.
pub fn is_unit_name(text: &str) -> bool {
    (1..=256).contains(&text.len())
        && !text.starts_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte))
}

/// Host and port of `text`, if it has the form `host:port` or `[address]:port`.
pub fn target(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let bare = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let good = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        }
    };
    let port = port.parse().ok().filter(|port| *port > 0)?;
    good.then_some((bare.unwrap_or(host), port))
}

macro_rules! views {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(default)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $kind,)*
        }
    )*};
}

views! {
    /// `system.json`.
    SystemView {
        /// The host's own name for itself.
        hostname: String,
        /// Distribution.
        os: String,
        /// Kernel release.
        kernel: String,
        /// Processor architecture.
        arch: String,
        /// The kernel's name of this boot.
        boot_id: String,
        /// Logical processors.
        cpus: u32,
        /// Seconds since boot.
        uptime_secs: u64,
        /// Runnable or stuck processes over 1, 5 and 15 minutes.
        load: Vec<f64>,
        /// Memory.
        memory: Memory,
        /// What the kernel says of time lost waiting, by `cpu`, `memory`, `io`.
        pressure: Vec<Pressure>,
        /// The host's clock, UTC.
        time: String,
        /// The host's clock minus the gateway's, as of the link's beginning.
        clock_offset_ms: Option<i64>,
    }
    /// Memory, in bytes.
    Memory {
        /// All there is.
        total: u64,
        /// Used by nothing.
        free: u64,
        /// Could be had without swapping.
        available: u64,
        /// Swap there is.
        swap_total: u64,
        /// Swap used by nothing.
        swap_free: u64,
    }
    /// A line of the kernel's pressure files.
    Pressure {
        /// `cpu`, `memory` or `io`.
        of: String,
        /// `some` or `full`.
        kind: String,
        /// Percent of the last 10 seconds that was lost.
        avg10: f64,
        /// Of the last 60.
        avg60: f64,
        /// Of the last 300.
        avg300: f64,
    }
    /// `processes.json`.
    Processes {
        /// Each of them, by id.
        processes: Vec<Process>,
        /// Processes that had no room.
        omitted: u64,
    }
    /// One process. Its environment is never read.
    Process {
        /// Its id.
        pid: u32,
        /// Its parent's.
        ppid: u32,
        /// Effective user id.
        uid: u32,
        /// `R` runs, `S` sleeps, `D` is stuck in the kernel, `T` is stopped, `Z` is dead...
        state: String,
        /// Name of its program, at most 15 bytes.
        name: String,
        /// Arguments, with what looks secret masked. Empty for threads of the kernel.
        args: Vec<String>,
        /// Threads.
        threads: u32,
        /// Memory that it holds.
        rss_bytes: u64,
        /// Processor time that it has used.
        cpu_ms: u64,
        /// How long it has run.
        age_secs: u64,
        /// Where in the kernel it waits, if it is stuck.
        waits_in: String,
        /// Its control group.
        cgroup: String,
    }
    /// `disks.json`.
    Disks {
        /// Each mounted file system.
        disks: Vec<DiskView>,
        /// Mounts that had no room.
        omitted: u64,
    }
    /// One mounted file system.
    DiskView {
        /// Where it is mounted.
        mount: String,
        /// What is mounted.
        source: String,
        /// Type of file system.
        kind: String,
        /// Mounted read-only.
        read_only: bool,
        /// Size.
        size_bytes: u64,
        /// Free for root.
        free_bytes: u64,
        /// Free for others.
        available_bytes: u64,
        /// Files it can hold; zero where that is no limit.
        inodes: u64,
        /// Files it could still hold.
        inodes_free: u64,
        /// Why its size is not known: the system did not answer, or said no.
        trouble: String,
    }
    /// `sockets.json`.
    Sockets {
        /// Each of them, those that listen first.
        sockets: Vec<Socket>,
        /// Sockets that had no room.
        omitted: u64,
    }
    /// One socket.
    Socket {
        /// `tcp`, `udp`, `unix`.
        protocol: String,
        /// Its own address, or path.
        local: String,
        /// The other end's.
        remote: String,
        /// `listen`, `established`...
        state: String,
        /// Whose it is.
        uid: u32,
        /// The kernel's number for it.
        inode: u64,
        /// Bytes that wait to be sent.
        send_queue: u64,
        /// Bytes, or connections, that wait to be taken.
        receive_queue: u64,
        /// A process that has it, where that may be known.
        pid: Option<u32>,
        /// That process' name.
        process: String,
    }
    /// `units.json`.
    Units {
        /// What the service manager says of itself: `running`, `degraded`...
        manager: String,
        /// Units, those that failed first.
        units: Vec<Unit>,
        /// More about the unit that was asked for, and about those that failed.
        details: Vec<UnitDetails>,
        /// Units that had no room.
        omitted: u64,
    }
    /// One unit.
    Unit {
        /// Its name.
        name: String,
        /// `loaded`, `not-found`...
        load: String,
        /// `active`, `failed`...
        active: String,
        /// `running`, `exited`...
        sub: String,
        /// What it is.
        description: String,
    }
    /// More about one unit.
    UnitDetails {
        /// Its name.
        name: String,
        /// The service manager's properties of it. Never its environment.
        properties: std::collections::BTreeMap<String, String>,
        /// Its latest lines in the journal.
        journal: Vec<String>,
    }
    /// `network.json`.
    Network {
        /// Interfaces.
        interfaces: Vec<Interface>,
        /// Addresses.
        addresses: Vec<String>,
        /// Routes.
        routes: Vec<Route>,
        /// Whom it asks for names.
        nameservers: Vec<String>,
        /// The way to the gateway, step by step, as `loopback-agent doctor` sees it.
        gateway: Vec<NetworkCheck>,
        /// Other places that were asked for.
        targets: Vec<NetworkCheck>,
    }
    /// One interface.
    Interface {
        /// Its name.
        name: String,
        /// `up`, `down`, `unknown`...
        state: String,
        /// Bytes taken.
        received_bytes: u64,
        /// Bytes sent.
        sent_bytes: u64,
        /// Packets taken with errors or dropped.
        receive_errors: u64,
        /// Packets not sent for errors or dropped.
        send_errors: u64,
    }
    /// One route.
    Route {
        /// Where it leads: `default`, or a network.
        to: String,
        /// Through whom; empty for neighbours.
        via: String,
        /// Over which interface.
        interface: String,
        /// The smaller wins.
        metric: u32,
    }
    /// Whether something on the network works.
    NetworkCheck {
        /// What was tried.
        name: String,
        /// `ok`, `warn`, `fail` or `skip`.
        outcome: String,
        /// What was seen.
        what: String,
        /// What to do.
        advice: String,
    }
    /// `agent.json`.
    AgentView {
        /// Its version.
        version: String,
        /// Its report, as `loopback-agent status --json` prints it.
        status: Option<AgentStatus>,
        /// Its configuration, without secrets.
        config: std::collections::BTreeMap<String, String>,
        /// Files in its state folder: names and sizes.
        state_files: Vec<StateFile>,
        /// Its latest log lines.
        log: Vec<String>,
        /// What could not be found out.
        troubles: Vec<String>,
    }
    /// The parts of the agent's report that do not change from version to version.
    AgentStatus {
        /// `linked`, `connecting`...
        state: String,
        /// The same in a sentence.
        summary: String,
        /// Its process.
        pid: u32,
        /// Since when it runs.
        started_at: String,
        /// The gateway.
        gateway: String,
        /// `udp` or `websocket`, and through what, while linked.
        link: String,
        /// Latest troubles.
        troubles: Vec<String>,
        /// What a person should look at.
        warnings: Vec<String>,
    }
    /// A file of the agent's.
    StateFile {
        /// Its name.
        name: String,
        /// Its size.
        bytes: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_parse_back_and_travel_as_they_are_written() {
        for section in Section::ALL {
            assert_eq!(section.as_str().parse::<Section>().unwrap(), *section);
            let json = serde_json::to_string(section).unwrap();
            assert_eq!(json, format!("\"{section}\""));
            let ending = if section.is_text() { "txt" } else { "json" };
            assert_eq!(section.file(), format!("{section}.{ending}"));
        }
        let why = "../etc".parse::<Section>().unwrap_err().to_string();
        for section in Section::ALL {
            assert!(why.contains(section.as_str()), "{why}");
        }
    }

    #[test]
    fn what_is_no_unit_and_no_place_is_refused() {
        for good in [
            "ssh.service",
            "user@1000.service",
            "dev-sda1.device",
            "a\\x2db.mount",
        ] {
            assert!(is_unit_name(good), "{good}");
        }
        for bad in ["", "--all", "a b", "a/b", "a\n", "a;b"] {
            assert!(!is_unit_name(bad), "{bad}");
        }
        assert_eq!(target("db.example:5432"), Some(("db.example", 5432)));
        assert_eq!(target("[::1]:22"), Some(("::1", 22)));
        for bad in ["", "x", "x:0", "x:99999", ":1", "a b:1", "[x]:1", "::1:22"] {
            assert_eq!(target(bad), None, "{bad}");
        }
    }
}
