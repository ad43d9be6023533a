//! `power-route`: a controller in a network that one host sees, and the gateway does not.

use std::{net::Ipv4Addr, path::Path};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{PORT, SOON, done, provide, secret, system};
use crate::{
    peers::redfish::{PASSWORD, Redfish, Setup},
    product::{Launch, Programs, WORKSPACE, World},
    scenarios::support::{install_all, text},
    sh,
    wait::{self, Look},
};

/// Of the controller: on the jump host's own machine, so that nobody else has a way to it.
const CONTROLLER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// What is turned on. It has never joined; its controller is all there is of it.
const DARK: &str = "dark";

pub(in crate::scenarios) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch::unsigned_plugins();
    let world = World::with_hosts_and(programs, 1, launch)?;
    let jump = &world.hosts()[0];
    world.step("a host joins", || {
        let token = world.token(&[])?;
        install_all(world.hosts(), &token)?;
        world.wait_connected(jump.name(), SOON).map(drop)
    })?;
    let controller = world.step("behind it lies a controller", || {
        let place = world.place_of(jump);
        let address = format!("{CONTROLLER}/32");
        let mut add = place.command(Path::new("ip"));
        add.args(["address", "add", &address, "dev", "lo"]);
        sh::run(&mut add, SOON)?.ok()?;
        Redfish::start(Setup {
            folder: &world.folder().join("controller"),
            place: &place,
            address: (CONTROLLER, Some(PORT)),
            systems: &[system("Off")],
            notices: None,
        })
    })?;
    world.step("a provider that may go there by the host only", || {
        let grant = grant(&world, &controller.pin)?;
        provide(&world, programs, "power-redfish", &grant, None)?;
        secret(&world, "bmc", PASSWORD)?;
        let path = ["host", "create", "-w", WORKSPACE, DARK];
        world.cli().text(&path).map(drop)
    })?;
    world.step("directly nobody gets there", || {
        target(&world, None)?;
        let check = check(&world)?;
        ensure!(check["ok"] == false, "it works: {check}");
        ensure!(
            controller.resets()? == 0,
            "the controller was told something"
        );
        Ok(())
    })?;
    world.step(
        "and not by the host either, before its owner allows it",
        || {
            target(&world, Some("rack"))?;
            let check = check(&world)?;
            ensure!(check["ok"] == false, "it works: {check}");
            ensure!(
                check.to_string().contains("route."),
                "for another reason: {check}"
            );
            Ok(())
        },
    )?;
    world.step("the owner allows this network and port", || {
        let allow = format!("[forward]\nnetworks = [\"{CONTROLLER}/32\"]\nports = [{PORT}]\n");
        jump.write_file("/etc/loopback-agent/forward.toml", allow.as_bytes())?;
        jump.sh("systemctl restart loopback-agent")?;
        wait::until("the controller to be reached", SOON, || {
            let check = check(&world)?;
            Ok(Look::when(check["ok"] == true, || check.to_string()))
        })
    })?;
    world.step("the machine is turned on by the agent's way", || {
        let on = done(&world, &["power", "on", DARK, "-w", WORKSPACE])?;
        ensure!(on["confirmation"] == "off_then_on", "by what? {on}");
        ensure!(controller.resets()? == 1, "not told once");
        Ok(())
    })?;
    world.step("without the host nobody gets there", || {
        jump.sh("systemctl stop loopback-agent")?;
        world.wait_host(jump.name(), "away", SOON, |host| {
            host["connectivity"] != "connected"
        })?;
        let check = check(&world)?;
        ensure!(check["ok"] == false, "it works: {check}");
        ensure!(
            check.to_string().contains("route.not_linked"),
            "for another reason: {check}"
        );
        Ok(())
    })
}

fn grant(world: &World, pin: &str) -> Result<Value> {
    let workspace = world.cli().json(&["workspace", "show", WORKSPACE])?;
    let jump = world.listed_as(world.hosts()[0].name())?;
    let jump = jump.first().context("the host is listed")?;
    Ok(json!({
        "workspaces": "all",
        "http": [{
            "need": "controllers", "hosts": [CONTROLLER.to_string()], "ports": [PORT],
            "networks": [format!("{CONTROLLER}/32")], "tls_profiles": ["bmc"],
            "secrets": ["password"], "routes": ["rack"],
        }],
        "tls_profiles": { "bmc": { "keys": [pin] } },
        "routes": { "rack": { "workspace": text(&workspace, "id")?, "hosts": [text(jump, "id")?] } },
        "state": { "keys": 1000 },
        "limits": { "wall_ms": 30000, "http_requests": 100 },
    }))
}

fn target(world: &World, route: Option<&str>) -> Result<()> {
    let system = format!("system={}", system("Off").uuid);
    let address = format!("https://{CONTROLLER}:{PORT}");
    let mut args = vec![
        "power",
        "target",
        "set",
        DARK,
        "-w",
        WORKSPACE,
        "--provider",
        "power-redfish",
        "--address",
        &address,
        "--param",
        &system,
        "--param",
        "user=admin",
        "--secret",
        "password=bmc",
        "--tls-profile",
        "bmc",
    ];
    if let Some(route) = route {
        args.extend(["--route", route]);
    }
    world.cli().json(&args).map(drop)
}

fn check(world: &World) -> Result<Value> {
    world
        .cli()
        .json(&["power", "target", "check", DARK, "-w", WORKSPACE])
}
