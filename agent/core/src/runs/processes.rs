//! Which processes belong to a run: everything below the one that watches it.
//!
//! The watcher is a *subreaper*: whoever loses its parent below it becomes its child,
//! whatever sessions or groups were made on the way. So the run is over when the
//! watcher has no children, and the way up from any process of the run leads to it.

use std::collections::{BTreeMap, BTreeSet};

/// A process at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Process {
    /// Its id.
    pub pid: i32,
    /// Its parent's.
    pub parent: i32,
    /// When it started, in ticks since boot: with the id, its name for good.
    pub started: u64,
    /// Whether it has ended and waits to be noticed.
    pub is_zombie: bool,
}

impl Process {
    /// A process from the text of its `/proc/PID/stat`.
    pub fn parse(stat: &str) -> Option<Self> {
        let pid = stat.split_once(' ')?.0.parse().ok()?;
        // The name is the program's to choose, brackets included: its end is the last.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?;
        Some(Self {
            pid,
            parent: fields.next()?.parse().ok()?,
            started: fields.nth(17)?.parse().ok()?,
            is_zombie: matches!(state, "Z" | "X"),
        })
    }
}

/// The living processes below `root`.
pub fn below(root: i32, all: &[Process]) -> Vec<Process> {
    let mut children: BTreeMap<i32, Vec<&Process>> = BTreeMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let (mut found, mut seen, mut ahead) = (Vec::new(), BTreeSet::new(), vec![root]);
    while let Some(parent) = ahead.pop() {
        for process in children.get(&parent).into_iter().flatten() {
            // Read one after the other, the parents may form a circle.
            if seen.insert(process.pid) && process.pid != root {
                ahead.push(process.pid);
                if !process.is_zombie {
                    found.push(**process);
                }
            }
        }
    }
    found.sort_unstable();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_calls_itself() {
        let stat = "42 (a) S 1 (b) R 7 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 0 0";
        let process = Process::parse(stat).unwrap();
        assert_eq!(
            process,
            Process {
                pid: 42,
                parent: 7,
                started: 12345,
                is_zombie: false
            }
        );
        assert_eq!(Process::parse(""), None);
        assert_eq!(Process::parse("42 (a"), None);
        assert_eq!(Process::parse("42 (a) S x"), None);
    }

    #[test]
    fn everything_alive_below_is_found_and_nothing_beside() {
        let process = |pid, parent, is_zombie| Process {
            pid,
            parent,
            started: 1,
            is_zombie,
        };
        let all = [
            process(1, 0, false),
            process(10, 1, false),
            process(11, 10, false),
            process(12, 11, true),
            process(13, 12, false),
            process(20, 1, false),
            process(30, 31, false),
            process(31, 30, false),
        ];
        let pids = |root| {
            below(root, &all)
                .iter()
                .map(|it| it.pid)
                .collect::<Vec<_>>()
        };
        assert_eq!(pids(10), [11, 13]);
        assert_eq!(pids(20), Vec::<i32>::new());
        assert_eq!(pids(30), [31]);
    }
}
