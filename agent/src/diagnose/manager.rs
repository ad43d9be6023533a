//! What the service manager, the journal and the kernel's log say.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use agent_core::diagnose::system as read_as;
use model::diagnose::{MAX_LINES, MAX_SECTION, UnitDetails, Units};
use rustix::fs::OFlags;

use super::content::{BEFORE, Gathered, halve};
use super::limit::{Found, Said, on_thread, read, run};

/// For a program; three of them fit into a section.
const PROGRAM: Duration = Duration::from_secs(4);
const JOURNAL: Duration = Duration::from_secs(9);
/// Lines that are told unless so many are asked for.
const LINES: u32 = 1000;
/// Most that a journal may say; twice what a section holds, as the earlier half only
/// says what the later one is.
const MAX_OUTPUT: usize = 2 * MAX_SECTION;
/// Failed units of which more is told, and lines of each.
const MAX_DETAILS: usize = 10;
const DETAIL_LINES: usize = 20;
/// What is told of a unit. Not its environment, and not its commands, which processes
/// show.
const PROPERTIES: &str = "--property=Id,Description,LoadState,ActiveState,SubState,UnitFileState,\
FragmentPath,Result,ExecMainPID,ExecMainCode,ExecMainStatus,StatusText,NRestarts,Restart,\
ActiveEnterTimestamp,InactiveEnterTimestamp,MemoryCurrent,TasksCurrent,CPUUsageNSec";

pub(super) async fn units(asked: &str) -> Gathered {
    let list = [
        "list-units",
        "--all",
        "--plain",
        "--no-legend",
        "--no-pager",
        "--full",
    ];
    let listed = run("systemctl", &list, MAX_SECTION, PROGRAM).await;
    if listed.output.is_empty() {
        let why = listed
            .trouble
            .unwrap_or_else(|| "there are no units".to_owned());
        return Gathered::failed(&why);
    }
    // Says so by its exit code, too, when not all is well.
    let manager = run("systemctl", &["is-system-running"], 256, PROGRAM).await;
    let mut units = read_as::units(&String::from_utf8_lossy(&listed.output));
    units.sort_by_key(|unit| unit.active != "failed");
    let failed = units.iter().filter(|unit| unit.active == "failed");
    let mut wanted: Vec<String> = failed.map(|unit| unit.name.clone()).collect();
    let all_failed = wanted.len();
    wanted.retain(|name| model::diagnose::is_unit_name(name) && name != asked);
    wanted.truncate(MAX_DETAILS);
    if !asked.is_empty() {
        wanted.insert(0, asked.to_owned());
    }
    let mut view = Units {
        manager: String::from_utf8_lossy(&manager.output).trim().to_owned(),
        units,
        ..Units::default()
    };
    let due = tokio::time::Instant::now() + Duration::from_secs(4);
    let mut late = false;
    for name in wanted {
        match tokio::time::timeout_at(due, details(name)).await {
            Ok(details) => view.details.push(details),
            Err(_) => late = true,
        }
    }
    let mut gathered = Gathered::json(view, |it| halve(&mut it.units, &mut it.omitted));
    if let Some(trouble) = listed.trouble {
        gathered = gathered.missing(trouble);
    }
    if all_failed > MAX_DETAILS || late {
        gathered = gathered.missing("not all failed units are told in detail");
    }
    gathered
}

async fn details(name: String) -> UnitDetails {
    let shown = run(
        "systemctl",
        &["show", "--no-pager", PROPERTIES, "--", &name],
        64 << 10,
        PROGRAM,
    )
    .await;
    let properties: BTreeMap<String, String> = String::from_utf8_lossy(&shown.output)
        .lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| !value.is_empty() && *value != "[not set]")
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let said = journal_of(&name, DETAIL_LINES, PROGRAM).await;
    // Through the redactor as a whole: a line does not know what the one before began.
    let lines = Gathered::latest(&said.output, DETAIL_LINES);
    UnitDetails {
        name,
        properties,
        journal: String::from_utf8_lossy(&lines.bytes)
            .lines()
            .map(ToOwned::to_owned)
            .collect(),
    }
}

pub(super) async fn journal(unit: &str, lines: u32) -> Gathered {
    let lines = count(lines);
    let said = journal_of(unit, lines, JOURNAL).await;
    if said.output.is_empty() && unit.is_empty() {
        // Where there is no journal, there may be a file.
        for path in ["/var/log/syslog", "/var/log/messages"] {
            let (tail, _) = on_thread(PROGRAM, move |found: &Found<Vec<u8>>| {
                let tail = tail_of(std::path::Path::new(path));
                found.update(|it| *it = tail);
            })
            .await;
            if !tail.is_empty() {
                return Gathered::latest(&tail, lines);
            }
        }
    }
    told(said, lines)
}

fn told(said: Said, lines: usize) -> Gathered {
    match (said.output.is_empty(), said.trouble) {
        (true, Some(trouble)) => Gathered::failed(&trouble),
        (_, trouble) => {
            let gathered = Gathered::latest(&said.output, lines);
            match trouble {
                Some(trouble) => gathered.missing(trouble),
                None => gathered,
            }
        }
    }
}

async fn journal_of(unit: &str, lines: usize, within: Duration) -> Said {
    let lines = format!("--lines={}", lines + BEFORE);
    let unit = format!("--unit={unit}");
    let mut args = vec!["--no-pager", "--quiet", "--output=short-iso", &lines];
    if unit != "--unit=" {
        args.push(&unit);
    }
    run("journalctl", &args, MAX_OUTPUT, within).await
}

pub(super) async fn kernel(lines: u32) -> Gathered {
    let lines = count(lines);
    let (messages, ended) = on_thread(PROGRAM, read_kernel_log).await;
    if !messages.is_empty() {
        let gathered = Gathered::latest(&messages, lines);
        return if ended {
            gathered
        } else {
            gathered.missing("reading the kernel's log took too long")
        };
    }
    // The journal has it even where this process may not read the device.
    let all = format!("--lines={}", lines + BEFORE);
    let args = [
        "--dmesg",
        "--no-pager",
        "--quiet",
        "--output=short-iso",
        &all,
    ];
    let said = run("journalctl", &args, MAX_OUTPUT, PROGRAM).await;
    if said.output.is_empty() {
        let why = said
            .trouble
            .unwrap_or_else(|| "the journal has none of the kernel's messages".to_owned());
        return Gathered::failed(&format!("/dev/kmsg cannot be read, and {why}"));
    }
    told(said, lines)
}

/// One record a read, until there is none.
fn read_kernel_log(found: &Found<Vec<u8>>) {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg");
    let Ok(mut log) = opened else {
        return;
    };
    let mut record = vec![0; 16 << 10];
    loop {
        match log.read(&mut record) {
            Ok(0) => return,
            Ok(length) => {
                let record = String::from_utf8_lossy(&record[..length]);
                let Some(line) = read_as::kernel_line(&record) else {
                    continue;
                };
                let full = found.update(|it| {
                    it.extend_from_slice(line.as_bytes());
                    it.push(b'\n');
                    it.len() > MAX_OUTPUT
                });
                if full {
                    return;
                }
            }
            // Overwritten while we read: the next one is there.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(_) => return,
        }
    }
}

/// The end of a file, from the beginning of a line.
pub(super) fn tail_of(path: &std::path::Path) -> Vec<u8> {
    use std::io::{Seek, SeekFrom};
    const TAIL: u64 = 1 << 20;
    let Ok(mut file) = std::fs::File::open(path) else {
        return Vec::new();
    };
    let length = file.metadata().map_or(0, |it| it.len());
    if length <= TAIL {
        return read(path, TAIL);
    }
    let mut bytes = Vec::new();
    if file.seek(SeekFrom::Start(length - TAIL)).is_ok() {
        let _ = file.take(TAIL).read_to_end(&mut bytes);
    }
    let line = bytes.iter().position(|byte| *byte == b'\n');
    bytes.drain(..line.map_or(bytes.len(), |at| at + 1));
    bytes
}

fn count(lines: u32) -> usize {
    let lines = if lines == 0 {
        LINES
    } else {
        lines.min(MAX_LINES)
    };
    usize::try_from(lines).unwrap_or(1000)
}
