use loopback_plugin_sdk::power::BootDevice;
use loopback_plugin_sdk::power::BootOnce;
use loopback_plugin_sdk::testing::{self, FakeHost, operation};
use serde_json::{Value, json};

use super::*;

const ID: &str = "i-0123456789abcdef0";
const ALL: [Action; 7] = [
    Action::On,
    Action::Shutdown,
    Action::Off,
    Action::Reboot,
    Action::Reset,
    Action::Cycle,
    Action::Nmi,
];
const OFFERED: [Action; 4] = [Action::On, Action::Shutdown, Action::Off, Action::Reboot];

fn config(more: Value) -> Config {
    let mut config = json!({ "region": "eu-central-1" });
    for (key, value) in more.as_object().unwrap() {
        config[key] = value.clone();
    }
    serde_json::from_value(config).unwrap()
}

fn target() -> Target {
    testing::target(ID)
}

/// An instance that the action is to be done to, as `DescribeInstances` tells it.
fn before(action: Action) -> String {
    described(if action == Action::On {
        "stopped"
    } else {
        "running"
    })
}

fn described(state: &str) -> String {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">
  <requestId>8f7724cf-496f-496e-8fe3-example</requestId>
  <reservationSet><item><reservationId>r-1</reservationId><instancesSet><item>
    <instanceId>{ID}</instanceId>
    <instanceState><code>0</code><name>{state}</name></instanceState>
    <reason/>
    <instanceType>t3.micro</instanceType>
    <launchTime>2026-05-08T16:46:19.000Z</launchTime>
    <placement><availabilityZone>eu-central-1a</availabilityZone></placement>
    <rootDeviceType>ebs</rootDeviceType>
    <tagSet><item><key>team</key><value>x</value></item>
      <item><key>Name</key><value>web &amp; more</value></item></tagSet>
    <networkInterfaceSet><item><macAddress>02:DD:2C:5E:01:69</macAddress></item></networkInterfaceSet>
  </item></instancesSet></item></reservationSet>
</DescribeInstancesResponse>"#
    )
}

fn refused(code: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>because</Message></Error></Errors>\
         <RequestID>ea966190-f9aa</RequestID></Response>"
    )
}

fn taken(call: &str) -> String {
    format!("<{call}Response><requestId>59dbff89</requestId></{call}Response>")
}

fn begin(host: &FakeHost, action: Action) -> Result<Begun, Error> {
    Ec2::begin(host, &config(json!({})), &operation(action), &target())
}

/// What a call asked for, without the version.
fn asked(host: &FakeHost) -> Vec<String> {
    let body = |request: Request| {
        let body = String::from_utf8(request.body).unwrap();
        body.strip_prefix("Action=")
            .unwrap()
            .replace("&Version=2016-11-15", "")
    };
    host.requests().into_iter().map(body).collect()
}

#[test]
fn requests_are_signed_forms_and_go_where_the_target_says() {
    let host = FakeHost::at(0).answer(200, &[], &described("running"));
    Ec2::observe(&host, &config(json!({})), &target()).unwrap();
    let [request] = &host.requests()[..] else {
        panic!()
    };
    assert_eq!(request.method, "POST");
    assert_eq!(request.url, "https://ec2.eu-central-1.amazonaws.com/");
    let signed = "access-key-id POST https://ec2.eu-central-1.amazonaws.com/ eu-central-1/ec2";
    assert!(
        request
            .headers
            .contains(&("authorization".into(), signed.into()))
    );
    assert_eq!(request.tls_profile.as_deref(), Some("pinned"));
    assert_eq!(request.route.as_deref(), Some("inside"));
    assert_eq!(request.timeout_ms, 4_000);
    assert_eq!(
        asked(&host),
        [format!("DescribeInstances&InstanceId.1={ID}")]
    );
}

#[test]
fn a_target_of_another_region_is_asked_for_there() {
    let mut target = target();
    target.params = r#"{"region":"us-east-1"}"#.into();
    let host = FakeHost::at(0).answer(200, &[], &described("running"));
    Ec2::observe(&host, &config(json!({})), &target).unwrap();
    assert_eq!(
        host.requests()[0].url,
        "https://ec2.us-east-1.amazonaws.com/"
    );

    let host = FakeHost::at(0);
    let own = config(json!({ "endpoint": "https://cloud.example" }));
    let error = Ec2::observe(&host, &own, &target).unwrap_err();
    assert_eq!(error.code, "target.params");
    for params in [r#"{"region":"x.example/"}"#, r#"{"zone":"a"}"#] {
        target.params = params.into();
        let error = Ec2::observe(&host, &config(json!({})), &target).unwrap_err();
        assert_eq!(error.code, "target.params", "{params}");
    }
    target.params = "{}".into();
    for address in ["", "web-1", "i-1&Action=TerminateInstances", "i-ä"] {
        target.address = address.into();
        let error = Ec2::observe(&host, &config(json!({})), &target).unwrap_err();
        assert_eq!(error.code, "target.address", "{address}");
    }
    assert!(host.requests().is_empty());
}

#[test]
fn states_are_those_of_the_contract_and_unknown_ones_are_not_guessed() {
    for (raw, state) in [
        ("pending", State::PoweringOn),
        ("running", State::On),
        ("stopping", State::PoweringOff),
        ("stopped", State::Off),
        ("shutting-down", State::Absent),
        ("terminated", State::Absent),
        ("hovering", State::Unknown),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &described(raw));
        let seen = Ec2::observe(&host, &config(json!({})), &target()).unwrap();
        assert_eq!((seen.state, seen.raw.as_str()), (state, raw));
        assert_eq!(seen.boot_mark.as_deref(), Some("2026-05-08T16:46:19.000Z"));
    }
    let host = FakeHost::at(0).answer(400, &[], &refused(NOT_FOUND));
    let seen = Ec2::observe(&host, &config(json!({})), &target()).unwrap();
    assert_eq!((seen.state, seen.raw.as_str()), (State::Absent, NOT_FOUND));
}

#[test]
fn each_action_is_one_call() {
    for (action, call) in [
        (Action::On, format!("StartInstances&InstanceId.1={ID}")),
        (Action::Shutdown, format!("StopInstances&InstanceId.1={ID}")),
        (
            Action::Off,
            format!("StopInstances&InstanceId.1={ID}&Force=true"),
        ),
        (Action::Reboot, format!("RebootInstances&InstanceId.1={ID}")),
    ] {
        let name = call.split('&').next().unwrap();
        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .answer(200, &[], &taken(name));
        assert_eq!(begin(&host, action).unwrap(), Begun::Done, "{action:?}");
        assert_eq!(asked(&host)[1..], [call]);
    }
    let host = FakeHost::at(0)
        .answer(200, &[], &described("running"))
        .answer(200, &[], &taken("StopInstances"));
    let hard = config(json!({ "skip_os_shutdown": true }));
    Ec2::begin(&host, &hard, &operation(Action::Off), &target()).unwrap();
    assert!(asked(&host)[1].ends_with("&Force=true&SkipOsShutdown=true"));
}

#[test]
fn what_is_not_offered_is_not_done() {
    let support = Ec2::inspect(&FakeHost::at(0), &config(json!({})), &target()).unwrap();
    let offered: Vec<_> = support.actions.iter().map(|one| one.action).collect();
    assert_eq!(offered, OFFERED);
    for action in ALL.into_iter().filter(|action| !OFFERED.contains(action)) {
        let host = FakeHost::at(0);
        let error = begin(&host, action).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unsupported);
        assert!(!error.outcome_unknown && host.requests().is_empty());
    }
    let mut with_boot = operation(Action::On);
    with_boot.boot = Some(BootOnce {
        device: BootDevice::Network,
        url: None,
        uefi: None,
    });
    let host = FakeHost::at(0);
    let error = Ec2::begin(&host, &config(json!({})), &with_boot, &target()).unwrap_err();
    assert_eq!(
        (error.code.as_str(), host.requests().len()),
        ("ec2.boot", 0)
    );
}

#[test]
fn where_it_leads_already_nothing_is_submitted() {
    for (action, state) in [
        (Action::On, "running"),
        (Action::Shutdown, "stopped"),
        (Action::Off, "stopped"),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &described(state));
        let begun = begin(&host, action).unwrap();
        assert!(matches!(begun, Begun::Already(seen) if seen.raw == state));
        assert_eq!(host.requests().len(), 1);
    }
    let host = FakeHost::at(0).answer(200, &[], &described("terminated"));
    assert_eq!(
        begin(&host, Action::On).unwrap_err().kind,
        ErrorKind::NotFound
    );
    assert_eq!(host.requests().len(), 1);
}

#[test]
fn refusals_become_kinds() {
    use ErrorKind::*;
    for (status, code, kind, outcome_unknown) in [
        (401, "AuthFailure", Auth, false),
        (403, "SignatureDoesNotMatch", Auth, false),
        (400, "RequestExpired", Auth, false),
        (403, "UnauthorizedOperation", Forbidden, false),
        (400, "OperationNotPermitted", Forbidden, false),
        (503, "RequestLimitExceeded", Throttled, false),
        (400, "Throttling", Throttled, false),
        (503, "Unavailable", Busy, false),
        (500, "InsufficientInstanceCapacity", Upstream, false),
        (400, "VcpuLimitExceeded", Forbidden, false),
        (400, "IncorrectInstanceState", Conflict, false),
        (400, "UnsupportedOperation", Unsupported, false),
        (400, "Client.InvalidInstanceID.NotFound", NotFound, false),
        (400, "InvalidParameterValue", Invalid, false),
        (500, "InternalError", Upstream, true),
    ] {
        let host = FakeHost::at(0)
            .answer(200, &[], &described("running"))
            .answer(status, &[("retry-after", "7")], &refused(code));
        let error = begin(&host, Action::Reboot).unwrap_err();
        assert_eq!(
            (error.kind, error.outcome_unknown),
            (kind, outcome_unknown),
            "{code}"
        );
        assert!(error.message.ends_with(": because"), "{}", error.message);
        assert_eq!(
            error.retry_after_ms,
            (status == 503).then_some(7_000),
            "{code}"
        );
    }
}

#[test]
fn answers_of_others_are_judged_by_their_status() {
    use ErrorKind::*;
    for (status, kind, outcome_unknown) in [
        (302, Invalid, false),
        (401, Auth, false),
        (403, Forbidden, false),
        (408, Timeout, true),
        (409, Conflict, false),
        (429, Throttled, false),
        (502, Upstream, true),
        (503, Busy, false),
        (504, Upstream, true),
    ] {
        let host = FakeHost::at(0)
            .answer(200, &[], &described("running"))
            .answer(status, &[], "<html>");
        let error = begin(&host, Action::Off).unwrap_err();
        assert_eq!(
            (error.kind, error.outcome_unknown),
            (kind, outcome_unknown),
            "{status}"
        );
    }
}

#[test]
fn a_state_that_passes_makes_a_conflict_wait() {
    for (state, kind) in [
        ("stopping", ErrorKind::Busy),
        ("running", ErrorKind::Conflict),
    ] {
        let host =
            FakeHost::at(0)
                .answer(200, &[], &described(state))
                .answer(400, &[], &refused(STATE));
        assert_eq!(
            begin(&host, Action::Reboot).unwrap_err().kind,
            kind,
            "{state}"
        );
    }
}

#[test]
fn only_what_may_have_been_submitted_is_of_unknown_outcome() {
    let lost = || {
        let mut lost = Error::new(ErrorKind::Timeout, "http.timeout", "too late");
        lost.outcome_unknown = true;
        lost
    };
    for action in OFFERED {
        let host = FakeHost::at(0).fail(lost());
        let error = begin(&host, action).unwrap_err();
        assert!(
            !error.outcome_unknown && host.requests().len() == 1,
            "{action:?}"
        );

        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .fail(lost());
        let error = begin(&host, action).unwrap_err();
        assert!(
            error.outcome_unknown && host.requests().len() == 2,
            "{action:?}"
        );

        let refused = Error::new(ErrorKind::Unreachable, "http.connect_failed", "refused");
        let host = FakeHost::at(0)
            .answer(200, &[], &before(action))
            .fail(refused);
        assert!(!begin(&host, action).unwrap_err().outcome_unknown);

        let long = Error::upstream("http.response_size", "too long");
        let host = FakeHost::at(0).answer(200, &[], &before(action)).fail(long);
        assert!(begin(&host, action).unwrap_err().outcome_unknown);

        for half in [
            "<StartInstancesResponse><instan",
            "",
            &taken("DescribeInstances"),
        ] {
            let host = FakeHost::at(0)
                .answer(200, &[], &before(action))
                .answer(200, &[], half);
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
    let other = described("running").replace(ID, "i-other");
    for body in [
        "",
        "<html>",
        "{}",
        &described("running")[..300],
        &other,
        &taken("Other"),
    ] {
        let host = FakeHost::at(0).answer(200, &[], body);
        let error = Ec2::observe(&host, &config(json!({})), &target()).unwrap_err();
        assert_eq!(
            (error.kind, error.code.as_str()),
            (ErrorKind::Upstream, "ec2.answer")
        );
    }
}

#[test]
fn resuming_looks_and_submits_nothing() {
    for (action, state, resumed) in [
        (Action::On, "pending", Resumed::Done),
        (Action::On, "running", Resumed::Done),
        (Action::On, "stopped", Resumed::Unknown),
        (Action::Off, "stopping", Resumed::Done),
        (Action::Shutdown, "stopped", Resumed::Done),
        (Action::Shutdown, "running", Resumed::Unknown),
        (Action::Reboot, "running", Resumed::Unknown),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &described(state));
        let got = Ec2::resume(&host, &config(json!({})), &operation(action), &target());
        assert_eq!(got.unwrap(), resumed, "{action:?} {state}");
        assert!(
            asked(&host)
                .iter()
                .all(|call| call.starts_with("DescribeInstances"))
        );
    }
}

#[test]
fn a_rehearsal_finds_what_the_credentials_may_not_do() {
    let host = FakeHost::at(0)
        .answer(200, &[], &described("stopped"))
        .answer(412, &[], &refused(DRY_RUN))
        .answer(403, &[], &refused("UnauthorizedOperation"))
        .answer(400, &[], &refused(STATE));
    let found = Ec2::check_target(&host, &config(json!({})), &target()).unwrap();
    let messages: Vec<_> = found.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(
        messages,
        ["StartInstances is refused: UnauthorizedOperation: because"]
    );
    assert!(
        asked(&host)[1..]
            .iter()
            .all(|call| call.ends_with("&DryRun=true"))
    );

    let host = FakeHost::at(0)
        .answer(200, &[], &described("running"))
        .answer(401, &[], &refused("AuthFailure"));
    let error = Ec2::check_target(&host, &config(json!({})), &target()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Auth);
}

#[test]
fn a_cloud_that_knows_no_rehearsal_is_not_made_to_do_anything() {
    for (state, harmless) in [("running", "StartInstances"), ("stopped", "StopInstances")] {
        let host =
            FakeHost::at(0)
                .answer(200, &[], &described(state))
                .answer(200, &[], &taken(harmless));
        let found = Ec2::check_target(&host, &config(json!({})), &target()).unwrap();
        assert!(found[0].message.contains("no notice of DryRun"));
        let calls = asked(&host);
        assert!(
            calls.len() == 2 && calls[1].starts_with(harmless),
            "{calls:?}"
        );
    }
    let host = FakeHost::at(0).answer(200, &[], &described("stopping"));
    let found = Ec2::check_target(&host, &config(json!({})), &target()).unwrap();
    assert!(found.len() == 1 && host.requests().len() == 1);
}

#[test]
fn targets_that_are_not_there_are_findings() {
    for (status, body) in [(400, refused(NOT_FOUND)), (200, described("terminated"))] {
        let host = FakeHost::at(0).answer(status, &[], &body);
        let found = Ec2::check_target(&host, &config(json!({})), &target()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].severity, loopback_plugin_sdk::Severity::Error);
    }
}

#[test]
fn machines_are_listed_page_by_page() {
    let page = described("running").replace(
        "</DescribeInstancesResponse>",
        "<nextToken>a+b/c=</nextToken></DescribeInstancesResponse>",
    );
    let host = FakeHost::at(0)
        .answer(200, &[], &page)
        .answer(200, &[], &described("terminated"));
    let own = config(json!({ "tls_profile": "ours", "route": "there" }));
    let first = Ec2::discover(&host, &own, None).unwrap();
    assert_eq!(first.next.as_deref(), Some("a+b/c="));
    let [found] = &first.found[..] else { panic!() };
    assert_eq!(found.address, ID);
    assert_eq!(found.provider_id.as_deref(), Some(ID));
    assert_eq!(found.params, r#"{"region":"eu-central-1"}"#);
    assert_eq!(found.name, "web & more");
    assert_eq!(found.macs, ["02:dd:2c:5e:01:69"]);
    assert_eq!(found.state, State::On);
    let last = Ec2::discover(&host, &own, first.next.as_deref()).unwrap();
    assert!(last.found.is_empty() && last.next.is_none());
    assert_eq!(
        asked(&host)[1],
        "DescribeInstances&MaxResults=100&NextToken=a%2Bb%2Fc%3D"
    );
    assert_eq!(host.requests()[0].tls_profile.as_deref(), Some("ours"));
    assert_eq!(host.requests()[0].route.as_deref(), Some("there"));
}

#[test]
fn configurations_that_cannot_work_are_found() {
    for (more, finding) in [
        (json!({}), None),
        (
            json!({ "endpoint": "https://cloud.example:8773/services/compute" }),
            None,
        ),
        (json!({ "region": "eu central" }), Some("is not a region")),
        (json!({ "endpoint": "cloud.example" }), Some("https://")),
        (
            json!({ "endpoint": "http://cloud.example" }),
            Some("without TLS"),
        ),
        (
            json!({ "endpoint": "https://user@cloud.example" }),
            Some("must not have"),
        ),
    ] {
        let found = Ec2::check(&config(more.clone()));
        match finding {
            None => assert!(found.is_empty(), "{more}: {found:?}"),
            Some(text) => assert!(found.iter().any(|one| one.message.contains(text)), "{more}"),
        }
    }
}
