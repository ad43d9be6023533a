//! The running agent: the core's hands.
//!
//! One loop on one thread owns the core, the state on disk and the list of
//! connections; nobody else changes them, so there is nothing to lock and an order of
//! events to reason about. The loop waits for signals, local questions, reports of
//! connections and the core's next deadline, hands each to the core as an event and
//! performs the actions that come back (`act`).
//!
//! The disk is written in the loop itself. A write takes a millisecond or fails; the
//! order "stored, then said" is worth more than the beat that a dying disk delays.
//!
//! Order of a shutdown: the core says goodbye and closes its connections, their tasks
//! get a moment to flush, the socket and the lock go last.

mod act;
mod board;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use agent_core::{Agent, Conn, Event, Mono, Rung, Standing, Waiting};
use link::dial::Path;
use model::Timestamp;
use protocol::v1::{GoodbyeReason, enrol_reply, gateway_frame};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::board::Board;
use crate::clock::Clock;
use crate::config::{Config, ConfigError};
use crate::conn::{Happened, Orders, Report};
use crate::facts::{FactsReader, boot_id};
use crate::local::{Answer, Question, Server};
use crate::log::Log;
use crate::service::Service;
use crate::shutdown;
use crate::state::{State, StateError};
use crate::status::refusal_code;
use crate::streams::Hands;
use crate::token::TokenSource;

/// Reports waiting for the loop; connections wait when it is full.
const REPORTS: usize = 64;
/// How often the loop comes round without reason: with a link, to see whether the
/// transport has heard of its peer; without, for the watchdog.
const LOOK_LINKED: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_secs(5);
/// Between two times that what is over is cleared away.
const TIDY: Duration = Duration::from_secs(10 * 60);
/// Time for connections to flush at the end; less than the service manager gives.
const WIND_DOWN: Duration = Duration::from_secs(5);

/// Why the agent does not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The state is in use, damaged or out of reach.
    #[error("open the state")]
    State(#[source] StateError),
    /// The system gave no signal handlers or random numbers.
    #[error("set up the process")]
    Process(#[source] std::io::Error),
}

/// What to run with.
pub struct Setup {
    /// Where the configuration came from, for reading it again.
    pub config_path: PathBuf,
    /// The configuration.
    pub config: Config,
    /// The token given by the environment.
    pub token: Option<String>,
    /// The log.
    pub log: Log,
}

/// Runs the agent until it is told to stop.
pub async fn run(setup: Setup) -> Result<(), RunError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(RunError::Process)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(RunError::Process)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(RunError::Process)?;
    let (reports, mut reported) = mpsc::channel(REPORTS);
    let mut engine = Engine::new(setup, reports)?;

    let server = match Server::bind(&engine.config.runtime_dirs) {
        Ok(server) => Some(server),
        Err(error) => {
            // The host matters more than its status command.
            let error = model::error_chain(&error);
            tracing::warn!(%error, "local commands will not work");
            engine.board.warn("socket", error);
            None
        }
    };
    let (asked, mut questions) = mpsc::channel(1);
    let serving = async {
        match &server {
            Some(server) => server.serve(asked).await,
            None => asked.closed().await,
        }
    };
    tokio::pin!(serving);

    engine.take(Event::Tick);
    engine.service.ready();
    while engine.finished.is_none() {
        engine.after_work();
        let wait = engine.until_next();
        tokio::select! {
            biased;
            _ = terminate.recv() => engine.stop(shutdown::reason()),
            _ = interrupt.recv() => engine.stop(GoodbyeReason::Stopping),
            _ = hangup.recv() => engine.reload(),
            Some((question, reply)) = questions.recv() => engine.answer(question, reply),
            Some(report) = reported.recv() => engine.report(report),
            Some(ended) = engine.tasks.join_next(), if !engine.tasks.is_empty() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection's task has died");
                }
            }
            () = &mut serving => {}
            () = tokio::time::sleep(wait) => engine.look(),
        }
    }
    // Answers on their way out are the last thing this process does: whoever asked it
    // to leave wants to hear that it did.
    let leaving = async {
        engine.wind_down().await;
        questions.close();
        std::future::pending().await
    };
    tokio::select! {
        () = serving => {}
        () = leaving => {}
        () = tokio::time::sleep(WIND_DOWN * 2) => {}
    }
    Ok(())
}

/// Tells the gateway that this host leaves for good, with no agent running: links,
/// says so and waits for the confirmation, all within `limit`. What to tell the
/// person is in the inner result.
pub async fn deregister(setup: Setup, limit: Duration) -> Result<Result<String, String>, RunError> {
    let (reports, mut reported) = mpsc::channel(REPORTS);
    let mut engine = Engine::new(setup, reports)?;
    let (reply, mut confirmed) = oneshot::channel();
    engine.leaving = Some(reply);
    let deadline = engine.clock.mono().after(limit);
    let mut said = false;
    engine.take(Event::Tick);
    while engine.finished.is_none() {
        let now = engine.clock.mono();
        match engine.core.standing() {
            Standing::Linked { .. } if !said => {
                said = true;
                engine.take(Event::Stop(GoodbyeReason::Uninstalled));
                continue;
            }
            Standing::Waiting {
                why: Waiting::Retired,
                ..
            } => {
                return Ok(Ok("the gateway had retired this host already".to_owned()));
            }
            Standing::Waiting {
                why: Waiting::Refused | Waiting::Rejected,
                ..
            } => {
                return Ok(Err(engine.summary()));
            }
            _ if deadline <= now => return Ok(Err(engine.summary())),
            _ => {}
        }
        let wait = engine.until_next().min(deadline.since(now));
        tokio::select! {
            biased;
            Some(report) = reported.recv() => engine.report(report),
            Some(_) = engine.tasks.join_next(), if !engine.tasks.is_empty() => {}
            () = tokio::time::sleep(wait) => engine.look(),
        }
    }
    engine.wind_down().await;
    Ok(match confirmed.try_recv() {
        Ok(Answer::Deregistered {
            acknowledged: true,
            text,
        }) => Ok(text),
        Ok(Answer::Deregistered { text, .. }) => Err(text),
        _ => Err("the gateway did not confirm".to_owned()),
    })
}

/// A connection, or the attempt at one.
struct Live {
    orders: Orders,
    rung: Rung,
    link: Option<(quinn::Connection, Path)>,
    /// Datagrams received at the last look.
    heard: u64,
}

struct Engine {
    core: Agent,
    config: Config,
    config_path: PathBuf,
    state: State,
    clock: Clock,
    facts: FactsReader,
    token: TokenSource,
    log: Log,
    random: SystemRandom,
    boot_id: String,
    instance: Vec<u8>,
    started_at: Timestamp,
    hands: Hands,
    tidy_at: Mono,
    conns: BTreeMap<Conn, Live>,
    reports: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    board: Board,
    service: Service,
    /// Who waits for the end of a deregistration.
    leaving: Option<oneshot::Sender<Answer>>,
    /// The end, and whether the gateway knows.
    finished: Option<bool>,
}

impl Engine {
    fn new(setup: Setup, reports: mpsc::Sender<Report>) -> Result<Self, RunError> {
        let Setup {
            config_path,
            config,
            token,
            log,
        } = setup;
        let state = State::open(&config.state_dir).map_err(RunError::State)?;
        let identity = state.identity();
        let boot_id = boot_id();
        let hands = Hands::new(&config.state_dir, &boot_id);
        hands.set_identity(identity.map(|it| (it.host, it.generation)));
        let clock = Clock::new(identity.map_or_else(Timestamp::default, |known| known.server_time));
        let random = SystemRandom::new();
        let mut instance = vec![0; 16];
        random
            .fill(&mut instance)
            .map_err(|_| RunError::Process(std::io::Error::other("no random numbers")))?;
        match identity {
            Some(identity) => tracing::info!(
                host = %identity.host, generation = identity.generation, gateway = %config.gateway,
                version = crate::VERSION, "starting"
            ),
            None => tracing::info!(
                gateway = %config.gateway, version = crate::VERSION, "starting; not joined yet"
            ),
        }
        Ok(Self {
            core: Agent::new(identity.map(act::for_core), clock.now()),
            token: TokenSource::new(token, config.token_file.clone()),
            service: Service::new(clock.mono()),
            started_at: clock.system(),
            tidy_at: clock.mono(),
            config,
            config_path,
            state,
            clock,
            facts: FactsReader::default(),
            log,
            random,
            hands,
            boot_id,
            instance,
            conns: BTreeMap::new(),
            reports,
            tasks: JoinSet::new(),
            board: Board::default(),
            leaving: None,
            finished: None,
        })
    }

    /// Hands `event` to the core and performs what it asks for, until it asks for
    /// nothing more.
    fn take(&mut self, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let seed = self.seed();
            for action in self.core.handle(event, self.clock.now(), seed) {
                self.act(action, &mut events);
            }
        }
    }

    fn seed(&self) -> u64 {
        let mut seed = [0; 8];
        // Jitter without randomness is a pity, not a reason to stop.
        let _ = self.random.fill(&mut seed);
        u64::from_le_bytes(seed)
    }

    fn report(&mut self, Report { conn, what }: Report) {
        let Some(live) = self.conns.get_mut(&conn) else {
            return;
        };
        let rung = live.rung;
        match what {
            Happened::Connected { connection, path } => {
                tracing::debug!(rung = rung.as_str(), ?path, "connected");
                live.link = Some((connection, path));
                self.take(Event::Connected(conn));
            }
            Happened::Failed { failure, why } => {
                self.conns.remove(&conn);
                self.trouble(rung.as_str(), why, "cannot reach the gateway");
                self.take(Event::Failed(conn, failure));
            }
            Happened::Enrolled(reply) => {
                if let Some(enrol_reply::Answer::Refused(refusal)) = &reply.answer {
                    self.refused(refusal);
                }
                self.take(Event::Enrolled(conn, reply));
            }
            Happened::Frame(body) => {
                self.notice(conn, &body);
                self.take(Event::Frame(conn, body));
            }
            Happened::Closed { failure, why } => {
                self.conns.remove(&conn);
                self.trouble(rung.as_str(), why, "connection ended");
                self.take(Event::Closed(conn, failure));
            }
        }
    }

    /// Keeps a failure for `status`. The log gets it once, not at every attempt of a
    /// night without network.
    fn trouble(&mut self, place: &'static str, why: String, what: &str) {
        if self.board.trouble(place, why.clone(), self.clock.system()) {
            tracing::warn!(place, %why, "{what}");
        } else {
            tracing::debug!(place, %why, "{what} again");
        }
    }

    /// What a frame says to the edge: times and reasons.
    fn notice(&mut self, conn: Conn, body: &gateway_frame::Body) {
        match body {
            gateway_frame::Body::Welcome(welcome) => {
                self.learn_time(welcome.server_time_ms);
                let rung = self.conns.get(&conn).map_or(Rung::Udp, |live| live.rung);
                self.board.welcomed(rung.as_str());
                tracing::info!(
                    rung = rung.as_str(), quarantined = welcome.quarantined,
                    name = %model::names::clean(&welcome.display_name, 128), "linked"
                );
            }
            gateway_frame::Body::HeartbeatAck(ack) => self.learn_time(ack.server_time_ms),
            gateway_frame::Body::Refused(refusal) | gateway_frame::Body::RenewRefused(refusal) => {
                self.refused(refusal);
            }
            gateway_frame::Body::Reidentify(order) => {
                let reason = model::names::clean(&order.reason, 256);
                tracing::warn!(%reason, "the gateway asks for a new key");
            }
            gateway_frame::Body::Renewed(_)
            | gateway_frame::Body::Probe(_)
            | gateway_frame::Body::Advance(_)
            | gateway_frame::Body::Settings(_)
            | gateway_frame::Body::Trust(_) => {}
        }
    }

    fn refused(&mut self, refusal: &protocol::v1::Refusal) {
        self.learn_time(refusal.server_time_ms);
        let code = refusal_code(refusal.code());
        let why = model::names::clean(&refusal.message, 512);
        tracing::warn!(code, %why, retry_after_ms = refusal.retry_after_ms, "refused");
        self.board.refused(code, why, self.clock.system());
    }

    fn learn_time(&mut self, gateway_ms: i64) {
        self.clock.learn(gateway_ms);
        if let Some(sample) = self.clock.sample()
            && self.board.skew_is_news(sample.skew_ms())
        {
            tracing::warn!(
                host = %sample.system, gateway = %sample.gateway, skew_ms = sample.skew_ms(),
                "the clocks of this host and the gateway differ"
            );
        }
    }

    /// Nothing happened for a while: deadlines, and what the transport has heard.
    fn look(&mut self) {
        let heard: Vec<_> = self
            .conns
            .iter_mut()
            .filter_map(|(conn, live)| {
                let (connection, _) = live.link.as_ref()?;
                let datagrams = connection.stats().udp_rx.datagrams;
                let news = datagrams != live.heard;
                live.heard = datagrams;
                news.then_some(*conn)
            })
            .collect();
        for conn in heard {
            self.take(Event::Heard(conn));
        }
        self.take(Event::Tick);
    }

    fn until_next(&self) -> Duration {
        let linked = matches!(self.core.standing(), Standing::Linked { .. });
        let look = if linked { LOOK_LINKED } else { LOOK };
        let now = self.clock.now();
        let deadline = self.core.deadline(now).map(|at: Mono| at.since(now.mono));
        // Never quite zero: a deadline of this very moment must not starve signals.
        deadline
            .map_or(look, |until| until.min(look))
            .max(Duration::from_millis(1))
    }

    /// The loop has come round.
    fn after_work(&mut self) {
        let now = self.clock.mono();
        self.service.feed(now);
        if self.tidy_at <= now {
            self.tidy_at = now.after(TIDY);
            let hands = self.hands.clone();
            self.tasks.spawn(async move { hands.tidy().await });
        }
        let line = self.summary();
        self.service.status(&line);
    }

    fn answer(&mut self, question: Question, reply: oneshot::Sender<Answer>) {
        match question {
            Question::Status => {
                // An asker that has gone away needs no answer.
                let _ = reply.send(Answer::Status(Box::new(self.view())));
            }
            Question::Deregister => {
                if matches!(self.core.standing(), Standing::Linked { .. }) {
                    self.leaving = Some(reply);
                    self.stop(GoodbyeReason::Uninstalled);
                } else {
                    let text = format!("the gateway cannot be told: {}", self.summary());
                    let _ = reply.send(Answer::Deregistered {
                        acknowledged: false,
                        text,
                    });
                }
            }
        }
    }

    fn stop(&mut self, reason: GoodbyeReason) {
        tracing::info!(?reason, "stopping");
        self.service.stopping();
        self.take(Event::Stop(reason));
    }

    /// Reads the configuration again. What lives goes on with what it has; the next
    /// dial uses the new values. The state's place cannot change under a running
    /// agent.
    fn reload(&mut self) {
        match reload(&self.config_path, &self.config) {
            Ok(config) => {
                tracing::info!("configuration read again");
                self.log.set_verbose(config.verbose);
                self.token.set_file(config.token_file.clone());
                self.config = config;
                self.board.unwarn("config");
            }
            Err(error) => {
                let error = model::error_chain(&error);
                tracing::error!(%error, "configuration not taken");
                self.board.warn("config", error);
            }
        }
    }

    async fn wind_down(mut self) {
        self.conns.clear();
        let flushed = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(WIND_DOWN, flushed).await.is_err() {
            tracing::debug!("connections did not flush in time");
        }
        tracing::info!("stopped");
        if let (Some(reply), Some(acknowledged)) = (self.leaving.take(), self.finished) {
            let text = if acknowledged {
                "the gateway has retired this host"
            } else {
                "the gateway did not confirm in time"
            };
            let _ = reply.send(Answer::Deregistered {
                acknowledged,
                text: text.to_owned(),
            });
        }
    }
}

fn reload(path: &FilePath, running: &Config) -> Result<Config, ConfigError> {
    let mut config = Config::load(path, |name| std::env::var(name).ok())?;
    config.state_dir.clone_from(&running.state_dir);
    config.runtime_dirs.clone_from(&running.runtime_dirs);
    Ok(config)
}
