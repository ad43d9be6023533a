//! An installed plugin: a component with what it was granted, to be called.
//!
//! A call passes, in this order: the breaker (what keeps failing is left alone), a place (of the
//! plugin's own and of all together, with a deadline), a fresh Store with every limit, and on the
//! way back the taking out of secrets. Nothing is locked while a plugin runs. Replacing the
//! component or its settings is one swap: calls that are going on end as they began.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use model::names::Name;
use model::plugin::Grant;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::breaker::{Breaker, PLUGIN, Went};
use crate::call_log::CallLog;
use crate::contract::base::{CheckConfig, MigrateConfig, Probe, refused};
use crate::contract::installer::Render;
use crate::contract::notifier::Deliver;
use crate::contract::policy::Decide;
use crate::contract::power as power_steps;
use crate::counts::{Counters, Counts};
use crate::logs::{LogPage, SharedRing};
use crate::platform::{Loaded, Platform};
use crate::ports::{CallContext, GuestError, Services};
use crate::reason::{Blame, CallError, Reason, Scope};
use crate::record::{Recorder, Recording};
use crate::store::{CallScope, Fresh, Operation};
use crate::surroundings::{CredentialKey, Guards, Invocation, RealClock, Surroundings};
use crate::{Diagnostic, installer, notifier, policy};

mod power;

/// What an operator decided about a plugin.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What it may do.
    pub grant: Grant,
    /// Its configuration, a JSON object.
    pub config: String,
    /// Grows with each change of the configuration.
    pub config_revision: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            grant: Grant::default(),
            config: "{}".into(),
            config_revision: 0,
        }
    }
}

/// An installed plugin. See the module's head.
pub struct Plugin {
    platform: Arc<Platform>,
    name: Name,
    services: Services,
    current: ArcSwap<Current>,
    places: Arc<Semaphore>,
    breaker: Mutex<Breaker>,
    faults: AtomicU32,
    guards: Arc<Guards>,
    ring: SharedRing,
    counters: Counters,
    recorder: ArcSwapOption<RecorderSlot>,
}

/// `ArcSwapOption` wants a sized type.
struct RecorderSlot(Arc<dyn Recorder>);

/// What a call begins with.
struct Current {
    loaded: Loaded,
    grant: Arc<Grant>,
    config: Arc<str>,
    config_revision: u64,
}

impl Current {
    fn new(loaded: Loaded, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            loaded,
            grant: Arc::new(settings.grant),
            config: settings.config.into(),
            config_revision: settings.config_revision,
        })
    }
}

impl Plugin {
    /// Nothing is called yet.
    pub fn new(
        platform: Arc<Platform>,
        name: Name,
        loaded: Loaded,
        settings: Settings,
        services: Services,
    ) -> Arc<Self> {
        let places = usize::try_from(platform.options.concurrency_per_plugin.max(1)).unwrap_or(1);
        Arc::new(Self {
            platform,
            name,
            services,
            current: ArcSwap::new(Current::new(loaded, settings)),
            places: Arc::new(Semaphore::new(places)),
            breaker: Mutex::default(),
            faults: AtomicU32::new(0),
            guards: Arc::new(Guards::new()),
            ring: SharedRing::default(),
            counters: Counters::default(),
            recorder: ArcSwapOption::empty(),
        })
    }

    /// By which it is installed.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// What is called at present.
    pub fn loaded(&self) -> Loaded {
        self.current.load().loaded.clone()
    }

    /// Calls that begin from now on get these; others end with what they began with. What was
    /// learned from failures is forgotten: it was about something else.
    pub fn replace(&self, loaded: Loaded, settings: Settings) {
        self.current.store(Current::new(loaded, settings));
        self.forgive();
    }

    /// Forgets failures, as when an operator enables a plugin again.
    pub fn forgive(&self) {
        *self.breaker() = Breaker::default();
        self.faults.store(0, Ordering::Relaxed);
    }

    /// Writes down calls from now on, or stops that.
    pub fn record(&self, recorder: Option<Arc<dyn Recorder>>) {
        self.recorder
            .store(recorder.map(|recorder| Arc::new(RecorderSlot(recorder))));
    }

    /// At most `limit` lines of its log, after the one with this number.
    pub fn logs(&self, after: u64, limit: usize) -> LogPage {
        self.ring.page(after, limit)
    }

    /// What its calls came to.
    pub fn counts(&self) -> Counts {
        self.counters.counts(self.ring.page(u64::MAX, 0).dropped)
    }

    /// Findings about a configuration.
    pub async fn check_config(&self, json: &str) -> Result<Vec<Diagnostic>, CallError> {
        let json = json.to_owned();
        self.call(Invocation::default(), CheckConfig { json }).await
    }

    /// Whether it can tell how it is.
    pub fn tells_health(&self) -> bool {
        self.current.load().loaded.code.exports.health.is_some()
    }

    /// Asks a plugin that can tell how it is, with all that its grant allows.
    pub async fn probe(&self, invocation: Invocation) -> Result<Vec<Diagnostic>, CallError> {
        self.call(invocation, Probe).await
    }

    /// The configuration of an earlier version, as this one wants it.
    pub async fn migrate_config(&self, from: &str, json: &str) -> Result<String, CallError> {
        let operation = MigrateConfig {
            from: from.to_owned(),
            json: json.to_owned(),
        };
        self.call(Invocation::default(), operation).await
    }

    /// Asks an installer plugin for the installer.
    pub async fn render(
        &self,
        invocation: Invocation,
        input: installer::Input,
    ) -> Result<installer::Rendered, CallError> {
        self.call(invocation, Render(input)).await
    }

    /// Gives events to a notifier plugin; answers how it went for each.
    pub async fn deliver(
        &self,
        invocation: Invocation,
        batch: Vec<notifier::Event>,
    ) -> Result<Vec<Result<(), GuestError>>, CallError> {
        self.call(invocation, Deliver(batch)).await
    }

    /// Asks a policy plugin.
    pub async fn decide(
        &self,
        invocation: Invocation,
        request: policy::Request,
    ) -> Result<policy::Verdict, CallError> {
        self.call(invocation, Decide(request)).await
    }

    async fn call<O: Operation>(
        &self,
        invocation: Invocation,
        operation: O,
    ) -> Result<O::Output, CallError> {
        let call = match &invocation.call {
            Some(call) => call.clone(),
            None => self.platform.call_id(),
        };
        let span = tracing::debug_span!(
            "plugin_call",
            plugin = %self.name,
            function = O::FUNCTION,
            call.id = %call,
        );
        let started = Instant::now();
        let running = self.counters.begin();
        let outcome = self
            .passed(invocation, operation, &call, started)
            .instrument(span)
            .await;
        let took = started.elapsed();
        running.end(outcome.as_ref().err(), took);
        match outcome {
            Ok(output) => {
                self.faults.store(0, Ordering::Relaxed);
                Ok(output)
            }
            Err(reason) => Err(self.failed(reason, call, took)),
        }
    }

    /// Makes a recorded call again, or one that was written by hand in its form. The plugin is to
    /// be made with [`crate::record::Replay::services`] and called with its invocation.
    pub async fn call_recorded(
        &self,
        invocation: Invocation,
        function: &str,
        input: serde_json::Value,
    ) -> Result<serde_json::Value, CallError> {
        /// From JSON to JSON, by one function.
        async fn one<O: Operation>(
            plugin: &Plugin,
            invocation: Invocation,
            operation: Result<O, serde_json::Error>,
        ) -> Result<serde_json::Value, CallError> {
            match operation {
                Ok(operation) => plugin
                    .call(invocation, operation)
                    .await
                    .map(|output| O::output(&output)),
                Err(error) => {
                    let what = format!("what goes into {} cannot be read: {error}", O::FUNCTION);
                    let call = plugin.platform.call_id();
                    Err(plugin.failed(Reason::Host(what), call, Duration::ZERO))
                }
            }
        }
        use serde_json::from_value as read;
        match function {
            CheckConfig::FUNCTION => one::<CheckConfig>(self, invocation, read(input)).await,
            MigrateConfig::FUNCTION => one::<MigrateConfig>(self, invocation, read(input)).await,
            Probe::FUNCTION => one(self, invocation, Ok(Probe)).await,
            Render::FUNCTION => one(self, invocation, read(input).map(Render)).await,
            Deliver::FUNCTION => one(self, invocation, read(input).map(Deliver)).await,
            Decide::FUNCTION => one(self, invocation, read(input).map(Decide)).await,
            power_steps::Inspect::FUNCTION => {
                one::<power_steps::Inspect>(self, invocation, read(input)).await
            }
            power_steps::Check::FUNCTION => {
                one::<power_steps::Check>(self, invocation, read(input)).await
            }
            power_steps::Observe::FUNCTION => {
                one::<power_steps::Observe>(self, invocation, read(input)).await
            }
            power_steps::Begin::FUNCTION => {
                one::<power_steps::Begin>(self, invocation, read(input)).await
            }
            power_steps::Poll::FUNCTION => {
                one::<power_steps::Poll>(self, invocation, read(input)).await
            }
            power_steps::Resume::FUNCTION => {
                one::<power_steps::Resume>(self, invocation, read(input)).await
            }
            power_steps::Cancel::FUNCTION => {
                one::<power_steps::Cancel>(self, invocation, read(input)).await
            }
            power_steps::Discover::FUNCTION => {
                one::<power_steps::Discover>(self, invocation, read(input)).await
            }
            _ => {
                let what = format!("there is no function `{function}`");
                let call = self.platform.call_id();
                Err(self.failed(Reason::Host(what), call, Duration::ZERO))
            }
        }
    }

    /// All the way there and back.
    async fn passed<O: Operation>(
        &self,
        invocation: Invocation,
        operation: O,
        call: &str,
        started: Instant,
    ) -> Result<O::Output, Reason> {
        let current = self.current.load_full();
        if O::KIND.is_some_and(|kind| kind != current.loaded.kind) {
            return Err(Reason::WrongKind);
        }
        let scoped = !O::PURE && O::SCOPE == CallScope::Workspace;
        if scoped && !current.grant.workspaces.covers(invocation.workspace) {
            return Err(Reason::NotGranted);
        }
        let limits = current.grant.limits;
        let deadline = started + Duration::from_millis(limits.wall_ms.into());
        self.breaker()
            .ask(started)
            .map_err(|retry_after| Reason::BreakerOpen { retry_after })?;
        let _places = match self.place(started, deadline).await {
            Ok(places) => places,
            Err(reason) => {
                self.breaker().tell(PLUGIN, Instant::now(), Went::Unclear);
                return Err(reason);
            }
        };

        let log = CallLog::new(Arc::clone(&self.ring), call, limits.log_bytes);
        let recorder = self.recorder.load_full();
        let mut recording = recorder.as_ref().map(|_| {
            Recording::begin(
                &self.name,
                O::FUNCTION,
                operation.input(),
                &current.config,
                current.config_revision,
            )
        });
        let surroundings = if O::PURE {
            None
        } else {
            Some(self.surroundings(&current, invocation, call, recording.as_mut()))
        };
        let engine = &self.platform.engine;
        let log = Arc::new(log);
        let fresh = Fresh::new(engine, limits, deadline, call, log, surroundings);
        let code = &current.loaded.code;
        let ended = fresh.run(&code.pre, &code.exports, operation).await;
        self.counters.computed(ended.cpu);
        tracing::debug!(
            cpu_us = u64::try_from(ended.cpu.as_micros()).unwrap_or(u64::MAX),
            memory_bytes = ended.memory_bytes,
            "a plugin was called"
        );

        let answer = ended.answer.and_then(|raw| O::finish(raw, &ended.scrubber));
        self.learn::<O>(&answer, &ended.used_secrets);
        if let (Some(recording), Some(recorder)) = (recording, recorder) {
            let outcome = answer.as_ref().map(O::output).map_err(Clone::clone);
            recorder
                .0
                .record(recording.end(call, outcome, &ended.scrubber));
        }
        answer
    }

    fn surroundings(
        &self,
        current: &Current,
        invocation: Invocation,
        call: &str,
        recording: Option<&mut Recording>,
    ) -> Surroundings {
        let clock = invocation.clock.unwrap_or_else(|| Arc::new(RealClock));
        let grant = if invocation.secrets.is_empty() {
            Arc::clone(&current.grant)
        } else {
            let mut grant = Grant::clone(&current.grant);
            grant.secrets.extend(invocation.secrets);
            Arc::new(grant)
        };
        let (services, clock) = match recording {
            Some(recording) => recording.listen(self.services.clone(), clock),
            None => (self.services.clone(), clock),
        };
        Surroundings {
            context: CallContext {
                plugin: self.name.clone(),
                workspace: invocation.workspace,
                call: call.to_owned(),
                grant,
            },
            operation: invocation.operation.unwrap_or_else(|| call.to_owned()),
            config: Arc::clone(&current.config),
            config_revision: current.config_revision,
            services,
            guards: Arc::clone(&self.guards),
            clock,
            cancel: invocation.cancel,
        }
    }

    /// A place among the plugin's own calls, then one among all.
    async fn place(
        &self,
        started: Instant,
        deadline: Instant,
    ) -> Result<[tokio::sync::OwnedSemaphorePermit; 2], Reason> {
        let until = (started + self.platform.options.queue).min(deadline);
        let one = |places: &Arc<Semaphore>, scope| {
            let waiting = Arc::clone(places).acquire_owned();
            async move {
                match tokio::time::timeout_at(until.into(), waiting).await {
                    Ok(Ok(place)) => Ok(place),
                    // Nobody closes them; either way there is none.
                    Ok(Err(_)) | Err(_) => Err(Reason::Saturated { scope }),
                }
            }
        };
        let own = one(&self.places, Scope::Plugin).await?;
        let shared = one(&self.platform.places, Scope::Platform).await?;
        Ok([own, shared])
    }

    /// What an answer says about the plugin and its credentials.
    fn learn<O: Operation>(&self, answer: &Result<O::Output, Reason>, used: &[CredentialKey]) {
        let now = Instant::now();
        let (went, credentials) = match answer {
            Ok(output) => (Went::Well, O::credentials(output)),
            Err(reason) => {
                let went = match reason.blame() {
                    Blame::Plugin | Blame::Surroundings => Went::Badly,
                    Blame::Nobody => match reason {
                        // It ran, and answered.
                        Reason::Guest(_) => Went::Well,
                        _ => Went::Unclear,
                    },
                };
                let credentials = match reason {
                    Reason::Guest(error) if refused(std::iter::once(error)) => Went::Badly,
                    _ => Went::Unclear,
                };
                (went, credentials)
            }
        };
        self.breaker().tell(PLUGIN, now, went);
        if !used.is_empty() {
            let mut breakers = self.guards.credentials();
            for key in used {
                breakers.tell(key, now, credentials);
            }
        }
    }

    fn failed(&self, reason: Reason, call: String, took: Duration) -> CallError {
        let faults_in_a_row = match (reason.blame(), &reason) {
            (Blame::Plugin, _) => self.faults.fetch_add(1, Ordering::Relaxed) + 1,
            (_, Reason::Guest(_)) => {
                self.faults.store(0, Ordering::Relaxed);
                0
            }
            _ => self.faults.load(Ordering::Relaxed),
        };
        let fault = reason.blame() == Blame::Plugin;
        CallError {
            quarantine: fault && faults_in_a_row >= self.platform.options.quarantine_after,
            reason,
            call,
            took,
            faults_in_a_row,
        }
    }

    fn breaker(&self) -> MutexGuard<'_, Breaker> {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
