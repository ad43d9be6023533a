//! Programs whose idle cost ours is compared with: node_exporter, Salt, MeshCentral.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use e2e::{
    product::Daemon,
    say,
    scratch::Scratch,
    sh,
    tools::Missing,
    wait::{self, Look},
};

use super::{apt, folder, missing, salt::Salt};
use crate::{gateway::free_address, process};

const INSTALL: Duration = Duration::from_secs(600);
const START: Duration = Duration::from_secs(90);

/// An idle program: memory after `settle`, and the share of a core it used from then on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) mib: f64,
    pub(crate) cpu_percent: f64,
}

/// Looks at a process at rest.
pub(crate) fn look(pid: u32, settle: Duration, over: Duration) -> Result<Idle> {
    e2e::interrupt::pause(settle)?;
    let before = process::cpu(pid)?;
    e2e::interrupt::pause(over)?;
    let used = process::cpu(pid)?.saturating_sub(before);
    Ok(Idle {
        mib: process::resident_kib(pid)? / 1024.0,
        cpu_percent: used.as_secs_f64() / over.as_secs_f64() * 100.0,
    })
}

/// Prometheus' node_exporter, scraped once.
pub(crate) fn node_exporter(settle: Duration, over: Duration) -> Result<Idle, Missing> {
    let run = || {
        let program = apt::program(
            "usr/bin/prometheus-node-exporter",
            &["prometheus-node-exporter"],
        )?;
        let (scratch, address) = (Scratch::new()?, free_address()?);
        let mut command = program.command();
        command.arg(format!("--web.listen-address={address}"));
        let daemon = Daemon::start("node_exporter", command, &scratch.join("log"))?;
        listening(address)?;
        // Until its first scrape it has not done what it is for.
        drop(crate::gateway::block_on(async {
            let request = crate::http::request("GET", "/metrics", "", "");
            crate::http::Connection::open(address)
                .await?
                .ask(&request)
                .await
        }));
        look(daemon.pid(), settle, over)
    };
    run().map_err(missing("node_exporter"))
}

/// A Salt minion with an accepted key, connected to a master here.
pub(crate) fn salt_minion(settle: Duration, over: Duration) -> Result<Idle, Missing> {
    let salt = Salt::start(1)?;
    let minion = salt.minion_pid();
    look(minion, settle, over).map_err(missing("salt-minion"))
}

/// MeshCentral with a fresh database and nobody connected.
pub(crate) fn mesh_central(settle: Duration) -> Result<f64, Missing> {
    let run = || {
        let home = folder("meshcentral")?;
        let main = home.join("node_modules/meshcentral/meshcentral.js");
        if !main.exists() {
            say::line(format_args!("      installing meshcentral from npm"));
            let mut install = Command::new("npm");
            install
                .args([
                    "install",
                    "--no-audit",
                    "--no-fund",
                    "--silent",
                    "meshcentral",
                ])
                .current_dir(&home);
            sh::run(&mut install, INSTALL)?.ok()?;
        }
        let scratch = Scratch::new()?;
        let address = free_address()?;
        let data = scratch.join("data");
        fs::create_dir_all(&data)?;
        let settings = serde_json::json!({ "settings": {
            "port": address.port(), "portBind": "127.0.0.1", "redirPort": 0, "mpsPort": 0,
            "selfUpdate": false, "cert": "localhost", "WANonly": true,
        }});
        fs::write(data.join("config.json"), settings.to_string())?;
        let mut command = Command::new("node");
        command
            .arg(&main)
            .arg("--datapath")
            .arg(&data)
            .arg("--fastcert")
            .current_dir(&home);
        let mut daemon = Daemon::start("meshcentral", command, &scratch.join("log"))?;
        wait::until("meshcentral to listen", START, || {
            anyhow::ensure!(daemon.is_running(), "it ended: {}", daemon.tail(10));
            let open = TcpStream::connect(address).is_ok();
            Ok(Look::when(open, || daemon.tail(3)))
        })?;
        Ok(look(daemon.pid(), settle, Duration::from_millis(10))?.mib)
    };
    run().map_err(missing("meshcentral"))
}

fn listening(address: SocketAddr) -> Result<()> {
    wait::until(&format!("{address} to listen"), START, || {
        let open = TcpStream::connect(address).is_ok();
        Ok(Look::when(open, || "closed".into()))
    })
    .context("start it")
}
