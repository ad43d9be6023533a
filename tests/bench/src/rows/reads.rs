//! Authenticated reads through the API, beside bare axum.
//!
//! Sixteen connections ask for one host after another. Bare axum answers the same number of the
//! same bytes from memory, to anybody. The client takes the same share of the machine in both
//! cases and so brings the ratio of rates nearer to one; the servers' own CPU time per request
//! is given as well.

use std::{process::Command, time::Duration};

use anyhow::{Context, Result};
use e2e::{product::Daemon, say};

use super::{
    Bench, HEARTBEAT, micros,
    writes::{MEASURE, WARM_UP, WRITERS},
};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    fleet::Certificates,
    gateway::{Gateway, block_on, free_address},
    http::{self, Load},
    process,
};

const HOSTS: usize = 1000;
const A_READER: usize = 60;

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
    gateway.populate(HOSTS, Certificates::None)?;
    let host = gateway.hosts()?.pop().context("there are hosts")?;
    let body = gateway.get(&gateway.path(&format!("/hosts/{host}")))?;
    let file = gateway.folder().join("body.json");
    std::fs::write(&file, body.to_string())?;
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command
        .args(["serve-http", "--listen", &address.to_string(), "--body"])
        .arg(&file);
    let log = gateway.folder().join("axum.log");
    let mut bare = Daemon::start("bare axum", command, &log)?;
    bare.wait_line(|line| line == "ready", Duration::from_secs(20))?;

    let (mut rate, mut rate_bare, mut cpu, mut cpu_bare) =
        <(Samples, Samples, Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        let (load, used) = with_cpu(gateway.pid()?, || measure(&gateway))?;
        rate.push(load.per_second);
        cpu.push(used);
        let (load_bare, used) = with_cpu(bare.pid(), || {
            let requests = vec![vec![http::request("GET", "/", "", "")]; WRITERS];
            block_on(http::hammer(address, requests, WARM_UP, MEASURE))
        })?;
        rate_bare.push(load_bare.per_second);
        cpu_bare.push(used);
        say::line(format_args!(
            "   round {round}: {:.0}/s, bare axum {:.0}/s",
            load.per_second, load_bare.per_second
        ));
    }
    Ok(vec![
        Figure {
            name: "authenticated reads".into(),
            unit: "/s",
            ours: rate,
            peer: Peer::Measured("bare axum", rate_bare),
            goal: Goal::RatioAtLeast(0.5),
        },
        Figure {
            name: "server's CPU per read".into(),
            unit: "us",
            ours: cpu,
            peer: Peer::Measured("bare axum", cpu_bare),
            goal: Goal::Informs,
        },
    ])
}

/// Reads hosts as fast as they are answered.
pub(super) fn measure(gateway: &Gateway) -> Result<Load> {
    let hosts = gateway.hosts()?;
    let requests = hosts.chunks(A_READER).take(WRITERS).map(|own| {
        let paths = own
            .iter()
            .map(|host| gateway.path(&format!("/hosts/{host}")));
        paths
            .map(|path| http::request("GET", &path, &gateway.key, ""))
            .collect()
    });
    let requests = requests.collect();
    block_on(http::hammer(gateway.http(), requests, WARM_UP, MEASURE))
}

/// A load, and the server's CPU time per request in microseconds.
fn with_cpu(pid: u32, load: impl FnOnce() -> Result<Load>) -> Result<(Load, f64)> {
    let before = process::cpu(pid)?;
    let load = load()?;
    let used = process::cpu(pid)?.saturating_sub(before);
    let requests = load.per_second * (WARM_UP + MEASURE).as_secs_f64();
    Ok((load, micros(used) / requests))
}
