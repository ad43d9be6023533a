use loopback_plugin_sdk::power::{BootDevice, BootOnce};
use loopback_plugin_sdk::testing::{FakeHost, log_lines};
use serde_json::{Value, json};

use super::*;

const SYSTEM: &str = "https://bmc.example/redfish/v1/Systems/1";
const RESET: &str = "https://bmc.example/redfish/v1/Systems/1/Actions/ComputerSystem.Reset";

fn config(more: Value) -> Config {
    serde_json::from_value(more).unwrap()
}

fn basic() -> Config {
    config(json!({}))
}

fn target(params: Value) -> Target {
    Target {
        host: "hst_1".into(),
        address: "https://bmc.example/redfish/v1/".into(),
        params: params.to_string(),
        tls_profile: Some("bmc".into()),
        route: Some("rack".into()),
    }
}

fn known() -> Target {
    target(json!({ "system": "1" }))
}

fn operation(action: Action, boot: Option<BootOnce>) -> Operation {
    Operation {
        id: "pop_1".into(),
        attempt: 1,
        action,
        boot,
        deadline_ms: 0,
        before: None,
    }
}

fn page(state: &str) -> String {
    json!({
        "PowerState": state,
        "Boot": { "BootSourceOverrideTarget@Redfish.AllowableValues": ["Pxe", "Cd"] },
        "Actions": { "#ComputerSystem.Reset": {
            "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
            "ResetType@Redfish.AllowableValues":
                ["On", "ForceOff", "GracefulShutdown", "ForceRestart"],
        } },
    })
    .to_string()
}

fn asked(host: &FakeHost) -> Vec<(String, String)> {
    let requests = host.requests().into_iter();
    requests.map(|it| (it.method, it.url)).collect()
}

fn begin(host: &FakeHost, action: Action) -> Result<Begun, Error> {
    Redfish::begin(host, &basic(), &operation(action, None), &known())
}

#[test]
fn an_action_is_one_post_with_profile_route_and_password() {
    let host = FakeHost::at(0)
        .answer(200, &[], &page("Off"))
        .answer(204, &[], "");
    let begun = begin(&host, Action::On).unwrap();
    assert!(matches!(begun, Begun::Done), "{begun:?}");
    let requests = host.requests();
    assert_eq!(
        asked(&host),
        [("GET".into(), SYSTEM.into()), ("POST".into(), RESET.into())]
    );
    assert_eq!(requests[1].body, br#"{"ResetType":"On"}"#);
    let basic = (
        "password".to_owned(),
        loopback_plugin_sdk::http::Placement::BasicUser("admin".into()),
    );
    for request in requests {
        assert_eq!(request.tls_profile.as_deref(), Some("bmc"));
        assert_eq!(request.route.as_deref(), Some("rack"));
        assert_eq!(request.credentials, [basic.clone()]);
    }
}

#[test]
fn where_it_leads_already_nothing_is_sent() {
    for (action, state) in [
        (Action::On, "On"),
        (Action::Shutdown, "Off"),
        (Action::Off, "Off"),
    ] {
        let host = FakeHost::at(0).answer(200, &[], &page(state));
        let begun = begin(&host, action).unwrap();
        assert!(matches!(begun, Begun::Already(_)), "{action:?}");
        assert_eq!(host.requests().len(), 1);
    }
}

#[test]
fn a_way_that_is_not_offered_is_not_made_of_another() {
    let host = FakeHost::at(0).answer(200, &[], &page("On"));
    let error = begin(&host, Action::Cycle).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unsupported);
    assert!(error.message.contains("ForceRestart"), "{}", error.message);
    assert_eq!(host.requests().len(), 1);
}

#[test]
fn an_error_says_whether_the_action_may_have_been_done() {
    let lost = |unknown: bool| {
        let mut error = Error::new(ErrorKind::Timeout, "http.timeout", "no answer");
        error.outcome_unknown = unknown;
        error
    };
    let host = FakeHost::at(0).fail(lost(true));
    assert!(!begin(&host, Action::Reset).unwrap_err().outcome_unknown);
    let sent = |host: FakeHost| begin(&host, Action::Reset).unwrap_err().outcome_unknown;
    let ready = || FakeHost::at(0).answer(200, &[], &page("On"));
    assert!(sent(ready().fail(lost(true))));
    assert!(!sent(ready().fail(lost(false))));
    for (status, unknown) in [
        (400, false),
        (401, false),
        (408, true),
        (409, false),
        (429, false),
        (500, true),
        (502, true),
        (503, false),
        (504, true),
        (307, false),
    ] {
        assert_eq!(sent(ready().answer(status, &[], "")), unknown, "{status}");
    }
}

#[test]
fn a_machine_that_settles_is_left_alone_for_a_while() {
    let host = FakeHost::at(0).answer(200, &[], &page("PoweringOff"));
    let error = begin(&host, Action::On).unwrap_err();
    assert_eq!(
        (error.kind, error.retry_after_ms),
        (ErrorKind::Busy, Some(5_000))
    );
    assert_eq!(host.requests().len(), 1);
    let host = FakeHost::at(0)
        .answer(200, &[], &page("On"))
        .answer(409, &[], "");
    let error = begin(&host, Action::Reset).unwrap_err();
    assert_eq!(
        (error.kind, error.retry_after_ms),
        (ErrorKind::Busy, Some(5_000))
    );
}

#[test]
fn a_weak_tag_that_is_not_taken_back_is_done_without() {
    let host = FakeHost::at(0)
        .answer(200, &[("etag", "W/\"7\"")], &page("Off"))
        .answer(412, &[], "")
        .answer(200, &[], "")
        .answer(204, &[], "");
    let boot = BootOnce {
        device: BootDevice::Cdrom,
        url: None,
        uefi: None,
    };
    Redfish::begin(
        &host,
        &basic(),
        &operation(Action::On, Some(boot)),
        &known(),
    )
    .unwrap();
    let tags: Vec<_> = host
        .requests()
        .iter()
        .filter_map(|request| {
            let mut headers = request.headers.iter();
            headers
                .find(|(name, _)| name == "if-match")
                .map(|(_, tag)| tag.clone())
        })
        .collect();
    assert_eq!(tags, ["W/\"7\"", "*"]);
}

#[test]
fn the_only_system_is_found_and_several_must_be_told_apart() {
    let list = |ids: &[&str]| {
        let members: Vec<_> = ids
            .iter()
            .map(|id| json!({ "@odata.id": format!("/redfish/v1/Systems/{id}") }))
            .collect();
        json!({ "Members": members }).to_string()
    };
    let observe = |host: &FakeHost| Redfish::observe(host, &basic(), &target(json!({})));
    let host = FakeHost::at(0)
        .answer(200, &[], &list(&["a"]))
        .answer(200, &[], &page("On"));
    assert_eq!(observe(&host).unwrap().state, State::On);
    assert!(host.requests()[1].url.ends_with("/Systems/a"));
    let host = FakeHost::at(0).answer(200, &[], &list(&["a", "b"]));
    assert_eq!(observe(&host).unwrap_err().code, "redfish.which_system");
    let host = FakeHost::at(0).answer(200, &[], &list(&[]));
    assert_eq!(observe(&host).unwrap_err().kind, ErrorKind::NotFound);
    let misspelt = Redfish::observe(&host, &basic(), &target(json!({ "sytem": "1" })));
    assert_eq!(misspelt.unwrap_err().code, "target.params");
}

#[test]
fn a_password_never_follows_a_link_to_another_server() {
    let page = page("Off").replace(
        "/redfish/v1/Systems/1/Actions",
        "https://evil.example/Actions",
    );
    let host = FakeHost::at(0).answer(200, &[], &page);
    let error = begin(&host, Action::On).unwrap_err();
    assert_eq!(error.code, "redfish.foreign_place");
    assert_eq!(host.requests().len(), 1);
}

#[test]
fn a_session_is_begun_once_and_again_when_the_password_changed() {
    let config = config(json!({ "login": "session" }));
    let host = FakeHost::at(0)
        .secrets_at(1)
        .answer(201, &[("x-auth-token", "tok-1")], "")
        .answer(200, &[], &page("On"))
        .answer(200, &[], &page("On"));
    Redfish::observe(&host, &config, &known()).unwrap();
    Redfish::observe(&host, &config, &known()).unwrap();
    let host = host
        .secrets_at(2)
        .answer(201, &[("x-auth-token", "tok-2")], "")
        .answer(200, &[], &page("On"));
    Redfish::observe(&host, &config, &known()).unwrap();
    let methods: Vec<_> = host.requests().into_iter().map(|it| it.method).collect();
    assert_eq!(methods, ["POST", "GET", "GET", "POST", "GET"]);
    assert!(!log_lines().join("").contains("tok-"));
}

#[test]
fn a_session_that_ends_at_the_wrong_moment_costs_an_attempt_and_no_second_post() {
    let config = config(json!({ "login": "session" }));
    let host = FakeHost::at(0)
        .answer(201, &[("x-auth-token", "tok-1")], "")
        .answer(200, &[], &page("On"))
        .answer(401, &[], "");
    let operation = operation(Action::Reset, None);
    let error = Redfish::begin(&host, &config, &operation, &known()).unwrap_err();
    assert_eq!(error.code, "redfish.session_ended");
    assert!(error.is_transient() && !error.outcome_unknown);
    let host = host
        .answer(201, &[("x-auth-token", "tok-2")], "")
        .answer(200, &[], &page("On"))
        .answer(204, &[], "");
    Redfish::begin(&host, &config, &operation, &known()).unwrap();
}

#[test]
fn a_login_that_is_refused_is_a_wrong_password() {
    let config = config(json!({ "login": "session" }));
    for status in [400, 401] {
        let host = FakeHost::at(0).answer(status, &[], "");
        let error = Redfish::observe(&host, &config, &known()).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Auth, "{status}");
        assert_eq!(host.requests().len(), 1);
    }
    let host = FakeHost::at(0).answer(404, &[], "");
    let error = Redfish::observe(&host, &config, &known()).unwrap_err();
    assert_eq!(error.code, "redfish.no_sessions");
}

#[test]
fn what_became_of_it_is_told_by_a_state_or_a_mark_and_else_not_at_all() {
    let resume = |action, before: Option<&str>, now: &str| {
        let host = FakeHost::at(0).answer(200, &[], now);
        let mut operation = operation(action, None);
        operation.before = before.map(|mark| {
            let mut seen = Observation::new(State::On, "On");
            seen.boot_mark = Some(mark.to_owned());
            seen
        });
        let resumed = Redfish::resume(&host, &basic(), &operation, &known()).unwrap();
        assert_eq!(host.requests()[0].method, "GET");
        resumed
    };
    let on = r#"{"PowerState":"On","LastResetTime":"2026-01-02T00:00:00Z"}"#;
    assert!(matches!(resume(Action::On, None, on), Resumed::Done));
    assert!(matches!(resume(Action::Off, None, on), Resumed::Unknown));
    assert!(matches!(resume(Action::Reset, None, on), Resumed::Unknown));
    let same = resume(Action::Reset, Some("2026-01-02T00:00:00Z"), on);
    assert!(matches!(same, Resumed::Unknown));
    let later = resume(Action::Reset, Some("2026-01-01T00:00:00Z"), on);
    assert!(matches!(later, Resumed::Done));
    let other = resume(Action::Nmi, Some("2026-01-01T00:00:00Z"), on);
    assert!(matches!(other, Resumed::Unknown));
}

#[test]
fn what_is_seen_is_kept_in_the_controllers_words() {
    let page = json!({
        "PowerState": "On", "Model": "R640", "LastResetTime": "2026-01-01T00:00:00Z",
        "Boot": {
            "BootSourceOverrideEnabled": "Once", "BootSourceOverrideTarget": "UefiHttp",
            "BootSourceOverrideMode": "UEFI", "HttpBootUri": "https://boot.example/x.efi",
        },
    });
    let host = FakeHost::at(0).answer(200, &[], &page.to_string());
    let seen = Redfish::observe(&host, &basic(), &known()).unwrap();
    assert_eq!(seen.boot_mark.as_deref(), Some("2026-01-01T00:00:00Z"));
    let boot = seen.boot.unwrap();
    assert_eq!((boot.device, boot.uefi), (BootDevice::Http, Some(true)));
    assert_eq!(boot.url.as_deref(), Some("https://boot.example/x.efi"));
    assert_eq!(
        (seen.extra[0].key.as_str(), seen.extra[0].value.as_str()),
        ("Model", "R640")
    );
}

#[test]
fn pages_of_what_is_found_go_through_all_controllers() {
    let config = config(json!({ "discover": [
        { "address": "https://a.example", "tls_profile": "bmc" }, { "address": "https://b.example" },
    ] }));
    let list = r#"{"Members":[{"@odata.id":"/redfish/v1/Systems/1"}]}"#;
    let host = FakeHost::at(0)
        .answer(200, &[], list)
        .answer(200, &[], r#"{"Name":"n","PowerState":"Off","UUID":"u-1"}"#)
        .answer(200, &[], list)
        .answer(404, &[], "");
    let first = Redfish::discover(&host, &config, None).unwrap();
    assert_eq!(first.next.as_deref(), Some("1:0"));
    let [found] = &first.found[..] else { panic!() };
    assert_eq!(found.params, r#"{"system":"/redfish/v1/Systems/1"}"#);
    assert_eq!(found.serial.as_deref(), Some("u-1"));
    assert_eq!(host.requests()[0].tls_profile.as_deref(), Some("bmc"));
    let error = Redfish::discover(&host, &config, Some("1:0")).unwrap_err();
    assert_eq!(error.kind, ErrorKind::NotFound);
    assert!(
        error
            .details
            .iter()
            .any(|it| it.value == "https://b.example")
    );
}
