use std::process::{Child, Command, Stdio};

use link::frame::{Deadlines, FrameReader};
use model::diagnose::{Disks, Network, Processes, Sockets, SystemView, Units};
use serde::de::DeserializeOwned;

use super::limit::{Found, on_thread, run};
use super::*;

const CANARY: &str = "Xk7vQ2mPz9RtWb4L";

async fn section(name: &str) -> Gathered {
    let asked = DiagnoseSection {
        name: name.to_owned(),
        ..DiagnoseSection::default()
    };
    gather(&Standing::default(), &asked, ALL).await
}

fn read<T: DeserializeOwned>(gathered: &Gathered) -> T {
    serde_json::from_slice(&gathered.bytes).unwrap()
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_process_is_shown_without_the_secrets_in_its_arguments_and_environment() {
    let child = Command::new("sh")
        .args([
            "-c",
            "read held",
            "broken-app",
            "--password",
            CANARY,
            "--url",
        ])
        .arg(format!("postgres://me:{CANARY}@db/shop"))
        .env("SOME_VARIABLE", CANARY)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let child = Ended(child);
    // Until it is the program that was asked for.
    let mine = loop {
        let gathered = section("processes").await;
        assert_ne!(gathered.outcome(), Outcome::Failed, "{}", gathered.reason());
        assert!(!String::from_utf8_lossy(&gathered.bytes).contains(CANARY));
        let found: Processes = read(&gathered);
        let mine = found
            .processes
            .into_iter()
            .find(|it| it.pid == child.0.id());
        let mine = mine.expect("it runs");
        if mine.args.iter().any(|it| it == "broken-app") {
            break mine;
        }
    };
    assert_eq!(mine.ppid, std::process::id());
    assert_eq!(
        mine.args[5..],
        ["***", "--url", "postgres://me:***@db/shop"][..]
    );
    assert!(mine.rss_bytes > 0 && !mine.state.is_empty());
}

#[tokio::test]
async fn what_the_kernel_knows_is_there() {
    let system: SystemView = read(&section("system").await);
    assert!(system.memory.total > 0 && system.uptime_secs > 0 && system.load.len() == 3);
    let disks: Disks = read(&section("disks").await);
    let sized = |it: &model::diagnose::DiskView| it.size_bytes > 0 && it.trouble.is_empty();
    assert!(disks.disks.iter().any(sized), "{disks:?}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let sockets: Sockets = read(&section("sockets").await);
    let mine = sockets.sockets.iter().find(|it| it.local == address);
    let mine = mine.expect("it listens");
    assert_eq!(
        (mine.state.as_str(), mine.pid),
        ("listen", Some(std::process::id()))
    );
}

#[tokio::test]
async fn a_place_is_reached_or_it_is_said_why_not() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let open = listener.local_addr().unwrap().to_string();
    let closed = {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        other.local_addr().unwrap().to_string()
    };
    let asked = DiagnoseSection {
        name: "network".to_owned(),
        targets: vec![open.clone(), closed.clone()],
        ..DiagnoseSection::default()
    };
    let network: Network = read(&gather(&Standing::default(), &asked, ALL).await);
    assert!(network.interfaces.iter().any(|it| it.name == "lo"));
    let told: Vec<_> = network
        .targets
        .iter()
        .map(|it| (it.name.as_str(), it.outcome.as_str()))
        .collect();
    assert_eq!(told, [(open.as_str(), "ok"), (closed.as_str(), "fail")]);
    // There is no configuration to find a gateway with.
    assert_eq!(network.gateway[0].outcome, "fail");
}

#[tokio::test]
async fn sections_that_need_a_service_manager_say_so_where_there_is_none() {
    for name in ["units", "journal", "kernel", "agent"] {
        let gathered = section(name).await;
        match gathered.outcome() {
            Outcome::Failed | Outcome::Partial => assert!(!gathered.reason().is_empty(), "{name}"),
            Outcome::Ok if name == "units" => drop(read::<Units>(&gathered)),
            Outcome::Ok => {}
        }
    }
    let unknown = section("../etc/shadow").await;
    assert_eq!(unknown.outcome(), Outcome::Failed);
}

#[tokio::test]
async fn what_hangs_is_left_behind_with_what_it_had_found() {
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let (found, ended) = on_thread(Duration::from_millis(50), move |found: &Found<Vec<u8>>| {
        found.update(|it| it.push(7));
        let _ = hold.recv();
    })
    .await;
    assert_eq!((found, ended), (vec![7], false));
    drop(release);
    let said = run(
        "sh",
        &["-c", "echo begun; exec sleep 600"],
        100,
        Duration::from_millis(300),
    )
    .await;
    assert_eq!(said.output, b"begun\n");
    assert!(said.trouble.unwrap().contains("did not end"));
    let said = run("sh", &["-c", "yes"], 1000, SECTION).await;
    assert_eq!(said.output.len(), 1000);
    assert!(said.trouble.unwrap().contains("more than 1000"));
    let said = run("sh", &["-c", "echo no >&2; exit 3"], 1000, SECTION).await;
    assert_eq!(said.trouble.unwrap(), "sh: no");
    assert!(
        run("/no/such", &[], 1, SECTION)
            .await
            .trouble
            .unwrap()
            .starts_with("run /no/such")
    );
}

#[test]
fn the_latest_lines_are_kept_and_know_what_came_before_them() {
    let text = |gathered: &Gathered| String::from_utf8_lossy(&gathered.bytes).into_owned();
    let key = format!(
        "a: -----BEGIN PRIVATE KEY-----\na: {CANARY}\na: {CANARY}\na: -----END PRIVATE KEY-----\na: end\n"
    );
    let shown = text(&Gathered::latest(key.as_bytes(), 3));
    assert_eq!(shown, "a: ***\n*** -----END PRIVATE KEY-----\na: end\n");
    assert_eq!(text(&Gathered::latest(b"one\ntwo", 1)), "two");
    assert_eq!(text(&Gathered::latest(b"one\ntwo\n", 5)), "one\ntwo\n");
    let short = Gathered::latest(b"one\ntwo\nthree\n", 5).within(10);
    assert_eq!(
        (text(&short).as_str(), short.outcome()),
        ("three\n", Outcome::Partial)
    );
    let document = Gathered::json(vec![1; 100], |_| false).within(10);
    assert_eq!(document.outcome(), Outcome::Failed);
    let long = Gathered::json(vec!["x".repeat(1000); 10_000], halve_for_test);
    assert!(long.bytes.len() < MAX_SECTION && long.bytes.len() > 1 << 20);
}

fn halve_for_test(list: &mut Vec<String>) -> bool {
    content::halve(list, &mut 0)
}

async fn refusal(request: DiagnoseRequest) -> DiagnoseRefusal {
    let folder = tempfile::tempdir().unwrap();
    let inputs = Inputs {
        config: folder.path().join("agent.toml"),
    };
    let mut sink = Vec::new();
    serve(&inputs, request, &mut sink).await.unwrap();
    let deadlines = Deadlines {
        idle: SECTION,
        frame: SECTION,
    };
    let mut reader = FrameReader::new(sink.as_slice(), MAX_FRAME, deadlines);
    let report: DiagnoseReport = reader.next().await.unwrap().unwrap();
    let Some(diagnose_report::Body::Refused(refused)) = report.body else {
        panic!("{report:?}");
    };
    refused.code()
}

#[tokio::test]
async fn a_request_that_makes_no_sense_or_is_for_another_host_is_declined() {
    let asked = |name: &str, unit: &str| DiagnoseSection {
        name: name.to_owned(),
        unit: unit.to_owned(),
        ..DiagnoseSection::default()
    };
    for sections in [
        vec![],
        vec![asked("disks", ""), asked("disks", "")],
        vec![asked("journal", "--vacuum-time=1s")],
        vec![DiagnoseSection {
            lines: u32::MAX,
            ..asked("journal", "")
        }],
        vec![DiagnoseSection {
            targets: vec!["x".to_owned()],
            ..asked("network", "")
        }],
    ] {
        let request = DiagnoseRequest {
            sections,
            ..DiagnoseRequest::default()
        };
        assert_eq!(refusal(request).await, DiagnoseRefusal::Invalid);
    }
    let request = DiagnoseRequest {
        host: "hst_another".to_owned(),
        sections: vec![asked("disks", "")],
        ..DiagnoseRequest::default()
    };
    assert_eq!(refusal(request).await, DiagnoseRefusal::NotMine);
}
