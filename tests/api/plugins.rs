//! Plugins as operators meet them; the engine is [`tests::twin`], everything else is real.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Request;
use gateway::config::Config;
use model::tenancy::Environment;
use release::{SigningKey, sign_plugin};
use serde_json::{Value, json};
use tests::twin::Twin;
use tests::{Answer, TestGateway, until};

async fn gateway(change: impl FnOnce(&mut Config)) -> TestGateway {
    TestGateway::start_with_engine(Arc::new(Twin::default()), |config| {
        config.plugins.signed_only = false;
        change(config);
    })
    .await
    .expect("nothing in the way")
}

fn component(version: &str, secrets: &[&str]) -> Value {
    let secrets: Vec<_> = secrets
        .iter()
        .map(|name| json!({ "name": name, "purpose": "logs in" }))
        .collect();
    json!({ "manifest": {
        "format": 1, "name": "hook", "version": version, "description": "tells a chat",
        "needs": { "secrets": secrets },
    } })
}

async fn send(gateway: &TestGateway, key: &str, path: &str, body: &Value) -> Answer {
    let request = Request::builder()
        .method("POST")
        .uri(path)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/wasm")
        .body(Body::from(body.to_string()))
        .expect("nothing in the way");
    let response = gateway.send_raw(request).await.expect("nothing in the way");
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 16 << 20)
        .await
        .expect("nothing in the way");
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    Answer { status, body }
}

async fn call(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Answer {
    gateway
        .call(&gateway.owner, method, path, body)
        .await
        .expect("nothing in the way")
}

fn running(gateway: &TestGateway, name: &str) -> bool {
    gateway
        .app
        .plugins
        .ready(&name.parse().expect("nothing in the way"))
        .is_some()
}

#[tokio::test]
async fn a_plugin_goes_from_file_to_running_and_away_again() {
    let gateway = gateway(|_| {}).await;
    let installed = send(
        &gateway,
        &gateway.owner,
        "/v1/plugins",
        &component("1.0.0", &[]),
    )
    .await;
    assert_eq!(installed.status, 201, "{}", installed.body);
    assert_eq!(installed.body["state"], "installed");
    assert_eq!(
        installed.body["configured"], true,
        "an empty one is accepted"
    );
    let again = send(
        &gateway,
        &gateway.owner,
        "/v1/plugins",
        &component("1.0.0", &[]),
    )
    .await;
    assert_eq!(again.code(), "name_taken");

    let early = call(&gateway, "POST", "/v1/plugins/hook/enable", None).await;
    assert_eq!(early.code(), "conflict");
    assert!(early.detail().contains("workspaces"), "{}", early.detail());
    let grant = json!({ "workspaces": "all" });
    let granted = call(&gateway, "PUT", "/v1/plugins/hook/grant", Some(grant)).await;
    assert_eq!(granted.body["ungranted"], json!([]), "{}", granted.body);
    let enabled = call(&gateway, "POST", "/v1/plugins/hook/enable", None).await;
    assert_eq!(enabled.body["state"], "enabled", "{}", enabled.body);
    until("it runs", || running(&gateway, "hook"))
        .await
        .expect("nothing in the way");
    let taken = call(&gateway, "PUT", "/v1/plugins/hook/grant", Some(json!({}))).await;
    assert_eq!(taken.code(), "conflict", "what runs keeps what it needs");

    let kept = call(&gateway, "DELETE", "/v1/plugins/hook", None).await;
    assert_eq!(kept.code(), "conflict", "it is enabled");
    call(&gateway, "POST", "/v1/plugins/hook/disable", None).await;
    until("it is gone", || !running(&gateway, "hook"))
        .await
        .expect("nothing in the way");
    let removed = call(&gateway, "DELETE", "/v1/plugins/hook", None).await;
    assert_eq!(removed.status, 204);
    let audit = call(&gateway, "GET", "/v1/audit", None)
        .await
        .body
        .to_string();
    for action in ["install", "grant", "enable", "disable", "remove"] {
        assert!(
            audit.contains(&format!("plugin.{action}")),
            "{action}: {audit}"
        );
    }
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn an_upgrade_that_needs_more_waits_until_that_very_one_is_approved() {
    let gateway = gateway(|_| {}).await;
    let workspace = gateway
        .workspace("w", Environment::Staging)
        .await
        .expect("nothing in the way");
    let secret = format!("/v1/workspaces/{}/secrets/smtp", workspace.id);
    call(&gateway, "PUT", &secret, Some(json!({ "value": "x" }))).await;
    send(
        &gateway,
        &gateway.owner,
        "/v1/plugins",
        &component("1.0.0", &[]),
    )
    .await;
    let all = json!({ "workspaces": "all" });
    call(&gateway, "PUT", "/v1/plugins/hook/grant", Some(all)).await;
    call(&gateway, "POST", "/v1/plugins/hook/enable", None).await;
    until("it runs", || running(&gateway, "hook"))
        .await
        .expect("nothing in the way");

    let path = "/v1/plugins/hook/upgrade";
    let wider = component("1.1.0", &["login"]);
    let held = send(&gateway, &gateway.owner, path, &wider).await.body;
    assert_eq!(held["outcome"], "held", "{held}");
    let plugin = &held["plugin"];
    assert_eq!(plugin["present"]["version"], "1.0.0");
    assert_eq!(
        plugin["pending"]["widening"][0]["need"],
        "needs.secrets.login"
    );
    let digest = plugin["pending"]["version"]["digest"].clone();

    let approve = "/v1/plugins/hook/upgrade/approve";
    let other = json!({ "digest": plugin["present"]["digest"] });
    let refused = call(&gateway, "POST", approve, Some(other)).await;
    assert_eq!(refused.code(), "conflict");
    let this = json!({ "digest": digest });
    let refused = call(&gateway, "POST", approve, Some(this.clone())).await;
    assert!(
        refused.detail().contains("needs.secrets.login"),
        "{}",
        refused.body
    );
    let grant = json!({ "workspaces": "all",
        "secrets": { "login": { "workspace": workspace.id, "secret": "smtp" } } });
    let granted = call(&gateway, "PUT", "/v1/plugins/hook/grant", Some(grant)).await;
    assert_eq!(granted.status, 200, "{}", granted.body);
    let live = call(&gateway, "POST", approve, Some(this)).await;
    assert_eq!(live.body["present"]["version"], "1.1.0", "{}", live.body);
    assert_eq!(live.body["pending"], Value::Null);

    let used = call(&gateway, "DELETE", &secret, None).await;
    assert_eq!(used.code(), "conflict");
    assert!(used.detail().contains("hook"), "{}", used.detail());

    let older = send(&gateway, &gateway.owner, path, &component("1.0.5", &[])).await;
    assert_eq!(older.code(), "conflict");
    assert!(older.detail().contains("older"), "{}", older.detail());
    let back = call(&gateway, "POST", "/v1/plugins/hook/rollback", None).await;
    assert_eq!(back.body["present"]["version"], "1.0.0", "{}", back.body);
    assert_eq!(back.body["state"], "enabled");
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn abuse_35_who_gives_a_secret_must_be_allowed_to_set_it() {
    let gateway = gateway(|_| {}).await;
    let workspace = gateway
        .workspace("w", Environment::Staging)
        .await
        .expect("nothing in the way");
    let secret = format!("/v1/workspaces/{}/secrets/smtp", workspace.id);
    call(&gateway, "PUT", &secret, Some(json!({ "value": "x" }))).await;
    send(
        &gateway,
        &gateway.owner,
        "/v1/plugins",
        &component("1.0.0", &["login"]),
    )
    .await;
    let rules = json!([{ "allow": "deployment.plugin" }]);
    let key = gateway
        .user_with("plugins", rules)
        .await
        .expect("nothing in the way");
    let bound = json!({ "workspaces": "all",
        "secrets": { "login": { "workspace": workspace.id, "secret": "smtp" } } });
    let path = "/v1/plugins/hook/grant";
    let refused = gateway
        .call(&key, "PUT", path, Some(bound.clone()))
        .await
        .expect("nothing in the way");
    assert_eq!(refused.code(), "exceeds_maker", "{}", refused.body);
    call(&gateway, "PUT", path, Some(bound.clone())).await;
    let again = gateway
        .call(&key, "PUT", path, Some(bound))
        .await
        .expect("nothing in the way");
    assert_eq!(
        again.code(),
        "exceeds_maker",
        "not even where it is bound already"
    );
    let nothing = gateway
        .call(&key, "PUT", path, Some(json!({})))
        .await
        .expect("nothing in the way");
    assert_eq!(
        nothing.status, 200,
        "taking away is no giving: {}",
        nothing.body
    );
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn abuse_37_what_is_not_signed_for_this_is_refused() {
    let (key, other) = (
        SigningKey::generate().expect("nothing in the way"),
        SigningKey::generate().expect("nothing in the way"),
    );
    let trusted = key.public().to_string();
    let gateway = gateway(|config| {
        config.plugins.signed_only = true;
        config.plugins.trusted_keys = vec![trusted];
    })
    .await;
    let bytes = component("1.0.0", &[]).to_string();
    let at = |signature: &str| {
        let signature = signature.replace(' ', "%20").replace('\n', "%0A");
        let signature = signature
            .replace('+', "%2B")
            .replace('/', "%2F")
            .replace('=', "%3D");
        format!("/v1/plugins?signature={signature}")
    };
    let good = sign_plugin(bytes.as_bytes(), &key);
    for path in [
        "/v1/plugins".to_owned(),
        at(&sign_plugin(bytes.as_bytes(), &other)),
        at(&sign_plugin(b"another component", &key)),
        at(&release::sign_manifest(bytes.as_bytes(), &key)),
        at("nonsense"),
    ] {
        let refused = send(&gateway, &gateway.owner, &path, &component("1.0.0", &[])).await;
        assert_eq!(refused.code(), "bad_signature", "{path}: {}", refused.body);
    }
    let audit = call(&gateway, "GET", "/v1/audit", None)
        .await
        .body
        .to_string();
    assert!(
        audit.contains("plugin.install") && audit.contains("refused"),
        "{audit}"
    );
    let taken = send(
        &gateway,
        &gateway.owner,
        &at(&good),
        &component("1.0.0", &[]),
    )
    .await;
    assert_eq!(taken.status, 201, "{}", taken.body);
    assert_eq!(
        taken.body["present"]["signed_by"],
        key.public().id().to_string()
    );
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn abuse_37_a_swapped_component_is_not_loaded() {
    let gateway = gateway(|_| {}).await;
    let installed = send(
        &gateway,
        &gateway.owner,
        "/v1/plugins",
        &component("1.0.0", &[]),
    )
    .await;
    let digest = installed.body["present"]["digest"]
        .as_str()
        .expect("nothing in the way")
        .to_owned();
    let hex = digest.trim_start_matches("sha256:");
    let object = gateway
        .state()
        .join("objects/sha256")
        .join(&hex[..2])
        .join(hex);
    assert!(object.exists());
    std::fs::write(&object, component("9.9.9", &[]).to_string()).expect("nothing in the way");
    let all = json!({ "workspaces": "all" });
    call(&gateway, "PUT", "/v1/plugins/hook/grant", Some(all)).await;
    call(&gateway, "POST", "/v1/plugins/hook/enable", None).await;
    let mut status = Value::Null;
    for _ in 0..2000 {
        status = call(&gateway, "GET", "/v1/plugins/hook", None).await.body["running"].clone();
        if status["status"] == "failed" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(status["status"], "failed", "{status}");
    assert!(!running(&gateway, "hook"));
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn a_configuration_is_judged_by_the_schema_and_then_by_the_plugin() {
    let gateway = gateway(|_| {}).await;
    let mut with_schema = component("1.0.0", &[]);
    with_schema["schema"] = json!({ "type": "object", "required": ["url"], "properties": { "url": { "type": "string" } } });
    with_schema["refuses"] = json!("forbidden");
    let installed = send(&gateway, &gateway.owner, "/v1/plugins", &with_schema).await;
    assert_eq!(installed.body["configured"], false, "{}", installed.body);
    let path = "/v1/plugins/hook/configuration";
    for (configuration, wanted) in [
        (json!({}), "url"),
        (json!({ "url": 5 }), "/url"),
        (json!({ "url": "forbidden" }), "not this one"),
        (json!([]), "object"),
    ] {
        let body = json!({ "configuration": configuration });
        let refused = call(&gateway, "PUT", path, Some(body)).await;
        assert_eq!(refused.code(), "invalid", "{}", refused.body);
        assert!(refused.detail().contains(wanted), "{}", refused.detail());
    }
    let good = json!({ "configuration": { "url": "https://chat" } });
    let taken = call(&gateway, "PUT", path, Some(good.clone())).await;
    assert_eq!(taken.body["configured"], true, "{}", taken.body);
    assert_eq!(call(&gateway, "GET", path, None).await.body, good);
    let broken = json!({ "manifest": component("1.0.0", &[])["manifest"], "broken": true });
    let refused = send(&gateway, &gateway.owner, "/v1/plugins?name=other", &broken).await;
    assert!(
        refused.detail().contains("does not start"),
        "{}",
        refused.body
    );
    gateway.stop().await.expect("nothing in the way");
}
