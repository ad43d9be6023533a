//! `cargo xtask demo`: the whole product on this machine, in a minute, without root.
//!
//! A gateway on a free port of the loopback interface, an agent as a process of this user, and the
//! CLI that shows them. With `--hosts N` (root) the agent is installed on that many booted hosts by
//! the real installer instead. Everything lies in one temporary folder; a key, Ctrl-C or the end of
//! standard input stops the processes and removes it. Demos do not know of each other, so any
//! number may run at once; what one leaves that was killed outright, the next removes.

mod keypress;

use std::{
    fs,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use e2e::{
    interrupt,
    product::{Agent, Launch, Programs, Token, WORKSPACE, World, is_connected},
    scenario::Needs,
    wait::{self, Look},
};
use lexopt::{Arg, Parser, ValueExt};
use serde_json::Value;

use crate::{
    play::{Built, PRODUCT},
    plugins,
    workspace::Workspace,
};

/// From a started agent to a connected host; a second or two, unless the machine is busy.
const JOIN: Duration = Duration::from_secs(60);

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let (mut hosts, mut stay) = (0, true);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("hosts") => hosts = args.value()?.parse()?,
            Arg::Long("exit") => stay = false,
            other => return Err(other.unexpected().into()),
        }
    }
    interrupt::listen()?;
    let needs = if hosts == 0 {
        Needs::PROCESSES
    } else {
        Needs::INSTALLED_HOSTS
    };
    needs.met()?;
    let mut built = Built::build(workspace, PRODUCT, needs)?;
    built.programs.plugins = plugins::build(workspace, &["plugins/policy-window"])?;
    match play(&built.programs, hosts, stay) {
        // Stopping it is how one ends a demo.
        Err(error) if error.is::<interrupt::Interrupted>() => {}
        result => result?,
    }
    println!("stopped; nothing is left behind");
    Ok(ExitCode::SUCCESS)
}

fn play(programs: &Programs, hosts: u8, stay: bool) -> Result<()> {
    let start = Instant::now();
    println!("\nA gateway with its embedded store, and somebody who owns it:");
    // The plugin of the demo was built here, and nobody signed it.
    let launch = Launch::unsigned_plugins();
    let world = match hosts {
        0 => World::here_with(programs, launch)?,
        count => World::with_hosts_and(programs, count, launch)?,
    };
    let token = world.step("make a short-lived agent token", || {
        world.token(&["--description", "demo", "--label", "from=demo"])
    })?;
    // Kept until the end: dropping it stops the agent.
    let _agent = join(&world, &token, hosts)?;
    let joined = world.step("wait until the gateway has seen them", || {
        wait::until("the hosts to be connected", JOIN, || {
            let listed = world.listed()?;
            let ready: Vec<_> = listed
                .iter()
                .filter(|host| is_connected(host))
                .cloned()
                .collect();
            let all = ready.len() == usize::from(hosts.max(1));
            Ok(Look::some(all.then_some(ready), || {
                format!("listed: {}", listed.len())
            }))
        })
    })?;
    println!(
        "Ready {:.1} s after the build.",
        start.elapsed().as_secs_f32()
    );
    show(&world, &joined)?;
    plugin_at_work(&world, &programs.plugins)?;
    next_steps(&world);
    if stay {
        println!("\nPress a key (or Ctrl-C) to stop everything and clean up.");
        keypress::wait()?;
    }
    Ok(())
}

/// The product's own notifier, policy or installer would do; a policy shows most in three calls.
fn plugin_at_work(world: &World, folder: &Path) -> Result<()> {
    println!(
        "\nA plugin at work: a policy that lets commands run in a window which is closed now."
    );
    let component = folder.join("policy-window.wasm").display().to_string();
    call(world, &["plugin", "install", &component])?;
    call(
        world,
        &["plugin", "grant", "policy-window", "--workspace", "all"],
    )?;
    let configuration = world.folder().join("policy.json");
    // A minute in the week.
    fs::write(
        &configuration,
        r#"{"windows":[{"days":["sun"],"from":"03:00","to":"03:01"}],"actions":["project.workspace.host.command.run"]}"#,
    )
    .context("write the policy's configuration")?;
    let configuration = configuration.display().to_string();
    call(
        world,
        &["plugin", "configure", "policy-window", "-f", &configuration],
    )?;
    call(world, &["plugin", "enable", "policy-window"])?;
    wait::until("the plugin to be ready", JOIN, || {
        let shown = world.cli().json(&["plugin", "show", "policy-window"])?;
        let running = &shown["running"];
        Ok(Look::when(running["status"] == "ready", || {
            running.to_string()
        }))
    })?;
    let refused = world
        .cli()
        .run(&["run", "-w", WORKSPACE, "--all", "--", "true"])?;
    println!(
        "\n$ loopback run -w {WORKSPACE} --all -- true\n{}",
        refused.stderr.trim()
    );
    call(
        world,
        &[
            "--break-glass",
            "showing it",
            "run",
            "-w",
            WORKSPACE,
            "--all",
            "--",
            "true",
        ],
    )?;
    call(world, &["plugin", "disable", "policy-window"])
}

/// Joins either an agent of this machine or the lab's hosts.
fn join(world: &World, token: &Token, hosts: u8) -> Result<Option<Agent>> {
    if hosts == 0 {
        let agent = world.step("start an agent as an unprivileged process", || {
            world.agent("agent", token)
        })?;
        return Ok(Some(agent));
    }
    println!("  On each host: {}", token.install_command);
    for host in world.hosts() {
        let what = format!("install the agent on {}", host.name());
        world.step(&what, || token.install(host)?.ok().map(drop))?;
    }
    Ok(None)
}

/// A few calls with their answers.
fn show(world: &World, joined: &[Value]) -> Result<()> {
    let first = joined
        .first()
        .and_then(|host| host["id"].as_str())
        .context("a host joined")?;
    for args in [
        vec!["host", "list", "-w", WORKSPACE],
        vec!["host", "show", "-w", WORKSPACE, first],
        vec!["host", "history", "-w", WORKSPACE, first],
        vec!["run", "-w", WORKSPACE, "--all", "--", "uname", "-a"],
        vec!["command", "list", "-w", WORKSPACE],
        vec!["token", "list", "-w", WORKSPACE],
        vec!["events", "-w", WORKSPACE],
    ] {
        call(world, &args)?;
    }
    // An export and the key that verifies it: what an auditor gets.
    let [export, key] = ["audit.ndjson", "audit.key"].map(|name| world.folder().join(name));
    let (export, key) = (export.display().to_string(), key.display().to_string());
    call(world, &["audit", "export", "-w", WORKSPACE, "-o", &export])?;
    call(world, &["audit", "key", "-w", WORKSPACE, "-o", &key])?;
    call(world, &["audit", "verify", &export, "--key-file", &key])
}

fn call(world: &World, args: &[&str]) -> Result<()> {
    println!("\n$ loopback {}", args.join(" "));
    print!("{}", world.cli().text(args)?);
    Ok(())
}

fn next_steps(world: &World) {
    let cli = world.cli();
    let inside = world
        .enter()
        .map_or_else(String::new, |words| format!("{words} "));
    println!("\nTry next, in another terminal of this machine:\n");
    println!("  export LOOPBACK_CONFIG={}", cli.config().display());
    println!("  alias loopback='{inside}{}'", cli.program().display());
    for example in [
        "loopback host list -w floor",
        "loopback events -w floor --follow",
        "loopback token create -w floor --long-living",
        "loopback audit list -w floor",
        "loopback --help",
    ] {
        println!("  {example}");
    }
    println!(
        "  {inside}curl --cacert {} {}/v1/openapi.json",
        world.gateway().ca_file().display(),
        world.gateway().url()
    );
}
