//! `formats`: files that this release must not touch.

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::product::{Launch, World};
use gateway_store::testing::stamp_format;

use super::support::{STORE, refused, world};
use crate::{Plan, api::Api, ledger::Book, table::Finding};

pub(super) fn abuse_47_foreign_formats(plan: &Plan) -> Result<Finding> {
    let world = world(plan, Launch::default())?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    book.write_while(4, || {
        thread::sleep(Duration::from_millis(500));
        Ok(())
    })?;
    book.check()?;
    world.gateway().stop()?;
    let store = world.gateway().state().join(STORE);
    let good = fs::read(&store).context("read the store")?;

    stamp_format(&store, 99).context("make it a later release's")?;
    world.step(
        "of a later release: refused, and of use to that release",
        || {
            let said = refused(&world)?;
            ensure!(said.contains("run the release that wrote it"), "{said}");
            // redb has recovered the file and noted so; what is stored is as it was.
            stamp_format(&store, 1).context("make it this release's again")?;
            world.gateway().up()?;
            book.check_all()?;
            world.gateway().stop()
        },
    )?;
    fs::write(&store, b"")?;
    world.step("empty: refused, not made anew", || {
        is_refused(&world, &store, "the file is empty")
    })?;
    fs::write(&store, "-- MySQL dump".repeat(1000))?;
    world.step("no store at all: refused", || {
        is_refused(&world, &store, "loopback-gateway restore")
    })?;
    // A downgrade after a refused upgrade: the file as the older release left it.
    fs::write(&store, &good)?;
    world.gateway().up()?;
    api.disconnect();
    book.check_all()?;
    let mut finding = Finding {
        lost: format!(
            "nothing: the file stays as it was, {} acknowledged changes are there",
            book.acknowledged()
        ),
        ..Finding::default()
    };
    finding.saw("exit code 1, and what to do: run the newer release, or restore a backup");
    Ok(finding)
}

fn is_refused(world: &World, store: &Path, text: &str) -> Result<()> {
    let before = fs::read(store)?;
    let said = refused(world)?;
    ensure!(said.contains(text), "it says nothing of {text:?}:\n{said}");
    let after = fs::read(store)?;
    ensure!(after == before, "the file was changed");
    Ok(())
}
