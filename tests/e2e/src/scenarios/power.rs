//! `power`: a host whose management controller speaks Redfish is really stopped, booted and reset.
//!
//! The controller is sushy-emulator, which OpenStack tests its own client with; what it decides is
//! done to the host by the [`board`], which is the wire between the two: the machine follows its
//! controller, and the controller sees when the machine turns itself off.

mod board;
pub(super) mod hostile;
pub(super) mod providers;
pub(super) mod route;
pub(super) mod wake;

use std::{fs, path::Path, thread, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::board::Board;
use super::support::{install_all, text};
use crate::{
    lab::GATEWAY,
    peers::redfish::{PASSWORD, System},
    product::{Launch, Programs, WORKSPACE, World},
    sh::Output,
    wait::{self, Look},
};

/// The controller applies what it is told up to eleven seconds later, and a host boots.
const SOON: Duration = Duration::from_secs(120);
/// Where controllers of the lab listen.
const PORT: u16 = 18443;

/// What a controller of the lab controls.
const fn system(state: &'static str) -> System {
    System {
        uuid: "5d1f8f1e-0000-4000-8000-000000000001",
        name: "h1",
        state,
        mac: "52:54:00:AB:00:01",
    }
}

pub(super) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch::unsigned_plugins();
    let world = World::with_hosts_and(programs, 2, launch)?;
    world.step("install the agent on them", || {
        let token = world.token(&[])?;
        install_all(world.hosts(), &token)?;
        for host in world.hosts() {
            world.wait_connected(host.name(), SOON)?;
        }
        Ok(())
    })?;
    let board = world.step("give the first one a management controller", || {
        Board::start(&world)
    })?;
    let story = Story {
        world: &world,
        board: &board,
    };
    thread::scope(|scope| {
        let wire = scope.spawn(|| board.wire());
        let told = story.tell(programs);
        board.cut();
        let wired = wire.join();
        told?;
        wired.unwrap_or_else(|_| bail!("the board panicked"))
    })
}

struct Story<'w> {
    world: &'w World,
    board: &'w Board<'w>,
}

impl Story<'_> {
    fn tell(&self, programs: &Programs) -> Result<()> {
        let world = self.world;
        let [machine, other] = world.hosts() else {
            bail!("the lab has not two hosts")
        };
        let name = machine.name();
        world.step("a provider, pinned to the controller's key", || {
            self.provider(programs)
        })?;
        world.step("another key is not talked to, and it says so", || {
            self.target("wrong-pin")?;
            let check = self.json(&["power", "target", "check", name])?;
            ensure!(check["ok"] == false, "it works: {check}");
            ensure!(
                check.to_string().contains("tls"),
                "not for its key: {check}"
            );
            Ok(())
        })?;
        world.step("with the right one it works, and the host is on", || {
            self.target("bmc")?;
            let check = self.json(&["power", "target", "check", name])?;
            ensure!(check["ok"] == true, "it does not work: {check}");
            let power = self.json(&["power", "status", name, "--now"])?;
            ensure!(power["observed"]["state"] == "on", "not on: {power}");
            ensure!(power["observability"] == "fresh", "not fresh: {power}");
            Ok(())
        })?;
        world.step(
            "without its name typed nothing is turned off in production",
            || {
                let refused = self.run(&["power", "off", name, "--hard"])?;
                ensure!(refused.code() == Some(2), "not refused: {refused}");
                ensure!(
                    refused.stderr.contains(name),
                    "it does not say what to type: {refused}"
                );
                ensure!(
                    self.board.resets()? == 0,
                    "the controller was told something"
                );
                Ok(())
            },
        )?;
        world.step("`power off --hard` stops the host", || {
            let done = self.done(&["power", "off", name, "--hard", "--confirm", name])?;
            ensure!(done["confirmation"] == "observed", "by what? {done}");
            ensure!(!machine.is_running(), "the host runs");
            let power = self.json(&["power", "status", name])?;
            ensure!(power["observed"]["state"] == "off", "not off: {power}");
            Ok(())
        })?;
        let stopped = machine.boot_id().ok();
        ensure!(stopped.is_none(), "a host without power has a boot id");
        world.step("`power on` boots it, and its agent proves it", || {
            let done = self.done(&["power", "on", name])?;
            ensure!(done["confirmation"] == "boot_id", "by what? {done}");
            world.wait_connected(name, SOON)?;
            Ok(())
        })?;
        world.step("`power reset` is confirmed by a new boot id", || {
            let before = machine.boot_id()?;
            let done = self.done(&["power", "reset", name, "--confirm", name])?;
            ensure!(done["confirmation"] == "boot_id", "by what? {done}");
            ensure!(before != machine.boot_id()?, "the same boot");
            Ok(())
        })?;
        world.step(
            "`power off` asks the agent; the controller sees it happen",
            || {
                let done = self.done(&["power", "off", name, "--confirm", name])?;
                ensure!(done["steps"][0]["by"] == "agent", "by whom? {done}");
                ensure!(done["confirmation"] == "observed", "by what? {done}");
                ensure!(!machine.is_running(), "the host runs");
                let on = self.done(&["power", "on", name])?;
                ensure!(on["confirmation"] == "boot_id", "by what? {on}");
                Ok(())
            },
        )?;
        world.step("a host without a controller restarts by its agent", || {
            let before = other.boot_id()?;
            let name = other.name();
            let done = self.done(&["power", "reboot", name, "--confirm", name])?;
            ensure!(done["confirmation"] == "boot_id", "by what? {done}");
            ensure!(before != other.boot_id()?, "the same boot");
            Ok(())
        })?;
        world.step(
            "the controller was told each thing once, and history tells the story",
            || {
                // Off, on, reset, on: the soft off was the agent's.
                let told = self.board.resets()?;
                ensure!(told == 4, "{told} resets in the controller's log");
                let page = self.json(&["power", "history", name])?;
                let items = page["items"].as_array().context("a list has items")?;
                let actions: Vec<_> = items
                    .iter()
                    .filter_map(|it| it["action"].as_str())
                    .collect();
                ensure!(
                    actions == ["on", "shutdown", "reset", "on", "off"],
                    "newest first: {actions:?}"
                );
                let all_worked = items.iter().all(|it| it["state"] == "succeeded");
                ensure!(all_worked, "not all worked: {page}");
                Ok(())
            },
        )
    }

    fn provider(&self, programs: &Programs) -> Result<()> {
        let rule = json!({
            "need": "controllers", "hosts": [GATEWAY.to_string()], "ports": [PORT],
            "networks": ["10.77.0.0/24"], "tls_profiles": ["bmc", "wrong-pin"], "secrets": ["password"],
        });
        let grant = json!({
            "workspaces": "all",
            "http": [rule],
            "tls_profiles": {
                "bmc": { "keys": [self.board.controller().pin] },
                "wrong-pin": { "keys": ["00".repeat(32)] },
            },
            "state": { "keys": 1000 },
            "limits": { "wall_ms": 30000, "http_requests": 100 },
        });
        provide(self.world, programs, "power-redfish", &grant, None)?;
        secret(self.world, "bmc", PASSWORD)
    }

    fn target(&self, profile: &str) -> Result<()> {
        let name = self.world.hosts()[0].name();
        self.json(&[
            "power",
            "target",
            "set",
            name,
            "--provider",
            "power-redfish",
            "--address",
            &self.board.controller().url(),
            "--param",
            &format!("system={}", system("On").uuid),
            "--param",
            "user=admin",
            "--secret",
            "password=bmc",
            "--tls-profile",
            profile,
        ])
        .map(drop)
    }

    fn with_workspace<'a>(args: &[&'a str]) -> Vec<&'a str> {
        let mut all = args.to_vec();
        if args[0] == "power" {
            all.extend(["-w", WORKSPACE]);
        }
        all
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        self.world.cli().json(&Self::with_workspace(args))
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        self.world.cli().run(&Self::with_workspace(args))
    }

    fn done(&self, args: &[&str]) -> Result<Value> {
        done(self.world, &Self::with_workspace(args))
    }
}

/// Installs a provider, grants it this, configures and enables it.
fn provide(
    world: &World,
    programs: &Programs,
    name: &str,
    grant: &Value,
    configuration: Option<&Value>,
) -> Result<()> {
    let component = programs.plugins.join(name).with_extension("wasm");
    enable(world, name, &component, grant, configuration)
}

fn enable(
    world: &World,
    name: &str,
    component: &Path,
    grant: &Value,
    configuration: Option<&Value>,
) -> Result<()> {
    let cli = world.cli();
    let write = |what: &str, value: &Value| -> Result<String> {
        let file = world.folder().join(format!("{name}.{what}.json"));
        fs::write(&file, value.to_string())?;
        Ok(file.display().to_string())
    };
    cli.text(&["plugin", "install", &component.display().to_string()])?;
    cli.text(&["plugin", "grant", name, "-f", &write("grant", grant)?])?;
    if let Some(configuration) = configuration {
        let file = write("configuration", configuration)?;
        cli.text(&["plugin", "configure", name, "-f", &file])?;
    }
    cli.text(&["plugin", "enable", name])?;
    wait::until("the provider to be ready", SOON, || {
        let shown = cli.json(&["plugin", "show", name])?;
        let running = shown["running"].clone();
        Ok(Look::when(running["status"] == "ready", || {
            running.to_string()
        }))
    })
}

/// Keeps a secret in the workspace.
fn secret(world: &World, name: &str, value: &str) -> Result<()> {
    let file = world.folder().join(format!("{name}.secret"));
    fs::write(&file, value)?;
    let file = file.display().to_string();
    let set = ["secret", "set", name, "-w", WORKSPACE, "--from-file", &file];
    world.cli().text(&set).map(drop)
}

/// Asks for something and waits until it has succeeded; the operation.
fn done(world: &World, args: &[&str]) -> Result<Value> {
    let ended = ended(world, args)?;
    ensure!(ended["state"] == "succeeded", "{ended}");
    Ok(ended)
}

/// Asks for something and waits until it has ended; the operation.
fn ended(world: &World, args: &[&str]) -> Result<Value> {
    let asked = world.cli().json(args)?;
    let id = text(&asked, "id")?.to_owned();
    wait::until(&format!("{args:?} to end"), SOON * 2, || {
        let shown = world.cli().json(&["power", "show", &id, "-w", WORKSPACE])?;
        let over = !shown["ended_at"].is_null();
        Ok(Look::some(over.then(|| shown.clone()), || {
            shown.to_string()
        }))
    })
}
