//! `power-hetzner` against cloudalone, a small cloud behind the same API.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::product::Daemon;
use e2e::sh;
use e2e::tools::{self, Missing, tool};
use model::plugin::{Grant, HttpRule};
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, Resumed, State, Step};
use plugin_host::{CallError, Reason};
use serde_json::json;

use crate::support::{self, Provider, of, operation, target};

const CLOUDALONE: &str = "0.2.0";
const TOKEN: &str = "a-token-of-this-test";

/// The cloud, and the ids of its servers.
struct Cloud {
    port: u16,
    ids: Vec<u64>,
    _cloud: Daemon,
    _home: tempfile::TempDir,
}

fn cloud() -> Result<Cloud, Missing> {
    let program = cloudalone()?;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    let home = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .env("CLOUDALONE_CONFIG", home.path().join("none.toml"))
        .env("CLOUDALONE_BACKEND", "stub")
        .env("CLOUDALONE_TOKEN", TOKEN)
        .env("CLOUDALONE_HOST", "127.0.0.1")
        .env("CLOUDALONE_PORT", port.to_string())
        .env("CLOUDALONE_HOME", home.path())
        .env("CLOUDALONE_DB", home.path().join("db.sqlite"));
    let mut running =
        Daemon::start("cloudalone", command, &home.path().join("log")).expect("cloudalone starts");
    let ready = |line: &str| line.contains("running on");
    running
        .wait_line(ready, Duration::from_secs(60))
        .expect("cloudalone is ready");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let script = script.join("tests/providers/hetzner_servers.py");
    let output = Command::new(program.with_file_name("python"))
        .arg(script)
        .args([&format!("http://127.0.0.1:{port}/v1"), TOKEN])
        .output()
        .expect("python runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        running.tail(20)
    );
    Ok(Cloud {
        port,
        ids: serde_json::from_slice(&output.stdout).expect("JSON"),
        _cloud: running,
        _home: home,
    })
}

/// Cloudalone in an environment of its own. It needs a newer Python than Debian 12 has, and is
/// built against libvirt, which the test does not use.
fn cloudalone() -> Result<PathBuf, Missing> {
    let home = support::peers().join(format!("cloudalone-{CLOUDALONE}"));
    let program = home.join("bin/cloudalone");
    if program.exists() {
        return Ok(program);
    }
    let python = python()?;
    if std::env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        let why = "cloudalone is not installed, and LOOPBACK_NO_INSTALL is set";
        return Err(Missing(why.to_owned()));
    }
    tools::ensure(&[
        tool("pkg-config", "pkg-config"),
        tool("/usr/include/libvirt/libvirt.h", "libvirt-dev"),
    ])?;
    let folder = home.display().to_string();
    let pip = home.join("bin/pip").display().to_string();
    let wanted = format!("cloudalone=={CLOUDALONE}");
    // With a later sqlalchemy this version does not start.
    let packages = [&pip, "install", "--quiet", &wanted, "sqlalchemy<2.1"];
    let venv = [&python, "-m", "venv", "--clear", &folder];
    sh::ok(&venv, Duration::from_secs(120))
        .and_then(|_| sh::ok(&packages, Duration::from_secs(400)))
        .map_err(|error| Missing(format!("cloudalone cannot be installed: {error:#}")))?;
    Ok(program)
}

/// A Python that cloudalone runs with: the system's, or one that pyenv keeps.
fn python() -> Result<String, Missing> {
    let new = "import sys; sys.exit(sys.version_info < (3, 12)); ";
    let limit = Duration::from_secs(20);
    let kept = sh::ok(&["pyenv", "root"], limit).unwrap_or_default();
    let kept = std::fs::read_dir(PathBuf::from(kept.trim()).join("versions"));
    let kept = kept.into_iter().flatten().flatten();
    let kept = kept.map(|entry| entry.path().join("bin/python3").display().to_string());
    let mut all = ["python3", "python3.13", "python3.12"]
        .map(str::to_owned)
        .to_vec();
    all.extend(kept);
    all.into_iter()
        .find(|python| sh::ok(&[python, "-c", new], limit).is_ok())
        .ok_or_else(|| Missing("cloudalone needs Python 3.12, and there is none".to_owned()))
}

impl Cloud {
    async fn provider(&self) -> Provider {
        let rule = HttpRule {
            routes: Vec::new(),
            need: "api".parse().expect("a name"),
            hosts: vec!["127.0.0.1".parse().expect("a host")],
            ports: vec![self.port],
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            plain: true,
            tls_profiles: Vec::new(),
            secrets: vec!["token".parse().expect("a name")],
        };
        let grant = Grant {
            http: vec![rule],
            ..Grant::default()
        };
        let config = json!({ "endpoint": format!("http://127.0.0.1:{}/v1", self.port) });
        Provider::load("power-hetzner", grant, config, &[("token", TOKEN)]).await
    }
}

fn kind(error: &CallError) -> ErrorKind {
    match &error.reason {
        Reason::Guest(own) => own.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_turned_on_and_off_and_actions_followed_to_their_end() {
    let cloud = match cloud() {
        Ok(cloud) => cloud,
        Err(why) => return support::skipped("power of Hetzner Cloud servers", &why),
    };
    let provider = cloud.provider().await;
    let plugin = &provider.plugin;
    let web = target(&cloud.ids[0].to_string(), json!({}));
    let state = async || {
        let seen = plugin.power_observe(of(), web.clone()).await;
        seen.expect("is seen").state
    };
    // Submits, and asks after it until it has happened.
    let done = async |action: Action| {
        let asked = operation(action, None);
        let begun = plugin.power_begin(of(), asked.clone(), web.clone()).await;
        let mut cursor = match begun.expect("begins") {
            Begun::Submitted(progress) => progress.cursor,
            Begun::Done => return,
            Begun::Already(seen) => panic!("{action:?}: {seen:?}"),
        };
        let until = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let step = plugin.power_poll(of(), asked.clone(), web.clone(), cursor);
            match step.await.expect("goes on") {
                Step::Done => return,
                Step::Running(progress) => cursor = progress.cursor,
            }
            assert!(
                tokio::time::Instant::now() < until,
                "{action:?} does not end"
            );
        }
    };

    let found = plugin.power_check(of(), web.clone()).await;
    assert_eq!(found.expect("checks"), []);
    assert_eq!(state().await, State::On);
    let begun = plugin.power_begin(of(), operation(Action::On, None), web.clone());
    assert!(matches!(begun.await.expect("begins"), Begun::Already(_)));
    done(Action::Reboot).await;
    done(Action::Reset).await;
    assert_eq!(state().await, State::On);
    done(Action::Shutdown).await;
    assert_eq!(state().await, State::Off);
    let begun = plugin.power_begin(of(), operation(Action::Off, None), web.clone());
    assert!(matches!(begun.await.expect("begins"), Begun::Already(_)));
    done(Action::On).await;
    assert_eq!(state().await, State::On);
    done(Action::Off).await;
    assert_eq!(state().await, State::Off);

    // Nothing is under way, and it is where it was to go; of a reboot nobody knows.
    for (action, wanted) in [
        (Action::Off, Resumed::Done),
        (Action::Reboot, Resumed::Unknown),
    ] {
        let resumed = plugin.power_resume(of(), operation(action, None), web.clone());
        assert_eq!(resumed.await.expect("resumes"), wanted);
    }

    let gone = target("4711", json!({}));
    let seen = plugin.power_observe(of(), gone.clone()).await;
    assert_eq!(seen.expect("is seen").state, State::Absent);
    let begun = plugin.power_begin(of(), operation(Action::On, None), gone);
    assert_eq!(kind(&begun.await.expect_err("fails")), ErrorKind::NotFound);

    // More than one page, and each server once.
    let (mut all, mut next) = (Vec::new(), None);
    loop {
        let page = plugin.power_discover(of(), next.clone()).await;
        let page = page.expect("a page");
        all.extend(page.found.into_iter().map(|one| one.address));
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    let ids: Vec<_> = cloud.ids.iter().map(u64::to_string).collect();
    assert_eq!(all, ids);

    provider.replace_secret("token", "another-token").await;
    let seen = plugin.power_observe(of(), web.clone()).await;
    assert_eq!(kind(&seen.expect_err("fails")), ErrorKind::Auth);
}
