//! Commands on real agents, beside OpenSSH and Salt.
//!
//! * `exec`: one `/bin/true` on a host that is linked, from the request to the end of the
//!   followed command, every step of it durable; the peer runs it on an SSH connection that
//!   is open already.
//! * `fan-out-real`: `/bin/true` on 50 agents; the peers are 50 clients of OpenSSH at once,
//!   and Salt with 10 minions.
//! * `output`: a gigabyte of one command's output until the gateway has taken all of it;
//!   the peer is `ssh host cat`.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    product::Daemon,
    say,
    wait::{self, Look},
};
use serde_json::{Value, json};

use super::{Bench, HEARTBEAT, millis};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    gateway::{Gateway, block_on},
    http,
    peers::{salt::Salt, ssh::Ssh},
};

const JOIN: Duration = Duration::from_secs(120);
const DONE: Duration = Duration::from_secs(120);
const AGENTS: usize = 50;
const MINIONS: usize = 10;
/// Runs of one round of `exec`.
const TIMES: usize = 200;
const GIGABYTE: u64 = 1_000_000_000;

struct Fleet {
    gateway: Gateway,
    _agents: Vec<Daemon>,
    hosts: Vec<String>,
}

impl Fleet {
    fn start(bench: &Bench, count: usize) -> Result<Self> {
        let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
        let token = gateway.post(&gateway.path("/agent-tokens"), &json!({}))?;
        let secret = token["secret"].as_str().context("a token has a secret")?;
        let mut agents = Vec::new();
        for number in 0..count {
            agents.push(agent(bench, &gateway, number, secret)?);
        }
        wait::until("the agents to be linked", JOIN, || {
            let page = gateway.get(&gateway.path("/hosts?limit=1000"))?;
            let items = page["items"].as_array().context("a page has items")?;
            let linked = items.iter().filter(|it| it["connectivity"] == "connected");
            let linked = linked.count();
            Ok(Look::when(linked == count, || {
                format!("{linked} of {count}")
            }))
        })?;
        let hosts = gateway.hosts()?;
        let fleet = Self {
            gateway,
            _agents: agents,
            hosts,
        };
        // Every agent has started its runner after that.
        fleet.run(&json!(["true"]))?;
        Ok(fleet)
    }

    /// Runs something on all hosts; how long it took until every run was final.
    fn run(&self, argv: &Value) -> Result<Duration> {
        let body = json!({ "targets": { "hosts": self.hosts }, "argv": argv });
        let body = body.to_string();
        let gateway = &self.gateway;
        block_on(async {
            let began = Instant::now();
            let path = gateway.path("/commands");
            let mut connection = http::Connection::open(gateway.http()).await?;
            let made = http::request("POST", &path, &gateway.key, &body);
            let made = connection.ask(&made).await?;
            ensure!(
                made.status == 201,
                "{}",
                String::from_utf8_lossy(&made.body)
            );
            let made: Value = serde_json::from_slice(&made.body)?;
            let id = made["id"].as_str().context("a command has an id")?;
            let path = format!("{path}/{id}/events?without_output=true");
            let follow = http::request("GET", &path, &gateway.key, "");
            let told = tokio::time::timeout(DONE, connection.listen(&follow)).await??;
            let took = began.elapsed();
            ensure!(told.contains("\"state\":\"succeeded\""), "{told}");
            Ok(took)
        })
    }
}

fn agent(bench: &Bench, gateway: &Gateway, number: usize, secret: &str) -> Result<Daemon> {
    let folder = gateway.folder().join(format!("agent-{number}"));
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
    Daemon::start("an agent", command, &folder.join("log"))
}

/// One program on one host, over and over.
pub(super) fn latency(bench: &Bench) -> Result<Vec<Figure>> {
    let fleet = Fleet::start(bench, 1)?;
    let ssh = Ssh::start();
    let (mut p50, mut p99, mut peer) = <(Samples, Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        let mut times = Vec::new();
        for _ in 0..TIMES {
            times.push(fleet.run(&json!(["true"]))?);
        }
        p50.push(millis(http::quantile(&mut times, 0.5)));
        p99.push(millis(http::quantile(&mut times, 0.99)));
        if let Ok(ssh) = &ssh {
            peer.push(millis(ssh.warm_exec(TIMES)?));
        }
        say::line(format_args!("   round {round}: p50 {:.2} ms", p50.median()));
    }
    let peer = match ssh {
        Ok(_) => Peer::Measured("asyncssh, connection open", peer),
        Err(missing) => Peer::Missing("asyncssh", missing.to_string()),
    };
    Ok(vec![
        Figure {
            name: "/bin/true on one host, p50".into(),
            unit: "ms",
            ours: p50,
            peer,
            goal: Goal::RatioAtMost(1.0),
        },
        Figure::alone("/bin/true on one host, p99", "ms", p99, Goal::Informs),
    ])
}

/// One program on many hosts.
pub(super) fn fan_out(bench: &Bench) -> Result<Vec<Figure>> {
    let ssh = Ssh::start();
    let salt = Salt::start(MINIONS);
    let (mut ours, mut by_ssh, mut by_salt) = <(Samples, Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        // Ours is there only while it is measured, and so is nobody's cost.
        let fleet = Fleet::start(bench, AGENTS)?;
        let mut times = Vec::new();
        for _ in 0..10 {
            times.push(fleet.run(&json!(["/bin/true"]))?);
        }
        ours.push(millis(http::quantile(&mut times, 0.5)));
        drop(fleet);
        if let Ok(ssh) = &ssh {
            by_ssh.push(millis(ssh.many(AGENTS)?));
        }
        if let Ok(salt) = &salt {
            by_salt.push(millis(salt.everywhere()?));
        }
        say::line(format_args!("   round {round}: {:.1} ms", ours.median()));
    }
    let peer = |name, there: bool, why: String, samples| match there {
        true => Peer::Measured(name, samples),
        false => Peer::Missing(name, why),
    };
    let why = |missing: Option<String>| missing.unwrap_or_default();
    let ssh_why = why(ssh.as_ref().err().map(ToString::to_string));
    let salt_why = why(salt.as_ref().err().map(ToString::to_string));
    Ok(vec![
        Figure {
            name: "/bin/true on 50 agents".into(),
            unit: "ms",
            ours: ours.clone(),
            peer: peer("50 ssh at once", ssh.is_ok(), ssh_why, by_ssh),
            goal: Goal::RatioAtMost(1.0 / 20.0),
        },
        Figure {
            name: "/bin/true on 50 agents".into(),
            unit: "ms",
            ours,
            peer: peer("salt, 10 minions", salt.is_ok(), salt_why, by_salt),
            goal: Goal::RatioAtMost(1.0 / 30.0),
        },
    ])
}

/// Much output of one command.
pub(super) fn output(bench: &Bench) -> Result<Vec<Figure>> {
    let fleet = Fleet::start(bench, 1)?;
    let ssh = Ssh::start();
    let file = fleet.gateway.folder().join("gigabyte");
    fs::File::create(&file)?.set_len(GIGABYTE)?;
    let path = file.display().to_string();
    let (mut ours, mut peer) = <(Samples, Samples)>::default();
    #[expect(clippy::cast_precision_loss, reason = "a gigabyte fits 53 bits")]
    let rate = |took: Duration| GIGABYTE as f64 / 1e6 / took.as_secs_f64();
    for round in 1..=bench.rounds {
        ours.push(rate(fleet.run(&json!(["cat", path]))?));
        if let Ok(ssh) = &ssh {
            peer.push(rate(ssh.cat(&path)?));
        }
        say::line(format_args!("   round {round}: {:.0} MB/s", ours.median()));
    }
    let peer = match ssh {
        Ok(_) => Peer::Measured("ssh host cat", peer),
        Err(missing) => Peer::Missing("ssh host cat", missing.to_string()),
    };
    Ok(vec![Figure {
        name: "1 GB of a command's output".into(),
        unit: "MB/s",
        ours,
        peer,
        goal: Goal::RatioAtLeast(1.0),
    }])
}
