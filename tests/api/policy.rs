//! What policies allow, deny, and let others decide; and breaking the glass.
//!
//! The policy is played here; that plugins are asked the same way is shown with real ones.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use gateway::policy::{Policy, Request};
use gateway_core::policy::{Answer, Reason, Verdict};
use model::ids::WorkspaceId;
use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

/// Answers what it was told to, and remembers what it was asked.
#[derive(Default)]
struct Played {
    answer: Mutex<Option<Answer>>,
    asked: Mutex<Vec<Arc<Request>>>,
}

impl Played {
    fn enabled_in(gateway: &TestGateway) -> Arc<Self> {
        let played = Arc::new(Self::default());
        let policy: Arc<dyn Policy> = Arc::clone(&played) as _;
        let policies = BTreeMap::from([("window".parse().expect("a name"), policy)]);
        gateway.app.policies.set(policies);
        played
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().expect("nobody panics") = Some(answer);
    }

    fn last(&self) -> Arc<Request> {
        Arc::clone(
            self.asked
                .lock()
                .expect("nobody panics")
                .last()
                .expect("it was asked"),
        )
    }

    fn times(&self) -> usize {
        self.asked.lock().expect("nobody panics").len()
    }
}

#[async_trait]
impl Policy for Played {
    fn covers(&self, _: WorkspaceId) -> bool {
        true
    }

    async fn decide(&self, request: Arc<Request>) -> Answer {
        self.asked.lock().expect("nobody panics").push(request);
        let answer = self.answer.lock().expect("nobody panics").clone();
        answer.unwrap_or(Answer::Said(Verdict::Abstain))
    }
}

fn reason(code: &str, message: &str) -> Reason {
    Reason {
        code: code.into(),
        message: message.into(),
    }
}

struct Story {
    gateway: TestGateway,
    policy: Arc<Played>,
    tokens: String,
    workspace: WorkspaceId,
}

impl Story {
    async fn begin() -> Self {
        let gateway = TestGateway::start().await.expect("nothing in the way");
        let workspace = gateway
            .workspace("prod", Environment::Production)
            .await
            .expect("nothing in the way")
            .id;
        let policy = Played::enabled_in(&gateway);
        let tokens = format!("/v1/workspaces/{workspace}/agent-tokens");
        Self {
            gateway,
            policy,
            tokens,
            workspace,
        }
    }

    async fn make(&self, key: &str, headers: &[(&str, &str)]) -> tests::Answer {
        let body = Some(json!({ "description": "for a rack" }));
        let made = self
            .gateway
            .call_with(key, "POST", &self.tokens, body, headers);
        made.await.expect("nothing in the way")
    }

    async fn actions(&self) -> Vec<String> {
        let path = format!("/v1/workspaces/{}/audit?limit=1000", self.workspace);
        let owner = &self.gateway.owner;
        let page: Value = self
            .gateway
            .expect(owner, "GET", &path, None, 200)
            .await
            .expect("nothing in the way");
        let items = page["items"].as_array().expect("nothing in the way").iter();
        items
            .map(|item| {
                let entry: Value =
                    serde_json::from_str(item["body"].as_str().expect("nothing in the way"))
                        .expect("nothing in the way");
                entry["action"].as_str().unwrap_or_default().to_owned()
            })
            .collect()
    }
}

#[tokio::test]
async fn a_policy_is_asked_about_changes_and_not_about_reading() {
    let story = Story::begin().await;
    let owner = story.gateway.owner.clone();
    let _: Value = story
        .gateway
        .expect(&owner, "GET", &story.tokens, None, 200)
        .await
        .expect("nothing in the way");
    assert_eq!(story.policy.times(), 0);
    assert_eq!(
        story
            .make(&owner, &[("x-loopback-ticket", "CHG-7")])
            .await
            .status,
        201
    );
    let asked = story.policy.last();
    assert_eq!(
        asked.action.as_str(),
        "project.workspace.agent_token.create"
    );
    assert_eq!(asked.ticket.as_deref(), Some("CHG-7"));
    assert_eq!(
        (asked.subject.name.as_str(), &asked.subject.roles),
        ("owner", &vec!["owner".to_owned()])
    );
    let target = &asked.targets[0];
    assert_eq!(
        (target.kind, target.name.as_str(), target.environment),
        ("workspace", "main", Environment::Production)
    );
    // What concerns the deployment is not a policy's matter: whoever disables it must be able to.
    let before = story.policy.times();
    let _: Value = story
        .gateway
        .expect(
            &owner,
            "POST",
            "/v1/projects",
            Some(json!({ "name": "other" })),
            201,
        )
        .await
        .expect("nothing in the way");
    assert_eq!(story.policy.times(), before);
}

#[tokio::test]
async fn what_is_denied_says_why_and_stands_in_the_audit_trail() {
    let story = Story::begin().await;
    let owner = story.gateway.owner.clone();
    story.policy.answers(Answer::Said(Verdict::Deny(reason(
        "window.closed",
        "changes are made on weekdays, 9 to 17 UTC",
    ))));
    let answer = story.make(&owner, &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "policy_denied")
    );
    assert!(answer.detail().contains("weekdays"), "{}", answer.detail());
    assert!(story.actions().await.contains(&"policy.deny".to_owned()));
}

#[tokio::test]
async fn a_policy_that_does_not_answer_is_a_no() {
    let story = Story::begin().await;
    story.policy.answers(Answer::Failed("wall_time".into()));
    let answer = story.make(&story.gateway.owner.clone(), &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (503, "policy_unavailable")
    );
    assert!(
        story
            .actions()
            .await
            .contains(&"policy.unavailable".to_owned())
    );
}

#[tokio::test]
async fn the_glass_breaks_for_those_who_may_and_everybody_sees_it() {
    let story = Story::begin().await;
    let owner = story.gateway.owner.clone();
    story
        .policy
        .answers(Answer::Said(Verdict::Deny(reason("window.closed", "no"))));
    let broken = [("x-loopback-break-glass", "the site is on fire")];
    let weak = story
        .gateway
        .user_with(
            "weak",
            json!([{ "allow": "project.workspace.agent_token" }, { "allow": "project.list" }]),
        )
        .await
        .expect("nothing in the way");
    let answer = story.make(&weak, &broken).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "forbidden"));
    assert_eq!(story.make(&owner, &broken).await.status, 201);
    assert!(story.policy.last().break_glass);
    let actions = story.actions().await;
    let place = |action: &str| actions.iter().position(|it| it == action);
    assert!(place("policy.break_glass").is_some(), "{actions:?}");
}

#[tokio::test]
async fn another_person_approves_and_the_same_request_passes_once() {
    let story = Story::begin().await;
    let owner = story.gateway.owner.clone();
    let rules = json!([
        { "allow": "project.workspace.approval" }, { "allow": "project.list" },
        { "allow": "project.workspace.list" },
    ]);
    let second = story
        .gateway
        .user_with("second", rules)
        .await
        .expect("nothing in the way");
    story.policy.answers(Answer::Said(Verdict::RequireApproval {
        approvers: 1,
        reason: reason("two.persons", "production needs a second person"),
    }));
    let answer = story.make(&owner, &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "approval_required")
    );
    let id = answer.body["approval"]
        .as_str()
        .expect("nothing in the way")
        .to_owned();
    // Asking again asks for the same.
    assert_eq!(story.make(&owner, &[]).await.body["approval"], *id);

    let path = format!("/v1/workspaces/{}/approvals", story.workspace);
    let decide = format!("{path}/{id}/decision");
    let yes = || Some(json!({ "approve": true, "reason": "seen" }));
    let own = story
        .gateway
        .call(&owner, "POST", &decide, yes())
        .await
        .expect("nothing in the way");
    assert_eq!((own.status.as_u16(), own.code()), (409, "conflict"));
    let listed: Value = story
        .gateway
        .expect(&second, "GET", &path, None, 200)
        .await
        .expect("nothing in the way");
    assert_eq!(listed["items"][0]["id"], *id);
    let approved: Value = story
        .gateway
        .expect(&second, "POST", &decide, yes(), 200)
        .await
        .expect("nothing in the way");
    assert_eq!(approved["state"], "approved");

    // Another request by the same person is another request.
    let body = Some(json!({ "description": "for another rack" }));
    let other = story
        .gateway
        .call(&owner, "POST", &story.tokens, body)
        .await
        .expect("nothing in the way");
    assert_eq!(other.code(), "approval_required");
    assert_eq!(story.make(&owner, &[]).await.status, 201);
    assert_eq!(story.policy.last().approvals[0].name, "second");
    let again = story.make(&owner, &[]).await;
    assert_eq!(again.code(), "approval_required");
    assert_ne!(again.body["approval"], *id);
}

#[tokio::test]
async fn a_refusal_by_one_ends_it() {
    let story = Story::begin().await;
    let owner = story.gateway.owner.clone();
    let rules = json!([{ "allow": "project.workspace.approval" }, { "allow": "project.list" }]);
    let second = story
        .gateway
        .user_with("second", rules)
        .await
        .expect("nothing in the way");
    story.policy.answers(Answer::Said(Verdict::RequireApproval {
        approvers: 1,
        reason: reason("two.persons", "a second person"),
    }));
    let id = story.make(&owner, &[]).await.body["approval"]
        .as_str()
        .expect("nothing in the way")
        .to_owned();
    let decide = format!("/v1/workspaces/{}/approvals/{id}/decision", story.workspace);
    let no = Some(json!({ "approve": false }));
    let refused: Value = story
        .gateway
        .expect(&second, "POST", &decide, no, 200)
        .await
        .expect("nothing in the way");
    assert_eq!(refused["state"], "refused");
    assert_ne!(story.make(&owner, &[]).await.body["approval"], *id);
}
