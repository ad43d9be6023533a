//! `power-ipmi` against OpenIPMI's simulator of a controller, which `ipmitool` finds to be as
//! expected first. The machine behind it is a script that keeps its power in a file and writes down
//! what it was told. The simulator does not hold users to their privilege, so refusals for want of
//! it are shown by the provider's own tests alone.

use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::product::Daemon;
use e2e::wait::{self, Look};
use e2e::{sh, tools};
use model::plugin::{DatagramRule, Grant};
use plugin_host::ports::{ErrorKind, GuestError};
use plugin_host::power::{Action, Begun, BootDevice, BootOnce, Resumed, State, Target};
use plugin_host::{CallError, Reason};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{self, Provider};

const MACHINE: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
shift
verb=$1
shift
[ "$verb" = get ] || echo "$verb $*" >> told
case $verb in
get)
    for what in "$@"; do
        case $what in
        power) echo "power:$(cat power)" ;;
        boot) echo "boot:$(cat boot)" ;;
        esac
    done
    ;;
set)
    while [ $# -gt 1 ]; do
        case $1 in power | boot) echo "$2" > "$1" ;; esac
        shift 2
    done
    ;;
esac
"#;

/// A controller, with its machine off.
struct Controller {
    folder: TempDir,
    port: u16,
    simulator: Daemon,
}

impl Controller {
    /// None, and said so, where it cannot be had.
    fn start(test: &str) -> Option<Self> {
        let needed = [
            tools::tool("ipmi_sim", "openipmi"),
            tools::tool("ipmitool", "ipmitool"),
        ];
        if let Err(why) = tools::ensure(&needed) {
            support::skipped(test, &why);
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let at = folder.path();
        let free = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let write = |name: &str, text: &str| fs::write(at.join(name), text).expect(name);
        write("machine", MACHINE);
        let runs = fs::Permissions::from_mode(0o755);
        fs::set_permissions(at.join("machine"), runs).expect("a script");
        write("power", "0\n");
        write("boot", "none\n");
        write("told", "");
        write("lan.conf", &settings(at, port));
        write(
            "sim.emu",
            "mc_setbmc 0x20\n\
             mc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
             mc_enable 0x20\n",
        );
        let mut command = Command::new("ipmi_sim");
        command.arg("-n").arg("-c").arg(at.join("lan.conf"));
        command.arg("-f").arg(at.join("sim.emu"));
        command.arg("-s").arg(at.join("state"));
        let log = at.join("log");
        let simulator = Daemon::start("ipmi_sim", command, &log).expect("starts");
        let controller = Self {
            folder,
            port,
            simulator,
        };
        wait::until("the simulator", Duration::from_secs(20), || {
            let said = controller.ipmitool(&["chassis", "power", "status"])?;
            let ready = said.contains("Chassis Power is off");
            Ok(Look::when(ready, || said + &controller.simulator.tail(5)))
        })
        .expect("a controller as others see it");
        Some(controller)
    }

    /// What the client that everybody uses sees.
    fn ipmitool(&self, words: &[&str]) -> anyhow::Result<String> {
        let port = self.port.to_string();
        let mut command = Command::new("ipmitool");
        command.args(["-I", "lanplus", "-C", "3", "-N", "1", "-R", "1"]);
        command.args(["-H", "127.0.0.1", "-p", &port]);
        command.args(["-U", "admin", "-P", "a-password", "-L", "OPERATOR"]);
        command.args(words);
        let output = sh::run(&mut command, Duration::from_secs(20))?;
        Ok(output.stdout + &output.stderr)
    }

    fn told(&self) -> String {
        fs::read_to_string(self.folder.path().join("told")).expect("written down")
    }

    fn target(&self, params: serde_json::Value) -> Target {
        support::target(&format!("127.0.0.1:{}", self.port), params)
    }
}

fn settings(folder: &Path, port: u16) -> String {
    let machine = folder.join("machine");
    format!(
        r#"name "bmc"
set_working_mc 0x20
  startlan 1
    addr 127.0.0.1 {port}
    priv_limit admin
    allowed_auths_callback none md2 md5 straight
    allowed_auths_user none md2 md5 straight
    allowed_auths_operator none md2 md5 straight
    allowed_auths_admin none md2 md5 straight
    guid a123456789abcdefa123456789abcdef
  endlan
  chassis_control "{machine} 0x20"
  user 2 true "admin" "a-password" admin 10 none md2 md5 straight
"#,
        machine = machine.display()
    )
}

async fn provider(port: u16, password: &str) -> Provider {
    let grant = Grant {
        datagrams: vec![DatagramRule {
            routes: Vec::new(),
            need: "bmc".parse().expect("a name"),
            networks: vec!["127.0.0.0/8".parse().expect("a network")],
            ports: vec![port],
        }],
        ..Grant::default()
    };
    let config = json!({ "user": "admin" });
    Provider::load("power-ipmi", grant, config, &[("password", password)]).await
}

fn own_error(error: CallError) -> GuestError {
    match error.reason {
        Reason::Guest(error) => error,
        other => panic!("no error of the plugin's own: {other}"),
    }
}

#[tokio::test]
async fn a_machine_is_turned_on_and_off_through_a_controller() {
    let Some(controller) = Controller::start("power-ipmi") else {
        return;
    };
    let ipmi = provider(controller.port, "a-password").await;
    let plugin = &ipmi.plugin;
    let target = controller.target(json!({}));
    let observe = || plugin.power_observe(support::of(), target.clone());
    let begin = |action, boot| {
        let operation = support::operation(action, boot);
        plugin.power_begin(support::of(), operation, target.clone())
    };

    let found = plugin.power_check(support::of(), target.clone()).await;
    let found = found.expect("checked");
    assert!(
        found[0].message.starts_with("IPMI 2.0, firmware 9.08"),
        "{found:?}"
    );
    assert_eq!(observe().await.expect("observed").state, State::Off);

    // Off when it is off is not told to the machine.
    let begun = begin(Action::Off, None).await.expect("begun");
    assert!(matches!(begun, Begun::Already(_)), "{begun:?}");
    assert_eq!(controller.told(), "");

    let network = BootOnce {
        device: BootDevice::Network,
        url: None,
        uefi: Some(false),
    };
    let begun = begin(Action::On, Some(network)).await.expect("begun");
    assert_eq!(begun, Begun::Done);
    assert_eq!(observe().await.expect("observed").state, State::On);
    let said = controller.ipmitool(&["chassis", "power", "status"]);
    assert!(said.expect("says").contains("Chassis Power is on"));
    let told = controller.told();
    assert!(told.contains("set boot pxe"), "{told}");
    assert_eq!(told.matches("set power 1").count(), 1, "{told}");

    let resumed = plugin
        .power_resume(
            support::of(),
            support::operation(Action::On, None),
            target.clone(),
        )
        .await;
    assert_eq!(resumed.expect("resumed"), Resumed::Done);

    for (action, told) in [
        (Action::Reset, "set reset 1"),
        (Action::Shutdown, "set shutdown 1"),
        (Action::Off, "set power 0"),
    ] {
        let begun = begin(action, None).await.expect("begun");
        assert_eq!(begun, Begun::Done, "{action:?}");
        let all = controller.told();
        assert_eq!(all.matches(told).count(), 1, "{action:?}: {all}");
    }
    assert_eq!(observe().await.expect("observed").state, State::Off);

    // More calls than a controller has sessions: each was ended.
    for _ in 0..40 {
        observe().await.expect("a session is left");
    }
}

#[tokio::test]
async fn wrong_credentials_and_silence_are_told_apart() {
    let Some(controller) = Controller::start("power-ipmi's refusals") else {
        return;
    };
    let target = |params| controller.target(params);
    let on = || support::operation(Action::On, None);
    let refused = async |ipmi: &Provider, target| {
        let begun = ipmi.plugin.power_begin(support::of(), on(), target).await;
        let error = own_error(begun.expect_err("refused"));
        assert!(!error.outcome_unknown, "{error}");
        (error.kind, error.code)
    };
    let known = |kind, code: &str| (kind, code.to_owned());
    let ipmi = provider(controller.port, "a-password").await;
    let suite = refused(&ipmi, target(json!({ "cipher_suite": 17 }))).await;
    assert_eq!(suite, known(ErrorKind::Unsupported, "ipmi.cipher_suite"));
    let nobody = refused(&ipmi, target(json!({ "user": "nobody" }))).await;
    assert_eq!(nobody, known(ErrorKind::Auth, "ipmi.user"));

    // One that was refused is not shown again until it is replaced.
    let ipmi = provider(controller.port, "another").await;
    let wrong = refused(&ipmi, target(json!({}))).await;
    assert_eq!(wrong, known(ErrorKind::Auth, "ipmi.password"));
    ipmi.replace_secret("password", "a-password").await;
    let seen = ipmi
        .plugin
        .power_observe(support::of(), target(json!({})))
        .await;
    assert_eq!(seen.expect("observed").state, State::Off);
    assert_eq!(controller.told(), "");

    // Somebody who says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let ipmi = provider(port, "a-password").await;
    let nobody = support::target(&format!("127.0.0.1:{port}"), json!({}));
    let begun = ipmi
        .plugin
        .power_begin(support::of(), on(), nobody.clone())
        .await;
    let error = own_error(begun.expect_err("silence"));
    assert_eq!(
        (error.kind, &*error.code),
        (ErrorKind::Timeout, "ipmi.no_answer")
    );
    assert!(!error.outcome_unknown);
    drop(silent);
    let begun = ipmi.plugin.power_begin(support::of(), on(), nobody).await;
    let error = own_error(begun.expect_err("nobody listens"));
    assert_eq!(error.kind, ErrorKind::Unreachable);
    assert!(!error.outcome_unknown);
}
