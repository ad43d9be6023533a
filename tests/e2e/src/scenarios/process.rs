//! `process`: an agent as an ordinary process, without root. The quickest story of a whole join.

use anyhow::{Result, ensure};

use super::support::{JOIN, count, text};
use crate::product::{Programs, World};

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::here(programs)?;
    let token = world.token(&["--label", "kind=process", "--use-limit", "1"])?;
    let mut agent = world.step("start an agent with a token", || {
        world.agent("agent", &token)
    })?;
    let id = world.step("it is listed", || {
        let host = world.wait_labelled("kind", "process", JOIN)?;
        text(&host, "id").map(str::to_owned)
    })?;
    world.step("its status says connected", || {
        agent.ask(&["status", "--wait", "20"])?.ok().map(drop)
    })?;
    world.step("a second agent on the same state is refused", || {
        let second = agent.ask(&["run"])?;
        ensure!(
            !second.status.success(),
            "two agents share a state: {second}"
        );
        Ok(())
    })?;
    world.step(
        "started again it is the same host, without using the token again",
        || {
            agent.process.stop()?;
            drop(agent);
            let again = world.agent("agent", &token)?;
            again.ask(&["status", "--wait", "20"])?.ok()?;
            let host = world.wait_labelled("kind", "process", JOIN)?;
            ensure!(host["id"] == *id, "it is somebody else: {host}");
            ensure!(
                count(&world.history(&id)?, "enrolled") == 1,
                "it enrolled twice"
            );
            Ok(())
        },
    )?;
    world.step("a used-up token joins nobody else", || {
        let mut other = world.agent("other", &token)?;
        let refused = other
            .process
            .wait_line(|line| line.contains("token"), JOIN)?;
        ensure!(!refused.contains(&token.secret), "the secret is in the log");
        ensure!(world.listed()?.len() == 1, "it joined");
        Ok(())
    })
}
