//! Every operation, called by nobody, by everybody but those who may, and by only
//! those who may. The list itself is a golden file: a new operation, or a changed
//! permission, shows up in review.

use api::endpoint::{Access, Operation};
use model::Timestamp;
use model::ids::{ApiKeyId, HostId};
use model::permission::Permission;
use model::tenancy::Environment;
use serde_json::{Value, json};
use tests::{Answer, TestGateway, golden};

#[test]
fn the_permission_of_every_operation_is_as_reviewed() {
    let mut lines: Vec<String> = api::v1::operations()
        .iter()
        .map(|operation| {
            let access = match operation.access {
                Access::Public(why) => format!("public: {why}"),
                Access::Needs(permission) => permission.to_string(),
            };
            format!(
                "{:6} {:58} {:34} {access}\n",
                operation.method.as_str(),
                operation.path,
                operation.id
            )
        })
        .collect();
    lines.sort();
    golden::check("permission-matrix.txt", &lines.concat());
}

/// The person whose build just failed here: mount the operation through `Routes`,
/// which asks for its permission. A route made by hand is open to everybody.
#[test]
fn abuse_01_routes_are_made_only_where_permissions_are_asked() {
    let source = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway/src");
    let mut folders = vec![source];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if std::fs::read_to_string(&path).unwrap().contains(".route(")
                && !path.ends_with("tests.rs")
            {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort_unstable();
    // The administrator's routes answer only on the local socket, which lets in by the peer's uid
    // and never listens on a network: no key is asked there, so no permission either.
    assert_eq!(found, ["admin.rs", "dispatch.rs"]);
}

#[tokio::test]
async fn abuse_01_every_declared_operation_is_mounted_once() {
    let gateway = TestGateway::start().await.unwrap();
    let (_, mut mounted) = gateway::http::routes(std::sync::Arc::clone(&gateway.app));
    let mut declared: Vec<_> = api::v1::operations()
        .iter()
        .map(|operation| operation.id)
        .collect();
    mounted.sort_unstable();
    declared.sort_unstable();
    assert_eq!(mounted, declared);
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn abuse_01_only_those_who_may_get_past_the_door() {
    let gateway = TestGateway::start_with(|config| {
        config.limits.requests_per_key_per_second = 10_000;
        config.limits.requests_per_key_burst = 10_000;
    })
    .await
    .unwrap();
    let shell = "project.workspace.host.shell_session";
    for (place, operation) in api::v1::operations().iter().enumerate() {
        // A world of its own for each: some of the calls that pass destroy things.
        let workspace = gateway
            .workspace(&format!("world-{place}"), Environment::Staging)
            .await
            .unwrap();
        let path = path_in(
            operation,
            &workspace.id.to_string(),
            &workspace.project.to_string(),
        );
        let nobody = gateway.send("", operation, &path).await;
        let Access::Needs(permission) = operation.access else {
            assert_ne!(nobody.status, 401, "{} is public", operation.id);
            continue;
        };
        assert_eq!(
            nobody.status, 401,
            "{} as nobody: {}",
            operation.id, nobody.body
        );

        let others = Permission::ALL
            .iter()
            .filter(|other| **other != permission && other.as_str() != shell);
        let others: Vec<_> = others.map(|other| json!({ "allow": other })).collect();
        let everybody = gateway
            .user_with(&format!("but-{place}"), json!(others))
            .await
            .unwrap();
        let denied = gateway.send(&everybody, operation, &path).await;
        assert_eq!(
            denied.status, 403,
            "{} as everybody but this: {}",
            operation.id, denied.body
        );
        assert_eq!(denied.code(), "forbidden", "{}", operation.id);

        let only = gateway
            .user_with(&format!("only-{place}"), json!([{ "allow": permission }]))
            .await
            .unwrap();
        let allowed = gateway.send(&only, operation, &path).await;
        assert!(
            ![401, 403].contains(&allowed.status.as_u16()),
            "{} as only this: {}",
            operation.id,
            allowed.body
        );
        assert!(
            !allowed.detail().contains("no such workspace"),
            "{} as only this: {}",
            operation.id,
            allowed.body
        );
    }
    gateway.stop().await.unwrap();
}

/// Garbage is refused everywhere alike; what lies in a workspace
/// that the caller cannot see looks like what does not exist.
#[tokio::test]
async fn abuse_01_garbage_credentials_are_refused_on_every_route() {
    let gateway = TestGateway::start().await.unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let truncated = gateway.owner[..gateway.owner.len() - 1].to_owned();
    let mut other = gateway.owner.clone();
    other.pop();
    other.push(if gateway.owner.ends_with('0') {
        '1'
    } else {
        '0'
    });
    for operation in api::v1::operations() {
        if matches!(operation.access, Access::Public(_)) {
            continue;
        }
        let path = path_in(
            &operation,
            &workspace.id.to_string(),
            &workspace.project.to_string(),
        );
        for key in ["x", "lbk_", &truncated, &other, "lbt_0_0"] {
            let answer = gateway.send(key, &operation, &path).await;
            assert_eq!(
                (answer.status.as_u16(), answer.code()),
                (401, "unauthenticated"),
                "{}",
                operation.id
            );
        }
    }
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn abuse_02_what_lies_elsewhere_looks_absent() {
    let gateway = TestGateway::start().await.unwrap();
    let mine = gateway
        .workspace("mine", Environment::Staging)
        .await
        .unwrap();
    let theirs = gateway
        .workspace("theirs", Environment::Staging)
        .await
        .unwrap();
    let body = json!({ "limits": { "workspace": mine.id, "rules": [{ "allow": "project.workspace" }, { "allow": "self" }] } });
    let key: api::v1::people::CreatedApiKey = gateway
        .expect(&gateway.owner, "POST", "/v1/self/api-keys", Some(body), 201)
        .await
        .unwrap();
    for operation in api::v1::operations()
        .iter()
        .filter(|operation| operation.path.contains("{workspace}"))
    {
        let absent = model::ids::WorkspaceId::new(Timestamp::from_millis(1), [9; 10]).to_string();
        let ask = async |workspace: &str| {
            let path = path_in(operation, workspace, &theirs.project.to_string());
            let mut answer = gateway.send(&key.secret, operation, &path).await;
            answer.body["request_id"] = Value::Null;
            (answer.status, answer.body.to_string())
        };
        let (hidden, missing) = (ask(&theirs.id.to_string()).await, ask(&absent).await);
        assert_eq!(hidden.0, 404, "{}", operation.id);
        assert_eq!(hidden, missing, "{}", operation.id);
    }
    gateway.stop().await.unwrap();
}

trait Send {
    async fn send(&self, key: &str, operation: &Operation, path: &str) -> Answer;
}

impl Send for TestGateway {
    /// The least that could pass for a request. Streams are not read to their end.
    async fn send(&self, key: &str, operation: &Operation, path: &str) -> Answer {
        let body = operation.body_schema.is_some().then(|| json!({}));
        let response = self
            .respond(key, operation.method.as_str(), path, body, &[])
            .await
            .expect("the router answers");
        let status = response.status();
        if operation.media == "text/event-stream" && status.is_success() {
            return Answer {
                status,
                body: Value::Null,
            };
        }
        let bytes = axum::body::to_bytes(response.into_body(), 16 << 20)
            .await
            .expect("the router answers");
        Answer {
            status,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }
}

fn path_in(operation: &Operation, workspace: &str, project: &str) -> String {
    let birth = Timestamp::from_millis(1);
    let path = operation
        .path
        .replace("{workspace}", workspace)
        .replace("{project}", project);
    let path = path.replace("{host}", &HostId::new(birth, [1; 10]).to_string());
    let path = path.replace("{api_key}", &ApiKeyId::new(birth, [1; 10]).to_string());
    let path = path.replace(
        "{token}",
        &model::ids::AgentTokenId::new(birth, [1; 10]).to_string(),
    );
    let path = path.replace(
        "{user}",
        &model::ids::UserId::new(birth, [1; 10]).to_string(),
    );
    let path = path.replace(
        "{role}",
        &model::ids::RoleId::new(birth, [1; 10]).to_string(),
    );
    path.replace(
        "{binding}",
        &model::ids::RoleBindingId::new(birth, [1; 10]).to_string(),
    )
    .replace("{plugin}", "none")
    .replace("{secret}", "none")
    .replace("{channel}", "stable")
    .replace("{version}", "0.0.0")
    .replace("{file}", "none")
}
