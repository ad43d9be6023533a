use loopback_plugin_sdk::testing::FakeHost;
use serde_json::{Value, json};

use super::*;

const URL: &str = "https://hooks.example/in";

fn config(more: Value) -> Config {
    let mut config = json!({ "url": URL });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn event(sequence: u64, kind: &str, severity: &str) -> Event {
    Event {
        id: format!("evt_{sequence}"),
        sequence,
        time_ms: 1_700_000_000_000,
        kind: kind.into(),
        severity: severity.into(),
        workspace: Some("web".into()),
        host: Some("hst_1".into()),
        summary: "web-1 is unreachable <!channel> & more".into(),
        dedup_key: "hst_1".into(),
        body: r#"{"b":1,"a":1.0}"#.into(),
        extra: vec![],
    }
}

fn three() -> Vec<Event> {
    (1..=3)
        .map(|n| event(n, "host.unreachable", "critical"))
        .collect()
}

fn kinds(results: &[Result<(), Error>]) -> Vec<Option<(ErrorKind, &str)>> {
    results
        .iter()
        .map(|result| {
            result
                .as_ref()
                .err()
                .map(|error| (error.kind, error.code.as_str()))
        })
        .collect()
}

#[test]
fn an_event_goes_out_whole_with_its_id() {
    let host = FakeHost::at(0).answer(204, &[], "");
    let event = event(7, "host.unreachable", "critical");
    Webhook::deliver(&host, &config(json!({})), &event).unwrap();
    let [request] = &host.requests()[..] else {
        panic!()
    };
    assert_eq!(
        (request.method.as_str(), request.url.as_str()),
        ("POST", URL)
    );
    assert!(
        request
            .headers
            .contains(&("loopback-event".into(), "evt_7".into()))
    );
    assert_eq!(request.credentials, []);
    let body = String::from_utf8(request.body.clone()).unwrap();
    assert!(body.contains(r#""kind":"host.unreachable""#), "{body}");
    assert!(body.ends_with(r#""body":{"b":1,"a":1.0}}"#), "{body}");
}

#[test]
fn a_message_for_slack_calls_nobody_and_links_nowhere() {
    let host = FakeHost::at(0).answer(200, &[], "ok");
    let config = config(json!({
        "url": "https://hooks.slack.com/services/{address}", "shape": "slack"
    }));
    Webhook::deliver(&host, &config, &event(1, "host.unreachable", "critical")).unwrap();
    let [request] = &host.requests()[..] else {
        panic!()
    };
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(
        body,
        json!({ "text": ":rotating_light: web-1 is unreachable &lt;!channel&gt; &amp; more (web)" })
    );
    let place = ("address".to_owned(), Placement::Path("{address}".into()));
    assert_eq!(request.credentials, [place]);
}

#[test]
fn a_signature_covers_the_time_and_the_body() {
    let host = FakeHost::at(1_700_000_000_999).answer(200, &[], "");
    let config = config(json!({ "sign": true, "bearer": true }));
    Webhook::deliver(&host, &config, &event(1, "a", "info")).unwrap();
    let [request] = &host.requests()[..] else {
        panic!()
    };
    let header = request
        .headers
        .iter()
        .find(|(name, _)| name == "loopback-signature");
    let (time, mac) = header.unwrap().1.split_once(",v1=").unwrap();
    assert_eq!(time, "t=1700000000");
    let mut covered = b"signing Hash::Sha256 1700000000.".to_vec();
    covered.extend_from_slice(&request.body);
    let hex: String = covered.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(mac, hex);
    assert_eq!(
        request.credentials,
        [("token".to_owned(), Placement::Bearer)]
    );
}

#[test]
fn what_is_tried_again_holds_up_what_follows() {
    let host = FakeHost::at(0)
        .answer(200, &[], "")
        .answer(429, &[("retry-after", "30")], "");
    let results = Webhook::deliver_all(&host, &config(json!({})), &three());
    assert_eq!(
        kinds(&results),
        [
            None,
            Some((ErrorKind::Throttled, "webhook.status_429")),
            Some((ErrorKind::Busy, "delivery.waits")),
        ]
    );
    assert_eq!(
        results[1].as_ref().unwrap_err().retry_after_ms,
        Some(30_000)
    );
    assert_eq!(
        results[2].as_ref().unwrap_err().retry_after_ms,
        Some(30_000)
    );
    assert_eq!(host.requests().len(), 2);
}

#[test]
fn what_is_not_tried_again_does_not() {
    let host = FakeHost::at(0)
        .answer(400, &[], "no such channel")
        .answer(200, &[], "")
        .answer(200, &[], "");
    let results = Webhook::deliver_all(&host, &config(json!({})), &three());
    assert_eq!(
        kinds(&results),
        [Some((ErrorKind::Invalid, "webhook.status_400")), None, None]
    );
}

#[test]
fn a_lost_answer_is_sent_again_because_receivers_know_the_id() {
    let mut lost = Error::new(ErrorKind::Timeout, "http.timeout", "too late");
    lost.outcome_unknown = true;
    let host = FakeHost::at(0).fail(lost);
    let error = Webhook::deliver(&host, &config(json!({})), &event(1, "a", "info")).unwrap_err();
    assert!(error.is_transient() && !error.outcome_unknown);
}

#[test]
fn a_slow_receiver_does_not_cost_what_was_delivered() {
    let host = FakeHost::at(0)
        .slow(4_800)
        .answer(200, &[], "")
        .answer(200, &[], "");
    let results = Webhook::deliver_all(&host, &config(json!({})), &three());
    assert_eq!(
        kinds(&results),
        [None, None, Some((ErrorKind::Busy, "delivery.out_of_time"))]
    );
}

#[test]
fn only_wanted_events_are_sent() {
    let config = config(json!({ "kinds": ["host", "audit.verify"], "min_severity": "warning" }));
    for (kind, severity, sent) in [
        ("host.unreachable", "critical", true),
        ("host", "warning", true),
        ("hostess", "critical", false),
        ("audit", "critical", false),
        ("audit.verify.failed", "critical", true),
        ("host.connected", "notice", false),
        ("host.connected", "word of a later gateway", false),
    ] {
        let host = FakeHost::at(0).answer(200, &[], "");
        Webhook::deliver(&host, &config, &event(1, kind, severity)).unwrap();
        assert_eq!(host.requests().len() == 1, sent, "{kind} {severity}");
    }
}

#[test]
fn addresses_that_cannot_work_or_give_secrets_away_are_found() {
    for (url, finding) in [
        ("ftp://hooks.example/", Some("must be an https:// address")),
        ("https://", Some("must be an https:// address")),
        ("https://user:pw@hooks.example/", Some("user or password")),
        ("https://{address}/", Some("in the path only")),
        (
            "https://h.example/{address}/{address}",
            Some("in the path only"),
        ),
        ("https://h.example/?key={address}", Some("in the path only")),
        ("http://h.example/", Some("without TLS")),
        (
            "https://hooks.slack.com/services/T0/B0/x",
            Some("is a secret"),
        ),
        ("https://hooks.slack.com/services/{address}", None),
        ("https://h.example:8443/in?x=1", None),
    ] {
        let found = Webhook::check(&config(json!({ "url": url })));
        match finding {
            None => assert!(found.is_empty(), "{url}: {found:?}"),
            Some(text) => assert!(
                found.iter().any(|one| one.message.contains(text)),
                "{url}: {found:?}"
            ),
        }
    }
}
