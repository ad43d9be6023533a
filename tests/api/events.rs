//! Following a workspace.

use std::time::Duration;

use futures_util::StreamExt as _;
use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

async fn read_until(stream: &mut axum::body::BodyDataStream, text: &mut String, what: &str) {
    let read = async {
        while !text.contains(what) {
            let chunk = stream
                .next()
                .await
                .expect("the stream goes on")
                .expect("a chunk");
            text.push_str(&String::from_utf8_lossy(&chunk));
        }
    };
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap_or_else(|_| panic!("no `{what}` in {text}"));
}

#[tokio::test]
async fn a_follower_gets_a_snapshot_then_changes_and_resumes_where_it_was() {
    let gateway = TestGateway::start().await.unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let hosts = format!("/v1/workspaces/{}/hosts", workspace.id);
    let events = format!("/v1/workspaces/{}/events", workspace.id);
    let _: Value = gateway
        .expect(
            &gateway.owner,
            "POST",
            &hosts,
            Some(json!({ "hostname": "first" })),
            201,
        )
        .await
        .unwrap();
    let response = gateway
        .respond(&gateway.owner, "GET", &events, None, &[])
        .await
        .unwrap();
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "snapshot_end").await;
    assert!(
        text.contains("\"hostname\":\"\"") || text.contains("first"),
        "{text}"
    );
    let id = text
        .lines()
        .filter_map(|line| line.strip_prefix("id: "))
        .next_back()
        .unwrap()
        .to_owned();
    drop(stream);

    let _: Value = gateway
        .expect(
            &gateway.owner,
            "POST",
            &hosts,
            Some(json!({ "hostname": "second" })),
            201,
        )
        .await
        .unwrap();
    let response = gateway
        .respond(
            &gateway.owner,
            "GET",
            &events,
            None,
            &[("last-event-id", &id)],
        )
        .await
        .unwrap();
    let mut stream = response.into_body().into_data_stream();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "second").await;
    assert!(
        !text.contains("snapshot"),
        "resumed, not begun again: {text}"
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn abuse_04_a_stream_ends_within_a_second_of_its_key() {
    let gateway = TestGateway::start().await.unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let key: Value = gateway
        .expect(
            &gateway.owner,
            "POST",
            "/v1/self/api-keys",
            Some(json!({})),
            201,
        )
        .await
        .unwrap();
    let secret = key["secret"].as_str().unwrap();
    let events = format!("/v1/workspaces/{}/events", workspace.id);
    let mut stream = gateway
        .respond(secret, "GET", &events, None, &[])
        .await
        .unwrap()
        .into_body()
        .into_data_stream();
    let mut text = String::new();
    read_until(&mut stream, &mut text, "snapshot_end").await;
    let path = format!(
        "/v1/self/api-keys/{}",
        key["api_key"]["id"].as_str().unwrap()
    );
    assert_eq!(
        gateway
            .call(&gateway.owner, "DELETE", &path, None)
            .await
            .unwrap()
            .status,
        204
    );
    let ended = tokio::time::timeout(Duration::from_secs(1), async {
        while stream.next().await.is_some() {}
    });
    ended.await.expect("the stream ends within a second");
    gateway.stop().await.unwrap();
}
