//! Removing a lab, whole or half-built, from its name and folder alone.
//!
//! Order matters: processes first (they hold mounts and namespaces), then mounts, namespaces,
//! control groups, and the folder last, because the folder is what tells a later run that there is
//! something to remove. Each step goes on where it can; the first error is reported at the end.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};

use super::{QUICK, net};
use crate::{
    sh,
    wait::{self, Look},
};

/// Removes the lab `name` whose files lie in `folder`.
pub(super) fn lab(name: &str, folder: &Path) -> Result<()> {
    let groups = net::lab_cgroups(name);
    let mut first = end_processes(&groups);
    let mut note = |step: Result<()>| {
        if first.is_ok() {
            first = step;
        }
    };
    note(unmount_below(folder));
    for space in net::namespaces(name)? {
        note(net::ip(&["netns", "del", &space]));
    }
    for group in &groups {
        note(remove_group(group));
    }
    first?;
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))
}

/// Kills everything in these control groups and waits until they are empty.
pub(super) fn end_processes(groups: &[PathBuf]) -> Result<()> {
    wait::until(
        "the lab's processes to end",
        Duration::from_secs(20),
        || {
            let pids = processes(groups);
            for pid in &pids {
                // Ended between listing and killing: fine.
                let _ = rustix::process::kill_process(*pid, Signal::KILL);
            }
            Ok(Look::when(pids.is_empty(), || format!("alive: {pids:?}")))
        },
    )
}

/// All processes in these control groups and below.
pub(super) fn processes(groups: &[PathBuf]) -> Vec<Pid> {
    let mut pids = Vec::new();
    let mut folders = groups.to_vec();
    while let Some(folder) = folders.pop() {
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // Zero stands for a process of another pid namespace; there is none above us here.
        pids.extend(
            list.lines()
                .filter_map(|line| line.parse().ok())
                .filter_map(Pid::from_raw),
        );
        folders.extend(subfolders(&folder));
    }
    pids.sort_unstable_by_key(|pid| pid.as_raw_nonzero());
    pids.dedup();
    pids
}

fn unmount_below(folder: &Path) -> Result<()> {
    ensure!(folder.is_absolute(), "a lab's folder is an absolute path");
    let prefix = format!("{}/", folder.display());
    let mounts = fs::read_to_string("/proc/self/mounts").context("list mounts")?;
    // The later a mount, the deeper it may lie.
    for point in mounts
        .lines()
        .rev()
        .filter_map(|line| line.split(' ').nth(1))
    {
        if point.starts_with(&prefix) {
            sh::ok(&["umount", point], QUICK)
                // Busy for a moment after its processes died; detached it goes by itself.
                .or_else(|_| sh::ok(&["umount", "-l", point], QUICK))?;
        }
    }
    Ok(())
}

fn remove_group(group: &Path) -> Result<()> {
    for below in subfolders(group) {
        remove_group(&below)?;
    }
    if !group.exists() {
        return Ok(());
    }
    wait::until(
        "a control group to be empty",
        Duration::from_secs(5),
        || {
            Ok(Look::when(
                fs::remove_dir(group).is_ok() || !group.exists(),
                || format!("{} is busy", group.display()),
            ))
        },
    )
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
