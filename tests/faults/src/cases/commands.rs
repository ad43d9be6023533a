//! `commands`: gateway and agents die at random moments while commands are made, delivered, started
//! and reported. Every run of every command writes a line into a file of its host when it starts, so
//! what happened is known without asking anybody; what the gateway says of it is compared with that.

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    fs,
    hash::{BuildHasher as _, Hasher as _},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt,
    product::{Agent, Launch, World, is_connected},
    say,
    wait::{self, Look},
};
use gateway_store::testing::crash::Chance;
use serde_json::{Value, json};

use super::support::{JOIN, open, world};
use crate::{
    Plan,
    api::Api,
    table::{Finding, spread},
};

const HOSTS: usize = 4;
/// A round lasts up to this long: from before the request leaves until after the result was taken.
const LIFE: Duration = Duration::from_millis(600);
/// For everything that was made to come to its end after the last kill.
const END: Duration = Duration::from_secs(180);

pub(super) fn random_kills(plan: &Plan) -> Result<Finding> {
    let rounds = plan.rounds(200, 12);
    let seed = RandomState::new().build_hasher().finish();
    say::line(format_args!("  {rounds} rounds, seed {seed}"));
    let quiet = Launch {
        settings: "\n[log]\nfilter = \"warn\"\n".into(),
        ..Launch::default()
    };
    let world = world(plan, quiet)?;
    let mut story = Story::begin(plan, world, seed)?;
    for round in 1..=rounds {
        story
            .round(round)
            .with_context(|| format!("round {round} of seed {seed}"))?;
        if round % 50 == 0 {
            say::line(format_args!(
                "  round {round}: {} commands made",
                story.made.len()
            ));
        }
        ensure!(!interrupt::requested(), "interrupted");
    }
    let took = story.until_finished()?;
    let told = story.compare().with_context(|| format!("seed {seed}"))?;
    let mut finding = Finding {
        lost: format!(
            "nothing: of {} runs, {} ran, each once, each with its exit code and all of its output; {} \
             expired, and none of those ran",
            told.values().sum::<u32>(),
            told.get("exited").copied().unwrap_or(0),
            told.get("expired").copied().unwrap_or(0),
        ),
        ..Finding::default()
    };
    finding
        .saw("a run is told as started or sending until its host has said how it went")
        .measured(format!(
            "{} kills of the gateway, {} of agents; {} requests unanswered and repeated by their key",
            story.gateway_kills, story.agent_kills, story.unanswered
        ))
        .measured(spread("last kill to all runs final", vec![took]));
    Ok(finding)
}

struct Story {
    world: World,
    api: Api,
    agents: Vec<Agent>,
    argv: Vec<String>,
    workspace: String,
    chance: Chance,
    folder: PathBuf,
    /// Commands, with the exit code that their runs shall have.
    made: Vec<(String, i64)>,
    gateway_kills: u32,
    agent_kills: u32,
    unanswered: u32,
}

impl Story {
    fn begin(plan: &Plan, world: World, seed: u64) -> Result<Self> {
        let mut agents = Vec::new();
        for number in 0..HOSTS {
            let token = world.token(&["--label", "case=commands"])?;
            agents.push(world.agent(&format!("agent-{number}"), &token)?);
        }
        wait::until("all agents to be connected", JOIN * 2, || {
            let linked = world
                .listed()?
                .iter()
                .filter(|host| is_connected(host))
                .count();
            Ok(Look::when(linked == HOSTS, || format!("{linked}")))
        })?;
        let workspaces = world.cli().list(&["workspace", "list"])?;
        let workspace = workspaces[0]["id"]
            .as_str()
            .context("a workspace")?
            .to_owned();
        let folder = world.folder().join("ran");
        fs::create_dir(&folder)?;
        Ok(Self {
            api: Api::of(&world)?,
            world,
            agents,
            argv: vec![plan.programs.agent.display().to_string()],
            workspace,
            chance: Chance::new(seed),
            folder,
            made: Vec::new(),
            gateway_kills: 0,
            agent_kills: 0,
            unanswered: 0,
        })
    }

    /// A command or two; a kill somewhere in their lives; everything is started again.
    fn round(&mut self, round: u32) -> Result<()> {
        for number in 0..=self.chance.below(2) {
            self.make(round, number)?;
        }
        thread::sleep(self.below(LIFE));
        let (gateway, agents) = match self.chance.below(4) {
            0 | 1 => (true, 0),
            2 => (false, 1 + self.chance.below(HOSTS)),
            _ => (true, 1 + self.chance.below(HOSTS)),
        };
        if gateway {
            self.world.gateway().kill()?;
            self.gateway_kills += 1;
        }
        let first = self.chance.below(HOSTS);
        for number in 0..agents {
            let argv: Vec<&str> = self.argv.iter().map(String::as_str).collect();
            let agent = &mut self.agents[(first + number) % HOSTS];
            agent.process.kill()?;
            agent.start_again(&argv)?;
            self.agent_kills += 1;
        }
        if gateway {
            open(&self.world, &self.api)?;
        }
        Ok(())
    }

    fn make(&mut self, round: u32, number: usize) -> Result<()> {
        let code = self.chance.below(3);
        let script = format!(
            "echo $LOOPBACK_COMMAND_ID >>{}/$LOOPBACK_HOST_ID; echo out; sleep 0.{}; echo err >&2; exit {code}",
            self.folder.display(),
            self.chance.below(4)
        );
        // Some are not valid long enough for a host that is away.
        let valid = if self.chance.below(5) == 0 { 2 } else { 600 };
        let until = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(valid);
        let body = json!({
            "targets": { "selector": "case=commands" },
            "argv": ["sh", "-c", script],
            "timers": { "valid_until": until.to_string() },
        });
        let path = format!("/v1/workspaces/{}/commands", self.workspace);
        let key = format!("command-{round}-{number}");
        let answer = loop {
            match self.api.send("POST", &path, Some(&body), Some(&key)) {
                Ok(answer) => break answer,
                Err(_) => self.unanswered += 1,
            }
        };
        ensure!(answer.status == 201, "{}: {}", answer.status, answer.text);
        let id = answer.body["id"].as_str().context("an id")?;
        self.made.push((id.to_owned(), i64::try_from(code)?));
        Ok(())
    }

    fn until_finished(&mut self) -> Result<Duration> {
        let start = Instant::now();
        let path = format!(
            "/v1/workspaces/{}/commands?state=running&limit=100",
            self.workspace
        );
        let mut api = self.api.clone();
        wait::until("every command to be finished", END, || {
            let answer = api.send("GET", &path, None, None)?;
            let running = answer.body["items"].as_array().context("commands")?.len();
            Ok(Look::when(running == 0, || format!("{running} run")))
        })?;
        Ok(start.elapsed())
    }

    /// Compares what is told of every run with what happened; how many are told as what.
    fn compare(&mut self) -> Result<BTreeMap<String, u32>> {
        let mut ran: BTreeMap<(String, String), u32> = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let host = entry.file_name().to_string_lossy().into_owned();
            for command in fs::read_to_string(entry.path())?.lines() {
                *ran.entry((command.to_owned(), host.clone())).or_default() += 1;
            }
        }
        // One whose connection has not seen a kill.
        self.api = self.api.clone();
        let mut told = BTreeMap::new();
        for (command, code) in self.made.clone() {
            let path = format!("/v1/workspaces/{}/commands/{command}/runs", self.workspace);
            let answer = self.api.send("GET", &path, None, None)?;
            let runs = answer.body["items"].as_array().context("runs")?.clone();
            ensure!(runs.len() == HOSTS, "{command} has {} runs", runs.len());
            for run in runs {
                let host = run["host"].as_str().context("a host")?.to_owned();
                let times = ran.remove(&(command.clone(), host)).unwrap_or(0);
                let state = run["state"].as_str().context("a state")?;
                *told.entry(state.to_owned()).or_default() += 1;
                self.is_true(&command, &run, times, code)?;
            }
        }
        ensure!(ran.is_empty(), "ran and belongs to no command: {ran:?}");
        Ok(told)
    }

    fn is_true(&mut self, command: &str, run: &Value, times: u32, code: i64) -> Result<()> {
        let output = &run["output"];
        let is = match run["state"].as_str() {
            Some("exited") => {
                times == 1
                    && run["code"] == code
                    && output["stdout_bytes"] == 4
                    && output["stderr_bytes"] == 4
                    && output["dropped_bytes"] == 0
            }
            Some("expired") => times == 0,
            _ => false,
        };
        ensure!(is, "{command} ran {times} times, is told as {run}");
        Ok(())
    }

    fn below(&mut self, limit: Duration) -> Duration {
        let micros = usize::try_from(limit.as_micros()).unwrap_or(usize::MAX);
        Duration::from_micros(self.chance.below(micros) as u64)
    }
}
