//! Parameters of paths are ids and names of a fixed alphabet, never paths of anything.

use api::endpoint::Operation;
use model::tenancy::Environment;
use serde_json::json;
use tests::TestGateway;

/// As they stand in a request's target.
const HOSTILE: &[&str] = &[
    "..",
    ".",
    "...",
    "%2e%2e",
    "%2E%2E%2F%2E%2E%2Fetc%2Fpasswd",
    "..%2f..%2fstate%2fserver.key",
    "..%5c..%5cwindows%5cwin.ini",
    "C%3A%5Cwindows",
    "%5C%5Cserver%5Cshare",
    "NUL",
    "con.txt",
    "file%3A%3A%24DATA",
    "%2Fetc%2Fpasswd",
    "~root",
    "%00",
    "a%00b",
    "%0d%0aSet-Cookie%3A%20a%3Db",
    "%1b%5d0%3bx%07",
    "%ff%fe",
    "%c0%ae%c0%ae%c0%af",
    "%ed%a0%80",
    "%",
    "%zz",
    "%u002e",
    "%252e%252e",
    "%3Cscript%3E",
    "%24%7Bjndi%3Aldap%3A%2F%2Fx%7D",
    "1%20or%201%3D1",
    "%E2%80%AE%F0%9F%92%A9",
    "*",
    "-",
    "0",
    "-1",
    "null",
    "hst_",
    "HST_01M85FMQDE4FC26SXFA12CFSXM",
    "wsp_zzzzzzzzzzzzzzzzzzzzzzzzzz",
    "%20hst_01m85fmqde4fc26sxfa12cfsxm",
];

#[tokio::test]
async fn abuse_15_23_no_parameter_of_a_path_is_more_than_a_name() {
    let gateway = TestGateway::start_with(|config| {
        config.limits.requests_per_key_per_second = 100_000;
        config.limits.requests_per_key_burst = 100_000;
    })
    .await
    .unwrap();
    let workspace = gateway
        .workspace("world", Environment::Staging)
        .await
        .unwrap();
    let long = ["a".repeat(8000), "%2e%2e%2f".repeat(900)];
    let hostile = HOSTILE
        .iter()
        .copied()
        .chain(long.iter().map(String::as_str));
    let hostile: Vec<_> = hostile.collect();
    let mut tried = 0;
    for operation in api::v1::operations() {
        for parameter in parameters(&operation) {
            let known = |name: &str| match name {
                "workspace" => workspace.id.to_string(),
                "project" => workspace.project.to_string(),
                // What is not there is enough for the others.
                other => other.to_owned(),
            };
            for value in &hostile {
                let path = fill(&operation, |name| {
                    if name == parameter {
                        (*value).to_owned()
                    } else {
                        known(name)
                    }
                });
                let body = operation.body_schema.is_some().then(|| json!({}));
                let method = operation.method.as_str();
                let answer = gateway
                    .call(&gateway.owner, method, &path, body)
                    .await
                    .unwrap();
                let status = answer.status.as_u16();
                // Where people give names, some of these are names; what is then refused is the
                // empty body.
                let named = ["secret", "plugin"].contains(&parameter)
                    && value.parse::<model::names::Name>().is_ok();
                assert!(
                    [400, 404].contains(&status) || (named && status == 422),
                    "{method} {path}: {status} {}",
                    answer.body
                );
                assert!(!answer.code().is_empty(), "{method} {path}: {answer:?}");
                tried += 1;
            }
        }
    }
    assert!(tried > 1000, "{tried} requests is not every parameter");
    gateway.stop().await.unwrap();
}

fn parameters(operation: &Operation) -> Vec<&'static str> {
    let named = operation.path.split('/');
    let named = named.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    named.collect()
}

fn fill(operation: &Operation, value: impl Fn(&str) -> String) -> String {
    let parts = operation.path.split('/');
    let parts = parts.map(|part| {
        let name = part.strip_prefix('{').and_then(|it| it.strip_suffix('}'));
        name.map_or_else(|| part.to_owned(), &value)
    });
    parts.collect::<Vec<_>>().join("/")
}
