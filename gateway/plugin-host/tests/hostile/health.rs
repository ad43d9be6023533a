//! Plugins that can tell how they are, and those that cannot.

use model::plugin::{Limits, Workspaces};
use plugin_host::{Invocation, Plugin, Reason, Severity};

use crate::support::{Bench, SECRET, bench, settings};

/// A notifier that is configured to answer so.
async fn asked(bench: &Bench, probe: &str) -> (std::sync::Arc<Plugin>, u32) {
    let (plugin, world) = bench.plugin("notifier", Limits::default()).await;
    let mut settings = settings(Limits::default());
    // For one workspace alone: its health is asked for by nobody in particular all the same.
    settings.grant.workspaces = Workspaces::None;
    settings.config = format!(r#"{{"probe":"{probe}"}}"#);
    plugin.replace(plugin.loaded(), settings);
    (plugin, world.requests())
}

#[tokio::test]
async fn a_probe_may_use_what_the_grant_allows_and_tells_what_it_finds() {
    let bench = bench();
    let (plugin, _) = asked(&bench, "https://echo.example/").await;
    assert!(plugin.tells_health());
    let found = plugin.probe(Invocation::default()).await.expect("answers");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].severity, Severity::Warning);
    assert_eq!(found[0].path, "/probe");
    assert_eq!(found[0].message, "status 200");
    assert!(!format!("{found:?}").contains(SECRET));
}

#[tokio::test]
async fn a_probe_that_finds_nothing_out_is_the_plugins_answer_and_no_fault() {
    let bench = bench();
    let (plugin, _) = asked(&bench, "fail").await;
    for _ in 0..20 {
        let error = plugin
            .probe(Invocation::default())
            .await
            .expect_err("says so");
        assert!(matches!(error.reason, Reason::Guest(_)), "{error}");
        assert!(!error.quarantine);
    }
}

#[tokio::test]
async fn a_probe_that_traps_counts_like_any_call() {
    let bench = bench();
    let (plugin, _) = asked(&bench, "panic").await;
    let error = plugin
        .probe(Invocation::default())
        .await
        .expect_err("traps");
    assert_eq!(error.reason.code(), "trap");
    assert_eq!(error.faults_in_a_row, 1);
}

#[tokio::test]
async fn who_does_not_export_it_does_not_tell() {
    let bench = bench();
    let (plugin, _) = bench.plugin("installer", Limits::default()).await;
    assert!(!plugin.tells_health());
}
