//! `install`: what every user does first. Three hosts, one pasted command each.

use std::{collections::BTreeMap, fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};

use super::support::{agent_started, install_all};
use crate::{
    product::{Programs, WORKSPACE, World, is_connected},
    say,
    wait::{self, Look},
};

/// From the agent's start to its line in the list.
const LISTED: f64 = 5.0;

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::with_hosts(programs, 3)?;
    let token = world.step("make a short-lived token", || {
        world.token(&["--description", "three new hosts", "--label", "rack=a1"])
    })?;

    world.step("install on all three with the printed command", || {
        // Listing while they install: the success of an installer comes later than the host.
        let seen = thread::scope(|scope| {
            let installs: Vec<_> = world
                .hosts()
                .iter()
                .map(|host| scope.spawn(|| token.install(host)?.ok()))
                .collect();
            let seen = first_seen(&world);
            for install in installs {
                install
                    .join()
                    .map_err(|_| anyhow::anyhow!("an install panicked"))??;
            }
            seen
        })?;
        for host in world.hosts() {
            let took = seen[host.name()] - agent_started(host)?;
            say::line(format_args!(
                "              {} listed {took:.1} s after its agent's start",
                host.name()
            ));
            ensure!(
                took <= LISTED,
                "{} took longer than {LISTED} s",
                host.name()
            );
        }
        Ok(())
    })?;

    world.step(
        "each is listed with its facts and the token's labels",
        || {
            for host in world.hosts() {
                let listed = world.wait_connected(host.name(), Duration::from_secs(5))?;
                let id = listed["id"].as_str().context("a host has an id")?;
                let shown = world.host(id)?;
                ensure!(
                    shown["labels"]["rack"] == "a1",
                    "labels of the token are missing: {shown}"
                );
                ensure!(
                    shown["boot_id"] == *host.boot_id()?,
                    "another boot id is shown: {shown}"
                );
                ensure!(shown["carrier"] == "udp", "the link is not on UDP: {shown}");
                ensure!(!shown["facts"].is_null(), "there are no facts: {shown}");
            }
            ensure!(
                world.listed()?.len() == 3,
                "there are more hosts than machines"
            );
            Ok(())
        },
    )?;

    world.step("the token's secret is in no file and no process list", || {
        for host in world.hosts() {
            // The secret comes by standard input and stays inside the shell, or the search
            // would find itself.
            let search = "read -r secret; \
                          printf '%s\\n' \"$secret\" | grep -rlF -f - /etc /var /usr/local /root /run 2>/dev/null; \
                          all=$(cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'); \
                          case $all in *\"$secret\"*) echo 'a running process' ;; esac";
            let found = host.exec(&["sh", "-c", search]).input(format!("{}\n", token.secret).as_bytes()).ok()?;
            ensure!(found.trim().is_empty(), "on {}: {found}", host.name());
        }
        Ok(())
    })?;

    world.step("a second run changes nothing", || {
        let before = world
            .hosts()
            .iter()
            .map(agent_started)
            .collect::<Result<Vec<_>>>()?;
        for output in install_all(world.hosts(), &token)? {
            ensure!(
                output.contains("nothing to do"),
                "it does not say so: {output}"
            );
        }
        let after = world
            .hosts()
            .iter()
            .map(agent_started)
            .collect::<Result<Vec<_>>>()?;
        ensure!(before == after, "an agent was restarted");
        ensure!(world.listed()?.len() == 3, "a host joined twice");
        Ok(())
    })?;

    world.step("the token says who used it", || {
        let tokens = world.cli().list(&["token", "list", "-w", WORKSPACE])?;
        let used = tokens
            .iter()
            .find(|item| item["id"] == *token.id)
            .context("the token is listed")?;
        ensure!(used["uses"] == 3, "it counts otherwise: {used}");
        Ok(())
    })
}

/// When each host was first listed as connected, in seconds since this machine's boot.
fn first_seen(world: &World) -> Result<BTreeMap<String, f64>> {
    let mut seen = BTreeMap::new();
    wait::until("three hosts to be listed", Duration::from_secs(120), || {
        for host in world.listed()?.iter().filter(|host| is_connected(host)) {
            if let Some(name) = host["name"].as_str() {
                seen.entry(name.to_owned()).or_insert(uptime()?);
            }
        }
        Ok(Look::when(seen.len() == 3, || format!("listed: {seen:?}")))
    })?;
    Ok(seen)
}

/// The kernel's clock, which hosts and this machine share.
fn uptime() -> Result<f64> {
    let text = fs::read_to_string("/proc/uptime").context("read the uptime")?;
    text.split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .context("parse the uptime")
}
