//! What several cases do.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt,
    product::{Agent, Launch, WORKSPACE, World},
    wait::{self, Look},
};

use crate::{Plan, api::Api};

/// A debug build on a busy machine opens within this.
pub(super) const OPEN: Duration = Duration::from_secs(60);

/// Writers are many programs with one key: the limit per key is not what is tried here.
pub(super) const UNLIMITED: &str = "\n[limits]\nrequests_per_key_per_second = 1000000\n\
                         requests_per_key_burst = 1000000\n";

/// A world whose gateway is run as `launch` says, and does not limit its writers.
pub(super) fn world(plan: &Plan, launch: Launch) -> Result<World> {
    let settings = launch.settings.clone() + UNLIMITED;
    World::here_with(&plan.programs, Launch { settings, ..launch })
}

/// Starts the gateway; how long it took from the process to the first answer.
pub(super) fn open(world: &World, api: &Api) -> Result<Duration> {
    let start = Instant::now();
    world.gateway().begin()?;
    let mut api = api.clone();
    loop {
        let answered = api.send("GET", "/v1/health", None, None);
        if answered.is_ok_and(|answer| answer.status == 200) {
            return Ok(start.elapsed());
        }
        ensure!(
            start.elapsed() < OPEN,
            "the gateway does not answer:\n{}",
            world.gateway().log_tail(20)
        );
        // Finer than `wait::until`: this is measured.
        thread::sleep(Duration::from_millis(1));
        ensure!(!interrupt::requested(), "interrupted");
    }
}

/// Exports both audit chains and verifies them without the gateway, as an auditor would.
pub(super) fn verify_audit(world: &World) -> Result<()> {
    let (export, key) = (
        world.folder().join("audit.ndjson"),
        world.folder().join("audit.key"),
    );
    let text = |path: &std::path::Path| path.display().to_string();
    for chain in [&["--deployment"][..], &["-w", WORKSPACE]] {
        for (what, file) in [("export", &export), ("key", &key)] {
            if file.exists() {
                fs::remove_file(file)?;
            }
            let file = text(file);
            let args = [&["audit", what], chain, &["-o", &file]].concat();
            world.cli().text(&args)?;
        }
        let (export, key) = (text(&export), text(&key));
        world
            .cli()
            .text(&["audit", "verify", &export, "--key-file", &key])?;
    }
    Ok(())
}

/// The store's file in the state folder.
pub(super) const STORE: &str = "loopback.redb";
/// For an agent to join and be heard; a busy machine needs most of it.
pub(super) const JOIN: Duration = Duration::from_secs(30);

/// An agent that has joined.
#[derive(Debug)]
pub(super) struct Joined {
    /// Its process.
    pub(super) agent: Agent,
    /// The id of its host.
    pub(super) host: String,
    /// The name of its host.
    pub(super) name: String,
}

/// Runs an agent in the folder `case`, its host labelled `case=<case>`, until it is connected.
pub(super) fn join(world: &World, case: &str) -> Result<Joined> {
    let token = world.token(&["--label", &format!("case={case}")])?;
    let agent = world.agent(case, &token)?;
    let host = world.wait_labelled("case", case, JOIN)?;
    let text = |field: &str| host[field].as_str().unwrap_or_default().to_owned();
    Ok(Joined {
        agent,
        host: text("id"),
        name: text("name"),
    })
}

/// No link of this host ever ended, and nobody was told that it was gone.
pub(super) fn assert_never_lost(world: &World, host: &str) -> Result<()> {
    let history = world.history(host)?;
    let lost = history.iter().find(|entry| {
        let kind = &entry["event"]["kind"];
        kind == "unreachable" || kind == "link_lost"
    });
    ensure!(
        lost.is_none(),
        "its history has {}",
        lost.unwrap_or(&history[0])
    );
    Ok(())
}

/// Starts the gateway, which must refuse to; what it said.
pub(super) fn refused(world: &World) -> Result<String> {
    let said = starts_or_refuses(world)?;
    let log = || world.gateway().log_tail(20);
    said.with_context(|| format!("it started all the same:\n{}", log()))
}

/// Starts the gateway. What it said when it refuses to; nothing when it serves.
pub(super) fn starts_or_refuses(world: &World) -> Result<Option<String>> {
    let gateway = world.gateway();
    gateway.begin()?;
    let refuses = wait::until("the gateway to serve or to refuse", OPEN, || {
        let text = gateway.log_tail(usize::MAX);
        let found = match text.lines().any(|line| line.starts_with("ready ")) {
            true => Some(false),
            false => text.contains("loopback-gateway: ").then_some(true),
        };
        Ok(Look::some(found, || text))
    })?;
    if !refuses {
        return Ok(None);
    }
    let (code, said) = gateway.wait_end(OPEN)?;
    ensure!(code == Some(1), "it ended with {code:?}:\n{said}");
    Ok(Some(said))
}
