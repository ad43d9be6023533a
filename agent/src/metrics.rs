//! Taking the samples of this host: small files of the kernel, the space on its disks,
//! and one question to systemd. What they mean is `agent_core::metrics`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

use agent_core::facts::mounts;
use agent_core::metrics::units::{self, NotAnswered};
use agent_core::metrics::{Disk, Readings, Space, Uname, exposition};
use link::verify::system_clock;
use rustix::fs::statvfs;
use rustix::process::geteuid;
use rustix::system::uname;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// `/proc/stat` of a machine with a thousand processors has some 200 KiB.
const MAX_TEXT: u64 = 1 << 20;
/// systemd answers in a millisecond. When it does not, the other samples are wanted all
/// the more.
const UNITS_WITHIN: Duration = Duration::from_secs(2);
/// Longest answer to the greeting.
const MAX_LINE: usize = 256;

/// One thread at a time: were a disk to hang, each scrape would leave another behind.
static SAMPLING: Semaphore = Semaphore::const_new(1);

/// The text of all samples, taken at this moment.
pub async fn sample() -> io::Result<String> {
    let turn = SAMPLING.acquire().await.map_err(io::Error::other)?;
    let failed_units = failed_units().await;
    // The kernel answers from memory, but for a disk that is dying: that one must not hold
    // up the heartbeat, so this is the one thing that is not done on the agent's own thread.
    tokio::task::spawn_blocking(move || {
        let _turn = turn;
        exposition(&Readings {
            failed_units,
            ..readings()
        })
    })
    .await
    .map_err(io::Error::other)
}

fn readings() -> Readings {
    Readings {
        stat: text("/proc/stat"),
        meminfo: text("/proc/meminfo"),
        diskstats: text("/proc/diskstats"),
        net_dev: text("/proc/net/dev"),
        loadavg: text("/proc/loadavg"),
        uptime: text("/proc/uptime"),
        vmstat: text("/proc/vmstat"),
        file_nr: text("/proc/sys/fs/file-nr"),
        pressure_cpu: text("/proc/pressure/cpu"),
        pressure_io: text("/proc/pressure/io"),
        pressure_memory: text("/proc/pressure/memory"),
        disks: disks(),
        failed_units: None,
        uname: names(),
        ticks_per_second: rustix::param::clock_ticks_per_second(),
        now_ms: system_clock()().as_millis(),
        agent_version: crate::VERSION.to_owned(),
    }
}

fn disks() -> Vec<Disk> {
    mounts(&text("/proc/self/mountinfo"))
        .into_iter()
        .map(|mount| {
            let space = statvfs(mount.path.as_str()).ok().map(|found| Space {
                size: found.f_blocks.saturating_mul(found.f_frsize),
                free: found.f_bfree.saturating_mul(found.f_frsize),
                available: found.f_bavail.saturating_mul(found.f_frsize),
                files: found.f_files,
                files_free: found.f_ffree,
            });
            Disk {
                device: mount.source,
                kind: mount.kind,
                mount: mount.path,
                space,
            }
        })
        .collect()
}

fn names() -> Uname {
    let found = uname();
    let word = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
    Uname {
        sysname: word(found.sysname()),
        nodename: word(found.nodename()),
        release: word(found.release()),
        version: word(found.version()),
        machine: word(found.machine()),
        domainname: word(found.domainname()),
    }
}

/// What the file holds, as far as it is text; nothing when it cannot be read.
fn text(path: &str) -> String {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(path) {
        // What was read before an error is better than nothing; the parsers see what it is.
        let _ = file.take(MAX_TEXT).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Nobody is asked where there is no systemd, or where only root may ask and we are not.
async fn failed_units() -> Option<Result<Vec<String>, NotAnswered>> {
    if !Path::new(units::SOCKET).exists() || !geteuid().is_root() {
        return None;
    }
    let asked = timeout(UNITS_WITHIN, ask_systemd()).await;
    Some(match asked {
        Ok(Ok(Some(names))) => Ok(names),
        Ok(Ok(None)) | Ok(Err(_)) | Err(_) => Err(NotAnswered),
    })
}

async fn ask_systemd() -> io::Result<Option<Vec<String>>> {
    let odd = |_: NotAnswered| io::Error::from(io::ErrorKind::InvalidData);
    let mut stream = UnixStream::connect(units::SOCKET).await?;
    stream
        .write_all(&units::greeting(geteuid().as_raw()))
        .await?;
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < MAX_LINE {
        line.push(stream.read_u8().await?);
    }
    if !line.starts_with(b"OK ") {
        return Ok(None);
    }
    stream.write_all(&units::call()).await?;
    loop {
        let mut head = [0; units::HEAD];
        stream.read_exact(&mut head).await?;
        let mut rest = vec![0; units::rest(&head).map_err(odd)?];
        stream.read_exact(&mut rest).await?;
        // Whatever else systemd says to a new listener is not the answer.
        if let Some(names) = units::answer(&head, &rest).map_err(odd)? {
            return Ok(Some(names));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_samples() {
        let text = sample().await.unwrap();
        for line in [
            "node_cpu_seconds_total{cpu=\"0\",mode=\"idle\"} ",
            "node_memory_MemTotal_bytes ",
            "node_load1 ",
            "node_uname_info{",
            "node_scrape_collector_success{collector=\"cpu\"} 1",
        ] {
            let found = text.lines().any(|it| it.starts_with(line));
            assert!(found, "{line} is missing in\n{text}");
        }
        assert!(!text.contains("collector=\"cpu\"} 0"));
    }
}
