//! `plugins`: what an operator does with the plugins that come with the product, and with one of
//! their own in JavaScript, from installing to rolling back.
//!
//! The receiver of webhooks is away for a minute in the meantime; the other parts of the story are
//! that minute.

pub(super) mod package;
mod receiver;

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use self::receiver::Receiver;
use super::support::closed_window;
use crate::{
    product::{Launch, Programs, WORKSPACE, World},
    sh,
    wait::{self, Look},
};

const SECRET: &str = "c2lnbmVkIHdpdGggdGhpcw";
/// How long the receiver is away.
const AWAY: Duration = Duration::from_secs(60);
/// For what takes a moment. Compiling QuickJS with a debug build takes longest.
const SOON: Duration = Duration::from_secs(120);

pub(super) fn run(programs: &Programs) -> Result<()> {
    let launch = Launch::unsigned_plugins();
    let world = World::here_with(programs, launch)?;
    let story = Story {
        world: &world,
        folder: programs.plugins.clone(),
    };
    let receiver = world.step(
        "a notifier: installed, granted, configured, enabled",
        || story.notifier(),
    )?;
    world.step("it brings signed events in order", || {
        story.tokens(3)?;
        story.all_arrive(&receiver, 3).map(drop)
    })?;
    let (address, before) = (receiver.address(), receiver.got());
    drop(receiver);
    let away = Instant::now();
    world.step("the receiver goes away; things go on happening", || {
        story.tokens(4)
    })?;

    world.step(
        "a policy refuses outside of its window, and says when it opens",
        || story.policy_denies(),
    )?;
    world.step("the glass breaks with a reason that everybody sees", || {
        story.break_glass()
    })?;
    world.step(
        "an upgrade that needs more stops and shows the difference",
        || story.upgrade_stops(),
    )?;
    world.step(
        "granted and approved it goes live under load, and back again; no call fails",
        || story.upgrade_and_back_under_load(),
    )?;
    world.step(
        "the installer is written by the product's own plugin",
        || story.own_installer(),
    )?;
    world.step(
        "an operator's installer in JavaScript writes for one workspace",
        || story.javascript_installer(),
    )?;

    world.step(
        "the receiver returns after a minute and misses nothing",
        || {
            let left = AWAY.saturating_sub(away.elapsed());
            wait::until("the minute to be over", left + SOON, || {
                Ok(Look::when(away.elapsed() >= AWAY, || {
                    format!("{:?}", away.elapsed())
                }))
            })?;
            story.returned(address, before.len())
        },
    )
}

struct Story<'w> {
    world: &'w World,
    folder: PathBuf,
}

impl Story<'_> {
    fn cli(&self, args: &[&str]) -> Result<String> {
        self.world.cli().text(args)
    }

    /// The path of a component, as text.
    fn component(&self, name: &str) -> String {
        let path = self.folder.join(name).with_extension("wasm");
        path.display().to_string()
    }

    /// A file of this story.
    fn file(&self, name: &str, text: &[u8]) -> Result<String> {
        let path = self.world.folder().join(name);
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn plugin(&self, name: &str) -> Result<Value> {
        self.world.cli().json(&["plugin", "show", name])
    }

    fn configure(&self, name: &str, configuration: &Value) -> Result<()> {
        let file = self.file(
            &format!("{name}.json"),
            configuration.to_string().as_bytes(),
        )?;
        self.cli(&["plugin", "configure", name, "-f", &file])
            .map(drop)
    }

    fn enable(&self, name: &str) -> Result<()> {
        self.cli(&["plugin", "enable", name])?;
        wait::until("the plugin to be ready", SOON, || {
            let running = self.plugin(name)?["running"].clone();
            Ok(Look::when(running["status"] == "ready", || {
                running.to_string()
            }))
        })
    }

    fn workspace_id(&self, name: &str) -> Result<String> {
        let shown = self.world.cli().json(&["workspace", "show", name])?;
        let id = shown["id"].as_str().context("a workspace has an id")?;
        Ok(id.to_owned())
    }

    fn tokens(&self, count: u32) -> Result<()> {
        for number in 0..count {
            let description = format!("number {number}");
            self.cli(&[
                "token",
                "create",
                "-w",
                WORKSPACE,
                "--description",
                &description,
            ])?;
        }
        Ok(())
    }

    fn notifier(&self) -> Result<Receiver> {
        let receiver = Receiver::listen(None, SECRET.as_bytes())?;
        self.cli(&["plugin", "install", &self.component("notify-webhook")])?;
        let early = self
            .world
            .cli()
            .run(&["plugin", "enable", "notify-webhook"])?;
        ensure!(early.code() == Some(5), "enabled without a grant: {early}");
        ensure!(
            early.stderr.contains("webhook"),
            "it does not say what is missing: {early}"
        );

        let secret = self.file("signing", SECRET.as_bytes())?;
        self.cli(&[
            "secret",
            "set",
            "signing",
            "-w",
            WORKSPACE,
            "--from-file",
            &secret,
        ])?;
        let grant = json!({
            "workspaces": "all",
            "http": [{
                "need": "webhook", "hosts": ["127.0.0.1"], "ports": [receiver.address().port()],
                "networks": ["127.0.0.1/32"], "plain": true,
            }],
            "secrets": { "signing": { "workspace": self.workspace_id(WORKSPACE)?, "secret": "signing" } },
            "limits": { "http_requests": 100, "wall_ms": 30000 },
        });
        let grant = self.file("grant.json", grant.to_string().as_bytes())?;
        self.cli(&["plugin", "grant", "notify-webhook", "-f", &grant])?;
        let url = format!("http://{}/events", receiver.address());
        let configuration = json!({
            "url": url, "sign": true, "kinds": ["audit.agent_token", "audit.policy"],
        });
        self.configure("notify-webhook", &configuration)?;
        self.enable("notify-webhook")?;
        Ok(receiver)
    }

    /// Waits for events about tokens; all of them are signed, each comes after those before it.
    fn all_arrive(&self, receiver: &Receiver, count: usize) -> Result<Vec<receiver::Got>> {
        let about_tokens = || -> Vec<_> {
            let got = receiver.got().into_iter();
            got.filter(|one| one.body["kind"] == "audit.agent_token.create")
                .collect()
        };
        wait::until("all events", SOON, || {
            let got = about_tokens().len();
            Ok(Look::when(got >= count, || format!("{got} of {count}")))
        })?;
        let got = receiver.got();
        ensure!(
            got.iter().all(|one| one.signed),
            "one is not signed: {got:?}"
        );
        let sequences: Vec<_> = got
            .iter()
            .filter_map(|one| one.body["sequence"].as_u64())
            .collect();
        ensure!(sequences.is_sorted(), "out of order: {sequences:?}");
        Ok(got)
    }

    fn returned(&self, address: SocketAddr, before: usize) -> Result<()> {
        let receiver = Receiver::listen(Some(address), SECRET.as_bytes())?;
        // Four while it was away, and those that the other parts of the story made.
        let got = self.all_arrive(&receiver, 4)?;
        let mut ids: Vec<_> = got.iter().map(|one| one.id.as_str()).collect();
        ids.sort_unstable();
        let all = ids.len();
        ids.dedup();
        ensure!(
            ids.len() == all,
            "an event came twice although nothing was lost"
        );
        ensure!(before == 3, "{before} events came before");
        let broken = |one: &receiver::Got| {
            one.body["kind"] == "audit.policy.break_glass" && one.body["severity"] == "critical"
        };
        wait::until("the event about the broken glass", SOON, || {
            let there = receiver.got().iter().any(broken);
            Ok(Look::when(there, || "not yet".to_owned()))
        })
    }

    fn policy_denies(&self) -> Result<()> {
        self.cli(&["plugin", "install", &self.component("policy-window")])?;
        self.cli(&["plugin", "grant", "policy-window", "--workspace", "all"])?;
        self.configure("policy-window", &window(&closed_window()?))?;
        self.enable("policy-window")?;
        let refused = self
            .world
            .cli()
            .run(&["token", "create", "-w", WORKSPACE])?;
        ensure!(refused.code() == Some(4), "it was not refused: {refused}");
        ensure!(
            refused.stderr.contains("policy_denied") && refused.stderr.contains("window"),
            "it does not say why: {refused}"
        );
        // What it does not judge goes on.
        self.cli(&[
            "workspace",
            "create",
            "--project",
            "shop",
            "second",
            "--environment",
            "staging",
        ])
        .map(drop)
    }

    fn break_glass(&self) -> Result<()> {
        let why = "the site is on fire";
        self.cli(&["--break-glass", why, "token", "create", "-w", WORKSPACE])?;
        let trail = self.cli(&["audit", "list", "-w", WORKSPACE, "--json"])?;
        ensure!(
            trail.contains("policy.break_glass") && trail.contains(why),
            "the audit trail does not tell"
        );
        // From now on the window is open all day.
        let open = json!([{ "days": [], "from": "00:00", "to": "00:00" }]);
        self.configure("policy-window", &window(&open))
    }

    /// The same policy as a later version that keeps values.
    fn wider(&self) -> Result<String> {
        let bytes = fs::read(self.component("policy-window"))?;
        let bytes = package::with_manifest(&bytes, |manifest| {
            manifest["version"] = "0.2.0".into();
            manifest["needs"]["state"] = json!({ "keys": 5 });
        })?;
        self.file("policy-window-0.2.0.wasm", &bytes)
    }

    fn upgrade_stops(&self) -> Result<()> {
        let wider = self.wider()?;
        let stopped = self
            .world
            .cli()
            .run(&["plugin", "upgrade", "policy-window", &wider])?;
        let said = format!("{}{}", stopped.stdout, stopped.stderr);
        ensure!(
            said.contains("needs.state") && said.contains("keeps 5 values"),
            "the difference is not shown: {stopped}"
        );
        let shown = self.plugin("policy-window")?;
        ensure!(
            shown["present"]["version"] == "0.1.0",
            "it went live: {shown}"
        );
        ensure!(
            shown["pending"]["version"]["version"] == "0.2.0" || !shown["pending"].is_null(),
            "nothing waits: {shown}"
        );
        Ok(())
    }

    fn upgrade_and_back_under_load(&self) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let calls = Arc::new(AtomicU32::new(0));
        let load: Vec<_> = (0..3)
            .map(|_| {
                let (stop, calls) = (Arc::clone(&stop), Arc::clone(&calls));
                let mut command = self
                    .world
                    .cli()
                    .command(&["token", "create", "-w", WORKSPACE]);
                let (program, args) = (
                    command.get_program().to_owned(),
                    command
                        .get_args()
                        .map(ToOwned::to_owned)
                        .collect::<Vec<_>>(),
                );
                let envs: Vec<_> = command
                    .get_envs()
                    .map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned)))
                    .collect();
                let _ = &mut command;
                thread::spawn(move || -> Result<()> {
                    while !stop.load(Ordering::Relaxed) {
                        let mut call = Command::new(&program);
                        call.args(&args);
                        for (name, value) in &envs {
                            match value {
                                Some(value) => call.env(name, value),
                                None => call.env_remove(name),
                            };
                        }
                        sh::run(&mut call, Duration::from_secs(60))?.ok()?;
                        calls.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let changed = self.upgrade_and_back(&calls);
        stop.store(true, Ordering::Relaxed);
        for thread in load {
            match thread.join() {
                Ok(went) => went.context("a call under load failed")?,
                Err(_) => bail!("a caller panicked"),
            }
        }
        changed?;
        // Its events are not part of what follows.
        self.cli(&["plugin", "disable", "policy-window"]).map(drop)
    }

    fn upgrade_and_back(&self, calls: &AtomicU32) -> Result<()> {
        let more_calls = |what: &str| {
            let before = calls.load(Ordering::Relaxed);
            wait::until(what, SOON, || {
                let made = calls.load(Ordering::Relaxed) - before;
                Ok(Look::when(made >= 5, || format!("{made} calls")))
            })
        };
        let is_live = |version: &str| {
            wait::until("the other version to be live", SOON, || {
                let shown = self.plugin("policy-window")?;
                let live =
                    shown["present"]["version"] == version && shown["running"]["status"] == "ready";
                Ok(Look::when(live, || shown["running"].to_string()))
            })
        };
        more_calls("calls of the first version")?;
        let grant = json!({ "workspaces": "all", "state": { "keys": 5 } });
        let grant = self.file("wider.json", grant.to_string().as_bytes())?;
        self.cli(&["plugin", "grant", "policy-window", "-f", &grant])?;
        self.cli(&["plugin", "upgrade", "policy-window", "--approve"])?;
        is_live("0.2.0")?;
        more_calls("calls of the second version")?;
        self.cli(&["plugin", "rollback", "policy-window"])?;
        is_live("0.1.0")?;
        more_calls("calls of the first version again")
    }

    /// The script as a host gets it.
    fn script(&self, url: &str) -> Result<String> {
        let mut curl = sh::command(&["curl", "-qfsSk", url]);
        sh::run(&mut curl, Duration::from_secs(60))?.ok()
    }

    fn own_installer(&self) -> Result<()> {
        let url = format!("{}/v1/agent/install.sh", self.world.gateway().url());
        let before = self.script(&url)?;
        self.cli(&["plugin", "install", &self.component("install-default")])?;
        self.cli(&["plugin", "grant", "install-default", "--workspace", "all"])?;
        self.enable("install-default")?;
        let by_plugin = self.script(&url)?;
        ensure!(by_plugin == before, "the component writes another script");
        let counters = &self.plugin("install-default")?["running"]["counters"];
        ensure!(
            counters["answered"].as_u64() >= Some(2),
            "it was not asked: {counters}"
        );
        Ok(())
    }

    fn javascript_installer(&self) -> Result<()> {
        self.cli(&["plugin", "install", &self.component("js-installer")])?;
        let only = self.workspace_id("second")?;
        let grant = json!({ "workspaces": { "only": [only] }, "limits": { "cpu_ms": 10000 } });
        let grant = self.file("js.json", grant.to_string().as_bytes())?;
        self.cli(&["plugin", "grant", "js-installer", "-f", &grant])?;
        self.configure("js-installer", &json!({}))?;
        self.enable("js-installer")?;
        let of = |workspace: &str| -> Result<(String, String)> {
            let made = self
                .world
                .cli()
                .json(&["token", "create", "-w", workspace])?;
            let url = made["install"]["url"]
                .as_str()
                .context("a token says where the installer is")?;
            Ok((url.to_owned(), self.script(url)?))
        };
        let (url, script) = of("second")?;
        ensure!(
            url.contains(&only),
            "not the workspace's own installer: {url}"
        );
        ensure!(
            script.contains("/opt/loopback-agent"),
            "not the operator's installer"
        );
        let (url, script) = of(WORKSPACE)?;
        ensure!(url.ends_with("/v1/agent/install.sh"), "{url}");
        ensure!(
            !script.contains("/opt/loopback-agent"),
            "the other workspace gets it, too"
        );
        Ok(())
    }
}

/// A configuration of the policy with these windows.
fn window(windows: &Value) -> Value {
    json!({ "windows": windows, "actions": ["project.workspace.agent_token"] })
}
