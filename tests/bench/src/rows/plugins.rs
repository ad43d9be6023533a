//! Twenty plugins in a gateway.
//!
//! Sixteen policies judge every write, four notifiers are told of it; a thousand simulated agents
//! beat meanwhile. Writes come at a fixed rate, so that a slow answer does not slow the load down.
//! Times of calls are the gateway's own counts, which operators see too.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    interrupt, say,
    wait::{self, Look},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use super::{Bench, HEARTBEAT, millis, time_to_connect};
use crate::{
    figure::{Figure, Goal, Samples},
    fleet::Certificates,
    gateway::{Gateway, block_on},
    http,
    load::Clients,
    process,
};

const POLICIES: usize = 16;
const NOTIFIERS: usize = 4;
const AGENTS: usize = 1_000;
/// Writes a second; each is judged by every policy.
const RATE: u32 = 60;
const MEASURE: Duration = Duration::from_secs(20);
const READY: Duration = Duration::from_secs(120);
const SETTLE: Duration = Duration::from_secs(5);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let settings = "[plugins]\nsigned_only = false\n";
    let gateway = Gateway::start_with(&bench.gateway, HEARTBEAT, settings)?;
    let (mut empty, mut first, mut all) = <(Samples, Samples, Samples)>::default();
    for _ in 0..bench.rounds {
        gateway.stop()?;
        empty.push(millis(gateway.up_until_answer()?));
    }
    let fleet = gateway.populate(AGENTS, Certificates::Real)?;
    let receiver = receiver()?;
    for number in 0..POLICIES {
        policy(bench, &gateway, number)?;
    }
    for number in 0..NOTIFIERS {
        notifier(bench, &gateway, number, receiver)?;
    }
    all_ready(&gateway)?;
    for _ in 0..bench.rounds {
        gateway.stop()?;
        let began = Instant::now();
        first.push(millis(gateway.up_until_answer()?));
        all_ready(&gateway)?;
        all.push(millis(began.elapsed()));
    }

    let mut swarm = Clients::start(&[
        "swarm",
        "--fleet",
        &fleet.display().to_string(),
        "--gateway",
        &gateway.quic().to_string(),
    ])?;
    swarm.wait_up(AGENTS, time_to_connect(AGENTS))?;
    let (mut rate, mut within, mut answers, mut cpu) =
        <(Samples, Samples, Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        interrupt::pause(SETTLE)?;
        let before = (calls(&gateway)?, process::cpu(gateway.pid()?)?);
        let began = Instant::now();
        let mut times = block_on(writes(&gateway))?;
        let took = began.elapsed().as_secs_f64();
        let after = (calls(&gateway)?, process::cpu(gateway.pid()?)?);
        let answered = after.0.answered - before.0.answered;
        rate.push(answered / took);
        within.push(100.0 * (after.0.within_5ms - before.0.within_5ms) / answered);
        answers.push(millis(http::quantile(&mut times, 0.99)));
        cpu.push(100.0 * after.1.saturating_sub(before.1).as_secs_f64() / took);
        say::line(format_args!(
            "   round {round}: {:.0} calls/s, {:.2} % within 5 ms",
            rate.median(),
            within.median()
        ));
    }
    let status = swarm.status()?;
    ensure!(status.lost == 0, "agents were lost: {status:?}");
    Ok(vec![
        Figure::alone(
            "calls of 20 plugins",
            "calls/s",
            rate,
            Goal::AtLeast(1000.0),
        ),
        Figure::alone("of them within 5 ms", "%", within, Goal::AtLeast(99.0)),
        Figure::alone(
            "write judged by 16 policies, p99",
            "ms",
            answers,
            Goal::Informs,
        ),
        Figure::alone("gateway's CPU meanwhile", "% of a core", cpu, Goal::Informs),
        Figure::alone("first answer, no plugins", "ms", empty, Goal::Informs),
        Figure::alone("first answer, 20 plugins", "ms", first, Goal::Informs),
        Figure::alone(
            "20 plugins ready after a start",
            "ms",
            all,
            Goal::AtMost(300.0),
        ),
    ])
}

fn install(bench: &Bench, gateway: &Gateway, component: &str, name: &str) -> Result<()> {
    let path = bench.plugins.join(component).with_extension("wasm");
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    gateway.upload(&format!("/v1/plugins?name={name}"), &bytes)?;
    Ok(())
}

fn policy(bench: &Bench, gateway: &Gateway, number: usize) -> Result<()> {
    let name = format!("policy-{number}");
    install(bench, gateway, "policy-window", &name)?;
    gateway.put(
        &format!("/v1/plugins/{name}/grant"),
        &json!({ "workspaces": "all" }),
    )?;
    let windows = json!([{ "days": [], "from": "00:00", "to": "00:00" }]);
    let configuration = json!({ "windows": windows, "actions": ["project.workspace.host"] });
    gateway.put(
        &format!("/v1/plugins/{name}/configuration"),
        &json!({ "configuration": configuration }),
    )?;
    gateway.post(&format!("/v1/plugins/{name}/enable"), &json!({}))?;
    Ok(())
}

fn notifier(bench: &Bench, gateway: &Gateway, number: usize, receiver: SocketAddr) -> Result<()> {
    let name = format!("notifier-{number}");
    install(bench, gateway, "notify-webhook", &name)?;
    let grant = json!({
        "workspaces": "all",
        "http": [{
            "need": "webhook", "hosts": ["127.0.0.1"], "ports": [receiver.port()],
            "networks": ["127.0.0.1/32"], "plain": true,
        }],
        "limits": { "http_requests": 100, "wall_ms": 30000 },
    });
    gateway.put(&format!("/v1/plugins/{name}/grant"), &grant)?;
    // Each is told of everything and sends the rarest: what is measured is calls of plugins, and
    // not four requests over HTTP for each write.
    let configuration = json!({
        "url": format!("http://{receiver}/"), "min_severity": "critical",
    });
    gateway.put(
        &format!("/v1/plugins/{name}/configuration"),
        &json!({ "configuration": configuration }),
    )?;
    gateway.post(&format!("/v1/plugins/{name}/enable"), &json!({}))?;
    Ok(())
}

fn all_ready(gateway: &Gateway) -> Result<()> {
    let wanted = POLICIES + NOTIFIERS;
    let deadline = Instant::now() + READY;
    loop {
        let page = gateway.get("/v1/plugins?limit=100")?;
        let items = page["items"].as_array().context("a page has items")?;
        let ready = items.iter().filter(|it| it["running"]["status"] == "ready");
        if ready.count() == wanted {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the plugins are not ready: {page}"
        );
        // The figure's precision.
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What the gateway counts of all plugins.
struct Calls {
    answered: f64,
    within_5ms: f64,
}

fn calls(gateway: &Gateway) -> Result<Calls> {
    let page = gateway.get("/v1/plugins?limit=100")?;
    let items = page["items"].as_array().context("a page has items")?;
    let sum = |name: &str| -> f64 {
        let each = items.iter().map(|it| &it["running"]["counters"][name]);
        each.filter_map(serde_json::Value::as_f64).sum()
    };
    Ok(Calls {
        answered: sum("answered"),
        within_5ms: sum("within_ms.5"),
    })
}

/// Renames hosts at a fixed rate, each over a connection of its own turn; how long each took.
async fn writes(gateway: &Gateway) -> Result<Vec<Duration>> {
    const CONNECTIONS: u32 = 16;
    let list = http::request("GET", &gateway.path("/hosts?limit=1000"), &gateway.key, "");
    let hosts = http::call(gateway.http(), &list).await?;
    let hosts: Vec<String> = hosts["items"]
        .as_array()
        .context("a page has items")?
        .iter()
        .filter_map(|host| host["id"].as_str().map(str::to_owned))
        .collect();
    let began = Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..CONNECTIONS {
        let (address, key) = (gateway.http(), gateway.key.clone());
        let paths: Vec<_> = hosts
            .iter()
            .skip(usize::try_from(worker)?)
            .step_by(usize::try_from(CONNECTIONS)?)
            .map(|host| gateway.path(&format!("/hosts/{host}")))
            .collect();
        workers.spawn(async move {
            let mut connection = http::Connection::open(address).await?;
            let every = Duration::from_secs(1) * CONNECTIONS / RATE;
            let mut times = Vec::new();
            let mut turn = began + every * worker / CONNECTIONS;
            for (number, path) in paths.iter().cycle().enumerate() {
                if turn.duration_since(began) >= MEASURE {
                    break;
                }
                tokio::time::sleep_until(turn.into()).await;
                let body = json!({ "display_name": format!("name {number}") }).to_string();
                let reply = connection
                    .ask(&http::request("PATCH", path, &key, &body))
                    .await?;
                ensure!(
                    reply.status == 200,
                    "{}",
                    String::from_utf8_lossy(&reply.body)
                );
                times.push(turn.elapsed());
                turn += every;
            }
            Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(worker) = workers.join_next().await {
        times.extend(worker??);
    }
    Ok(times)
}

/// Answers every request with 204, on a thread of its own that ends with the process.
fn receiver() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    std::thread::spawn(move || {
        block_on(async {
            let listener = TcpListener::from_std(listener)?;
            let mut talks = tokio::task::JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await?;
                while talks.try_join_next().is_some() {}
                talks.spawn(async move {
                    let mut buffer = vec![0; 64 << 10];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        let _ = read;
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            break;
                        }
                    }
                });
            }
            #[expect(unreachable_code, reason = "it ends with the process")]
            anyhow::Ok(())
        })
    });
    // Nothing else here waits for it: a connection that is refused would be seen in the figures.
    wait::until("the receiver", READY, || {
        let there = std::net::TcpStream::connect(address).is_ok();
        Ok(Look::when(there, || "not there".to_owned()))
    })?;
    Ok(address)
}
