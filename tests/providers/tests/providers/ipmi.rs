//! `power-ipmi` against OpenIPMI's simulator of a controller. The simulator does not hold users to
//! their privilege, so refusals for want of it are shown by the provider's own tests alone.

use std::net::UdpSocket;

use e2e::peers::ipmi::{Ipmi, PASSWORD};
use model::plugin::{DatagramRule, Grant};
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, BootDevice, BootOnce, Resumed, State, Target};
use serde_json::json;

use crate::support::{self, Provider, own_error};

fn target_of(controller: &Ipmi, params: serde_json::Value) -> Target {
    support::target(&format!("127.0.0.1:{}", controller.port), params)
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

#[tokio::test]
async fn a_machine_is_turned_on_and_off_through_a_controller() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Ipmi::start(folder.path());
    let Some(controller) = support::peer("power-ipmi", started) else {
        return;
    };
    let ipmi = provider(controller.port, PASSWORD).await;
    let plugin = &ipmi.plugin;
    let target = target_of(&controller, json!({}));
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
    assert_eq!(controller.told().expect("written down"), "");

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
    let told = controller.told().expect("written down");
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
        let all = controller.told().expect("written down");
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
    let folder = tempfile::tempdir().expect("a folder");
    let started = Ipmi::start(folder.path());
    let Some(controller) = support::peer("power-ipmi's refusals", started) else {
        return;
    };
    let target = |params| target_of(&controller, params);
    let on = || support::operation(Action::On, None);
    let refused = async |ipmi: &Provider, target| {
        let begun = ipmi.plugin.power_begin(support::of(), on(), target).await;
        let error = own_error(begun.expect_err("refused"));
        assert!(!error.outcome_unknown, "{error}");
        (error.kind, error.code)
    };
    let known = |kind, code: &str| (kind, code.to_owned());
    let ipmi = provider(controller.port, PASSWORD).await;
    let suite = refused(&ipmi, target(json!({ "cipher_suite": 17 }))).await;
    assert_eq!(suite, known(ErrorKind::Unsupported, "ipmi.cipher_suite"));
    let nobody = refused(&ipmi, target(json!({ "user": "nobody" }))).await;
    assert_eq!(nobody, known(ErrorKind::Auth, "ipmi.user"));

    // One that was refused is not shown again until it is replaced.
    let ipmi = provider(controller.port, "another").await;
    let wrong = refused(&ipmi, target(json!({}))).await;
    assert_eq!(wrong, known(ErrorKind::Auth, "ipmi.password"));
    ipmi.replace_secret("password", PASSWORD).await;
    let seen = ipmi
        .plugin
        .power_observe(support::of(), target(json!({})))
        .await;
    assert_eq!(seen.expect("observed").state, State::Off);
    assert_eq!(controller.told().expect("written down"), "");

    // Somebody who says nothing.
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = silent.local_addr().expect("bound").port();
    let ipmi = provider(port, PASSWORD).await;
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
