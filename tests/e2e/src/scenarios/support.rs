//! What several stories do with hosts.

use std::{thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    lab::Host,
    product::{Programs, Token, World},
    sh,
};

/// A fresh boot, a join and a first heartbeat fit well into this; a busy machine needs the rest.
pub(super) const JOIN: Duration = Duration::from_secs(30);

/// A world whose `count` hosts have installed the agent and are connected.
pub(super) fn joined_world(programs: &Programs, count: u8) -> Result<World> {
    let world = World::with_hosts(programs, count)?;
    world.step("install the agent on them", || {
        let token = world.token(&[])?;
        install_all(world.hosts(), &token)?;
        for host in world.hosts() {
            world.wait_connected(host.name(), JOIN)?;
        }
        Ok(())
    })?;
    Ok(world)
}

/// Installs on these hosts at once; what each installer printed.
pub(super) fn install_all(hosts: &[Host], token: &Token) -> Result<Vec<String>> {
    thread::scope(|scope| {
        let installs: Vec<_> = hosts
            .iter()
            .map(|host| {
                scope.spawn(|| {
                    let output = token.install(host)?;
                    ensure!(output.status.success(), "{output}");
                    Ok(output.stdout + &output.stderr)
                })
            })
            .collect();
        installs
            .into_iter()
            .map(|install| {
                install
                    .join()
                    .unwrap_or_else(|_| bail!("an install panicked"))
            })
            .collect()
    })
}

/// When the host's agent was started, in seconds since this machine's boot.
pub(super) fn agent_started(host: &Host) -> Result<f64> {
    let text = host.sh(
        "systemctl show --value --property=ExecMainStartTimestampMonotonic loopback-agent.service",
    )?;
    let micros: f64 = text
        .trim()
        .parse()
        .with_context(|| format!("parse {text:?}"))?;
    ensure!(
        micros > 0.0,
        "the agent of {} was never started",
        host.name()
    );
    Ok(micros / 1e6)
}

/// A text field that must be there.
pub(super) fn text<'v>(value: &'v Value, field: &str) -> Result<&'v str> {
    value[field]
        .as_str()
        .with_context(|| format!("{field} is missing in {value}"))
}

/// How often an event of this kind is in a history.
pub(super) fn count(history: &[Value], kind: &str) -> usize {
    history
        .iter()
        .filter(|entry| entry["event"]["kind"] == kind)
        .count()
}

/// Windows of a policy: one of an hour that is far from now.
pub(super) fn closed_window() -> Result<Value> {
    let mut date = sh::command(&["date", "-u", "+%H"]);
    let hour: u32 = sh::run(&mut date, Duration::from_secs(5))?
        .ok()?
        .trim()
        .parse()?;
    let from = (hour + 12) % 24;
    Ok(json!([{
        "days": [], "from": format!("{from:02}:00"), "to": format!("{:02}:00", (from + 1) % 24),
    }]))
}
