//! `push`, by the real program, to a real registry.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

#[path = "../../gateway/egress/tests/support/registry.rs"]
mod registry;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use egress::SystemResolver;
use egress::oci::{Access, Login, Pulled, Registries};
use model::plugin::MANIFEST_SECTION;
use plugin_host::ports::SecretValue;
use registry::Registry;
use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentTypeRef, ComponentTypeSection, CustomSection, InstanceType,
};

/// What `inspect` takes for an installer; nobody runs it here.
fn component() -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut imports = ComponentImportSection::new();
    imports.import("loopback:base/types@0.1.0", ComponentTypeRef::Instance(0));
    let mut exports = ComponentExportSection::new();
    for name in [
        "loopback:base/plugin@0.1.0",
        "loopback:install/renderer@0.1.0",
    ] {
        exports.export(name, ComponentExportKind::Instance, 0, None);
    }
    let manifest = r#"{"format":1,"name":"x","version":"1.0.0","description":"d"}"#;
    let mut component = Component::new();
    component
        .section(&types)
        .section(&imports)
        .section(&exports)
        .section(&CustomSection {
            name: MANIFEST_SECTION.into(),
            data: manifest.as_bytes().into(),
        });
    component.finish()
}

fn push(file: &Path, reference: &str, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loopback-plugin"))
        .arg("push")
        .arg(file)
        .arg(reference)
        .args(options)
        .output()
        .unwrap()
}

/// The reference that was printed.
fn printed(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line = String::from_utf8_lossy(&output.stdout);
    line.trim_end().to_owned()
}

fn refusal(output: &Output) -> String {
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn pull(reference: &str, login: Option<Login>) -> Pulled {
    let access = Access {
        plain_http: true,
        login,
        ..Access::default()
    };
    let reference = reference.strip_prefix("oci://").unwrap().parse().unwrap();
    let registries = Registries::new(Arc::new(SystemResolver::default()));
    registries.pull(&reference, &access).await.unwrap()
}

#[tokio::test]
async fn a_component_and_its_signature_are_pushed_and_the_digest_is_printed() {
    let test = "a_component_and_its_signature_are_pushed_and_the_digest_is_printed";
    let Some(registry) = Registry::start(test, "", "") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.wasm");
    fs::write(&file, component()).unwrap();
    let to = format!("oci://127.0.0.1:{}/team/x:1", registry.port);

    let pinned = printed(&push(&file, &to, &["--plain-http"]));
    assert!(pinned.contains("/team/x@sha256:"), "{pinned}");
    let pulled = pull(&pinned, None).await;
    assert_eq!((pulled.component, pulled.signature), (component(), None));

    fs::write(folder.path().join("x.wasm.sig"), "key: k\nsig: s\n").unwrap();
    let signed = printed(&push(&file, &to, &["--plain-http"]));
    assert_ne!(signed, pinned);
    let pulled = pull(&signed, None).await;
    assert_eq!(pulled.signature.as_deref(), Some(&b"key: k\nsig: s\n"[..]));

    // TLS is the rule, and this machine the exception.
    let strict = refusal(&push(&file, &to, &[]));
    assert!(strict.contains("loopback"), "{strict}");
    let bare = to.trim_start_matches("oci://");
    let bare = refusal(&push(&file, bare, &["--plain-http"]));
    assert!(bare.contains("begins with oci://"), "{bare}");
    fs::write(&file, b"not a component").unwrap();
    let other = refusal(&push(&file, &to, &["--plain-http"]));
    assert!(other.contains("not WebAssembly"), "{other}");
}

#[tokio::test]
async fn a_registry_with_accounts_gets_the_one_from_the_file() {
    let test = "a_registry_with_accounts_gets_the_one_from_the_file";
    let more = "auth:\n  htpasswd:\n    realm: r\n    path: ROOT/auth\n";
    // The password is `pull-s3cr3t`.
    let accounts = "ci:$2b$05$a8sy4CQ7gPjZGUXEJMR0rOkzzmyNoOZgzmJeodG.DSWTbtkZdgKMS\n";
    let Some(registry) = Registry::start(test, more, accounts) else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let (file, password) = (folder.path().join("x.wasm"), folder.path().join("password"));
    fs::write(&file, component()).unwrap();
    fs::write(&password, "pull-s3cr3t\n").unwrap();
    let to = format!("oci://127.0.0.1:{}/team/x:1", registry.port);
    let nobody = refusal(&push(&file, &to, &["--plain-http"]));
    assert!(nobody.contains("another login"), "{nobody}");
    let path = password.to_str().unwrap();
    let options = ["--plain-http", "--user", "ci", "--password-file", path];
    let pinned = printed(&push(&file, &to, &options));
    let login = Login {
        user: "ci".into(),
        password: SecretValue::new(b"pull-s3cr3t".to_vec()),
    };
    assert_eq!(pull(&pinned, Some(login)).await.component, component());
}
