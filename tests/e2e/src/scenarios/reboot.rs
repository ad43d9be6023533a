//! `reboot`: a host that was rebooted says so, and since when.

use anyhow::{Result, bail, ensure};

use super::support::{JOIN, count, joined_world, text};
use crate::product::Programs;

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 2)?;
    let [rebooted, other] = world.hosts() else {
        bail!("the lab has not two hosts")
    };
    let before = rebooted.boot_id()?;
    let listed = world.wait_connected(rebooted.name(), JOIN)?;
    let id = text(&listed, "id")?;

    world.step("reboot one host", || rebooted.reboot())?;
    world.step("its history says rebooted, with both boot ids", || {
        let entry = world.wait_event(id, "rebooted", JOIN)?;
        ensure!(
            entry["event"]["from"] == *before,
            "from another boot: {entry}"
        );
        ensure!(
            entry["event"]["to"] == *rebooted.boot_id()?,
            "to another boot: {entry}"
        );
        Ok(())
    })?;
    world.step("it is connected under the same id", || {
        let now = world.wait_connected(rebooted.name(), JOIN)?;
        ensure!(now["id"] == id, "it came back as somebody else: {now}");
        ensure!(
            now["boot_id"] == *rebooted.boot_id()?,
            "the old boot id is shown: {now}"
        );
        Ok(())
    })?;
    world.step(
        "nobody raised an alarm, and the other host saw nothing",
        || {
            ensure!(
                count(&world.history(id)?, "unreachable") == 0,
                "the reboot became an outage"
            );
            let listed = world.wait_connected(other.name(), JOIN)?;
            let history = world.history(text(&listed, "id")?)?;
            ensure!(
                count(&history, "rebooted") == 0,
                "the other host rebooted too: {history:?}"
            );
            Ok(())
        },
    )
}
