//! Nobody gives more than they have; what is taken away is gone at once.

use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::TestGateway;

#[tokio::test]
async fn abuse_03_no_role_key_or_binding_exceeds_its_maker() {
    let gateway = TestGateway::start().await.unwrap();
    let admin = gateway
        .user_with(
            "admin",
            json!([
                { "allow": "self" }, { "allow": "deployment.role" }, { "allow": "deployment.user" },
                { "allow": "deployment.access" }, { "allow": "project.workspace.host.list" },
            ]),
        )
        .await
        .unwrap();
    let wider = json!({ "name": "wider", "rules": [{ "allow": "project.workspace.host" }] });
    let answer = gateway
        .call(&admin, "POST", "/v1/roles", Some(wider))
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "exceeds_maker")
    );

    let roles: Value = gateway
        .expect(&admin, "GET", "/v1/roles", None, 200)
        .await
        .unwrap();
    let role = |name: &str| {
        let roles = roles["items"].as_array().unwrap();
        roles.iter().find(|role| role["name"] == name).unwrap()["id"].clone()
    };
    let me: Value = gateway
        .expect(&admin, "GET", "/v1/self", None, 200)
        .await
        .unwrap();
    let grant = json!({ "user": me["user"]["id"], "role": role("owner") });
    let answer = gateway
        .call(&admin, "POST", "/v1/role-bindings", Some(grant))
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "exceeds_maker")
    );

    // A key for somebody who can do more is that somebody's rights.
    let owner: Value = gateway
        .expect(&gateway.owner, "GET", "/v1/self", None, 200)
        .await
        .unwrap();
    let path = format!(
        "/v1/users/{}/api-keys",
        owner["user"]["id"].as_str().unwrap()
    );
    let answer = gateway
        .call(&admin, "POST", &path, Some(json!({})))
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "exceeds_maker")
    );

    // A narrowed key makes keys that are at least as narrow.
    let narrow = json!({ "limits": { "rules": [{ "allow": "self" }] } });
    let narrow: Value = gateway
        .expect(
            &gateway.owner,
            "POST",
            "/v1/self/api-keys",
            Some(narrow),
            201,
        )
        .await
        .unwrap();
    let narrow = narrow["secret"].as_str().unwrap();
    let wide = json!({ "limits": { "rules": [{ "allow": "self" }, { "allow": "project" }] } });
    let answer = gateway
        .call(narrow, "POST", "/v1/self/api-keys", Some(wide))
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.code()),
        (403, "exceeds_maker")
    );
    let heir: Value = gateway
        .expect(narrow, "POST", "/v1/self/api-keys", Some(json!({})), 201)
        .await
        .unwrap();
    assert_eq!(
        heir["api_key"]["limits"]["rules"],
        json!([{ "allow": "self" }])
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn abuse_04_a_revoked_key_and_a_disabled_user_are_refused_at_once() {
    let gateway = TestGateway::start().await.unwrap();
    let key = gateway
        .user_with("someone", json!([{ "allow": "self" }]))
        .await
        .unwrap();
    let me: Value = gateway
        .expect(&key, "GET", "/v1/self", None, 200)
        .await
        .unwrap();
    let user = format!("/v1/users/{}", me["user"]["id"].as_str().unwrap());
    let _: Value = gateway
        .expect(
            &gateway.owner,
            "PATCH",
            &user,
            Some(json!({ "disabled": true })),
            200,
        )
        .await
        .unwrap();
    assert_eq!(
        gateway
            .call(&key, "GET", "/v1/self", None)
            .await
            .unwrap()
            .status,
        401
    );
    let _: Value = gateway
        .expect(
            &gateway.owner,
            "PATCH",
            &user,
            Some(json!({ "disabled": false })),
            200,
        )
        .await
        .unwrap();
    let api_key = format!("{user}/api-keys/{}", me["api_key"]["id"].as_str().unwrap());
    assert_eq!(
        gateway
            .call(&gateway.owner, "DELETE", &api_key, None)
            .await
            .unwrap()
            .status,
        204
    );
    assert_eq!(
        gateway
            .call(&key, "GET", "/v1/self", None)
            .await
            .unwrap()
            .status,
        401
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn the_last_owner_cannot_be_removed() {
    let gateway = TestGateway::start().await.unwrap();
    let me: Value = gateway
        .expect(&gateway.owner, "GET", "/v1/self", None, 200)
        .await
        .unwrap();
    let user = format!("/v1/users/{}", me["user"]["id"].as_str().unwrap());
    let answer = gateway
        .call(&gateway.owner, "DELETE", &user, None)
        .await
        .unwrap();
    assert_eq!((answer.status.as_u16(), answer.code()), (409, "conflict"));
    let bindings: Value = gateway
        .expect(&gateway.owner, "GET", "/v1/role-bindings", None, 200)
        .await
        .unwrap();
    let binding = format!(
        "/v1/role-bindings/{}",
        bindings["items"][0]["id"].as_str().unwrap()
    );
    assert_eq!(
        gateway
            .call(&gateway.owner, "DELETE", &binding, None)
            .await
            .unwrap()
            .status,
        409
    );
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn built_in_roles_hand_out_no_shell_in_production() {
    let gateway = TestGateway::start().await.unwrap();
    // The owner's own role leaves it out in production, so the owner cannot hand
    // it out there either.
    let everywhere =
        json!({ "name": "root", "rules": [{ "allow": "project.workspace.host.shell_session" }] });
    let answer = gateway
        .call(&gateway.owner, "POST", "/v1/roles", Some(everywhere))
        .await
        .unwrap();
    assert_eq!(answer.code(), "exceeds_maker");
    let staging = json!({ "name": "root", "rules": [{ "allow": "project.workspace.host.shell_session", "environments": ["staging"] }] });
    assert_eq!(
        gateway
            .call(&gateway.owner, "POST", "/v1/roles", Some(staging))
            .await
            .unwrap()
            .status,
        201
    );
    gateway
        .workspace("prod", Environment::Production)
        .await
        .unwrap();
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn abuse_13_the_first_run_is_absent_for_ever_once_done() {
    let gateway = TestGateway::start().await.unwrap();
    for secret in ["", "wrong"] {
        let body = json!({ "secret": secret, "name": "intruder" });
        let answer = gateway
            .call("", "POST", "/v1/first-run", Some(body))
            .await
            .unwrap();
        assert_eq!((answer.status.as_u16(), answer.code()), (404, "not_found"));
    }
    gateway.stop().await.unwrap();
}
