//! Memory per connected idle agent, and the server's CPU time per new connection.
//!
//! Everybody gets the same number of connections with mutual TLS 1.3 and P-256 certificates, 64
//! handshakes at a time, and a ping every ten seconds. Memory is the growth of resident memory
//! from just before the first connection until [`SETTLE`] after the last; what the kernel keeps
//! for a TCP connection is not in it, which favours the brokers. CPU time is user and system time
//! of the server over the same connections, until a second after the last. For ours that
//! includes what a new link writes durably into the store, twice.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{interrupt, product::Daemon, say};

use super::{Bench, HEARTBEAT, micros, per, time_to_connect};
use crate::{
    figure::{Figure, Goal, Peer, Samples},
    fleet::Certificates,
    gateway::{Gateway, free_address},
    load::Clients,
    peers::{Broker, Kind},
    process,
};

const SETTLE: Duration = Duration::from_secs(25);
/// For a server that has just started to become quiet.
const CALM: Duration = Duration::from_secs(3);

/// What connections cost a server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// Growth of resident memory for each.
    pub(super) kib: f64,
    /// CPU time for each.
    pub(super) cpu: Duration,
}

#[derive(Debug, Default)]
struct Costs {
    kib: Samples,
    micros: Samples,
}

impl Costs {
    fn push(&mut self, cost: Cost) {
        self.kib.push(cost.kib);
        self.micros.push(micros(cost.cpu));
    }
}

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let count = bench.agents;
    ensure!(
        process::file_limit() > count + 100,
        "{count} connections need more open files than the limit of {}",
        process::file_limit()
    );
    let (mut ours, mut bare, mut stock) = (Costs::default(), Costs::default(), Costs::default());
    let mut brokers = [
        (Kind::Mosquitto, Ok(Costs::default())),
        (Kind::Nats, Ok(Costs::default())),
    ];
    let dropped = process::udp_receive_errors();
    for round in 1..=bench.rounds {
        let gateway = Gateway::start(&bench.gateway, HEARTBEAT)?;
        let fleet = gateway.populate(count, Certificates::Real)?;
        let tell = |who: &str, cost: Cost| {
            let (kib, us) = (cost.kib, micros(cost.cpu));
            say::line(format_args!(
                "   round {round}: {who} {kib:.1} KiB {us:.0} us"
            ));
            cost
        };
        ours.push(tell("gateway", of_gateway(&gateway, &fleet, count)?));
        gateway.stop()?;
        bare.push(tell("bare quinn", of_quinn(&gateway, &fleet, count, &[])?));
        let untuned = of_quinn(&gateway, &fleet, count, &["--stock"])?;
        stock.push(tell("stock quinn", untuned));
        for (kind, costs) in &mut brokers {
            let Ok(so_far) = costs else { continue };
            match Broker::start(*kind) {
                Ok(broker) => {
                    let cost = cost(broker.pid(), count, || broker.clients(count))?;
                    so_far.push(tell(kind.name(), cost));
                }
                Err(missing) => *costs = Err(missing),
            }
        }
    }
    let dropped = process::udp_receive_errors() - dropped;

    let mut figures = Vec::new();
    let mut compare = |name: &str, unit, ours: &Samples, peer, goal| {
        figures.push(Figure {
            name: name.to_owned(),
            unit,
            ours: ours.clone(),
            peer,
            goal,
        });
    };
    let peer = |which: usize, pick: fn(&Costs) -> &Samples| {
        let (kind, costs) = &brokers[which];
        match costs {
            Ok(costs) => Peer::Measured(kind.name(), pick(costs).clone()),
            Err(missing) => Peer::Missing(kind.name(), missing.to_string()),
        }
    };
    let kib: fn(&Costs) -> &Samples = |costs| &costs.kib;
    let us: fn(&Costs) -> &Samples = |costs| &costs.micros;
    let memory = "memory per agent";
    compare(
        memory,
        "KiB",
        &ours.kib,
        peer(0, kib),
        Goal::RatioAtMost(1.0),
    );
    compare(
        memory,
        "KiB",
        &ours.kib,
        peer(1, kib),
        Goal::RatioAtMost(0.4),
    );
    let floor = |samples: &Samples| Peer::Measured("bare quinn", samples.clone());
    compare(memory, "KiB", &ours.kib, floor(&bare.kib), Goal::Informs);
    let untuned = |samples: &Samples| Peer::Measured("stock quinn", samples.clone());
    compare(memory, "KiB", &ours.kib, untuned(&stock.kib), Goal::Informs);
    let connect = "CPU per new connection";
    compare(
        connect,
        "us",
        &ours.micros,
        peer(1, us),
        Goal::RatioAtMost(0.4),
    );
    compare(connect, "us", &ours.micros, peer(0, us), Goal::Informs);
    compare(
        connect,
        "us",
        &ours.micros,
        floor(&bare.micros),
        Goal::Informs,
    );
    compare(
        connect,
        "us",
        &ours.micros,
        untuned(&stock.micros),
        Goal::Informs,
    );
    #[expect(clippy::cast_precision_loss, reason = "a small count")]
    figures.push(Figure::alone(
        "datagrams dropped for lack of buffer",
        "",
        dropped as f64,
        Goal::Informs,
    ));
    Ok(figures)
}

/// What the hosts of `fleet` cost a gateway.
pub(super) fn of_gateway(gateway: &Gateway, fleet: &Path, count: usize) -> Result<Cost> {
    cost(gateway.pid()?, count, || {
        Clients::start(&[
            "swarm",
            "--fleet",
            &fleet.display().to_string(),
            "--gateway",
            &gateway.quic().to_string(),
        ])
    })
}

fn of_quinn(gateway: &Gateway, fleet: &Path, count: usize, options: &[&str]) -> Result<Cost> {
    let address = free_address()?;
    let mut command = Command::new(std::env::current_exe().context("find this program")?);
    command
        .args(["serve-quic", "--listen", &address.to_string(), "--state"])
        .arg(gateway.state())
        .args(options);
    let mut server = Daemon::start(
        "bare quinn",
        command,
        &gateway
            .folder()
            .join(format!("quinn-{}.log", address.port())),
    )?;
    server.wait_line(|line| line == "ready", Duration::from_secs(20))?;
    cost(server.pid(), count, || {
        Clients::start(&[
            "swarm",
            "--fleet",
            &fleet.display().to_string(),
            "--gateway",
            &address.to_string(),
        ])
    })
}

fn cost(pid: u32, count: usize, start: impl FnOnce() -> Result<Clients>) -> Result<Cost> {
    interrupt::pause(CALM)?;
    let (kib, cpu) = (process::resident_kib(pid)?, process::cpu(pid)?);
    let mut clients = start()?;
    clients.wait_up(count, time_to_connect(count))?;
    interrupt::pause(Duration::from_secs(1))?;
    let cpu = process::cpu(pid)?.saturating_sub(cpu);
    interrupt::pause(SETTLE)?;
    let status = clients.status()?;
    ensure!(
        usize::try_from(status.up)? == count && status.lost == 0,
        "connections were lost while nothing happened: {status:?}"
    );
    Ok(Cost {
        kib: per(process::resident_kib(pid)? - kib, count),
        cpu: cpu / u32::try_from(count)?,
    })
}
