//! Everything that a run has started, and its end.

use std::collections::BTreeSet;
use std::fs;

use agent_core::runs::processes::{Process, below};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};

use super::cgroup::Group;

/// Rounds of stopping processes that start others, before all are killed.
const STOP_ROUNDS: usize = 100;

/// The processes of this watcher's run.
#[derive(Debug)]
pub struct Tree {
    group: Option<Group>,
}

impl Tree {
    /// Of this process, which must be a subreaper.
    pub fn new(group: Option<Group>) -> Self {
        Self { group }
    }

    /// Who is alive.
    pub fn alive(&self) -> BTreeSet<Process> {
        let all = every_process();
        let mut found: BTreeSet<Process> = below(getpid().as_raw_nonzero().get(), &all)
            .into_iter()
            .collect();
        if let Some(group) = &self.group {
            let members: BTreeSet<i32> = group.members().into_iter().collect();
            let inside = |it: &&Process| members.contains(&it.pid) && !it.is_zombie;
            found.extend(all.iter().filter(inside));
        }
        found
    }

    /// Asks everybody to end; who that was.
    pub fn terminate(&self) -> BTreeSet<Process> {
        let alive = self.alive();
        for process in &alive {
            send(process, Signal::TERM);
            // One that is stopped would not hear.
            send(process, Signal::CONT);
        }
        alive
    }

    /// Kills everybody; who that was. Those that start others faster than they can be
    /// found are stopped first.
    pub fn kill(&self) -> BTreeSet<Process> {
        if let Some(group) = &self.group {
            let alive = self.alive();
            group.kill();
            if self.alive().is_empty() {
                return alive;
            }
        }
        let mut stopped = BTreeSet::new();
        for _ in 0..STOP_ROUNDS {
            let alive = self.alive();
            let news: Vec<_> = alive.difference(&stopped).copied().collect();
            if news.is_empty() {
                break;
            }
            for process in news {
                send(&process, Signal::STOP);
                stopped.insert(process);
            }
        }
        let alive = self.alive();
        for process in &alive {
            send(process, Signal::KILL);
        }
        stopped.extend(alive);
        stopped
    }

    /// Lets go of the control group.
    pub fn leave(&self) {
        if let Some(group) = &self.group {
            group.remove();
        }
    }
}

fn every_process() -> Vec<Process> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            name.to_str()?.parse::<i32>().ok().and_then(look)
        })
        .collect()
}

fn look(pid: i32) -> Option<Process> {
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    Process::parse(&String::from_utf8_lossy(&stat))
}

/// Sends a signal to that very process: its id may be another's by now.
fn send(process: &Process, signal: Signal) {
    let Some(pid) = Pid::from_raw(process.pid) else {
        return;
    };
    let same = || look(process.pid).is_some_and(|it| it.started == process.started);
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => {
            if same() {
                // Gone meanwhile is as good.
                let _ = pidfd_send_signal(&handle, signal);
            }
        }
        // Before Linux 5.3.
        Err(rustix::io::Errno::NOSYS) if same() => {
            let _ = rustix::process::kill_process(pid, signal);
        }
        Err(_) => {}
    }
}
