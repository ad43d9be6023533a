//! One call of a plugin.
//!
//! Ours is a whole call: breaker, place, a fresh Store with every limit, the component's own
//! instance, the function, the answer cleaned, counters. Beside it the same function of the same
//! component by nothing but wasmtime (an instance for each call too, from the same kind of pool),
//! and what programs without plugins do: fork and exec. A call on an instance that lives on is
//! shown, and is not what we do: no plugin shares memory between calls.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{say, scratch::Scratch};
use model::{
    names::Name,
    plugin::{Grant, Workspaces},
};
use plugin_host::{Invocation, Options, Origin, Platform, Plugin, Settings, policy};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    component::{Component, ComponentType, InstancePre, Lift, Linker, TypedFunc},
};

use super::{Bench, micros, millis};
use crate::figure::{Figure, Goal, Peer, Samples};

/// Calls of one round.
const CALLS: u32 = 2_000;
/// Processes of one round.
const PROCESSES: u32 = 300;
/// Loads of one round.
const LOADS: u32 = 5;
const CONFIGURATION: &str =
    r#"{"windows":[{"days":[],"from":"00:00","to":"00:00"}],"actions":["project.workspace.host"]}"#;

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(measure(bench))
}

async fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let component = read(bench, "policy-window")?;
    let ours = Ours::load(bench, &component).await?;
    let bare = Bare::new(&component).map_err(failed)?;
    let (mut pure, mut bare_pure, mut judged, mut forked, mut warm) =
        <(Samples, Samples, Samples, Samples, Samples)>::default();
    for round in 1..=bench.rounds {
        pure.push(mean(CALLS, async || ours.check().await).await?);
        bare_pure.push(mean(CALLS, async || bare.check().await.map_err(failed)).await?);
        judged.push(mean(CALLS, async || ours.judge().await).await?);
        forked.push(mean(PROCESSES, async || fork()).await?);
        warm.push(bare.living().await.map_err(failed)?);
        say::line(format_args!(
            "   round {round}: {:.0} us, bare {:.0} us, judged {:.0} us, fork {:.0} us",
            pure.median(),
            bare_pure.median(),
            judged.median(),
            forked.median()
        ));
    }
    let mut figures = vec![
        Figure {
            name: "pure call, fresh instance".into(),
            unit: "us",
            ours: pure,
            peer: Peer::Measured("bare typed call", bare_pure),
            goal: Goal::RatioAtMost(1.5),
        },
        Figure::alone(
            "a policy's verdict, fresh instance",
            "us",
            judged.clone(),
            Goal::AtMost(60.0),
        ),
        Figure {
            name: "a policy's verdict, fresh instance".into(),
            unit: "us",
            ours: judged,
            peer: Peer::Measured("fork and exec of /bin/true", forked),
            goal: Goal::RatioAtMost(1.0 / 20.0),
        },
        Figure::alone("bare call, living instance", "us", warm, Goal::Informs),
    ];
    for name in ["python-notifier", "js-installer", "policy-window"] {
        figures.extend(loading(bench, name).await?);
    }
    Ok(figures)
}

fn read(bench: &Bench, name: &str) -> Result<Arc<[u8]>> {
    let path = bench.plugins.join(name).with_extension("wasm");
    let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
    Ok(bytes.into())
}

fn platform(bench: &Bench, folder: &Scratch) -> Result<Arc<Platform>> {
    let compiler = vec![bench.gateway.clone().into(), "compile-plugin".into()];
    let options = Options::new(folder.path().to_owned(), [7; 32], compiler);
    Ok(Platform::new(options)?)
}

struct Ours {
    plugin: Arc<Plugin>,
    _folder: Scratch,
}

impl Ours {
    async fn load(bench: &Bench, component: &Arc<[u8]>) -> Result<Self> {
        let folder = Scratch::new()?;
        let platform = platform(bench, &folder)?;
        let loaded = platform.load(Arc::clone(component)).await?;
        let name: Name = "window".parse()?;
        let settings = Settings {
            grant: Grant {
                workspaces: Workspaces::All,
                ..Grant::default()
            },
            config: CONFIGURATION.into(),
            config_revision: 1,
        };
        let services = plugin_host::ports::Services::none();
        Ok(Self {
            plugin: Plugin::new(platform, name, loaded, settings, services),
            _folder: folder,
        })
    }

    async fn check(&self) -> Result<()> {
        self.plugin.check_config(CONFIGURATION).await?;
        Ok(())
    }

    async fn judge(&self) -> Result<()> {
        let subject = policy::Subject {
            id: "usr_1".into(),
            name: "ada".into(),
            roles: vec!["operator".into()],
        };
        let request = policy::Request {
            action: "project.workspace.host.command.run".into(),
            subject,
            targets: Vec::new(),
            target_count: 1,
            ticket: None,
            now_ms: 1_700_000_000_000,
            approvals: Vec::new(),
            break_glass: false,
            extra: Vec::new(),
        };
        self.plugin.decide(Invocation::default(), request).await?;
        Ok(())
    }
}

/// What `check-config` answers with.
#[derive(ComponentType, Lift)]
#[component(record)]
#[expect(dead_code, reason = "read to be paid for, as ours is")]
struct Diagnostic {
    severity: Severity,
    path: String,
    message: String,
}

#[derive(ComponentType, Lift, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted and not looked at")]
enum Severity {
    #[component(name = "info")]
    Info,
    #[component(name = "warning")]
    Warning,
    #[component(name = "error")]
    Error,
}

type Check = TypedFunc<(&'static str,), (Vec<Diagnostic>,)>;

/// The same component, by wasmtime and nothing else.
struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
    function: wasmtime::component::ComponentExportIndex,
}

impl Bare {
    fn new(component: &[u8]) -> wasmtime::Result<Self> {
        // Slots are put back as ours are: what is compared is what a call costs beyond that.
        let mut pool = PoolingAllocationConfig::new();
        pool.pagemap_scan(Enabled::Auto)
            .linear_memory_keep_resident(256 << 10)
            .table_keep_resident(32 << 10)
            .async_stack_keep_resident(32 << 10);
        let mut config = Config::new();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;
        let component = Component::new(&engine, component)?;
        let mut linker = Linker::<()>::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let plugin = component
            .get_export_index(None, "loopback:base/plugin@0.1.0")
            .ok_or_else(|| wasmtime::Error::msg("it is no plugin"))?;
        let function = component
            .get_export_index(Some(&plugin), "check-config")
            .ok_or_else(|| wasmtime::Error::msg("it checks no configurations"))?;
        Ok(Self {
            pre: linker.instantiate_pre(&component)?,
            function,
            engine,
        })
    }

    async fn check(&self) -> wasmtime::Result<()> {
        let mut store = Store::new(&self.engine, ());
        let instance = self.pre.instantiate_async(&mut store).await?;
        let check: Check = instance.get_typed_func(&mut store, self.function)?;
        check.call_async(&mut store, (CONFIGURATION,)).await?;
        Ok(())
    }

    /// Microseconds of a call on one instance.
    async fn living(&self) -> wasmtime::Result<f64> {
        let mut store = Store::new(&self.engine, ());
        let instance = self.pre.instantiate_async(&mut store).await?;
        let check: Check = instance.get_typed_func(&mut store, self.function)?;
        let began = Instant::now();
        for _ in 0..CALLS {
            check.call_async(&mut store, (CONFIGURATION,)).await?;
        }
        Ok(micros(began.elapsed() / CALLS))
    }
}

fn failed(error: wasmtime::Error) -> anyhow::Error {
    anyhow::anyhow!("{error:#}")
}

fn fork() -> Result<()> {
    ensure!(Command::new("/bin/true").status()?.success());
    Ok(())
}

/// Microseconds of one, after a few.
async fn mean(count: u32, mut one: impl AsyncFnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..20 {
        one().await?;
    }
    let began = Instant::now();
    for _ in 0..count {
        one().await?;
    }
    Ok(micros(began.elapsed() / count))
}

/// From the cache, with everything that loading is: the digest, the cache's own authentication,
/// mapping the code, a first instance that is asked about itself.
async fn loading(bench: &Bench, name: &str) -> Result<Vec<Figure>> {
    let component = read(bench, name)?;
    let folder = Scratch::new()?;
    platform(bench, &folder)?
        .load(Arc::clone(&component))
        .await?;
    #[expect(clippy::cast_precision_loss, reason = "a size of megabytes")]
    let megabytes = component.len() as f64 / 1e6;
    let mut took = Samples::default();
    for _ in 0..bench.rounds {
        let mut least = Duration::MAX;
        for _ in 0..LOADS {
            let platform = platform(bench, &folder)?;
            let began = Instant::now();
            let loaded = platform.load(Arc::clone(&component)).await?;
            least = least.min(began.elapsed());
            ensure!(loaded.origin == Origin::Cache, "not from the cache");
        }
        took.push(millis(least));
    }
    let per_ten = took.median() / megabytes * 10.0;
    let mut figures = vec![Figure::alone(
        format!("cached load, {name} ({megabytes:.1} MB)"),
        "ms",
        took,
        Goal::Informs,
    )];
    if megabytes >= 10.0 {
        figures.push(Figure::alone(
            "cached load, for 10 MB of that",
            "ms",
            per_ten,
            Goal::AtMost(50.0),
        ));
    }
    Ok(figures)
}
