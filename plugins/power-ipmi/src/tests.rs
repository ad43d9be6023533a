//! The provider against a controller that the test plays, with the same codec and real HMACs. That
//! the codec is that of real controllers is what its own tests and those against OpenIPMI's
//! simulator show.

mod controller;

use loopback_plugin_sdk::ErrorKind;
use loopback_plugin_sdk::power::{BootDevice, BootOnce, State};
use serde_json::json;

use super::*;
use controller::{Fault, Machine, Scene};

fn config() -> Config {
    serde_json::from_value(json!({ "user": "admin" })).unwrap()
}

fn target() -> Target {
    Target {
        host: "hst_1".into(),
        address: "bmc.example".into(),
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

fn begin(scene: &Scene, action: Action) -> Result<Begun, Error> {
    Ipmi::begin(scene, &config(), &operation(action), &target())
}

#[test]
fn a_machine_is_observed_and_the_session_ended() {
    for suite in [3, 17] {
        let scene = Scene::new(Machine {
            on: true,
            ..Machine::default()
        });
        let mut target = target();
        target.params = json!({ "cipher_suite": suite }).to_string();
        let seen = Ipmi::observe(&scene, &config(), &target).unwrap();
        assert_eq!((seen.state, seen.raw.as_str()), (State::On, "on"));
        assert_eq!(scene.opened(), ["bmc.example:623"]);
        assert_eq!(scene.machine().sessions_closed, 1);
    }
}

#[test]
fn every_action_is_told_once_by_its_number() {
    for (action, on, number) in [
        (Action::On, false, 1),
        (Action::Off, true, 0),
        (Action::Cycle, true, 2),
        (Action::Reset, true, 3),
        (Action::Nmi, true, 4),
        (Action::Shutdown, true, 5),
    ] {
        let scene = Scene::new(Machine {
            on,
            ..Machine::default()
        });
        assert!(
            matches!(begin(&scene, action), Ok(Begun::Done)),
            "{action:?}"
        );
        assert_eq!(scene.machine().told, [number], "{action:?}");
        assert_eq!(scene.machine().sessions_closed, 1);
    }
}

#[test]
fn what_is_so_already_is_not_told() {
    for (action, on) in [
        (Action::On, true),
        (Action::Off, false),
        (Action::Shutdown, false),
    ] {
        let scene = Scene::new(Machine {
            on,
            ..Machine::default()
        });
        let begun = begin(&scene, action).unwrap();
        assert!(matches!(begun, Begun::Already(_)), "{action:?}");
        assert!(scene.machine().told.is_empty());
    }
}

#[test]
fn a_lost_answer_to_an_action_is_not_asked_for_again() {
    let scene = Scene::new(Machine::default()).with(Fault::NoAnswerTo(2));
    let error = begin(&scene, Action::On).unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str()),
        (ErrorKind::Timeout, "ipmi.no_answer")
    );
    assert!(error.outcome_unknown);
    assert_eq!(scene.machine().told, [1]);
    // And what became of it is seen afterwards.
    let scene = Scene::new(Machine {
        on: true,
        ..Machine::default()
    });
    let resumed = |action| Ipmi::resume(&scene, &config(), &operation(action), &target()).unwrap();
    assert!(matches!(resumed(Action::On), Resumed::Done));
    assert!(matches!(resumed(Action::Off), Resumed::Unknown));
    assert!(matches!(resumed(Action::Cycle), Resumed::Unknown));
    assert!(scene.machine().told.is_empty());
}

#[test]
fn questions_are_asked_again_and_strangers_not_heard() {
    let scene = Scene::new(Machine {
        on: true,
        ..Machine::default()
    })
    .with(Fault::EverySecondIsLost)
    .with(Fault::Noise);
    let seen = Ipmi::observe(&scene, &config(), &target()).unwrap();
    assert_eq!(seen.state, State::On);
}

#[test]
fn silence_is_a_timeout_and_nothing_was_submitted() {
    let scene = Scene::new(Machine::default()).with(Fault::Silent);
    let error = begin(&scene, Action::On).unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str()),
        (ErrorKind::Timeout, "ipmi.no_answer")
    );
    assert!(!error.outcome_unknown);
}

#[test]
fn an_action_that_there_is_no_time_for_was_not_submitted() {
    let scene = Scene::new(Machine::default()).with(Fault::Slow(1_500));
    let error = begin(&scene, Action::On).unwrap_err();
    assert!(error.is_transient() && !error.outcome_unknown, "{error:?}");
    assert!(scene.machine().told.is_empty());
}

#[test]
fn each_refusal_says_whose_matter_it_is() {
    for (fault, kind, code) in [
        (Fault::Password("other"), ErrorKind::Auth, "ipmi.password"),
        (Fault::Status(0x12, 0x0d), ErrorKind::Auth, "ipmi.user"),
        (
            Fault::Status(0x12, 0x0a),
            ErrorKind::Forbidden,
            "ipmi.privilege",
        ),
        (Fault::Status(0x14, 0x0f), ErrorKind::Auth, "ipmi.password"),
        (Fault::Status(0x10, 0x01), ErrorKind::Busy, "ipmi.sessions"),
        (
            Fault::Status(0x10, 0x11),
            ErrorKind::Unsupported,
            "ipmi.cipher_suite",
        ),
        (
            Fault::Status(0x12, 0x02),
            ErrorKind::Upstream,
            "ipmi.handshake",
        ),
        (Fault::Version1, ErrorKind::Unsupported, "ipmi.version"),
        (
            Fault::Completion(0x3b, 0x81),
            ErrorKind::Forbidden,
            "ipmi.privilege",
        ),
        (Fault::Completion(1, 0xc0), ErrorKind::Busy, "ipmi.busy"),
        (
            Fault::Completion(2, 0xd4),
            ErrorKind::Forbidden,
            "ipmi.privilege",
        ),
        (
            Fault::Completion(2, 0xd5),
            ErrorKind::Conflict,
            "ipmi.state",
        ),
        (
            Fault::Completion(2, 0xcc),
            ErrorKind::Unsupported,
            "ipmi.unsupported",
        ),
        (Fault::Completion(2, 0xd2), ErrorKind::Busy, "ipmi.busy"),
    ] {
        let scene = Scene::new(Machine::default()).with(fault);
        let error = begin(&scene, Action::On).unwrap_err();
        assert_eq!((error.kind, error.code.as_str()), (kind, code), "{fault:?}");
        assert!(!error.outcome_unknown, "{fault:?}");
    }
}

#[test]
fn a_failure_without_a_reason_leaves_the_outcome_open() {
    for completion in [0xff, 0xc3, 0xce, 0x01] {
        let scene = Scene::new(Machine::default()).with(Fault::Completion(2, completion));
        let error = begin(&scene, Action::On).unwrap_err();
        assert!(
            error.outcome_unknown && error.is_transient(),
            "{completion:#x}"
        );
        assert_eq!(scene.machine().sessions_closed, 1);
    }
}

#[test]
fn what_the_next_boot_is_from_is_set_before_the_action() {
    let scene = Scene::new(Machine::default());
    let mut on = operation(Action::On);
    on.boot = Some(BootOnce {
        device: BootDevice::Network,
        url: None,
        uefi: None,
    });
    let begun = Ipmi::begin(&scene, &config(), &on, &target()).unwrap();
    assert!(matches!(begun, Begun::Done));
    assert_eq!(scene.machine().boot_flags, [0xa0, 0x04, 0, 0, 0]);
    assert_eq!(scene.machine().told, [1]);
    let seen = Ipmi::observe(&scene, &config(), &target()).unwrap();
    assert_eq!(seen.boot.unwrap().device, BootDevice::Network);

    let scene = Scene::new(Machine::default()).with(Fault::ForgetsBoot);
    let error = Ipmi::begin(&scene, &config(), &on, &target()).unwrap_err();
    assert_eq!(
        (error.code.as_str(), error.outcome_unknown),
        ("ipmi.boot_device", false)
    );
    assert!(scene.machine().told.is_empty());
}

#[test]
fn what_it_cannot_do_is_refused_before_anything_is_sent() {
    let scene = Scene::new(Machine::default());
    let error = begin(&scene, Action::Reboot).unwrap_err();
    assert_eq!(
        (error.kind, error.code.as_str()),
        (ErrorKind::Unsupported, "ipmi.action")
    );
    let mut on = operation(Action::On);
    on.boot = Some(BootOnce {
        device: BootDevice::Http,
        url: Some("http://boot.example/".into()),
        uefi: None,
    });
    let error = Ipmi::begin(&scene, &config(), &on, &target()).unwrap_err();
    assert_eq!(error.code, "ipmi.boot_device");
    let mut odd = target();
    for (params, code) in [
        (json!({ "user": "" }), "target.params"),
        (
            json!({ "user": "a-name-that-is-too-long" }),
            "target.params",
        ),
        (json!({ "cipher_suite": 0 }), "target.params"),
        (json!({ "password": "x" }), "target.params"),
        (json!({ "privilege": "root" }), "target.params"),
    ] {
        odd.params = params.to_string();
        let error = Ipmi::observe(&scene, &config(), &odd).unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (ErrorKind::Invalid, code),
            "{params}"
        );
    }
    assert!(scene.opened().is_empty());
}

#[test]
fn a_check_says_who_answers_and_what_has_no_effect() {
    let scene = Scene::new(Machine::default());
    let mut odd = target();
    odd.tls_profile = Some("bmc".into());
    let found = Ipmi::check_target(&scene, &config(), &odd).unwrap();
    assert_eq!(
        found[0].message,
        "IPMI 2.0, firmware 9.08, manufacturer 4753, product 3842"
    );
    assert_eq!(found[1].path, "/tls_profile");
}

#[test]
fn configurations_that_cannot_work_are_found() {
    for (config, path) in [
        (json!({ "cipher_suite": 0 }), "/cipher_suite"),
        (json!({ "user": "" }), "/user"),
        (json!({ "answer_ms": 50 }), "/answer_ms"),
        (json!({ "tries": 0 }), "/tries"),
        (json!({ "answer_ms": 5000, "tries": 2 }), "/tries"),
    ] {
        let read: Config = serde_json::from_value(config.clone()).unwrap();
        let found = Ipmi::check(&read);
        assert!(
            found.iter().any(|one| one.path == path),
            "{config}: {found:?}"
        );
    }
    assert!(Ipmi::check(&config()).is_empty());
}
