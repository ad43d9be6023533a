//! What a call costs. Figures and not checks: `cargo test --release -p plugin-host --test hostile
//! -- --ignored --nocapture figures`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::plugin::Limits;
use plugin_host::{Invocation, Platform};
use wasmtime::component::{Component, Linker, Val};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, Store};

use crate::support::{bench, guest, input, options};

const CALLS: u32 = 500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a check"]
async fn figures_of_a_call() {
    let bench = bench();
    let (installer, _) = bench.plugin("installer", Limits::default()).await;
    let (notifier, _) = bench.plugin("notifier", Limits::default()).await;
    let render = mean(async || {
        let answer = installer.render(Invocation::default(), input("good")).await;
        answer.expect("answers");
    });
    println!("render, with a line of log     {:?}", render.await);
    let check = mean(async || {
        notifier.check_config("{}").await.expect("answers");
    });
    println!("check-config, all limits       {:?}", check.await);

    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::pooling());
    let engine = Engine::new(&config).expect("an engine");
    let component = Component::new(&engine, guest("notifier")).expect("compiles");
    let mut linker = Linker::<()>::new(&engine);
    linker
        .define_unknown_imports_as_traps(&component)
        .expect("links");
    let pre = linker.instantiate_pre(&component).expect("links");
    let plugin = component
        .get_export_index(None, "loopback:base/plugin@0.1.0")
        .expect("an export");
    let function = component
        .get_export_index(Some(&plugin), "check-config")
        .expect("a function");
    let bare = mean(async || {
        let mut store = Store::new(&engine, ());
        let instance = pre.instantiate_async(&mut store).await.expect("starts");
        let function = instance.get_func(&mut store, function).expect("a function");
        let mut results = [Val::Bool(false)];
        function
            .call_async(&mut store, &[Val::String("{}".into())], &mut results)
            .await
            .expect("answers");
    });
    println!("check-config, bare engine      {:?}", bare.await);
    let process = mean(async || {
        let status = std::process::Command::new("/bin/true").status();
        assert!(status.expect("runs").success());
    });
    println!("fork and exec of /bin/true     {:?}", process.await);
}

async fn mean(mut one: impl AsyncFnMut()) -> Duration {
    for _ in 0..20 {
        one().await;
    }
    let started = Instant::now();
    for _ in 0..CALLS {
        one().await;
    }
    started.elapsed() / CALLS
}

/// With a component that is named by `PLUGIN`, as one that a Python toolchain makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, not a check"]
async fn figures_of_loading() {
    let component: Arc<[u8]> = match std::env::var_os("PLUGIN") {
        Some(path) => std::fs::read(path).expect("reads").into(),
        None => guest("installer").into(),
    };
    let folder = tempfile::tempdir().expect("a folder");
    println!("component of {} bytes", component.len());
    for _ in 0..4 {
        let mut options = options(folder.path());
        options.describe_cpu_ms = 5_000;
        let platform = Platform::new(options).expect("a platform");
        let started = Instant::now();
        let loaded = platform.load(Arc::clone(&component)).await.expect("loads");
        println!("loaded in {:?}: {:?}", started.elapsed(), loaded.origin);
    }
}
