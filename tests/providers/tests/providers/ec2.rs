//! `power-ec2` against moto, which checks signatures and permissions as AWS does.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use e2e::product::Daemon;
use e2e::tools;
use model::plugin::{Grant, HttpRule};
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, State};
use plugin_host::{CallError, Reason, Severity};
use serde_json::{Value, json};

use crate::support::{self, Provider, of, operation, target};

const MOTO: &str = "5.2.5";
const REGION: &str = "eu-central-1";

/// The emulator with an account in it.
struct Cloud {
    url: String,
    made: Value,
    _moto: Daemon,
    _log: tempfile::TempDir,
}

fn cloud() -> Result<Cloud, tools::Missing> {
    let moto = tools::packaged("moto_server", "moto[server]", MOTO, &support::peers())?;
    let port = free_port();
    let log = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(&moto);
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
    let mut running = Daemon::start("moto", command, &log.path().join("log")).expect("moto starts");
    let ready = |line: &str| line.contains("Running on");
    running
        .wait_line(ready, Duration::from_secs(60))
        .expect("moto is ready");
    let url = format!("http://127.0.0.1:{port}");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/providers/ec2_account.py");
    // Its own, which has what the script needs; the system's where moto was installed into that.
    let own = moto.with_file_name("python");
    let python = if own.exists() { own } else { "python3".into() };
    let output = Command::new(python)
        .arg(script)
        .args([&url, REGION])
        .output()
        .expect("python runs");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        running.tail(20)
    );
    Ok(Cloud {
        url,
        made: serde_json::from_slice(&output.stdout).expect("JSON"),
        _moto: running,
        _log: log,
    })
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

impl Cloud {
    async fn provider(&self, key: &Value) -> Provider {
        let port = self.url.rsplit(':').next().expect("a port");
        let rule = HttpRule {
            routes: Vec::new(),
            need: "api".parse().expect("a name"),
            hosts: vec!["127.0.0.1".parse().expect("a host")],
            ports: vec![port.parse().expect("a port")],
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            plain: true,
            tls_profiles: Vec::new(),
            secrets: Vec::new(),
        };
        let grant = Grant {
            http: vec![rule],
            ..Grant::default()
        };
        let config = json!({ "region": REGION, "endpoint": self.url });
        let secret = |at: usize| key[at].as_str().expect("a text");
        let secrets = [
            ("access-key-id", secret(0)),
            ("secret-access-key", secret(1)),
        ];
        Provider::load("power-ec2", grant, config, &secrets).await
    }

    fn id(&self, at: usize) -> &str {
        self.made["ids"][at].as_str().expect("an id")
    }
}

fn kind(error: &CallError) -> ErrorKind {
    match &error.reason {
        Reason::Guest(own) => own.kind,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_turned_on_and_off_with_signed_requests() {
    let cloud = match cloud() {
        Ok(cloud) => cloud,
        Err(why) => return support::skipped("power of EC2 instances", &why),
    };
    let provider = cloud.provider(&cloud.made["power"]).await;
    let plugin = &provider.plugin;
    let web = target(cloud.id(0), json!({}));
    let state = async || {
        let seen = plugin.power_observe(of(), web.clone()).await;
        let seen = seen.expect("is seen");
        assert!(seen.boot_mark.is_some());
        (seen.state, seen.raw)
    };
    let begin = async |action| {
        let begun = plugin.power_begin(of(), operation(action, None), web.clone());
        begun.await.expect("begins")
    };

    // Permissions are rehearsed, and nothing changes by it.
    let found = plugin.power_check(of(), web.clone()).await.expect("checks");
    assert_eq!(found, []);
    assert_eq!(state().await, (State::On, "running".to_owned()));

    assert!(matches!(begin(Action::On).await, Begun::Already(_)));
    assert_eq!(begin(Action::Reboot).await, Begun::Done);
    assert_eq!(state().await.0, State::On);
    assert_eq!(begin(Action::Shutdown).await, Begun::Done);
    assert_eq!(state().await, (State::Off, "stopped".to_owned()));
    assert!(matches!(begin(Action::Off).await, Begun::Already(_)));
    assert_eq!(begin(Action::On).await, Begun::Done);
    assert_eq!(state().await.0, State::On);
    assert_eq!(begin(Action::Off).await, Begun::Done);
    assert_eq!(state().await.0, State::Off);
    let found = plugin.power_check(of(), web.clone()).await.expect("checks");
    assert_eq!(found, []);
    assert_eq!(state().await.0, State::Off);

    // The other instance was left alone.
    let other = target(cloud.id(1), json!({}));
    let seen = plugin.power_observe(of(), other).await.expect("is seen");
    assert_eq!(seen.state, State::On);

    for address in [cloud.id(2), "i-0123456789abcdef0"] {
        let gone = target(address, json!({}));
        let seen = plugin.power_observe(of(), gone.clone()).await;
        assert_eq!(seen.expect("is seen").state, State::Absent, "{address}");
        let begun = plugin.power_begin(of(), operation(Action::On, None), gone);
        assert_eq!(kind(&begun.await.expect_err("fails")), ErrorKind::NotFound);
    }

    let page = plugin.power_discover(of(), None).await.expect("a page");
    let found: Vec<_> = page.found.iter().map(|one| one.address.as_str()).collect();
    assert_eq!(found, [cloud.id(0), cloud.id(1)]);
    assert_eq!(page.next, None);
    assert_eq!(page.found[0].state, State::Off);
    assert_eq!(page.found[0].name, "web <1> & more");
    assert_eq!(page.found[0].macs.len(), 1);
    let listed = target(
        &page.found[1].address,
        serde_json::from_str(&page.found[1].params).expect("JSON"),
    );
    let seen = plugin.power_observe(of(), listed).await.expect("is seen");
    assert_eq!(seen.state, State::On);

    // A key that may only look is told of before anything is asked of it.
    let looks = cloud.provider(&cloud.made["looks"]).await;
    let found = looks.plugin.power_check(of(), web.clone()).await;
    let found = found.expect("checks");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|one| one.severity == Severity::Warning));
    let begun = looks
        .plugin
        .power_begin(of(), operation(Action::On, None), web.clone());
    assert_eq!(kind(&begun.await.expect_err("fails")), ErrorKind::Forbidden);

    // The right key with the wrong secret signs wrongly.
    provider.replace_secret("secret-access-key", "wrong").await;
    let seen = plugin.power_observe(of(), web.clone()).await;
    assert_eq!(kind(&seen.expect_err("fails")), ErrorKind::Auth);
}
