//! `agent-kill` and `agent-disk`: the agent dies between any two changes of its state, and its disk
//! refuses what it is given.
//!
//! The agent is the one that was built, without a seam for tests: the shim counts the changes that it
//! makes to its state folder (create, write, sync, rename, unlink) and kills it before the chosen one.
//! So a step that somebody adds later is tried, too.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt,
    product::{Agent, Launch, Token, World},
    scratch::Scratch,
    wait::{self, Look},
};
use serde_json::Value;

use super::support::{JOIN, world};
use crate::{
    Plan,
    shim::{EIO, ENOSPC, Knob, Shim},
    table::{Finding, spread},
};

/// So short that an agent which is started again finds its certificate past half of its life.
const SHORT_LIVES: &str = "\n[agents]\ncertificate_lifetime = \"4s\"\n";
/// Agents that are tried at a time.
const BATCH: u32 = 6;
/// More steps than there are.
const MOST: u32 = 60;

pub(super) fn killed_at_every_step(plan: &Plan) -> Result<Finding> {
    let launch = Launch {
        settings: SHORT_LIVES.into(),
        ..Launch::default()
    };
    let world = world(plan, launch)?;
    let stride = if plan.short { 4 } else { 1 };
    let mut found = Found::default();
    let (mut next, mut last) = (1, false);
    while !last {
        let mut batch = Vec::new();
        while batch.len() < BATCH as usize {
            batch.push(Victim::arm(plan, &world, next)?);
            next += stride;
        }
        for victim in batch {
            last |= victim.story(plan, &world, &mut found)?;
        }
        ensure!(next < MOST, "an agent never comes to its end of changes");
        ensure!(!interrupt::requested(), "interrupted");
    }
    ensure!(found.joining.len() > 2, "nothing was tried: {found:?}");
    ensure!(found.renewing.len() > 2, "nothing was tried: {found:?}");
    let kills = found.back.len();
    let mut finding = Finding {
        lost: "nothing: each agent has one host record, one identity and one key".to_owned(),
        ..Finding::default()
    };
    finding
        .saw("the host is linked again as soon as its supervisor has started the agent")
        .measured(format!(
            "{kills} kills; while joining before: {}; while linking anew and renewing before: {}",
            words(&found.joining),
            words(&found.renewing)
        ))
        .measured(spread("start after a kill to connected", found.back));
    Ok(finding)
}

fn words(steps: &BTreeSet<String>) -> String {
    steps.iter().cloned().collect::<Vec<_>>().join(", ")
}

#[derive(Debug, Default)]
struct Found {
    /// Steps that were died at.
    joining: BTreeSet<String>,
    renewing: BTreeSet<String>,
    back: Vec<Duration>,
}

/// An agent that will die before a certain step.
struct Victim {
    name: String,
    at: u32,
    shim: Shim,
    agent: Agent,
    _folder: Scratch,
}

impl Victim {
    fn arm(plan: &Plan, world: &World, at: u32) -> Result<Self> {
        let name = format!("victim-{at}");
        let folder = Scratch::new()?;
        let state = world.folder().join(&name).join("state");
        let shim = Shim::build(folder.path(), &state.display().to_string())?;
        shim.set(Knob::KillAt, at)?;
        let token: Token = world.token(&["--label", &format!("case={name}")])?;
        let agent = world.agent_program(&name, &token, &words_of(&argv(plan, Some(&shim))))?;
        Ok(Self {
            name,
            at,
            shim,
            agent,
            _folder: folder,
        })
    }

    /// It dies while it joins, joins, dies while it renews, and is the host it was. Whether it
    /// has come to the end of its steps both times.
    fn story(mut self, plan: &Plan, world: &World, found: &mut Found) -> Result<bool> {
        let joined = self.dies(world, &mut found.joining)?;
        if !joined {
            self.comes_back(plan, world, found)?;
        }
        let host = self.only_record(world)?;
        self.agent.process.stop()?;
        self.shim.set(Knob::KillAt, self.at)?;
        let armed = argv(plan, Some(&self.shim));
        self.agent.start_again(&words_of(&armed))?;
        let renewed = self.dies(world, &mut found.renewing)?;
        if !renewed {
            self.comes_back(plan, world, found)?;
        }
        let after = self.only_record(world)?;
        ensure!(after["id"] == host["id"], "{host} became {after}");
        self.only_identity(&after)?;
        self.agent.process.stop()?;
        Ok(joined && renewed)
    }

    /// Waits for its death, or for a link that outlives all its steps.
    fn dies(&mut self, world: &World, steps: &mut BTreeSet<String>) -> Result<bool> {
        let outlived = wait::until("the agent to die or to be connected", JOIN, || {
            if !self.agent.process.is_running() {
                return Ok(Look::Ready(false));
            }
            let status = self.agent.ask(&["status"])?.stdout;
            let renewed = status.contains("linked to")
                && world
                    .wait_labelled("case", &self.name, Duration::ZERO)
                    .is_ok();
            Ok(Look::some(renewed.then_some(true), || status))
        })?;
        self.shim.set(Knob::KillAt, 0)?;
        // A later change of its state may have come between the look and this.
        let outlived = outlived && self.agent.process.is_running();
        if !outlived {
            steps.insert(generic(&self.shim.step()?));
        }
        Ok(outlived)
    }

    fn comes_back(&mut self, plan: &Plan, world: &World, found: &mut Found) -> Result<()> {
        let start = Instant::now();
        self.agent.start_again(&words_of(&argv(plan, None)))?;
        let waited = world.wait_labelled("case", &self.name, JOIN);
        waited.with_context(|| {
            let log = self.agent.process.tail(20);
            format!("killed before step {}, its log ends\n{log}", self.at)
        })?;
        wait::until("the agent to say so", JOIN, || {
            let status = self.agent.ask(&["status"])?.stdout;
            Ok(Look::when(status.contains("linked to"), || status))
        })?;
        found.back.push(start.elapsed());
        Ok(())
    }

    fn only_record(&self, world: &World) -> Result<Value> {
        let listed = world.listed()?;
        let mine = listed.into_iter();
        let mut mine: Vec<_> = mine
            .filter(|it| it["labels"]["case"] == *self.name)
            .collect();
        ensure!(mine.len() == 1, "{} has the records {mine:?}", self.name);
        Ok(mine.remove(0))
    }

    /// One identity, one key, nothing half written.
    fn only_identity(&self, host: &Value) -> Result<()> {
        let state = self.agent.state();
        // A living agent may be in the middle of storing a counter; what a dead one left
        // stays.
        wait::until("one key and nothing half written", JOIN, || {
            let names = files(&state)?;
            let keys = names.iter().filter(|name| name.starts_with("key-")).count();
            let left = names.iter().any(|name| name.starts_with(".new-"));
            let why = || format!("{} holds {names:?}", state.display());
            Ok(Look::when(keys == 1 && !left, why))
        })?;
        let text = fs::read_to_string(state.join("identity.json")).context("read its identity")?;
        let id = host["id"].as_str().unwrap_or_default();
        ensure!(text.contains(id), "its identity is not {id}'s");
        Ok(())
    }
}

/// A disk that takes nothing costs what it was to take, and is told; the link stays.
pub(super) fn refusing_disk(plan: &Plan) -> Result<Finding> {
    let world = world(plan, Launch::default())?;
    let folder = Scratch::new()?;
    let state = world.folder().join("disk").join("state");
    let shim = Shim::build(folder.path(), &state.display().to_string())?;
    let token = world.token(&["--label", "case=disk"])?;
    let mut agent = world.agent_program("disk", &token, &words_of(&argv(plan, Some(&shim))))?;
    let host = world.wait_labelled("case", "disk", JOIN)?;
    let id = host["id"].as_str().unwrap_or_default().to_owned();
    for (what, knob, code, says) in [
        ("full", Knob::WriteError, ENOSPC, "No space left"),
        (
            "broken (EIO on write)",
            Knob::WriteError,
            EIO,
            "nput/output error",
        ),
        (
            "broken (EIO on fsync)",
            Knob::SyncError,
            EIO,
            "nput/output error",
        ),
    ] {
        world.step(&format!("the agent's disk is {what}"), || {
            shim.set(knob, code)?;
            // A new link brings a new counter to store.
            relink(&world)?;
            wait::until("status to tell", JOIN, || {
                let status = agent.ask(&["status"])?.stdout;
                let told = status.contains("linked to") && status.contains(says);
                Ok(Look::when(told, || status))
            })?;
            world.wait_labelled("case", "disk", JOIN).map(drop)
        })?;
        world.step("it takes writes again: nothing is left of it", || {
            shim.set(knob, 0)?;
            relink(&world)?;
            wait::until("status to have nothing to tell", JOIN, || {
                let status = agent.ask(&["status"])?.stdout;
                let well = status.contains("linked to") && !status.contains(says);
                Ok(Look::when(well, || status))
            })
        })?;
    }
    ensure!(agent.process.is_running(), "the agent was restarted");
    let back = world.wait_labelled("case", "disk", JOIN)?;
    ensure!(back["id"] == id, "{host} became {back}");
    let history = world.history(&id)?;
    let accused = history
        .iter()
        .any(|it| it["event"]["kind"] == "clone_suspected");
    ensure!(!accused, "it was accused: {history:?}");
    let alarm = history
        .iter()
        .any(|it| it["event"]["kind"] == "unreachable");
    ensure!(!alarm, "there was an alarm: {history:?}");
    agent.process.stop()?;
    let mut finding = Finding {
        lost: "nothing: the counter that could not be stored was sent again".to_owned(),
        ..Finding::default()
    };
    finding
        .saw("the host stays connected; `loopback-agent status` and its log name the file and the error until it works again")
        .measured("full, EIO on write, EIO on fsync; no restart of the agent");
    Ok(finding)
}

/// The gateway's restart makes every agent link anew.
fn relink(world: &World) -> Result<()> {
    world.gateway().stop()?;
    world.gateway().up()?;
    world.wait_labelled("case", "disk", JOIN).map(drop)
}

fn argv(plan: &Plan, shim: Option<&Shim>) -> Vec<String> {
    let mut argv = shim.map(Shim::prefix).unwrap_or_default();
    argv.push(plan.programs.agent.display().to_string());
    argv
}

fn words_of(argv: &[String]) -> Vec<&str> {
    argv.iter().map(String::as_str).collect()
}

/// Without the digits that differ from key to key.
fn generic(step: &str) -> String {
    match step.find("key-") {
        Some(at) => format!("{}key", &step[..at]),
        None => step.to_owned(),
    }
}

fn files(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let names = entries.map(|it| Ok(it?.file_name().to_string_lossy().into_owned()));
    names.collect()
}
