//! `lab`: the laboratory itself. Everything else here stands on it, so it is shown first.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};

use crate::{
    lab::{Host, Lab},
    product::Programs,
    scenario::step,
    sh,
    wait::{self, Look},
};

/// Boots three hosts, treats them badly, boots a second lab beside them, and looks for remains.
pub(super) fn run(_: &Programs) -> Result<()> {
    let lab = step("boot three hosts", || Lab::up(3))?;
    let [h1, h2, h3] = lab.hosts() else {
        bail!("the lab has {} hosts instead of 3", lab.hosts().len())
    };
    step("run programs and exchange files", || {
        programs_and_files(h1, h2)
    })?;
    step("reboot: another boot of the same disk", || reboot(h1))?;
    step("power loss silences a host, power brings it back", || {
        h2.power_loss()?;
        ensure!(!reaches(h1, h2)?, "a host without power answers");
        ensure!(reaches(h1, h3)?, "its neighbour went silent too");
        ensure!(
            h2.exec(&["true"]).run().is_err(),
            "a host without power runs programs"
        );
        h2.power_on()?;
        wait::until("h2 to answer", Duration::from_secs(10), || {
            Ok(Look::when(reaches(h1, h2)?, || "no answer".into()))
        })
    })?;
    step(
        "blocked UDP is swallowed for one host, TCP and the others pass",
        || {
            h3.drop_udp(true)?;
            ensure!(!udp_arrives(h1, h3)?, "UDP passes a closed path");
            ensure!(
                udp_arrives(h1, h2)? && reaches(h1, h3)?,
                "more than one host's UDP is blocked"
            );
            h3.drop_udp(false)?;
            ensure!(udp_arrives(h1, h3)?, "UDP does not pass an opened path");
            Ok(())
        },
    )?;
    step("shut a host down properly", || h3.shutdown())?;
    step("a second lab beside it does not disturb it", || {
        let other = Lab::up(1)?;
        ensure!(other.name() != lab.name(), "two labs share a name");
        drop(other);
        h1.sh("true").map(drop)
    })?;
    step("removing the lab leaves nothing", || {
        let (name, folder) = (lab.name().to_owned(), lab.folder().to_owned());
        drop(lab);
        nothing_left(&name, &folder)
    })
}

fn programs_and_files(h1: &Host, h2: &Host) -> Result<()> {
    ensure!(h1.sh("hostname")? == "h1\n", "h1 is called otherwise");
    let output = h1
        .exec(&["sh", "-c", "printf %s \"$A\"; exit 7"])
        .env("A", "b  $c")
        .run()?;
    ensure!(
        (output.code(), &*output.stdout) == (Some(7), "b  $c"),
        "exit code or environment got lost: {output}"
    );
    h1.write_file("/srv/deep/file", b"kept")?;
    ensure!(
        h1.read_file("/srv/deep/file")? == "kept",
        "a file reads back differently"
    );
    h2.copy_in(Path::new("/bin/true"), "/opt/true")?;
    h2.exec(&["/opt/true"])
        .ok()
        .context("run a copied program")?;
    let [one, two] = [h1, h2].map(|host| host.read_file("/etc/machine-id"));
    ensure!(one? != two?, "two hosts share a machine id");
    Ok(())
}

fn reboot(host: &Host) -> Result<()> {
    let before = host.boot_id()?;
    host.reboot()?;
    ensure!(host.boot_id()? != before, "the boot id did not change");
    ensure!(
        host.read_file("/srv/deep/file")? == "kept",
        "the disk did not survive"
    );
    Ok(())
}

fn reaches(from: &Host, to: &Host) -> Result<bool> {
    let ping = ["ping", "-c1", "-W1", &to.address().to_string()];
    Ok(from.exec(&ping).run()?.status.success())
}

/// Whether a datagram sent by one host is seen by another: bash sends (the hosts have no netcat),
/// the receiver's kernel counts.
fn udp_arrives(from: &Host, to: &Host) -> Result<bool> {
    let count = || -> Result<u64> {
        let snmp = to.sh("awk '/^Udp:/ && $2 ~ /[0-9]/ {print $2 + $3}' /proc/net/snmp")?;
        snmp.trim()
            .parse()
            .context("read the kernel's UDP counters")
    };
    let before = count()?;
    from.exec(&[
        "bash",
        "-c",
        &format!("echo x >/dev/udp/{}/9", to.address()),
    ])
    .ok()?;
    let seen = wait::until("a datagram", Duration::from_millis(700), || {
        Ok(Look::when(count()? > before, || "none".into()))
    });
    Ok(seen.is_ok())
}

fn nothing_left(name: &str, folder: &Path) -> Result<()> {
    ensure!(!folder.exists(), "the lab's folder is left");
    let netns = sh::ok(&["ip", "netns", "list"], Duration::from_secs(5))?;
    ensure!(
        !netns.contains(&format!("{name}-")),
        "namespaces are left: {netns}"
    );
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    ensure!(
        !mounts.contains(&folder.display().to_string()),
        "mounts are left: {mounts}"
    );
    Ok(())
}
