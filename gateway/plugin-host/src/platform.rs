//! What all plugins share: the engine, the compiler, the cache, and the places for calls.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::plugin::{Limits, Manifest, PluginDigest, PluginKind};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use crate::cache::{Cache, Found};
use crate::call_log::CallLog;
use crate::compile::{CompileError, CompileLimits, compile};
use crate::contract::base::Describe;
use crate::contract::base::words::loopback::base::types;
use crate::contract::{Exports, link};
use crate::engine::{Allocator, Ticker, for_running};
use crate::inspect::{COMPONENT_BYTES, InspectError, Inspected, inspect_within};
use crate::limiter::TABLE_ELEMENTS;
use crate::logs::{LogLine, SharedRing};
use crate::reason::Reason;
use crate::store::{CallState, Fresh, Operation as _};

/// A schema is a document for people too.
const SCHEMA_BYTES: usize = 256 << 10;
/// Features that are looked at.
const FEATURES: usize = 64;
/// Bytes that are kept of each.
const FEATURE_BYTES: usize = 128;

/// How to run plugins.
#[derive(Clone)]
pub struct Options {
    /// Where compiled components are kept. Made if it is not there.
    pub cache: PathBuf,
    /// Under which they are authenticated. The gateway's own; whoever has it runs code in it.
    pub cache_key: [u8; 32],
    /// A program and arguments whose life is [`crate::compile_main`].
    pub compiler: Vec<OsString>,
    /// What compiling one component may take.
    pub compile: CompileLimits,
    /// The largest component.
    pub component_bytes: u64,
    /// Calls at once, of all plugins.
    pub concurrency: u32,
    /// Calls at once of one plugin, so that a slow one leaves places to others.
    pub concurrency_per_plugin: u32,
    /// How long a call waits for a place.
    pub queue: Duration,
    /// What a component may compute while it is asked about itself, in milliseconds.
    pub describe_cpu_ms: u32,
    /// Calls in a row that end by a plugin's own fault, until its [`crate::CallError`] asks for
    /// quarantine.
    pub quarantine_after: u32,
}

impl Options {
    /// With the usual limits.
    pub fn new(cache: PathBuf, cache_key: [u8; 32], compiler: Vec<OsString>) -> Self {
        Self {
            cache,
            cache_key,
            compiler,
            compile: CompileLimits::default(),
            component_bytes: COMPONENT_BYTES,
            concurrency: 16,
            concurrency_per_plugin: 8,
            queue: Duration::from_secs(2),
            describe_cpu_ms: 2_000,
            quarantine_after: 10,
        }
    }
}

/// What all plugins share. See the module's head.
pub struct Platform {
    pub(crate) engine: Engine,
    pub(crate) options: Options,
    pub(crate) places: Arc<Semaphore>,
    cache: Cache,
    allocator: Allocator,
    compiling: Semaphore,
    unique: AtomicU64,
    /// Part of the ids of calls, so that those of two lives of a gateway differ.
    life: u64,
    /// Makes time pass as long as the platform lives.
    _ticker: Ticker,
}

/// The platform cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// No engine.
    #[error("start the plugin engine: {0}")]
    Engine(String),
    /// No folder for compiled components.
    #[error("open the folder for compiled plugins {}", .0.display())]
    Cache(PathBuf, #[source] std::io::Error),
    /// No thread.
    #[error("start the plugin clock")]
    Ticker(#[source] std::io::Error),
}

/// A component that can be called.
#[derive(Clone)]
pub struct Loaded {
    /// Of the component.
    pub digest: PluginDigest,
    /// What it is.
    pub kind: PluginKind,
    /// What its author says.
    pub manifest: Manifest,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Where its code came from.
    pub origin: Origin,
    /// Lines that it wrote while it was asked about itself.
    pub lines: Vec<LogLine>,
    pub(crate) code: Arc<Code>,
}

/// What a component says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// JSON Schema of its configuration; empty if it has none.
    pub config_schema: String,
    /// Optional behaviours.
    pub features: Vec<String>,
}

impl Descriptor {
    pub(crate) fn of(described: types::Descriptor) -> Result<Self, LoadError> {
        let schema = &described.config_schema;
        if schema.len() > SCHEMA_BYTES {
            let what = format!("its schema has more than {SCHEMA_BYTES} bytes");
            return Err(LoadError::Descriptor(what));
        }
        if !schema.is_empty()
            && let Err(error) = serde_json::from_str::<serde_json::Map<_, _>>(schema)
        {
            let what = format!("its schema is no JSON object: {error}");
            return Err(LoadError::Descriptor(model::names::clean(&what, 500)));
        }
        let features = described.features.iter().take(FEATURES);
        let features = features.map(|feature| crate::host::line(feature, FEATURE_BYTES));
        Ok(Self {
            features: features.collect(),
            config_schema: described.config_schema,
        })
    }
}

/// Where compiled code came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Compiled before.
    Cache,
    /// Compiled for the first time.
    Compiled {
        /// How long that took.
        took: Duration,
    },
    /// Compiled again, because what was in the cache could not be trusted or used.
    Recompiled {
        /// What was wrong with it.
        because: String,
        /// How long that took.
        took: Duration,
    },
}

/// Compiled code with its imports resolved.
pub(crate) struct Code {
    pub(crate) pre: InstancePre<CallState>,
    pub(crate) exports: Exports,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded")
            .field("digest", &self.digest)
            .field("kind", &self.kind)
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Why a component cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is no plugin.
    #[error("look into the component")]
    Inspect(#[from] InspectError),
    /// It was not compiled.
    #[error("compile the component")]
    Compile(#[from] CompileError),
    /// It does not hold to the contract.
    #[error("the component does not hold to the contract: {0}")]
    Contract(String),
    /// Asked about itself, it failed.
    #[error("ask the component about itself")]
    DryRun(#[source] Reason),
    /// What it says of itself makes no sense.
    #[error("what the component says of itself makes no sense: {0}")]
    Descriptor(String),
}

impl LoadError {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Inspect(error) => error.code(),
            Self::Compile(error) => error.code(),
            Self::Contract(_) => "wrong_contract",
            Self::DryRun(reason) => reason.code(),
            Self::Descriptor(_) => "wrong_descriptor",
        }
    }
}

impl Platform {
    /// Starts the engine and its clock. No runtime is needed yet.
    pub fn new(options: Options) -> Result<Arc<Self>, PlatformError> {
        let engine = |error: wasmtime::Error| PlatformError::Engine(format!("{error:#}"));
        let concurrency = options.concurrency.clamp(1, 256);
        // One place beside those of calls: for asking a new component about itself.
        let (running, allocator) = for_running(concurrency + 1).map_err(engine)?;
        if let Allocator::OnDemand { because } = &allocator {
            tracing::warn!(
                because,
                "memory for plugins could not be reserved; calls will be slower"
            );
        }
        let folder = options.cache.clone();
        let limit = options.compile.output_bytes + 4096;
        let cache = Cache::open(folder.clone(), &options.cache_key, &running, limit)
            .map_err(|error| PlatformError::Cache(folder, error))?;
        let ticker = Ticker::start(&running).map_err(PlatformError::Ticker)?;
        let mut life = [0; 8];
        // Without randomness ids begin at nought, and nothing else follows.
        let _ = SystemRandom::new().fill(&mut life);
        Ok(Arc::new(Self {
            engine: running,
            places: Arc::new(Semaphore::new(usize::try_from(concurrency).unwrap_or(1))),
            options,
            cache,
            allocator,
            compiling: Semaphore::new(1),
            unique: AtomicU64::new(0),
            life: u64::from_ne_bytes(life),
            _ticker: ticker,
        }))
    }

    /// Where memories come from.
    pub fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Makes a component ready to be called: looks into it, compiles it unless that was done
    /// before, and asks it about itself, so that what does not work fails here and not in the
    /// middle of something.
    pub async fn load(self: &Arc<Self>, bytes: impl Into<Arc<[u8]>>) -> Result<Loaded, LoadError> {
        let bytes: Arc<[u8]> = bytes.into();
        let platform = Arc::clone(self);
        let component = Arc::clone(&bytes);
        let (inspected, found) = blocking(move || {
            let inspected = inspect_within(&component, platform.options.component_bytes)?;
            let found = platform.cache.load(&platform.engine, &inspected.digest);
            Ok::<_, InspectError>((inspected, found))
        })
        .await?;
        // One at a time: together they would compile for less, and be in each other's way. It is
        // also the extra place of the engine.
        let Ok(_turn) = self.compiling.acquire().await else {
            return Err(LoadError::Contract("the plugin host is stopping".into()));
        };
        let (component, origin) = match found {
            Found::Hit(component) => (component, Origin::Cache),
            Found::Miss => {
                let (component, took) = self.compile(&inspected, &bytes).await?;
                (component, Origin::Compiled { took })
            }
            Found::Bad(because) => {
                tracing::warn!(
                    plugin.digest = %inspected.digest,
                    because,
                    "a compiled plugin in the cache is not used and made again"
                );
                let (component, took) = self.compile(&inspected, &bytes).await?;
                (component, Origin::Recompiled { because, took })
            }
        };
        self.dry_run(inspected, component, origin).await
    }

    /// Removes what was compiled of a component that is not used any more.
    pub fn forget(&self, digest: &PluginDigest) {
        self.cache.remove(digest);
    }

    async fn compile(
        self: &Arc<Self>,
        inspected: &Inspected,
        bytes: &[u8],
    ) -> Result<(Component, Duration), LoadError> {
        let started = Instant::now();
        let digest = inspected.digest;
        let unique = self.unique.fetch_add(1, Ordering::Relaxed);
        let out = self.cache.scratch(&digest, unique);
        let options = &self.options;
        let compiled = compile(&options.compiler, &options.compile, bytes, &out).await;
        let _ = tokio::fs::remove_file(&out).await;
        let compiled = compiled?;
        let platform = Arc::clone(self);
        let (component, kept) = blocking(move || {
            platform
                .cache
                .keep(&platform.engine, &digest, &compiled, unique)
        })
        .await
        .map_err(contract)?;
        if let Err(error) = kept {
            // It runs, and will be compiled again after the next start.
            tracing::warn!(plugin.digest = %digest, %error, "a compiled plugin was not kept");
        }
        Ok((component, started.elapsed()))
    }

    async fn dry_run(
        &self,
        inspected: Inspected,
        component: Component,
        origin: Origin,
    ) -> Result<Loaded, LoadError> {
        let mut linker = Linker::new(&self.engine);
        link(inspected.kind, &mut linker).map_err(contract)?;
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(contract)?;
        let pre = linker.instantiate_pre(&component).map_err(contract)?;
        let exports = Exports::of(inspected.kind, &pre).map_err(contract)?;

        let wish = inspected.manifest.needs.limits;
        let usual = Limits::default();
        let limits = Limits {
            // Far more: on a busy machine computing takes longer than it takes.
            wall_ms: self.options.describe_cpu_ms.saturating_mul(10).max(30_000),
            cpu_ms: self.options.describe_cpu_ms,
            memory_bytes: wish
                .memory_bytes
                .unwrap_or(usual.memory_bytes)
                .min(512 << 20),
            host_calls: 1_000,
            http_requests: 0,
            http_bytes: 0,
            datagrams: 0,
            log_bytes: 16 << 10,
            return_bytes: 1 << 20,
        };
        let call = self.call_id();
        let ring = SharedRing::default();
        let log = Arc::new(CallLog::new(Arc::clone(&ring), &call, limits.log_bytes));
        let deadline = Instant::now() + Duration::from_millis(limits.wall_ms.into());
        let fresh = Fresh::new(&self.engine, limits, deadline, &call, log, None);
        let ended = fresh.run(&pre, &exports, Describe).await;
        let described = ended
            .answer
            .and_then(|raw| Describe::finish(raw, &ended.scrubber))
            .map_err(LoadError::DryRun)?;
        Ok(Loaded {
            digest: inspected.digest,
            kind: inspected.kind,
            manifest: inspected.manifest,
            descriptor: Descriptor::of(described)?,
            origin,
            lines: ring.page(0, usize::MAX).lines,
            code: Arc::new(Code { pre, exports }),
        })
    }

    /// An id that no other call has.
    pub(crate) fn call_id(&self) -> String {
        let number = self.unique.fetch_add(1, Ordering::Relaxed);
        format!("call_{:016x}{number:08x}", self.life)
    }
}

/// What is built into a component can be larger than any place that there is. That shows before
/// anything is counted, in words alone; a test holds them.
fn too_large_by_itself(error: &wasmtime::Error) -> Option<LoadError> {
    let text = format!("{error:#}");
    if !text.contains("pooling allocator") && !text.contains("exceeds the limit") {
        return None;
    }
    let reason = if text.contains("table") {
        Reason::Table {
            limit: TABLE_ELEMENTS as u64,
        }
    } else if text.contains("memory ") && text.contains("size") {
        Reason::Memory {
            limit: Limits::default().memory_bytes,
        }
    } else {
        Reason::Instances
    };
    Some(LoadError::DryRun(reason))
}

fn contract(error: wasmtime::Error) -> LoadError {
    too_large_by_itself(&error)
        .unwrap_or_else(|| LoadError::Contract(model::names::clean(&format!("{error:#}"), 500)))
}

/// Runs what would hold up others.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only when the runtime is shutting down, and then nobody waits.
            Err(_) => std::future::pending().await,
        },
    }
}
