//! The agent as its users meet it: a process, a gateway, and the commands around it.

#![allow(dead_code, reason = "the helpers serve more than one test")]
#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod common;

use std::time::{Duration, Instant};

use common::authority::Authority;
use common::gateway::Saw;
use common::{Gateway, Host, read, said, token};
use link::frame::{MAX_FRAME, write_message};
use protocol::v1::{
    FileData, FileOrder, FileRead, FileReply, FileRequest, FileWrite, GoodbyeReason, Opening,
    RefusalCode, file_order, file_reply, file_request, opening,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_host_joins_is_welcomed_and_keeps_beating() {
    let mut gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    host.start();
    let waited = host.run("status", &["--wait", "30"]);
    assert!(waited.status.success(), "{}{}", said(&waited), host.log());

    let facts = gateway
        .sees(|saw| {
            if let Saw::Enrolment { facts, .. } = saw {
                Some(facts.clone())
            } else {
                None
            }
        })
        .await;
    assert_eq!(facts.os, "linux");
    let (rung, hello) = gateway.sees_hello().await;
    assert_eq!((rung, hello.counter, hello.instance.len()), ("udp", 10, 16));
    gateway
        .sees(|saw| (*saw == Saw::Stored(11)).then_some(()))
        .await;
    gateway
        .sees(|saw| matches!(saw, Saw::Facts(_)).then_some(()))
        .await;
    for sequence in 1..4 {
        gateway
            .sees(|saw| (*saw == Saw::Beat(sequence)).then_some(()))
            .await;
    }
    assert!(
        !host.path("token").exists(),
        "the token is deleted after use"
    );

    let status = host.status().unwrap();
    assert_eq!(
        (status.state.as_str(), status.troubles.len()),
        ("linked", 0)
    );
    assert_eq!(status.link.unwrap().display_name, "web-1\u{fffd}[31m");
    gateway.manners(|manners| manners.probe = Some(77));
    gateway
        .sees(|saw| (*saw == Saw::Probed(77)).then_some(()))
        .await;

    assert_eq!(host.stop().await, Some(0));
    assert_eq!(gateway.sees_goodbye().await, GoodbyeReason::Stopping);
    let gone = host.run("status", &[]);
    assert_eq!(gone.status.code(), Some(3), "{}", said(&gone));
    assert!(said(&gone).contains("the agent is not running; this host has joined as hst_"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_agent_comes_back_as_the_same_host_with_its_counter() {
    let mut gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    host.start();
    gateway
        .sees(|saw| (*saw == Saw::Stored(11)).then_some(()))
        .await;
    let before = host.status().unwrap().identity;
    host.kill();
    host.start();
    let (_, hello) = gateway.sees_hello().await;
    assert_eq!(hello.counter, 11);
    let after = host
        .status_when("linked", |status| status.state == "linked")
        .await;
    assert_eq!(after.identity, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_with_the_same_key() {
    let mut gateway = Gateway::start();
    gateway.manners(|manners| manners.lose_enrolments = 1);
    let mut host = Host::new(&gateway);
    host.start();
    let key = |saw: &Saw| {
        let Saw::Enrolment { csr, .. } = saw else {
            return None;
        };
        // The signature is random, and so is its length; the key is not.
        Some(csr[6..95].to_vec())
    };
    let first = gateway.sees(key).await;
    let second = gateway.sees(key).await;
    assert_eq!(first, second);
    host.status_when("linked", |status| status.state == "linked")
        .await;
    assert_eq!(host.keys().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_reported_and_appears_nowhere() {
    let gateway = Gateway::start();
    gateway.manners(|manners| manners.refuse_enrolment = Some(RefusalCode::TokenExpired));
    let mut host = Host::new(&gateway);
    host.start();
    let status = host
        .status_when("refused", |status| status.refusal.is_some())
        .await;
    let refusal = status.refusal.unwrap();
    assert_eq!(
        (refusal.code.as_str(), refusal.message.as_str()),
        ("token_expired", "no, because of TokenExpired \u{fffd}[31m")
    );
    assert!(status.next_attempt_at.is_some());
    // Waiting would not help, so `--wait` does not.
    let asked = Instant::now();
    let output = host.run("status", &["--wait", "120"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(asked.elapsed() < Duration::from_secs(60));
    let everything = host.log() + &said(&output) + &said(&host.run("doctor", &[]));
    assert!(
        !everything.contains(&token()) && !everything.contains('\u{1b}'),
        "{everything}"
    );
    assert!(
        host.path("token").exists(),
        "a refused token is not used up"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_key_makes_another_host_of_it() {
    let mut gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    host.start();
    let before = host
        .status_when("linked", |status| status.is_linked())
        .await
        .identity
        .unwrap();
    let keys = host.keys();
    gateway.manners(|manners| manners.reidentify = true);
    gateway
        .sees(|saw| (*saw == Saw::Renewal).then_some(()))
        .await;
    gateway.sees_hello().await;
    let after = host
        .status_when("linked anew", |status| {
            status.is_linked()
                && status
                    .identity
                    .as_ref()
                    .is_some_and(|now| now.host != before.host)
        })
        .await;
    assert_eq!(after.identity.unwrap().generation, 1);
    assert_eq!(host.keys().len(), 1);
    assert_ne!(host.keys(), keys);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_when_the_gateway_wants_it() {
    let mut gateway = Gateway::start();
    gateway.manners(|manners| manners.want_renewal = true);
    let mut host = Host::new(&gateway);
    host.start();
    gateway
        .sees(|saw| (*saw == Saw::Renewal).then_some(()))
        .await;
    // The new certificate is put to use at once, and the old link says so.
    gateway.sees_hello().await;
    assert_eq!(gateway.sees_goodbye().await, GoodbyeReason::CarrierChange);
    host.status_when("linked", |status| status.is_linked())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_udp_costs_seconds_and_doctor_says_so() {
    let mut gateway = Gateway::start_without_udp();
    let mut host = Host::new(&gateway);
    let started = Instant::now();
    host.start();
    let (rung, _) = gateway.sees_hello().await;
    assert_eq!(rung, "websocket");
    assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    let status = host
        .status_when("linked", |status| status.is_linked())
        .await;
    assert_eq!(status.link.unwrap().rung, "websocket");

    let udp = host.run("doctor", &["--rung", "udp"]);
    assert_eq!(udp.status.code(), Some(1), "{}", said(&udp));
    assert!(said(&udp).contains("no answer within"), "{}", said(&udp));
    let all = host.run("doctor", &[]);
    assert!(all.status.success(), "one way is enough: {}", said(&all));
    assert!(
        said(&all).contains("warn udp") && said(&all).contains("ok   websocket"),
        "{}",
        said(&all)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_finds_nothing_wrong_with_a_linked_host() {
    let gateway = Gateway::start();
    let host = Host::linked(&gateway).await;
    let output = host.run("doctor", &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        !said(&output).contains("FAIL") && !said(&output).contains("warn"),
        "{}",
        said(&output)
    );
    let unknown = host.run("doctor", &["--rung", "ladder"]);
    assert_eq!(unknown.status.code(), Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_leaves_with_the_agent_running_and_without() {
    let mut gateway = Gateway::start();
    let mut host = Host::linked(&gateway).await;
    let output = host.run("deregister", &[]);
    assert!(output.status.success(), "{}{}", said(&output), host.log());
    assert_eq!(said(&output), "the gateway has retired this host\n");
    assert_eq!(gateway.sees_goodbye().await, GoodbyeReason::Uninstalled);
    assert_eq!(host.exit().await, Some(0));

    let output = host.run("deregister", &[]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(gateway.sees_goodbye().await, GoodbyeReason::Uninstalled);
    gateway.manners(|manners| manners.refuse_link = Some(RefusalCode::HostRetired));
    let output = host.run("deregister", &[]);
    assert!(
        said(&output).contains("had retired this host already"),
        "{}",
        said(&output)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_host_stops_dialling_and_says_so() {
    let gateway = Gateway::start();
    let mut host = Host::linked(&gateway).await;
    host.kill();
    gateway.manners(|manners| manners.refuse_link = Some(RefusalCode::HostRetired));
    host.start();
    let status = host
        .status_when("retired", |status| status.refusal.is_some())
        .await;
    let wait = status
        .next_attempt_at
        .unwrap()
        .since(status.refusal.unwrap().at);
    assert!(wait.as_secs() >= 3590, "{wait:?}");
    assert!(
        read(&host.state().join("identity.json")).contains("hst_"),
        "the identity is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn another_deployments_gateway_is_not_taken_for_ours() {
    let gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    host.write("ca.pem", &Authority::new().pem());
    host.start();
    let status = host
        .status_when("in trouble", |status| !status.troubles.is_empty())
        .await;
    let trouble = &status.troubles[0].what;
    assert!(
        trouble.contains("does not come from a gateway of this deployment"),
        "{trouble}"
    );
    assert!(host.path("token").exists(), "and gets no token to see");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_agent_on_the_same_state_is_refused() {
    let gateway = Gateway::start();
    let mut host = Host::linked(&gateway).await;
    let second = host.run("run", &[]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        said(&second).contains("is in use by another agent (pid "),
        "{}",
        said(&second)
    );
    let reset = host.run("reset", &["--yes"]);
    assert!(
        said(&reset).contains("is in use by another agent"),
        "{}",
        said(&reset)
    );
    assert_eq!(host.stop().await, Some(0));
    assert_eq!(host.run("reset", &[]).status.code(), Some(2));
    assert!(host.run("reset", &["--yes"]).status.success());
    assert!(host.keys().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_a_token_waits_for_one() {
    let gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    std::fs::remove_file(host.path("token")).unwrap();
    host.start();
    let status = host
        .status_when("in trouble", |status| !status.troubles.is_empty())
        .await;
    assert!(
        status.troubles[0].what.contains("read the agent token"),
        "{:?}",
        status.troubles
    );
    host.write("token", &token());
    host.status_when("linked", |status| status.is_linked())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_reported_with_both_times() {
    let gateway = Gateway::start();
    gateway.manners(|manners| manners.time_offset_ms = 120_000);
    let host = Host::linked(&gateway).await;
    let status = host.run("status", &[]);
    assert!(
        said(&status).contains("clock        this host says "),
        "{}",
        said(&status)
    );
    assert!(
        host.log()
            .contains("the clocks of this host and the gateway differ")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_ready_without_a_gateway_and_then_how_it_stands() {
    let gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    let good = read(&host.path("agent.toml"));
    // Nobody listens there.
    host.configure("127.0.0.1:1");
    let manager = tokio::net::UnixDatagram::bind(host.path("notify")).unwrap();
    host.start_with(&[
        ("NOTIFY_SOCKET", host.path("notify").display().to_string()),
        ("WATCHDOG_USEC", "900000".to_owned()),
    ]);
    let hears = async |wanted: &str| loop {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).await.unwrap();
        if String::from_utf8_lossy(&buffer[..length]).starts_with(wanted) {
            return;
        }
    };
    let story = async {
        hears("READY=1").await;
        hears("STATUS=not linked: 127.0.0.1:1 cannot be reached").await;
        hears("WATCHDOG=1").await;
        host.write("agent.toml", &good);
        host.signal(rustix::process::Signal::HUP);
        hears("STATUS=linked to ").await;
        host.signal(rustix::process::Signal::TERM);
        hears("STOPPING=1").await;
    };
    tokio::time::timeout(common::LIMIT, story).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_got_worse_is_reported_and_not_taken() {
    let gateway = Gateway::start();
    let host = Host::linked(&gateway).await;
    let good = read(&host.path("agent.toml"));
    host.write("agent.toml", &format!("{good}colour = 'red'\n"));
    host.signal(rustix::process::Signal::HUP);
    // `status` would not take the file either: look at what is said of it.
    host.log_when("configuration not taken", "unknown field `colour`")
        .await;
    host.write("agent.toml", &good);
    let warned = host
        .status_when("warned", |status| !status.warnings.is_empty())
        .await;
    assert!(warned.is_linked() && warned.warnings[0].contains("colour"));
    host.signal(rustix::process::Signal::HUP);
    host.status_when("content", |status| status.warnings.is_empty())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_costs_a_warning_and_not_the_link() {
    let mut gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    host.start();
    gateway
        .sees(|saw| (*saw == Saw::Stored(11)).then_some(()))
        .await;
    host.kill();
    // Where the next identity would be written first.
    std::fs::create_dir(host.state().join(".new-identity.json")).unwrap();
    host.start();
    let status = host
        .status_when("warned", |status| !status.warnings.is_empty())
        .await;
    assert!(status.is_linked());
    assert!(
        status.warnings[0].starts_with("store "),
        "{:?}",
        status.warnings
    );
    let beat = |saw: &Saw| match saw {
        Saw::Stored(counter) => panic!("announced {counter}, which is not on disk"),
        Saw::Beat(3) => Some(()),
        _ => None,
    };
    gateway.sees(beat).await;
}

#[test]
fn bad_configurations_and_commands_exit_with_two() {
    let program = env!("CARGO_BIN_EXE_loopback-agent");
    let run = |args: &[&str]| {
        std::process::Command::new(program)
            .args(args)
            .output()
            .unwrap()
    };
    let missing = run(&["run", "--config", "/nonexistent/agent.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(
        said(&missing).contains("read the configuration /nonexistent/agent.toml: No such file")
    );
    assert_eq!(run(&["dance"]).status.code(), Some(2));
    let version = run(&["--version"]);
    assert!(said(&version).starts_with(&format!("loopback-agent {} (linux ", agent::VERSION)));
}

/// Opens a stream about `path`, sends `content` when it is wanted, and hears all.
async fn file(
    gateway: &Gateway,
    host: &Host,
    path: &str,
    action: file_request::Action,
    content: &[u8],
) -> Vec<file_reply::Body> {
    let identity = host.status().unwrap().identity.unwrap();
    let (mut send, mut reader) = gateway.stream().await;
    let request = FileRequest {
        host: identity.host,
        generation: identity.generation,
        path: path.to_owned(),
        max_bytes: 1 << 30,
        action: Some(action),
    };
    let opening = Opening {
        kind: Some(opening::Kind::File(request)),
    };
    write_message(&mut send, &opening, MAX_FRAME, common::LIMIT)
        .await
        .unwrap();
    let mut said = Vec::new();
    while let Some(FileReply { body }) = reader.next().await.unwrap() {
        let body = body.unwrap();
        if let file_reply::Body::Held(_) = &body {
            for piece in content.chunks(100_000) {
                let bytes = piece.to_vec();
                let order = FileOrder {
                    body: Some(file_order::Body::Data(FileData { bytes })),
                };
                write_message(&mut send, &order, MAX_FRAME, common::LIMIT)
                    .await
                    .unwrap();
            }
            let _ = send.finish();
        }
        said.push(body);
    }
    said
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_to_an_agent_and_on_after_it_was_killed() {
    let mut gateway = Gateway::start();
    let mut host = Host::new(&gateway);
    std::fs::create_dir(host.path("given")).unwrap();
    let config = read(&host.path("agent.toml"));
    let given = host.path("given").display().to_string();
    host.write("agent.toml", &format!("{config}file_roots = ['{given}']\n"));
    host.start();
    gateway
        .sees(|saw| matches!(saw, Saw::Beat(_)).then_some(()))
        .await;
    let content: Vec<u8> = (0..1_500_000_u32).map(|it| it.to_le_bytes()[1]).collect();
    let sha256 = ring::digest::digest(&ring::digest::SHA256, &content);
    let mut write = FileWrite {
        transfer: vec![1; 16],
        size: content.len() as u64,
        sha256: sha256.as_ref().to_vec(),
        ..FileWrite::default()
    };
    let path = format!("{given}/f");
    let wanted = |write: &FileWrite| file_request::Action::Write(write.clone());
    let said = file(&gateway, &host, &path, wanted(&write), &content[..700_000]).await;
    assert!(matches!(said[..], [file_reply::Body::Held(_)]), "{said:?}");
    host.kill();
    host.start();
    gateway.sees_hello().await;
    gateway
        .sees(|saw| matches!(saw, Saw::Beat(_)).then_some(()))
        .await;
    write.offset = 700_000;
    let said = file(&gateway, &host, &path, wanted(&write), &content[700_000..]).await;
    assert!(
        matches!(said.last(), Some(file_reply::Body::End(_))),
        "{said:?}"
    );
    assert!(std::fs::read(host.path("given/f")).unwrap() == content);
    let whole = || file_request::Action::Read(FileRead::default());
    let said = file(&gateway, &host, &path, whole(), &[]).await;
    assert!(matches!(said.last(), Some(file_reply::Body::End(_))));
    let outside = host.path("token").display().to_string();
    let said = file(&gateway, &host, &outside, whole(), &[]).await;
    assert!(
        matches!(said[..], [file_reply::Body::Refused(_)]),
        "{said:?}"
    );
}
