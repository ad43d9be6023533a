//! `aarch64`: the agent for the other architecture, under user-mode emulation.

use anyhow::{Result, ensure};

use super::support::JOIN;
use crate::product::{Programs, World};

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::here(programs)?;
    let token = world.token(&["--label", "arch=aarch64"])?;
    let binary = programs
        .releases
        .join("stable/loopback-agent-linux-aarch64")
        .display()
        .to_string();
    let agent = world.step("start the released agent in the emulator", || {
        world.agent_program("agent", &token, &["qemu-aarch64-static", &binary])
    })?;
    world.step("it joins and says what it is", || {
        // Emulated cryptography takes its time.
        let host = world.wait_labelled("arch", "aarch64", JOIN * 3)?;
        ensure!(
            host["facts"]["arch"] == "aarch64",
            "it calls itself {}",
            host["facts"]["arch"]
        );
        Ok(())
    })?;
    world.step("its status says connected", || {
        agent.ask(&["status", "--wait", "30"])?.ok().map(drop)
    })
}
