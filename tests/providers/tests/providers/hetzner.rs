//! `power-hetzner` against cloudalone, a small cloud behind the same API.

use std::time::Duration;

use e2e::peers::hetzner::{Hetzner, TOKEN};
use model::plugin::Grant;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, Resumed, State, Step};
use serde_json::json;

use crate::support::{self, Provider, of, operation, own_error, target};

async fn provider(cloud: &Hetzner) -> Provider {
    let grant = Grant {
        http: vec![support::http_rule("api", cloud.port, &["token"])],
        ..Grant::default()
    };
    let config = json!({ "endpoint": cloud.url() });
    Provider::load("power-hetzner", grant, config, &[("token", TOKEN)]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_are_turned_on_and_off_and_actions_followed_to_their_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Hetzner::start(folder.path());
    let Some(cloud) = support::peer("power of Hetzner Cloud servers", started) else {
        return;
    };
    let provider = provider(&cloud).await;
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
    assert_eq!(
        own_error(begun.await.expect_err("fails")).kind,
        ErrorKind::NotFound
    );

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
    assert_eq!(own_error(seen.expect_err("fails")).kind, ErrorKind::Auth);
}
