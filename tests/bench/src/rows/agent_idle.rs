//! The static agent at rest: joined by a token, linked, with heartbeats every ten seconds.

use std::{fs, os::unix::fs::PermissionsExt, process::Command, time::Duration};

use anyhow::{Context, Result};
use e2e::{
    product::Daemon,
    wait::{self, Look},
};
use serde_json::json;

use super::{Bench, HEARTBEAT};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    gateway::Gateway,
    peers,
};

const SETTLE: Duration = Duration::from_secs(30);
const OVER: Duration = Duration::from_secs(60);
const JOIN: Duration = Duration::from_secs(30);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
    let token = gateway.post(&gateway.path("/agent-tokens"), &json!({}))?;
    let secret = token["secret"].as_str().context("a token has a secret")?;
    let folder = gateway.folder().join("agent");
    fs::create_dir_all(&folder)?;
    let (config, token) = (folder.join("agent.toml"), folder.join("token"));
    fs::write(&token, secret)?;
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600))?;
    let text = format!(
        "gateway = \"{}\"\nstate_dir = \"{}\"\ntoken_file = \"{}\"\nca_file = \"{}\"\n",
        gateway.url(),
        folder.join("state").display(),
        token.display(),
        gateway.state().join("ca.pem").display(),
    );
    fs::write(&config, text)?;
    let mut command = Command::new(&bench.agent);
    command.arg("run").arg("--config").arg(&config);
    let agent = Daemon::start("the agent", command, &folder.join("log"))?;
    wait::until("the agent to be linked", JOIN, || {
        let page = gateway.get(&gateway.path("/hosts"))?;
        let linked = page["items"][0]["connectivity"] == "connected";
        Ok(Look::when(linked, || page.to_string()))
    })?;
    let ours = peers::look(agent.pid(), SETTLE, OVER)?;
    drop(agent);

    let peer = |name, idle: std::result::Result<peers::Idle, e2e::tools::Missing>| match idle {
        Ok(idle) => Peer::Measured(name, idle.mib.into()),
        Err(missing) => Peer::Missing(name, missing.to_string()),
    };
    let exporter = peers::node_exporter(SETTLE, Duration::from_secs(10));
    let salt = peers::salt_minion(SETTLE, Duration::from_secs(10));
    let memory = Samples::from(ours.mib);
    #[expect(clippy::cast_precision_loss, reason = "a file's size fits 53 bits")]
    let size = fs::metadata(&bench.agent)?.len() as f64 / 1e6;
    Ok(vec![
        Figure {
            name: "memory at rest".into(),
            unit: "MiB",
            ours: memory.clone(),
            peer: peer("node_exporter", exporter),
            goal: Goal::RatioAtMost(1.0 / 3.0),
        },
        Figure {
            name: "memory at rest".into(),
            unit: "MiB",
            ours: memory,
            peer: peer("salt-minion", salt),
            goal: Goal::Informs,
        },
        Figure::alone(
            "CPU at rest",
            "% of a core",
            ours.cpu_percent,
            Goal::AtMost(0.05),
        ),
        Figure::alone("static binary", "MB", size, Goal::AtMost(6.0)),
    ])
}
