//! `slow`: a disk that takes half a second for every sync.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::{interrupt, scratch::Scratch};

use super::support::{assert_never_lost, join, world};
use crate::{
    Plan,
    api::Api,
    ledger::Book,
    shim::{Knob, Shim},
    table::{Finding, spread},
};

const DELAY_MS: u32 = 500;
const WRITERS: usize = 32;

pub(super) fn abuse_46_slow_disk(plan: &Plan) -> Result<Finding> {
    let time = Duration::from_secs(if plan.short { 5 } else { 20 });
    let folder = Scratch::new()?;
    let shim = Shim::build(folder.path(), "loopback.redb")?;
    let world = world(plan, shim.launch())?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    let agent = join(&world, "slow")?;
    let fast = measure(&mut book, &mut api, Duration::from_secs(2))?;
    shim.set(Knob::SyncDelay, DELAY_MS)?;
    let slow = measure(&mut book, &mut api, time)?;
    shim.set(Knob::SyncDelay, 0)?;
    assert_never_lost(&world, &agent.host)?;
    book.check_all()?;
    let refusals = book.refusals();
    ensure!(refusals.is_empty(), "writers were refused: {refusals:?}");
    ensure!(
        slow.group > 2.0 * fast.group.min(2.0),
        "groups of {:.1} batches on the slow disk, {:.1} before",
        slow.group,
        fast.group
    );
    ensure!(slow.queued > 0.0, "the queue does not show in the metrics");
    // Reads come from memory. The limit is a tenth of what a write takes here.
    let mut reads = slow.reads.clone();
    reads.sort_unstable();
    let median = reads[reads.len() / 2];
    ensure!(
        median < Duration::from_millis(100),
        "a read takes {median:?}"
    );
    let mut finding = Finding {
        lost: format!(
            "nothing: {} acknowledged changes are there",
            book.acknowledged()
        ),
        ..Finding::default()
    };
    finding
        .saw("writes take as long as the disk does; reads and links do not notice")
        .saw("`loopback_store_queued_batches` and batches per `loopback_store_groups_total` rise")
        .measured(format!(
            "batches per fsynced group: {:.1} before, {:.1} on the slow disk with {WRITERS} writers; \
             up to {:.0} batches waited",
            fast.group, slow.group, slow.queued
        ))
        .measured(spread("reads meanwhile", slow.reads));
    Ok(finding)
}

struct Measured {
    /// Batches that share a transaction.
    group: f64,
    /// The most that waited when somebody looked.
    queued: f64,
    reads: Vec<Duration>,
}

fn measure(book: &mut Book, api: &mut Api, time: Duration) -> Result<Measured> {
    let counts = |api: &mut Api| -> Result<(f64, f64)> {
        Ok((
            api.metric("loopback_store_groups_total")?,
            api.metric("loopback_store_batches_total")?,
        ))
    };
    let before = counts(api)?;
    let (queued, reads) = book.write_while(WRITERS, || {
        let start = Instant::now();
        let (mut queued, mut reads) = (0.0_f64, Vec::new());
        while start.elapsed() < time {
            let asked = Instant::now();
            api.read("/v1/projects?limit=10")?;
            reads.push(asked.elapsed());
            queued = queued.max(api.metric("loopback_store_queued_batches")?);
            // A reader as people are, not one more load.
            thread::sleep(Duration::from_millis(20));
            ensure!(!interrupt::requested(), "interrupted");
        }
        Ok((queued, reads))
    })?;
    let after = counts(api)?;
    Ok(Measured {
        group: (after.1 - before.1) / (after.0 - before.0).max(1.0),
        queued,
        reads,
    })
}
