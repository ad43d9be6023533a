//! Makes commands whose runs leave a trace, kills, and compares what is told with what happened.

use std::{
    collections::BTreeMap,
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt,
    product::World,
    wait::{self, Look},
};
use gateway_store::testing::crash::Chance;
use serde_json::{Value, json};

use super::{super::support::open, fleet::Fleet};
use crate::api::{Api, Broken};

/// For everything that was made to come to its end after the last kill.
const END: Duration = Duration::from_secs(300);
/// More than lies in a run's record: it goes through the log's files and becomes an object.
const LONG: usize = 40_000;

/// How many runs are told as what.
pub(super) type Told = BTreeMap<String, u32>;

/// How many runs of unfinished commands are in which state.
pub(super) type States = BTreeMap<&'static str, u64>;

/// A command to be made.
#[derive(Debug, Clone)]
pub(super) struct Order {
    /// It is made once, however often it must be asked for.
    pub(super) key: String,
    /// The exit code of its runs.
    pub(super) code: usize,
    /// How long they sleep between their first words and their last.
    pub(super) pause: Duration,
    /// How long it is valid.
    pub(super) valid_s: i64,
    /// Whether they write more than a record takes.
    pub(super) long: bool,
    /// On one host by its number; else on all.
    pub(super) host: Option<usize>,
    /// A file in the folder of traces that they wait for.
    pub(super) gate: Option<String>,
}

impl Order {
    fn script(&self, folder: &str) -> String {
        let mut script =
            format!("echo $LOOPBACK_COMMAND_ID >>{folder}/$LOOPBACK_HOST_ID; echo out; ");
        if let Some(gate) = &self.gate {
            script += &format!("while ! [ -e {folder}/{gate} ]; do sleep 0.2; done; ");
        }
        if self.long {
            script += &format!("head -c {LONG} /dev/zero | tr '\\0' x; ");
        }
        script
            + &format!(
                "sleep {}; echo err >&2; exit {}",
                self.pause.as_secs_f32(),
                self.code
            )
    }

    fn stdout(&self) -> String {
        "out\n".to_owned() + &"x".repeat(if self.long { LONG } else { 0 })
    }
}

/// A command that was made, and how often that was asked for in vain.
#[derive(Debug)]
pub(super) struct Made {
    id: String,
    order: Order,
    unanswered: u32,
}

/// Where commands are made.
#[derive(Debug, Clone)]
pub(super) struct Place {
    workspace: String,
    folder: String,
}

/// Asks for a command until there is an answer.
pub(super) fn make(api: &mut Api, place: &Place, order: Order) -> Result<Made> {
    let selector = match order.host {
        Some(number) => format!("case=commands,nr={number}"),
        None => "case=commands".to_owned(),
    };
    let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(order.valid_s);
    let body = json!({
        "targets": { "selector": selector },
        "argv": ["sh", "-c", order.script(&place.folder)],
        "timers": { "valid_until": until.to_string() },
    });
    let path = format!("/v1/workspaces/{}/commands", place.workspace);
    let mut unanswered = 0;
    let answer = loop {
        match api.send("POST", &path, Some(&body), Some(&order.key)) {
            Ok(answer) => break answer,
            Err(Broken::Unknown(_)) => unanswered += 1,
            // There is no gateway at this moment.
            Err(Broken::NotSent(_)) => thread::sleep(Duration::from_millis(5)),
        }
        ensure!(!interrupt::requested(), "interrupted");
    };
    ensure!(answer.status == 201, "{answer}");
    let id = answer.body["id"].as_str().context("an id")?.to_owned();
    Ok(Made {
        id,
        order,
        unanswered,
    })
}

/// What was made and what was killed.
pub(super) struct Story {
    pub(super) world: World,
    pub(super) fleet: Fleet,
    pub(super) api: Api,
    pub(super) place: Place,
    pub(super) chance: Chance,
    pub(super) made: Vec<Made>,
    pub(super) gateway_kills: u32,
    pub(super) agent_kills: u32,
    pub(super) unanswered: u32,
    /// How many hosts there are.
    hosts: usize,
}

impl Story {
    pub(super) fn begin(world: World, fleet: Fleet, seed: u64) -> Result<Self> {
        let workspaces = world.cli().list(&["workspace", "list"])?;
        let workspace = workspaces[0]["id"].as_str().context("a workspace")?;
        let place = Place {
            workspace: workspace.to_owned(),
            folder: fleet.folder(),
        };
        Ok(Self {
            api: Api::of(&world)?,
            hosts: world.listed()?.len(),
            world,
            fleet,
            place,
            chance: Chance::new(seed),
            made: Vec::new(),
            gateway_kills: 0,
            agent_kills: 0,
            unanswered: 0,
        })
    }

    pub(super) fn note(&mut self, made: Made) {
        self.unanswered += made.unanswered;
        self.made.push(made);
    }

    /// Kills the gateway and so many agents; starts again what nobody else does.
    pub(super) fn kill(&mut self, gateway: bool, agents: usize) -> Result<()> {
        if gateway {
            self.world.gateway().kill()?;
            self.gateway_kills += 1;
        }
        let first = self.chance.below(self.hosts);
        let chosen: Vec<_> = (first..first + agents).map(|it| it % self.hosts).collect();
        self.agent_kills += self.fleet.kill(&self.world, &chosen)?;
        if gateway {
            open(&self.world, &self.api)?;
        }
        Ok(())
    }

    /// How many commands are not finished.
    pub(super) fn running(&self) -> Result<usize> {
        let workspace = &self.place.workspace;
        let path = format!("/v1/workspaces/{workspace}/commands?state=running&limit=1000");
        let body = self.api.clone().read(&path)?;
        Ok(body["items"].as_array().context("commands")?.len())
    }

    /// Runs of commands that are not finished.
    pub(super) fn runs_by_state(&self) -> Result<States> {
        let mut api = self.api.clone();
        let mut runs = States::new();
        for state in ["queued", "sending", "delivered", "started", "exited"] {
            let count = api.metric(&format!("loopback_runs{{state=\"{state}\"}}"))?;
            // A count of runs; far from where a float is not exact.
            runs.insert(state, count as u64);
        }
        Ok(runs)
    }

    /// How long it took.
    pub(super) fn until_finished(&mut self) -> Result<Duration> {
        let start = Instant::now();
        wait::until("every command to be finished", END, || {
            let running = self.running()?;
            Ok(Look::when(running == 0, || format!("{running} run")))
        })?;
        Ok(start.elapsed())
    }

    /// Compares what is told of every run with what happened.
    pub(super) fn compare(&mut self) -> Result<Told> {
        let mut ran = self.traces()?;
        // One whose connection has not seen a kill.
        self.api = self.api.clone();
        let mut told = Told::new();
        for made in &self.made {
            let workspace = &self.place.workspace;
            let path = format!("/v1/workspaces/{workspace}/commands/{}/runs", made.id);
            let runs = self.api.read(&path)?["items"].take();
            let runs = runs.as_array().context("runs")?;
            let targets = made.order.host.map_or(self.hosts, |_| 1);
            ensure!(runs.len() == targets, "{} has {} runs", made.id, runs.len());
            for run in runs {
                let host = run["host"].as_str().context("a host")?;
                let times = ran.remove(&(made.id.clone(), host.to_owned()));
                let times = times.unwrap_or(0);
                ensure!(
                    is_true(run, times, &made.order),
                    "{} ran {times} times, is told as {run}",
                    made.id
                );
                if times == 1 {
                    let path = format!("{path}/{host}/output");
                    let stream = |name: &str| format!("{path}?stream={name}");
                    let out = self.api.get(&stream("stdout"))?.text;
                    ensure!(out == made.order.stdout(), "{path} is {out:?}");
                    let err = self.api.get(&stream("stderr"))?.text;
                    ensure!(err == "err\n", "{path} has the errors {err:?}");
                }
                let state = run["state"].as_str().context("a state")?;
                *told.entry(state.to_owned()).or_default() += 1;
            }
        }
        ensure!(ran.is_empty(), "ran and belongs to no command: {ran:?}");
        Ok(told)
    }

    /// How often each command ran on each host, by what its runs wrote there.
    fn traces(&self) -> Result<BTreeMap<(String, String), u32>> {
        let mut ran = BTreeMap::new();
        for folder in self.fleet.folders(&self.world) {
            for entry in fs::read_dir(&folder)? {
                let entry = entry?;
                let host = entry.file_name().to_string_lossy().into_owned();
                for command in fs::read_to_string(entry.path())?.lines() {
                    *ran.entry((command.to_owned(), host.clone())).or_default() += 1;
                }
            }
        }
        Ok(ran)
    }

    /// Some time before `limit`.
    pub(super) fn moment(&mut self, limit: Duration) -> Duration {
        let micros = usize::try_from(limit.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(self.chance.below(micros) as u64)
    }
}

fn is_true(run: &Value, times: u32, order: &Order) -> bool {
    let output = &run["output"];
    match run["state"].as_str() {
        Some("exited") => {
            times == 1
                && run["code"] == order.code
                && output["stdout_bytes"] == order.stdout().len()
                && output["stderr_bytes"] == 4
                && output["dropped_bytes"] == 0
        }
        Some("expired") => times == 0,
        _ => false,
    }
}
