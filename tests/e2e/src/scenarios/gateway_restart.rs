//! `gateway-restart`: the gateway's absence is not the hosts' fault.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::Value;

use super::support::{JOIN, count, joined_world, text};
use crate::product::{Programs, World};

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 3)?;
    let cut = &world.hosts()[2];

    world.step(
        "stop the gateway; meanwhile one host's cable is pulled",
        || {
            world.gateway().stop()?;
            cut.link_down()
        },
    )?;
    world.step(
        "start it: whoever is not heard yet is unconfirmed, not unreachable",
        || {
            world.gateway().up()?;
            for host in world.listed()? {
                let known = ["unconfirmed", "connected"]
                    .iter()
                    .any(|word| host["connectivity"] == **word);
                ensure!(known, "{} became {}", host["name"], host["connectivity"]);
            }
            world.wait_host(cut.name(), "unconfirmed", Duration::from_secs(1), |host| {
                host["connectivity"] == "unconfirmed" && host["membership"] == "managed"
            })?;
            Ok(())
        },
    )?;
    world.step("all are connected once they are heard", || {
        cut.link_up()?;
        all_connected(&world)
    })?;
    world.step("the same after a crash of the gateway", || {
        world.gateway().kill()?;
        world.gateway().up()?;
        all_connected(&world)
    })?;
    world.step("nobody raised an alarm", || {
        for host in world.listed()? {
            let history = world.history(text(&host, "id")?)?;
            ensure!(
                count(&history, "unreachable") == 0,
                "{}: {history:?}",
                host["name"]
            );
            ensure!(
                count(&history, "clone_suspected") == 0,
                "{}: {history:?}",
                host["name"]
            );
        }
        Ok(())
    })
}

fn all_connected(world: &World) -> Result<()> {
    let ids = |hosts: &[Value]| {
        hosts
            .iter()
            .map(|host| host["id"].to_string())
            .collect::<Vec<_>>()
    };
    let before = ids(&world.listed()?);
    for host in world.hosts() {
        world.wait_connected(host.name(), JOIN)?;
    }
    ensure!(ids(&world.listed()?) == before, "hosts came back as others");
    Ok(())
}
