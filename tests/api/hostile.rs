//! What strangers, web pages and clumsy proxies send, against the whole router.

use axum::body::Body;
use axum::http::{Request, Response};
use serde_json::{Value, json};
use tests::TestGateway;

/// A request as it is, without the harness's headers.
async fn raw(gateway: &TestGateway, request: Request<Body>) -> (u16, Value) {
    let response = gateway.send_raw(request).await.expect("the router answers");
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .expect("the router answers");
    (
        status,
        serde_json::from_slice(&bytes).unwrap_or(Value::Null),
    )
}

fn header<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.map_or("", |value| value.to_str().expect("ASCII"))
}

/// Two of them are a disagreement between a proxy and us about who is asking.
#[tokio::test]
async fn abuse_01_24_two_authorizations_are_none() {
    let gateway = TestGateway::start().await.unwrap();
    let bearer = format!("Bearer {}", gateway.owner);
    for second in [bearer.as_str(), "Bearer other", ""] {
        for pair in [[bearer.as_str(), second], [second, bearer.as_str()]] {
            let request = Request::get("/v1/self")
                .header("authorization", pair[0])
                .header("authorization", pair[1])
                .body(Body::empty())
                .unwrap();
            let (status, body) = raw(&gateway, request).await;
            assert_eq!((status, &body["code"]), (401, &json!("unauthenticated")));
        }
    }
    let _: Value = gateway
        .expect(&gateway.owner, "GET", "/v1/self", None, 200)
        .await
        .unwrap();
    gateway.stop().await.unwrap();
}

#[tokio::test]
async fn abuse_21_a_compressed_body_is_refused_before_it_is_read() {
    let gateway = TestGateway::start().await.unwrap();
    for encoding in ["gzip", "deflate", "br", "zstd", "identity, gzip", "x"] {
        // A body that never comes: an answer shows that nobody waited for it.
        let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::io::Error>>();
        let request = Request::post("/v1/projects")
            .header("authorization", format!("Bearer {}", gateway.owner))
            .header("content-type", "application/json")
            .header("content-encoding", encoding)
            .body(Body::from_stream(never))
            .unwrap();
        let (status, body) = raw(&gateway, request).await;
        assert_eq!(
            (status, &body["code"]),
            (415, &json!("unsupported_media_type")),
            "{encoding}"
        );
    }
    gateway.stop().await.unwrap();
}

/// Everybody may send them, a hundred at a time on each of many connections, and they are kept
/// until they are whole.
#[tokio::test]
async fn abuse_17_19_bodies_of_strangers_are_small() {
    let gateway = TestGateway::start().await.unwrap();
    let mut public = 0;
    for operation in api::v1::operations() {
        if operation.body_schema.is_none() || matches!(operation.access, api::Access::Needs(_)) {
            continue;
        }
        public += 1;
        let large = json!({ "secret": "x".repeat(5000), "name": "x" });
        let (method, path) = (operation.method.as_str(), operation.path);
        let answer = gateway.call("", method, path, Some(large)).await.unwrap();
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (413, "body_too_large"),
            "{path}"
        );
    }
    assert!(public > 0, "the first run takes a body from anybody");
    // With a key the same length is only wrong.
    let long = json!({ "name": "x", "description": "y".repeat(5000) });
    let answer = gateway
        .call(&gateway.owner, "POST", "/v1/projects", Some(long))
        .await
        .unwrap();
    assert_eq!(answer.status, 422, "{}", answer.body);
    gateway.stop().await.unwrap();
}

/// The answer to a creation holds what was created: for a wide key of the same user that may be a
/// secret which the narrow key could not have made.
#[tokio::test]
async fn abuse_02_03_a_repeated_request_is_answered_to_the_key_that_made_it_only() {
    let gateway = TestGateway::start().await.unwrap();
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
    let once = [("idempotency-key", "the-very-same-one")];
    let ask = async |key: &str| {
        let answer = gateway
            .call_with(key, "POST", "/v1/self/api-keys", Some(json!({})), &once)
            .await
            .unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body
    };
    let wide = ask(&gateway.owner).await;
    assert_eq!(ask(&gateway.owner).await, wide, "it is repeated to its own");
    let other = ask(narrow).await;
    assert_ne!(other["secret"], wide["secret"]);
    assert_eq!(
        other["api_key"]["limits"]["rules"],
        json!([{ "allow": "self" }])
    );
    gateway.stop().await.unwrap();
}

/// Whatever a browser makes of an answer, it takes it for what it says it is, runs nothing in it,
/// shows it in no frame, and tells nobody where it was. Hosts and people choose names that are in
/// the answers.
#[tokio::test]
async fn abuse_25_26_every_answer_says_how_browsers_must_treat_it() {
    let gateway = TestGateway::start().await.unwrap();
    let owner = gateway.owner.as_str();
    for (key, method, path) in [
        (owner, "GET", "/v1/self"),
        (owner, "GET", "/v1/metrics"),
        (owner, "GET", "/v1/audit/export"),
        (owner, "GET", "/v1/events"),
        ("", "GET", "/v1/agent/install.sh"),
        ("", "GET", "/v1/openapi.json"),
        ("", "GET", "/v1/self"),
        ("", "GET", "/v1/%3Cscript%3Ealert(1)%3C/script%3E"),
        ("", "PUT", "/v1/self"),
        ("", "POST", "/v1/first-run"),
    ] {
        let fields = [("origin", "https://evil.example")];
        let response = gateway
            .respond(key, method, path, None, &fields)
            .await
            .unwrap();
        let whose = format!("{method} {path}: {response:?}");
        assert_eq!(
            header(&response, "x-content-type-options"),
            "nosniff",
            "{whose}"
        );
        let policy = header(&response, "content-security-policy");
        assert_eq!(
            policy, "default-src 'none'; frame-ancestors 'none'",
            "{whose}"
        );
        assert_eq!(
            header(&response, "referrer-policy"),
            "no-referrer",
            "{whose}"
        );
        let media = header(&response, "content-type");
        assert!(!media.is_empty() && !media.contains("html"), "{whose}");
        let welcome = response.headers().keys();
        let mut welcome = welcome.filter(|name| name.as_str().starts_with("access-control-"));
        assert_eq!(welcome.next(), None, "{whose}");
        assert_eq!(header(&response, "set-cookie"), "", "{whose}");
    }
    gateway.stop().await.unwrap();
}

/// WebSockets are the one thing that browsers open across origins without asking first.
#[tokio::test]
async fn abuse_25_a_web_page_opens_no_web_socket() {
    let gateway = TestGateway::start().await.unwrap();
    for origin in ["https://evil.example", "null", "https://localhost:8443"] {
        let upgrade = [
            ("origin", origin),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let answer = gateway
            .call_with("", "GET", "/v1/agent/link", None, &upgrade)
            .await
            .unwrap();
        assert_eq!(answer.status, 400, "{origin}: {}", answer.body);
        assert!(
            answer.detail().contains("not for web pages"),
            "{}",
            answer.body
        );
    }
    gateway.stop().await.unwrap();
}

/// Text that people choose is told as it is, in JSON that says so; what is to be a name of
/// something is refused by its alphabet.
#[tokio::test]
async fn abuse_26_markup_is_text_in_json_or_is_refused() {
    let gateway = TestGateway::start().await.unwrap();
    let owner = gateway.owner.clone();
    let workspace = gateway
        .workspace("world", model::tenancy::Environment::Staging)
        .await
        .unwrap();
    let hosts = format!("/v1/workspaces/{}/hosts", workspace.id);
    for markup in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "<svg/onload=alert(1)>",
        "javascript:alert(1)",
        "{{7*7}}${7*7}<%= 7*7 %>",
        "</title><base href=//evil.example>",
    ] {
        let text = json!({ "hostname": "web1", "display_name": markup });
        let response = gateway
            .respond(&owner, "POST", &hosts, Some(text), &[])
            .await
            .unwrap();
        assert_eq!(response.status(), 201, "{markup}");
        assert_eq!(header(&response, "content-type"), "application/json");
        assert_eq!(header(&response, "x-content-type-options"), "nosniff");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let host: Value = serde_json::from_slice(&bytes.unwrap()).unwrap();
        assert_eq!(host["display_name"], markup);
        for body in [
            json!({ "hostname": markup }),
            json!({ "hostname": "web1", "labels": { markup: "x" } }),
            json!({ "hostname": "web1", "labels": { "x": markup } }),
        ] {
            let answer = gateway
                .call(&owner, "POST", &hosts, Some(body.clone()))
                .await
                .unwrap();
            assert_eq!(answer.status, 422, "{body}: {}", answer.body);
        }
        // A refusal that repeats what it refuses is JSON, too.
        let odd = [("accept", "text/html"), ("idempotency-key", markup)];
        let response = gateway
            .respond(
                &owner,
                "POST",
                &hosts,
                Some(json!({ "hostname": "x" })),
                &odd,
            )
            .await
            .unwrap();
        assert_eq!(
            header(&response, "content-type"),
            "application/problem+json"
        );
    }
    gateway.stop().await.unwrap();
}

/// There is no table for a spreadsheet, no answer that sends a browser elsewhere, and nothing that
/// fetches what a caller names. Whoever adds one of these finds this test, and what it asks for: a
/// leading `= + - @` in a cell quoted; targets only on our own origin; addresses resolved once,
/// held against what is allowed, and connected to as resolved.
#[tokio::test]
async fn abuse_27_nothing_exports_formulas_redirects_or_fetches() {
    for operation in api::v1::operations() {
        let media = operation.media;
        assert!(
            !media.contains("csv") && !media.contains("excel") && !media.contains("html"),
            "{} answers {media}",
            operation.id
        );
        assert!(
            !(300..400).contains(&operation.success),
            "{} redirects",
            operation.id
        );
    }
    let gateway = TestGateway::start().await.unwrap();
    for path in [
        "//evil.example/",
        "/%2f%2fevil.example",
        "/v1/self/",
        "/v1",
        "/",
        "/v1/self?next=https://evil.example&redirect=//evil.example&url=http://169.254.169.254/",
        "/v1/agent/install.sh?url=https://evil.example",
    ] {
        let forwarded = [
            ("host", "evil.example"),
            ("x-forwarded-host", "evil.example"),
            ("forwarded", "host=evil.example"),
            ("x-original-url", "/v1/users"),
        ];
        let response = gateway
            .respond(&gateway.owner, "GET", path, None, &forwarded)
            .await
            .unwrap();
        assert!(!response.status().is_redirection(), "{path}");
        assert_eq!(header(&response, "location"), "", "{path}");
        assert_eq!(header(&response, "refresh"), "", "{path}");
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await;
        let body = String::from_utf8_lossy(&bytes.unwrap()).into_owned();
        let about_itself = body.contains("must not") || body.contains("unknown field");
        assert!(
            about_itself || !body.contains("evil.example"),
            "{path}: {body}"
        );
    }
    // The gateway has no HTTP client to be sent anywhere with.
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../gateway/Cargo.toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
    for client in [
        "ureq",
        "reqwest",
        "isahc",
        "curl",
        "hyper-tls",
        "hyper-rustls",
    ] {
        assert!(
            !dependencies.contains(client),
            "{client} can be sent elsewhere"
        );
    }
    gateway.stop().await.unwrap();
}

/// The product holds nothing that could unpack anything: whoever adds it sets limits of output and
/// ratio, and tests them here.
#[test]
fn abuse_21_22_nothing_is_decompressed_anywhere() {
    let lock = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock");
    let lock = std::fs::read_to_string(lock).unwrap();
    for unpacker in [
        "flate2",
        "miniz_oxide",
        "zstd",
        "brotli",
        "lz4_flex",
        "lzma-rs",
        "xz2",
        "bzip2",
        "snap",
        "zip",
        "tar",
        "libdeflater",
        "async-compression",
    ] {
        let package = format!("name = \"{unpacker}\"\n");
        assert!(!lock.contains(&package), "{unpacker} is in the build");
    }
}
