//! As many agents as the goal asks for on one gateway, with heartbeats every thirty seconds.

use std::time::Duration;

use anyhow::Result;
use e2e::{interrupt, say};

use super::{Bench, time_to_connect};
use crate::{
    figure::{Figure, Goal},
    fleet::Certificates,
    gateway::Gateway,
    load::Clients,
    process,
};

const AGENTS: usize = 50_000;
const HEARTBEAT: Duration = Duration::from_secs(30);
const SETTLE: Duration = Duration::from_secs(60);
const OVER: Duration = Duration::from_secs(60);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
    say::line(format_args!("   certificates for {AGENTS} hosts"));
    let fleet = gateway.populate(AGENTS, Certificates::Real)?;
    let dropped = process::udp_receive_errors();
    let began = std::time::Instant::now();
    let mut swarm = Clients::start(&[
        "swarm",
        "--fleet",
        &fleet.display().to_string(),
        "--gateway",
        &gateway.quic().to_string(),
    ])?;
    // How far it came is the figure, also when it did not come all the way.
    if let Err(error) = swarm.wait_up(AGENTS, time_to_connect(AGENTS)) {
        say::line(format_args!("   {error:#}"));
    }
    let took = began.elapsed();
    interrupt::pause(SETTLE)?;
    let before = (process::cpu(gateway.pid()?)?, swarm.status()?);
    interrupt::pause(OVER)?;
    let after = (process::cpu(gateway.pid()?)?, swarm.status()?);
    let cpu = after.0.saturating_sub(before.0).as_secs_f64() / OVER.as_secs_f64() * 100.0;
    let mib = process::resident_kib(gateway.pid()?)? / 1024.0;
    let dropped = process::udp_receive_errors() - dropped;
    #[expect(clippy::cast_precision_loss, reason = "counts of agents and datagrams")]
    let count = |number: u64| number as f64;
    Ok(vec![
        Figure::alone(
            "agents linked",
            "",
            count(after.1.up),
            Goal::AtLeast(count(AGENTS as u64)),
        ),
        Figure::alone(
            "links lost in a minute at rest",
            "",
            count(after.1.lost - before.1.lost),
            Goal::AtMost(0.0),
        ),
        Figure::alone("memory", "MiB", mib, Goal::AtMost(2048.0)),
        Figure::alone("CPU at rest", "% of a core", cpu, Goal::AtMost(25.0)),
        Figure::alone("time to link all", "s", took.as_secs_f64(), Goal::Informs),
        Figure::alone(
            "datagrams dropped for lack of buffer",
            "",
            count(dropped),
            Goal::Informs,
        ),
    ])
}
