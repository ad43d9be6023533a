use loopback_plugin_sdk::testing::{self, FakeHost, operation};
use serde_json::{Value, json};

use super::*;

const OFFERED: [(Action, &str); 5] = [
    (Action::On, "poweron"),
    (Action::Shutdown, "shutdown"),
    (Action::Off, "poweroff"),
    (Action::Reboot, "reboot"),
    (Action::Reset, "reset"),
];

fn config(more: Value) -> Config {
    serde_json::from_value(more).unwrap()
}

fn own() -> Config {
    config(json!({}))
}

fn target() -> Target {
    testing::target("42")
}

fn server(status: &str) -> Value {
    json!({
        "id": 42, "name": "web-1", "status": status, "locked": false, "rescue_enabled": false,
        "created": "2026-01-30T23:55:00+00:00",
        "public_net": { "ipv4": { "ip": "192.0.2.1" } },
        "private_net": [{ "network": 4711, "ip": "10.0.0.2", "mac_address": "86:00:FF:2a:7d:e1" }],
        "server_type": { "id": 1, "name": "cx22" },
        "datacenter": { "id": 1, "name": "fsn1-dc8" },
        "protection": { "delete": false },
    })
}

fn one(status: &str) -> String {
    json!({ "server": server(status) }).to_string()
}

fn before(action: Action) -> String {
    one(if action == Action::On {
        "off"
    } else {
        "running"
    })
}

fn action(status: &str) -> Value {
    json!({
        "id": 13, "command": "start_server", "status": status, "progress": 40,
        "started": "2026-01-30T23:55:00+00:00", "finished": null,
        "resources": [{ "id": 42, "type": "server" }],
        "error": (status == "error")
            .then(|| json!({ "code": "action_failed", "message": "Action failed" })),
    })
}

fn one_action(status: &str) -> String {
    json!({ "action": action(status) }).to_string()
}

fn refused(code: &str) -> String {
    json!({ "error": { "code": code, "message": "because", "details": null } }).to_string()
}

fn begin(host: &FakeHost, action: Action) -> Result<Begun, Error> {
    Hetzner::begin(host, &own(), &operation(action), &target())
}

fn poll(host: &FakeHost, cursor: &[u8]) -> Result<Step, Error> {
    Hetzner::poll(host, &own(), &operation(Action::On), &target(), cursor)
}

/// Method and path of each request; all carry the token and go where the target says.
fn asked(host: &FakeHost) -> Vec<String> {
    let line = |request: Request| {
        assert_eq!(request.tls_profile.as_deref(), Some("pinned"));
        assert_eq!(request.route.as_deref(), Some("inside"));
        assert_eq!(
            request.credentials,
            [("token".to_owned(), Placement::Bearer)]
        );
        let path = request.url.strip_prefix("https://api.hetzner.cloud/v1/");
        format!("{} {}", request.method, path.unwrap())
    };
    host.requests().into_iter().map(line).collect()
}

#[test]
fn states_are_those_of_the_contract_and_unknown_ones_are_not_guessed() {
    for (raw, state) in [
        ("running", State::On),
        ("off", State::Off),
        ("starting", State::PoweringOn),
        ("initializing", State::PoweringOn),
        ("stopping", State::PoweringOff),
        ("deleting", State::Absent),
        ("migrating", State::Unknown),
        ("rebuilding", State::Unknown),
        ("unknown", State::Unknown),
        ("hovering", State::Unknown),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &one(raw));
        let seen = Hetzner::observe(&host, &own(), &target()).unwrap();
        assert_eq!((seen.state, seen.raw.as_str()), (state, raw));
        assert_eq!(asked(&host), ["GET servers/42"]);
    }
    let host = FakeHost::at(0).answer(404, &[], &refused("not_found"));
    let seen = Hetzner::observe(&host, &own(), &target()).unwrap();
    assert_eq!(
        (seen.state, seen.raw.as_str()),
        (State::Absent, "not_found")
    );
}

#[test]
fn an_action_is_submitted_once_and_asked_after_by_its_id() {
    for (action, word) in OFFERED {
        let host = FakeHost::at(0).answer(200, &[], &before(action)).answer(
            201,
            &[],
            &one_action("running"),
        );
        let Begun::Submitted(progress) = begin(&host, action).unwrap() else {
            panic!("{action:?}")
        };
        assert_eq!(progress.cursor, b"13");
        assert_eq!(progress.remote_id.as_deref(), Some("13"));
        assert_eq!(progress.percent, Some(40));
        assert_eq!(
            asked(&host)[1..],
            [format!("POST servers/42/actions/{word}")]
        );
    }
    let host = FakeHost::at(0)
        .answer(200, &[], &one_action("running"))
        .answer(200, &[], &one_action("success"));
    assert!(matches!(poll(&host, b"13").unwrap(), Step::Running(_)));
    assert_eq!(poll(&host, b"13").unwrap(), Step::Done);
    assert_eq!(asked(&host), ["GET actions/13", "GET actions/13"]);
}

#[test]
fn an_action_that_failed_is_not_tried_again() {
    let host = FakeHost::at(0).answer(200, &[], &one_action("error"));
    let error = poll(&host, b"13").unwrap_err();
    assert!(!error.is_transient() && !error.outcome_unknown);
    assert!(error.message.contains("action_failed"), "{}", error.message);
}

#[test]
fn nonsense_for_a_cursor_asks_nothing() {
    for cursor in [&b"x"[..], b"", b"\xff", b"-1", b"99999999999999999999999"] {
        let host = FakeHost::at(0);
        assert_eq!(poll(&host, cursor).unwrap_err().code, "hetzner.cursor");
        assert!(host.requests().is_empty());
    }
    let other = one_action("success").replace("13", "14");
    let host = FakeHost::at(0).answer(200, &[], &other);
    assert_eq!(poll(&host, b"13").unwrap_err().kind, ErrorKind::Upstream);
}

#[test]
fn where_it_leads_already_nothing_is_submitted() {
    for (action, state) in [
        (Action::On, "running"),
        (Action::Shutdown, "off"),
        (Action::Off, "off"),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &one(state));
        assert!(matches!(begin(&host, action).unwrap(), Begun::Already(seen) if seen.raw == state));
        assert_eq!(host.requests().len(), 1);
    }
    let host = FakeHost::at(0).answer(404, &[], &refused("not_found"));
    assert_eq!(
        begin(&host, Action::Reset).unwrap_err().kind,
        ErrorKind::NotFound
    );
}

#[test]
fn what_is_not_offered_is_not_done() {
    let support = Hetzner::inspect(&FakeHost::at(0), &own(), &target()).unwrap();
    let offered: Vec<_> = support.actions.iter().map(|one| one.action).collect();
    assert_eq!(offered, OFFERED.map(|(action, _)| action));
    for action in [Action::Cycle, Action::Nmi] {
        let host = FakeHost::at(0);
        assert_eq!(
            begin(&host, action).unwrap_err().kind,
            ErrorKind::Unsupported
        );
        assert!(host.requests().is_empty());
    }
}

#[test]
fn refusals_become_kinds() {
    use ErrorKind::*;
    for (status, code, kind, outcome_unknown) in [
        (401, "unauthorized", Auth, false),
        (403, "token_readonly", Forbidden, false),
        (403, "protected", Forbidden, false),
        (404, "not_found", NotFound, false),
        (409, "conflict", Busy, false),
        (409, "uniqueness_error", Conflict, false),
        (412, "resource_unavailable", Upstream, false),
        (422, "invalid_input", Invalid, false),
        (423, "locked", Busy, false),
        (429, "rate_limit_exceeded", Throttled, false),
        (503, "maintenance", Busy, false),
        (500, "server_error", Upstream, true),
        (504, "timeout", Upstream, true),
    ] {
        for body in [&refused(code), "<html>"] {
            let host = FakeHost::at(0)
                .answer(200, &[], &one("running"))
                .answer(status, &[], body);
            let error = begin(&host, Action::Reset).unwrap_err();
            assert_eq!(error.outcome_unknown, outcome_unknown, "{status} {body}");
            if body != "<html>" {
                assert_eq!(error.kind, kind, "{status} {body}");
                assert_eq!(error.message, format!("{code}: because"));
            }
        }
    }
    for (status, kind) in [(302, Invalid), (401, Auth), (423, Busy), (429, Throttled)] {
        let host = FakeHost::at(0).answer(status, &[], "");
        let seen = Hetzner::observe(&host, &own(), &target());
        assert_eq!(seen.unwrap_err().kind, kind, "{status}");
    }
}

#[test]
fn a_limit_is_waited_for_as_long_as_the_api_says_and_a_minute_at_most() {
    const NOW: u64 = 1_700_000_000_000;
    for (headers, ms) in [
        (&[("ratelimit-reset", "1700000020")][..], Some(20_000)),
        (&[("ratelimit-reset", "1700003600")], Some(60_000)),
        (&[("ratelimit-reset", "1600000000")], Some(1_000)),
        (
            &[("ratelimit-reset", "1700000020"), ("retry-after", "7")],
            Some(7_000),
        ),
        (&[("ratelimit-reset", "soon")], None),
        (&[], None),
    ] {
        let host = FakeHost::at(NOW).answer(429, headers, &refused("rate_limit_exceeded"));
        let error = Hetzner::observe(&host, &own(), &target()).unwrap_err();
        assert_eq!(error.retry_after_ms, ms, "{headers:?}");
    }
}

#[test]
fn only_what_may_have_been_submitted_is_of_unknown_outcome() {
    let lost = || {
        let mut lost = Error::new(ErrorKind::Timeout, "http.timeout", "too late");
        lost.outcome_unknown = true;
        lost
    };
    for (action, _) in OFFERED {
        let host = FakeHost::at(0).fail(lost());
        assert!(!begin(&host, action).unwrap_err().outcome_unknown);
        assert_eq!(host.requests().len(), 1);

        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .fail(lost());
        assert!(begin(&host, action).unwrap_err().outcome_unknown);
        assert_eq!(host.requests().len(), 2);

        let refused = Error::new(ErrorKind::Unreachable, "http.connect_failed", "refused");
        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .fail(refused);
        assert!(!begin(&host, action).unwrap_err().outcome_unknown);

        let long = Error::upstream("http.response_size", "too long");
        let host = FakeHost::at(0).answer(200, &[], &before(action)).fail(long);
        assert!(begin(&host, action).unwrap_err().outcome_unknown);

        for half in ["", r#"{"action":{"id":13,"#, &one_action("hovering")] {
            let host = FakeHost::at(0)
                .answer(200, &[], &before(action))
                .answer(201, &[], half);
            let error = begin(&host, action).unwrap_err();
            assert!(
                error.outcome_unknown && error.kind == ErrorKind::Upstream,
                "{half}"
            );
        }
    }
}

#[test]
fn garbage_is_no_state() {
    let other = one("running").replace("42", "43");
    for body in [
        "",
        "[]",
        "<html>",
        r#"{"server":{"id":42,"#,
        r#"{"server":{"id":42}}"#,
        &other,
    ] {
        let host = FakeHost::at(0).answer(200, &[], body);
        let error = Hetzner::observe(&host, &own(), &target()).unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (ErrorKind::Upstream, "hetzner.answer")
        );
    }
}

#[test]
fn resuming_looks_and_submits_nothing() {
    let running = json!({ "actions": [
        { "id": 12, "command": "change_protection", "status": "running" }, action("running"),
    ] });
    let none = json!({ "actions": [] });
    let resume = |host: &FakeHost, action| {
        let resumed = Hetzner::resume(host, &own(), &operation(action), &target()).unwrap();
        assert!(asked(host).iter().all(|line| line.starts_with("GET ")));
        resumed
    };
    let host = FakeHost::at(0).answer(200, &[], &running.to_string());
    let Resumed::Running(progress) = resume(&host, Action::On) else {
        panic!()
    };
    assert_eq!(progress.cursor, b"13");
    for (action, list, state, wanted) in [
        (Action::Off, &running, "off", Resumed::Done),
        (Action::On, &none, "running", Resumed::Done),
        (Action::On, &none, "off", Resumed::Unknown),
        (Action::Reboot, &none, "running", Resumed::Unknown),
        (Action::Reset, &running, "running", Resumed::Unknown),
    ] {
        let host =
            FakeHost::at(0)
                .answer(200, &[], &list.to_string())
                .answer(200, &[], &one(state));
        assert_eq!(resume(&host, action), wanted, "{action:?} {state}");
    }
}

#[test]
fn targets_are_ids_and_nothing_else() {
    let host = FakeHost::at(0);
    for (address, params, code) in [
        ("", "{}", "target.address"),
        ("web-1", "{}", "target.address"),
        ("+1", "{}", "target.address"),
        ("42/actions/poweroff", "{}", "target.address"),
        ("42", r#"{"zone":1}"#, "target.params"),
    ] {
        let mut target = target();
        (target.address, target.params) = (address.into(), params.into());
        let error = Hetzner::observe(&host, &own(), &target).unwrap_err();
        assert_eq!(error.code, code, "{address} {params}");
    }
    assert!(host.requests().is_empty());
    let host = FakeHost::at(0).answer(404, &[], &refused("not_found"));
    let found = Hetzner::check_target(&host, &own(), &target()).unwrap();
    assert!(found[0].message.contains("no such server"));
    let host = FakeHost::at(0).answer(401, &[], &refused("unauthorized"));
    let error = Hetzner::check_target(&host, &own(), &target()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
}

#[test]
fn machines_are_listed_page_by_page() {
    let page = |next: Value| {
        json!({
            "servers": [server("off")],
            "meta": { "pagination": { "page": 1, "next_page": next, "last_page": 2 } },
        })
        .to_string()
    };
    let host = FakeHost::at(0)
        .answer(200, &[], &page(json!(2)))
        .answer(200, &[], &page(json!(null)))
        .answer(200, &[], &page(json!(2)));
    let own = config(json!({ "tls_profile": "ours", "route": "there" }));
    let first = Hetzner::discover(&host, &own, None).unwrap();
    let [found] = &first.found[..] else { panic!() };
    assert_eq!(
        (found.address.as_str(), found.name.as_str()),
        ("42", "web-1")
    );
    assert_eq!(found.macs, ["86:00:ff:2a:7d:e1"]);
    assert_eq!(found.serial.as_deref(), Some("42"));
    assert_eq!(found.state, State::Off);
    assert_eq!(first.next.as_deref(), Some("2"));
    assert_eq!(
        Hetzner::discover(&host, &own, Some("2")).unwrap().next,
        None
    );
    // One that leads back ends here.
    assert_eq!(
        Hetzner::discover(&host, &own, Some("2")).unwrap().next,
        None
    );
    let requests = host.requests();
    assert!(
        requests[1]
            .url
            .ends_with("/servers?page=2&per_page=50&sort=id:asc")
    );
    assert_eq!(requests[0].tls_profile.as_deref(), Some("ours"));
    assert_eq!(requests[0].route.as_deref(), Some("there"));
    assert!(Hetzner::discover(&host, &own, Some("x")).is_err());
}

#[test]
fn configurations_that_cannot_work_are_found() {
    for (endpoint, finding) in [
        ("https://api.hetzner.cloud/v1", None),
        ("https://cloud.example:8443", None),
        ("cloud.example", Some("https://")),
        ("http://cloud.example", Some("without TLS")),
        ("https://cloud.example/v1/", Some("slash at its end")),
        ("https://user@cloud.example", Some("must not have")),
    ] {
        let found = Hetzner::check(&config(json!({ "endpoint": endpoint })));
        match finding {
            None => assert!(found.is_empty(), "{endpoint}: {found:?}"),
            Some(text) => assert!(found.iter().any(|one| one.message.contains(text))),
        }
    }
}
