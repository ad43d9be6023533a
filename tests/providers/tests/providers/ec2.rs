//! `power-ec2` against moto, which checks signatures and permissions as AWS does.

use e2e::peers::ec2::{Ec2, Key, REGION};
use model::plugin::Grant;
use plugin_host::Severity;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, State};
use serde_json::json;

use crate::support::{self, Provider, of, operation, own_error, target};

async fn provider(cloud: &Ec2, (id, secret): &Key) -> Provider {
    let grant = Grant {
        http: vec![support::http_rule("api", cloud.port, &[])],
        ..Grant::default()
    };
    let config = json!({ "region": REGION, "endpoint": cloud.url });
    let secrets = [("access-key-id", &**id), ("secret-access-key", &**secret)];
    Provider::load("power-ec2", grant, config, &secrets).await
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_are_turned_on_and_off_with_signed_requests() {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(cloud) = support::peer("power of EC2 instances", Ec2::start(folder.path())) else {
        return;
    };
    let provider = provider(&cloud, &cloud.power).await;
    let plugin = &provider.plugin;
    let web = target(&cloud.ids[0], json!({}));
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
    let other = target(&cloud.ids[1], json!({}));
    let seen = plugin.power_observe(of(), other).await.expect("is seen");
    assert_eq!(seen.state, State::On);

    for address in [&*cloud.ids[2], "i-0123456789abcdef0"] {
        let gone = target(address, json!({}));
        let seen = plugin.power_observe(of(), gone.clone()).await;
        assert_eq!(seen.expect("is seen").state, State::Absent, "{address}");
        let begun = plugin.power_begin(of(), operation(Action::On, None), gone);
        assert_eq!(
            own_error(begun.await.expect_err("fails")).kind,
            ErrorKind::NotFound
        );
    }

    let page = plugin.power_discover(of(), None).await.expect("a page");
    let found: Vec<_> = page.found.iter().map(|one| one.address.as_str()).collect();
    assert_eq!(found, [&*cloud.ids[0], &*cloud.ids[1]]);
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
    let looks = self::provider(&cloud, &cloud.looks).await;
    let found = looks.plugin.power_check(of(), web.clone()).await;
    let found = found.expect("checks");
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|one| one.severity == Severity::Warning));
    let begun = looks
        .plugin
        .power_begin(of(), operation(Action::On, None), web.clone());
    assert_eq!(
        own_error(begun.await.expect_err("fails")).kind,
        ErrorKind::Forbidden
    );

    // The right key with the wrong secret signs wrongly.
    provider.replace_secret("secret-access-key", "wrong").await;
    let seen = plugin.power_observe(of(), web.clone()).await;
    assert_eq!(own_error(seen.expect_err("fails")).kind, ErrorKind::Auth);
}
