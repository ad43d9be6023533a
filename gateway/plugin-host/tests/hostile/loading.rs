//! From bytes to something that can be called: what is refused, compiled, kept and trusted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use plugin_host::{Allocator, LoadError, Origin, Platform};

use crate::components;
use crate::support::{bench, guest, options, with_custom};

#[tokio::test]
async fn memory_is_reserved_at_the_start() {
    assert_eq!(*bench().platform.allocator(), Allocator::Pool);
}

#[tokio::test]
async fn what_was_compiled_is_kept_and_what_was_tampered_with_is_not_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let component = guest("notifier");
    let load = async || {
        let platform = Platform::new(options(folder.path())).expect("a platform");
        platform
            .load(component.clone())
            .await
            .expect("loads")
            .origin
    };
    assert!(matches!(load().await, Origin::Compiled { .. }));
    assert_eq!(load().await, Origin::Cache);

    let file = cached(folder.path()).remove(0);
    let good = std::fs::read(&file).expect("reads");
    for at in [0, 40, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&file, bad).expect("writes");
        let origin = load().await;
        assert!(
            matches!(origin, Origin::Recompiled { .. }),
            "{at}: {origin:?}"
        );
    }
    std::fs::write(&file, &good[..good.len() / 2]).expect("writes");
    assert!(matches!(load().await, Origin::Recompiled { .. }));
    std::fs::write(&file, []).expect("writes");
    assert!(matches!(load().await, Origin::Recompiled { .. }));
    assert_eq!(load().await, Origin::Cache);

    // What another gateway compiled is not ours.
    let mut others = options(folder.path());
    others.cache_key = [8; 32];
    let platform = Platform::new(others).expect("a platform");
    let origin = platform
        .load(component.clone())
        .await
        .expect("loads")
        .origin;
    assert!(matches!(origin, Origin::Recompiled { .. }));
    // Nothing half is left.
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 1);
}

#[tokio::test]
async fn abuse_37_code_of_one_component_does_not_pass_for_that_of_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let platform = Platform::new(options(folder.path())).expect("a platform");
    let one = guest("notifier");
    let two = with_custom(&one, "other", b"different");
    platform.load(one).await.expect("loads");
    let first = cached(folder.path()).remove(0);
    platform.load(two.clone()).await.expect("loads");
    let second = cached(folder.path());
    let second = second.iter().find(|path| **path != first).expect("another");
    std::fs::copy(&first, second).expect("swaps");
    let origin = platform.load(two).await.expect("loads").origin;
    assert!(matches!(origin, Origin::Recompiled { .. }));
}

fn cached(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("lists");
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect();
    paths.sort();
    paths
}

#[tokio::test]
async fn abuse_38_compiling_is_bounded() {
    let folder = tempfile::tempdir().expect("a folder");
    let attempt = async |change: &dyn Fn(&mut plugin_host::Options), component: Vec<u8>| {
        let mut options = options(folder.path());
        change(&mut options);
        let platform = Platform::new(options).expect("a platform");
        let error = platform.load(component).await.expect_err("does not load");
        println!("{:18} {}", error.code(), model::error_chain(&error));
        error.code()
    };
    let large = components::long_to_compile(100);
    let code = attempt(&|options| options.component_bytes = 1 << 20, large.clone()).await;
    assert_eq!(code, "too_large");
    let wall = |options: &mut plugin_host::Options| {
        options.compile.wall = Duration::from_millis(300);
    };
    assert_eq!(attempt(&wall, large.clone()).await, "compile_time");
    let cpu = |options: &mut plugin_host::Options| options.compile.cpu = Duration::from_secs(1);
    assert_eq!(
        attempt(&cpu, components::long_to_compile(1_000)).await,
        "compile_time"
    );
    let memory = |options: &mut plugin_host::Options| options.compile.memory_bytes = 24 << 20;
    assert_eq!(attempt(&memory, large).await, "compile_memory");
    let output = |options: &mut plugin_host::Options| options.compile.output_bytes = 4096;
    assert_eq!(attempt(&output, guest("notifier")).await, "compile_output");
    let missing = |options: &mut plugin_host::Options| {
        options.compiler = vec!["/nowhere/compiler".into()];
    };
    assert_eq!(
        attempt(&missing, guest("notifier")).await,
        "compiler_not_run"
    );
    assert_eq!(std::fs::read_dir(folder.path()).expect("lists").count(), 0);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_before_it_is_compiled() {
    let bench = bench();
    for (bytes, expected) in [
        (Vec::new(), "not_wasm"),
        (b"\0asm\x01\0\0\0".to_vec(), "not_a_component"),
        (b"\0asm\x0d\0\x01\0".to_vec(), "no_kind"),
        (b"#!/bin/sh\nrm -rf /\n".to_vec(), "not_wasm"),
    ] {
        let error = bench.platform.load(bytes).await.expect_err(expected);
        assert!(matches!(error, LoadError::Inspect(_)));
        assert_eq!(error.code(), expected);
    }
    let mut cut = guest("notifier");
    cut.truncate(cut.len() / 2);
    let error = bench.platform.load(cut).await.expect_err("cut");
    assert_eq!(error.code(), "invalid_component");
}
