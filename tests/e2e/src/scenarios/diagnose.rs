//! `diagnose`: a broken host shows what is broken, and none of the secrets that lie around in it.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::support::{joined_world, text};
use crate::{
    lab::Host,
    product::{Programs, WORKSPACE, World},
    sh, wait,
};

/// Looks like a word of a log, so that only its surroundings tell what it is.
const CANARY: &str = "Xk7vQ2mPz9RtWb4LcYs8";
const QUICK: Duration = Duration::from_secs(20);
/// What a host without a kernel log of its own cannot tell.
const MAY_FAIL: &str = "kernel";

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 1)?;
    let [host] = world.hosts() else {
        bail!("the lab has not one host")
    };
    world.step("break it, and leave secrets lying around", || {
        break_it(host)
    })?;
    let file = world.folder().join("bundle.tar");
    let said = world.step("gather a bundle", || bundle(&world, host, &file))?;
    let folder = world.step("unpack it with another program", || unpack(&world, &file))?;
    world.step("all sections are there, and tell what is broken", || {
        everything_is_told(&folder, host)
    })?;
    world.step("a section is a table, too", || {
        let units = show(&world, host, "units")?;
        ensure!(units.contains("broken.service"), "{units}");
        let processes = show(&world, host, "processes")?;
        ensure!(
            processes.contains("broken-app --password ***"),
            "{processes}"
        );
        let journal = show(&world, host, "journal")?;
        ensure!(
            journal.contains("connecting with password=***"),
            "{journal}"
        );
        Ok(())
    })?;
    world.step(
        "no secret is in bundle, logs, process lists or audit trail",
        || no_canary(&world, host, &said),
    )
}

fn break_it(host: &Host) -> Result<()> {
    let failing = format!(
        "[Unit]\nDescription=Fails\n[Service]\nEnvironment=API_TOKEN={CANARY}\n\
         ExecStart=/bin/sh -c 'echo connecting with password={CANARY}; echo Authorization: Bearer {CANARY}; exit 3'\n"
    );
    host.write_file("/etc/systemd/system/broken.service", failing.as_bytes())?;
    let stuck = format!(
        "[Unit]\nDescription=Is stuck\n[Service]\nEnvironment=DB_PASSWORD={CANARY}\n\
         ExecStart=/bin/sh -c 'while :; do sleep 60; done' broken-app --password {CANARY} --url postgres://me:{CANARY}@db/shop\n"
    );
    host.write_file("/etc/systemd/system/stuck.service", stuck.as_bytes())?;
    host.sh(
        "systemctl daemon-reload && systemctl start stuck.service && ! systemctl start --wait broken.service",
    )?;
    host.sh("kill -STOP $(systemctl show --value --property=MainPID stuck.service)")?;
    host.sh("mkdir -p /mnt/full && mount -t tmpfs -o size=1m tmpfs /mnt/full && ! head -c 2000000 /dev/zero >/mnt/full/file 2>/dev/null")?;
    wait::until("the journal to have the unit's lines", QUICK, || {
        let lines = host.sh("journalctl --quiet --unit=broken.service")?;
        let there = lines.contains(CANARY).then_some(());
        Ok(wait::Look::some(there, || lines))
    })
}

/// What the command said on its way.
fn bundle(world: &World, host: &Host, file: &Path) -> Result<String> {
    let path = file.display().to_string();
    let args = [
        "host",
        "diagnose",
        "-w",
        WORKSPACE,
        host.name(),
        "-o",
        &path,
    ];
    let output = world.cli().run(&args)?;
    let only_kernel = format!("have failed: {MAY_FAIL}\n");
    let good = match output.code() {
        Some(0) => true,
        Some(13) => output.stderr.ends_with(&only_kernel),
        _ => false,
    };
    ensure!(good, "{output}");
    let again = world.cli().run(&args)?;
    ensure!(again.code() == Some(2), "it was written over: {again}");
    Ok(output.stdout + &output.stderr)
}

fn unpack(world: &World, file: &Path) -> Result<PathBuf> {
    let folder = world.folder().join("bundle");
    fs::create_dir(&folder).context("make a folder")?;
    let (from, to) = (file.display().to_string(), folder.display().to_string());
    sh::ok(&["tar", "-xf", &from, "-C", &to], QUICK)?;
    Ok(folder)
}

fn everything_is_told(folder: &Path, host: &Host) -> Result<()> {
    let read =
        |name: &str| fs::read_to_string(folder.join(name)).with_context(|| format!("read {name}"));
    let json = |name: &str| -> Result<Value> { Ok(serde_json::from_str(&read(name)?)?) };
    let manifest = json("manifest.json")?;
    ensure!(manifest["host_name"] == host.name(), "{manifest}");
    let sections = manifest["sections"].as_array().context("sections")?;
    ensure!(sections.len() == 9, "{manifest}");
    for section in sections {
        let name = text(section, "section")?;
        let failed = section["outcome"] == "failed";
        ensure!(!failed || name == MAY_FAIL, "{section}");
        ensure!(json(&format!("results/{name}.json"))? == *section, "{name}");
    }
    let find = |list: &Value, field: &str, wanted: &str| -> Result<Value> {
        let found = list
            .as_array()
            .and_then(|all| all.iter().find(|it| it[field] == wanted));
        found
            .cloned()
            .with_context(|| format!("{wanted} is not in {list}"))
    };
    let units = json("units.json")?;
    let unit = find(&units["units"], "name", "broken.service")?;
    ensure!(unit["active"] == "failed", "{unit}");
    let details = find(&units["details"], "name", "broken.service")?;
    ensure!(details["properties"]["ExecMainStatus"] == "3", "{details}");
    let lines = details["journal"].to_string();
    ensure!(lines.contains("connecting with password=***"), "{details}");
    let disks = json("disks.json")?;
    let disk = find(&disks["disks"], "mount", "/mnt/full")?;
    ensure!(disk["available_bytes"] == 0, "{disk}");
    let processes = json("processes.json")?;
    let all = processes["processes"].as_array().context("processes")?;
    let stuck = all.iter().find(|it| {
        it["args"]
            .as_array()
            .is_some_and(|args| args.iter().any(|arg| arg == "broken-app"))
    });
    let stuck = stuck.context("the stuck process is not told")?;
    ensure!(stuck["state"] == "T", "{stuck}");
    ensure!(
        stuck["args"]
            .to_string()
            .contains("postgres://me:***@db/shop"),
        "{stuck}"
    );
    let agent = json("agent.json")?;
    ensure!(agent["status"]["state"] == "linked", "{agent}");
    let log = agent["log"]
        .as_array()
        .is_some_and(|lines| !lines.is_empty());
    ensure!(log, "the agent's log is empty: {agent}");
    let network = json("network.json")?;
    let quic = find(&network["gateway"], "name", "quic")?;
    ensure!(quic["outcome"] == "ok", "{quic}");
    ensure!(
        json("system.json")?["memory"]["total"].as_u64() > Some(0),
        "no memory"
    );
    ensure!(json("sockets.json")?["sockets"].is_array(), "no sockets");
    ensure!(
        read("journal.txt")?.contains("Bearer ***")
            || read("journal.txt")?.contains("Authorization: ***"),
        "the journal lacks a line"
    );
    Ok(())
}

fn show(world: &World, host: &Host, section: &str) -> Result<String> {
    let args = [
        "host",
        "diagnose",
        "-w",
        WORKSPACE,
        host.name(),
        "--show",
        section,
    ];
    world.cli().text(&args)
}

fn no_canary(world: &World, host: &Host, said: &str) -> Result<()> {
    let look = |what: &str, bytes: &[u8]| {
        let found = bytes
            .windows(CANARY.len())
            .any(|it| it == CANARY.as_bytes());
        ensure!(!found, "the secret is in {what}");
        Ok(())
    };
    look("what the command line said", said.as_bytes())?;
    let mut folders = vec![world.folder().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).context("list")? {
            let (path, kind) = entry.and_then(|it| Ok((it.path(), it.file_type()?)))?;
            if kind.is_dir() {
                folders.push(path);
            } else if kind.is_file() {
                let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                look(&path.display().to_string(), &bytes)?;
            }
        }
    }
    look(
        "the gateway's log",
        world.gateway().log_tail(usize::MAX).as_bytes(),
    )?;
    let log = host.sh("journalctl --quiet --unit=loopback-agent.service")?;
    ensure!(
        log.contains("diagnoses this host"),
        "the agent's log lacks it: {log}"
    );
    look("the agent's log", log.as_bytes())?;
    let list = host.sh(
        "for pid in $(pgrep loopback-agent); do cat /proc/$pid/cmdline /proc/$pid/environ; done",
    )?;
    look("the agent's process", list.as_bytes())?;
    let audit = world.cli().run(&["audit", "export", "-w", WORKSPACE])?;
    ensure!(audit.stdout.contains("host.diagnose.finish"), "{audit}");
    look("the audit trail", audit.stdout.as_bytes())
}
