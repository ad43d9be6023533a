//! What calls are promised: configuration, surroundings, swapping, places, breakers, records.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use model::plugin::{Grant, Limits, Workspaces};
use plugin_host::record::{Outcome, RecordedCall, Recorder, Replay};
use plugin_host::{Invocation, Platform, Plugin, Reason, Scope, Settings};

use crate::support::{World, bench, deliver, event, input, last_line, name, options, settings};

#[tokio::test]
async fn a_plugin_sees_its_configuration_and_its_answer_comes_back() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let answer = plugin.render(Invocation::default(), input("good")).await;
    let rendered = answer.expect("answers");
    assert!(rendered.script.contains("https://gateway.example"));
    assert_eq!(rendered.notes, [r#"configured by {"a":1}"#]);
    assert_eq!(last_line(&plugin), "rendered");
    let counts = plugin.counts();
    assert_eq!((counts.answered, counts.running), (1, 0));
    assert!(counts.cpu > Duration::ZERO);
}

#[tokio::test]
async fn abuse_34_wasi_is_there_and_empty_and_the_same_each_time() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let mut found = Vec::new();
    for call in ["call_1", "call_1", "call_2"] {
        let invocation = Invocation {
            call: Some(call.into()),
            ..Invocation::default()
        };
        let rendered = plugin.render(invocation, input("look")).await;
        found.push(rendered.expect("answers").notes);
    }
    assert_eq!(
        found[0][1..7],
        [
            "environment 0",
            "arguments 0",
            "root false",
            "file false",
            "socket false",
            "time Ok(0)"
        ]
    );
    assert_eq!(found[0], found[1], "the same call finds the same numbers");
    assert_ne!(found[0], found[2], "another call finds others");
}

#[tokio::test]
async fn abuse_36_a_panic_tells_its_words_and_is_in_the_log() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let answer = plugin.render(Invocation::default(), input("panic")).await;
    let Reason::Trap(words) = answer.expect_err("panics").reason else {
        panic!("another reason");
    };
    assert!(words.contains("out of luck"), "{words}");
    let lines = plugin.logs(0, 100).lines;
    assert!(
        lines
            .iter()
            .any(|line| line.message.contains("out of luck"))
    );
    // Nothing of the instance that panicked is left: the next call has its own.
    let again = plugin.render(Invocation::default(), input("good")).await;
    assert!(again.is_ok(), "{again:?}");
}

#[tokio::test]
async fn what_a_plugin_says_is_made_harmless() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let answer = plugin.render(Invocation::default(), input("error")).await;
    let Reason::Guest(error) = answer.expect_err("says no").reason else {
        panic!("another reason");
    };
    assert_eq!(error.message, "\u{fffd}[2Jnot now");
    assert_eq!(error.details, [("where".to_owned(), "render".to_owned())]);
}

#[tokio::test]
async fn a_plugin_that_is_asked_about_itself_has_nothing_but_its_log() {
    let bench = bench();
    let notifier = bench.load("notifier").await;
    assert_eq!(notifier.descriptor.features, ["denied.pure_call"]);
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let found = plugin.check_config("{}").await.expect("answers");
    assert_eq!(found[0].message, "checked 2 beside {}");
}

#[tokio::test]
async fn a_configuration_that_was_migrated_to_nonsense_is_refused() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let same = plugin.migrate_config("0.0.1", r#"{"b":2}"#).await;
    assert_eq!(same.expect("migrates"), r#"{"b":2}"#);
    let error = plugin
        .migrate_config("0.0.2", "{}")
        .await
        .expect_err("nonsense");
    assert_eq!(error.reason.code(), "wrong_contract");
    let error = plugin
        .migrate_config("0.0.3", "{}")
        .await
        .expect_err("too old");
    assert_eq!(error.reason.code(), "guest_error");
}

#[tokio::test]
async fn a_plugin_is_called_for_what_it_is_and_for_whom_it_is_granted() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    let error = deliver(&plugin, event("x", ""))
        .await
        .expect_err("no notifier");
    assert_eq!(error.reason, Reason::WrongKind);
    plugin.replace(plugin.loaded(), Settings::default());
    let answer = plugin.render(Invocation::default(), input("good")).await;
    assert_eq!(answer.expect_err("not granted").reason, Reason::NotGranted);
}

#[tokio::test]
async fn answers_that_do_not_match_what_was_asked_are_a_fault() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let answer = plugin
        .deliver(Invocation::default(), vec![event("too-few", "")])
        .await;
    assert_eq!(answer.expect_err("a fault").reason.code(), "wrong_contract");
}

#[tokio::test]
async fn values_are_kept_between_calls_by_the_surroundings_alone() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    for before in ["0", "1", "2"] {
        let went = deliver(&plugin, event("state", "")).await;
        went.expect("runs").expect("delivers");
        assert_eq!(last_line(&plugin), before);
    }
    let mut settings = settings(Limits::default());
    settings.grant.state = None;
    plugin.replace(plugin.loaded(), settings);
    let went = deliver(&plugin, event("state", "")).await.expect("runs");
    assert_eq!(went.expect_err("denied").code, "denied.state");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_going_on_ends_as_it_began() {
    let bench = bench();
    let limits = Limits {
        wall_ms: 600,
        ..Limits::default()
    };
    let (plugin, world) = bench.plugin("notifier", limits).await;
    let slow = deliver(&plugin, event("send", "https://slow.example/"));
    let swap = async {
        while world.requests() == 0 {
            tokio::task::yield_now().await;
        }
        plugin.replace(plugin.loaded(), settings(Limits::default()));
        deliver(&plugin, event("time", "")).await
    };
    let (slow, new) = tokio::join!(slow, swap);
    new.expect("the new one answers").expect("delivers");
    let limit = Duration::from_millis(600);
    assert_eq!(
        slow.expect_err("ends").reason,
        Reason::WallTime {
            limit,
            computing: false
        }
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_plugin_fills_its_own_places_and_not_all() {
    let bench = bench();
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(bench.folder.path());
    options.concurrency = 3;
    options.concurrency_per_plugin = 2;
    options.queue = Duration::from_millis(100);
    drop(folder);
    let crowded = crate::support::Bench {
        platform: Platform::new(options).expect("a platform"),
        folder: bench.folder.clone(),
    };
    let limits = Limits {
        wall_ms: 1_500,
        ..Limits::default()
    };
    let (slow, world) = crowded.plugin("notifier", limits).await;
    let (good, _) = crowded.plugin("installer", Limits::default()).await;
    let asleep = || deliver(&slow, event("send", "https://slow.example/"));
    let more = async {
        while world.requests() < 2 {
            tokio::task::yield_now().await;
        }
        let third = deliver(&slow, event("time", "")).await;
        let other = good.render(Invocation::default(), input("good")).await;
        (third, other)
    };
    let (_, _, (third, other)) = tokio::join!(asleep(), asleep(), more);
    let scope = Scope::Plugin;
    let third = third.expect_err("no place").reason;
    assert_eq!(third, Reason::Saturated { scope });
    other.expect("another plugin has its place");
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_left_alone_and_asks_for_quarantine() {
    let bench = bench();
    let mut options = options(bench.folder.path());
    options.quarantine_after = 3;
    let strict = crate::support::Bench {
        platform: Platform::new(options).expect("a platform"),
        folder: bench.folder.clone(),
    };
    let (plugin, _) = strict.plugin("installer", Limits::default()).await;
    let mut quarantine = Vec::new();
    for _ in 0..5 {
        let answer = plugin.render(Invocation::default(), input("panic")).await;
        quarantine.push(answer.expect_err("panics").quarantine);
    }
    assert_eq!(quarantine, [false, false, true, true, true]);
    let answer = plugin.render(Invocation::default(), input("good")).await;
    let error = answer.expect_err("left alone");
    assert_eq!(error.reason.code(), "breaker_open");
    assert!(!error.quarantine);
    plugin.forgive();
    let answer = plugin.render(Invocation::default(), input("good")).await;
    answer.expect("tried again");
    let failed = plugin.counts().failed;
    assert_eq!(failed, [("trap", 5), ("breaker_open", 1)]);
}

#[tokio::test]
async fn whoever_goes_away_ends_the_call() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let slow = deliver(&plugin, event("send", "https://slow.example/"));
    let gone = tokio::time::timeout(Duration::from_millis(100), slow).await;
    assert!(gone.is_err());
    let counts = plugin.counts();
    assert_eq!((counts.running, counts.failed), (0, vec![("cancelled", 1)]));
}

#[derive(Default)]
struct Tape(Mutex<Vec<RecordedCall>>);

impl Recorder for Tape {
    fn record(&self, call: RecordedCall) {
        self.0.lock().expect("a tape").push(call);
    }
}

#[tokio::test]
async fn a_recorded_call_holds_no_secret_and_can_be_made_again() {
    let bench = bench();
    let (plugin, world) = bench.plugin("notifier", Limits::default()).await;
    let tape = Arc::new(Tape::default());
    plugin.record(Some(tape.clone()));
    for kind in ["send", "time", "state", "leak"] {
        let _ = deliver(&plugin, event(kind, "https://echo.example/")).await;
    }
    plugin.record(None);
    let requests = world.requests();
    let calls = std::mem::take(&mut *tape.0.lock().expect("a tape"));
    assert_eq!(calls.len(), 4);
    for call in calls {
        let text = serde_json::to_string(&call).expect("writes");
        assert!(!text.contains("hunter22"), "{text}");
        let call: RecordedCall = serde_json::from_str(&text).expect("reads");
        let replay = Replay::of(&call);
        let settings = Settings {
            config: call.config.clone(),
            config_revision: call.config_revision,
            ..settings(Limits::default())
        };
        let again = Plugin::new(
            bench.platform.clone(),
            name("again"),
            plugin.loaded(),
            settings,
            replay.services(),
        );
        let answer = again
            .call_recorded(replay.invocation(), &call.function, call.input.clone())
            .await
            .expect("answers");
        assert_eq!(replay.diverged(), None);
        assert_eq!(call.outcome, Outcome::Answer(answer));
    }
    assert_eq!(world.requests(), requests, "nothing left the machine");
}

#[tokio::test]
async fn a_replay_tells_where_it_went_another_way() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let tape = Arc::new(Tape::default());
    plugin.record(Some(tape.clone()));
    let went = deliver(&plugin, event("send", "https://echo.example/")).await;
    went.expect("runs").expect("delivers");
    let call = tape.0.lock().expect("a tape").remove(0);
    let replay = Replay::of(&call);
    let services = replay.services();
    let again = Plugin::new(
        bench.platform.clone(),
        name("again"),
        plugin.loaded(),
        settings(Limits::default()),
        services,
    );
    let other = deliver(&again, event("send", "https://other.example/")).await;
    assert!(other.expect("runs").is_err());
    let diverged = replay.diverged().expect("another way");
    assert!(diverged.contains("other.example"), "{diverged}");
}

#[tokio::test]
async fn two_plugins_of_one_component_keep_apart() {
    let bench = bench();
    let world = Arc::new(World::default());
    let loaded = bench.load("notifier").await;
    for plugin in ["one", "two"] {
        let plugin = Plugin::new(
            bench.platform.clone(),
            name(plugin),
            loaded.clone(),
            settings(Limits::default()),
            world.services(),
        );
        let went = deliver(&plugin, event("state", "")).await;
        went.expect("runs").expect("delivers");
        assert_eq!(last_line(&plugin), "0");
    }
    let only = Grant {
        workspaces: Workspaces::Only(Vec::new()),
        ..Grant::default()
    };
    assert!(!only.workspaces.covers(None));
}
