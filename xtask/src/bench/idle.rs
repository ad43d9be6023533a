//! What the processes cost that run all the time: memory at rest, and how fast a gateway is back.
//!
//! Release builds on this machine's loopback interface. Memory is read after a joined agent has
//! sent its facts and some heartbeats, so that everything is warm that ever will be.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use e2e::{
    interrupt,
    product::{Programs, WORKSPACE, World},
};

use super::Figure;
use crate::{
    release,
    workspace::{Workspace, program},
};

/// What the installed unit may use is ten times that; the rest is for work.
const AGENT_MB: f64 = 24.0;
const GATEWAY_MB: f64 = 96.0;
/// A restart shorter than a heartbeat goes unnoticed.
const START_MS: f64 = 1000.0;
const JOIN: Duration = Duration::from_secs(30);
/// Three heartbeats of the default workspace.
const SETTLE: Duration = Duration::from_secs(30);

/// The static agent at rest.
pub(super) fn agent(workspace: &Workspace) -> Result<Vec<Figure>> {
    let world = world(workspace)?;
    let binary = release::build(workspace, release::native()?)?;
    let token = world.token(&["--label", "bench=agent"])?;
    let agent = world.agent_program("agent", &token, &[&binary.display().to_string()])?;
    world.wait_labelled("bench", "agent", JOIN)?;
    interrupt::pause(SETTLE)?;
    Ok(vec![resident(agent.process.pid(), AGENT_MB)?])
}

/// The gateway at rest with one host, and its start on existing state.
pub(super) fn gateway(workspace: &Workspace) -> Result<Vec<Figure>> {
    let world = world(workspace)?;
    let token = world.token(&["--label", "bench=agent"])?;
    let _agent = world.agent("agent", &token)?;
    world.wait_labelled("bench", "agent", JOIN)?;
    interrupt::pause(SETTLE)?;
    let memory = resident(
        world.gateway().pid().context("the gateway runs")?,
        GATEWAY_MB,
    )?;

    world.gateway().stop()?;
    let start = Instant::now();
    world.gateway().up()?;
    world.cli().text(&["host", "list", "-w", WORKSPACE])?;
    let start = Figure {
        name: "start to first answer",
        value: start.elapsed().as_secs_f64() * 1e3,
        unit: "ms",
        limit: Some(START_MS),
    };
    Ok(vec![memory, start])
}

fn world(workspace: &Workspace) -> Result<World> {
    let built = workspace.build(&[
        "--release",
        "--package",
        "gateway",
        "--package",
        "agent",
        "--package",
        "cli",
        "--bins",
    ])?;
    World::here(&Programs {
        gateway: program(&built, "loopback-gateway")?,
        agent: program(&built, "loopback-agent")?,
        cli: program(&built, "loopback")?,
        ..Programs::default()
    })
}

fn resident(pid: u32, limit: f64) -> Result<Figure> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("read its memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .context("its status has VmRSS")?;
    Ok(Figure {
        name: "resident at rest",
        value: kib * 1024.0 / 1e6,
        unit: "MB",
        limit: Some(limit),
    })
}
