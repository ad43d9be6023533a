//! Durable writes through the API, beside bare redb.
//!
//! Sixteen connections rename hosts. Each rename is authenticated and authorised, writes the
//! host's record, its history, its name for searching and an entry of the audit chain in one
//! durable batch, and answers when the change is visible to readers. Bare redb writes one record.

use std::time::Duration;

use anyhow::Result;
use e2e::{say, scratch::Scratch};

use super::{Bench, HEARTBEAT, micros, millis};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    fleet::Certificates,
    floor,
    gateway::{Gateway, block_on},
    http::{self, Load},
    process,
};

pub(super) const WRITERS: usize = 16;
pub(super) const WARM_UP: Duration = Duration::from_secs(1);
pub(super) const MEASURE: Duration = Duration::from_secs(5);
const HOSTS: usize = 1000;
/// Hosts that one connection turns over.
const A_WRITER: usize = 60;

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
    gateway.populate(HOSTS, Certificates::None)?;
    let scratch = Scratch::new()?;
    let (mut ours, mut bare, mut p99, mut cpu) = <(Samples, Samples, Samples, Samples)>::default();
    for round in 0..bench.rounds {
        let before = process::cpu(gateway.pid()?)?;
        let load = measure(&gateway, round)?;
        let used = process::cpu(gateway.pid()?)?.saturating_sub(before);
        ours.push(load.per_second);
        p99.push(millis(load.p99));
        cpu.push(micros(used) / (load.per_second * (WARM_UP + MEASURE).as_secs_f64()));
        let file = scratch.join(&format!("bare-{round}.redb"));
        let raw = floor::redb::writes_per_second(&file, WRITERS, WARM_UP, MEASURE)?;
        bare.push(raw);
        say::line(format_args!(
            "   round {}: {:.0}/s, bare redb {raw:.0}/s",
            round + 1,
            load.per_second
        ));
    }
    Ok(vec![
        Figure {
            name: "durable writes, 16 writers".into(),
            unit: "/s",
            ours,
            peer: Peer::Measured("bare redb", bare),
            goal: Goal::RatioAtLeast(0.5),
        },
        Figure::alone("99 % of them within", "ms", p99, Goal::Informs),
        Figure::alone("gateway's CPU per write", "us", cpu, Goal::Informs),
    ])
}

/// Renames hosts as fast as they are answered. `turn` makes the names differ from the last time.
pub(super) fn measure(gateway: &Gateway, turn: usize) -> Result<Load> {
    let hosts = gateway.hosts()?;
    let requests = hosts.chunks(A_WRITER).take(WRITERS).map(|own| {
        // Each name once, then another one: a rename to the same name would write less.
        let renames = [0, 1].into_iter().flat_map(|half| {
            own.iter().map(move |host| {
                let body = format!("{{\"display_name\":\"bench {turn} {half}\"}}");
                let path = gateway.path(&format!("/hosts/{host}"));
                http::request("PATCH", &path, &gateway.key, &body)
            })
        });
        renames.collect()
    });
    let requests = requests.collect();
    block_on(http::hammer(gateway.http(), requests, WARM_UP, MEASURE))
}
