//! `bench swarm`: thousands of simulated agents in one process.
//!
//! Each speaks the real protocol over a QUIC connection of its own, with its own key and
//! certificate: hello, counter, heartbeats with acknowledgements, keepalives, and the real
//! agent's rules for when a link is suspect and how long to wait before the next attempt. What it
//! does not do is what needs a machine: facts, a state file, the second rung. Where the real
//! agent would try the WebSocket beside a suspect link, this one gives the link up and dials
//! again.
//!
//! Sockets are shared: some thousand connections use one, so that a machine's limit on open
//! files does not bound the swarm.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_core::{DIAL_LIMIT, Dice, KEEP_ALIVE, backoff};
use anyhow::{Context, Result, bail};
use gateway::keys::random;
use lexopt::{Arg, Parser, ValueExt};
use link::{
    frame::{Deadlines, FrameReader, MAX_FRAME, write_message},
    socket::{AGENT_BUFFER, bind_udp},
    tls::{Credentials, SERVER_NAME, Verifier},
    transport::{Client, endpoint_config},
    trust::{TrustBundle, TrustStore},
    verify::system_clock,
};
use protocol::v1::{
    AgentFrame, CounterStored, EndKind, GatewayFrame, Heartbeat, Hello, Opening, RunAccepted,
    RunEnded, RunOrder, RunReport, RunStarted, Welcome, agent_frame, gateway_frame, run_report,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::task::TaskTracker;

use super::Counters;
use crate::fleet::{FACTS_DIGEST, Fleet, Member};

/// Connections that share a socket.
const A_SOCKET: usize = 1000;
const ANSWER: Duration = Duration::from_secs(10);
/// For the gateway to take a result: its disk may be busy with thousands.
const RUN_WITHIN: Duration = Duration::from_secs(120);
/// As the real agent has it (`agent/core/src/session.rs`).
const SUSPECT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));
const QUIET: (Duration, Duration) = (Duration::from_millis(6500), Duration::from_secs(8));

struct Swarm {
    remote: SocketAddr,
    verifier: Arc<Verifier>,
    trust_version: u64,
    members: Vec<Member>,
    endpoints: Vec<quinn::Endpoint>,
    /// First attempts under way: connections are compared at a rate that no server is swamped
    /// by. Who comes back asks nobody.
    gate: Semaphore,
    counters: Counters,
}

pub(crate) fn main(mut args: Parser) -> Result<ExitCode> {
    let (mut file, mut remote, mut at_once) = (PathBuf::new(), None, 64);
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("fleet") => file = args.value()?.into(),
            Arg::Long("gateway") => remote = Some(args.value()?.parse()?),
            Arg::Long("at-once") => at_once = args.value()?.parse()?,
            other => return Err(other.unexpected().into()),
        }
    }
    let fleet = Fleet::read(&file)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let swarm = runtime.block_on(async {
        let swarm = Arc::new(Swarm::new(
            fleet,
            remote.context("--gateway ADDRESS")?,
            at_once,
        )?);
        let agents = TaskTracker::new();
        for number in 0..swarm.members.len() {
            agents.spawn(Arc::clone(&swarm).live(number));
        }
        anyhow::Ok(swarm)
    })?;
    swarm.counters.answer()?;
    // Not the runtime's drop: it would say goodbye to every connection.
    std::process::exit(0);
}

impl Swarm {
    fn new(fleet: Fleet, remote: SocketAddr, at_once: usize) -> Result<Self> {
        let authorities = fleet.authorities.into_iter().map(CertificateDer::from);
        let bundle = TrustBundle::new(fleet.trust_version, authorities.collect())?;
        let deployment = fleet.deployment.parse()?;
        let verifier =
            Verifier::of_gateways(TrustStore::new(bundle), Some(deployment), system_clock());
        let sockets = fleet.members.len().div_ceil(A_SOCKET);
        let endpoints = (0..sockets).map(|_| {
            let bound = bind_udp(SocketAddr::from(([127, 0, 0, 1], 0)), AGENT_BUFFER)?;
            let runtime = Arc::new(quinn::TokioRuntime);
            quinn::Endpoint::new(endpoint_config(), None, bound.socket, runtime)
        });
        Ok(Self {
            remote,
            verifier,
            trust_version: fleet.trust_version,
            endpoints: endpoints.collect::<Result<_, _>>()?,
            members: fleet.members,
            gate: Semaphore::new(at_once),
            counters: Counters::new(),
        })
    }

    /// One agent's life.
    async fn live(self: Arc<Self>, number: usize) {
        let mut agent = Agent {
            counter: 1,
            instance: random(),
            dice: Dice::new(u64::from_be_bytes(random())),
            mark: 0,
        };
        let mut failures = 0;
        loop {
            let first = agent.mark == 0;
            let gate = if first {
                self.gate.acquire().await.ok()
            } else {
                None
            };
            let linked = Box::pin(self.link(number, &mut agent)).await;
            drop(gate);
            match linked {
                Ok(link) => {
                    let began = Instant::now();
                    let end = self.talk(link, &mut agent).await;
                    self.counters.went(format!("{end:#}"));
                    failures = if began.elapsed() >= backoff::STABLE {
                        1
                    } else {
                        failures + 1
                    };
                }
                Err(error) => {
                    failures += 1;
                    self.counters.failed(format!("{error:#}"));
                }
            }
            let wait = backoff::NETWORK.wait(failures, &mut agent.dice);
            tokio::time::sleep(wait).await;
        }
    }

    async fn link(&self, number: usize, agent: &mut Agent) -> Result<Link> {
        use std::sync::atomic::Ordering;
        self.counters.attempts.fetch_add(1, Ordering::Relaxed);
        let member = &self.members[number];
        let credentials = Credentials {
            certificate: CertificateDer::from(member.certificate.clone()),
            key: PrivateKeyDer::try_from(member.key.clone()).map_err(anyhow::Error::msg)?,
        };
        let verifier = Arc::clone(&self.verifier);
        let client = Client::new(verifier, Some(credentials), KEEP_ALIVE * 3)?;
        let endpoint = &self.endpoints[number / A_SOCKET];
        let dialling = endpoint.connect_with(client.quic().clone(), self.remote, SERVER_NAME)?;
        drop(client);
        let connection = tokio::time::timeout(DIAL_LIMIT, dialling)
            .await
            .context("handshake")??;
        let (mut send, receive) = connection.open_bi().await?;
        say(&mut send, agent_frame::Body::Hello(self.hello(agent))).await?;
        let deadlines = Deadlines {
            idle: Duration::from_secs(24 * 3600),
            frame: ANSWER,
        };
        let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
        let answer = tokio::time::timeout(ANSWER, reader.next::<GatewayFrame>());
        let welcome = match answer.await.context("welcome")??.and_then(|it| it.body) {
            Some(gateway_frame::Body::Welcome(welcome)) => welcome,
            Some(gateway_frame::Body::Refused(refusal)) => bail!("refused: {}", refusal.message),
            other => bail!("a welcome was expected, not {other:?}"),
        };
        agent.counter = welcome.counter;
        let stored = CounterStored {
            counter: welcome.counter,
        };
        say(&mut send, agent_frame::Body::CounterStored(stored)).await?;
        self.counters.came(&mut agent.mark);
        Ok(Link {
            connection,
            send,
            reader,
            welcome,
        })
    }

    fn hello(&self, agent: &Agent) -> Hello {
        Hello {
            version_max: protocol::VERSION,
            version_min: protocol::VERSION_MIN,
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            boot_id: "3d1f2b6a-0000-4000-8000-0123456789ab".to_owned(),
            instance: agent.instance.to_vec(),
            counter: agent.counter,
            facts_digest: FACTS_DIGEST.to_vec(),
            trust_version: self.trust_version,
            host_time_ms: gateway::app::wall_clock().as_millis(),
        }
    }

    /// Heartbeats until the link ends or is given up; why.
    async fn talk(&self, mut link: Link, agent: &mut Agent) -> anyhow::Error {
        let beat = link
            .welcome
            .settings
            .as_ref()
            .map_or(0, |it| it.heartbeat_ms);
        let mut beat = Duration::from_millis(u64::from(beat.max(500)));
        let suspect_after = agent.dice.between(SUSPECT.0, SUSPECT.1);
        let quiet_after = agent.dice.between(QUIET.0, QUIET.1);
        let mut next_beat = Instant::now() + agent.dice.between(beat / 4, beat);
        let mut sequence = 0;
        let mut unanswered: VecDeque<Instant> = VecDeque::new();
        let mut runs = JoinSet::new();
        let (mut heard, mut received) = (Instant::now(), 0);
        loop {
            let suspect = unanswered.front().map(|&sent| sent + suspect_after);
            let wake = [Some(next_beat), Some(heard + quiet_after), suspect]
                .into_iter()
                .flatten()
                .min()
                .unwrap_or(next_beat);
            tokio::select! {
                Ok((send, receive)) = link.connection.accept_bi() => {
                    runs.spawn(run(send, receive));
                }
                Some(_) = runs.join_next(), if !runs.is_empty() => {}
                frame = link.reader.next::<GatewayFrame>() => match frame {
                    Ok(Some(GatewayFrame { body })) => match body {
                        Some(gateway_frame::Body::HeartbeatAck(_)) => {
                            unanswered.pop_front();
                        }
                        Some(gateway_frame::Body::Probe(probe)) => {
                            let reply = agent_frame::Body::ProbeReply(probe);
                            if let Err(error) = say(&mut link.send, reply).await {
                                return error;
                            }
                        }
                        Some(gateway_frame::Body::Advance(stored)) => {
                            agent.counter = stored.counter;
                            let reply = agent_frame::Body::CounterStored(stored);
                            if let Err(error) = say(&mut link.send, reply).await {
                                return error;
                            }
                        }
                        Some(gateway_frame::Body::Settings(settings)) => {
                            beat = Duration::from_millis(u64::from(settings.heartbeat_ms.max(500)));
                        }
                        Some(gateway_frame::Body::Refused(refusal)) => {
                            return anyhow::anyhow!("dismissed: {}", refusal.message);
                        }
                        _ => {}
                    },
                    Ok(None) => return anyhow::anyhow!("the gateway ended the stream"),
                    Err(error) => return match link.connection.close_reason() {
                        Some(reason) => reason.into(),
                        None => error.into(),
                    },
                },
                () = tokio::time::sleep_until(wake.into()) => {
                    let now = Instant::now();
                    let datagrams = link.connection.stats().udp_rx.datagrams;
                    if datagrams != received {
                        received = datagrams;
                        heard = now;
                    } else if now - heard >= quiet_after {
                        link.connection.close(0u32.into(), b"quiet");
                        return anyhow::anyhow!("suspect: nothing arrives");
                    }
                    if unanswered.front().is_some_and(|&sent| now - sent >= suspect_after) {
                        link.connection.close(0u32.into(), b"suspect");
                        return anyhow::anyhow!("suspect: a heartbeat was not answered");
                    }
                    if next_beat <= now {
                        sequence += 1;
                        next_beat = now + beat;
                        unanswered.push_back(now);
                        let heartbeat = agent_frame::Body::Heartbeat(Heartbeat { sequence });
                        if let Err(error) = say(&mut link.send, heartbeat).await {
                            return error;
                        }
                    }
                }
            }
        }
    }
}

/// A run that does nothing and succeeds.
async fn run(mut send: quinn::SendStream, receive: quinn::RecvStream) -> Result<()> {
    let deadlines = Deadlines {
        idle: RUN_WITHIN,
        frame: ANSWER,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let opening: Option<Opening> = reader.next().await?;
    opening.context("a stream for nothing")?;
    let now = gateway::app::wall_clock().as_millis();
    let ended = RunEnded {
        kind: EndKind::Itself.into(),
        code: Some(0),
        started_at_ms: Some(now),
        ended_at_ms: now,
        ..RunEnded::default()
    };
    for body in [
        run_report::Body::Accepted(RunAccepted {}),
        run_report::Body::Started(RunStarted { at_ms: now, pid: 1 }),
        run_report::Body::Ended(ended),
    ] {
        let report = RunReport { body: Some(body) };
        write_message(&mut send, &report, MAX_FRAME, ANSWER).await?;
    }
    // The result is taken, or the link goes: both are the end.
    let _: Option<RunOrder> = reader.next().await?;
    Ok(())
}

struct Agent {
    counter: u64,
    instance: [u8; 16],
    dice: Dice,
    mark: u64,
}

struct Link {
    connection: quinn::Connection,
    send: quinn::SendStream,
    reader: FrameReader<quinn::RecvStream>,
    welcome: Welcome,
}

async fn say(send: &mut quinn::SendStream, body: agent_frame::Body) -> Result<()> {
    let frame = AgentFrame { body: Some(body) };
    Ok(write_message(send, &frame, MAX_FRAME, ANSWER).await?)
}
