//! A control group for each run, beneath the one that systemd gave the runner.
//!
//! ```text
//! loopback-runner-….service    delegated to us
//!   runner                     the runner and the watchers: a group with groups in it
//!                              may have no processes of its own
//!   cmd_…                      the program of a run, and everything it starts
//! ```
//!
//! With version 2 the groups also limit, and end a tree at one stroke; with version 1
//! they only tell who belongs to a run. Where there are none the watcher's knowledge of
//! its descendants does (`agent_core::runs::processes`), which proves the same: limits
//! of memory, processes and processor time are refused there.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use protocol::v1::Limits;

/// Hands the base from the runner to its workers.
pub const VARIABLE: &str = "LOOPBACK_CGROUP";
const RUNNER: &str = "runner";
const PROCS: &str = "cgroup.procs";
const CPU_PERIOD_US: u64 = 100_000;
/// From the making of a group to its program a moment passes.
const YOUNG: Duration = Duration::from_secs(60);

/// The group beneath which runs get theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    path: PathBuf,
    unified: bool,
}

/// A run's group.
#[derive(Debug)]
pub struct Group {
    path: PathBuf,
    unified: bool,
}

/// Finds the group of this process, if it was delegated to us, and makes room beneath it.
pub fn settle() -> Option<Base> {
    let base = Base::find(&fs::read_to_string("/proc/self/cgroup").ok()?)?;
    let runner = base.path.join(RUNNER);
    fs::create_dir_all(&runner).ok()?;
    fs::write(runner.join(PROCS), "0").ok()?;
    if base.unified {
        for controller in ["memory", "pids", "cpu"] {
            // One that is not delegated is missed when a limit asks for it.
            let _ = fs::write(
                base.path.join("cgroup.subtree_control"),
                format!("+{controller}"),
            );
        }
    }
    Some(base)
}

impl Base {
    /// The group named in the text of `/proc/self/cgroup`, if it is a runner's unit.
    fn find(text: &str) -> Option<Self> {
        let mount = |of: &str| Path::new("/sys/fs/cgroup").join(of);
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(_), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // Anything else is somebody else's to arrange.
            let ours = path.rsplit('/').next().is_some_and(|unit| {
                unit.starts_with("loopback-runner-") && unit.ends_with(".service")
            });
            if !ours || path.split('/').any(|part| part == "..") {
                continue;
            }
            let below = path.trim_start_matches('/');
            let unified = controllers.is_empty();
            let places = match controllers {
                "" => [mount(""), mount("unified")],
                "name=systemd" => [mount("systemd"), mount("systemd")],
                _ => continue,
            };
            let found = places.into_iter().map(|place| place.join(below));
            if let Some(path) = found.into_iter().find(|path| path.join(PROCS).exists()) {
                return Some(Self { path, unified });
            }
        }
        None
    }

    /// For [`VARIABLE`].
    pub fn to_text(&self) -> String {
        let version = if self.unified { 2 } else { 1 };
        format!("{version}:{}", self.path.display())
    }

    /// From [`VARIABLE`].
    pub fn from_text(text: &str) -> Option<Self> {
        let (version, path) = text.split_once(':')?;
        Some(Self {
            path: path.into(),
            unified: version == "2",
        })
    }

    /// A group for a run, with its limits.
    pub fn make(&self, name: &str, limits: &Limits) -> Result<Group, String> {
        let path = self.path.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("make a control group: {error}"));
            }
            _ => {}
        }
        let group = Group {
            path,
            unified: self.unified,
        };
        match group.limit(limits) {
            Ok(()) => Ok(group),
            Err(why) => {
                group.remove();
                Err(why)
            }
        }
    }

    /// Removes groups of runs that are over and left processes, which are gone by now.
    /// `seen` is what stood there before: a group that is younger may wait for its
    /// program.
    pub fn tidy(&self, seen: &mut BTreeMap<OsString, Instant>) {
        let now = Instant::now();
        let entries = fs::read_dir(&self.path).into_iter().flatten().flatten();
        let there: Vec<_> = entries
            .filter(|entry| entry.file_type().is_ok_and(|it| it.is_dir()))
            .map(|entry| entry.file_name())
            .filter(|name| name != RUNNER)
            .collect();
        seen.retain(|name, _| there.contains(name));
        for name in there {
            let since = *seen.entry(name.clone()).or_insert(now);
            if now.duration_since(since) > YOUNG {
                // Fails while a process is in it.
                let _ = fs::remove_dir(self.path.join(name));
            }
        }
    }
}

/// Whether control groups are needed for what is asked.
pub fn are_needed(limits: &Limits) -> bool {
    limits.memory_bytes > 0 || limits.processes > 0 || limits.cpu_millis > 0
}

/// Said where they are needed and are not there.
pub const MISSING: &str = "this host cannot limit memory, processes or processor time of a run: \
     it has no control groups of version 2 that the agent may use; leave these limits out";

impl Group {
    fn limit(&self, limits: &Limits) -> Result<(), String> {
        if !are_needed(limits) {
            return Ok(());
        }
        if !self.unified {
            return Err(MISSING.to_owned());
        }
        let set = |file: &str, value: String| {
            fs::write(self.path.join(file), value).map_err(|_| MISSING.to_owned())
        };
        if limits.memory_bytes > 0 {
            set("memory.max", limits.memory_bytes.to_string())?;
            // Half a tree that goes on is worse than none.
            let _ = set("memory.oom.group", "1".to_owned());
        }
        if limits.processes > 0 {
            set("pids.max", limits.processes.to_string())?;
        }
        if limits.cpu_millis > 0 {
            let quota = u64::from(limits.cpu_millis) * CPU_PERIOD_US / 1000;
            set("cpu.max", format!("{} {CPU_PERIOD_US}", quota.max(1000)))?;
        }
        Ok(())
    }

    /// Writing `0` to it moves who writes into the group.
    pub fn entrance(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.path.join(PROCS))
    }

    /// Who is in it.
    pub fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.path.join(PROCS)).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Kills everybody in it at one stroke, where the kernel can.
    pub fn kill(&self) {
        if self.unified {
            let _ = fs::write(self.path.join("cgroup.kill"), "1");
        }
    }

    /// Removes it; with processes in it, it stays.
    pub fn remove(&self) {
        let _ = fs::remove_dir(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_of_our_own_is_taken() {
        for text in [
            "",
            "0::/system.slice/ssh.service",
            "0::/loopback.slice/loopback-agent.service",
            "0::/../loopback-runner-1.service",
            "nonsense",
            "3:cpu:/loopback.slice/loopback-runner-1.service",
        ] {
            assert_eq!(Base::find(text), None, "{text}");
        }
    }

    #[test]
    fn a_group_that_waits_for_its_program_is_not_removed() {
        let folder = tempfile::tempdir().unwrap();
        let base = Base {
            path: folder.path().to_owned(),
            unified: false,
        };
        let path = folder.path().join("cmd_1");
        fs::create_dir(&path).unwrap();
        let mut seen = BTreeMap::new();
        base.tidy(&mut seen);
        assert!(path.exists());
        for since in seen.values_mut() {
            *since -= YOUNG * 2;
        }
        base.tidy(&mut seen);
        assert!(!path.exists());
    }

    #[test]
    fn the_base_survives_its_way_to_a_worker() {
        for unified in [true, false] {
            let base = Base {
                path: "/sys/fs/cgroup/a:b".into(),
                unified,
            };
            assert_eq!(Base::from_text(&base.to_text()), Some(base));
        }
    }
}
