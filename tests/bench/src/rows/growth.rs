//! What a host costs when there are ten times as many: memory per agent, writes, reads.

use anyhow::Result;

use super::{Bench, HEARTBEAT, links, reads, writes};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    fleet::Certificates,
    gateway::Gateway,
};

const FEW: usize = 1000;
const TIMES: usize = 10;

#[derive(Debug, Default)]
struct At {
    kib: Samples,
    write_us: Samples,
    read_us: Samples,
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut few, mut many) = (At::default(), At::default());
    for round in 0..bench.rounds {
        for (count, at) in [(FEW, &mut few), (FEW * TIMES, &mut many)] {
            let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
            let fleet = gateway.populate(count, Certificates::Real)?;
            at.write_us
                .push(1e6 / writes::measure(&gateway, round)?.per_second);
            at.read_us.push(1e6 / reads::measure(&gateway)?.per_second);
            // Afresh: memory that writing has used once would hide some of what agents need.
            gateway.stop()?;
            gateway.up()?;
            at.kib.push(links::of_gateway(&gateway, &fleet, count)?.kib);
        }
    }
    let figure = |name: &str, unit, ours, theirs| Figure {
        name: name.to_owned(),
        unit,
        ours,
        peer: Peer::Measured("1,000 hosts", theirs),
        goal: Goal::RatioAtMost(1.3),
    };
    Ok(vec![
        figure("memory per agent, 10,000 hosts", "KiB", many.kib, few.kib),
        figure(
            "time per write, 10,000 hosts",
            "us",
            many.write_us,
            few.write_us,
        ),
        figure(
            "time per read, 10,000 hosts",
            "us",
            many.read_us,
            few.read_us,
        ),
    ])
}
