//! `clone`: a copied disk is noticed at once, and an operator says what it is.
//!
//! A pair of hosts for each answer. The copy is a real one: every file the agent owns, as a cloned
//! virtual disk would carry it.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::support::{JOIN, text};
use crate::{
    lab::Host,
    product::{Programs, WORKSPACE, World, is_connected},
    sh,
    wait::{self, Look},
};

/// What an installation consists of.
const AGENT_FILES: &[&str] = &[
    "usr/local/bin/loopback-agent",
    "etc/loopback-agent",
    "etc/systemd/system/loopback-agent.service",
    "var/lib/loopback-agent",
];

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::with_hosts(programs, 6)?;
    let [split, split_copy, replaced, replacing, dead, restored] = world.hosts() else {
        bail!("the lab has not six hosts")
    };
    world.step("install on three of them", || {
        let token = world.token(&[])?;
        for original in [split, replaced, dead] {
            token.install(original)?.ok()?;
            world.wait_connected(original.name(), JOIN)?;
        }
        Ok(())
    })?;

    let (original, newcomer) = suspected(&world, split, split_copy)?;
    world.step("split: the copy becomes a host of its own", || {
        repair(&world, "split", &newcomer)?;
        let [one, two] = [split, split_copy].map(|host| machine_connected(&world, host));
        let (one, two) = (one?, two?);
        ensure!(one["id"] == original, "the original changed its id: {one}");
        ensure!(two["id"] != original, "both go by one id: {two}");
        Ok(())
    })?;

    let (_, newcomer) = suspected(&world, replaced, replacing)?;
    world.step(
        "replace: the copy takes the original's place, the original is out",
        || {
            repair(&world, "replace", &newcomer)?;
            let host = machine_connected(&world, replacing)?;
            let rivals = connected_machines(&world, replaced)?;
            ensure!(
                rivals.is_empty(),
                "the original is still in: {rivals:?}, beside {host}"
            );
            Ok(())
        },
    )?;

    // The third story is a disk restored from a backup: one machine, its past, and no original.
    let id = text(&world.wait_connected(dead.name(), JOIN)?, "id")?.to_owned();
    world.step(
        "copy a disk, let its original live on for a while, then shut it down for good",
        || {
            copy_agent(dead, restored)?;
            dead.sh("systemctl restart loopback-agent")?;
            world.wait_connected(dead.name(), JOIN)?;
            // Shut down, not cut off: its link ends now, and not after three silent beats.
            dead.shutdown()
        },
    )?;
    let newcomer = world.step("the restored copy is quarantined", || {
        start_copy(restored)?;
        quarantined(&world, &id)
    })?;
    world.step("merge: its two lives become one", || {
        repair(&world, "merge", &newcomer)?;
        let host = machine_connected(&world, restored)?;
        let others = world.listed_as(text(&host, "name")?)?;
        let alive = |other: &&Value| other["membership"] != "retired" && other["id"] != host["id"];
        let others: Vec<_> = others.iter().filter(alive).collect();
        ensure!(others.is_empty(), "a second record is left: {others:?}");
        Ok(())
    })?;
    world.step("the first pair never noticed", || {
        machine_connected(&world, split)?;
        machine_connected(&world, split_copy).map(drop)
    })
}

/// Clones `original` onto `copy` while it runs; the ids of both once the copy is in quarantine.
fn suspected(world: &World, original: &Host, copy: &Host) -> Result<(String, String)> {
    let what = format!(
        "copy the running agent of {} to {}: quarantined",
        original.name(),
        copy.name()
    );
    world.step(&what, || {
        let host = machine_connected(world, original)?;
        let id = text(&host, "id")?.to_owned();
        copy_agent(original, copy)?;
        start_copy(copy)?;
        let newcomer = quarantined(world, &id)?;
        let host = machine_connected(world, original).context("the original is left alone")?;
        ensure!(host["id"] == *id, "the original changed its id: {host}");
        Ok((id, newcomer))
    })
}

fn copy_agent(from: &Host, to: &Host) -> Result<()> {
    for file in AGENT_FILES {
        let (source, target) = (from.root().join(file), to.root().join(file));
        let folder = target.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let words = [&source, &target].map(|path| path.display().to_string());
        sh::ok(
            &["cp", "-a", "-T", &words[0], &words[1]],
            Duration::from_secs(30),
        )?;
    }
    Ok(())
}

fn start_copy(host: &Host) -> Result<()> {
    // Whether it starts well is the gateway's decision; here it only starts.
    host.sh("systemctl daemon-reload; systemctl enable -q loopback-agent; systemctl start --no-block loopback-agent")
        .map(drop)
}

/// Waits for the newcomer that looks like a clone of this host; its id.
fn quarantined(world: &World, original: &str) -> Result<String> {
    let host = wait::until("a quarantined newcomer", JOIN, || {
        let hosts = world.listed()?;
        let found = hosts
            .iter()
            .find(|host| host["membership"] == "quarantined" && host["clone_of"] == *original)
            .cloned();
        Ok(Look::some(found, || {
            format!("{} hosts, none quarantined", hosts.len())
        }))
    })?;
    text(&host, "id").map(str::to_owned)
}

fn repair(world: &World, how: &str, newcomer: &str) -> Result<()> {
    world
        .cli()
        .text(&["host", how, "-w", WORKSPACE, newcomer])
        .map(drop)
}

/// Waits until this very machine is connected: its address is the one thing that a copied disk does
/// not bring along.
fn machine_connected(world: &World, host: &Host) -> Result<Value> {
    wait::until(
        &format!("the machine {} to be connected", host.name()),
        JOIN,
        || {
            let found = connected_machines(world, host)?.into_iter().next();
            Ok(Look::some(found, || {
                "no record with its address is connected".into()
            }))
        },
    )
}

fn connected_machines(world: &World, host: &Host) -> Result<Vec<Value>> {
    let address = host.address().to_string();
    let hosts = world.listed()?.into_iter();
    Ok(hosts
        .filter(|host| is_connected(host) && host["address"] == *address)
        .collect())
}
