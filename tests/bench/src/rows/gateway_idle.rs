//! A gateway at rest, and how soon it answers after a start.
//!
//! The answer waited for is an authenticated read, so that "answers" means the state is loaded.
//! Times run from before the process is started; programs and files are in the page cache, as
//! they are when a supervisor restarts a service.

use std::time::Duration;

use anyhow::Result;
use e2e::{interrupt, say};

use super::{Bench, HEARTBEAT, millis, writes};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    fleet::Certificates,
    gateway::Gateway,
    peers, process,
};

const SETTLE: Duration = Duration::from_secs(10);
const MANY: usize = 100_000;

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut memory, mut clean, mut crashed, mut loaded) =
        <(Samples, Samples, Samples, Samples)>::default();
    let small = Gateway::start(&bench.gateway, HEARTBEAT)?;
    for _ in 0..bench.rounds {
        small.stop()?;
        clean.push(millis(small.up_until_answer()?));
        interrupt::pause(SETTLE)?;
        memory.push(process::resident_kib(small.pid()?)? / 1024.0);
    }
    drop(small);

    let large = Gateway::start(&bench.gateway, HEARTBEAT)?;
    say::line(format_args!("   putting {MANY} hosts into a store"));
    large.populate(MANY, Certificates::None)?;
    for round in 0..bench.rounds {
        // Killed while it writes.
        writes::measure(&large, round)?;
        large.kill()?;
        crashed.push(millis(large.up_until_answer()?));
        interrupt::pause(SETTLE)?;
        loaded.push(process::resident_kib(large.pid()?)? / 1024.0);
    }

    let peer = match peers::mesh_central(SETTLE) {
        Ok(mib) => Peer::Measured("MeshCentral", mib.into()),
        Err(missing) => Peer::Missing("MeshCentral", missing.to_string()),
    };
    Ok(vec![
        Figure::alone("memory at rest", "MiB", memory.clone(), Goal::AtMost(25.0)),
        Figure {
            name: "memory at rest".into(),
            unit: "MiB",
            ours: memory,
            peer,
            // 25 MiB beside the 179 MiB that MeshCentral was once seen with.
            goal: Goal::RatioAtMost(0.14),
        },
        Figure::alone("first answer, clean start", "ms", clean, Goal::AtMost(50.0)),
        Figure::alone(
            "first answer, 100k hosts, after kill",
            "ms",
            crashed,
            Goal::AtMost(150.0),
        ),
        Figure::alone("memory at rest, 100k hosts", "MiB", loaded, Goal::Informs),
    ])
}
