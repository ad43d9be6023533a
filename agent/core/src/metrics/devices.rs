//! What the kernel counts per device.

use super::text::{Kind, Text, ratio};
use super::{Outcome, Readings, Space};

/// The kernel counts sectors of this size, whatever the disk's own are.
const SECTOR: u64 = 512;
/// A machine full of containers has thousands of virtual interfaces.
const MAX_DEVICES: usize = 512;

type Reader = fn(u64) -> String;
type Field = fn(&Space) -> u64;

fn plain(value: u64) -> String {
    value.to_string()
}

fn sectors(value: u64) -> String {
    value.saturating_mul(SECTOR).to_string()
}

fn milliseconds(value: u64) -> String {
    ratio(value, 1000)
}

/// Fields of `/proc/diskstats` after the name, in their order.
const DISK: [(&str, &str, Kind, Reader); 17] = [
    (
        "reads_completed_total",
        "Reads completed.",
        Kind::Counter,
        plain,
    ),
    ("reads_merged_total", "Reads merged.", Kind::Counter, plain),
    ("read_bytes_total", "Bytes read.", Kind::Counter, sectors),
    (
        "read_time_seconds_total",
        "Seconds spent by all reads.",
        Kind::Counter,
        milliseconds,
    ),
    (
        "writes_completed_total",
        "Writes completed.",
        Kind::Counter,
        plain,
    ),
    (
        "writes_merged_total",
        "Writes merged.",
        Kind::Counter,
        plain,
    ),
    (
        "written_bytes_total",
        "Bytes written.",
        Kind::Counter,
        sectors,
    ),
    (
        "write_time_seconds_total",
        "Seconds spent by all writes.",
        Kind::Counter,
        milliseconds,
    ),
    ("io_now", "Operations in progress.", Kind::Gauge, plain),
    (
        "io_time_seconds_total",
        "Seconds with operations in progress.",
        Kind::Counter,
        milliseconds,
    ),
    (
        "io_time_weighted_seconds_total",
        "Seconds with operations in progress, times their number.",
        Kind::Counter,
        milliseconds,
    ),
    (
        "discards_completed_total",
        "Discards completed.",
        Kind::Counter,
        plain,
    ),
    (
        "discards_merged_total",
        "Discards merged.",
        Kind::Counter,
        plain,
    ),
    (
        "discarded_sectors_total",
        "Sectors discarded.",
        Kind::Counter,
        plain,
    ),
    (
        "discard_time_seconds_total",
        "Seconds spent by all discards.",
        Kind::Counter,
        milliseconds,
    ),
    (
        "flush_requests_total",
        "Flushes completed.",
        Kind::Counter,
        plain,
    ),
    (
        "flush_requests_time_seconds_total",
        "Seconds spent by all flushes.",
        Kind::Counter,
        milliseconds,
    ),
];

/// Fields of `/proc/net/dev` after the name, in their order.
const NETWORK: [&str; 16] = [
    "receive_bytes",
    "receive_packets",
    "receive_errs",
    "receive_drop",
    "receive_fifo",
    "receive_frame",
    "receive_compressed",
    "receive_multicast",
    "transmit_bytes",
    "transmit_packets",
    "transmit_errs",
    "transmit_drop",
    "transmit_fifo",
    "transmit_colls",
    "transmit_carrier",
    "transmit_compressed",
];

pub(super) fn disks(text: &mut Text, readings: &Readings) -> Outcome {
    let lines: Vec<(&str, Vec<u64>)> = readings
        .diskstats
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(2);
            let name = words.next()?;
            Some((name, numbers(words)?))
        })
        .collect();
    let whole: Vec<_> = lines
        .iter()
        .filter(|(name, _)| !is_part(name))
        .take(MAX_DEVICES)
        .collect();
    for (place, (suffix, help, kind, reader)) in DISK.into_iter().enumerate() {
        let name = format!("node_disk_{suffix}");
        let mut family = text.family(&name, help, kind);
        for (device, values) in &whole {
            if let Some(value) = values.get(place) {
                family.sample(&[("device", device)], reader(*value));
            }
        }
    }
    Outcome::of(&readings.diskstats, lines.len())
}

/// Partitions, whose disk counts all, and devices that are no disks: what node_exporter
/// leaves out, too.
fn is_part(name: &str) -> bool {
    let stem = name.trim_end_matches(|it: char| it.is_ascii_digit());
    if stem.len() == name.len() {
        return false;
    }
    if ["ram", "zram", "loop", "fd"].contains(&stem) {
        return true;
    }
    if let Some(namespace) = stem.strip_prefix("nvme") {
        return namespace.ends_with('p');
    }
    ["hd", "sd", "vd", "xvd"].iter().any(|kind| {
        stem.strip_prefix(kind)
            .is_some_and(|letter| letter.len() == 1 && letter.as_bytes()[0].is_ascii_lowercase())
    })
}

pub(super) fn network(text: &mut Text, readings: &Readings) -> Outcome {
    let lines: Vec<(&str, Vec<u64>)> = readings
        .net_dev
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.rsplit_once(':')?;
            Some((name.trim(), numbers(rest.split_whitespace())?))
        })
        .take(MAX_DEVICES)
        .collect();
    for (place, what) in NETWORK.into_iter().enumerate() {
        let name = format!("node_network_{what}_total");
        let help = format!("{} of network interfaces.", what.replace('_', " "));
        let mut family = text.family(&name, &help, Kind::Counter);
        for (device, values) in &lines {
            if let Some(value) = values.get(place) {
                family.sample(&[("device", device)], value);
            }
        }
    }
    Outcome::of(&readings.net_dev, lines.len())
}

pub(super) fn file_systems(text: &mut Text, readings: &Readings) -> Outcome {
    let rows: [(&str, &str, Field); 5] = [
        (
            "node_filesystem_size_bytes",
            "Size of file systems in bytes.",
            |it| it.size,
        ),
        (
            "node_filesystem_free_bytes",
            "Bytes free on file systems.",
            |it| it.free,
        ),
        (
            "node_filesystem_avail_bytes",
            "Bytes free on file systems for users other than root.",
            |it| it.available,
        ),
        (
            "node_filesystem_files",
            "Files that file systems can hold.",
            |it| it.files,
        ),
        (
            "node_filesystem_files_free",
            "Files that file systems can still hold.",
            |it| it.files_free,
        ),
    ];
    for (name, help, value) in rows {
        let mut family = text.family(name, help, Kind::Gauge);
        for disk in &readings.disks {
            if let Some(space) = &disk.space {
                family.sample(&labels(disk), value(space));
            }
        }
    }
    let mut family = text.family(
        "node_filesystem_device_error",
        "Whether the kernel did not say how full a file system is.",
        Kind::Gauge,
    );
    for disk in &readings.disks {
        family.sample(&labels(disk), u8::from(disk.space.is_none()));
    }
    match readings.disks.is_empty() {
        true => Outcome::Absent,
        false => Outcome::Taken,
    }
}

fn labels(disk: &super::Disk) -> [(&str, &str); 3] {
    [
        ("device", &disk.device),
        ("fstype", &disk.kind),
        ("mountpoint", &disk.mount),
    ]
}

fn numbers<'a>(words: impl Iterator<Item = &'a str>) -> Option<Vec<u64>> {
    let values: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
    values.filter(|values| !values.is_empty())
}
