//! The audit trail: what was done and what was refused, in an order that cannot
//! be changed unnoticed.

use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

#[tokio::test]
async fn abuse_30_changes_and_refusals_are_entries_and_hold_no_secret() {
    let gateway = TestGateway::start().await.unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let tokens = format!("/v1/workspaces/{}/agent-tokens", workspace.id);
    let created: Value = gateway
        .expect(
            &gateway.owner,
            "POST",
            &tokens,
            Some(json!({ "description": "for tests" })),
            201,
        )
        .await
        .unwrap();
    let viewer = gateway
        .user_with(
            "viewer-only",
            json!([{ "allow": "project.workspace.host.list" }]),
        )
        .await
        .unwrap();
    assert_eq!(
        gateway
            .call(&viewer, "POST", &tokens, Some(json!({})))
            .await
            .unwrap()
            .status,
        403
    );

    let audit: Value = gateway
        .expect(
            &gateway.owner,
            "GET",
            &format!("/v1/workspaces/{}/audit", workspace.id),
            None,
            200,
        )
        .await
        .unwrap();
    let entries: Vec<Value> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| serde_json::from_str(record["body"].as_str().unwrap()).unwrap())
        .collect();
    let found = |action: &str, result: &str| {
        entries
            .iter()
            .any(|entry| entry["action"] == action && entry["result"] == result)
    };
    assert!(found("workspace.create", "done"), "{entries:?}");
    assert!(found("agent_token.create", "done"), "{entries:?}");
    assert!(found("access.forbidden", "refused"), "{entries:?}");
    let secret = created["secret"]
        .as_str()
        .unwrap()
        .rsplit('_')
        .next()
        .unwrap()
        .to_owned();
    assert!(!audit.to_string().contains(&secret));
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn pages_run_backwards_without_gaps() {
    let gateway = TestGateway::start().await.unwrap();
    for n in 0..7 {
        gateway
            .workspace(&format!("world-{n}"), Environment::Staging)
            .await
            .unwrap();
    }
    let mut after = String::new();
    let mut numbers = Vec::new();
    loop {
        let page: Value = gateway
            .expect(
                &gateway.owner,
                "GET",
                &format!("/v1/audit?limit=3{after}"),
                None,
                200,
            )
            .await
            .unwrap();
        numbers.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|record| record["seq"].as_u64().unwrap()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        after = format!("&after={next}");
    }
    let expected: Vec<u64> = (1..=numbers.len() as u64).rev().collect();
    assert_eq!(numbers, expected);
    assert!(numbers.len() >= 8);
    gateway.stop().await.unwrap();
}
