//! A command that does nothing, to ten thousand simulated agents.
//!
//! From the request that makes the command to the moment when every run is final, each of
//! them written down twice: as sent, and with its result. The agents answer at once; they
//! share the machine with the gateway. Choria's own figure for the like is 3,100 agents a
//! second, reported by its authors and not measured here.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt, say,
    wait::{self, Look},
};
use serde_json::json;

use super::{Bench, HEARTBEAT, micros, per, time_to_connect};
use crate::{
    figure::{Figure, Goal, Samples},
    fleet::Certificates,
    gateway::Gateway,
    load::Clients,
    process,
};

const AGENTS: usize = 10_000;
/// After the last agent has come: nothing but heartbeats is left then.
const SETTLE: Duration = Duration::from_secs(10);
const ALL_DONE: Duration = Duration::from_secs(120);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
    let fleet = gateway.populate(AGENTS, Certificates::Real)?;
    let mut swarm = Clients::start(&[
        "swarm",
        "--fleet",
        &fleet.display().to_string(),
        "--gateway",
        &gateway.quic().to_string(),
    ])?;
    swarm.wait_up(AGENTS, time_to_connect(AGENTS))?;
    let (mut rate, mut cpu) = <(Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        interrupt::pause(SETTLE)?;
        let before = process::cpu(gateway.pid()?)?;
        let began = Instant::now();
        let body = json!({ "targets": { "selector": "" }, "argv": ["true"] });
        let made = gateway.post(&gateway.path("/commands"), &body)?;
        let path = made["id"].as_str().context("a command has an id")?;
        let path = gateway.path(&format!("/commands/{path}"));
        let done = wait::until("every run to be final", ALL_DONE, || {
            let shown = gateway.get(&path)?;
            let done = shown["state"] != "running";
            Ok(Look::some(done.then(|| shown.clone()), || {
                shown.to_string()
            }))
        })?;
        let took = began.elapsed();
        let used = process::cpu(gateway.pid()?)?.saturating_sub(before);
        ensure!(done["state"] == "succeeded", "not all succeeded: {done}");
        let per_second = 1.0 / per(took.as_secs_f64(), AGENTS);
        say::line(format_args!(
            "   round {round}: {took:?}, {per_second:.0} agents/s"
        ));
        rate.push(per_second);
        cpu.push(per(micros(used), AGENTS));
    }
    Ok(vec![
        Figure::alone(
            "fan-out of a no-op to 10,000",
            "agents/s",
            rate,
            Goal::AtLeast(20_000.0),
        ),
        Figure::alone("gateway's CPU per run", "us", cpu, Goal::Informs),
    ])
}
