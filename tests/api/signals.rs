//! Events reach notifiers in order, after they were away, and never silently not at all.
//!
//! The notifier is played here; a real one is shown with plugins.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gateway::signal::delivery::{Event, Notifier, Notifiers};
use gateway_core::signal::Outcome;
use model::ids::WorkspaceId;
use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::{TestGateway, until};

/// A receiver that is up, down, or does not want some.
#[derive(Default)]
struct Played {
    down: Mutex<bool>,
    got: Mutex<Vec<Event>>,
    attempts: Mutex<u32>,
    wants_tokens: Mutex<bool>,
}

impl Played {
    fn enable_in(gateway: &TestGateway, name: &str) -> Arc<Self> {
        let played = Arc::new(Self::default());
        *played.wants_tokens.lock().expect("nobody panics") = true;
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
            let wanted = *self.wants_tokens.lock().expect("nobody panics");
            if event.event.kind == "audit.agent_token.create" && !wanted {
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
    let _: Value = gateway
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

async fn owner(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Value {
    let owner = gateway.owner.clone();
    gateway
        .expect(&owner, method, path, body, 200)
        .await
        .expect("nothing in the way")
}

const LETTERS: &str = "/v1/plugins/pager/dead-letters";

/// A gateway with a notifier that has given up this many events, whose ids are in order.
async fn with_dead_letters(count: usize) -> (TestGateway, Arc<Played>, Vec<String>) {
    let gateway = TestGateway::start().await.expect("nothing in the way");
    let workspace = gateway
        .workspace("prod", Environment::Production)
        .await
        .expect("nothing in the way")
        .id;
    let receiver = Played::enable_in(&gateway, "pager");
    *receiver.wants_tokens.lock().expect("nobody panics") = false;
    is_enabled(&gateway, "pager").await;
    for number in 0..count {
        token(&gateway, workspace, &format!("number {number}")).await;
    }
    let given_up = || {
        let tables = gateway.app.catalog.read();
        let sink = tables.sinks.get(&"pager".parse().expect("a name"));
        sink.is_some_and(|sink| sink.dead == count as u64)
    };
    until("all to be given up", given_up)
        .await
        .expect("nothing in the way");
    let page = owner(&gateway, "GET", LETTERS, None).await;
    let ids = page["items"].as_array().expect("a list").iter();
    let ids: Vec<_> = ids
        .map(|letter| letter["event"].as_str().expect("an id").to_owned())
        .collect();
    assert_eq!(ids.len(), count, "{page}");
    (gateway, receiver, ids)
}

fn ids_of(receiver: &Played) -> Vec<String> {
    let got = receiver.got.lock().expect("nobody panics");
    let tokens = got
        .iter()
        .filter(|event| event.event.kind == "audit.agent_token.create");
    tokens.map(|event| event.id.clone()).collect()
}

async fn audited(gateway: &TestGateway, action: &str) -> Vec<Value> {
    let page = owner(gateway, "GET", "/v1/audit?limit=1000", None).await;
    let entries = page["items"].as_array().expect("a list").iter();
    let entries = entries.map(|item| {
        let body = item["body"].as_str().expect("a text");
        serde_json::from_str::<Value>(body).expect("JSON")
    });
    entries.filter(|entry| entry["action"] == action).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_page_by_page_with_why() {
    let (gateway, _receiver, ids) = with_dead_letters(3).await;
    let first = owner(&gateway, "GET", &format!("{LETTERS}?limit=2"), None).await;
    assert_eq!(first["items"][0]["event"], ids[0]);
    assert_eq!(first["items"][0]["kind"], "audit.agent_token.create");
    assert_eq!(first["items"][0]["code"], "http.400");
    assert_eq!(first["items"][0]["sequence"], 1);
    let after = first["next"].as_str().expect("there is more");
    let rest = owner(&gateway, "GET", &format!("{LETTERS}?after={after}"), None).await;
    assert_eq!(rest["items"].as_array().expect("a list").len(), 1);
    assert_eq!(rest["items"][0]["event"], ids[2]);
    assert_eq!(rest["next"], Value::Null);
    let nobody = gateway
        .call(
            &gateway.owner,
            "GET",
            "/v1/plugins/nobody/dead-letters",
            None,
        )
        .await
        .expect("nothing in the way");
    assert_eq!(nobody.status, 404, "{}", nobody.body);
}

#[tokio::test]
async fn dead_letters_are_delivered_again_in_order_with_their_ids() {
    let (gateway, receiver, ids) = with_dead_letters(3).await;
    let path = format!("{LETTERS}/redeliver");
    // The receiver does not want them still.
    let came = owner(&gateway, "POST", &path, Some(json!({}))).await;
    assert_eq!(came["delivered"], json!([]));
    let failed = json!({ "event": ids[0], "code": "http.400" });
    assert_eq!(came["failed"][0], failed);
    assert_eq!(came["failed"].as_array().expect("a list").len(), 3);

    // Away: the first failure ends it, nothing overtakes.
    *receiver.down.lock().expect("nobody panics") = true;
    let came = owner(&gateway, "POST", &path, Some(json!({}))).await;
    assert_eq!(came["more"], true, "{came}");
    *receiver.down.lock().expect("nobody panics") = false;

    *receiver.wants_tokens.lock().expect("nobody panics") = true;
    let one = Some(json!({ "event": ids[1] }));
    let came = owner(&gateway, "POST", &path, one.clone()).await;
    assert_eq!(came["delivered"], json!([ids[1]]));
    let came = owner(&gateway, "POST", &path, Some(json!({}))).await;
    assert_eq!(came["delivered"], json!([ids[0], ids[2]]));
    assert_eq!(came["more"], false);
    let expected = [&ids[1], &ids[0], &ids[2]].map(Clone::clone);
    assert_eq!(ids_of(&receiver), expected);
    let page = owner(&gateway, "GET", LETTERS, None).await;
    assert_eq!(page["items"], json!([]));
    let entries = audited(&gateway, "plugin.dead_letter.redeliver").await;
    assert_eq!(entries.len(), 4, "{entries:?}");
    let gone = gateway
        .call(&gateway.owner, "POST", &path, one)
        .await
        .expect("nothing in the way");
    assert_eq!(gone.status, 404, "{}", gone.body);
}

#[tokio::test]
async fn dead_letters_are_thrown_away_when_somebody_says_so() {
    let (gateway, receiver, ids) = with_dead_letters(3).await;
    let path = format!("{LETTERS}/discard");
    let one = Some(json!({ "event": ids[1] }));
    let came = owner(&gateway, "POST", &path, one).await;
    assert_eq!(came, json!({ "discarded": 1, "more": false }));
    let page = owner(&gateway, "GET", LETTERS, None).await;
    assert_eq!(page["items"][1]["event"], ids[2]);
    let came = owner(&gateway, "POST", &path, Some(json!({}))).await;
    assert_eq!(came["discarded"], 2);
    let entries = audited(&gateway, "plugin.dead_letter.discard").await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert!(ids_of(&receiver).is_empty());
}

#[tokio::test]
async fn dead_letters_of_another_notifier_are_left_alone() {
    let (gateway, _receiver, ids) = with_dead_letters(1).await;
    let other = Played::enable_in(&gateway, "pager-2");
    is_enabled(&gateway, "pager-2").await;
    for action in ["redeliver", "discard"] {
        let path = format!("/v1/plugins/pager-2/dead-letters/{action}");
        owner(&gateway, "POST", &path, Some(json!({}))).await;
    }
    assert!(ids_of(&other).is_empty());
    let page = owner(&gateway, "GET", LETTERS, None).await;
    assert_eq!(page["items"][0]["event"], ids[0]);
}
