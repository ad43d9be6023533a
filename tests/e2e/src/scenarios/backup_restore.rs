//! `backup-restore`: the gateway's machine is lost, and its backup goes on elsewhere. Hosts notice
//! an absence and nothing else; what was forbidden before the backup stays forbidden.

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::support::{JOIN, count, install_all, text};
use crate::{
    product::{Cli, Programs, WORKSPACE, World},
    say,
    wait::{self, Look},
};

const WRITERS: usize = 2;

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::with_hosts(programs, 4)?;
    let [one, two, later, stranger] = world.hosts() else {
        bail!("the lab has not four hosts")
    };
    let leaked = world.token(&["--description", "to be leaked"])?;
    let token = world.token(&[])?;
    let before = world.step("two hosts join, one of them is named and labelled", || {
        install_all(&world.hosts()[..2], &token)?;
        let ids = [one, two].map(|host| world.wait_connected(host.name(), JOIN));
        let ids = ids
            .into_iter()
            .map(|host| text(&host?, "id").map(str::to_owned));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        let label = ["host", "label", "-w", WORKSPACE, &ids[0], "rack=7"];
        world.cli().text(&label)?;
        Ok(ids)
    })?;
    world.step(
        "a token is revoked, and the context keeps the authorities",
        || {
            let revoke = ["token", "delete", "-w", WORKSPACE, &leaked.id, "--yes"];
            world.cli().text(&revoke)?;
            // The context must not lean on a file of the machine that will be lost.
            world.cli().text(&["ca", "trust"]).map(drop)
        },
    )?;

    let backup = world.folder().join("it.backup").display().to_string();
    let written = world.step("back it up while writers write", || {
        let (written, said) = under_load(world.cli(), || {
            world.gateway().ask(&["backup", &backup])?.ok()
        })?;
        say::line(format_args!(
            "              {}",
            said.lines().next().unwrap_or_default()
        ));
        Ok(written)
    })?;
    world.step("the backup is whole", || {
        world.gateway().ask(&["backup", "verify", &backup])?.ok()
    })?;
    let (later_id, undone) =
        world.step("later another host joins, and something is made", || {
            token.install(later)?.ok()?;
            let host = world.wait_connected(later.name(), JOIN)?;
            let id = text(&host, "id")?.to_owned();
            let project = ["project", "create", "after-the-backup"];
            world.cli().text(&project)?;
            Ok((id, "after-the-backup"))
        })?;
    world.step(
        "agents restart, so that their counters are ahead of the backup",
        || {
            for host in [one, two, later] {
                host.sh("systemctl restart loopback-agent")?;
                world.wait_connected(host.name(), JOIN)?;
            }
            Ok(())
        },
    )?;

    world.step("the gateway's machine is lost", || {
        world.gateway().kill()?;
        fs::remove_dir_all(world.gateway().state()).context("lose its disk")
    })?;
    world.step(
        "its backup is restored into another folder, and served",
        || {
            let elsewhere = world.folder().join("restored");
            world.gateway().move_state(programs, elsewhere)?;
            world.gateway().ask(&["restore", &backup])?.ok()?;
            world.gateway().up()
        },
    )?;

    world.step(
        "the hosts are back as who they were, without joining",
        || {
            for (host, id) in [one, two].into_iter().zip(&before) {
                let listed = world.wait_connected(host.name(), JOIN)?;
                ensure!(listed["id"] == **id, "it is somebody else: {listed}");
            }
            let listed = world.host(&before[0])?;
            ensure!(
                listed["labels"]["rack"] == "7",
                "its label is lost: {listed}"
            );
            Ok(())
        },
    )?;
    world.step(
        "the host that joined later is taken in under its own id",
        || {
            let listed = wait::until("the later host to be connected", JOIN, || {
                let found = world.listed()?;
                let found = found.into_iter().find(|host| host["id"] == *later_id);
                let found = found.filter(crate::product::is_connected);
                Ok(Look::some(found, || "it is not".into()))
            })?;
            ensure!(
                listed["address"] == *later.address().to_string(),
                "{listed}"
            );
            Ok(())
        },
    )?;
    world.step("the audit trail says so, and nobody joined again", || {
        let enrolled = audited(&world, "host.enrol")?;
        ensure!(enrolled == sorted(&before), "joined: {enrolled:?}");
        let adopted = audited(&world, "host.adopt")?;
        ensure!(adopted == [later_id.clone()], "adopted: {adopted:?}");
        let ahead = audited(&world, "host.ahead")?;
        ensure!(ahead == sorted(&before), "ahead of the backup: {ahead:?}");
        for id in before.iter().chain([&later_id]) {
            let history = world.history(id)?;
            ensure!(
                count(&history, "clone_suspected") == 0,
                "accused: {history:?}"
            );
        }
        Ok(())
    })?;
    world.step(
        "what was acknowledged before the backup is there, what came after is not",
        || {
            let listed = world.cli().list(&["project", "list"])?;
            let names: BTreeSet<_> = listed.iter().filter_map(|it| it["name"].as_str()).collect();
            let lost: Vec<_> = written
                .iter()
                .filter(|name| !names.contains(name.as_str()))
                .collect();
            ensure!(lost.is_empty(), "lost: {lost:?}");
            ensure!(
                !names.contains(undone),
                "something from after the backup is there"
            );
            Ok(())
        },
    )?;
    world.step("the revoked token joins nobody", || {
        let output = leaked.install(stranger)?;
        ensure!(
            !output.status.success(),
            "the installer succeeded: {output}"
        );
        ensure!(
            world.listed_as(stranger.name())?.is_empty(),
            "the host joined"
        );
        Ok(())
    })?;
    world.step(
        "the other token still joins; hosts survive one more restart of the gateway",
        || {
            token.install(stranger)?.ok()?;
            world.wait_connected(stranger.name(), JOIN)?;
            world.gateway().stop()?;
            world.gateway().up()?;
            for host in world.hosts() {
                world.wait_connected(host.name(), JOIN)?;
            }
            Ok(())
        },
    )
}

/// Runs `work` while writers make projects; the names that were acknowledged before it began, and
/// what it answered.
fn under_load<T>(cli: &Cli, work: impl FnOnce() -> Result<T>) -> Result<(Vec<String>, T)> {
    let stop = AtomicBool::new(false);
    let acknowledged = Mutex::new(Vec::new());
    let done = || acknowledged.lock().map(|it| it.clone()).unwrap_or_default();
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (stop, acknowledged) = (&stop, &acknowledged);
            scope.spawn(move || {
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("load-{writer}-{number}");
                    number += 1;
                    if cli.text(&["project", "create", &name]).is_ok()
                        && let Ok(mut acknowledged) = acknowledged.lock()
                    {
                        acknowledged.push(name);
                    }
                }
            });
        }
        let worked = wait::until("writers to write", JOIN, || {
            let count = done().len();
            Ok(Look::when(count >= 2 * WRITERS, || {
                format!("{count} writes")
            }))
        })
        .and_then(|()| {
            let before = done();
            work().map(|answer| (before, answer))
        });
        stop.store(true, Ordering::Relaxed);
        worked
    })
}

/// On which hosts the workspace's audit trail says that this was done, once for each time.
fn audited(world: &World, action: &str) -> Result<Vec<String>> {
    let trail = ["audit", "list", "-w", WORKSPACE, "--all"];
    let mut targets = Vec::new();
    for record in world.cli().list(&trail)? {
        let entry: Value = serde_json::from_str(text(&record, "body")?).context("read an entry")?;
        if entry["action"] == action {
            targets.push(text(&entry, "target")?.to_owned());
        }
    }
    Ok(sorted(&targets))
}

fn sorted(ids: &[String]) -> Vec<String> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids
}
