//! `power-wake`: a host that sleeps is woken by a packet on its wire.
//!
//! The network card is played: it hears frames where the host is plugged in, and turns the host on
//! when one of them is for it. Everything else is real, and so is the proof: nobody answers such a
//! packet, so that only the host's own agent can tell that it came.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::{SOON, provide};
use crate::{
    peers::wire::Frames,
    product::{Launch, Programs, WORKSPACE, World},
    scenarios::support::{install_all, text},
    wait::{self, Look},
};

const MAC: [u8; 6] = [0x02, 0, 0x5e, 0xaa, 0xbb, 1];
const WRITTEN: &str = "02:00:5e:aa:bb:01";

pub(in crate::scenarios) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch::unsigned_plugins();
    let world = World::with_hosts_and(programs, 1, launch)?;
    let machine = &world.hosts()[0];
    let name = machine.name();
    world.step("a host joins, whose provider can only wake it", || {
        let token = world.token(&[])?;
        install_all(world.hosts(), &token)?;
        world.wait_connected(name, SOON)?;
        let grant = json!({
            "workspaces": "all",
            "datagrams": [{ "need": "wake", "networks": ["255.255.255.255/32"], "ports": [9] }],
        });
        provide(&world, programs, "power-wol", &grant, None)?;
        let set = ["power", "target", "set", name, "-w", WORKSPACE];
        let target = ["--provider", "power-wol", "--address", WRITTEN];
        world.cli().text(&[&set[..], &target].concat())?;
        let shown = world
            .cli()
            .json(&["power", "status", name, "-w", WORKSPACE])?;
        ensure!(shown["observed"].is_null(), "it claims to see: {shown}");
        Ok(())
    })?;
    world.step("its power is out", || {
        machine.power_loss()?;
        // The card has standby power, and so has its cable.
        machine.link_up()?;
        world
            .wait_host(name, "away", SOON, |host| {
                host["connectivity"] != "connected"
            })
            .map(drop)
    })?;
    let frames = world.step("its card listens", || {
        let frames = Frames::listen(&world.place_of(machine));
        frames.context("only root hears frames")
    })?;
    let operation = world.step("`power on` puts a packet for it on the wire", || {
        let on = world.cli().json(&["power", "on", name, "-w", WORKSPACE])?;
        let to = frames.waking(MAC, SOON)?;
        ensure!(to == [0xff; 6], "not to everybody: {to:02x?}");
        Ok(text(&on, "id")?.to_owned())
    })?;
    world.step("until it is there, nothing is claimed", || {
        let shown = world
            .cli()
            .json(&["power", "show", &operation, "-w", WORKSPACE])?;
        ensure!(shown["ended_at"].is_null(), "it claims to be done: {shown}");
        Ok(())
    })?;
    world.step("the card turns it on; its agent proves it", || {
        machine.power_on()?;
        let ended = wait::until(
            "the operation to end",
            SOON + Duration::from_secs(60),
            || {
                let shown = world
                    .cli()
                    .json(&["power", "show", &operation, "-w", WORKSPACE])?;
                let over = !shown["ended_at"].is_null();
                Ok(Look::some(over.then(|| shown.clone()), || {
                    shown.to_string()
                }))
            },
        )?;
        ensure!(ended["state"] == "succeeded", "{ended}");
        ensure!(ended["confirmation"] == "boot_id", "by what? {ended}");
        Ok(())
    })
}
