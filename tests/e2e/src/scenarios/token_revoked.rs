//! `token-revoked`: a leaked token is worth nothing a second after somebody noticed; the hosts
//! that joined with it do not even see it.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::support::{JOIN, count, text};
use crate::{
    interrupt,
    product::{Programs, WORKSPACE, World},
};

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::with_hosts(programs, 2)?;
    let [joined, late] = world.hosts() else {
        anyhow::bail!("the lab has not two hosts")
    };
    let token = world.token(&["--description", "to be leaked"])?;
    let id = world.step("one host joins with a token", || {
        token.install(joined)?.ok()?;
        let listed = world.wait_connected(joined.name(), JOIN)?;
        text(&listed, "id").map(str::to_owned)
    })?;

    world.step("revoke the token, and wait the promised second", || {
        world
            .cli()
            .text(&["token", "delete", "-w", WORKSPACE, &token.id, "--yes"])?;
        interrupt::pause(Duration::from_secs(1))?;
        Ok(())
    })?;
    world.step("it joins nobody", || {
        let output = token.install(late)?;
        ensure!(
            !output.status.success(),
            "the installer succeeded: {output}"
        );
        let said = output.stdout + &output.stderr;
        ensure!(
            said.contains("token"),
            "it does not say that it is the token: {said}"
        );
        ensure!(!said.contains(&token.secret), "it shows the secret");
        ensure!(world.listed_as(late.name())?.is_empty(), "the host joined");
        Ok(())
    })?;
    world.step("no half install is left on that host", || {
        let left = late.sh("ls -d /usr/local/bin/loopback-agent /etc/loopback-agent \
             /etc/systemd/system/loopback-agent.service /var/lib/loopback-agent 2>/dev/null; true")?;
        ensure!(left.is_empty(), "left: {left}");
        Ok(())
    })?;
    world.step(
        "the joined host stays, even through a restart of its agent",
        || {
            joined.sh("systemctl restart loopback-agent")?;
            let listed = world.wait_connected(joined.name(), JOIN)?;
            ensure!(listed["id"] == id, "it is somebody else: {listed}");
            ensure!(
                count(&world.history(&id)?, "enrolled") == 1,
                "it enrolled again"
            );
            Ok(())
        },
    )
}
