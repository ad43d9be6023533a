//! Disks: mounted file systems that hold data on this host.

use std::collections::BTreeSet;

use model::facts::Disk;

/// File systems on a disk or an array. A list of what is wanted, not of what is not:
/// asking a dead NFS server for its size would hang the agent.
const KINDS: [&str; 14] = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs", "vfat",
    "exfat", "ntfs3", "overlay",
];
/// A machine full of containers has thousands of mounts.
const MAX_MOUNTS: usize = 64;

/// One line of mountinfo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted, as a path for the kernel.
    pub path: String,
    /// Type of file system.
    pub kind: String,
    /// What is mounted: a device, as the kernel names it.
    pub source: String,
}

/// The mounts worth reporting in `/proc/self/mountinfo`: one per device, the first
/// one mounted. An overlay counts only as the root, where it is a container's disk.
pub fn mounts(mountinfo: &str) -> Vec<Mount> {
    let mut devices = BTreeSet::new();
    mountinfo
        .lines()
        .filter_map(parse)
        .filter(|(_, mount)| {
            KINDS.contains(&mount.kind.as_str()) && (mount.kind != "overlay" || mount.path == "/")
        })
        .filter(|(device, _)| devices.insert(device.to_owned()))
        .map(|(_, mount)| mount)
        .take(MAX_MOUNTS)
        .collect()
}

/// `36 35 98:0 /root /mount options optional... - kind source options`.
fn parse(line: &str) -> Option<(&str, Mount)> {
    let (place, file_system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(2);
    let device = place.next()?;
    let path = unescape(place.nth(1)?)?;
    let mut file_system = file_system.split(' ');
    let kind = file_system.next()?.to_owned();
    let source = file_system.next().and_then(unescape).unwrap_or_default();
    Some((device, Mount { path, kind, source }))
}

/// The kernel writes blank, tab, line break and backslash as `\040` and so on.
fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                bytes.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok()
}

/// Free space in twentieths of the size, rounded down.
pub(super) fn coarse(mut disk: Disk) -> Disk {
    let step = disk.size_bytes / 20;
    if let Some(steps) = disk.free_bytes.checked_div(step) {
        disk.free_bytes = steps * step;
    }
    disk
}
