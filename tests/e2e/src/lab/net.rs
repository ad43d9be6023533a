//! The lab's wires: namespaces, one bridge, a cable per host; and its control groups.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use super::QUICK;
use crate::sh;

/// The namespace with the bridge that all cables end in.
pub(super) fn switch(lab: &str) -> Result<()> {
    let space = format!("{lab}-sw");
    ip(&["netns", "add", &space])?;
    ip(&["-n", &space, "link", "set", "lo", "up"])?;
    ip(&["-n", &space, "link", "add", "br0", "type", "bridge"])?;
    ip(&["-n", &space, "link", "set", "br0", "up"])
}

/// A namespace for `node` with a cable to the switch. The switch's end is named `p-NODE`.
pub(super) fn plug(lab: &str, node: &str, address: Ipv4Addr) -> Result<()> {
    let (switch, space) = (format!("{lab}-sw"), format!("{lab}-{node}"));
    let port = port(node);
    ip(&["netns", "add", &space])?;
    ip(&[
        "link", "add", "eth0", "netns", &space, "type", "veth", "peer", "name", &port, "netns",
        &switch,
    ])?;
    ip(&["-n", &switch, "link", "set", &port, "master", "br0", "up"])?;
    ip(&["-n", &space, "link", "set", "lo", "up"])?;
    ip(&[
        "-n",
        &space,
        "addr",
        "add",
        &format!("{address}/24"),
        "dev",
        "eth0",
    ])?;
    ip(&["-n", &space, "link", "set", "eth0", "up"])
}

/// Pulls a node's cable at the switch, or puts it back.
pub(super) fn cable(lab: &str, node: &str, connected: bool) -> Result<()> {
    let state = if connected { "up" } else { "down" };
    ip(&[
        "-n",
        &format!("{lab}-sw"),
        "link",
        "set",
        &port(node),
        state,
    ])
}

/// Makes the switch swallow a node's UDP in both directions, or forward it again. Dropping it on
/// the way, not in the host, is what a firewall between host and gateway does: the sender sees no
/// error, only silence.
pub(super) fn drop_udp(lab: &str, node: &str, dropped: bool) -> Result<()> {
    let table = format!("udp_{node}");
    let port = port(node);
    // Adding first makes the removal of a table that may not exist work.
    let mut rules = format!("add table bridge {table}\ndelete table bridge {table}\n");
    if dropped {
        rules += &format!(
            "table bridge {table} {{ chain forward {{ type filter hook forward priority 0; \
             iifname \"{port}\" meta l4proto udp drop; oifname \"{port}\" meta l4proto udp drop; }}; }}\n"
        );
    }
    nft(lab, "sw", &rules)
}

/// Makes the switch lose this many percent of a node's packets in each direction; 0 ends it. The
/// kernel draws the lot: what is lost differs from run to run, how much does not.
pub(super) fn lose(lab: &str, node: &str, percent: u8) -> Result<()> {
    let table = format!("loss_{node}");
    let port = port(node);
    let mut rules = format!("add table bridge {table}\ndelete table bridge {table}\n");
    if percent > 0 {
        rules += &format!(
            "table bridge {table} {{ chain forward {{ type filter hook forward priority 0; \
             iifname \"{port}\" numgen random mod 100 < {percent} drop; \
             oifname \"{port}\" numgen random mod 100 < {percent} drop; }}; }}\n"
        );
    }
    nft(lab, "sw", &rules)
}

/// Loads nftables rules in a node's namespace.
pub(super) fn nft(lab: &str, node: &str, rules: &str) -> Result<()> {
    let mut nft = sh::command(&[
        "ip",
        "netns",
        "exec",
        &format!("{lab}-{node}"),
        "nft",
        "-f",
        "-",
    ]);
    sh::run_with_input(&mut nft, rules.as_bytes(), QUICK)?
        .ok()
        .map(drop)
}

/// The control groups of a node: one in each hierarchy that tracks processes here. Machines with
/// the hybrid layout have two (systemd's own and the unified one), others one.
pub(super) fn cgroups(lab: &str, node: &str) -> Vec<PathBuf> {
    roots()
        .into_iter()
        .map(|root| root.join(lab_group(lab)).join(node))
        .collect()
}

/// The lab's control groups, above those of its nodes.
pub(super) fn lab_cgroups(lab: &str) -> Vec<PathBuf> {
    roots()
        .into_iter()
        .map(|root| root.join(lab_group(lab)))
        .collect()
}

/// A command line prefix that enters `groups` and becomes what is appended to it.
pub(super) fn in_cgroups(groups: &[PathBuf]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg("while [ \"$1\" != -- ]; do mkdir -p \"$1\" && echo $$ >\"$1/cgroup.procs\" || exit 125; shift; done; shift; exec \"$@\"")
        .arg("lab")
        .args(groups)
        .arg("--");
    command
}

fn roots() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let hybrid: Vec<_> = ["systemd", "unified"]
        .iter()
        .map(|name| base.join(name))
        .filter(|root| root.join("cgroup.procs").exists())
        .collect();
    if hybrid.is_empty() {
        vec![base.to_owned()]
    } else {
        hybrid
    }
}

fn lab_group(lab: &str) -> String {
    format!("loopback-{lab}")
}

fn port(node: &str) -> String {
    format!("p-{node}")
}

/// Names of the lab's namespaces that exist.
pub(super) fn namespaces(lab: &str) -> Result<Vec<String>> {
    let prefix = format!("{lab}-");
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry
            .context("list namespaces")?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name.starts_with(&prefix) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Runs iproute2's `ip`.
pub(super) fn ip(args: &[&str]) -> Result<()> {
    let mut argv = vec!["ip"];
    argv.extend(args);
    sh::ok(&argv, QUICK).map(drop)
}
