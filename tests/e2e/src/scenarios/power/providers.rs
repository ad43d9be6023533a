//! `power-providers`: every provider that comes with the gateway, from the command line to what it
//! speaks with and back. Redfish has stories of its own, and so has Wake-on-LAN.
//!
//! What is believed is what the other side says by another client: AWS's own, `ipmitool`, the
//! cloud's own API, the played server's own book.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{done, ended, provide, secret};
use crate::{
    peers::{
        self,
        ec2::{Ec2, REGION},
        hetzner::{self, Hetzner},
        ipmi::{self, Ipmi},
        outlet::{self, Outlet},
        proxmox::{Proxmox, TOKEN_ID},
    },
    product::{Launch, Programs, WORKSPACE, World},
    say,
    tools::Missing,
};

const PROXMOX_SECRET: &str = "d5c1b0a9-0000-4000-8000-000000000001";

pub(in crate::scenarios) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch::unsigned_plugins();
    let world = World::here_with(programs, launch)?;
    let story = Story {
        world: &world,
        programs,
        missing: RefCell::default(),
    };
    story.part("instances of EC2, at moto", Ec2::start, |peer| {
        story.ec2(peer)
    })?;
    story.part("servers of Hetzner, at cloudalone", Hetzner::start, |it| {
        story.hetzner(it)
    })?;
    story.part("a machine by IPMI, at ipmi_sim", Ipmi::start, |peer| {
        story.ipmi(peer)
    })?;
    story.part("an outlet by signed requests", Outlet::start, |peer| {
        story.outlet(peer)
    })?;
    let played = |_: &std::path::Path| Proxmox::start(PROXMOX_SECRET);
    story.part("machines of Proxmox VE, played", played, |peer| {
        story.proxmox(peer)
    })?;
    // A story without some of its parts has not passed.
    match story.missing.take().pop() {
        Some(missing) => Err(missing.into()),
        None => Ok(()),
    }
}

struct Story<'w> {
    world: &'w World,
    programs: &'w Programs,
    missing: RefCell<Vec<Missing>>,
}

impl Story<'_> {
    /// What one peer is for; skipped loudly where this machine cannot have it.
    fn part<P>(
        &self,
        what: &str,
        start: impl FnOnce(&std::path::Path) -> Result<P>,
        tell: impl FnOnce(&P) -> Result<()>,
    ) -> Result<()> {
        let peer = self.world.step(&format!("{what}: it is there"), || {
            peers::had(start(self.world.folder()))
        })?;
        match peer {
            Ok(peer) => self.world.step(what, || tell(&peer)),
            Err(missing) => {
                say::line(format_args!("  SKIPPED: {what}, because {missing}"));
                self.missing.borrow_mut().push(missing);
                Ok(())
            }
        }
    }

    /// A host that never joined: its provider is all there is of it.
    fn host(&self, name: &str, provider: &str, address: &str, more: &[&str]) -> Result<()> {
        let cli = self.world.cli();
        cli.text(&["host", "create", "-w", WORKSPACE, name])?;
        let mut set = vec!["power", "target", "set", name, "-w", WORKSPACE];
        set.extend(["--provider", provider, "--address", address]);
        set.extend(more);
        cli.text(&set)?;
        let check = cli.json(&["power", "target", "check", name, "-w", WORKSPACE])?;
        ensure!(check["ok"] == true, "it does not work: {check}");
        Ok(())
    }

    fn is(&self, name: &str, state: &str) -> Result<()> {
        let now = ["power", "status", name, "--now", "-w", WORKSPACE];
        let seen = self.world.cli().json(&now)?;
        let fresh = seen["observability"] == "fresh";
        ensure!(
            fresh && seen["observed"]["state"] == state,
            "not {state}: {seen}"
        );
        Ok(())
    }

    /// Does it, in production, and says what that rests on.
    fn does(&self, what: &[&str], name: &str) -> Result<String> {
        let done = done(self.world, &asking(what, name))?;
        let rests_on = done["confirmation"].as_str();
        Ok(rests_on.context("something confirms it")?.to_owned())
    }

    fn ec2(&self, cloud: &Ec2) -> Result<()> {
        let grant = json!({ "workspaces": "all", "http": [http("api", cloud.port, &[])] });
        let config = json!({ "region": REGION, "endpoint": cloud.url });
        provide(
            self.world,
            self.programs,
            "power-ec2",
            &grant,
            Some(&config),
        )?;
        let (id, key) = &cloud.power;
        secret(self.world, "ec2-id", id)?;
        secret(self.world, "ec2-key", key)?;
        let secrets = [
            "--secret",
            "access-key-id=ec2-id",
            "--secret",
            "secret-access-key=ec2-key",
        ];
        let instance = &cloud.ids[0];
        self.host("web", "power-ec2", instance, &secrets)?;
        let rehearsal = asking(&["off", "--hard", "--dry-run"], "web");
        let rehearsal = self.world.cli().json(&rehearsal)?;
        let step = &rehearsal["steps"][0];
        let would = step["action"] == "off" && step["by"] == "provider";
        ensure!(rehearsal["ok"] == true && would, "{rehearsal}");
        self.is("web", "on")?;
        expect(&self.does(&["off", "--hard"], "web")?, &["observed"])?;
        ensure!(cloud.state(instance)? == "stopped", "AWS's client differs");
        expect(&self.does(&["on"], "web")?, &["off_then_on"])?;
        ensure!(cloud.state(instance)? == "running", "AWS's client differs");
        ensure!(cloud.state(&cloud.ids[1])? == "running", "the wrong one");
        // A key that may only look: the cloud refuses, and nothing is tried again.
        let (id, key) = &cloud.looks;
        secret(self.world, "ec2-id", id)?;
        secret(self.world, "ec2-key", key)?;
        let refused = ended(self.world, &asking(&["off", "--hard"], "web"))?;
        ensure!(refused["state"] == "failed", "{refused}");
        ensure!(
            cloud.state(instance)? == "running",
            "it was done all the same"
        );
        self.finds("power-ec2", &secrets, 2)
    }

    fn hetzner(&self, cloud: &Hetzner) -> Result<()> {
        let grant = json!({ "workspaces": "all", "http": [http("api", cloud.port, &["token"])] });
        let config = json!({ "endpoint": cloud.url() });
        provide(
            self.world,
            self.programs,
            "power-hetzner",
            &grant,
            Some(&config),
        )?;
        secret(self.world, "hetzner", hetzner::TOKEN)?;
        let server = cloud.ids[0];
        let token = ["--secret", "token=hetzner"];
        self.host("db", "power-hetzner", &server.to_string(), &token)?;
        self.is("db", "on")?;
        // The soft way, since no agent is there to be asked: by the cloud.
        expect(&self.does(&["off"], "db")?, &["observed"])?;
        ensure!(cloud.status(server)? == "off", "the cloud differs");
        expect(&self.does(&["on"], "db")?, &["off_then_on"])?;
        expect(
            &self.does(&["reset"], "db")?,
            &["off_then_on", "observed", "acknowledged"],
        )?;
        ensure!(cloud.status(server)? == "running", "the cloud differs");
        // A token that is wrong ends it: nothing is tried again.
        secret(self.world, "hetzner", "another-token")?;
        let refused = ended(self.world, &asking(&["off", "--hard"], "db"))?;
        ensure!(refused["state"] == "failed", "{refused}");
        ensure!(
            cloud.status(server)? == "running",
            "it was done all the same"
        );
        secret(self.world, "hetzner", hetzner::TOKEN)?;
        self.is("db", "on")?;
        self.finds("power-hetzner", &token, cloud.ids.len())
    }

    fn ipmi(&self, controller: &Ipmi) -> Result<()> {
        let grant = json!({
            "workspaces": "all",
            "datagrams": [{
                "need": "bmc", "networks": ["127.0.0.0/8"], "ports": [controller.port],
            }],
            "state": { "keys": 100 },
        });
        let config = json!({ "user": ipmi::USER });
        provide(
            self.world,
            self.programs,
            "power-ipmi",
            &grant,
            Some(&config),
        )?;
        secret(self.world, "bmc", ipmi::PASSWORD)?;
        let address = format!("127.0.0.1:{}", controller.port);
        self.host(
            "metal",
            "power-ipmi",
            &address,
            &["--secret", "password=bmc"],
        )?;
        self.is("metal", "off")?;
        let on = self.does(&["on", "--boot", "network"], "metal")?;
        expect(&on, &["off_then_on"])?;
        let said = controller.ipmitool(&["chassis", "power", "status"])?;
        ensure!(said.contains("Power is on"), "ipmitool differs: {said}");
        self.does(&["off", "--hard"], "metal")?;
        let said = controller.ipmitool(&["chassis", "power", "status"])?;
        ensure!(said.contains("Power is off"), "ipmitool differs: {said}");
        let told = controller.told()?;
        for (what, times) in [("set boot pxe", 1), ("set power 1", 1), ("set power 0", 1)] {
            ensure!(told.matches(what).count() == times, "{what}: {told}");
        }
        Ok(())
    }

    fn outlet(&self, controller: &Outlet) -> Result<()> {
        let rule = http("controller", controller.port, &[]);
        let grant = json!({ "workspaces": "all", "http": [rule] });
        let config = controller.configuration();
        provide(
            self.world,
            self.programs,
            "power-webhook",
            &grant,
            Some(&config),
        )?;
        secret(self.world, "outlet", outlet::KEY)?;
        let key = ["--secret", "signing=outlet"];
        self.host("lamp", "power-webhook", outlet::ADDRESS, &key)?;
        self.is("lamp", "off")?;
        expect(&self.does(&["on"], "lamp")?, &["off_then_on"])?;
        self.is("lamp", "on")?;
        // A job, which the controller finishes when it is asked.
        self.does(&["cycle"], "lamp")?;
        self.is("lamp", "on")?;
        expect(&self.does(&["off", "--hard"], "lamp")?, &["observed"])?;
        self.is("lamp", "off")
    }

    fn proxmox(&self, server: &Proxmox) -> Result<()> {
        let rule = http("api", server.port(), &["token"]);
        let grant = json!({ "workspaces": "all", "http": [rule] });
        let config = json!({ "token_id": TOKEN_ID, "server": server.url() });
        provide(
            self.world,
            self.programs,
            "power-proxmox",
            &grant,
            Some(&config),
        )?;
        secret(self.world, "proxmox", PROXMOX_SECRET)?;
        let address = format!("{}/nodes/pve-1/qemu/100", server.url());
        self.host(
            "vm",
            "power-proxmox",
            &address,
            &["--secret", "token=proxmox"],
        )?;
        self.is("vm", "off")?;
        expect(&self.does(&["on"], "vm")?, &["off_then_on"])?;
        self.does(&["reset"], "vm")?;
        expect(&self.does(&["off"], "vm")?, &["observed"])?;
        ensure!(!server.is_running(100), "the server differs");
        let told = server.submitted();
        ensure!(told == ["start", "reset", "shutdown"], "{told:?}");
        let token = ["--secret", "token=proxmox"];
        self.finds("power-proxmox", &token, Proxmox::MACHINES)
    }

    /// What it proposes, where it can list what it knows.
    fn finds(&self, provider: &str, secrets: &[&str], count: usize) -> Result<()> {
        let discover = ["power", "discover", provider, "-w", WORKSPACE];
        let found: Value = self.world.cli().json(&[&discover[..], secrets].concat())?;
        let found = found.as_array().context("a list")?.len();
        ensure!(found == count, "{found} machines");
        Ok(())
    }
}

/// In production a host is interrupted when its name is typed.
fn asking<'a>(what: &[&'a str], name: &'a str) -> Vec<&'a str> {
    let mut ask = vec!["power"];
    ask.extend(what);
    ask.extend([name, "-w", WORKSPACE, "--confirm", name]);
    ask
}

fn http(need: &str, port: u16, secrets: &[&str]) -> Value {
    json!({
        "need": need, "hosts": ["127.0.0.1"], "ports": [port], "networks": ["127.0.0.0/8"],
        "plain": true, "secrets": secrets,
    })
}

fn expect(rests_on: &str, one_of: &[&str]) -> Result<()> {
    ensure!(one_of.contains(&rests_on), "it rests on {rests_on}");
    Ok(())
}
