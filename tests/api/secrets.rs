//! Secrets go in, and do not come out.

use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

/// What no answer, no entry and no file may hold.
const VALUE: &str = "correct-horse-battery-staple-92851";

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|part| part == text)
}

fn files(folder: &std::path::Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("nothing in the way") {
        let path = entry.expect("nothing in the way").path();
        if path.is_dir() {
            files(&path, into);
        } else if path.is_file() {
            into.push(path);
        }
    }
}

#[tokio::test]
async fn abuse_35_a_secret_is_never_read_back() {
    let gateway = TestGateway::start().await.expect("nothing in the way");
    let workspace = gateway
        .workspace("w", Environment::Staging)
        .await
        .expect("nothing in the way");
    let all = format!("/v1/workspaces/{}/secrets", workspace.id);
    let one = format!("{all}/smtp");
    let owner = &gateway.owner;
    let set: Value = gateway
        .expect(owner, "PUT", &one, Some(json!({ "value": VALUE })), 200)
        .await
        .expect("nothing in the way");
    assert_eq!((&set["name"], &set["version"]), (&json!("smtp"), &json!(1)));
    let encoded = data_encoding::BASE64.encode(VALUE.as_bytes());
    let body = json!({ "value_base64": encoded });
    let set: Value = gateway
        .expect(owner, "PUT", &one, Some(body), 200)
        .await
        .expect("nothing in the way");
    assert_eq!(set["version"], 2);
    let listed: Value = gateway
        .expect(owner, "GET", &all, None, 200)
        .await
        .expect("nothing in the way");
    assert_eq!(listed["items"][0]["version"], 2);
    let read = gateway
        .call(owner, "GET", &one, None)
        .await
        .expect("nothing in the way");
    assert_eq!(read.code(), "method_not_allowed");
    let audit = format!("/v1/workspaces/{}/audit", workspace.id);
    let audit: Value = gateway
        .expect(owner, "GET", &audit, None, 200)
        .await
        .expect("nothing in the way");
    assert!(audit.to_string().contains("secret.set"), "{audit}");
    for answer in [&set, &listed, &audit] {
        assert!(!answer.to_string().contains(VALUE));
        assert!(!answer.to_string().contains(&encoded));
    }
    let mut found = Vec::new();
    files(&gateway.state(), &mut found);
    assert!(!found.is_empty());
    for path in found {
        let bytes = std::fs::read(&path).expect("nothing in the way");
        assert!(!holds(&bytes, VALUE.as_bytes()), "{}", path.display());
    }
    let _: Value = gateway
        .expect(owner, "DELETE", &one, None, 204)
        .await
        .unwrap_or_default();
    let listed: Value = gateway
        .expect(owner, "GET", &all, None, 200)
        .await
        .expect("nothing in the way");
    assert_eq!(listed["items"], json!([]));
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn what_is_no_secret_is_refused_without_being_repeated() {
    let gateway = TestGateway::start().await.expect("nothing in the way");
    let workspace = gateway
        .workspace("w", Environment::Staging)
        .await
        .expect("nothing in the way");
    let one = format!("/v1/workspaces/{}/secrets/smtp", workspace.id);
    for body in [
        json!({}),
        json!({ "value": "" }),
        json!({ "value": VALUE, "value_base64": "eA==" }),
        json!({ "value_base64": VALUE }),
        json!({ "value": [VALUE] }),
        json!({ "value": "x".repeat((64 << 10) + 1) }),
    ] {
        let answer = gateway
            .call(&gateway.owner, "PUT", &one, Some(body))
            .await
            .expect("nothing in the way");
        assert_eq!(answer.code(), "invalid", "{}", answer.body);
        assert!(!answer.body.to_string().contains(VALUE), "{}", answer.body);
    }
    gateway.stop().await.expect("nothing in the way");
}
