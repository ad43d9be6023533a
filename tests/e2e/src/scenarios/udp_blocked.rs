//! `udp-blocked`: a firewall swallows UDP, later no more. The host stays, by another way.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;

use super::support::{JOIN, count, joined_world, text};
use crate::{
    product::{Programs, is_connected},
    say,
};

/// From the first swallowed packet to a link that works again.
const OVER: Duration = Duration::from_secs(10);
/// UDP is tried again now and then, never so often that it disturbs.
const BACK: Duration = Duration::from_secs(90);

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 2)?;
    let [blocked, other] = world.hosts() else {
        anyhow::bail!("the lab has not two hosts")
    };
    let listed = world.wait_connected(blocked.name(), JOIN)?;
    let id = text(&listed, "id")?;
    ensure!(
        on(&listed, "udp"),
        "the link did not begin on UDP: {listed}"
    );

    world.step("block UDP: linked again over WebSocket within 10 s", || {
        let start = Instant::now();
        blocked.drop_udp(true)?;
        world.wait_host(blocked.name(), "linked over WebSocket", OVER, |host| {
            on(host, "web_socket")
        })?;
        say::line(format_args!(
            "              after {:.1} s",
            start.elapsed().as_secs_f32()
        ));
        Ok(())
    })?;
    world.step("the agent's doctor says which rung fails", || {
        let output = blocked.exec(&["loopback-agent", "doctor"]).run()?;
        ensure!(
            output.stdout.to_lowercase().contains("udp"),
            "it does not speak of UDP: {output}"
        );
        Ok(())
    })?;
    world.step("open UDP: the link goes back by itself", || {
        let start = Instant::now();
        blocked.drop_udp(false)?;
        world.wait_host(blocked.name(), "linked over UDP", BACK, |host| {
            on(host, "udp")
        })?;
        say::line(format_args!(
            "              after {:.1} s",
            start.elapsed().as_secs_f32()
        ));
        Ok(())
    })?;
    world.step(
        "it was never unreachable, and the other host saw nothing",
        || {
            let history = world.history(id)?;
            ensure!(
                count(&history, "unreachable") == 0,
                "an alarm was raised: {history:?}"
            );
            let listed = world.wait_connected(other.name(), JOIN)?;
            ensure!(on(&listed, "udp"), "the other host left UDP too: {listed}");
            Ok(())
        },
    )
}

fn on(host: &Value, carrier: &str) -> bool {
    is_connected(host) && host["carrier"] == carrier
}
