//! How requests are read: limits, repetition, pages, names.

use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

#[tokio::test]
async fn bad_requests_get_stable_codes() {
    let gateway = TestGateway::start().await.unwrap();
    let owner = gateway.owner.clone();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let hosts = format!("/v1/workspaces/{}/hosts", workspace.id);
    for (method, path, body, status, code) in [
        ("GET", "/v1/nothing".to_owned(), None, 404, "not_found"),
        (
            "DELETE",
            "/v1/self".to_owned(),
            None,
            405,
            "method_not_allowed",
        ),
        (
            "GET",
            "/v1/workspaces/no-id/hosts".to_owned(),
            None,
            404,
            "not_found",
        ),
        (
            "GET",
            format!("{hosts}?nonsense=1"),
            None,
            400,
            "malformed_request",
        ),
        ("GET", format!("{hosts}?limit=0"), None, 422, "invalid"),
        (
            "GET",
            format!("{hosts}?after=garbage"),
            None,
            422,
            "invalid",
        ),
        (
            "GET",
            format!("{hosts}?selector=a%20b"),
            None,
            422,
            "invalid",
        ),
        (
            "POST",
            "/v1/projects".to_owned(),
            Some(json!({ "name": "A B" })),
            422,
            "invalid",
        ),
        (
            "POST",
            "/v1/projects".to_owned(),
            Some(json!({ "name": "x", "more": 1 })),
            422,
            "invalid",
        ),
        (
            "POST",
            "/v1/projects".to_owned(),
            Some(json!({ "name": "world" })),
            409,
            "name_taken",
        ),
        (
            "POST",
            hosts.clone(),
            Some(json!({ "hostname": "$(x)" })),
            422,
            "invalid",
        ),
        (
            "POST",
            "/v1/roles".to_owned(),
            Some(json!({ "name": "r", "rules": [{ "allow": "no.such" }] })),
            422,
            "invalid",
        ),
    ] {
        let answer = gateway.call(&owner, method, &path, body).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{method} {path}: {}",
            answer.body
        );
    }
    let large = json!({ "name": "x", "description": "y".repeat(2 << 20) });
    let answer = gateway
        .call(&owner, "POST", "/v1/projects", Some(large))
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (413, "body_too_large")
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn a_repeated_request_is_carried_out_once_and_answered_alike() {
    let gateway = TestGateway::start().await.unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let tokens = format!("/v1/workspaces/{}/agent-tokens", workspace.id);
    let key = [("idempotency-key", "once-and-only-once")];
    let ask = async |body: Value| {
        gateway
            .call_with(&gateway.owner, "POST", &tokens, Some(body), &key)
            .await
            .unwrap()
    };
    let (first, second) = tokio::join!(ask(json!({})), ask(json!({})));
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(first.body, second.body, "the secret is the same, too");
    let list: Value = gateway
        .expect(&gateway.owner, "GET", &tokens, None, 200)
        .await
        .unwrap();
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    let other = ask(json!({ "description": "another" })).await;
    assert_eq!(
        (other.status.as_u16(), other.code()),
        (409, "idempotency_mismatch")
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn two_requests_for_one_name_have_one_winner() {
    let gateway = TestGateway::start().await.unwrap();
    let ask = async || {
        gateway
            .call(
                &gateway.owner,
                "POST",
                "/v1/projects",
                Some(json!({ "name": "wanted" })),
            )
            .await
            .unwrap()
    };
    let answers = tokio::join!(ask(), ask(), ask(), ask());
    let mut statuses =
        [answers.0, answers.1, answers.2, answers.3].map(|answer| answer.status.as_u16());
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409]);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn pages_show_every_host_once() {
    let gateway = TestGateway::start().await.unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let hosts = format!("/v1/workspaces/{}/hosts", workspace.id);
    for n in 0..7 {
        let body = json!({ "hostname": format!("h{n}"), "labels": { "parity": if n % 2 == 0 { "even" } else { "odd" } } });
        let _: Value = gateway
            .expect(&gateway.owner, "POST", &hosts, Some(body), 201)
            .await
            .unwrap();
    }
    for (filter, expected) in [
        ("", 7),
        ("&selector=parity%3Deven", 4),
        ("&name=H3", 1),
        ("&membership=managed", 0),
    ] {
        let (mut after, mut names) = (String::new(), Vec::new());
        loop {
            let page: Value = gateway
                .expect(
                    &gateway.owner,
                    "GET",
                    &format!("{hosts}?limit=2{filter}{after}"),
                    None,
                    200,
                )
                .await
                .unwrap();
            names.extend(
                page["items"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|host| host["name"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            after = format!("&after={next}");
        }
        let distinct: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(
            (names.len(), distinct.len()),
            (expected, expected),
            "{filter}: {names:?}"
        );
    }
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn state_outlives_the_process() {
    let keep = tempfile::tempdir().unwrap();
    let state = keep.path().join("state");
    let config = gateway::config::Config {
        state_dir: state.clone(),
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Default::default()
    };
    let running = gateway::serve::start(config.clone()).await.unwrap();
    let deployment = running.app.deployment;
    let pin = running.app.ca.https_pin();
    running.stop().await.unwrap();
    let running = gateway::serve::start(config).await.unwrap();
    assert_eq!(running.app.deployment, deployment);
    assert_eq!(running.app.ca.https_pin(), pin);
    running.stop().await.unwrap();
}
