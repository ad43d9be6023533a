//! Load, memory and pressure, from `/proc`; messages of the kernel; tables of the
//! service manager.

use model::diagnose::{Memory, Pressure, Unit};

/// Seconds since boot, of `/proc/uptime`.
pub fn uptime(text: &str) -> u64 {
    let whole = text.split(['.', ' ']).next().unwrap_or_default();
    whole.parse().unwrap_or(0)
}

/// `/proc/loadavg`.
pub fn load(text: &str) -> Vec<f64> {
    text.split_whitespace()
        .take(3)
        .filter_map(|it| it.parse().ok())
        .collect()
}

/// `/proc/meminfo`.
pub fn memory(text: &str) -> Memory {
    let bytes = |name: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.map_or(0, |kib: u64| kib.saturating_mul(1024))
    };
    Memory {
        total: bytes("MemTotal"),
        free: bytes("MemFree"),
        available: bytes("MemAvailable"),
        swap_total: bytes("SwapTotal"),
        swap_free: bytes("SwapFree"),
    }
}

/// `/proc/pressure/*`, of what it is about.
pub fn pressure(of: &str, text: &str) -> Vec<Pressure> {
    let one = |line: &str| {
        let mut words = line.split_whitespace();
        let kind = words.next()?.to_owned();
        let mut share = |name: &str| words.next()?.strip_prefix(name)?.parse().ok();
        Some(Pressure {
            of: of.to_owned(),
            kind,
            avg10: share("avg10=")?,
            avg60: share("avg60=")?,
            avg300: share("avg300=")?,
        })
    };
    text.lines().filter_map(one).collect()
}

/// The name in `os-release`.
pub fn os_name(text: &str) -> String {
    let value = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    value
        .unwrap_or_default()
        .trim_matches(['"', '\''])
        .to_owned()
}

/// A record of `/dev/kmsg`, `6,339,5140900,-;message`, as a line with the seconds since
/// boot in front. What follows the first line break are fields of devices.
pub fn kernel_line(record: &str) -> Option<String> {
    let (head, message) = record.split_once(';')?;
    let micros: u64 = head.split(',').nth(2)?.parse().ok()?;
    let message = message.lines().next().unwrap_or_default();
    let (secs, rest) = (micros / 1_000_000, micros % 1_000_000);
    Some(format!("[{secs:>6}.{rest:06}] {message}"))
}

/// `systemctl list-units --plain --no-legend`.
pub fn units(text: &str) -> Vec<Unit> {
    let one = |line: &str| {
        let mut rest = line.trim_start_matches([' ', '*', '●', '○', '×']);
        let mut word = || {
            rest = rest.trim_start();
            let end = rest.find(' ').unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            rest = after;
            (!word.is_empty()).then(|| word.to_owned())
        };
        Some(Unit {
            name: word()?,
            load: word()?,
            active: word()?,
            sub: word()?,
            description: rest.trim().to_owned(),
        })
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_machine_is_read() {
        assert_eq!(uptime("3600.55 7000.00\n"), 3600);
        assert_eq!(load("0.50 1.25 2.00 1/100 42\n"), [0.5, 1.25, 2.0]);
        let memory =
            memory("MemTotal:  100 kB\nMemFree: 1 kB\nMemAvailable: 50 kB\nSwapTotal: 0 kB\n");
        assert_eq!((memory.total, memory.available), (102_400, 51_200));
        let found = pressure(
            "io",
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=9\nodd\n",
        );
        assert_eq!(
            (found[0].kind.as_str(), found[0].avg10, found.len()),
            ("some", 1.5, 1)
        );
        assert_eq!(os_name("NAME=x\nPRETTY_NAME=\"Debian 12\"\n"), "Debian 12");
        let line = kernel_line("6,339,5140900,-;EXT4-fs error\n SUBSYSTEM=block").unwrap();
        assert_eq!(line, "[     5.140900] EXT4-fs error");
    }

    #[test]
    fn a_failed_unit_is_read_with_its_mark() {
        let text = "● broken.service loaded failed failed Is broken\n  a.mount     loaded active mounted /a\nshort\n";
        let found = units(text);
        assert_eq!(found.len(), 2);
        assert_eq!(
            (found[0].name.as_str(), found[0].active.as_str()),
            ("broken.service", "failed")
        );
        assert_eq!(found[0].description, "Is broken");
        assert_eq!(found[1].sub, "mounted");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text in "[0-9a-z=:;., \n●é]{0,200}") {
            let _ = (uptime(&text), load(&text), memory(&text), pressure("io", &text));
            let _ = (os_name(&text), kernel_line(&text), units(&text));
        }
    }
}
