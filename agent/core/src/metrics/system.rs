//! What the kernel counts for the whole host.

use std::collections::BTreeMap;
use std::str::FromStr;

use super::text::{Kind, Text, ratio};
use super::{Outcome, Readings};

/// Fields of a `cpu` line of `/proc/stat`, in their order.
const MODES: [&str; 8] = [
    "user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal",
];
/// Of the hundreds of `/proc/vmstat`: memory that is short.
const FIELDS: [&str; 7] = [
    "oom_kill",
    "pgfault",
    "pgmajfault",
    "pgpgin",
    "pgpgout",
    "pswpin",
    "pswpout",
];
/// Lines of `/proc/stat` that are one number.
const COUNTS: [(&str, &str, &str, Kind); 6] = [
    (
        "intr",
        "node_intr_total",
        "Interrupts serviced.",
        Kind::Counter,
    ),
    (
        "ctxt",
        "node_context_switches_total",
        "Context switches.",
        Kind::Counter,
    ),
    (
        "btime",
        "node_boot_time_seconds",
        "When the host booted, by its own clock.",
        Kind::Gauge,
    ),
    (
        "processes",
        "node_forks_total",
        "Processes made.",
        Kind::Counter,
    ),
    (
        "procs_running",
        "node_procs_running",
        "Processes that can run.",
        Kind::Gauge,
    ),
    (
        "procs_blocked",
        "node_procs_blocked",
        "Processes that wait for input or output.",
        Kind::Gauge,
    ),
];

pub(super) fn cpu(text: &mut Text, readings: &Readings) -> Outcome {
    let stat = &readings.stat;
    let ticks = readings.ticks_per_second;
    let lines: Vec<_> = stat.lines().filter_map(cpu_line).collect();
    let mut family = text.family(
        "node_cpu_seconds_total",
        "Seconds that processors spent in each mode.",
        Kind::Counter,
    );
    for (cpu, values) in &lines {
        for (mode, value) in MODES.iter().zip(values) {
            family.sample(&[("cpu", cpu), ("mode", mode)], ratio(*value, ticks));
        }
    }
    let mut family = text.family(
        "node_cpu_guest_seconds_total",
        "Seconds that processors spent in virtual machines of this host.",
        Kind::Counter,
    );
    for (cpu, values) in &lines {
        for (mode, value) in ["user", "nice"].iter().zip(values.iter().skip(MODES.len())) {
            family.sample(&[("cpu", cpu), ("mode", mode)], ratio(*value, ticks));
        }
    }
    for (key, name, help, kind) in COUNTS {
        let value = stat.lines().find_map(|line| {
            let (found, rest) = line.split_once(' ')?;
            (found == key).then(|| first::<u64>(rest)).flatten()
        });
        if let Some(value) = value {
            text.one(name, help, kind, value);
        }
    }
    Outcome::of(stat, lines.len())
}

/// `cpu3 1 2 3 ...`; the sum over all, `cpu`, is left to whoever reads.
fn cpu_line(line: &str) -> Option<(&str, Vec<u64>)> {
    let (name, rest) = line.split_once(' ')?;
    let number = name.strip_prefix("cpu")?;
    number.parse::<u32>().ok()?;
    let values: Option<Vec<u64>> = rest.split_whitespace().map(|it| it.parse().ok()).collect();
    Some((number, values.filter(|values| values.len() >= 4)?))
}

pub(super) fn load(text: &mut Text, readings: &Readings) -> Outcome {
    let mut found = 0;
    let names = ["node_load1", "node_load5", "node_load15"];
    let helps = [
        "Load average of 1 minute.",
        "Load average of 5 minutes.",
        "Load average of 15 minutes.",
    ];
    let values = readings.loadavg.split_whitespace().map(decimal);
    for ((name, help), value) in names.into_iter().zip(helps).zip(values) {
        if let Some(value) = value {
            text.one(name, help, Kind::Gauge, value);
            found += 1;
        }
    }
    Outcome::of(&readings.loadavg, found)
}

pub(super) fn memory(text: &mut Text, readings: &Readings) -> Outcome {
    let fields: BTreeMap<_, _> = readings.meminfo.lines().filter_map(memory_line).collect();
    for (name, value) in &fields {
        let help = format!("{name} of /proc/meminfo.");
        text.one(&format!("node_memory_{name}"), &help, Kind::Gauge, value);
    }
    Outcome::of(&readings.meminfo, fields.len())
}

/// `Active(anon):   5 kB` is `Active_anon_bytes`, 5120.
fn memory_line(line: &str) -> Option<(String, u64)> {
    let (name, value) = line.split_once(':')?;
    let name = name.replace('(', "_").replace(')', "");
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(word) {
        return None;
    }
    match value.trim().strip_suffix("kB") {
        Some(kibibytes) => {
            let kibibytes: u64 = kibibytes.trim().parse().ok()?;
            Some((format!("{name}_bytes"), kibibytes.checked_mul(1024)?))
        }
        None => Some((name, value.trim().parse().ok()?)),
    }
}

pub(super) fn vmstat(text: &mut Text, readings: &Readings) -> Outcome {
    let mut found = 0;
    for field in FIELDS {
        let value = readings.vmstat.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == field).then(|| first::<u64>(value)).flatten()
        });
        if let Some(value) = value {
            let help = format!("{field} of /proc/vmstat.");
            text.one(&format!("node_vmstat_{field}"), &help, Kind::Untyped, value);
            found += 1;
        }
    }
    Outcome::of(&readings.vmstat, found)
}

pub(super) fn pressure(text: &mut Text, readings: &Readings) -> Outcome {
    let mut found = 0;
    let rows = [
        (
            &readings.pressure_cpu,
            "some",
            "node_pressure_cpu_waiting_seconds_total",
            "Seconds in which processes waited for a processor.",
        ),
        (
            &readings.pressure_io,
            "some",
            "node_pressure_io_waiting_seconds_total",
            "Seconds in which processes waited for input or output.",
        ),
        (
            &readings.pressure_io,
            "full",
            "node_pressure_io_stalled_seconds_total",
            "Seconds in which no process could go on for input or output.",
        ),
        (
            &readings.pressure_memory,
            "some",
            "node_pressure_memory_waiting_seconds_total",
            "Seconds in which processes waited for memory.",
        ),
        (
            &readings.pressure_memory,
            "full",
            "node_pressure_memory_stalled_seconds_total",
            "Seconds in which no process could go on for memory.",
        ),
    ];
    let mut all = String::new();
    for (source, row, name, help) in rows {
        all.push_str(source);
        let total = source.lines().find_map(|line| {
            let (_, total) = line
                .strip_prefix(row)?
                .strip_prefix(' ')?
                .split_once("total=")?;
            first::<u64>(total)
        });
        if let Some(total) = total {
            text.one(name, help, Kind::Counter, ratio(total, 1_000_000));
            found += 1;
        }
    }
    Outcome::of(&all, found)
}

pub(super) fn open_files(text: &mut Text, readings: &Readings) -> Outcome {
    let mut values = readings.file_nr.split_whitespace();
    let allocated = values.next().and_then(first::<u64>);
    // The second number is unused. The third is the largest i64 where nobody set one.
    let maximum = values.nth(1).and_then(first::<u64>);
    let (Some(allocated), Some(maximum)) = (allocated, maximum) else {
        return Outcome::of(&readings.file_nr, 0);
    };
    text.one(
        "node_filefd_allocated",
        "Files open on the host.",
        Kind::Gauge,
        allocated,
    );
    text.one(
        "node_filefd_maximum",
        "Files that can be open on the host.",
        Kind::Gauge,
        maximum,
    );
    Outcome::Taken
}

/// Who measures here, and when.
pub(super) fn identity(text: &mut Text, readings: &Readings) {
    let uname = &readings.uname;
    text.family(
        "node_uname_info",
        "What uname says of the host.",
        Kind::Gauge,
    )
    .sample(
        &[
            ("domainname", &uname.domainname),
            ("machine", &uname.machine),
            ("nodename", &uname.nodename),
            ("release", &uname.release),
            ("sysname", &uname.sysname),
            ("version", &uname.version),
        ],
        1,
    );
    let now = ratio(u64::try_from(readings.now_ms).unwrap_or(0), 1000);
    text.one(
        "node_time_seconds",
        "The host's clock, seconds since the epoch.",
        Kind::Gauge,
        now,
    );
    if let Some(uptime) = readings.uptime.split_whitespace().next().and_then(decimal) {
        text.one(
            "loopback_agent_host_uptime_seconds",
            "Seconds since the host booted, by a clock that nobody sets.",
            Kind::Gauge,
            uptime,
        );
    }
    text.family(
        "loopback_agent_info",
        "The agent that took these samples.",
        Kind::Gauge,
    )
    .sample(&[("version", &readings.agent_version)], 1);
}

fn first<T: FromStr>(text: &str) -> Option<T> {
    text.split_whitespace().next()?.parse().ok()
}

/// A decimal as it stands, once it is known to be one.
fn decimal(text: &str) -> Option<&str> {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
    (digits(whole) && digits(rest)).then_some(text)
}
