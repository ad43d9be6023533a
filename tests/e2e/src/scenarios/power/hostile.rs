//! `power-hostile`: providers that hang, lie and flood, and controllers that do. Whoever has nothing
//! to do with them is turned on and off as before.
//!
//! Two lamps that work are switched all the time: one by a provider of its own, one by the same
//! provider that the rude controllers have. First in peace, then while five hostile providers and
//! a dozen rude controllers are asked to do things too, and a host with an agent has a provider that
//! lies about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{done, enable, ended, provide, secret};
use crate::{
    peers::{
        outlet::{self, Outlet},
        proxmox::{Proxmox, TOKEN_ID},
        rude::{Manner, Rude},
    },
    product::{Launch, Programs, WORKSPACE, World},
    say,
    scenarios::{hostile_plugins, plugins::package, support::JOIN},
    wait::{self, Look},
};

/// What each hostile provider does, and what its operations may come to: nothing that is claimed
/// is taken for done where it is known to be wrong.
const PROVIDERS: [&str; 5] = ["hang", "spin", "flood", "panic", "lie"];
/// Hosts of each.
const HOSTS: usize = 4;
/// Rude controllers of each manner.
const CONTROLLERS: usize = 4;
/// The lamps are switched so often in peace, and so often under fire.
const ROUNDS: usize = 2;
/// Operations of the hostile ones have so long.
const PATIENCE: &str = "60s";
const TOKEN: &str = "d5c1b0a9-0000-4000-8000-000000000001";
/// The lamp with a provider of its own.
const OWN: &str = "lamp";
/// The lamp that shares its provider with the rude.
const SHARED: &str = "shared";

pub(in crate::scenarios) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch {
        settings: "\n[agents]\nheartbeat = \"1s\"\n[plugins]\nsigned_only = false\n".into(),
        ..Launch::default()
    };
    let world = World::here_with(programs, launch)?;
    let guests = world.step("build the guests", hostile_plugins::build)?;
    let outlet = Outlet::start(world.folder())?;
    let server = Proxmox::start(TOKEN)?;
    let story = Story {
        world: &world,
        programs,
        outlet: &outlet,
        server: &server,
    };
    let rude = story.rude()?;
    world.step("two lamps that work", || story.lamps(&rude))?;
    let calm = world.step("they are switched in peace", || story.switch())?;
    let agent = world.step("a host is linked, whose provider lies", || {
        let token = world.token(&["--label", "kind=linked"])?;
        let agent = world.agent("agent", &token)?;
        world.wait_labelled("kind", "linked", JOIN)?;
        Ok(agent)
    })?;
    world.step("providers and controllers that do harm", || {
        story.harm(&guests, &rude)
    })?;
    world.step("all of them are asked to do something", || story.ask())?;
    let fire = world.step("the lamps are switched meanwhile", || {
        let fire = story.switch()?;
        ensure!(story.open()? > 0, "nothing hostile went on any more");
        Ok(fire)
    })?;
    report(&calm, &fire)?;
    world.step("the lamps were told each thing once", || {
        let told = server.submitted();
        let wanted: Vec<_> = ["start", "stop"].repeat(2 * ROUNDS);
        ensure!(told == wanted, "{told:?}");
        Ok(())
    })?;
    world.step(
        "who says off of a host that is linked is not believed",
        || story.contradicted(),
    )?;
    world.step(
        "what was asked of the hostile ends, and claims nothing",
        || story.ends(),
    )?;
    world.step("nobody else's host was late", || story.nobody_was_late())?;
    drop(agent);
    Ok(())
}

struct Story<'w> {
    world: &'w World,
    programs: &'w Programs,
    outlet: &'w Outlet,
    server: &'w Proxmox,
}

/// How long switching took, by lamp.
type Times = BTreeMap<&'static str, Vec<Duration>>;

impl Story<'_> {
    fn cli(&self, args: &[&str]) -> Result<String> {
        let mut all = args.to_vec();
        all.extend(["-w", WORKSPACE]);
        self.world.cli().text(&all)
    }

    fn json(&self, args: &[&str]) -> Result<Value> {
        let mut all = args.to_vec();
        all.extend(["-w", WORKSPACE]);
        self.world.cli().json(&all)
    }

    fn rude(&self) -> Result<Vec<(Manner, Rude)>> {
        [Manner::Silent, Manner::Endless, Manner::Nonsense]
            .into_iter()
            .flat_map(|manner| [manner; CONTROLLERS])
            .map(|manner| Ok((manner, Rude::start(manner)?)))
            .collect()
    }

    fn lamps(&self, rude: &[(Manner, Rude)]) -> Result<()> {
        let rule = |need: &str, ports: Vec<u16>, secrets: &[&str]| {
            json!([{
                "need": need, "hosts": ["127.0.0.1"], "ports": ports,
                "networks": ["127.0.0.0/8"], "plain": true, "secrets": secrets,
            }])
        };
        let http = rule("controller", vec![self.outlet.port], &[]);
        let grant = json!({ "workspaces": "all", "http": http });
        let config = self.outlet.configuration();
        provide(
            self.world,
            self.programs,
            "power-webhook",
            &grant,
            Some(&config),
        )?;
        let mut ports = vec![self.server.port()];
        ports.extend(rude.iter().map(|(_, rude)| rude.address.port()));
        let grant = json!({ "workspaces": "all", "http": rule("api", ports, &["token"]) });
        let config = json!({ "token_id": TOKEN_ID, "server": self.server.url() });
        provide(
            self.world,
            self.programs,
            "power-proxmox",
            &grant,
            Some(&config),
        )?;
        secret(self.world, "outlet", outlet::KEY)?;
        secret(self.world, "proxmox", TOKEN)?;
        let key = ["--secret", "signing=outlet"];
        self.host(OWN, "good", "power-webhook", outlet::ADDRESS, &key)?;
        let address = format!("{}/nodes/pve-1/qemu/100", self.server.url());
        let token = ["--secret", "token=proxmox"];
        self.host(SHARED, "good", "power-proxmox", &address, &token)
    }

    fn host(
        &self,
        name: &str,
        kind: &str,
        provider: &str,
        address: &str,
        more: &[&str],
    ) -> Result<()> {
        let label = format!("kind={kind}");
        self.cli(&["host", "create", name, "--label", &label])?;
        self.target(name, provider, address, more)
    }

    fn target(&self, name: &str, provider: &str, address: &str, more: &[&str]) -> Result<()> {
        let mut set = vec!["power", "target", "set", name];
        set.extend(["--provider", provider, "--address", address]);
        set.extend(more);
        self.cli(&set).map(drop)
    }

    /// Switches both lamps on and off; each time it works.
    fn switch(&self) -> Result<Times> {
        let mut times = Times::new();
        for _ in 0..ROUNDS {
            for lamp in [OWN, SHARED] {
                for what in [&["on"][..], &["off", "--hard"]] {
                    let mut ask = vec!["power"];
                    ask.extend(what);
                    ask.extend([lamp, "-w", WORKSPACE, "--confirm", lamp]);
                    let began = Instant::now();
                    done(self.world, &ask)?;
                    times.entry(lamp).or_default().push(began.elapsed());
                }
            }
        }
        Ok(times)
    }

    fn harm(&self, guests: &std::path::Path, rude: &[(Manner, Rude)]) -> Result<()> {
        let silent = rude.iter().find(|(manner, _)| *manner == Manner::Silent);
        let silent = silent.context("one is silent")?.1.address;
        for does in PROVIDERS {
            let file = self.component(guests, does)?;
            let rule = json!({
                "need": "any", "hosts": ["127.0.0.1"], "ports": [silent.port()],
                "networks": ["127.0.0.0/8"], "plain": true,
            });
            let grant = json!({
                "workspaces": "all", "http": [rule], "state": { "keys": 100 },
                "limits": { "wall_ms": 20000, "cpu_ms": 500 },
            });
            let config = json!({ "does": does, "url": format!("http://{silent}/") });
            enable(self.world, does, &file, &grant, Some(&config))?;
            for number in 0..HOSTS {
                let name = format!("{does}-{number}");
                // Each at an endpoint of its own, so that none waits for another.
                self.host(&name, "hostile", does, &format!("machine-{number}"), &[])?;
            }
        }
        let linked = self.linked()?;
        self.target(&linked, "lie", "machine-linked", &[])?;
        for (number, (manner, rude)) in rude.iter().enumerate() {
            let name = format!("{manner:?}-{number}").to_lowercase();
            let address = format!("http://{}/nodes/pve-1/qemu/100", rude.address);
            let token = ["--secret", "token=proxmox"];
            self.host(&name, "rude", "power-proxmox", &address, &token)?;
        }
        Ok(())
    }

    /// The name of the host whose agent is linked.
    fn linked(&self) -> Result<String> {
        let hosts = self.world.listed()?;
        let linked = hosts.iter().find(|host| host["labels"]["kind"] == "linked");
        let name = linked.and_then(|host| host["name"].as_str());
        Ok(name.context("the host has a name")?.to_owned())
    }

    fn component(&self, guests: &std::path::Path, name: &str) -> Result<PathBuf> {
        let manifest = json!({
            "format": 1, "name": name, "version": "1.0.0", "description": "A guest of tests",
            "needs": {
                "http": [{ "name": "any", "purpose": "to hang", "plain": true }],
                "state": { "keys": 100 },
            },
        });
        let bytes = std::fs::read(guests.join("guest_power.wasm"))?;
        let path = self.world.folder().join(name).with_extension("wasm");
        std::fs::write(&path, package::given_manifest(&bytes, &manifest))?;
        Ok(path)
    }

    fn ask(&self) -> Result<()> {
        for kind in ["hostile", "rude"] {
            let selector = format!("kind={kind}");
            self.json(&[
                "power",
                "reset",
                "-l",
                &selector,
                "--at-once",
                "100",
                "--stop-after",
                "0",
                "--timeout",
                PATIENCE,
                "--confirm",
                WORKSPACE,
            ])?;
        }
        Ok(())
    }

    fn contradicted(&self) -> Result<()> {
        let name = self.linked()?;
        let off = ["power", "off", &name, "--hard", "--confirm", &name];
        let ended = ended(self.world, &[&off[..], &["-w", WORKSPACE]].concat())?;
        ensure!(ended["state"] == "outcome_unknown", "{ended}");
        ensure!(ended["trouble"]["code"] == "wrong_target", "{ended}");
        Ok(())
    }

    /// How many operations go on.
    fn open(&self) -> Result<usize> {
        let open = self.json(&["power", "history", "--open", "--limit", "1000"])?;
        Ok(open["items"].as_array().map_or(0, Vec::len))
    }

    /// Until all operations have ended; what they came to.
    fn ends(&self) -> Result<()> {
        let limit = Duration::from_secs(180);
        wait::until("what was asked to end", limit, || {
            let open = self.open()?;
            Ok(Look::when(open == 0, || format!("{open} go on")))
        })?;
        let all = self.json(&["power", "history", "--limit", "1000"])?;
        let all = all["items"].as_array().context("a list has items")?;
        let mut came_to: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for operation in all.iter().filter(|it| it["action"] == "reset") {
            let name = operation["host_name"].as_str().unwrap_or_default();
            let kind = name.split('-').next().unwrap_or_default().to_owned();
            let state = operation["state"].as_str().unwrap_or_default();
            let code = operation["trouble"]["code"].as_str().unwrap_or("-");
            // Of a machine without an agent, nobody knows better than its provider.
            ensure!(state != "succeeded" || kind == "lie", "{operation}");
            came_to
                .entry(kind)
                .or_default()
                .insert(format!("{state} [{code}]"));
        }
        for (kind, states) in &came_to {
            let states: Vec<_> = states.iter().map(String::as_str).collect();
            say::line(format_args!("  {kind:10} {}", states.join(", ")));
        }
        ensure!(came_to.len() == PROVIDERS.len() + 3, "{came_to:?}");
        Ok(())
    }

    fn nobody_was_late(&self) -> Result<()> {
        let hosts = self.world.listed()?;
        let linked = hosts.iter().find(|host| host["labels"]["kind"] == "linked");
        let id = linked.and_then(|host| host["id"].as_str());
        for entry in self.world.history(id.context("the host has an id")?)? {
            let kind = entry["event"]["kind"].as_str().unwrap_or_default();
            ensure!(kind != "late" && kind != "unreachable", "{entry}");
        }
        Ok(())
    }
}

/// Tells how long switching took; it fails if the lamps had to wait for somebody who hangs.
fn report(calm: &Times, fire: &Times) -> Result<()> {
    for (lamp, calm) in calm {
        let median = |times: &[Duration]| {
            let mut times = times.to_vec();
            times.sort_unstable();
            let last = times.last().copied().unwrap_or_default();
            (
                times.get(times.len() / 2).copied().unwrap_or_default(),
                last,
            )
        };
        let (before, meanwhile) = (median(calm), median(fire.get(lamp).map_or(&[], |it| it)));
        say::line(format_args!(
            "  {lamp:10} switched in {:.1?} (at most {:.1?}) before, {:.1?} ({:.1?}) meanwhile",
            before.0, before.1, meanwhile.0, meanwhile.1
        ));
        // Calls that hang take twenty seconds each.
        let most = before.0 * 2 + Duration::from_secs(10);
        ensure!(meanwhile.0 < most, "{lamp} took {:?}", meanwhile.0);
    }
    Ok(())
}
