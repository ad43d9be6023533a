//! `io`: the store's disk answers with errors.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{
    product::World,
    scratch::Scratch,
    wait::{self, Look},
};
use serde_json::json;

use super::support::{JOIN, join, open, verify_audit, world};
use crate::{
    Plan,
    api::Api,
    ledger::Book,
    shim::{EIO, Knob, Shim},
    table::{Finding, spread},
};

const LIMIT: Duration = Duration::from_secs(30);

pub(super) fn abuse_42_io_errors(plan: &Plan) -> Result<Finding> {
    let rounds = plan.rounds(10, 2);
    let folder = Scratch::new()?;
    let shim = Shim::build(folder.path(), "loopback.redb")?;
    let world = world(plan, shim.launch())?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    let _agent = join(&world, "io")?;
    let mut ends = Vec::new();
    for round in 1..=rounds {
        ends.push(
            lose_a_sync(&world, &shim, &mut book)
                .with_context(|| format!("failed sync {round}"))?,
        );
        api.disconnect();
        open(&world, &api)?;
        book.check()?;
    }
    world.step("a disk that fails every sync lets no gateway start", || {
        world.gateway().stop()?;
        shim.set(Knob::SyncError, EIO)?;
        world.gateway().begin()?;
        let (code, log) = world.gateway().wait_end(LIMIT)?;
        shim.set(Knob::SyncError, 0)?;
        ensure!(
            code == Some(1) && log.contains("nput/output error"),
            "it ended with {code:?}:\n{log}"
        );
        world.gateway().up()
    })?;
    api.disconnect();
    world.step(
        "writes end in EIO: refused, and well again by itself",
        || passing(&world, &shim, &mut api),
    )?;
    world.step(
        "reads end in EIO at the start: refused with the reason",
        || {
            world.gateway().stop()?;
            shim.set(Knob::ReadError, EIO)?;
            world.gateway().begin()?;
            let (code, log) = world.gateway().wait_end(LIMIT)?;
            shim.set(Knob::ReadError, 0)?;
            ensure!(
                code == Some(1) && log.contains("nput/output error"),
                "it ended with {code:?}:\n{log}"
            );
            world.gateway().up()
        },
    )?;
    api.disconnect();
    world.step(
        "everything acknowledged is there; the agent is back",
        || {
            book.check_all()?;
            verify_audit(&world)?;
            world.wait_labelled("case", "io", JOIN).map(drop)
        },
    )?;
    let (unanswered, carried_out) = book.unanswered();
    let mut finding = Finding {
        lost: format!(
            "nothing: {} acknowledged changes are there, none half done",
            book.acknowledged()
        ),
        ..Finding::default()
    };
    finding
        .saw(
            "failed fsync: 503 `unavailable` that says that nobody knows, then the process ends with \
             exit code 1 and \"the disk did not confirm a write\"; its supervisor starts it again",
        )
        .saw("failed write: 503 `unavailable`, reads go on, writes work again without a restart")
        .measured(format!(
            "{rounds} failed fsyncs under writers: {unanswered} requests without an answer, \
             {carried_out} of them carried out"
        ))
        .measured(spread("failed fsync to end of process", ends));
    Ok(finding)
}

/// Fails the syncs under writers until the gateway has ended. How long that took.
fn lose_a_sync(world: &World, shim: &Shim, book: &mut Book) -> Result<Duration> {
    let gateway = world.gateway();
    book.write_while(8, || {
        let hits = shim.hits()?;
        shim.set(Knob::SyncError, EIO)?;
        wait::until("a sync to fail", LIMIT, || {
            Ok(Look::when(shim.hits()? > hits, || "none yet".into()))
        })?;
        let start = Instant::now();
        // One sync is enough: those that come later would work, and are not believed.
        shim.set(Knob::SyncError, 0)?;
        let (code, log) = gateway.wait_end(LIMIT)?;
        ensure!(
            code == Some(1) && log.contains("the disk did not confirm a write"),
            "it ended with {code:?}:\n{log}"
        );
        Ok(start.elapsed())
    })
}

/// Writes fail for a while.
fn passing(world: &World, shim: &Shim, api: &mut Api) -> Result<()> {
    let pid = world.gateway().pid();
    let description = json!({ "description": "eio" });
    let write = |api: &mut Api| {
        Ok::<_, anyhow::Error>(api.send("POST", "/v1/self/api-keys", Some(&description), None)?)
    };
    ensure!(write(api)?.status == 201, "writing does not work before");
    shim.set(Knob::WriteError, EIO)?;
    let hits = shim.hits()?;
    let mut refused = 0;
    wait::until("the error to be met", LIMIT, || {
        let answer = write(api)?;
        match answer.status {
            201 => {}
            503 => {
                ensure!(answer.code() == "unavailable", "{answer}");
                ensure!(answer.kind == "application/problem+json", "{answer}");
                refused += 1;
            }
            _ => anyhow::bail!("{answer}"),
        }
        let met = shim.hits()? > hits && refused > 0;
        Ok(Look::when(met, || "not yet".into()))
    })?;
    let seen = api.get("/v1/projects")?;
    ensure!(seen.status == 200, "reads do not go on: {seen}");
    shim.set(Knob::WriteError, 0)?;
    wait::until("writes to work again", LIMIT, || {
        let answer = write(api)?;
        Ok(Look::when(answer.status == 201, || answer.to_string()))
    })?;
    ensure!(world.gateway().pid() == pid, "it was restarted");
    Ok(())
}
