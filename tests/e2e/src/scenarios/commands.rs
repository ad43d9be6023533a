//! `commands`: a fleet with one host off. Nine run at once, the tenth once it is back, and what
//! became invalid meanwhile never; a program that does not want to die is dead when the answer says so.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::support::{JOIN, install_all, text};
use crate::{
    lab::Host,
    product::{Daemon, Programs, WORKSPACE, World},
    say,
    wait::{self, Look},
};

const HOSTS: u8 = 10;
/// From an order to its effect on a busy machine.
const SOON: Duration = Duration::from_secs(30);
const COUNT: &str = "/root/count";
const EXPIRED: &str = "/root/expired";

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::with_hosts(programs, HOSTS)?;
    world.step("install the agent on them, labelled role=web", || {
        let token = world.token(&["--label", "role=web"])?;
        install_all(world.hosts(), &token)?;
        for host in world.hosts() {
            world.wait_connected(host.name(), JOIN)?;
        }
        Ok(())
    })?;
    let [on @ .., off] = world.hosts() else {
        bail!("the lab has no hosts")
    };
    world.step("pull the mains of the tenth", || {
        off.power_loss()?;
        world.wait_host(off.name(), "missed", SOON * 2, |host| {
            host["connectivity"] != "connected"
        })
    })?;
    let expired = world.step("queue something for it that is valid for 3 s", || {
        let id = detached(
            &world,
            &["--host", off.name(), "--valid-for", "3s"],
            &format!("echo x >>{EXPIRED}"),
        )?;
        until_command(&world, &id, "failed")?;
        ensure!(
            run_of(&world, &id, off)?["state"] == "expired",
            "not expired"
        );
        Ok(id)
    })?;
    let mut following = world.step("run on the selector: nine stream at once", || {
        let script = format!("echo begin $HOSTNAME; echo x >>{COUNT}; sleep 1; echo end");
        let args = [
            "run",
            "-w",
            WORKSPACE,
            "-l",
            "role=web",
            "--valid-for",
            "10m",
            "--yes",
            "--",
            "bash",
            "-c",
            &script,
        ];
        let log = world.folder().join("run.log");
        let mut following = Daemon::start("loopback run", world.cli().command(&args), &log)?;
        let start = Instant::now();
        for host in on {
            let line = format!("| begin {}", host.name());
            wait::until(&line, SOON, || {
                Ok(Look::when(following.tail(200).contains(&line), || {
                    following.tail(5)
                }))
            })?;
        }
        say::line(format_args!(
            "              nine had begun after {:.2} s",
            start.elapsed().as_secs_f32()
        ));
        wait::until("nine ends", SOON, || {
            let ends = following.tail(200).matches("| end").count();
            Ok(Look::when(ends == on.len(), || format!("{ends} ends")))
        })?;
        ensure!(following.is_running(), "it did not wait for the tenth");
        Ok(following)
    })?;
    world.step(
        "power it on: it runs exactly once, and the command succeeds",
        || {
            off.power_on()?;
            let status = following.wait_end(SOON * 3)?;
            ensure!(status.success(), "{status}: {}", following.tail(20));
            for host in world.hosts() {
                let count = host.read_file(COUNT)?;
                ensure!(count == "x\n", "{} ran it {count:?}", host.name());
            }
            Ok(())
        },
    )?;
    world.step("what expired was never run", || {
        ensure!(
            run_of(&world, &expired, off)?["state"] == "expired",
            "it changed its mind"
        );
        let there = off.exec(&["test", "-e", EXPIRED]).run()?;
        ensure!(!there.status.success(), "it ran");
        Ok(())
    })?;
    let host = &on[0];
    world.step(
        "cancel what double-forks, leaves its session and traps TERM",
        || cancel_stubborn(&world, host),
    )?;
    world.step("a command that restarts the agent reports", || {
        let args = ["run", "-w", WORKSPACE, "--host", host.name(), "--"];
        let restart = [&args[..], &["systemctl", "restart", "loopback-agent"]].concat();
        let output = world.cli().run(&restart)?;
        ensure!(output.status.success(), "{output}");
        Ok(())
    })?;
    world.step(
        "a command that reboots its host reports, and runs once",
        || {
            let before = host.boot_id()?;
            let script = "echo x >>/root/reboots; systemctl reboot";
            let args = [
                "run",
                "-w",
                WORKSPACE,
                "--host",
                host.name(),
                "--",
                "sh",
                "-c",
                script,
            ];
            let output = world.cli().run(&args)?;
            wait::until("another boot", SOON * 2, || {
                let now = host.boot_id()?;
                Ok(Look::when(now != before, || now.to_string()))
            })?;
            ensure!(
                output.status.success() || output.stderr.contains("signal"),
                "{output}"
            );
            world.wait_connected(host.name(), JOIN)?;
            ensure!(host.read_file("/root/reboots")? == "x\n", "it ran again");
            Ok(())
        },
    )?;
    world.step("one that asks for two reboots goes on after each", || {
        let script = "echo part $LOOPBACK_REBOOTS; [ $LOOPBACK_REBOOTS = 2 ] || exit 194; exit 7";
        let args = [
            "run",
            "-w",
            WORKSPACE,
            "--host",
            host.name(),
            "--reboot-on",
            "194",
        ];
        let args = [&args[..], &["--", "sh", "-c", script]].concat();
        let output = world.cli().run(&args)?;
        ensure!(output.code() == Some(7), "{output}");
        ensure!(output.stdout == "part 0\npart 1\npart 2\n", "{output}");
        world.wait_connected(host.name(), JOIN).map(drop)
    })?;
    world.step(
        "copy a file to /etc, which the agent itself cannot write, and back",
        || {
            let (here, back) = (world.folder().join("app.conf"), world.folder().join("back"));
            std::fs::write(&here, "answer = 42\n")?;
            let there = format!("{}:/etc/app.conf", host.name());
            let [here, back] = [here, back].map(|path| path.display().to_string());
            let cp = ["cp", "-w", WORKSPACE, "--mode", "0640", "--owner", "daemon"];
            world.cli().text(&[&cp[..], &[&here, &there]].concat())?;
            let seen = host.sh("stat -c '%U %a' /etc/app.conf; cat /etc/app.conf")?;
            ensure!(seen == "daemon 640\nanswer = 42\n", "{seen:?}");
            world.cli().text(&["cp", "-w", WORKSPACE, &there, &back])?;
            ensure!(
                std::fs::read_to_string(&back)? == "answer = 42\n",
                "it came back changed"
            );
            Ok(())
        },
    )?;
    world.step("another user, no shell, no secrets in sight", || {
        other_user(&world, host)
    })
}

fn cancel_stubborn(world: &World, host: &Host) -> Result<()> {
    let script = "trap '' TERM\n\
         (setsid sh -c 'trap \"\" TERM; (setsid sh -c \"trap : TERM; sleep 7001\" &) ; exec sleep 7002' &)\n\
         nohup sleep 7003 >/dev/null 2>&1 &\n\
         sleep 7004";
    let id = detached(world, &["--host", host.name(), "--grace", "1s"], script)?;
    let sleepers = || -> Result<usize> {
        let found = host.exec(&["pgrep", "-cf", "[s]leep 700[1-4]"]).run()?;
        found.stdout.trim().parse().context("a count")
    };
    wait::until("its processes", SOON, || {
        let count = sleepers()?;
        Ok(Look::when(count >= 4, || format!("{count}")))
    })?;
    world
        .cli()
        .text(&["command", "cancel", "-w", WORKSPACE, &id])?;
    until_command(world, &id, "cancelled")?;
    let run = run_of(world, &id, host)?;
    let ending = &run["ending"];
    ensure!(run["state"] == "cancelled", "{run}");
    ensure!(ending["killed"] == true && ending["left"] == 0, "{run}");
    ensure!(ending["others"].as_u64().is_some_and(|it| it >= 3), "{run}");
    ensure!(sleepers()? == 0, "something lives");
    say::line(format_args!("              the answer: {ending}"));
    Ok(())
}

fn other_user(world: &World, host: &Host) -> Result<()> {
    let args = [
        "run",
        "-w",
        WORKSPACE,
        "--host",
        host.name(),
        "--user",
        "daemon",
        "--secret",
        "CANARY",
        "--",
        "sh",
        "-c",
        "id -un; id -G; echo $CANARY; tr '\\0' '\\n' </proc/$$/cmdline; cat /proc/[0-9]*/cmdline",
    ];
    let canary = "canary-0123456789abcdef";
    let mut command = world.cli().command(&args);
    command.env("CANARY", canary);
    let output = crate::sh::run(&mut command, SOON)?;
    ensure!(output.status.success(), "{output}");
    ensure!(
        output.stdout.starts_with("daemon\n1\n***\nsh\n-c\n"),
        "{output}"
    );
    ensure!(!output.stdout.contains(canary), "the secret is shown");
    // Written in two parts: systemd logs the command line of this search, too.
    let (head, tail) = canary.split_at(8);
    let found = host.sh(&format!(
        "C={head}; C=${{C}}{tail}; grep -rl $C /var/lib/loopback-agent /var/log /run/loopback-agent 2>/dev/null; journalctl --no-pager | grep -c $C; true"
    ))?;
    ensure!(found.trim() == "0", "the secret is in {found}");
    Ok(())
}

/// Makes a command and leaves it; its id.
fn detached(world: &World, more: &[&str], script: &str) -> Result<String> {
    let mut args = vec!["run", "-w", WORKSPACE, "--detach", "--yes"];
    args.extend(more);
    args.extend(["--", "bash", "-c", script]);
    let said = world.cli().text(&args)?;
    let id = said
        .split_whitespace()
        .find(|word| word.starts_with("cmd_"));
    Ok(id.with_context(|| format!("no id in {said}"))?.to_owned())
}

fn until_command(world: &World, id: &str, state: &str) -> Result<Value> {
    wait::until(&format!("{id} to be {state}"), SOON * 2, || {
        let shown = world
            .cli()
            .json(&["command", "show", "-w", WORKSPACE, id])?;
        let command = if shown["command"].is_object() {
            &shown["command"]
        } else {
            &shown
        };
        let there = command["state"] == state;
        Ok(Look::some(there.then(|| shown.clone()), || {
            command["state"].to_string()
        }))
    })
}

fn run_of(world: &World, id: &str, host: &Host) -> Result<Value> {
    let runs = world
        .cli()
        .list(&["command", "runs", "-w", WORKSPACE, id])?;
    let found = runs
        .into_iter()
        .find(|run| text(run, "name").is_ok_and(|it| it == host.name()));
    found.with_context(|| format!("no run on {}", host.name()))
}
