//! `loopback plugin` where a plugin comes from a registry: the gateway is asked to fetch it, and
//! nothing is read or sent here.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use api::ProblemCode;
use serde_json::{Value, json};
use support::problem;
use support::shell::Shell;

const REFERENCE: &str = "registry.example/team/hook:1.4.0";

#[test]
fn a_plugin_in_a_registry_is_the_gateways_to_fetch() {
    let shell = Shell::answering([problem(ProblemCode::BadSignature)]);
    let source = format!("oci://{REFERENCE}");
    let ran = shell.run(&["plugin", "install", &source, "--name", "chat"]);
    assert_ne!(ran.code, 0);
    let asked = &shell.gateway().asked()[0];
    assert_eq!(asked.line, "POST /v1/plugins/from-registry");
    assert_eq!(asked.header("content-type"), Some("application/json"));
    let body: Value = serde_json::from_str(&asked.body).unwrap();
    assert_eq!(body, json!({ "reference": REFERENCE, "name": "chat" }));
    assert_eq!(shell.gateway().asked().len(), 1, "it is asked once");
}

#[test]
fn a_signature_on_the_command_line_goes_with_a_file() {
    let shell = Shell::answering([]);
    let source = format!("oci://{REFERENCE}");
    let ran = shell.run(&["plugin", "install", &source, "--signature", "x.sig"]);
    assert!(ran.err.contains("goes with a file"), "{}", ran.err);
    assert!(shell.gateway().asked().is_empty());
}
