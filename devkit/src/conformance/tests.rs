use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use model::plugin::Grant;
use plugin_host::ports::{CallContext, Egress as _, ErrorKind, GuestError, HttpRequest};
use plugin_host::power::{Action, State};
use serde_json::json;

use super::bench::Tried;
use super::peer::{Peer, Role};
use super::script::{Quirk, ROUTE, Script, TLS_PROFILE};
use super::{is_script, scripts};
use crate::fixture::Exchange;

fn understood(text: &str) -> anyhow::Result<Script> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("conformance.toml");
    std::fs::write(&path, text).unwrap();
    Script::read(&path)
}

fn exchange(text: &str) -> Exchange {
    toml::from_str(text).unwrap()
}

fn request(method: &str, url: &str, body: &str) -> HttpRequest {
    HttpRequest {
        method: method.into(),
        url: url.into(),
        headers: Vec::new(),
        body: body.as_bytes().to_vec(),
        tls_profile: Some(TLS_PROFILE.into()),
        route: Some(ROUTE.into()),
        timeout: Duration::from_secs(1),
        max_response_bytes: 1_000,
    }
}

async fn send(peer: &Peer, request: HttpRequest) -> Result<u16, GuestError> {
    let context = CallContext {
        plugin: "p".parse().unwrap(),
        workspace: None,
        call: "call_1".into(),
        grant: Arc::new(Grant::default()),
    };
    let answer = peer.send(&context, request, Vec::new()).await;
    answer.map(|answer| answer.status)
}

/// Asks at `/p`, turns off by a POST of `off` to the same place.
fn peer() -> Peer {
    let state = exchange("url = 'https://bmc.example/p'\nbody = '{\"on\":1}'");
    let submit = exchange("url = 'https://bmc.example/p'\ncontains = ['off']\nstatus = 202");
    Peer::new()
        .knows(Role::Submit(Action::Off), &[submit])
        .knows(Role::State, &[state])
}

#[test]
fn scripts_of_the_product_and_of_templates_are_understood() {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let template = root.join("devkit/templates/power-conformance.toml");
    assert_eq!(Script::read(&template).unwrap().submits.len(), 2);
    for script in scripts(&root.join("plugins/power-redfish/tests")).unwrap() {
        Script::read(&script).unwrap();
    }
    assert!(is_script(&root.join("conformance-session.toml")));
    assert!(!is_script(&root.join("conformance.md")));
    assert!(!is_script(&root.join("first.toml")));
}

#[test]
fn a_script_that_means_nothing_is_refused() {
    for (text, why) in [
        (
            "[[submit]]\naction = 'explode'\nhttp = {}",
            "there is no action",
        ),
        ("[[state]]\nis = 'asleep'\nhttp = [{}]", "there is no state"),
        (
            "[[state]]\nis = 'on'\nhttp = []",
            "nothing that could be asked",
        ),
        ("[target]\nparams = 7", "target.params is 7"),
        ("[[poll]]\nis = 'odd'\nhttp = []", "unknown variant"),
        ("colour = 1", "unknown field"),
    ] {
        let error = format!("{:#}", understood(text).unwrap_err());
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn parameters_are_a_table_or_a_text() {
    let params = |text: &str| understood(text).unwrap().target().unwrap().params;
    assert_eq!(params("[target]\nparams = { a = 1 }"), r#"{"a":1}"#);
    assert_eq!(params("[target]\nparams = '{}'"), "{}");
    assert_eq!(params(""), "{}");
}

#[test]
fn an_action_begins_where_it_does_something() {
    let script = understood(
        "[[submit]]\naction = 'on'\nhttp = {}\n\
         [[submit]]\naction = 'off'\nhttp = {}\n\
         [[submit]]\naction = 'reset'\nfrom = 'unknown'\nhttp = {}",
    )
    .unwrap();
    let starts: Vec<_> = script
        .submits
        .iter()
        .map(|submit| script.start(submit).unwrap())
        .collect();
    assert_eq!(starts, [State::Off, State::On, State::Unknown]);
}

#[test]
fn a_refusal_is_a_status_unless_the_api_has_its_own() {
    let own = "[[refusal]]\nquirk = 'throttled'\nstatus = 503\nbody = 'slow down'";
    let script = understood(own).unwrap();
    let answer = script.quirk(Quirk::Throttled).answer().unwrap();
    assert_eq!(
        (answer.status, answer.body.as_slice()),
        (503, &b"slow down"[..])
    );
    let answer = script.quirk(Quirk::Busy).answer().unwrap();
    assert_eq!(answer.status, 503);
    assert_eq!(answer.headers, [("retry-after".to_owned(), "7".to_owned())]);
}

#[tokio::test]
async fn a_peer_knows_requests_by_what_they_are_and_counts_those_that_act() {
    let peer = peer();
    let url = "https://bmc.example/p";
    assert_eq!(send(&peer, request("GET", url, "")).await, Ok(200));
    assert_eq!(
        send(&peer, request("POST", url, "{\"to\":\"off\"}")).await,
        Ok(202)
    );
    assert_eq!(send(&peer, request("GET", url, "")).await, Ok(200));
    let seen = peer.seen();
    assert_eq!((seen.requests, seen.submits), (3, vec![Action::Off]));
    assert_eq!(seen.complaints, Vec::<String>::new());
}

#[tokio::test]
async fn whatever_a_script_does_not_know_is_told() {
    let peer = peer();
    for (method, url) in [
        ("DELETE", "https://bmc.example/p"),
        ("GET", "https://elsewhere.example/power"),
    ] {
        assert!(send(&peer, request(method, url, "")).await.is_err());
    }
    let mut bare = request("GET", "https://bmc.example/p", "");
    (bare.tls_profile, bare.route) = (None, Some("other".into()));
    send(&peer, bare).await.unwrap();
    let complaints = peer.seen().complaints;
    for (complaint, wanted) in complaints.iter().zip([
        "unexpected request: DELETE",
        "unexpected request: GET https://elsewhere.example/power",
        "tls-profile",
        "route",
    ]) {
        assert!(complaint.contains(wanted), "{complaint}");
    }
    assert_eq!(complaints.len(), 4);
}

#[tokio::test]
async fn what_goes_wrong_is_put_in_the_place_of_one_kind_of_request() {
    let refused = Exchange::answering(401, BTreeMap::new(), "");
    let peer = peer().replying(Role::Submit(Action::Off), &refused);
    let url = "https://bmc.example/p";
    assert_eq!(send(&peer, request("GET", url, "")).await, Ok(200));
    assert_eq!(send(&peer, request("POST", url, "off")).await, Ok(401));
    let half = exchange("body = '{\"state\":\"on\"}'")
        .cut()
        .answer()
        .unwrap();
    assert_eq!(half.body, br#"{"state"#);
    let none = exchange("status = 204").cut().answer().unwrap();
    assert_eq!((none.status, none.body.as_slice()), (200, &b"{\"cut"[..]));
}

fn tried(outcome: Result<serde_json::Value, GuestError>, submits: &[Action]) -> Tried {
    Tried::new("case", "", outcome, submits.to_vec())
}

#[test]
fn each_promise_that_is_broken_is_told() {
    let mut lost = GuestError::new(ErrorKind::Timeout, "t", "no answer");
    lost.outcome_unknown = true;

    let mut kept = tried(Err(lost.clone()), &[Action::Reset]);
    kept.fails(&[ErrorKind::Timeout])
        .submitted(&[Action::Reset]);
    kept.outcome_unknown(true).transient();
    assert_eq!(kept.complaints, Vec::<String>::new());

    let mut broken = tried(Err(lost), &[Action::Reset, Action::Reset]);
    broken.fails(&[ErrorKind::Auth]).submitted(&[Action::Reset]);
    broken.outcome_unknown(false).later(7_000);
    let wanted = [
        "failed as Timeout",
        "submitted [reset, reset], not [reset]",
        "outcome-unknown is not false",
        "retry-after-ms is None",
    ];
    assert_eq!(broken.complaints.len(), wanted.len());
    for (complaint, wanted) in broken.complaints.iter().zip(wanted) {
        assert!(complaint.contains(wanted), "{complaint}");
    }

    let mut answered = tried(Ok(json!("Done")), &[]);
    answered.fails(&[]);
    assert!(answered.complaints[0].contains("not with an error"));
    let mut final_one = tried(Err(GuestError::new(ErrorKind::Invalid, "i", "")), &[]);
    final_one.transient();
    assert!(final_one.complaints[0].contains("is not tried again"));
}
