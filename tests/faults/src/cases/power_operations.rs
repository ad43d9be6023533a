//! `power-operations`: the gateway is killed at any moment of operations on power, and what must
//! happen once happens once.
//!
//! The controller is played, and loses answers; the provider is the real component that speaks with
//! controllers of that kind. It writes down what it was told, by the idempotency key of the
//! operation, which is what everything is held against.

use std::{
    collections::BTreeMap,
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    interrupt,
    product::{Launch, WORKSPACE, World},
    say,
    wait::{self, Look},
};
use gateway_store::testing::crash::Chance;
use serde_json::{Value, json};

use super::support::{open, world};
use crate::{
    Plan,
    api::{Answer, Api},
    table::Finding,
};

const MACHINES: usize = 12;
/// Asked for in each life of the gateway.
const ASKED: usize = 5;
/// Lives last up to this long: an operation of the played controller takes about two seconds.
const LIFE: Duration = Duration::from_millis(1_500);
/// Of an operation; those that are not confirmed wait for it.
const TIMEOUT_MS: u64 = 20_000;
/// For all operations to end after the last kill.
const END: Duration = Duration::from_secs(120);

pub(super) fn killed_at_every_step(plan: &Plan) -> Result<Finding> {
    let rounds = plan.rounds(30, 6);
    let seed = RandomState::new().build_hasher().finish();
    say::line(format_args!("  {rounds} rounds, seed {seed}"));
    let launch = Launch {
        settings: "\n[plugins]\nsigned_only = false\n\n[power]\nendpoint_burst = 100\n\
                   endpoint_interval = \"10ms\"\n\n[log]\nfilter = \"warn\"\n"
            .into(),
        ..Launch::default()
    };
    let world = world(plan, launch)?;
    let controller = Controller::start(seed)?;
    provider(plan, &world, controller.address)?;
    let mut api = Api::of(&world)?;
    let run = Run {
        machines: machines(&world, &mut api)?,
        workspace: workspace(&world)?,
        world: &world,
        controller: &controller,
    };
    let mut chance = Chance::new(seed);
    let mut asked = 0;
    for round in 1..=rounds {
        run.round(&mut api, &mut chance, &mut asked)
            .with_context(|| {
                let log = world.gateway().log_tail(20);
                format!("round {round} of seed {seed}; the gateway's log ends\n{log}")
            })?;
        ensure!(!interrupt::requested(), "interrupted");
    }
    let operations = run.all_end(&mut api)?;
    let verdict = run
        .judge(&operations)
        .with_context(|| format!("after {rounds} rounds of seed {seed}"))?;
    let mut finding = Finding {
        lost: format!(
            "nothing: {} operations, each edge action submitted at most once, each end true",
            operations.len()
        ),
        ..Finding::default()
    };
    finding
        .saw("operations go on after a start; answers that were lost are looked into")
        .measured(format!(
            "{rounds} kills, {asked} requests; ends: {}; the controller was told {} things and lost {} \
             answers",
            verdict.ends, verdict.told, verdict.lost
        ));
    Ok(finding)
}

/// A machine by its host's id and what its controller calls it.
struct Machine {
    host: String,
    name: String,
}

struct Run<'w> {
    world: &'w World,
    workspace: String,
    controller: &'w Controller,
    machines: Vec<Machine>,
}

struct Verdict {
    ends: String,
    told: usize,
    lost: usize,
}

impl Run<'_> {
    /// A life of the gateway: things are asked for, it is killed, and opened.
    fn round(&self, api: &mut Api, chance: &mut Chance, asked: &mut usize) -> Result<()> {
        for _ in 0..ASKED {
            let machine = &self.machines[chance.below(MACHINES)];
            let (verb, action) = [
                ("reset", "reset"),
                ("reset", "cycle"),
                ("reset", "nmi"),
                ("off", "off"),
                ("on", "on"),
            ][chance.below(5)];
            let path = format!(
                "/v1/workspaces/{}/hosts/{}/power/{verb}",
                self.workspace, machine.host
            );
            let body = json!({
                "action": action, "timeout_ms": TIMEOUT_MS, "confirm": machine.name,
            });
            // The connection may be one to the life before.
            let key = format!("power-{}-{asked}", chance.below(usize::MAX));
            let answer = ask(api, "POST", &path, Some(&body), Some(&key))?;
            // A full line on the machine is a refusal like others.
            ensure!(matches!(answer.status, 202 | 409), "{}", answer.text);
            *asked += usize::from(answer.status == 202);
        }
        let micros = usize::try_from(LIFE.as_micros()).unwrap_or(usize::MAX);
        thread::sleep(Duration::from_micros(chance.below(micros) as u64));
        self.world.gateway().kill()?;
        open(self.world, api).map(drop)
    }

    fn all_end(&self, api: &mut Api) -> Result<Vec<Value>> {
        wait::until("every operation to end", END, || {
            let all = self.operations(api)?;
            let open = all.iter().filter(|it| it["ended_at"].is_null()).count();
            Ok(Look::some((open == 0).then_some(all), || {
                format!("{open} go on")
            }))
        })
    }

    fn operations(&self, api: &mut Api) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!(
                "/v1/workspaces/{}/power-operations?limit=1000{after}",
                self.workspace
            );
            let page = ask(api, "GET", &path, None, None)?;
            ensure!(page.status == 200, "{}", page.text);
            let items = page.body["items"].as_array().context("a list has items")?;
            all.extend(items.iter().cloned());
            match page.body["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Ok(all),
            }
        }
    }

    /// Holds every operation against what the controller was told.
    fn judge(&self, operations: &[Value]) -> Result<Verdict> {
        let rack = self.controller.rack();
        let mut ends = BTreeMap::<&str, usize>::new();
        for operation in operations {
            let id = operation["id"].as_str().context("an operation has an id")?;
            let state = operation["state"]
                .as_str()
                .context("an operation has a state")?;
            let told: Vec<_> = rack.told.iter().filter(|it| it.operation == id).collect();
            let edge = matches!(
                operation["action"].as_str(),
                Some("reset" | "cycle" | "nmi")
            );
            ensure!(
                !edge || told.len() <= 1,
                "{id} was submitted {} times: {operation}",
                told.len()
            );
            match state {
                "succeeded" => ensure!(
                    !told.is_empty() || operation["confirmation"] == "already",
                    "{id} is said to have happened, and nobody was told: {operation}"
                ),
                "failed" | "cancelled" | "superseded" => ensure!(
                    told.is_empty() || !edge,
                    "{id} is said not to have happened, and it has: {operation}"
                ),
                "timed_out" | "outcome_unknown" => {}
                other => bail!("{other} is no end: {operation}"),
            }
            *ends.entry(state).or_default() += 1;
        }
        let ends: Vec<_> = ends
            .iter()
            .map(|(state, count)| format!("{count} {state}"))
            .collect();
        Ok(Verdict {
            ends: ends.join(", "),
            told: rack.told.len(),
            lost: rack.lost,
        })
    }
}

/// Asks until there is an answer; what must not be done twice has a key to be repeated by.
fn ask(
    api: &mut Api,
    method: &str,
    path: &str,
    body: Option<&Value>,
    key: Option<&str>,
) -> Result<Answer> {
    let mut broken = String::new();
    for _ in 0..5 {
        match api.send(method, path, body, key) {
            Ok(answer) => return Ok(answer),
            Err(error) => broken = error.to_string(),
        }
    }
    bail!("{method} {path}: {broken}")
}

fn workspace(world: &World) -> Result<String> {
    let shown = world.cli().json(&["workspace", "show", WORKSPACE])?;
    let id = shown["id"].as_str().context("a workspace has an id")?;
    Ok(id.to_owned())
}

fn provider(plan: &Plan, world: &World, controller: SocketAddr) -> Result<()> {
    let component = plan
        .programs
        .plugins
        .join("power-webhook")
        .with_extension("wasm");
    world
        .cli()
        .text(&["plugin", "install", &component.display().to_string()])?;
    let write = |name: &str, value: Value| -> Result<String> {
        let file = world.folder().join(name);
        std::fs::write(&file, value.to_string())?;
        Ok(file.display().to_string())
    };
    let grant = json!({
        "workspaces": "all",
        "http": [{
            "need": "controller", "hosts": ["127.0.0.1"], "ports": [controller.port()],
            "networks": ["127.0.0.1/32"], "plain": true,
        }],
    });
    let grant = write("grant.json", grant)?;
    world
        .cli()
        .text(&["plugin", "grant", "power-webhook", "-f", &grant])?;
    let ask = json!({ "path": "/machines/{address}/{action}" });
    let configuration = json!({
        "url": format!("http://{controller}"),
        "actions": { "on": ask, "off": ask, "reset": ask, "cycle": ask, "nmi": ask },
        "observe": {
            "path": "/machines/{address}", "state": "/state", "boot_mark": "/boots",
            "states": { "on": "on", "off": "off", "rebooting": "rebooting" },
        },
        "settle_ms": 1000,
        "timeout_ms": 1000,
    });
    let configuration = write("configuration.json", configuration)?;
    world
        .cli()
        .text(&["plugin", "configure", "power-webhook", "-f", &configuration])?;
    world.cli().text(&["plugin", "enable", "power-webhook"])?;
    wait::until("the provider to be ready", END, || {
        let shown = world.cli().json(&["plugin", "show", "power-webhook"])?;
        let running = shown["running"].clone();
        Ok(Look::when(running["status"] == "ready", || {
            running.to_string()
        }))
    })
}

fn machines(world: &World, api: &mut Api) -> Result<Vec<Machine>> {
    let path = format!("/v1/workspaces/{}/hosts", workspace(world)?);
    let mut machines = Vec::new();
    for number in 0..MACHINES {
        let name = format!("machine-{number}");
        let body = json!({ "hostname": name });
        let made = ask(api, "POST", &path, Some(&body), None)?;
        ensure!(made.status == 201, "{}", made.text);
        let host = made.body["id"]
            .as_str()
            .context("a host has an id")?
            .to_owned();
        let target = json!({ "plugin": "power-webhook", "address": number.to_string() });
        let target_path = format!("{path}/{host}/power/target");
        let set = ask(api, "PUT", &target_path, Some(&target), None)?;
        ensure!(set.status == 200, "{}", set.text);
        machines.push(Machine { host, name });
    }
    Ok(machines)
}

/// What a controller was told to do.
#[derive(Debug)]
struct Told {
    operation: String,
}

/// The machines behind the controller.
#[derive(Debug)]
struct Rack {
    machines: Vec<Powered>,
    told: Vec<Told>,
    lost: usize,
    chance: Chance,
}

#[derive(Clone, Copy, Debug)]
struct Powered {
    on: bool,
    boots: u32,
    /// Until then it restarts.
    restarts_until: Option<Instant>,
}

#[derive(Debug)]
struct Controller {
    address: SocketAddr,
    rack: Arc<Mutex<Rack>>,
}

impl Controller {
    fn start(seed: u64) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let powered = Powered {
            on: true,
            boots: 1,
            restarts_until: None,
        };
        let rack = Arc::new(Mutex::new(Rack {
            machines: vec![powered; MACHINES],
            told: Vec::new(),
            lost: 0,
            chance: Chance::new(seed ^ 1),
        }));
        let shared = Arc::clone(&rack);
        // Ends with the process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let rack = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &rack));
            }
        });
        Ok(Self { address, rack })
    }

    fn rack(&self) -> MutexGuard<'_, Rack> {
        self.rack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Answers one request. What cannot be read is somebody who went away.
fn serve(stream: &TcpStream, rack: &Mutex<Rack>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut key) = (0, String::new());
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.split_once(':') else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "idempotency-key" => value.trim().clone_into(&mut key),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let mut parts = path.trim_start_matches('/').split('/').skip(1);
    let machine: usize = parts.next()?.parse().ok()?;
    let answer = {
        let mut rack = rack.lock().unwrap_or_else(PoisonError::into_inner);
        rack.settle(machine);
        match (method.as_str(), parts.next()) {
            ("GET", _) => rack.shown(machine),
            (_, Some(action)) => {
                let operation = key.split('/').next().unwrap_or_default().to_owned();
                rack.told.push(Told { operation });
                rack.perform(machine, action);
                // One answer in five never comes back.
                if rack.chance.below(5) == 0 {
                    rack.lost += 1;
                    return None;
                }
                json!({})
            }
            _ => return None,
        }
    };
    let answer = answer.to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    )
    .ok()
}

impl Rack {
    fn settle(&mut self, machine: usize) {
        let machine = &mut self.machines[machine];
        if machine
            .restarts_until
            .is_some_and(|until| Instant::now() >= until)
        {
            machine.restarts_until = None;
            machine.boots += 1;
        }
    }

    fn shown(&self, machine: usize) -> Value {
        let machine = self.machines[machine];
        let state = match machine {
            Powered {
                restarts_until: Some(_),
                ..
            } => "rebooting",
            Powered { on: true, .. } => "on",
            Powered { on: false, .. } => "off",
        };
        json!({ "state": state, "boots": machine.boots })
    }

    fn perform(&mut self, machine: usize, action: &str) {
        let machine = &mut self.machines[machine];
        match action {
            "on" if !machine.on => {
                machine.on = true;
                machine.boots += 1;
            }
            "off" => machine.on = false,
            "reset" | "cycle" if machine.on => {
                machine.restarts_until = Some(Instant::now() + Duration::from_millis(700));
            }
            _ => {}
        }
    }
}
