//! `power-webhook` against a controller that somebody wrote in an afternoon: it checks signatures
//! with their time, does an action once for each key, and finishes jobs when it is asked.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use e2e::product::Daemon;
use e2e::tools::{self, tool};
use model::plugin::{Grant, HttpRule};
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, State, Step};
use plugin_host::{CallError, Reason};
use serde_json::json;

use crate::support::{self, Provider, of, operation, target};

const KEY: &str = "a-key-that-both-know";

/// Starts the controller, and answers its port.
fn controller(folder: &Path) -> Result<(Daemon, u16), tools::Missing> {
    tools::ensure(&[tool("python3", "python3")])?;
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("python3");
    command
        .arg("-u")
        .arg(script.join("tests/providers/webhook_controller.py"))
        .arg(KEY);
    let mut running =
        Daemon::start("the controller", command, &folder.join("log")).expect("it starts");
    let line = running
        .wait_line(|line| line.starts_with("port "), Duration::from_secs(30))
        .expect("it is ready");
    let port = line.trim_start_matches("port ").parse().expect("a port");
    Ok((running, port))
}

fn kind(error: &CallError) -> ErrorKind {
    match &error.reason {
        Reason::Guest(own) => own.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_ones_own_takes_signed_requests_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let (_controller, port) = match controller(folder.path()) {
        Ok(started) => started,
        Err(why) => return support::skipped("power by a web service", &why),
    };
    let rule = HttpRule {
        routes: Vec::new(),
        need: "controller".parse().expect("a name"),
        hosts: vec!["127.0.0.1".parse().expect("a host")],
        ports: vec![port],
        networks: vec!["127.0.0.0/8".parse().expect("a network")],
        plain: true,
        tls_profiles: Vec::new(),
        secrets: Vec::new(),
    };
    let grant = Grant {
        http: vec![rule],
        ..Grant::default()
    };
    let action = |path: &str| json!({ "path": path });
    let config = json!({
        "url": format!("http://127.0.0.1:{port}"),
        "sign": true,
        "actions": {
            "on": { "path": "/outlets/{address}/power", "method": "PUT" },
            "off": { "path": "/outlets/{address}/power", "method": "PUT" },
            "cycle": action("/outlets/{address}/cycle"),
        },
        "observe": {
            "path": "/outlets/{address}", "state": "/relay/closed", "boot_mark": "/relay/changes",
            "states": { "true": "on", "false": "off" },
        },
        "poll": {
            "job": "/job", "path": "/jobs/{job}", "state": "/is",
            "running": ["busy"], "done": ["done"], "failed": ["failed"],
        },
    });
    let provider = Provider::load("power-webhook", grant, config, &[("signing", KEY)]).await;
    let plugin = &provider.plugin;
    let outlet = target("rack 1/7", json!({}));
    let seen = async || {
        plugin
            .power_observe(of(), outlet.clone())
            .await
            .expect("is seen")
    };
    let begin = async |action, attempt| {
        let mut asked = operation(action, None);
        asked.attempt = attempt;
        let begun = plugin.power_begin(of(), asked, outlet.clone()).await;
        begun.expect("begins")
    };

    assert_eq!(seen().await.state, State::Off);
    assert_eq!(begin(Action::On, 1).await, Begun::Done);
    assert_eq!(seen().await.state, State::On);
    assert!(matches!(begin(Action::On, 1).await, Begun::Already(_)));
    assert_eq!(begin(Action::Off, 2).await, Begun::Done);
    assert_eq!(seen().await.state, State::Off);

    // A job: asked after until it has ended. The same submission again is the same job.
    let before = seen().await.boot_mark;
    let Begun::Submitted(mut progress) = begin(Action::Cycle, 3).await else {
        panic!("the controller answers with a job");
    };
    let Begun::Submitted(again) = begin(Action::Cycle, 3).await else {
        panic!("the controller answers with a job");
    };
    assert_eq!(again.remote_id, progress.remote_id);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut steps = 0;
    loop {
        let asked = operation(Action::Cycle, None);
        let step = plugin.power_poll(of(), asked, outlet.clone(), progress.cursor.clone());
        steps += 1;
        match step.await.expect("goes on") {
            Step::Done => break,
            Step::Running(next) => progress = next,
        }
        assert!(tokio::time::Instant::now() < until, "the job does not end");
    }
    assert!(steps > 1, "it was under way when it was asked after first");
    let after = seen().await;
    assert_eq!(after.state, State::On);
    assert_ne!(after.boot_mark, before);

    let nowhere = plugin.power_observe(of(), target("rack 9/9", json!({})));
    assert_eq!(
        kind(&nowhere.await.expect_err("fails")),
        ErrorKind::NotFound
    );

    // Whoever signs with another key is turned away, and nothing happens.
    provider.replace_secret("signing", "another-key").await;
    let begun = plugin.power_begin(of(), operation(Action::Off, None), outlet.clone());
    assert_eq!(kind(&begun.await.expect_err("fails")), ErrorKind::Auth);
    provider.replace_secret("signing", KEY).await;
    assert_eq!(seen().await.state, State::On);
}
