//! `slow-peers`: ten thousand connections that say nothing, or nearly nothing, from many addresses.
//! Who has a key is served, and a host stays linked.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rustix::{
    net::{AddressFamily, SocketType, bind, connect, socket},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use serde_json::Value;

use super::support::{JOIN, text};
use crate::{
    interrupt,
    product::{Launch, Programs, World},
    say,
};

const WANTED: usize = 10_000;
/// How many of them each source has: below the limit of one source, so that it is the house that is
/// full.
const OF_EACH: usize = 250;
/// For everything else that this process has open.
const SPARE: u64 = 512;
/// How long a call may take on a busy machine; without room for it, it would take the 10 s that a
/// handshake may last, or more.
const CALL: Duration = Duration::from_secs(8);
const CALLS: usize = 20;

pub(super) fn run(programs: &Programs) -> Result<()> {
    let allowed = raise_limit()?;
    let wanted = WANTED.min(usize::try_from(allowed.saturating_sub(SPARE)).unwrap_or(usize::MAX));
    let launch = Launch {
        // As its unit does.
        wrap: ["prlimit", &format!("--nofile={allowed}"), "--"]
            .map(str::to_owned)
            .into(),
        ..Launch::default()
    };
    let world = World::here_with(programs, launch)?;
    let token = world.token(&["--label", "kind=calm"])?;
    let _agent = world.agent("agent", &token)?;
    let host = world.wait_labelled("kind", "calm", JOIN)?;
    let id = text(&host, "id")?.to_owned();
    let losses = losses(&world, &id)?;

    let address = world.gateway().address();
    let (peers, refused) = world.step(&format!("open {wanted} slow connections"), || {
        Ok(flood(address, wanted))
    })?;
    let held = connections(&world)?;
    ensure!(
        peers.len() * 10 >= wanted * 9,
        "only {} of {wanted} could be opened, {refused} were refused",
        peers.len()
    );
    let slowest = world.step("who has a key is served, and makes changes", || {
        let mut slowest = Duration::ZERO;
        for number in 0..CALLS {
            let began = Instant::now();
            let name = format!("made-meanwhile-{number}");
            world.cli().text(&["project", "create", &name])?;
            slowest = slowest.max(began.elapsed());
            interrupt::pause(Duration::from_millis(100))?;
        }
        ensure!(slowest < CALL, "a call took {slowest:?}");
        Ok(slowest)
    })?;
    world.step("the host was connected all the time", || {
        let now = world.host(&id)?;
        ensure!(now["connectivity"] == "connected", "{now}");
        let lost = self::losses(&world, &id)?.saturating_sub(losses);
        ensure!(lost == 0, "it was lost {lost} times: {now}");
        Ok(())
    })?;
    say::line(format_args!(
        "              {} slow connections from {} addresses, {held} of them held at a time; the \
         slowest of {CALLS} changes took {} ms",
        peers.len(),
        peers.len().div_ceil(OF_EACH),
        slowest.as_millis()
    ));
    drop(peers);
    Ok(())
}

/// How often its history says that the host was lost.
fn losses(world: &World, id: &str) -> Result<usize> {
    let history = world.history(id)?;
    let lost = |entry: &&Value| {
        ["link_lost", "unreachable"]
            .iter()
            .any(|kind| entry["event"]["kind"] == *kind)
    };
    Ok(history.iter().filter(lost).count())
}

/// Files that this process may have open, as many as it may allow itself.
fn raise_limit() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(WANTED as u64 + SPARE);
    let current = Some(
        most.min(WANTED as u64 + SPARE)
            .max(limit.current.unwrap_or(most)),
    );
    let raised = Rlimit {
        current,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    current.context("a limit")
}

/// Connections, and how many were refused.
fn flood(to: SocketAddr, wanted: usize) -> (Vec<TcpStream>, usize) {
    let mut opened = Vec::with_capacity(wanted);
    let mut refused = 0;
    for number in 0..wanted {
        match slow(to, number) {
            Ok(stream) => opened.push(stream),
            Err(_) => refused += 1,
        }
    }
    (opened, refused)
}

/// Every third says nothing, every third begins a handshake, every third sends what is none.
fn slow(to: SocketAddr, number: usize) -> std::io::Result<TcpStream> {
    let source = u8::try_from(number / OF_EACH % 250).unwrap_or(0) + 1;
    let from = SocketAddr::from((Ipv4Addr::new(127, 77, 0, source), 0));
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &from)?;
    connect(&socket, &to)?;
    let mut stream = TcpStream::from(socket);
    match number % 3 {
        0 => {}
        1 => stream.write_all(&[0x16, 3, 1, 2, 0, 1])?,
        _ => stream.write_all(b"GET")?,
    }
    Ok(stream)
}

/// What the gateway says it holds.
fn connections(world: &World) -> Result<u64> {
    let metrics = world.cli().text(&["metrics"])?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("loopback_http_connections "));
    line.and_then(|value| value.trim().parse().ok())
        .with_context(|| format!("there is no such metric:\n{metrics}"))
}
