//! What the kernel says of processes: memory, CPU time, limits, lost datagrams.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Resident memory in KiB. Peers may be several processes: descendants count.
pub(crate) fn resident_kib(pid: u32) -> Result<f64> {
    let mut sum = 0.0;
    for pid in family(pid) {
        // A child may end while we look.
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: Option<f64> = line
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok());
        sum += kib.unwrap_or(0.0);
    }
    anyhow::ensure!(sum > 0.0, "process {pid} is gone");
    Ok(sum)
}

/// CPU time of a process and its descendants, in steps of a hundredth of a second.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let mut ticks = 0;
    for pid in family(pid) {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
            continue;
        };
        // The name may hold blanks and parentheses; what follows it does not.
        let (_, rest) = stat.rsplit_once(')').context("read a process's stat")?;
        let fields: Vec<_> = rest.split_whitespace().collect();
        for at in [11, 12] {
            let field = fields.get(at).context("stat has CPU times")?;
            ticks += field.parse::<u64>().context("read a CPU time")?;
        }
    }
    // USER_HZ is 100 on every architecture that Linux runs us on.
    Ok(Duration::from_millis(ticks * 10))
}

/// Datagrams that the kernel dropped because a receive buffer was full, on the whole machine.
pub(crate) fn udp_receive_errors() -> u64 {
    let text = fs::read_to_string("/proc/net/snmp").unwrap_or_default();
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let (Some(names), Some(values)) = (lines.next(), lines.next()) else {
        return 0;
    };
    names
        .split_whitespace()
        .zip(values.split_whitespace())
        .find(|(name, _)| *name == "RcvbufErrors")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

/// The first of the three load averages.
pub(crate) fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// As many open files as this user may have: a peer over TCP takes one per connection, and
/// children inherit the limit.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    // What cannot be raised shows as connections that fail.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// The most files this process may have open.
pub(crate) fn file_limit() -> usize {
    getrlimit(Resource::Nofile)
        .current
        .and_then(|limit| usize::try_from(limit).ok())
        .unwrap_or(usize::MAX)
}

fn family(pid: u32) -> Vec<u32> {
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        let threads = fs::read_dir(format!("/proc/{parent}/task"));
        for thread in threads.into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            found.extend(
                children
                    .split_whitespace()
                    .filter_map(|it| it.parse::<u32>().ok()),
            );
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_has_used_the_processor() {
        let pid = std::process::id();
        assert!(resident_kib(pid).unwrap() > 100.0);
        let before = cpu(pid).unwrap();
        let mut sum = 0u64;
        while cpu(pid).unwrap() < before + Duration::from_millis(30) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }
}
