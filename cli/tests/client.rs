//! The client against a gateway that misbehaves on demand.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use std::io::{Read as _, Write as _};
use std::time::Duration;

use api::endpoint::Nothing;
use api::page::Paging;
use api::v1::InWorkspace;
use api::v1::audit::ExportDeploymentAudit;
use api::v1::people::{CreateApiKey, CreateOwnApiKey};
use api::v1::system::GetHealth;
use api::v1::tenancy::{CreateProject, CreateProjectRecord, DeleteProject, ListProjects};
use api::{Problem, ProblemCode};
use cli::client::{Client, ClientError, Followed, Patience, Trust};
use support::{Answer, Gateway, KEY, WORKSPACE, json, problem, problem_with};

const HEALTH: &str =
    r#"{"status":"ok","version":"1","now":"2027-01-15T08:00:00.000Z","a_newer_field":1}"#;
const PROJECT: &str = r#"{"id":"prj_00000000000000000000000001","name":"web","description":"","created_at":"2027-01-15T08:00:00.000Z"}"#;

fn create_project(client: &Client) -> Result<api::v1::tenancy::Project, ClientError> {
    let body = CreateProject {
        name: "web".parse().unwrap(),
        description: Default::default(),
    };
    client.send::<CreateProjectRecord>(&Nothing {}, &body)
}

#[test]
fn an_authority_or_a_pin_is_believed_and_nothing_else() {
    let gateway = Gateway::deciding(|_| json(200, HEALTH));
    let other = Gateway::answering([]);
    let ask = |trust: Trust| {
        gateway
            .builder()
            .trust(trust)
            .build()
            .unwrap()
            .fetch::<GetHealth>(&Nothing {})
    };
    assert!(ask(gateway.trust()).is_ok());
    assert!(ask(gateway.pinned()).is_ok());
    for wrong in [other.trust(), other.pinned()] {
        let error = ask(wrong.clone()).unwrap_err();
        assert!(
            error.is_distrust(),
            "{wrong:?}: {}",
            model::error_chain(&error)
        );
    }
    assert_eq!(
        gateway.asked().len(),
        2,
        "an unbelieved gateway is told nothing"
    );
}

#[test]
fn a_name_that_is_not_in_the_certificate_is_not_believed() {
    let gateway = Gateway::deciding(|_| json(200, HEALTH));
    let url = gateway.url.replace("127.0.0.1", "localhost");
    let client = Client::builder(url.parse().unwrap())
        .trust(gateway.trust())
        .build()
        .unwrap();
    assert!(
        client
            .fetch::<GetHealth>(&Nothing {})
            .unwrap_err()
            .is_distrust()
    );
}

#[test]
fn a_socket_of_this_machine_needs_no_tls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("admin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let gateway = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let asked = support::read_request(&mut stream).unwrap();
        write!(
            stream,
            "HTTP/1.1 200 x\r\ncontent-length: {}\r\n\r\n{HEALTH}",
            HEALTH.len()
        )
        .unwrap();
        asked
    });
    let base = format!("unix://{}", path.display()).parse().unwrap();
    let client = Client::builder(base).build().unwrap();
    client.fetch::<GetHealth>(&Nothing {}).unwrap();
    assert_eq!(gateway.join().unwrap().line, "GET /v1/health");
    let error = client.fetch::<GetHealth>(&Nothing {}).unwrap_err();
    assert!(
        matches!(error, ClientError::Connect { .. }),
        "nobody listens any more"
    );
}

#[test]
fn a_lost_reply_is_asked_for_again_with_the_same_idempotency_key() {
    let gateway = Gateway::answering([Answer::Silence, json(201, PROJECT)]);
    assert_eq!(
        create_project(&gateway.client()).unwrap().name.as_str(),
        "web"
    );
    let asked = gateway.asked();
    let keys: Vec<_> = asked
        .iter()
        .map(|asked| asked.header("idempotency-key").unwrap())
        .collect();
    assert_eq!((keys.len(), keys[0]), (2, keys[1]));
    assert!(keys[0].len() == 32 && asked[0].body == asked[1].body);
}

#[test]
fn two_calls_have_two_idempotency_keys() {
    let gateway = Gateway::answering([json(201, PROJECT), json(201, PROJECT)]);
    create_project(&gateway.client()).unwrap();
    create_project(&gateway.client()).unwrap();
    let asked = gateway.asked();
    assert_ne!(
        asked[0].header("idempotency-key"),
        asked[1].header("idempotency-key")
    );
}

#[test]
fn a_gateway_that_says_later_is_asked_later_and_refusals_are_final() {
    let mut busy = Problem::new(ProblemCode::Unavailable, "starting");
    busy.retry_after_ms = Some(1);
    let gateway = Gateway::answering([
        problem_with(&busy),
        problem(ProblemCode::NameTaken),
        json(201, PROJECT),
    ]);
    let error = create_project(&gateway.client()).unwrap_err();
    assert_eq!(
        (error.code(), gateway.asked().len()),
        (Some("name_taken"), 2)
    );
}

#[test]
fn an_interval_longer_than_our_patience_is_told_instead_of_waited_for() {
    let mut busy = Problem::new(ProblemCode::RateLimited, "slow down");
    busy.retry_after_ms = Some(3_600_000);
    let gateway = Gateway::answering([problem_with(&busy)]);
    let error = create_project(&gateway.client()).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
}

#[test]
fn a_delete_whose_reply_was_lost_is_done_when_the_thing_is_gone() {
    let path = api::v1::InProject {
        project: "prj_00000000000000000000000001".parse().unwrap(),
    };
    let gateway = Gateway::answering([Answer::Silence, problem(ProblemCode::NotFound)]);
    gateway.client().fetch::<DeleteProject>(&path).unwrap();
    let gateway = Gateway::answering([problem(ProblemCode::NotFound)]);
    assert_eq!(
        gateway
            .client()
            .fetch::<DeleteProject>(&path)
            .unwrap_err()
            .code(),
        Some("not_found")
    );
}

#[test]
fn a_refused_connection_is_told_at_once_and_nothing_was_sent() {
    let gateway = Gateway::answering([]);
    let (url, trust) = (gateway.url.clone(), gateway.trust());
    drop(gateway);
    let client = Client::builder(url.parse().unwrap())
        .trust(trust)
        .build()
        .unwrap();
    let error = create_project(&client).unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }), "{error:?}");
}

#[test]
fn lists_are_fetched_to_their_end_or_their_limit() {
    let page = |next: &str| json(200, format!(r#"{{"items":[{PROJECT},{PROJECT}]{next}}}"#));
    let pages = [page(r#","next":"c/1""#), page(r#","next":"c2""#), page("")];
    let gateway = Gateway::answering(pages.clone());
    let all = gateway
        .client()
        .list::<ListProjects, _>(&Nothing {}, &Paging::default(), None)
        .unwrap();
    assert_eq!((all.items.len(), all.next), (6, None));
    assert_eq!(gateway.lines()[1], "GET /v1/projects?after=c%2F1&limit=500");

    let gateway = Gateway::answering(pages);
    let some = gateway
        .client()
        .list::<ListProjects, _>(&Nothing {}, &Paging::default(), Some(4))
        .unwrap();
    assert_eq!((some.items.len(), some.next.as_deref()), (4, Some("c2")));
    assert_eq!(
        gateway.lines(),
        [
            "GET /v1/projects?limit=4",
            "GET /v1/projects?after=c%2F1&limit=2"
        ]
    );
}

#[test]
fn what_is_not_a_gateway_is_told_apart() {
    let gateway = Gateway::answering([
        Answer::Json(502, "<html>\x1b[2Jbad gateway</html>".to_owned()),
        json(200, "<html>"),
    ]);
    let client = gateway.client();
    let error = client.fetch::<GetHealth>(&Nothing {}).unwrap_err();
    assert!(matches!(&error, ClientError::NotOurs { status: 502, .. }));
    assert!(!error.to_string().contains('\x1b'));
    assert!(matches!(
        client.fetch::<GetHealth>(&Nothing {}),
        Err(ClientError::Unreadable { .. })
    ));
}

#[test]
fn the_key_does_not_follow_a_redirect() {
    let elsewhere = Gateway::deciding(|_| json(200, HEALTH));
    let gateway = Gateway::answering([Answer::Redirect(format!("{}/v1/health", elsewhere.url))]);
    assert!(gateway.client().fetch::<GetHealth>(&Nothing {}).is_err());
    assert_eq!(
        gateway.asked()[0].header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn an_unknown_code_is_still_a_problem() {
    let mut unknown = Problem::new(ProblemCode::Conflict, "frozen");
    unknown.code = "frozen_by_policy".to_owned();
    let gateway = Gateway::answering([problem_with(&unknown)]);
    let error = create_project(&gateway.client()).unwrap_err();
    assert_eq!(
        (error.code(), error.problem().unwrap().status),
        (Some("frozen_by_policy"), 409)
    );
}

#[test]
fn streams_hand_over_what_comes_and_report_a_cut() {
    let gateway = Gateway::answering([
        Answer::Stream("application/x-ndjson", "a\nb\n".to_owned()),
        Answer::Silence,
    ]);
    let client = gateway.builder().patience(Patience::NONE).build().unwrap();
    let mut text = String::new();
    client
        .stream::<ExportDeploymentAudit>(&Nothing {}, &Nothing {})
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "a\nb\n");
    assert_eq!(
        gateway.asked()[0].header("accept"),
        Some("application/x-ndjson")
    );
    assert!(
        client
            .stream::<ExportDeploymentAudit>(&Nothing {}, &Nothing {})
            .is_err()
    );
}

#[test]
fn abuse_30_secrets_are_in_no_error_and_no_debug_text() {
    let gateway = Gateway::answering([problem(ProblemCode::Forbidden)]);
    let body = CreateApiKey::default();
    let error = gateway
        .client()
        .send::<CreateOwnApiKey>(&Nothing {}, &body)
        .unwrap_err();
    assert!(!format!("{error:?} {}", model::error_chain(&error)).contains("1111"));
}

fn stream(events: &str) -> Answer {
    Answer::Stream("text/event-stream", events.to_owned())
}

#[test]
fn following_resumes_after_the_last_whole_event_and_ends_with_a_refusal() {
    let end = r#"{"kind":"snapshot_end","hosts":0}"#;
    let gateway = Gateway::answering([
        stream(&format!(
            "id: 1\nevent: snapshot_end\ndata: {end}\n\nid: 2\ndata: cut o"
        )),
        Answer::Silence,
        problem(ProblemCode::Unavailable),
        stream(": hello\n\nretry: 1\nid: 3\ndata: {\"kind\":\"of a newer gateway\"}\n\n"),
        problem(ProblemCode::Unauthenticated),
    ]);
    let client = gateway.client();
    let workspace = WORKSPACE.parse().unwrap();
    let mut events = client.events(workspace, None);
    let mut heard = Vec::new();
    let refusal = loop {
        match events.next_event() {
            Ok(Followed::Event { event, raw }) => {
                heard.push((event.map(|event| event.kind()), raw))
            }
            Ok(Followed::Interrupted { .. }) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(refusal.code(), Some("unauthenticated"));
    let newer = r#"{"kind":"of a newer gateway"}"#;
    assert_eq!(
        heard,
        [
            (Some("snapshot_end"), end.to_owned()),
            (None, newer.to_owned())
        ]
    );
    let resumed: Vec<_> = gateway
        .asked()
        .iter()
        .map(|asked| asked.header("last-event-id").map(str::to_owned))
        .collect();
    let one = Some("1".to_owned());
    assert_eq!(
        resumed,
        [None, one.clone(), one.clone(), one, Some("3".to_owned())]
    );
    assert_eq!(
        gateway.lines()[0],
        format!("GET /v1/workspaces/{WORKSPACE}/events")
    );
    let _ = InWorkspace { workspace };
}

#[test]
fn a_gateway_that_was_never_there_is_not_waited_for() {
    let gateway = Gateway::answering([]);
    let (url, trust) = (gateway.url.clone(), gateway.trust());
    drop(gateway);
    let client = Client::builder(url.parse().unwrap())
        .trust(trust)
        .build()
        .unwrap();
    let error = client
        .events(WORKSPACE.parse().unwrap(), None)
        .next_event()
        .unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }));
}
