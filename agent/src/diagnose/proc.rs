//! What the kernel says: system, processes, file systems, sockets.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agent_core::diagnose::{mounts, net, processes as parse, system as read_as};
use link::verify::system_clock;
use model::diagnose::{DiskView, Disks, Process, Processes, Socket, Sockets, SystemView};
use tokio::task::JoinSet;

use super::about::Standing;
use super::content::{Gathered, halve};
use super::limit::{Found, on_thread, read, read_text};
use crate::facts::boot_id;

/// For what reads `/proc`.
const READ: Duration = Duration::from_secs(8);
/// For a file system to tell its size.
const SIZE: Duration = Duration::from_secs(2);
const MAX_TEXT: u64 = 256 << 10;
const MAX_TABLE: u64 = 8 << 20;
/// Processes that are looked at; the oldest ids first.
const MAX_PROCESSES: usize = 20_000;
const MAX_SOCKETS: usize = 20_000;
/// Open files that are looked at to find whose a socket is.
const MAX_FILES: usize = 500_000;

pub(super) fn system(standing: &Standing) -> Gathered {
    let text = |path: &str| read_text(path, MAX_TEXT);
    let pressure = ["cpu", "memory", "io"];
    let view = SystemView {
        hostname: text("/proc/sys/kernel/hostname").trim().to_owned(),
        os: read_as::os_name(&text("/etc/os-release")),
        kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
        arch: crate::ARCH.to_owned(),
        boot_id: boot_id(),
        cpus: std::thread::available_parallelism()
            .map_or(0, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        uptime_secs: read_as::uptime(&text("/proc/uptime")),
        load: read_as::load(&text("/proc/loadavg")),
        memory: read_as::memory(&text("/proc/meminfo")),
        pressure: pressure
            .iter()
            .flat_map(|of| read_as::pressure(of, &text(&format!("/proc/pressure/{of}"))))
            .collect(),
        time: system_clock()().to_string(),
        clock_offset_ms: standing.clock_offset_ms(),
    };
    Gathered::json(view, |_| false)
}

pub(super) async fn processes() -> Gathered {
    let (mut found, ended) = on_thread(READ, look_at_processes).await;
    let without_arguments = found.stuck_at;
    let omitted = found.list.omitted;
    found.list.processes.sort_by_key(|it| it.pid);
    let mut gathered = Gathered::json(found.list, |it| halve(&mut it.processes, &mut it.omitted));
    if !ended {
        gathered = gathered.missing(match without_arguments {
            Some(pid) => format!("the arguments of process {pid} cannot be read, it hangs in the kernel; those of later ones were not tried"),
            None => "reading /proc took too long".to_owned(),
        });
    }
    if omitted > 0 {
        gathered = gathered.missing(format!("{omitted} processes had no room"));
    }
    gathered
}

#[derive(Debug, Default, Clone)]
struct Look {
    list: Processes,
    /// The process whose arguments are being read.
    stuck_at: Option<u32>,
}

/// First what the kernel always answers, then what waits for a lock that a stuck process
/// may hold.
fn look_at_processes(found: &Found<Look>) {
    let uptime = read_as::uptime(&read_text("/proc/uptime", MAX_TEXT));
    let pids = pids();
    let (near, far) = pids.split_at(pids.len().min(MAX_PROCESSES));
    found.update(|it| it.list.omitted = far.len() as u64);
    for pid in near {
        let text = |name: &str| read_text(format!("/proc/{pid}/{name}"), 16 << 10);
        let Some(mut process) = parse::process(&text("stat"), &text("status"), uptime) else {
            continue;
        };
        process.cgroup = parse::control_group(&text("cgroup"));
        if process.state == "D" {
            process.waits_in = text("wchan").trim().to_owned();
        }
        found.update(|it| it.list.processes.push(process));
    }
    let count = found.update(|it| it.list.processes.len());
    // Stuck ones last, so that the arguments of the others are there when one hangs.
    let place_of = |stuck: bool| {
        let is = |it: &Process| (it.state == "D") == stuck;
        found.update(|it| -> Vec<(usize, u32)> {
            let all = it.list.processes.iter().enumerate().take(count);
            all.filter(|(_, it)| is(it))
                .map(|(at, it)| (at, it.pid))
                .collect()
        })
    };
    for (at, pid) in place_of(false).into_iter().chain(place_of(true)) {
        found.update(|it| it.stuck_at = Some(pid));
        let args = parse::arguments(&read(format!("/proc/{pid}/cmdline"), 64 << 10));
        found.update(|it| it.list.processes[at].args = args);
    }
}

fn pids() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut pids: Vec<u32> = entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    pids
}

/// Mounts that were asked for their size and have not answered yet: asking again would
/// leave another thread behind.
static SILENT: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

pub(super) async fn disks() -> Gathered {
    let (mut disks, omitted) = mounts::mounts(&read_text("/proc/self/mountinfo", MAX_TABLE));
    let mut silent = Vec::new();
    for some in disks.chunks_mut(16) {
        let mut asked = JoinSet::new();
        for (place, disk) in some.iter().enumerate() {
            let mount = disk.mount.clone();
            asked.spawn(async move { (place, size(mount).await) });
        }
        while let Some(answered) = asked.join_next().await {
            let Ok((place, size)) = answered else {
                continue;
            };
            if size.trouble == HANGS {
                silent.push(some[place].mount.clone());
            }
            let disk = &mut some[place];
            *disk = DiskView {
                mount: std::mem::take(&mut disk.mount),
                source: std::mem::take(&mut disk.source),
                kind: std::mem::take(&mut disk.kind),
                read_only: disk.read_only,
                ..size
            };
        }
    }
    let view = Disks { disks, omitted };
    let mut gathered = Gathered::json(view, |it| halve(&mut it.disks, &mut it.omitted));
    if !silent.is_empty() {
        gathered = gathered.missing(format!("no answer from {}", silent.join(", ")));
    }
    gathered
}

const HANGS: &str = "the file system does not answer";

async fn size(mount: String) -> DiskView {
    let new = SILENT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .insert(mount.clone());
    let hangs = || DiskView {
        trouble: HANGS.to_owned(),
        ..DiskView::default()
    };
    if !new {
        return hangs();
    }
    let (size, ended) = on_thread(SIZE, move |found: &Found<DiskView>| {
        let told = rustix::fs::statvfs(mount.as_str());
        found.update(|it| match told {
            Ok(size) => {
                it.size_bytes = size.f_blocks.saturating_mul(size.f_frsize);
                it.free_bytes = size.f_bfree.saturating_mul(size.f_frsize);
                it.available_bytes = size.f_bavail.saturating_mul(size.f_frsize);
                it.inodes = size.f_files;
                it.inodes_free = size.f_ffree;
            }
            Err(error) => it.trouble = error.to_string(),
        });
        let mut silent = SILENT.lock().unwrap_or_else(PoisonError::into_inner);
        silent.remove(&mount);
    })
    .await;
    if ended { size } else { hangs() }
}

pub(super) async fn sockets() -> Gathered {
    let (look, ended) = on_thread(READ, look_at_sockets).await;
    let mut list = look.list;
    list.sockets
        .sort_by_key(|it| (it.state != "listen", it.protocol.starts_with("unix")));
    let without_owner = list
        .sockets
        .iter()
        .any(|it| it.pid.is_none() && it.inode != 0 && it.state == "listen");
    let mut gathered = Gathered::json(list, |it| halve(&mut it.sockets, &mut it.omitted));
    if !ended {
        gathered = gathered.missing("reading /proc took too long");
    } else if without_owner && look.denied {
        gathered = gathered.missing(
            "whose some sockets are is not known: this agent may not look into all processes",
        );
    }
    gathered
}

#[derive(Debug, Default, Clone)]
struct SocketLook {
    list: Sockets,
    denied: bool,
}

fn look_at_sockets(found: &Found<SocketLook>) {
    let mut sockets: Vec<Socket> = Vec::new();
    for protocol in ["tcp", "tcp6", "udp", "udp6"] {
        let table = read_text(format!("/proc/net/{protocol}"), MAX_TABLE);
        sockets.extend(net::inet_sockets(&table, protocol));
    }
    sockets.extend(net::unix_sockets(&read_text("/proc/net/unix", MAX_TABLE)));
    let omitted = sockets.len().saturating_sub(MAX_SOCKETS);
    // What listens is wanted most.
    sockets.sort_by_key(|it| it.state != "listen");
    sockets.truncate(MAX_SOCKETS);
    let places: BTreeMap<u64, usize> = sockets
        .iter()
        .enumerate()
        .map(|(place, it)| (it.inode, place))
        .collect();
    found.update(|it| {
        it.list = Sockets {
            sockets,
            omitted: omitted as u64,
        };
    });
    let mut looked = 0;
    for pid in pids() {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) => {
                let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                found.update(|it| it.denied |= denied);
                continue;
            }
        };
        for entry in entries.flatten() {
            looked += 1;
            if looked > MAX_FILES {
                return;
            }
            let Some(inode) = socket_of(&entry.path()) else {
                continue;
            };
            let Some(place) = places.get(&inode) else {
                continue;
            };
            let name = read_text(format!("/proc/{pid}/comm"), 64);
            found.update(|it| {
                let socket = &mut it.list.sockets[*place];
                if socket.pid.is_none() {
                    socket.pid = Some(pid);
                    socket.process = name.trim().to_owned();
                }
            });
        }
    }
}

/// `socket:[4242]`.
fn socket_of(path: &Path) -> Option<u64> {
    let target = fs::read_link(path).ok()?;
    let inode = target
        .to_str()?
        .strip_prefix("socket:[")?
        .strip_suffix(']')?;
    inode.parse().ok()
}
