//! `pause`: the process is stopped for longer than hosts may be silent.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::{interrupt, product::Launch};
use rustix::process::Signal;
use serde_json::json;

use super::support::{JOIN, join, world};
use crate::{Plan, api::Api, ledger::Book, table::Finding};

pub(super) fn abuse_45_stopped_process(plan: &Plan) -> Result<Finding> {
    let world = world(plan, Launch::default())?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    // Hosts here count as unreachable after 2.8 s in the short version, 28 s in the long one.
    let (pause, heartbeat) = match plan.short {
        true => (Duration::from_secs(6), 1_000),
        false => (Duration::from_secs(30), 10_000),
    };
    set_heartbeat(&mut api, &book, heartbeat)?;
    let agents = [join(&world, "one")?, join(&world, "two")?];
    book.write_while(4, || {
        thread::sleep(Duration::from_millis(300));
        Ok(())
    })?;
    world.gateway().signal(Signal::STOP)?;
    interrupt::pause(pause)?;
    world.gateway().signal(Signal::CONT)?;
    let resumed = Instant::now();
    api.read("/v1/projects?limit=1")?;
    let answered = resumed.elapsed();
    // Everything that would have been said falsely is said within a look of the liveness
    // reconciler and a few heartbeats.
    let watch = Duration::from_millis(heartbeat * 3 + 1_000);
    while resumed.elapsed() < watch {
        for agent in &agents {
            let host = world.host(&agent.host)?;
            ensure!(
                host["connectivity"] != "unreachable",
                "falsely reported {:?} after the resume: {host}",
                resumed.elapsed()
            );
        }
        interrupt::pause(Duration::from_millis(200))?;
    }
    for agent in &agents {
        // An agent that had three heartbeats unanswered has left, and rightly; it comes back.
        let history = world.history(&agent.host)?;
        let lost = history
            .iter()
            .find(|it| it["event"]["kind"] == "unreachable");
        ensure!(lost.is_none(), "falsely in the history: {lost:?}");
    }
    for case in ["one", "two"] {
        world.wait_labelled("case", case, JOIN)?;
    }
    book.check_all()?;
    // One that is really gone is found missing all the same.
    let [one, two] = agents;
    let gone = Instant::now();
    drop(one.agent);
    let limit = Duration::from_millis(heartbeat * 4) + Duration::from_secs(90);
    world.wait_host(&one.name, "unreachable", limit, |host| {
        host["id"] == *one.host && host["connectivity"] == "unreachable"
    })?;
    let noticed = gone.elapsed();
    let other = world.host(&two.host)?;
    ensure!(
        other["connectivity"] == "connected",
        "the other one: {other}"
    );
    let log = world.gateway().log_tail(usize::MAX);
    ensure!(
        log.contains("this process stood still"),
        "the pause is not in the log"
    );
    let mut finding = Finding {
        lost: "nothing; no host was reported lost".into(),
        ..Finding::default()
    };
    finding
        .saw("requests wait and are answered after the resume; hosts are connected or late for a moment, never unreachable")
        .saw("the log says how long the gateway stood still")
        .measured(format!(
            "stopped {:.0} s with hosts unreachable after {:.1} s of silence; first answer {:.0} ms \
             after the resume; a host that really went was found missing after {:.1} s",
            pause.as_secs_f32(),
            heartbeat as f32 * 2.8 / 1e3,
            answered.as_secs_f32() * 1e3,
            noticed.as_secs_f32()
        ));
    Ok(finding)
}

/// Sets the workspace's heartbeat, with the thresholds that go with it.
pub(super) fn set_heartbeat(api: &mut Api, book: &Book, heartbeat_ms: u64) -> Result<()> {
    let thresholds = json!({ "thresholds": {
        "heartbeat_ms": heartbeat_ms,
        "late_ms": heartbeat_ms / 2 * 3,
        "unreachable_ms": heartbeat_ms / 10 * 28,
    }});
    let path = format!("/v1/workspaces/{}", book.workspace());
    api.change("PATCH", &path, Some(&thresholds), 200).map(drop)
}
