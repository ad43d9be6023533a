//! `monitoring`: a real Prometheus that reaches the gateway and nothing else finds three hosts,
//! scrapes them, and says which one's disk is full.
//!
//! The configuration and the alerts are those that are shipped, with names and times of this
//! story put into them.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::support::joined_world;
use crate::{
    product::{Daemon, Programs, WORKSPACE, World},
    sh,
    wait::{self, Look},
};

const RULES: &str = include_str!("../../../../packaging/monitoring/loopback.rules.yml");
const CONFIG: &str = include_str!("../../../../packaging/monitoring/prometheus.example.yml");
/// The alert of the story.
const ALERT: &str = "HostDiskAlmostFull";
/// Prometheus looks every second here.
const SOON: Duration = Duration::from_secs(60);

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = joined_world(programs, 3)?;
    let [full, other, _] = world.hosts() else {
        bail!("the lab has not three hosts")
    };
    let names: Vec<&str> = world.hosts().iter().map(|host| host.name()).collect();

    world.step("an operator sees a host's metrics", || {
        let text = world
            .cli()
            .text(&["host", "metrics", "-w", WORKSPACE, full.name()])?;
        for series in [
            "node_memory_MemAvailable_bytes ",
            "node_filesystem_avail_bytes{",
            "node_systemd_units{state=\"failed\"} ",
            "loopback_agent_info{",
        ] {
            ensure!(
                text.lines().any(|line| line.starts_with(series)),
                "{series} is missing in\n{text}"
            );
        }
        Ok(())
    })?;
    let prometheus = world.step("start Prometheus with a key of its own", || {
        Prometheus::start(&world)
    })?;
    world.step(
        "it finds the three hosts and scrapes them through the gateway",
        || {
            wait::until("three targets that are up", SOON, || {
                let up = prometheus.instances("up{job=\"loopback-hosts\"} == 1")?;
                Ok(Look::when(up == names, || format!("{up:?}")))
            })?;
            let gateway = prometheus.instances("up{job=\"loopback-gateway\"} == 1")?;
            ensure!(gateway.len() == 1, "the gateway itself: {gateway:?}");
            let disks = "node_filesystem_avail_bytes{mountpoint=\"/\"}";
            ensure!(prometheus.instances(disks)? == names, "a disk is missing");
            Ok(())
        },
    )?;
    world.step("no alert about a disk while there is room", || {
        let firing = prometheus.firing()?;
        ensure!(firing.is_empty(), "{firing:?}");
        Ok(())
    })?;
    world.step("fill the disk of one host", || {
        full.sh("free=$(df --output=avail -BM / | tail -n 1 | tr -dc 0-9)\n\
             dd if=/dev/zero of=/var/tmp/filler bs=1M count=$((free - 20)) status=none")
            .map(drop)
    })?;
    world.step("the alert fires for that host and for no other", || {
        wait::until("the alert", SOON, || {
            let firing = prometheus.firing()?;
            Ok(Look::when(firing == [full.name()], || {
                format!("{firing:?}")
            }))
        })
    })?;
    world.step("it ends when there is room again", || {
        full.sh("rm /var/tmp/filler")?;
        wait::until("the end of the alert", SOON, || {
            let firing = prometheus.firing()?;
            Ok(Look::when(firing.is_empty(), || format!("{firing:?}")))
        })
    })?;
    world.step(
        "a host without a link is down for Prometheus, alone",
        || {
            other.sh("systemctl stop loopback-agent")?;
            wait::until("one target that is down", SOON, || {
                let down = prometheus.instances("up{job=\"loopback-hosts\"} == 0")?;
                Ok(Look::when(down == [other.name()], || format!("{down:?}")))
            })
        },
    )
}

struct Prometheus<'w> {
    world: &'w World,
    url: String,
    /// Stopped when dropped.
    _process: Daemon,
}

impl<'w> Prometheus<'w> {
    fn start(world: &'w World) -> Result<Self> {
        let cli = world.cli();
        for args in [
            &["service-account", "create", "prometheus"][..],
            &[
                "role",
                "create",
                "prometheus",
                "--allow",
                "deployment.metrics.read",
                "--allow",
                "project.workspace.host.metrics.read",
            ],
            &[
                "access",
                "grant",
                "prometheus",
                "prometheus",
                "--deployment",
            ],
        ] {
            cli.text(args)?;
        }
        let key = cli.json(&["api-key", "create", "--user", "prometheus"])?;
        let key = key["secret"].as_str().context("a key has a secret")?;
        let workspace = cli.json(&["workspace", "show", WORKSPACE])?;
        let workspace = workspace["id"].as_str().context("a workspace has an id")?;

        let folder = world.folder().join("prometheus");
        fs::create_dir_all(&folder).context("make its folder")?;
        let file = |name: &str| folder.join(name);
        let put = |name: &str, text: &str| {
            fs::write(file(name), text).with_context(|| format!("write {name}"))
        };
        put("loopback.key", key)?;
        put("loopback.rules.yml", &hurried(RULES))?;
        let at = |path: &Path| path.display().to_string();
        let address = world.gateway().address();
        let config = CONFIG
            .replace("gateway.example:8443", &address.to_string())
            .replace("wsp_00000000000000000000000000", workspace)
            .replace("/etc/prometheus/loopback.key", &at(&file("loopback.key")))
            .replace(
                "/etc/prometheus/loopback-ca.pem",
                &at(&world.gateway().ca_file()),
            )
            .replace(
                "scrape_interval: 30s",
                "scrape_interval: 1s\n  scrape_timeout: 1s\n  evaluation_interval: 1s",
            )
            .replace("refresh_interval: 1m", "refresh_interval: 1s");
        put("prometheus.yml", &config)?;

        let listen = format!("{}:9090", address.ip());
        let mut words: Vec<String> = world
            .enter()
            .context("this story has a lab")?
            .split(' ')
            .map(str::to_owned)
            .collect();
        words.extend([
            "prometheus".to_owned(),
            format!("--config.file={}", at(&file("prometheus.yml"))),
            format!("--storage.tsdb.path={}", at(&file("data"))),
            format!("--web.listen-address={listen}"),
        ]);
        let mut process = Daemon::start("Prometheus", sh::command(&words), &file("log"))?;
        process.wait_line(|line| line.contains("Server is ready"), SOON)?;
        Ok(Self {
            world,
            url: format!("http://{listen}"),
            _process: process,
        })
    }

    /// The instances of the series that a query gives, in order.
    fn instances(&self, query: &str) -> Result<Vec<String>> {
        let data = self.ask(&["/api/v1/query", &format!("query={query}")])?;
        let series = data["result"].as_array().context("a list of series")?;
        Ok(sorted(series.iter().map(|it| &it["metric"])))
    }

    /// The hosts for which the alert of the story fires.
    fn firing(&self) -> Result<Vec<String>> {
        let data = self.ask(&["/api/v1/alerts"])?;
        let alerts = data["alerts"].as_array().context("a list of alerts")?;
        let ours = alerts
            .iter()
            .filter(|alert| alert["state"] == "firing" && alert["labels"]["alertname"] == ALERT)
            // What else is mounted in a lab's hosts is this machine's, and may well be full.
            .filter(|alert| alert["labels"]["mountpoint"] == "/");
        Ok(sorted(ours.map(|alert| &alert["labels"])))
    }

    fn ask(&self, words: &[&str]) -> Result<Value> {
        let enter = self.world.enter().context("this story has a lab")?;
        let url = format!("{}{}", self.url, words[0]);
        let mut argv: Vec<&str> = enter.split(' ').collect();
        argv.extend(["curl", "-sS", "--noproxy", "*", "-G", &url]);
        for parameter in &words[1..] {
            argv.extend(["--data-urlencode", parameter]);
        }
        let text = sh::ok(&argv, Duration::from_secs(10))?;
        let answer: Value = serde_json::from_str(&text)
            .with_context(|| format!("parse the answer of Prometheus: {text}"))?;
        ensure!(answer["status"] == "success", "Prometheus says {answer}");
        Ok(answer["data"].clone())
    }
}

fn sorted<'v>(labels: impl Iterator<Item = &'v Value>) -> Vec<String> {
    let mut instances: Vec<_> = labels
        .map(|labels| labels["instance"].as_str().unwrap_or_default().to_owned())
        .collect();
    instances.sort_unstable();
    instances
}

/// The rules with less patience.
fn hurried(rules: &str) -> String {
    rules
        .lines()
        .map(|line| match line.split_once("for: ") {
            Some((before, _)) if before.trim().is_empty() => format!("{before}for: 2s\n"),
            _ => format!("{line}\n"),
        })
        .collect()
}
