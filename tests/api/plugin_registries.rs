//! Plugins from a real registry. What is tried is the way from there: that the bytes are those that
//! the digest names, vouched for by the operator's keys, whatever the registry does.

#[path = "../../gateway/egress/tests/support/registry.rs"]
mod registry;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use egress::SystemResolver;
use egress::oci::{Access, Login, Package, Reference, Registries};
use gateway::config::{Config, Registry as Entry};
use model::plugin::PluginDigest;
use plugin_host::ports::SecretValue;
use registry::Registry;
use release::{SigningKey, sign_plugin};
use serde_json::{Value, json};
use tests::twin::Twin;
use tests::{Answer, TestGateway};

const PASSWORD: &str = "pull-s3cr3t";

fn component(version: &str) -> String {
    json!({ "manifest": {
        "format": 1, "name": "hook", "version": version, "description": "tells a chat", "needs": {},
    } })
    .to_string()
}

fn access() -> Access {
    Access {
        plain_http: true,
        ..Access::default()
    }
}

fn reference(registry: &Registry, rest: &str) -> String {
    format!("127.0.0.1:{}/team/hook{rest}", registry.port)
}

/// Puts a component under a tag and answers the reference with its digest.
async fn push(registry: &Registry, tag: &str, bytes: &str, signature: Option<&str>) -> Reference {
    push_as(registry, &access(), tag, bytes, signature).await
}

async fn push_as(
    registry: &Registry,
    access: &Access,
    tag: &str,
    bytes: &str,
    signature: Option<&str>,
) -> Reference {
    let package = Package {
        component: bytes.as_bytes(),
        signature: signature.map(str::as_bytes),
    };
    let to = reference(registry, tag)
        .parse()
        .expect("nothing in the way");
    let registries = Registries::new(Arc::new(SystemResolver::default()));
    registries
        .push(&to, access, package)
        .await
        .expect("nothing in the way")
}

/// A gateway that knows this registry, and takes what this key signed.
async fn gateway(
    registry: &Registry,
    key: &SigningKey,
    change: impl FnOnce(&mut Config),
) -> TestGateway {
    let name = format!("127.0.0.1:{}", registry.port);
    let entry = Entry {
        plain_http: true,
        ..Entry::default()
    };
    TestGateway::start_with_engine(Arc::new(Twin::default()), |config| {
        config.plugins.trusted_keys = vec![key.public().to_string()];
        config.plugins.registries.insert(name, entry);
        change(config);
    })
    .await
    .expect("nothing in the way")
}

async fn call(gateway: &TestGateway, method: &str, path: &str, body: Option<Value>) -> Answer {
    let owner = &gateway.owner;
    gateway
        .call(owner, method, path, body)
        .await
        .expect("nothing in the way")
}

async fn install(gateway: &TestGateway, reference: impl ToString, name: &str) -> Answer {
    let body = json!({ "reference": reference.to_string(), "name": name });
    call(gateway, "POST", "/v1/plugins/from-registry", Some(body)).await
}

async fn upgrade(gateway: &TestGateway, name: &str, reference: impl ToString) -> Answer {
    let path = format!("/v1/plugins/{name}/upgrade-from-registry");
    let body = json!({ "reference": reference.to_string() });
    call(gateway, "POST", &path, Some(body)).await
}

async fn installed(gateway: &TestGateway) -> Vec<String> {
    let found = call(gateway, "GET", "/v1/plugins", None).await.body;
    let items = found["items"]
        .as_array()
        .expect("nothing in the way")
        .iter();
    items
        .map(|item| {
            item["name"]
                .as_str()
                .expect("nothing in the way")
                .to_owned()
        })
        .collect()
}

#[tokio::test]
async fn a_plugin_is_what_its_digest_names_wherever_its_tag_goes() {
    let test = "a_plugin_is_what_its_digest_names_wherever_its_tag_goes";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let key = SigningKey::generate().expect("nothing in the way");
    let gateway = gateway(&registry, &key, |_| {}).await;
    let (first, second) = (component("1.0.0"), component("1.1.0"));
    let sign = |bytes: &str| sign_plugin(bytes.as_bytes(), &key);
    let pinned = push(&registry, ":1", &first, Some(&sign(&first))).await;

    let by_tag = install(&gateway, reference(&registry, ":1"), "by-tag").await;
    assert_eq!(by_tag.status, 201, "{}", by_tag.body);
    let present = &by_tag.body["present"];
    assert_eq!(present["source"], pinned.to_string());
    let digest = PluginDigest::of(first.as_bytes()).to_string();
    assert_eq!(present["digest"], digest);
    assert_eq!(present["signed_by"], key.public().id().to_string());

    // The tag moves. Who has the digest is not concerned, with or without the tag beside it.
    let moved = push(&registry, ":1", &second, Some(&sign(&second))).await;
    assert_ne!(moved, pinned);
    let both = reference(
        &registry,
        &format!(":1@{}", pinned.digest().expect("nothing in the way")),
    );
    for (name, reference) in [("by-digest", pinned.to_string()), ("by-both", both)] {
        let installed = install(&gateway, reference, name).await;
        let present = &installed.body["present"];
        assert_eq!(present["version"], "1.0.0", "{}", installed.body);
        assert_eq!(present["source"], pinned.to_string());
    }
    let same = upgrade(&gateway, "by-tag", &pinned).await;
    assert_eq!(same.code(), "conflict", "{}", same.body);

    let upgraded = upgrade(&gateway, "by-tag", reference(&registry, ":1")).await;
    assert_eq!(upgraded.body["outcome"], "live", "{}", upgraded.body);
    let shown = call(&gateway, "GET", "/v1/plugins/by-tag", None).await.body;
    assert_eq!(shown["present"]["version"], "1.1.0");
    assert_eq!(shown["present"]["source"], moved.to_string());
    assert_eq!(shown["previous"]["source"], pinned.to_string());

    let audit = call(&gateway, "GET", "/v1/audit", None).await.body;
    let entries = audit["items"]
        .as_array()
        .expect("nothing in the way")
        .iter();
    let entry = entries
        .filter_map(|entry| entry["body"].as_str())
        .find(|entry| entry.contains(r#""plugin.install""#) && entry.contains(r#""by-tag""#));
    let entry = entry.unwrap_or_else(|| panic!("no entry: {audit}"));
    for word in [&reference(&registry, ":1"), &pinned.to_string(), &digest] {
        assert!(entry.contains(word.as_str()), "{word}: {entry}");
    }
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn what_a_registry_exchanged_or_nobody_vouches_for_is_not_installed() {
    let test = "what_a_registry_exchanged_or_nobody_vouches_for_is_not_installed";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let key = SigningKey::generate().expect("nothing in the way");
    let other = SigningKey::generate().expect("nothing in the way");
    let gateway = gateway(&registry, &key, |_| {}).await;
    let bytes = component("1.0.0");
    let good = sign_plugin(bytes.as_bytes(), &key);
    for (tag, signature) in [
        (":unsigned", None),
        (":stranger", Some(sign_plugin(bytes.as_bytes(), &other))),
        (":another", Some(sign_plugin(b"another component", &key))),
        (":nonsense", Some("nonsense".to_owned())),
    ] {
        push(&registry, tag, &bytes, signature.as_deref()).await;
        let refused = install(&gateway, reference(&registry, tag), "hook").await;
        assert_eq!(refused.code(), "bad_signature", "{tag}: {}", refused.body);
    }

    let pinned = push(&registry, ":1", &bytes, Some(&good)).await;
    let digest = PluginDigest::of(bytes.as_bytes());
    let path = registry.blob(&digest.hex());
    let before = fs::read(&path).expect("nothing in the way");
    let tampered = bytes.replace("tells a chat", "tells a ch4t");
    fs::write(&path, &tampered).expect("nothing in the way");
    for reference in [reference(&registry, ":1"), pinned.to_string()] {
        let refused = install(&gateway, &reference, "hook").await;
        assert_eq!(refused.code(), "invalid", "{}", refused.body);
        assert!(
            refused.detail().contains("oci.digest_mismatch"),
            "{}",
            refused.body
        );
    }
    fs::write(&path, before).expect("nothing in the way");
    // Another package under the name of this one: by tag nobody can tell, by digest everybody.
    let nothing = reference(&registry, &format!("@sha256:{}", "0".repeat(64)));
    let refused = install(&gateway, nothing, "hook").await;
    assert!(
        refused.detail().contains("oci.not_found"),
        "{}",
        refused.body
    );
    assert_eq!(installed(&gateway).await, Vec::<String>::new());

    let taken = install(&gateway, &pinned, "from-registry").await;
    assert_eq!(taken.code(), "invalid", "{}", taken.body);
    let taken = install(&gateway, &pinned, "hook").await;
    assert_eq!(taken.status, 201, "{}", taken.body);
    let audit = call(&gateway, "GET", "/v1/audit", None).await.body;
    let audit = audit.to_string();
    for word in ["refused", "digest_mismatch", ":stranger"] {
        assert!(audit.contains(word), "{word}: {audit}");
    }
    gateway.stop().await.expect("nothing in the way");
}

/// Who may install plugins may name any registry; what the gateway reaches is not theirs to see.
#[tokio::test]
async fn a_registry_that_the_operator_did_not_name_is_a_stranger() {
    let test = "a_registry_that_the_operator_did_not_name_is_a_stranger";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let key = SigningKey::generate().expect("nothing in the way");
    let gateway = gateway(&registry, &key, |config| config.plugins.registries.clear()).await;
    push(&registry, ":1", &component("1.0.0"), None).await;
    for registry in [
        reference(&registry, ":1"),
        "10.1.2.3/team/hook:1".to_owned(),
        "169.254.169.254/team/hook:1".to_owned(),
    ] {
        let refused = install(&gateway, &registry, "hook").await;
        assert_eq!(refused.code(), "invalid", "{}", refused.body);
        for word in ["http.network_not_granted", "plugins.registries"] {
            assert!(refused.detail().contains(word), "{}", refused.body);
        }
    }
    for text in ["hook", "oci://registry.example/a:1", "registry.example/a"] {
        let refused = install(&gateway, text, "hook").await;
        assert_eq!(refused.code(), "invalid", "{text}: {}", refused.body);
    }
    gateway.stop().await.expect("nothing in the way");
}

#[tokio::test]
async fn a_registry_with_accounts_is_shown_the_one_that_the_operator_gave() {
    let test = "a_registry_with_accounts_is_shown_the_one_that_the_operator_gave";
    let more = "auth:\n  htpasswd:\n    realm: r\n    path: ROOT/auth\n";
    let accounts = "ci:$2b$05$a8sy4CQ7gPjZGUXEJMR0rOkzzmyNoOZgzmJeodG.DSWTbtkZdgKMS\n";
    let Some(registry) = Registry::start(test, more, accounts) else {
        return;
    };
    let key = SigningKey::generate().expect("nothing in the way");
    let folder = tempfile::tempdir().expect("nothing in the way");
    let file = folder.path().join("password");
    let write = |password: &str| {
        fs::write(&file, format!("{password}\n")).expect("nothing in the way");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("nothing in the way");
    };
    let gateway = gateway(&registry, &key, |config| {
        for entry in config.plugins.registries.values_mut() {
            entry.user = Some("ci".to_owned());
            entry.password_file = Some(file.clone());
        }
    })
    .await;
    let bytes = component("1.0.0");
    let login = Access {
        login: Some(Login {
            user: "ci".to_owned(),
            password: SecretValue::new(PASSWORD.into()),
        }),
        ..access()
    };
    let good = sign_plugin(bytes.as_bytes(), &key);
    let pinned = push_as(&registry, &login, ":1", &bytes, Some(&good)).await;

    let absent = install(&gateway, &pinned, "hook").await;
    assert_eq!(absent.code(), "conflict", "{}", absent.body);
    write("wrong");
    let wrong = install(&gateway, &pinned, "hook").await;
    assert!(
        wrong.detail().contains("oci.unauthorized"),
        "{}",
        wrong.body
    );
    // A token that was replaced counts at once.
    write(PASSWORD);
    let right = install(&gateway, &pinned, "hook").await;
    assert_eq!(right.status, 201, "{}", right.body);
    let audit = call(&gateway, "GET", "/v1/audit", None).await.body;
    assert!(!audit.to_string().contains(PASSWORD));
    gateway.stop().await.expect("nothing in the way");
}
