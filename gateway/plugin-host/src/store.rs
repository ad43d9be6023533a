//! One call: its Store, and everything that bounds it.
//!
//! There is one way to make a Store, [`Fresh::new`], and it sets every limit; there is one way to
//! use it, [`Fresh::run`], and it takes the Store away. So a Store that trapped, ran out of time or
//! was half through something cannot be used again: there is nothing to use.
//!
//! Two clocks bound a call, always both. Epochs end what computes and never calls the gateway;
//! they do nothing while the gateway is called. The wall clock ends what waits; it cannot act while
//! a plugin computes, unless the plugin is made to give way, which epochs do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::plugin::{Limits, PluginKind};
use serde_json::Value;
use wasmtime::component::{Instance, InstancePre, ResourceTable};
use wasmtime::{Engine, Store, Trap, UpdateDeadline, WasmBacktrace};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxView, WasiView};

use crate::breaker::Went;
use crate::call_log::CallLog;
use crate::contract::{Exports, Misfit};
use crate::limiter::{Limiter, TABLE_ELEMENTS};
use crate::meter::Meter;
use crate::ports::{ErrorKind, GuestError};
use crate::reason::Reason;
use crate::scrub::Scrubber;
use crate::surroundings::{CredentialKey, Surroundings};

/// Handles that a call may hold at once.
const HANDLES: usize = 256;

/// Bytes that one call into the gateway may bring along beside a request's body.
const HOST_CALL_BYTES: usize = 1 << 20;

/// Bytes of a request's body: what `loopback:base/http` promises.
pub(crate) const BODY_BYTES: usize = 4 << 20;

/// For whom a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallScope {
    /// For a workspace that the grant covers; for the deployment if it covers all.
    Workspace,
    /// For the plugin itself, whatever its grant covers.
    Deployment,
}

/// A function of a plugin: how it is called, and what becomes of its answer.
pub(crate) trait Operation: Send {
    /// As the component answers.
    type Raw: Send;
    /// As callers see it.
    type Output: Send;

    /// Its name, as in `renderer.render`.
    const FUNCTION: &'static str;
    /// Whether only the log answers during it.
    const PURE: bool;
    /// For whom it is called.
    const SCOPE: CallScope = CallScope::Workspace;
    /// The kind that exports it; none if all do.
    const KIND: Option<PluginKind>;

    /// What it is asked, to be written down.
    fn input(&self) -> Value;

    /// What it answered, to be written down.
    fn output(output: &Self::Output) -> Value;

    /// Calls the function.
    fn run(
        self,
        code: &Exports,
        store: &mut Store<CallState>,
        instance: &Instance,
    ) -> impl Future<Output = wasmtime::Result<Self::Raw>> + Send;

    /// How many bytes an answer holds.
    fn weight(raw: &Self::Raw) -> usize;

    /// The answer without secrets, or why it is none.
    fn finish(raw: Self::Raw, scrubber: &Scrubber) -> Result<Self::Output, Reason>;

    /// What an answer says of the credentials that were shown.
    fn credentials(_output: &Self::Output) -> Went {
        Went::Well
    }
}

/// A Store that was not used yet.
pub(crate) struct Fresh {
    store: Store<CallState>,
    meter: Meter,
    limits: Limits,
    deadline: Instant,
}

/// What is left of a call.
pub(crate) struct Ended<T> {
    /// What it answered.
    pub(crate) answer: Result<T, Reason>,
    /// Values that must not be in the answer.
    pub(crate) scrubber: Arc<Scrubber>,
    /// Secrets that it used, by name and version.
    pub(crate) used_secrets: Vec<CredentialKey>,
    /// What it computed.
    pub(crate) cpu: Duration,
    /// Bytes of its memories at the end; nothing is known of what was cut off.
    pub(crate) memory_bytes: Option<usize>,
}

impl Fresh {
    /// With all limits. Without surroundings, nothing but the log answers.
    pub(crate) fn new(
        engine: &Engine,
        limits: Limits,
        deadline: Instant,
        call: &str,
        log: Arc<CallLog>,
        surroundings: Option<Surroundings>,
    ) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        let state = CallState {
            wasi: crate::wasi::inert(call, &log),
            table,
            limiter: Limiter::new(limits.memory_bytes),
            budget: Budget::new(&limits),
            call: call.to_owned(),
            log,
            scrubber: Arc::default(),
            used_secrets: Vec::new(),
            surroundings,
            deadline,
        };
        let mut store = Store::new(engine, state);
        store.limiter(|state| &mut state.limiter);
        store.set_max_component_handles(HANDLES);
        let return_bytes = usize::try_from(limits.return_bytes).unwrap_or(usize::MAX);
        let most = match store.data().surroundings {
            Some(_) => return_bytes.max(BODY_BYTES + HOST_CALL_BYTES),
            None => return_bytes.max(HOST_CALL_BYTES),
        };
        store.set_hostcall_fuel(most);

        let meter = Meter::default();
        let cpu = Duration::from_millis(limits.cpu_ms.into());
        let measured = meter.clone();
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(move |context| {
            if measured.used() >= cpu {
                return Err(Stop::CpuTime.into());
            }
            // Calls into WASI are counted where no error can be returned.
            if context.data().budget.host_calls < 0 {
                return Err(Stop::HostCalls.into());
            }
            measured.give_way();
            Ok(UpdateDeadline::Yield(1))
        });
        Self {
            store,
            meter,
            limits,
            deadline,
        }
    }

    /// Instantiates, calls, and drops everything.
    pub(crate) async fn run<O: Operation>(
        mut self,
        pre: &InstancePre<CallState>,
        exports: &Exports,
        operation: O,
    ) -> Ended<O::Raw> {
        let meter = self.meter.clone();
        let wall = Duration::from_millis(self.limits.wall_ms.into());
        let deadline = self.deadline;
        let store = &mut self.store;
        let measured = meter.measure(async move {
            let instance = pre.instantiate_async(&mut *store).await?;
            operation.run(exports, store, &instance).await
        });
        let outcome = tokio::time::timeout_at(deadline.into(), measured).await;
        let last_words = self.store.data().log.end();
        let answer = match outcome {
            Err(_) => Err(Reason::WallTime {
                limit: wall,
                computing: meter.was_computing(),
            }),
            Ok(Err(error)) => Err(self.why(&error, last_words)),
            Ok(Ok(output)) if O::weight(&output) > self.return_bytes() => {
                Err(self.return_too_large())
            }
            Ok(Ok(output)) => Ok(output),
        };
        let memory_bytes = answer
            .is_ok()
            .then(|| self.store.data().limiter.memory_held());
        let state = self.store.into_data();
        Ended {
            answer,
            scrubber: state.scrubber,
            used_secrets: state.used_secrets,
            cpu: meter.used(),
            memory_bytes,
        }
    }

    fn return_bytes(&self) -> usize {
        usize::try_from(self.limits.return_bytes).unwrap_or(usize::MAX)
    }

    fn return_too_large(&self) -> Reason {
        Reason::ReturnSize {
            limit: self.limits.return_bytes.into(),
        }
    }

    /// The one place where whatever ended a call gets its name.
    fn why(&self, error: &wasmtime::Error, last_words: Option<String>) -> Reason {
        let state = self.store.data();
        if let Some(stop) = error.downcast_ref::<Stop>() {
            return match stop {
                Stop::CpuTime => Reason::CpuTime {
                    limit: Duration::from_millis(self.limits.cpu_ms.into()),
                },
                Stop::HostCalls => Reason::HostCalls {
                    limit: self.limits.host_calls.into(),
                },
                Stop::Handles => Reason::Handles,
            };
        }
        if let Some(misfit) = error.downcast_ref::<Misfit>() {
            return Reason::WrongContract(misfit.to_string());
        }
        let text = error.root_cause().to_string();
        if text.contains("fuel allocated for hostcalls") {
            // In the middle of a plugin's own calls there is a backtrace; behind its end is none.
            return match error.downcast_ref::<WasmBacktrace>() {
                Some(_) => Reason::HostData,
                None => self.return_too_large(),
            };
        }
        // What a program does when it is refused more is its own affair, and mostly a trap.
        if state.limiter.memory_refused() {
            return Reason::Memory {
                limit: self.limits.memory_bytes,
            };
        }
        if state.limiter.table_refused() {
            return Reason::Table {
                limit: TABLE_ELEMENTS as u64,
            };
        }
        if let Some(I32Exit(status)) = error.downcast_ref::<I32Exit>() {
            return Reason::Exited(*status);
        }
        if text.contains("resource limit exceeded") || text.contains("limit of") {
            return Reason::Instances;
        }
        if text.contains("handle") && text.contains("limit") || text.contains("resource table") {
            return Reason::Handles;
        }
        match error.downcast_ref::<Trap>() {
            Some(Trap::StackOverflow) => Reason::Stack,
            Some(trap) => Reason::Trap(state.scrubber.text(match last_words {
                Some(words) => model::names::clean(&words, 512),
                None => trap.to_string(),
            })),
            None => match error.downcast_ref::<WasmBacktrace>() {
                // The canonical ABI refused what the plugin handed over.
                Some(_) => Reason::Trap(state.scrubber.text(model::names::clean(&text, 512))),
                None => Reason::Host(model::names::clean(&text, 512)),
            },
        }
    }
}

/// A limit that ended a call from within.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum Stop {
    #[error("computed for too long")]
    CpuTime,
    #[error("called the gateway too often")]
    HostCalls,
    #[error("held too many handles")]
    Handles,
}

/// What a call may still do.
pub(crate) struct Budget {
    /// Below zero: too many were made.
    pub(crate) host_calls: i64,
    pub(crate) http_requests: u32,
    pub(crate) http_bytes: u64,
    pub(crate) datagrams: u32,
}

impl Budget {
    fn new(limits: &Limits) -> Self {
        Self {
            host_calls: limits.host_calls.into(),
            http_requests: limits.http_requests,
            http_bytes: limits.http_bytes,
            datagrams: limits.datagrams,
        }
    }
}

/// What host functions see of a call.
pub(crate) struct CallState {
    pub(crate) wasi: WasiCtx,
    pub(crate) table: ResourceTable,
    limiter: Limiter,
    pub(crate) budget: Budget,
    pub(crate) call: String,
    pub(crate) log: Arc<CallLog>,
    pub(crate) scrubber: Arc<Scrubber>,
    pub(crate) used_secrets: Vec<CredentialKey>,
    /// None while the plugin is only asked about itself.
    pub(crate) surroundings: Option<Surroundings>,
    pub(crate) deadline: Instant,
}

impl CallState {
    /// Counts a call into the gateway; each host function begins with it.
    pub(crate) fn enter(&mut self) -> wasmtime::Result<()> {
        self.budget.host_calls -= 1;
        if self.budget.host_calls < 0 {
            return Err(Stop::HostCalls.into());
        }
        Ok(())
    }

    /// The surroundings, or what a plugin is told where there are none.
    pub(crate) fn surroundings(&self) -> Result<&Surroundings, GuestError> {
        self.surroundings.as_ref().ok_or_else(|| {
            let what = "only the log answers while a plugin is asked about itself";
            GuestError::new(ErrorKind::Denied, "denied.pure_call", what)
        })
    }

    /// What is left of the call.
    pub(crate) fn remaining(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Looks for another secret in everything that leaves the call.
    pub(crate) fn hide(&mut self, name: &str, value: &[u8]) {
        Arc::make_mut(&mut self.scrubber).add(name, value);
        self.log.hide(Arc::clone(&self.scrubber));
    }
}

impl WasiView for CallState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        // Each function of WASI comes through here, so here is where they are counted.
        self.budget.host_calls -= 1;
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Does not compile if a Store could be had twice: then both implementations would fit.
    #[test]
    fn a_store_cannot_be_used_again() {
        trait Once<T> {
            const OF: &'static str = "one";
        }
        impl<T> Once<()> for T {}
        impl<T: Clone> Once<u8> for T {}
        assert_eq!(<Fresh as Once<_>>::OF, "one");
    }
}
