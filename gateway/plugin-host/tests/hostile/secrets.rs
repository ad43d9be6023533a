//! Secrets: used and not seen, and out of everything that leaves a call.

use model::plugin::Limits;
use plugin_host::Invocation;

use crate::support::{SECRET, bench, deliver, event, last_line};

#[tokio::test]
async fn a_secret_that_a_server_echoes_gets_nowhere() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let went = deliver(&plugin, event("leak", "https://echo.example/")).await;
    let error = went.expect("runs").expect_err("says what it read");
    let log = plugin.logs(0, 100);
    let seen = format!("{error:?} {log:?}");
    assert!(error.message.contains("[secret token]"), "{error}");
    assert!(log.lines.len() >= 2, "written and printed");
    let encoded = data_encoding::BASE64.encode(format!("user:{SECRET}").as_bytes());
    for form in [SECRET, "hunter22", &encoded] {
        assert!(!seen.contains(form), "{form}: {seen}");
    }
}

#[tokio::test]
async fn errors_of_the_surroundings_are_read_without_secrets() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let went = deliver(&plugin, event("send", "https://down.example/")).await;
    let error = went.expect("runs").expect_err("down");
    assert_eq!(error.code, "net.refused");
    assert_eq!(error.message, "no answer to [secret token]");
}

#[tokio::test]
async fn abuse_34_a_secret_that_is_not_granted_is_not_asked_for() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let went = deliver(&plugin, event("other-secret", "")).await;
    assert_eq!(
        went.expect("runs").expect_err("denied").code,
        "denied.secret"
    );
}

#[tokio::test]
async fn a_signature_is_made_without_showing_the_secret() {
    let bench = bench();
    let (plugin, _) = bench.plugin("notifier", Limits::default()).await;
    let went = deliver(&plugin, event("hmac", "")).await;
    went.expect("runs").expect("signs");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, SECRET.as_bytes());
    let expected = data_encoding::HEXLOWER.encode(ring::hmac::sign(&key, b"{}").as_ref());
    assert_eq!(last_line(&plugin), expected);
}

#[tokio::test]
async fn requests_are_counted_and_the_plugin_reads_that_none_is_left() {
    let bench = bench();
    let limits = Limits {
        http_requests: 3,
        ..Limits::default()
    };
    let (plugin, world) = bench.plugin("notifier", limits).await;
    let mut many = event("send-often", "https://echo.example/");
    many.sequence = 10;
    let went = deliver(&plugin, many).await.expect("runs");
    assert_eq!(went.expect_err("denied").code, "limit.http_requests");
    assert_eq!(world.requests(), 3);
}

#[tokio::test]
async fn a_dead_server_is_left_alone_by_this_plugin() {
    let bench = bench();
    let (plugin, world) = bench.plugin("notifier", Limits::default()).await;
    let mut codes = Vec::new();
    for _ in 0..7 {
        let went = deliver(&plugin, event("send", "https://down.example/x")).await;
        codes.push(went.expect("runs").expect_err("down").code);
    }
    assert_eq!(
        codes[4..],
        ["net.refused", "breaker.target", "breaker.target"]
    );
    assert_eq!(world.requests(), 5);
    let went = deliver(&plugin, event("send", "https://echo.example/x")).await;
    went.expect("runs").expect("other servers are asked");
}

#[tokio::test]
async fn a_refused_credential_is_not_shown_again_at_once() {
    let bench = bench();
    let (plugin, world) = bench.plugin("notifier", Limits::default()).await;
    let mut codes = Vec::new();
    for _ in 0..3 {
        let batch = vec![event("refused", "https://echo.example/")];
        let went = plugin.deliver(Invocation::default(), batch).await;
        codes.push(went.expect("runs").remove(0).expect_err("refused").code);
    }
    assert_eq!(codes, ["guest.said", "guest.said", "breaker.credential"]);
    assert_eq!(world.requests(), 2);
}
