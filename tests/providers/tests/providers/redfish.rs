//! Redfish against sushy-emulator, over TLS with a certificate that only its key vouches for.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::lab::Place;
use e2e::peers::redfish::{PASSWORD, Redfish, Setup, System};
use model::plugin::{Grant, Pin, TlsProfile};
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, BootDevice, BootOnce, State, Target};
use serde_json::json;

use crate::support::{self, Provider, of, operation, own_error, target};

const FIRST: &str = "5d1f8f1e-0000-4000-8000-000000000001";
const SECOND: &str = "5d1f8f1e-0000-4000-8000-000000000002";

/// It takes up to eleven seconds to apply what it was told.
const APPLIED: Duration = Duration::from_secs(60);

/// Nothing, loudly, where it cannot be had.
fn start(folder: &Path) -> Option<Redfish> {
    let system = |uuid, name, mac| System {
        uuid,
        name,
        state: "Off",
        mac,
    };
    let started = Redfish::start(Setup {
        folder,
        place: &Place::Here,
        address: (Ipv4Addr::LOCALHOST, None),
        systems: &[
            system(FIRST, "first", "52:54:00:AB:00:01"),
            system(SECOND, "second", "52:54:00:AB:00:02"),
        ],
        notices: None,
    });
    support::peer("the Redfish provider against sushy-emulator", started)
}

fn target_of(emulator: &Redfish, system: &str) -> Target {
    let mut target = target(&emulator.url(), json!({ "system": system }));
    target.tls_profile = Some("bmc".to_owned());
    target
}

/// May speak with it, if its key is this.
fn grant(emulator: &Redfish, pin: &str) -> Grant {
    let mut rule = support::http_rule("controllers", emulator.port, &["password"]);
    rule.plain = false;
    rule.tls_profiles = vec!["bmc".parse().expect("a name")];
    let mut grant = Grant {
        http: vec![rule],
        ..Grant::default()
    };
    let profile = TlsProfile::Keys(vec![Pin(pin.to_owned())]);
    grant
        .tls_profiles
        .insert("bmc".parse().expect("a name"), profile);
    // What the manifest asks for.
    grant.limits.http_requests = 100;
    grant.limits.wall_ms = 30_000;
    grant
}

async fn provider(emulator: &Redfish) -> Provider {
    let discover = json!([{ "address": emulator.url(), "tls_profile": "bmc" }]);
    let config = json!({ "discover": discover });
    let secrets = [("password", PASSWORD)];
    Provider::load(
        "power-redfish",
        grant(emulator, &emulator.pin),
        config,
        &secrets,
    )
    .await
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
    let folder = tempfile::tempdir().expect("a folder");
    let Some(emulator) = start(folder.path()) else {
        return;
    };
    let provider = provider(&emulator).await;
    let target = target_of(&emulator, FIRST);

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
    let error = own_error(cycle.expect_err("is not offered"));
    assert_eq!(error.kind, ErrorKind::Unsupported);

    begin(&provider, &target, Action::Off, None).await;
    becomes(&provider, &target, State::Off).await;
    let again = begin(&provider, &target, Action::Off, None).await;
    assert!(matches!(again, Begun::Already(_)), "{again:?}");
}

#[tokio::test]
async fn machines_are_found_with_their_network_cards() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(emulator) = start(folder.path()) else {
        return;
    };
    let provider = provider(&emulator).await;
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
    let mut either = target_of(&emulator, FIRST);
    either.params = "{}".to_owned();
    let error = provider.plugin.power_observe(of(), either).await;
    let error = error.expect_err("which one?").to_string();
    assert!(error.contains("2 systems"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_and_a_wrong_key_are_told_apart() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(emulator) = start(folder.path()) else {
        return;
    };
    let provider = provider(&emulator).await;
    provider.replace_secret("password", "wrong-horse-8").await;
    let target = target_of(&emulator, FIRST);
    let reset = operation(Action::On, None);
    let refused = provider
        .plugin
        .power_begin(of(), reset, target.clone())
        .await;
    let refused = refused.expect_err("the password is wrong");
    let refused = own_error(refused);
    assert_eq!(refused.kind, ErrorKind::Auth);
    assert!(!refused.outcome_unknown);
    assert!(!format!("{refused:?}").contains("wrong-horse-8"));

    let other = "00".repeat(32);
    let secrets = [("password", PASSWORD)];
    let grant = grant(&emulator, &other);
    let provider = Provider::load("power-redfish", grant, json!({}), &secrets).await;
    let refused = provider.plugin.power_observe(of(), target).await;
    let refused = refused.expect_err("the key is another");
    let refused = own_error(refused);
    assert_eq!(refused.code, "http.tls_untrusted", "{refused:?}");
}
