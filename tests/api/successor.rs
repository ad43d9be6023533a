//! A host that is gone for good, and another that has its name.

use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

#[tokio::test]
async fn abuse_08_a_new_host_inherits_nothing_from_a_retired_one_of_its_name() {
    let gateway = TestGateway::start().await.unwrap();
    let owner = gateway.owner.clone();
    let workspace = gateway
        .workspace("world", Environment::Production)
        .await
        .unwrap();
    let hosts = format!("/v1/workspaces/{}/hosts", workspace.id);
    let send = async |method: &str, path: &str, body: Value| {
        let answer = gateway
            .call(&owner, method, path, Some(body))
            .await
            .unwrap();
        assert!(answer.status.is_success(), "{path}: {}", answer.body);
        answer.body
    };
    let read = async |path: &str| -> Value {
        gateway
            .expect(&owner, "GET", path, None, 200)
            .await
            .unwrap()
    };
    let path = |host: &Value| format!("{hosts}/{}", host["id"].as_str().unwrap());

    let labels = json!({ "role": "bastion", "trusted": "yes" });
    let body = json!({ "hostname": "web1", "display_name": "The bastion", "labels": labels });
    let old = send("POST", &hosts, body).await;
    let until = model::Timestamp::from_millis(gateway.app.now().as_millis() + 3_600_000);
    let maintenance = json!({ "until": until, "reason": "disks" });
    let url = format!("{}/maintenance", path(&old));
    send("PUT", &url, maintenance).await;
    let url = format!("{}/retire", path(&old));
    let gone = send("POST", &url, json!({ "reason": "sold" })).await;
    assert_eq!(gone["membership"], "retired");

    let new = send("POST", &hosts, json!({ "hostname": "web1" })).await;
    assert_ne!(new["id"], old["id"]);
    for (field, fresh) in [
        ("membership", json!("unknown")),
        ("connectivity", json!("never")),
        ("display_name", Value::Null),
        ("labels", json!({})),
        ("maintenance", Value::Null),
        ("certificate", Value::Null),
        ("facts", Value::Null),
        ("clone_of", Value::Null),
        ("retired_at", Value::Null),
    ] {
        assert_eq!(new[field], fresh, "{field}");
    }
    let history = read(&format!("{}/history", path(&new))).await;
    let history = history["items"].to_string();
    assert!(
        !history.contains("disks") && !history.contains("sold"),
        "{history}"
    );

    // The old one is what it was, stays gone, and the name leads to the new one alone.
    let old_now = read(&path(&old)).await;
    assert_eq!(
        (&old_now["labels"], &old_now["membership"]),
        (&labels, &json!("retired"))
    );
    for (method, end, body) in [
        ("PATCH", "", json!({ "labels": { "role": "web" } })),
        ("PUT", "/maintenance", json!({ "until": until })),
        ("POST", "/repair-clone", json!({ "repair": "merge" })),
    ] {
        let url = format!("{}{end}", path(&old));
        let answer = gateway
            .call(&owner, method, &url, Some(body))
            .await
            .unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (409, "conflict"),
            "{method} {url}"
        );
    }
    for (filter, expected) in [
        ("?name=web1", vec![&new["id"]]),
        ("?selector=role%3Dbastion", vec![]),
        (
            "?selector=role%3Dbastion&membership=retired",
            vec![&old["id"]],
        ),
    ] {
        let listed = read(&format!("{hosts}{filter}")).await;
        let listed: Vec<_> = listed["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|host| &host["id"])
            .cloned()
            .collect();
        assert_eq!(listed.iter().collect::<Vec<_>>(), expected, "{filter}");
    }
    gateway.stop().await.unwrap();
}

/// A name that comes back must not bring back what the one before it was allowed.
#[tokio::test]
async fn abuse_08_a_user_or_role_of_a_deleted_ones_name_has_none_of_its_rights() {
    let gateway = TestGateway::start().await.unwrap();
    let owner = gateway.owner.clone();
    let key = gateway
        .user_with(
            "ann",
            json!([{ "allow": "self" }, { "allow": "deployment" }]),
        )
        .await
        .unwrap();
    let me: Value = gateway
        .expect(&key, "GET", "/v1/self", None, 200)
        .await
        .unwrap();
    let id = me["user"]["id"].as_str().unwrap();
    let url = format!("/v1/users/{id}");
    let deleted = gateway.call(&owner, "DELETE", &url, None).await.unwrap();
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    let again = json!({ "name": "ann", "kind": "person" });
    let again: Value = gateway
        .expect(&owner, "POST", "/v1/users", Some(again), 201)
        .await
        .unwrap();
    assert_ne!(again["id"], me["user"]["id"]);
    let answer = gateway.call(&key, "GET", "/v1/self", None).await.unwrap();
    assert_eq!(answer.status, 401, "the old key is not the new user's");
    let keys = format!("/v1/users/{}/api-keys", again["id"].as_str().unwrap());
    let listed: Value = gateway
        .expect(&owner, "GET", &keys, None, 200)
        .await
        .unwrap();
    assert_eq!(listed["items"], json!([]));
    let fresh: Value = gateway
        .expect(&owner, "POST", &keys, Some(json!({})), 201)
        .await
        .unwrap();
    let fresh = fresh["secret"].as_str().unwrap();
    for path in ["/v1/users", "/v1/roles", "/v1/role-bindings"] {
        let answer = gateway.call(fresh, "GET", path, None).await.unwrap();
        assert_eq!(answer.status, 403, "{path}: {}", answer.body);
    }
    gateway.stop().await.unwrap();
}
