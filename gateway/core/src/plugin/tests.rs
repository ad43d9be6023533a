use std::collections::BTreeSet;

use model::Timestamp;
use model::plugin::{Grant, PluginDigest, PluginKind, Workspaces, widening};
use proptest::prelude::*;

use super::*;

/// Needs and grants are sets of three secrets, which is all that their shape matters here.
fn package(number: u8, minor: u8, secrets: u8) -> Package {
    let needs: Vec<_> = (0..3)
        .filter(|bit| secrets & (1 << bit) != 0)
        .map(|bit| format!(r#"{{"name":"s{bit}","purpose":"p"}}"#))
        .collect();
    Package {
        digest: PluginDigest::of(&[number]),
        kind: PluginKind::Notifier,
        name: "hook".parse().expect("a name"),
        version: format!("1.{minor}.0"),
        needs: model_json(&format!(r#"{{"secrets":[{}]}}"#, needs.join(","))),
    }
}

fn grant(secrets: u8, needs: u8) -> Grant {
    let workspace = "wsp_00000000000000000000000000";
    let secrets: Vec<_> = (0..3)
        .filter(|bit| secrets & needs & (1 << bit) != 0)
        .map(|bit| format!(r#""s{bit}":{{"workspace":"{workspace}","secret":"x"}}"#))
        .collect();
    let grant: Grant = model_json(&format!(r#"{{"secrets":{{{}}}}}"#, secrets.join(",")));
    Grant {
        workspaces: Workspaces::All,
        ..grant
    }
}

fn model_json<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_str(text).expect(text)
}

#[derive(Clone, Debug)]
enum Step {
    Upgrade(u8, u8, u8, bool),
    Approve(u8, bool),
    Rollback(bool),
    Grant(u8),
    Configure,
    Enable,
    Disable,
    Quarantine,
}

fn step() -> impl Strategy<Value = Step> {
    let accepts = any::<bool>();
    prop_oneof![
        (0..6u8, 0..4u8, 0..8u8, accepts).prop_map(|(n, v, s, a)| Step::Upgrade(n, v, s, a)),
        (0..6u8, accepts).prop_map(|(n, a)| Step::Approve(n, a)),
        accepts.prop_map(Step::Rollback),
        (0..8u8).prop_map(Step::Grant),
        Just(Step::Configure),
        Just(Step::Enable),
        Just(Step::Disable),
        Just(Step::Quarantine),
    ]
}

fn accepts(yes: bool) -> Accepts {
    if yes { Accepts::Yes } else { Accepts::No }
}

proptest! {
    #[test]
    fn what_runs_was_seen_is_granted_and_configured(steps in prop::collection::vec(step(), 0..40)) {
        let mut plugin = Plugin::installed(package(0, 0, 1));
        // Digests that an operator has seen with the needs that they have.
        let mut seen = BTreeSet::from([plugin.present.digest]);
        for step in steps {
            let before = plugin.clone();
            let after = match step.clone() {
                Step::Upgrade(number, minor, secrets, yes) => {
                    plugin.upgrade(package(number, minor, secrets), accepts(yes)).map(|(it, how)| {
                        if how == Upgraded::Live {
                            assert_eq!(widening(&before.present.needs, &it.present.needs), []);
                            assert!(!older(&it.present.version, &before.present.version));
                            seen.insert(it.present.digest);
                        } else {
                            assert_eq!(it.present, before.present);
                        }
                        it
                    })
                }
                Step::Approve(number, yes) => {
                    let digest = PluginDigest::of(&[number]);
                    plugin.approve(digest, accepts(yes)).inspect(|_| { seen.insert(digest); })
                }
                Step::Rollback(yes) => plugin.rollback(accepts(yes)),
                Step::Grant(secrets) => {
                    let needs = plugin.present.needs.secrets.iter().fold(0u8, |bits, need| {
                        bits | 1 << need.name.as_str()[1..].parse::<u8>().expect("a number")
                    });
                    plugin.granted(grant(secrets, needs))
                }
                Step::Configure => Ok(plugin.configured()),
                Step::Enable => plugin.enable(),
                Step::Disable => Ok(plugin.disable()),
                Step::Quarantine => Ok(plugin.quarantine("it fails".into(), Timestamp::from_millis(1))),
            };
            plugin = after.unwrap_or(before);
            prop_assert!(seen.contains(&plugin.present.digest), "{step:?}");
            if plugin.enabled() {
                prop_assert_eq!(plugin.ungranted(), [], "{:?}", step);
                prop_assert_eq!(plugin.accepted_by, Some(plugin.present.digest), "{:?}", step);
                prop_assert!(plugin.removable().is_err());
            }
            if let Some(pending) = &plugin.pending {
                prop_assert!(pending.package.digest != plugin.present.digest, "{:?}", step);
            }
        }
    }
}

fn ready() -> Plugin {
    let plugin = Plugin::installed(package(0, 1, 1));
    let plugin = plugin.granted(grant(1, 1)).expect("a grant");
    plugin.configured().enable().expect("nothing is missing")
}

#[test]
fn an_upgrade_that_needs_more_waits_and_what_runs_goes_on() {
    let (held, how) = ready()
        .upgrade(package(1, 2, 3), Accepts::Yes)
        .expect("it is taken");
    assert_eq!(how, Upgraded::Held);
    assert_eq!(held.present, package(0, 1, 1));
    assert!(held.enabled());
    let pending = held.pending.clone().expect("it waits");
    assert_eq!(pending.widening[0].need, "needs.secrets.s1");

    let other = PluginDigest::of(b"other");
    assert!(matches!(
        held.clone().approve(other, Accepts::Yes),
        Err(Refusal::OtherPending { .. })
    ));
    let digest = pending.package.digest;
    assert!(
        matches!(
            held.clone().approve(digest, Accepts::Yes),
            Err(Refusal::Ungranted(_))
        ),
        "what is enabled cannot run without what it needs"
    );
    let granted = held.granted(grant(3, 3)).expect("for what waits");
    let live = granted
        .approve(digest, Accepts::Yes)
        .expect("it is approved");
    assert_eq!(live.present.digest, digest);
    let back = live.rollback(Accepts::Yes).expect("there was one before");
    assert_eq!(back.present, package(0, 1, 1));
}

#[test]
fn an_upgrade_that_cannot_run_does_not_replace_what_runs() {
    let (held, how) = ready()
        .upgrade(package(1, 2, 1), Accepts::No)
        .expect("it is taken");
    assert_eq!(how, Upgraded::Held);
    let pending = held.pending.expect("it waits");
    assert_eq!(pending.widening, [], "it needs no more");
}

#[test]
fn what_is_something_else_or_older_is_no_upgrade() {
    let other = Package {
        name: "other".parse().expect("a name"),
        ..package(1, 2, 1)
    };
    assert!(matches!(
        ready().upgrade(other, Accepts::Yes),
        Err(Refusal::Another { .. })
    ));
    assert!(matches!(
        ready().upgrade(package(1, 0, 1), Accepts::Yes),
        Err(Refusal::Downgrade { .. })
    ));
    assert_eq!(
        ready().upgrade(package(0, 2, 1), Accepts::Yes),
        Err(Refusal::SameDigest)
    );
}

#[test]
fn versions_have_their_order() {
    let sorted = [
        "0.9.0",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0",
        "1.2.0",
        "1.10.0",
    ];
    for pair in sorted.windows(2) {
        assert!(older(pair[0], pair[1]), "{pair:?}");
        assert!(!older(pair[1], pair[0]), "{pair:?}");
    }
    assert!(!older("1.0.0", "1.0.0"));
}

#[test]
fn a_grant_answers_needs_and_nothing_else() {
    let needs = package(0, 1, 1).needs;
    let fault = |text: &str| {
        let grant: Grant = model_json(text);
        check_grant(&grant, &[&needs]).map_err(|fault| fault.to_string())
    };
    let binding = r#"{"workspace":"wsp_00000000000000000000000000","secret":"x"}"#;
    assert_eq!(
        fault(&format!(r#"{{"secrets":{{"s0":{binding}}}}}"#)),
        Ok(())
    );
    let table = [
        (
            format!(r#"{{"secrets":{{"s1":{binding}}}}}"#),
            "secrets.s1: the plugin has no such need",
        ),
        (
            r#"{"secrets":{"s0":{"workspace":"wsp_00000000000000000000000000","secret":"x","reveal":true}}}"#.into(),
            "secrets.s0: the plugin does not ask to read this secret",
        ),
        (
            r#"{"http":[{"need":"hook","hosts":["a.example.com"]}]}"#.into(),
            "http.hook: the plugin has no such need",
        ),
        (r#"{"limits":{"cpu_ms":1}}"#.into(), "limits.cpu_ms: must be 10 to 60000"),
        (r#"{"tls_profiles":{"p":{"keys":["AB"]}}}"#.into(), "tls_profiles.p: a key is pinned"),
        (
            r#"{"routes":{"r":{"workspace":"wsp_00000000000000000000000000"}}}"#.into(),
            "routes.r: name hosts, or give a selector",
        ),
        (
            r#"{"routes":{"r":{"workspace":"wsp_00000000000000000000000000","selector":" "}}}"#.into(),
            "routes.r: an empty selector is every host",
        ),
        (
            r#"{"routes":{"r":{"workspace":"wsp_00000000000000000000000000","selector":"=x"}}}"#.into(),
            "routes.r: cannot read selector term 1",
        ),
    ];
    for (text, wanted) in table {
        let said = fault(&text).expect_err(&text);
        assert!(said.starts_with(wanted), "{said}");
    }
}
