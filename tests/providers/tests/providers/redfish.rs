//! Redfish against sushy-emulator, which OpenStack tests its own client with: over TLS with a
//! certificate that only its key vouches for, and with basic authentication. It applies what it was
//! told some seconds later, as controllers do.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::{product::Daemon, tools};
use model::plugin::{Grant, HttpRule, Pin, TlsProfile};
use plugin_host::Reason;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, BootDevice, BootOnce, State, Target};
use rcgen::{CertificateParams, KeyPair, PublicKeyData as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::support::{self, Provider, of, operation, target};

const SUSHY_TOOLS: &str = "2.2.0";
const PASSWORD: &str = "correct-horse-7";
/// Of that password: four rounds, since every request is checked.
const HTPASSWD: &str = "admin:$2b$04$VpEUZ9FnqtDm636WQl.SquN5NhGEzxyFyRTdhoBfFKmjq/WW.NxiG\n";

const FIRST: &str = "5d1f8f1e-0000-4000-8000-000000000001";
const SECOND: &str = "5d1f8f1e-0000-4000-8000-000000000002";

/// It takes up to eleven seconds to apply what it was told.
const APPLIED: Duration = Duration::from_secs(60);

/// An emulator that runs.
struct Emulator {
    _daemon: Daemon,
    _folder: tempfile::TempDir,
    port: u16,
    /// SHA-256 of its public key.
    pin: String,
}

impl Emulator {
    /// Nothing, loudly, where it cannot be had.
    fn start() -> Option<Self> {
        let peer = tools::packaged(
            "sushy-emulator",
            "sushy-tools",
            SUSHY_TOOLS,
            &support::peers(),
        );
        match peer {
            Ok(program) => Some(Self::launch(&program).expect("the emulator starts")),
            Err(why) => {
                support::skipped("the Redfish provider against sushy-emulator", &why);
                None
            }
        }
    }

    fn launch(program: &Path) -> Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let at = |name: &str| folder.path().join(name);
        let key = KeyPair::generate().context("make a key")?;
        let certificate = CertificateParams::new(vec!["bmc.test".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .context("sign a certificate")?;
        std::fs::write(at("cert.pem"), certificate.pem())?;
        std::fs::write(at("key.pem"), key.serialize_pem())?;
        std::fs::write(at("htpasswd"), HTPASSWD)?;
        std::fs::create_dir(at("state"))?;
        let digest = Sha256::digest(key.subject_public_key_info());
        let pin = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        // Free when it was asked for; whoever takes it meanwhile makes the emulator end at once.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let system = |uuid: &str, name: &str, mac: &str| {
            format!(
                "{{'uuid': '{uuid}', 'name': '{name}', 'power_state': 'Off', \
                 'nics': [{{'mac': '{mac}', 'ip': '192.0.2.7'}}]}}"
            )
        };
        let systems = [
            system(FIRST, "first", "52:54:00:AB:00:01"),
            system(SECOND, "second", "52:54:00:AB:00:02"),
        ]
        .join(", ");
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\n\
             SUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_AUTH_FILE = '{}'\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\n\
             SUSHY_EMULATOR_SSL_CERT = '{}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{}'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{systems}]\n",
            at("htpasswd").display(),
            at("state").display(),
            at("cert.pem").display(),
            at("key.pem").display(),
        );
        std::fs::write(at("config.py"), config)?;
        let mut command = Command::new(program);
        command.arg("--config").arg(at("config.py"));
        let mut daemon = Daemon::start("sushy-emulator", command, &at("log"))?;
        daemon.wait_line(|line| line.contains("Running on"), Duration::from_secs(60))?;
        Ok(Self {
            _daemon: daemon,
            _folder: folder,
            port,
            pin,
        })
    }

    fn address(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    fn target(&self, system: &str) -> Target {
        let mut target = target(&self.address(), json!({ "system": system }));
        target.tls_profile = Some("bmc".to_owned());
        target
    }

    /// May speak with it, if its key is this.
    fn grant(&self, pin: &str) -> Grant {
        let rule = HttpRule {
            routes: Vec::new(),
            need: "controllers".parse().expect("a name"),
            hosts: vec!["127.0.0.1".parse().expect("a host")],
            ports: vec![self.port],
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            plain: false,
            tls_profiles: vec!["bmc".parse().expect("a name")],
            secrets: vec!["password".parse().expect("a name")],
        };
        let profile = TlsProfile::Keys(vec![Pin(pin.to_owned())]);
        let mut grant = Grant {
            http: vec![rule],
            ..Grant::default()
        };
        grant
            .tls_profiles
            .insert("bmc".parse().expect("a name"), profile);
        // What the manifest asks for.
        grant.limits.http_requests = 100;
        grant.limits.wall_ms = 30_000;
        grant
    }

    async fn provider(&self) -> Provider {
        let discover = json!([{ "address": self.address(), "tls_profile": "bmc" }]);
        let config = json!({ "discover": discover });
        let secrets = [("password", PASSWORD)];
        Provider::load("power-redfish", self.grant(&self.pin), config, &secrets).await
    }

    /// What its own page says of a system, by another client.
    fn says(&self, system: &str) -> Result<serde_json::Value> {
        tools::ensure(&[tools::tool("curl", "curl")])?;
        let output = Command::new("curl")
            .args(["--silent", "--insecure", "--user"])
            .arg(format!("admin:{PASSWORD}"))
            .arg(format!("{}/redfish/v1/Systems/{system}", self.address()))
            .output()?;
        ensure!(output.status.success(), "curl ended with {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

async fn becomes(provider: &Provider, target: &Target, wanted: State) {
    let begun = Instant::now();
    loop {
        let seen = provider.plugin.power_observe(of(), target.clone()).await;
        let seen = seen.expect("is observed");
        if seen.state == wanted {
            return;
        }
        assert!(begun.elapsed() < APPLIED, "still {}", seen.raw);
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

async fn begin(
    provider: &Provider,
    target: &Target,
    action: Action,
    boot: Option<BootOnce>,
) -> Begun {
    let begun = provider
        .plugin
        .power_begin(of(), operation(action, boot), target.clone())
        .await;
    begun.unwrap_or_else(|error| panic!("{action:?}: {error}"))
}

#[tokio::test]
async fn a_machine_is_turned_on_restarted_and_off() {
    let Some(emulator) = Emulator::start() else {
        return;
    };
    let provider = emulator.provider().await;
    let target = emulator.target(FIRST);

    let support = provider.plugin.power_inspect(of(), target.clone()).await;
    let support = support.expect("is inspected");
    let actions: Vec<_> = support.actions.iter().map(|it| it.action).collect();
    // It offers no PowerCycle, so that there is none.
    assert_eq!(
        actions,
        [
            Action::On,
            Action::Shutdown,
            Action::Off,
            Action::Reboot,
            Action::Reset,
            Action::Nmi,
        ]
    );
    assert!(support.boot_devices.contains(&BootDevice::Network));
    becomes(&provider, &target, State::Off).await;

    let network = BootOnce {
        device: BootDevice::Network,
        url: None,
        uefi: Some(true),
    };
    let begun = begin(&provider, &target, Action::On, Some(network)).await;
    assert!(matches!(begun, Begun::Done), "{begun:?}");
    let page = emulator.says(FIRST).expect("its page");
    assert_eq!(page["Boot"]["BootSourceOverrideTarget"], "Pxe");
    assert_eq!(page["Boot"]["BootSourceOverrideMode"], "UEFI");
    becomes(&provider, &target, State::On).await;
    let other = emulator.says(SECOND).expect("its page");
    assert_eq!(other["PowerState"], "Off", "the other one was let alone");

    let again = begin(&provider, &target, Action::On, None).await;
    assert!(matches!(again, Begun::Already(_)), "{again:?}");
    let reset = begin(&provider, &target, Action::Reset, None).await;
    assert!(matches!(reset, Begun::Done), "{reset:?}");
    let cycle = operation(Action::Cycle, None);
    let cycle = provider
        .plugin
        .power_begin(of(), cycle, target.clone())
        .await;
    let error = cycle.expect_err("is not offered");
    assert!(matches!(&error.reason, Reason::Guest(own) if own.kind == ErrorKind::Unsupported));

    begin(&provider, &target, Action::Off, None).await;
    becomes(&provider, &target, State::Off).await;
    let again = begin(&provider, &target, Action::Off, None).await;
    assert!(matches!(again, Begun::Already(_)), "{again:?}");
}

#[tokio::test]
async fn machines_are_found_with_their_network_cards() {
    let Some(emulator) = Emulator::start() else {
        return;
    };
    let provider = emulator.provider().await;
    let page = provider.plugin.power_discover(of(), None).await;
    let page = page.expect("a page");
    assert_eq!(page.next, None);
    let mut found: Vec<_> = page
        .found
        .iter()
        .map(|it| (it.name.as_str(), it.macs.clone(), it.serial.as_deref()))
        .collect();
    found.sort();
    assert_eq!(
        found,
        [
            ("first", vec!["52:54:00:ab:00:01".to_owned()], Some(FIRST)),
            ("second", vec!["52:54:00:ab:00:02".to_owned()], Some(SECOND)),
        ]
    );
    // What is found can be a target as it is.
    let mut found = target(&page.found[0].address, json!({}));
    found.params.clone_from(&page.found[0].params);
    found.tls_profile = Some("bmc".to_owned());
    becomes(&provider, &found, State::Off).await;
    // And a controller with two systems must be told which.
    let mut either = emulator.target(FIRST);
    either.params = "{}".to_owned();
    let error = provider.plugin.power_observe(of(), either).await;
    let error = error.expect_err("which one?").to_string();
    assert!(error.contains("2 systems"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_key_are_told_apart() {
    let Some(emulator) = Emulator::start() else {
        return;
    };
    let provider = emulator.provider().await;
    provider.replace_secret("password", "wrong-horse-8").await;
    let target = emulator.target(FIRST);
    let reset = operation(Action::On, None);
    let refused = provider
        .plugin
        .power_begin(of(), reset, target.clone())
        .await;
    let refused = refused.expect_err("the password is wrong");
    let Reason::Guest(refused) = refused.reason else {
        panic!("{refused}")
    };
    assert_eq!(refused.kind, ErrorKind::Auth);
    assert!(!refused.outcome_unknown);
    assert!(!format!("{refused:?}").contains("wrong-horse-8"));

    let other = "00".repeat(32);
    let secrets = [("password", PASSWORD)];
    let grant = emulator.grant(&other);
    let provider = Provider::load("power-redfish", grant, json!({}), &secrets).await;
    let refused = provider.plugin.power_observe(of(), target).await;
    let refused = refused.expect_err("the key is another");
    let Reason::Guest(refused) = refused.reason else {
        panic!("{refused}")
    };
    assert_eq!(refused.code, "http.tls_untrusted", "{refused:?}");
}
