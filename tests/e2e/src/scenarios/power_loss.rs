//! `power-loss`: silence becomes "unreachable" in time, and the way back is as plain.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::support::{JOIN, count, joined_world, text};
use crate::{
    product::{Programs, WORKSPACE},
    say,
};

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 2)?;
    let [lost, other] = world.hosts() else {
        anyhow::bail!("the lab has not two hosts")
    };
    let listed = world.wait_connected(lost.name(), JOIN)?;
    let id = text(&listed, "id")?;
    let beat = world.step("ask the workspace for its heartbeat", || {
        let workspaces = world.cli().list(&["workspace", "list"])?;
        let workspace = workspaces.iter().find(|item| item["name"] == WORKSPACE);
        let beat = workspace.and_then(|item| item["thresholds"]["heartbeat_ms"].as_u64());
        beat.map(Duration::from_millis)
            .context("the workspace has a heartbeat")
    })?;

    world.step(
        "pull the mains of one host: unreachable within three beats",
        || {
            lost.power_loss()?;
            let start = Instant::now();
            // The list is asked over and over; a look takes a moment itself.
            let limit = beat * 3 + Duration::from_secs(1);
            world.wait_host(lost.name(), "unreachable", limit, |host| {
                host["connectivity"] == "unreachable" && host["membership"] == "managed"
            })?;
            say::line(format_args!(
                "              after {:.1} s, at a heartbeat of {:.1} s",
                start.elapsed().as_secs_f32(),
                beat.as_secs_f32()
            ));
            Ok(())
        },
    )?;
    world.step("it is one host's loss, not a mass loss", || {
        let entry = world.wait_event(id, "unreachable", JOIN)?;
        ensure!(
            entry["event"]["mass_loss"] == false,
            "a mass loss is suspected: {entry}"
        );
        let listed = world.wait_connected(other.name(), JOIN)?;
        let history = world.history(text(&listed, "id")?)?;
        ensure!(
            count(&history, "link_lost") == 0,
            "the neighbour lost its link: {history:?}"
        );
        Ok(())
    })?;
    world.step("power it on: connected under the same id, rebooted", || {
        lost.power_on()?;
        let back = world.wait_connected(lost.name(), JOIN)?;
        ensure!(back["id"] == id, "it came back as somebody else: {back}");
        let entry = world.wait_event(id, "rebooted", JOIN)?;
        ensure!(
            entry["event"]["to"] == *lost.boot_id()?,
            "another boot: {entry}"
        );
        Ok(())
    })
}
