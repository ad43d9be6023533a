//! Processes, from `/proc/PID`.

use model::diagnose::Process;

/// Ticks of the kernel's clock in a second, as it tells user space on every platform
/// that agents run on.
const TICKS: u64 = 100;

/// A process, from `stat` and `status`; nothing where `stat` is not understood, which
/// is when the process has gone.
pub fn process(stat: &str, status: &str, uptime_secs: u64) -> Option<Process> {
    // The name may hold blanks and parentheses of its own.
    let open = stat.find('(')?;
    let close = stat.rfind(')')?;
    let pid = stat[..open].trim().parse().ok()?;
    let name = stat.get(open + 1..close)?.to_owned();
    let fields: Vec<&str> = stat[close + 1..].split_whitespace().collect();
    let number = |place: usize| -> u64 {
        // Fields are counted from 3 in the kernel's manual.
        let field = fields.get(place - 3).and_then(|it| it.parse().ok());
        field.unwrap_or(0)
    };
    let started = number(22) / TICKS;
    Some(Process {
        pid,
        ppid: u32::try_from(number(4)).unwrap_or(0),
        uid: u32::try_from(in_status(status, "Uid:", 1)).unwrap_or(0),
        state: fields.first()?.chars().take(1).collect(),
        name,
        threads: u32::try_from(number(20)).unwrap_or(0),
        rss_bytes: in_status(status, "VmRSS:", 0).saturating_mul(1024),
        cpu_ms: number(14)
            .saturating_add(number(15))
            .saturating_mul(1000 / TICKS),
        age_secs: uptime_secs.saturating_sub(started),
        ..Process::default()
    })
}

/// The number at `place` of a line in `status`.
fn in_status(status: &str, name: &str, place: usize) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().nth(place));
    word.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// The arguments in `cmdline`: each ends with a zero byte. A program that writes a
/// title over them leaves one text, and zeroes behind it.
pub fn arguments(cmdline: &[u8]) -> Vec<String> {
    let end = cmdline
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |at| at + 1);
    let said = &cmdline[..end];
    if said.is_empty() {
        return Vec::new();
    }
    super::redact::args(said.split(|byte| *byte == 0))
}

/// The control group in `cgroup`: the unified one, or else that of the service manager.
pub fn control_group(cgroup: &str) -> String {
    let path_of = |wanted: &str| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()? == wanted).then(|| parts.next().unwrap_or_default())
        })
    };
    path_of("")
        .filter(|path| !path.is_empty())
        .or_else(|| path_of("name=systemd"))
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "42 (a) (b c) D 1 42 42 0 -1 4194560 100 0 0 0 7 3 0 0 20 0 5 0 1000 1000000 256 18446744073709551615 1 1";
    const STATUS: &str = "Name:\ta\nVmRSS:\t  1024 kB\nUid:\t0\t33\t0\t0\nGid:\t0\t0\t0\t0\n";

    #[test]
    fn a_stuck_process_with_an_odd_name_is_understood() {
        let found = process(STAT, STATUS, 60).unwrap();
        assert_eq!((found.pid, found.ppid, found.uid), (42, 1, 33));
        assert_eq!(
            (found.name.as_str(), found.state.as_str()),
            ("a) (b c", "D")
        );
        assert_eq!((found.threads, found.rss_bytes), (5, 1 << 20));
        assert_eq!((found.cpu_ms, found.age_secs), (100, 50));
        assert_eq!(process("", "", 0), None);
    }

    #[test]
    fn arguments_end_with_zeroes_and_have_no_secrets() {
        assert_eq!(arguments(b"a\0--token\0x y\0"), ["a", "--token", "***"]);
        assert_eq!(
            arguments(b"nginx: worker process\0\0\0\0"),
            ["nginx: worker process"]
        );
        assert!(arguments(b"").is_empty());
        assert_eq!(control_group("1:name=systemd:/a\n0::/b:c\n"), "/b:c");
        assert_eq!(control_group("4:cpu:/x\n1:name=systemd:/a\n"), "/a");
    }

    proptest! {
        #[test]
        fn nothing_the_kernel_could_say_is_too_odd(stat in ".{0,80}", status in ".{0,80}", cmdline: Vec<u8>) {
            let _ = process(&stat, &status, 1);
            let _ = process(&format!("1 ({stat}) {status}"), &status, 1);
            let _ = (arguments(&cmdline), control_group(&stat));
        }
    }
}
