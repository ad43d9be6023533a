//! Events reach notifiers in order, after they were away, and never silently not at all.
//!
//! The notifier is played here; a real one is shown with plugins.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gateway::signal::delivery::{Event, Notifier, Notifiers};
use gateway_core::signal::Outcome;
use model::ids::WorkspaceId;
use model::tenancy::Environment;
use serde_json::json;
use tests::{TestGateway, until};

/// A receiver that is up, down, or does not want some.
#[derive(Default)]
struct Played {
    down: Mutex<bool>,
    got: Mutex<Vec<Event>>,
    attempts: Mutex<u32>,
}

impl Played {
    fn enable_in(gateway: &TestGateway, name: &str) -> Arc<Self> {
        let played = Arc::new(Self::default());
        let notifier: Arc<dyn Notifier> = Arc::clone(&played) as _;
        let mut notifiers = gateway.app.notifiers.borrow().clone().unwrap_or_default();
        notifiers.insert(name.parse().expect("a name"), notifier);
        gateway.app.notifiers.send_replace(Some(notifiers));
        played
    }

    fn kinds(&self) -> Vec<String> {
        let got = self.got.lock().expect("nobody panics");
        got.iter().map(|event| event.event.kind.clone()).collect()
    }
}

#[async_trait]
impl Notifier for Played {
    fn covers(&self, _: Option<WorkspaceId>) -> bool {
        true
    }

    async fn deliver(&self, events: Vec<Event>) -> Vec<Outcome> {
        *self.attempts.lock().expect("nobody panics") += 1;
        if *self.down.lock().expect("nobody panics") {
            let code = "connection_refused".to_owned();
            return vec![Outcome::Again { code, after: None }];
        }
        let mut got = self.got.lock().expect("nobody panics");
        let outcomes = events.iter().map(|event| {
            if event.event.body.contains("poison") {
                let code = "http.400".to_owned();
                return Outcome::Hopeless { code };
            }
            got.push(event.clone());
            Outcome::Delivered
        });
        outcomes.collect()
    }
}

async fn is_enabled(gateway: &TestGateway, name: &str) {
    let known = || {
        gateway
            .app
            .catalog
            .read()
            .sinks
            .contains_key(&name.parse().expect("a name"))
    };
    until("the notifier to have its place", known)
        .await
        .expect("nothing in the way");
}

async fn token(gateway: &TestGateway, workspace: WorkspaceId, description: &str) {
    let path = format!("/v1/workspaces/{workspace}/agent-tokens");
    let body = Some(json!({ "description": description }));
    let owner = gateway.owner.clone();
    let _: serde_json::Value = gateway
        .expect(&owner, "POST", &path, body, 201)
        .await
        .expect("nothing in the way");
}

#[tokio::test]
async fn events_wait_for_a_receiver_that_is_away_and_come_in_order() {
    let mut gateway = TestGateway::start().await.expect("nothing in the way");
    let workspace = gateway
        .workspace("prod", Environment::Production)
        .await
        .expect("nothing in the way")
        .id;
    let receiver = Played::enable_in(&gateway, "pager");
    is_enabled(&gateway, "pager").await;
    *receiver.down.lock().expect("nothing in the way") = true;
    for number in 0..3 {
        token(&gateway, workspace, &format!("number {number}")).await;
    }
    let tried = || *receiver.attempts.lock().expect("nothing in the way") > 0;
    until("a first attempt", tried)
        .await
        .expect("nothing in the way");

    // They outlive the gateway.
    gateway.restart().await.expect("nothing in the way");
    assert_eq!(gateway.app.catalog.read().signals.len(), 3);
    let receiver = Played::enable_in(&gateway, "pager");
    until("all to be there", || receiver.kinds().len() == 3)
        .await
        .expect("nothing in the way");
    assert_eq!(receiver.kinds(), ["audit.agent_token.create"; 3]);
    let got = receiver.got.lock().expect("nothing in the way").clone();
    assert_eq!(
        got.iter().map(|event| event.sequence).collect::<Vec<_>>(),
        [1, 2, 3]
    );
    assert_eq!(got[0].workspace.as_deref(), Some("main"));
    assert!(
        got.windows(2)
            .all(|pair| pair[0].event.at <= pair[1].event.at)
    );
    until("the queue to be empty", || {
        gateway.app.catalog.read().signals.is_empty()
    })
    .await
    .expect("nothing in the way");
}

#[tokio::test]
async fn a_slow_notifier_holds_nobody_else_up() {
    let gateway = TestGateway::start().await.expect("nothing in the way");
    let workspace = gateway
        .workspace("prod", Environment::Production)
        .await
        .expect("nothing in the way")
        .id;
    let down = Played::enable_in(&gateway, "down");
    *down.down.lock().expect("nothing in the way") = true;
    let up = Played::enable_in(&gateway, "up");
    is_enabled(&gateway, "up").await;
    is_enabled(&gateway, "down").await;
    token(&gateway, workspace, "one").await;
    until("the other to have it", || up.kinds().len() == 1)
        .await
        .expect("nothing in the way");
    assert_eq!(
        gateway.app.catalog.read().signals.len(),
        1,
        "it waits for the one that is down"
    );
    *down.down.lock().expect("nothing in the way") = false;
    until("the first to have it, too", || down.kinds().len() == 1)
        .await
        .expect("nothing in the way");
}

#[tokio::test]
async fn nothing_waits_while_nobody_is_to_be_told() {
    let gateway = TestGateway::start().await.expect("nothing in the way");
    let workspace = gateway
        .workspace("prod", Environment::Production)
        .await
        .expect("nothing in the way")
        .id;
    token(&gateway, workspace, "one").await;
    assert!(gateway.app.catalog.read().signals.is_empty());
    let receiver = Played::enable_in(&gateway, "pager");
    is_enabled(&gateway, "pager").await;
    token(&gateway, workspace, "two").await;
    until("the second", || receiver.kinds().len() == 1)
        .await
        .expect("nothing in the way");
    // Disabled: forgotten, with what it did not get.
    gateway.app.notifiers.send_replace(Some(Notifiers::new()));
    until("it to be forgotten", || {
        gateway.app.catalog.read().sinks.is_empty()
    })
    .await
    .expect("nothing in the way");
}
