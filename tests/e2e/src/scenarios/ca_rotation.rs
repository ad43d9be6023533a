//! `ca-rotation`: the authority is exchanged under running hosts. Nobody joins again, and the old
//! one cannot be dropped while somebody still needs it.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::support::{JOIN, count, joined_world, text};
use crate::{
    product::{Programs, World},
    wait::{self, Look},
};

/// Linked hosts are asked to renew spread over half a minute.
const RENEWED: Duration = Duration::from_secs(60);

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 3)?;
    let [_, restarted, away] = world.hosts() else {
        bail!("the lab has not three hosts")
    };
    let ids = world.hosts().iter().map(|host| {
        let listed = world.wait_connected(host.name(), JOIN)?;
        text(&listed, "id").map(str::to_owned)
    });
    let ids = ids.collect::<Result<Vec<_>>>()?;
    let old = authority(&world, "active")?.context("an authority signs")?;

    world.step("steps out of order are refused", || {
        for step in ["promote", "retire"] {
            refused(&world, step)?;
        }
        Ok(())
    })?;
    world.step(
        "stage: a second authority is trusted, by the context too",
        || {
            rotate(&world, "stage")?;
            let next = authority(&world, "next")?.context("there is a next one")?;
            ensure!(
                next["fingerprint"] != old["fingerprint"],
                "it is the same one"
            );
            world.cli().text(&["ca", "trust"]).map(drop)
        },
    )?;
    world.step("a host is away from before the promotion on", || {
        // Cut off, not stopped: it knows the next authority and cannot renew.
        away.link_down()?;
        restarted.sh("systemctl restart loopback-agent")?;
        world.wait_connected(restarted.name(), JOIN).map(drop)
    })?;
    world.step(
        "promote: linked hosts have certificates of the new one",
        || {
            rotate(&world, "promote")?;
            signed_by_new(&world, 2)
        },
    )?;
    world.step(
        "retire is refused while a host depends on the old one",
        || {
            let said = refused(&world, "retire")?;
            ensure!(said.contains("1 host"), "it does not say how many: {said}");
            let previous = authority(&world, "previous")?.context("the old one is there")?;
            ensure!(previous["fingerprint"] == old["fingerprint"], "{previous}");
            Ok(())
        },
    )?;
    world.step(
        "the host that was away comes back with its old certificate, and renews",
        || {
            away.link_up()?;
            world.wait_connected(away.name(), JOIN)?;
            signed_by_new(&world, 3)
        },
    )?;
    world.step("retire: the old authority is gone", || {
        rotate(&world, "retire")?;
        ensure!(
            authority(&world, "previous")?.is_none(),
            "it is still there"
        );
        let active = authority(&world, "active")?.context("an authority signs")?;
        ensure!(
            active["fingerprint"] != old["fingerprint"],
            "the old one signs"
        );
        Ok(())
    })?;
    world.step(
        "everybody links anew with what is left, as who they were",
        || {
            world.gateway().stop()?;
            world.gateway().up()?;
            for (host, id) in world.hosts().iter().zip(&ids) {
                host.sh("systemctl restart loopback-agent")?;
                let listed = world.wait_connected(host.name(), JOIN)?;
                ensure!(listed["id"] == **id, "it is somebody else: {listed}");
                let history = world.history(id)?;
                ensure!(
                    count(&history, "enrolled") == 1,
                    "it joined again: {history:?}"
                );
            }
            Ok(())
        },
    )
}

fn rotate(world: &World, step: &str) -> Result<()> {
    let args = ["ca", "rotate", "--step", step, "--yes"];
    world.cli().text(&args).map(drop)
}

/// The step is refused; what was said.
fn refused(world: &World, step: &str) -> Result<String> {
    let output = world
        .cli()
        .run(&["ca", "rotate", "--step", step, "--yes"])?;
    ensure!(!output.status.success(), "{step} succeeded: {output}");
    Ok(output.stdout + &output.stderr)
}

fn authority(world: &World, state: &str) -> Result<Option<Value>> {
    let shown = world.cli().json(&["ca", "show"])?;
    let all = shown["authorities"].as_array().context("authorities")?;
    Ok(all.iter().find(|it| it["state"] == state).cloned())
}

fn signed_by_new(world: &World, wanted: u64) -> Result<()> {
    let what = format!("{wanted} hosts to have certificates of the new authority");
    wait::until(&what, RENEWED, || {
        let active = authority(world, "active")?.context("an authority signs")?;
        Ok(Look::when(active["hosts"] == wanted, || {
            active["hosts"].to_string()
        }))
    })
}
