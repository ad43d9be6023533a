//! A crash of the gateway under ten thousand linked agents, and the rush that follows.
//!
//! Times run from the kill. The gateway is started again at once, as its supervisor would.
//! Agents find out by themselves, by the real agent's rules, and come back by its back-off.
//! Meanwhile somebody reads a host through the API, fifty times a second.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use e2e::{
    interrupt, say,
    wait::{self, Look},
};

use super::{Bench, HEARTBEAT, millis, time_to_connect};
use crate::{
    figure::{Figure, Goal, Samples},
    fleet::Certificates,
    gateway::{Gateway, block_on},
    http::{self, Connection},
    load::Clients,
};

const AGENTS: usize = 10_000;
const SETTLE: Duration = Duration::from_secs(20);
const ALL_BACK: Duration = Duration::from_secs(120);
const ASK_EVERY: Duration = Duration::from_millis(20);

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
    let host = gateway.hosts()?.pop().context("there are hosts")?;
    let question = http::request(
        "GET",
        &gateway.path(&format!("/hosts/{host}")),
        &gateway.key,
        "",
    );
    let (mut ready, mut half, mut most, mut all, mut p99) =
        <(Samples, Samples, Samples, Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        interrupt::pause(SETTLE)?;
        swarm.mark()?;
        let killed = Instant::now();
        gateway.kill()?;
        gateway.up_until_answer()?;
        ready.push(millis(killed.elapsed()));
        let stop = AtomicBool::new(false);
        let address = gateway.http();
        let (back, latency) = std::thread::scope(|scope| {
            let asker = scope.spawn(|| ask(address, &question, &stop));
            let back = wait::until("all agents to be back", ALL_BACK, || {
                let status = swarm.status()?;
                let done = usize::try_from(status.back)? >= AGENTS;
                Ok(Look::some(done.then(|| status.clone()), || {
                    format!("{status:?}")
                }))
            });
            stop.store(true, Ordering::Relaxed);
            let latency = asker
                .join()
                .map_err(|_| anyhow::anyhow!("the asker panicked"));
            anyhow::Ok((back?, latency??))
        })?;
        say::line(format_args!("   round {round}: {back:?}, p99 {latency:?}"));
        #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
        for (samples, ms) in [&mut half, &mut most, &mut all]
            .into_iter()
            .zip(back.back_ms)
        {
            samples.push(ms as f64 / 1e3);
        }
        p99.push(millis(latency));
    }
    Ok(vec![
        Figure::alone(
            "99 % of 10,000 agents back after",
            "s",
            most,
            Goal::AtMost(10.0),
        ),
        Figure::alone("all back after", "s", all, Goal::AtMost(30.0)),
        Figure::alone("API p99 meanwhile", "ms", p99, Goal::AtMost(100.0)),
        Figure::alone("half back after", "s", half, Goal::Informs),
        Figure::alone("gateway answers after", "ms", ready, Goal::Informs),
    ])
}

/// Asks until told to stop; the 99th percentile of the answers' times.
fn ask(address: SocketAddr, question: &[u8], stop: &AtomicBool) -> Result<Duration> {
    block_on(async {
        let mut connection = Connection::open(address).await?;
        let mut times = Vec::new();
        let mut tick = tokio::time::interval(ASK_EVERY);
        while !stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let asked = Instant::now();
            let reply = connection.ask(question).await?;
            anyhow::ensure!(reply.status == 200, "answer {}", reply.status);
            times.push(asked.elapsed());
        }
        Ok(http::quantile(&mut times, 0.99))
    })
}
