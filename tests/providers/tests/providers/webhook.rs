//! `power-webhook` against a controller that somebody wrote in an afternoon: it checks signatures
//! with their time, does an action once for each key, and finishes jobs when it is asked.

use std::time::Duration;

use e2e::peers::outlet::{ADDRESS, KEY, Outlet};
use model::plugin::Grant;
use plugin_host::ports::ErrorKind;
use plugin_host::power::{Action, Begun, State, Step};

use crate::support::{self, Provider, of, operation, own_error, target};

#[tokio::test(flavor = "multi_thread")]
async fn a_controller_of_ones_own_takes_signed_requests_and_no_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let started = Outlet::start(folder.path());
    let Some(controller) = support::peer("power by a web service", started) else {
        return;
    };
    let grant = Grant {
        http: vec![support::http_rule("controller", controller.port, &[])],
        ..Grant::default()
    };
    let config = controller.configuration();
    let provider = Provider::load("power-webhook", grant, config, &[("signing", KEY)]).await;
    let plugin = &provider.plugin;
    let outlet = target(ADDRESS, serde_json::json!({}));
    let seen = async || {
        plugin
            .power_observe(of(), outlet.clone())
            .await
            .expect("is seen")
    };
    let begin = async |action, attempt| {
        let mut asked = operation(action, None);
        asked.attempt = attempt;
        let begun = plugin.power_begin(of(), asked, outlet.clone()).await;
        begun.expect("begins")
    };

    assert_eq!(seen().await.state, State::Off);
    assert_eq!(begin(Action::On, 1).await, Begun::Done);
    assert_eq!(seen().await.state, State::On);
    assert!(matches!(begin(Action::On, 1).await, Begun::Already(_)));
    assert_eq!(begin(Action::Off, 2).await, Begun::Done);
    assert_eq!(seen().await.state, State::Off);

    // A job: asked after until it has ended. The same submission again is the same job.
    let before = seen().await.boot_mark;
    let Begun::Submitted(mut progress) = begin(Action::Cycle, 3).await else {
        panic!("the controller answers with a job");
    };
    let Begun::Submitted(again) = begin(Action::Cycle, 3).await else {
        panic!("the controller answers with a job");
    };
    assert_eq!(again.remote_id, progress.remote_id);
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    let mut steps = 0;
    loop {
        let asked = operation(Action::Cycle, None);
        let step = plugin.power_poll(of(), asked, outlet.clone(), progress.cursor.clone());
        steps += 1;
        match step.await.expect("goes on") {
            Step::Done => break,
            Step::Running(next) => progress = next,
        }
        assert!(tokio::time::Instant::now() < until, "the job does not end");
    }
    assert!(steps > 1, "it was under way when it was asked after first");
    let after = seen().await;
    assert_eq!(after.state, State::On);
    assert_ne!(after.boot_mark, before);

    let nowhere = plugin.power_observe(of(), target("rack 9/9", serde_json::json!({})));
    assert_eq!(
        own_error(nowhere.await.expect_err("fails")).kind,
        ErrorKind::NotFound
    );

    // Whoever signs with another key is turned away, and nothing happens.
    provider.replace_secret("signing", "another-key").await;
    let begun = plugin.power_begin(of(), operation(Action::Off, None), outlet.clone());
    assert_eq!(
        own_error(begun.await.expect_err("fails")).kind,
        ErrorKind::Auth
    );
    provider.replace_secret("signing", KEY).await;
    assert_eq!(seen().await.state, State::On);
}
