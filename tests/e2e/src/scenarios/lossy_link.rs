//! `lossy-link`: a third of all packets is lost, then all of them for a while, then none. A host
//! may be away for moments, and is never somebody else.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};

use super::support::{JOIN, count, joined_world, text};
use crate::{
    interrupt,
    product::{Programs, World},
    say,
};

/// In percent, in each direction.
const LOSS: u8 = 30;
/// How long packets are lost: several heartbeats, keepalives and idle timeouts.
const STORM: Duration = Duration::from_secs(45);
/// From the end of a cut to a link: a back-off that has grown, and a handshake.
const RETURN: Duration = Duration::from_secs(45);

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 2)?;
    let [lossy, other] = world.hosts() else {
        bail!("the lab has not two hosts")
    };
    let id = text(&world.wait_connected(lossy.name(), JOIN)?, "id")?.to_owned();
    world.step(
        "lose 30 % of one host's packets: it stays, or comes back",
        || {
            lossy.lose_packets(LOSS)?;
            interrupt::pause(STORM)?;
            world.wait_connected(lossy.name(), RETURN)?;
            let lost = count(&world.history(&id)?, "link_lost");
            say::line(format_args!(
                "              its link was lost {lost} times in {STORM:?}"
            ));
            Ok(())
        },
    )?;
    world.step("an agent that is started under loss links, too", || {
        lossy.sh("systemctl restart loopback-agent")?;
        world.wait_connected(lossy.name(), RETURN).map(drop)
    })?;
    world.step("cut it: unreachable within three beats", || {
        lossy.lose_packets(0)?;
        world.wait_connected(lossy.name(), RETURN)?;
        let start = Instant::now();
        lossy.link_down()?;
        let limit = Duration::from_secs(31);
        world.wait_host(lossy.name(), "unreachable", limit, |host| {
            host["connectivity"] == "unreachable"
        })?;
        say::line(format_args!(
            "              after {:.1} s",
            start.elapsed().as_secs_f32()
        ));
        Ok(())
    })?;
    world.step("put it back: connected within the bound", || {
        let start = Instant::now();
        lossy.link_up()?;
        world.wait_connected(lossy.name(), RETURN)?;
        say::line(format_args!(
            "              after {:.1} s",
            start.elapsed().as_secs_f32()
        ));
        Ok(())
    })?;
    world.step("it is who it was, and its neighbour never noticed", || {
        unchanged(&world, lossy.name(), Some(&id))?;
        let neighbour = unchanged(&world, other.name(), None)?;
        let lost = count(&world.history(&neighbour)?, "link_lost");
        ensure!(lost == 0, "the neighbour lost its link {lost} times");
        Ok(())
    })
}

/// The only record of this name has joined once and was never accused; its id.
fn unchanged(world: &World, name: &str, wanted: Option<&str>) -> Result<String> {
    let all = world.listed_as(name)?;
    ensure!(all.len() == 1, "there are {} records: {all:?}", all.len());
    let id = text(&all[0], "id")?;
    ensure!(
        wanted.is_none_or(|wanted| wanted == id),
        "it is another: {id}"
    );
    let history = world.history(id)?;
    for (kind, times) in [("enrolled", 1), ("clone_suspected", 0)] {
        let found = count(&history, kind);
        ensure!(found == times, "{kind} {found} times: {history:?}");
    }
    Ok(id.to_owned())
}
