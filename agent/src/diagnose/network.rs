//! The network as this host sees it.

use std::time::{Duration, Instant};

use agent_core::diagnose::net;
use agent_core::facts::addresses;
use model::diagnose::{Network, NetworkCheck};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::about::Standing;
use super::content::Gathered;
use super::limit::{Found, on_thread, read_text};
use crate::doctor::{self, Outcome};

/// For the checks of the way to the gateway.
const DOCTOR: Duration = Duration::from_secs(20);
/// For one place to answer.
const CONNECT: Duration = Duration::from_secs(5);
const MAX_TABLE: u64 = 1 << 20;
const MAX_ROUTES: usize = 2000;

pub(super) async fn network(standing: &Standing, targets: &[String]) -> Gathered {
    let config = standing.config_path.clone();
    // The doctor asks the running agent, which may be this very thread: elsewhere, then.
    let doctor = on_thread(DOCTOR, move |found: &Found<Vec<NetworkCheck>>| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            let diagnosis = runtime.block_on(doctor::diagnose(&config, None));
            let checks = diagnosis.checks().iter().map(told).collect();
            found.update(|it| *it = checks);
            // What resolves names may hang on.
            runtime.shutdown_background();
        }
    });
    let ((gateway, ended), targets) = tokio::join!(doctor, reach(targets));
    let table = |name: &str| read_text(format!("/proc/net/{name}"), MAX_TABLE);
    let mut interfaces = net::interfaces(&table("dev"));
    for interface in &mut interfaces {
        let path = format!("/sys/class/net/{}/operstate", interface.name);
        interface.state = read_text(path, 64).trim().to_owned();
    }
    let mut routes = net::routes_v4(&table("route"));
    routes.extend(net::routes_v6(&table("ipv6_route")));
    let more = routes.len() > MAX_ROUTES;
    routes.truncate(MAX_ROUTES);
    let view = Network {
        interfaces,
        addresses: addresses(&table("fib_trie"), &table("if_inet6")),
        routes,
        nameservers: net::nameservers(&read_text("/etc/resolv.conf", 64 << 10)),
        gateway,
        targets,
    };
    let mut gathered = Gathered::json(view, |it| {
        let more = !it.interfaces.is_empty();
        it.interfaces.clear();
        more
    });
    if !ended {
        gathered = gathered.missing("the checks of the way to the gateway took too long");
    }
    if more {
        gathered = gathered.missing("some routes had no room");
    }
    gathered
}

fn told(check: &doctor::Check) -> NetworkCheck {
    NetworkCheck {
        name: check.name.to_owned(),
        outcome: match check.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
            Outcome::Skip => "skip",
        }
        .to_owned(),
        what: check.what.clone(),
        advice: check.advice.clone().unwrap_or_default(),
    }
}

async fn reach(targets: &[String]) -> Vec<NetworkCheck> {
    let mut asked = JoinSet::new();
    for (place, target) in targets.iter().enumerate() {
        let target = target.clone();
        asked.spawn(async move { (place, connect(target).await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, check)| check).collect()
}

async fn connect(name: String) -> NetworkCheck {
    let began = Instant::now();
    let Some((host, port)) = model::diagnose::target(&name) else {
        return NetworkCheck::default();
    };
    let connected = tokio::time::timeout(CONNECT, TcpStream::connect((host, port))).await;
    let took = began.elapsed().as_millis();
    let (outcome, what) = match connected {
        Ok(Ok(stream)) => {
            let peer = stream
                .peer_addr()
                .map_or_else(|_| name.clone(), |it| it.to_string());
            ("ok", format!("connected to {peer} by TCP in {took} ms"))
        }
        Ok(Err(error)) => ("fail", format!("{error} after {took} ms")),
        Err(_) => ("fail", format!("no answer within {CONNECT:?}")),
    };
    NetworkCheck {
        name,
        outcome: outcome.to_owned(),
        what,
        advice: String::new(),
    }
}
