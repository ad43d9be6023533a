use loopback_plugin_sdk::power::Action;
use loopback_plugin_sdk::testing::{self, FakeHost};

use super::*;

/// A configuration with everything in it.
fn full() -> Value {
    json!({
        "url": "https://relay.example/api",
        "actions": {
            "on": { "path": "/outlets/{address}/power", "body": { "power": "on", "for": "{host}" } },
            "off": { "method": "PUT", "path": "/outlets/{address}/{action}" },
            "shutdown": { "path": "/outlets/{address}/{action}" },
            "reset": { "method": "GET", "path": "/outlets/{address}?do={action}&by={operation}" },
        },
        "observe": {
            "path": "/outlets/{address}", "state": "/power/state", "boot_mark": "/since",
            "states": { "ON": "on", "OFF": "off", "rising": "powering_on", "none": "absent" },
        },
        "poll": {
            "job": "/job/id", "path": "/jobs/{job}", "state": "/state",
            "running": ["queued", "running"], "done": ["ok"], "failed": ["bad"],
        },
        "bearer": true,
        "sign": true,
    })
}

fn config(without: &[&str]) -> Config {
    let mut config = full();
    for key in without {
        config.as_object_mut().unwrap().remove(*key);
    }
    serde_json::from_value(config).unwrap()
}

fn target() -> Target {
    testing::target("rack 1/7")
}

fn operation(action: Action) -> Operation {
    Operation {
        attempt: 2,
        ..testing::operation(action)
    }
}

fn state(word: &str) -> String {
    json!({ "power": { "state": word }, "since": 17 }).to_string()
}

fn before(action: Action) -> String {
    state(if action == Action::On { "OFF" } else { "ON" })
}

const OFFERED: [Action; 4] = [Action::On, Action::Shutdown, Action::Off, Action::Reset];

fn begin(host: &FakeHost, config: &Config, action: Action) -> Result<Begun, Error> {
    Webhook::begin(host, config, &operation(action), &target())
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    let found = request.headers.iter().find(|(key, _)| key == name);
    found.map(|(_, value)| value.as_str())
}

/// Method, path and body of each request; all go where the target says.
fn asked(host: &FakeHost) -> Vec<String> {
    let line = |request: Request| {
        assert_eq!(request.tls_profile.as_deref(), Some("pinned"));
        assert_eq!(request.route.as_deref(), Some("inside"));
        let path = request
            .url
            .strip_prefix("https://relay.example/api")
            .unwrap();
        let body = String::from_utf8(request.body).unwrap();
        format!("{} {path} {body}", request.method)
            .trim_end()
            .to_owned()
    };
    host.requests().into_iter().map(line).collect()
}

#[test]
fn each_action_is_the_request_that_was_configured() {
    for (action, wanted) in [
        (
            Action::On,
            r#"POST /outlets/rack%201%2F7/power {"for":"hst_1","power":"on"}"#,
        ),
        (
            Action::Off,
            r#"PUT /outlets/rack%201%2F7/off {"action":"off","address":"rack 1/7","attempt":2,"host":"hst_1","operation":"pop_1"}"#,
        ),
        (Action::Reset, "GET /outlets/rack%201%2F7?do=reset&by=pop_1"),
    ] {
        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .answer(202, &[], "");
        assert_eq!(begin(&host, &config(&[]), action).unwrap(), Begun::Done);
        assert_eq!(asked(&host), ["GET /outlets/rack%201%2F7", wanted]);
        let requests = host.requests();
        assert_eq!(header(&requests[0], "idempotency-key"), None);
        assert_eq!(header(&requests[1], "idempotency-key"), Some("pop_1/2"));
    }
}

#[test]
fn a_signature_covers_the_time_and_the_body() {
    let host = FakeHost::at(1_700_000_000_999)
        .answer(200, &[], &state("OFF"))
        .answer(204, &[], "");
    begin(&host, &config(&[]), Action::On).unwrap();
    for request in host.requests() {
        let (time, mac) = header(&request, "loopback-signature")
            .and_then(|value| value.split_once(",v1="))
            .unwrap();
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
    let host = FakeHost::at(0).answer(200, &[], &state("ON"));
    Webhook::observe(&host, &config(&["sign", "bearer"]), &target()).unwrap();
    let [request] = &host.requests()[..] else {
        panic!()
    };
    assert_eq!(header(request, "loopback-signature"), None);
    assert_eq!(request.credentials, []);
}

#[test]
fn states_are_those_that_were_configured_and_others_are_unknown() {
    for (raw, wanted) in [
        ("ON", State::On),
        ("OFF", State::Off),
        ("rising", State::PoweringOn),
        ("none", State::Absent),
        ("on", State::Unknown),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &state(raw));
        let seen = Webhook::observe(&host, &config(&[]), &target()).unwrap();
        assert_eq!((seen.state, seen.raw.as_str()), (wanted, raw));
        assert_eq!(seen.boot_mark.as_deref(), Some("17"));
    }
    let mut config = config(&[]);
    let observe = config.observe.as_mut().unwrap();
    observe.states = [("true".to_owned(), config::StateWord::On)].into();
    let host = FakeHost::at(0).answer(200, &[], r#"{"power":{"state":true}}"#);
    let seen = Webhook::observe(&host, &config, &target()).unwrap();
    assert_eq!((seen.state, seen.boot_mark), (State::On, None));
}

#[test]
fn garbage_is_no_state() {
    for body in [
        "",
        "ON",
        "{",
        r#"{"power":"ON"}"#,
        r#"{"power":{"state":{"is":"ON"}}}"#,
    ] {
        let host = FakeHost::at(0).answer(200, &[], body);
        let error = Webhook::observe(&host, &config(&[]), &target()).unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (ErrorKind::Upstream, "webhook.answer")
        );
    }
}

#[test]
fn where_it_leads_already_nothing_is_submitted() {
    for (action, word) in [
        (Action::On, "ON"),
        (Action::Off, "OFF"),
        (Action::Shutdown, "OFF"),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &state(word));
        let begun = begin(&host, &config(&[]), action).unwrap();
        assert!(matches!(begun, Begun::Already(seen) if seen.raw == word));
        assert_eq!(host.requests().len(), 1);
    }
    let host = FakeHost::at(0).answer(200, &[], &state("none"));
    let error = begin(&host, &config(&[]), Action::Reset).unwrap_err();
    assert_eq!(
        (error.kind, host.requests().len()),
        (ErrorKind::NotFound, 1)
    );
}

#[test]
fn without_a_request_for_states_nothing_is_known() {
    let blind = config(&["observe"]);
    let host = FakeHost::at(0).answer(204, &[], "");
    assert_eq!(begin(&host, &blind, Action::Off).unwrap(), Begun::Done);
    assert_eq!(host.requests().len(), 1);
    let host = FakeHost::at(0);
    assert!(
        !Webhook::inspect(&host, &blind, &target())
            .unwrap()
            .observable
    );
    let error = Webhook::observe(&host, &blind, &target()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    let resumed = Webhook::resume(&host, &blind, &operation(Action::On), &target());
    assert_eq!(resumed.unwrap(), Resumed::Unknown);
    assert_eq!(
        Webhook::check_target(&host, &blind, &target())
            .unwrap()
            .len(),
        1
    );
    assert!(host.requests().is_empty());
}

#[test]
fn what_is_not_configured_is_not_done() {
    let support = Webhook::inspect(&FakeHost::at(0), &config(&[]), &target()).unwrap();
    let offered: Vec<_> = support.actions.iter().map(|one| one.action).collect();
    assert_eq!(offered, OFFERED);
    for action in [Action::Reboot, Action::Cycle, Action::Nmi] {
        let host = FakeHost::at(0);
        let error = begin(&host, &config(&[]), action).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(host.requests().is_empty());
    }
}

#[test]
fn a_job_is_asked_after_until_it_has_ended() {
    let host = FakeHost::at(0)
        .answer(200, &[], &state("OFF"))
        .answer(202, &[], r#"{"job":{"id":"a/1"}}"#)
        .answer(200, &[], r#"{"state":"queued"}"#)
        .answer(200, &[], r#"{"state":"ok"}"#)
        .answer(200, &[], r#"{"state":"bad"}"#)
        .answer(200, &[], r#"{"state":"hovering"}"#);
    let Begun::Submitted(begun) = begin(&host, &config(&[]), Action::On).unwrap() else {
        panic!()
    };
    assert_eq!(begun.remote_id.as_deref(), Some("a/1"));
    let poll = |cursor: &[u8]| {
        Webhook::poll(
            &host,
            &config(&[]),
            &operation(Action::On),
            &target(),
            cursor,
        )
    };
    let Step::Running(progress) = poll(&begun.cursor).unwrap() else {
        panic!()
    };
    assert_eq!(progress.cursor, begun.cursor);
    assert_eq!(poll(&progress.cursor).unwrap(), Step::Done);
    let failed = poll(&progress.cursor).unwrap_err();
    assert!(failed.code == "webhook.job_failed" && !failed.is_transient());
    assert_eq!(
        poll(&progress.cursor).unwrap_err().kind,
        ErrorKind::Upstream
    );
    assert!(
        asked(&host)[2..]
            .iter()
            .all(|line| line == "GET /jobs/a%2F1")
    );
    for cursor in [&b""[..], b"a/1", b"\xff", b"job:", b"job:.."] {
        assert_eq!(poll(cursor).unwrap_err().kind, ErrorKind::Invalid);
    }
    assert_eq!(host.requests().len(), 6);
}

#[test]
fn only_what_may_have_been_submitted_is_of_unknown_outcome() {
    let lost = || {
        let mut lost = Error::new(ErrorKind::Timeout, "http.timeout", "too late");
        lost.outcome_unknown = true;
        lost
    };
    let config = config(&[]);
    for action in OFFERED {
        let host = FakeHost::at(0).fail(lost());
        assert!(!begin(&host, &config, action).unwrap_err().outcome_unknown);
        assert_eq!(host.requests().len(), 1);

        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .fail(lost());
        assert!(begin(&host, &config, action).unwrap_err().outcome_unknown);
        assert_eq!(host.requests().len(), 2);

        let refused = Error::new(ErrorKind::Unreachable, "http.connect_failed", "refused");
        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .fail(refused);
        assert!(!begin(&host, &config, action).unwrap_err().outcome_unknown);

        let long = Error::upstream("http.response_size", "too long");
        let host = FakeHost::at(0).answer(200, &[], &before(action)).fail(long);
        assert!(begin(&host, &config, action).unwrap_err().outcome_unknown);

        let long = json!({ "job": { "id": "x".repeat(600) } }).to_string();
        for body in [r#"{"job":{"#, "<html>", r#"{"job":{"id":""}}"#, &long] {
            let host = FakeHost::at(0)
                .answer(200, &[], &before(action))
                .answer(202, &[], body);
            assert!(
                begin(&host, &config, action).unwrap_err().outcome_unknown,
                "{body}"
            );
        }
        use ErrorKind::*;
        for (status, kind, outcome_unknown) in [
            (302, Invalid, false),
            (401, Auth, false),
            (403, Forbidden, false),
            (408, Timeout, true),
            (409, Conflict, false),
            (429, Throttled, false),
            (500, Upstream, true),
            (503, Busy, false),
        ] {
            let host = FakeHost::at(0).answer(200, &[], &before(action)).answer(
                status,
                &[("retry-after", "7")],
                "because",
            );
            let error = begin(&host, &config, action).unwrap_err();
            assert_eq!(
                (error.kind, error.outcome_unknown),
                (kind, outcome_unknown),
                "{status}"
            );
            let waits = matches!(status, 429 | 503).then_some(7_000);
            assert_eq!(error.retry_after_ms, waits, "{status}");
        }
    }
}

#[test]
fn resuming_looks_and_submits_nothing() {
    for (action, word, wanted) in [
        (Action::On, "ON", Resumed::Done),
        (Action::On, "OFF", Resumed::Unknown),
        (Action::Reset, "ON", Resumed::Unknown),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &state(word));
        let resumed = Webhook::resume(&host, &config(&[]), &operation(action), &target());
        assert_eq!(resumed.unwrap(), wanted);
        assert_eq!(asked(&host), ["GET /outlets/rack%201%2F7"]);
    }
}

#[test]
fn addresses_that_lead_elsewhere_are_not_asked_for() {
    for address in ["", ".", ".."] {
        let mut target = target();
        target.address = address.into();
        let host = FakeHost::at(0);
        let error = Webhook::observe(&host, &config(&[]), &target).unwrap_err();
        assert_eq!(error.code, "webhook.path");
        assert!(host.requests().is_empty());
    }
}

#[test]
fn configurations_that_cannot_work_are_found() {
    assert_eq!(
        Webhook::check(&config(&[]))
            .iter()
            .map(|one| one.path.as_str())
            .collect::<Vec<_>>(),
        ["/actions/reset/method"],
        "a signed GET is pointed out"
    );
    for (pointer, value, finding) in [
        ("/url", json!("relay.example"), "https://"),
        ("/url", json!("http://relay.example"), "without TLS"),
        ("/url", json!("https://relay.example/"), "slash at its end"),
        ("/url", json!("https://{address}.example"), "places"),
        ("/actions", json!({}), "at least one"),
        ("/actions/on/path", json!("outlets"), "begin with a slash"),
        (
            "/actions/on/path",
            json!("/{colour}"),
            "{colour} means nothing",
        ),
        (
            "/observe/path",
            json!("/{operation}"),
            "{operation} means nothing",
        ),
        ("/observe/state", json!("power"), "JSON Pointer"),
        ("/poll/path", json!("/jobs"), "{job}"),
        ("/actions/reset/body", json!({}), "no body"),
    ] {
        let mut config = full();
        match config.pointer_mut(pointer) {
            Some(place) => *place = value.clone(),
            None => config["actions"]["reset"]["body"] = value.clone(),
        }
        let found = Webhook::check(&serde_json::from_value(config).unwrap());
        assert!(
            found.iter().any(|one| one.message.contains(finding)),
            "{pointer} {value}: {found:?}"
        );
    }
    let found = Webhook::check(&config(&["sign", "bearer"]));
    assert!(found.iter().any(|one| one.message.contains("who asks")));
}
