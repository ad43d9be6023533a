//! `uninstall`: as if it had never been there.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};

use super::support::{JOIN, text};
use crate::{
    lab::Host,
    product::{Programs, Token, World},
};

/// What a running system writes by itself.
const OWN: &[&str] = &[
    "etc/.updated",
    "etc/machine-id",
    "tmp",
    "var/.updated",
    "var/cache",
    "var/lib/dbus",
    "var/lib/private",
    "var/lib/systemd",
    "var/log/journal",
    "var/log/wtmp",
    "var/log/lastlog",
    "var/log/btmp",
    "var/tmp",
    "run",
    "root/.bash_history",
];

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::with_hosts(programs, 1)?;
    let host = &world.hosts()[0];
    let before = world.step("remember every file and user", || traces(host))?;
    let token = world.token(&[])?;
    let id = world.step("install", || {
        token.install(host)?.ok()?;
        let listed = world.wait_connected(host.name(), JOIN)?;
        ensure!(
            traces(host)? != before,
            "installing left no trace; the comparison is blind"
        );
        text(&listed, "id").map(str::to_owned)
    })?;

    world.step("uninstall with the same script", || uninstall(host, &token))?;
    world.step("no file, unit, user or process is left", || {
        let after = traces(host)?;
        let left: Vec<_> = after.difference(&before).collect();
        ensure!(left.is_empty(), "left behind: {left:?}");
        let gone: Vec<_> = before.difference(&after).collect();
        ensure!(gone.is_empty(), "taken away: {gone:?}");
        Ok(())
    })?;
    world.step("the gateway has retired the host", || {
        let host = world.host(&id)?;
        ensure!(
            host["membership"] == "retired",
            "it is {}",
            host["membership"]
        );
        world.wait_event(&id, "retired", JOIN).map(drop)
    })?;
    world.step(
        "a second uninstall is a no-op, and the host may join anew",
        || {
            uninstall(host, &token)?;
            token.install(host)?.ok()?;
            let again = world.wait_connected(host.name(), JOIN)?;
            ensure!(again["id"] != id, "a retired identity is in use again");
            Ok(())
        },
    )
}

/// Fetches the script as the install command does, and asks it for the opposite.
fn uninstall(host: &Host, token: &Token) -> Result<()> {
    let (fetch, _) = token
        .install_command
        .split_once('|')
        .context("the command has a pipe")?;
    host.exec(&["bash", "-o", "pipefail"])
        .input(format!("{fetch}| sh -s -- --uninstall").as_bytes())
        .limit(Duration::from_secs(90))
        .ok()
        .map(drop)
}

/// Everything that software leaves on a host: files, users, groups, units, processes.
fn traces(host: &Host) -> Result<BTreeSet<String>> {
    let mut traces: BTreeSet<_> = host
        .written_files()?
        .into_iter()
        .filter(|path| {
            !OWN.iter()
                .any(|own| path == own || path.starts_with(&format!("{own}/")))
        })
        .map(|path| format!("file /{path}"))
        .collect();
    let lists = "getent passwd | sed 's/^/user /'; getent group | sed 's/^/group /'; \
                 systemctl list-unit-files --no-legend --plain | awk '!/^run-u[0-9]+[.]/ {print \"unit \" $1}'; \
                 systemctl list-units --all --no-legend --plain | awk '$1 ~ /loopback/ {print \"loaded \" $1}'; \
                 ps -eo comm= | awk '/loopback/ {print \"process \" $1}'; \
                 ls -d /run/*loopback* 2>/dev/null | sed 's/^/runtime /'; true";
    traces.extend(host.sh(lists)?.lines().map(str::to_owned));
    Ok(traces)
}
