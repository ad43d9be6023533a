//! One table: what a plugin does to its host, the reason that ends it, and whether a good plugin
//! answered in the meantime.

use std::time::Duration;

use model::plugin::Limits;
use plugin_host::{Invocation, Reason};

use crate::components;
use crate::support::{bench, event, input};

/// What it does, and the code of the reason that ends it.
const CALLS: [(&str, &str); 13] = [
    ("spin", "cpu_time"),
    ("recurse", "stack"),
    ("recurse-widely", "trap"),
    ("memory", "memory"),
    ("storm", "host_calls"),
    ("wasi-storm", "host_calls"),
    ("huge-line", "host_data"),
    ("giant", "return_size"),
    ("large", "return_size"),
    ("panic", "trap"),
    ("exit", "exited"),
    ("error", "guest_error"),
    ("internal", "guest_error"),
];

fn limits() -> Limits {
    Limits {
        // Far apart: machines that run tests are busy.
        wall_ms: 10_000,
        cpu_ms: 100,
        return_bytes: 1 << 20,
        host_calls: 5_000,
        ..Limits::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abuse_31_32_33_harm_is_ended_by_a_typed_reason_and_others_go_on() {
    let bench = bench();
    let (good, _) = bench.plugin("installer", Limits::default()).await;
    for (what, expected) in CALLS {
        // Its own plugin each: one that fails often is left alone.
        let (bad, _) = bench.plugin("installer", limits()).await;
        let attack = bad.render(Invocation::default(), input(what));
        let meanwhile = async {
            let mut answered = 0;
            for _ in 0..5 {
                let answer = good.render(Invocation::default(), input("good")).await;
                answer.expect("a good plugin answers");
                answered += 1;
            }
            answered
        };
        let (attacked, answered) = tokio::join!(attack, meanwhile);
        let error = attacked.expect_err(what);
        println!(
            "{what:12} {:12} good: {answered}/5  {error}",
            error.reason.code()
        );
        assert_eq!(error.reason.code(), expected, "{what}: {error}");
        let again = bad.render(Invocation::default(), input("good")).await;
        again.unwrap_or_else(|error| panic!("{what}: the next call is its own: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abuse_32_what_is_built_into_a_component_is_bounded_when_it_is_loaded() {
    let bench = bench();
    let (good, _) = bench.plugin("installer", Limits::default()).await;
    for (what, component, expected) in [
        (
            "three memories of 60 MiB",
            components::memories(3, 960),
            "memory",
        ),
        (
            "one memory of 4 GiB",
            components::memories(1, 65_536),
            "memory",
        ),
        (
            "a table of 300,000",
            components::tables(1, 300_000),
            "table",
        ),
        (
            "five tables of 50,000",
            components::tables(5, 50_000),
            "table",
        ),
        ("400 instances", components::instances(400), "instances"),
        (
            "a start function that spins",
            components::spinning_start(),
            "cpu_time",
        ),
        (
            "a describe that never ends",
            crate::support::guest("hangs"),
            "cpu_time",
        ),
    ] {
        let loading = bench.platform.load(component);
        let meanwhile = good.render(Invocation::default(), input("good"));
        let (loaded, answered) = tokio::join!(loading, meanwhile);
        let error = loaded.expect_err(what);
        answered.expect("a good plugin answers");
        let chain = model::error_chain(&error).to_string();
        println!("{what:28} {:12} good: yes  {chain}", error.code());
        assert_eq!(error.code(), expected, "{what}: {chain}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_handles_end_a_call() {
    let bench = bench();
    let (bad, _) = bench.plugin("notifier", limits()).await;
    let error = bad
        .deliver(Invocation::default(), vec![event("handles", "")])
        .await
        .expect_err("ends");
    assert_eq!(error.reason, Reason::Handles, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn abuse_33_a_flood_of_lines_is_cut_and_counted_and_the_call_goes_on() {
    let bench = bench();
    let (bad, _) = bench.plugin("installer", Limits::default()).await;
    bad.render(Invocation::default(), input("flood"))
        .await
        .expect("goes on");
    let page = bad.logs(0, usize::MAX);
    let bytes: usize = page.lines.iter().map(|line| line.message.len()).sum();
    assert!(bytes <= 64 << 10, "{bytes}");
    assert_eq!(
        page.lines.len() + usize::try_from(page.dropped).expect("small"),
        2_000
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_waits_is_not_taken_for_one_that_computes() {
    let bench = bench();
    let limits = Limits {
        wall_ms: 1_500,
        cpu_ms: 1_000,
        ..Limits::default()
    };
    let (plugin, _) = bench.plugin("notifier", limits).await;
    let error = plugin
        .deliver(
            Invocation::default(),
            vec![event("send", "https://slow.example/")],
        )
        .await
        .expect_err("ends");
    let limit = Duration::from_millis(1_500);
    assert_eq!(
        error.reason,
        Reason::WallTime {
            limit,
            computing: false
        }
    );
    let (sleeper, _) = bench.plugin("installer", limits).await;
    let answer = sleeper.render(Invocation::default(), input("sleep")).await;
    let asleep = answer.expect_err("sleeps").reason;
    assert_eq!(asleep, error.reason, "asleep is not computing");
    assert!(!error.quarantine);
    assert_eq!(error.faults_in_a_row, 0, "the server's fault, perhaps");
}
