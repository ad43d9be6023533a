use loopback_plugin_sdk::ErrorKind;
use loopback_plugin_sdk::power::{BootDevice, BootOnce};
use loopback_plugin_sdk::testing::FakeHost;

use super::*;

const CONFIG: Config = Config { packets: 2 };

fn target(address: &str) -> Target {
    Target {
        host: "hst_1".into(),
        address: address.into(),
        params: "{}".into(),
        tls_profile: None,
        route: None,
    }
}

fn operation(action: Action) -> Operation {
    Operation {
        id: "pop_1".into(),
        attempt: 1,
        action,
        boot: None,
        deadline_ms: 0,
        before: None,
    }
}

#[test]
fn every_card_of_a_machine_is_woken_and_nothing_is_claimed() {
    let host = FakeHost::at(0);
    let target = target("AA:bb:cc:dd:ee:02, 02-00-00-00-00-01");
    let begun = Wol::begin(&host, &CONFIG, &operation(Action::On), &target).unwrap();
    assert!(matches!(begun, Begun::Done));
    let once = ["aa:bb:cc:dd:ee:02", "02:00:00:00:00:01"];
    assert_eq!(host.woken(), [once, once].concat());
}

#[test]
fn it_says_that_it_sees_nothing() {
    let host = FakeHost::at(0);
    let target = target("aa:bb:cc:dd:ee:02");
    let support = Wol::inspect(&host, &CONFIG, &target).unwrap();
    assert!(!support.observable && !support.cancellable);
    let actions: Vec<_> = support.actions.iter().map(|one| one.action).collect();
    assert_eq!(actions, [Action::On]);
    let seen = Wol::observe(&host, &CONFIG, &target).unwrap();
    assert_eq!(seen.state, State::Unknown);
}

#[test]
fn what_it_cannot_do_it_refuses_before_anything_is_sent() {
    for action in [
        Action::Off,
        Action::Shutdown,
        Action::Reboot,
        Action::Reset,
        Action::Cycle,
        Action::Nmi,
    ] {
        let host = FakeHost::at(0);
        let target = target("aa:bb:cc:dd:ee:02");
        let error = Wol::begin(&host, &CONFIG, &operation(action), &target).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported, "{action:?}");
        assert!(!error.outcome_unknown && host.woken().is_empty());
    }
    let host = FakeHost::at(0);
    let mut on = operation(Action::On);
    on.boot = Some(BootOnce {
        device: BootDevice::Network,
        url: None,
        uefi: None,
    });
    let error = Wol::begin(&host, &CONFIG, &on, &target("aa:bb:cc:dd:ee:02")).unwrap_err();
    assert_eq!(error.code, "wol.boot");
    assert!(host.woken().is_empty());
}

#[test]
fn addresses_that_wake_nobody_are_refused() {
    for bad in [
        "",
        "10.0.0.1",
        "aa:bb:cc:dd:ee",
        "aa:bb:cc:dd:ee:ff:00",
        "a:bb:cc:dd:ee:ff",
        "+a:bb:cc:dd:ee:ff",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "aa:bb:cc:dd:ee:00,",
        "é:bb:cc:dd:ee:ff",
    ] {
        let error = Wol::check_target(&FakeHost::at(0), &CONFIG, &target(bad)).unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (ErrorKind::Invalid, "target.address"),
            "{bad}"
        );
    }
    let many = ["aa:bb:cc:dd:ee:00"; 17].join(",");
    assert!(cards(&target(&many)).is_err());
}

#[test]
fn params_and_a_tls_profile_have_nothing_to_say() {
    let host = FakeHost::at(0);
    let mut odd = target("aa:bb:cc:dd:ee:00");
    odd.tls_profile = Some("bmc".into());
    let found = Wol::check_target(&host, &CONFIG, &odd).unwrap();
    assert_eq!(found[0].path, "/tls_profile");
    odd.params = r#"{"port":7}"#.into();
    let error = Wol::check_target(&host, &CONFIG, &odd).unwrap_err();
    assert_eq!(error.code, "target.params");
}

#[test]
fn how_often_is_within_bounds() {
    assert!(Wol::check(&CONFIG).is_empty());
    assert_eq!(Wol::check(&Config { packets: 0 })[0].path, "/packets");
    assert_eq!(Wol::check(&Config { packets: 11 })[0].path, "/packets");
}
