//! The agent as a gateway scrapes it: a process, real QUIC, and exporters on loopback.

#![allow(dead_code, reason = "the helpers serve more than one test")]
#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod common;

use common::gateway::Saw;
use common::{Gateway, Host, LIMIT};
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    Opening, ScrapeEnded, ScrapeFormat, ScrapeReply, ScrapeRequest, ScrapeStatus, opening,
    scrape_reply,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Answers the same to everybody who asks, and hands back what was asked.
async fn exporter(answer: &'static str) -> (String, JoinSet<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut served = JoinSet::new();
    served.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8(asked).unwrap()
    });
    (address, served)
}

async fn scrape(
    gateway: &Gateway,
    change: impl FnOnce(&mut ScrapeRequest),
) -> (String, ScrapeStatus, ScrapeEnded) {
    let (connection, host) = gateway.manners(|manners| manners.link.clone()).unwrap();
    let mut request = ScrapeRequest {
        host: host.to_string(),
        generation: 1,
        exporter: String::new(),
        server_time_ms: 0,
        deadline_ms: 20_000,
        max_bytes: 1 << 20,
    };
    change(&mut request);
    let (mut send, receive) = connection.open_bi().await.unwrap();
    let opening = Opening {
        kind: Some(opening::Kind::Scrape(request)),
    };
    write_message(&mut send, &opening, MAX_FRAME, LIMIT)
        .await
        .unwrap();
    let deadlines = Deadlines {
        idle: LIMIT,
        frame: LIMIT,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    let mut text = Vec::new();
    loop {
        let reply: ScrapeReply = reader.next().await.unwrap().expect("an end before the end");
        match reply.body.unwrap() {
            scrape_reply::Body::Text(piece) => text.extend(piece.data),
            scrape_reply::Body::Ended(ended) => {
                let text = String::from_utf8(text).unwrap();
                return (text, ended.status(), ended);
            }
        }
    }
}

/// A linked host with these exporters, by name and URL.
async fn host_with(gateway: &Gateway, exporters: &[(&str, String)]) -> Host {
    let mut host = Host::new(gateway);
    let tables: String = exporters
        .iter()
        .map(|(name, url)| format!("\n[[exporter]]\nname = '{name}'\nurl = '{url}'\n"))
        .collect();
    let config = common::read(&host.path("agent.toml"));
    host.write("agent.toml", &(config + &tables));
    host.start();
    host.status_when("linked", |status| status.is_linked())
        .await;
    host
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agents_own_samples_are_taken_when_asked() {
    let gateway = Gateway::start();
    let _host = host_with(&gateway, &[]).await;
    let (text, status, ended) = scrape(&gateway, |_| {}).await;
    assert_eq!(
        (status, ended.format()),
        (ScrapeStatus::Ok, ScrapeFormat::Prometheus)
    );
    for series in [
        "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} ",
        "node_memory_MemAvailable_bytes ",
        "node_load1 ",
        "loopback_agent_info{version=",
    ] {
        let found = text.lines().any(|line| line.starts_with(series));
        assert!(found, "{series} is missing in\n{text}");
    }

    let (text, status, _) = scrape(&gateway, |request| request.max_bytes = 10).await;
    assert_eq!((text.as_str(), status), ("", ScrapeStatus::TooLarge));
    let (_, status, _) = scrape(&gateway, |request| request.generation = 2).await;
    assert_eq!(status, ScrapeStatus::NotMine);
    let (_, status, _) = scrape(&gateway, |request| request.exporter = "node".into()).await;
    assert_eq!(status, ScrapeStatus::NoSuchExporter);
}

#[tokio::test(flavor = "multi_thread")]
async fn exporters_of_the_configuration_are_asked_and_told_of() {
    let mut gateway = Gateway::start();
    let (good, mut asked) = exporter(
        "HTTP/1.1 200 OK\r\nContent-Type: application/openmetrics-text; version=1.0.0\r\n\
         Transfer-Encoding: chunked\r\n\r\n5\r\nup 1\n\r\n6\r\n# EOF\n\r\n0\r\n\r\n",
    )
    .await;
    let (moved, _moved) =
        exporter("HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\n\r\n").await;
    let (page, _page) =
        exporter("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html></html>").await;
    let (large, _large) =
        exporter("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nup 1\n").await;
    // Takes connections, in the kernel's queue, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let exporters = [
        ("good", format!("http://{good}/metrics?a=b")),
        ("moved", format!("http://{moved}/")),
        ("page", format!("http://{page}/")),
        ("large", format!("http://{large}/")),
        (
            "silent",
            format!("http://{}/", silent.local_addr().unwrap()),
        ),
        ("closed", format!("http://{closed}/")),
    ];
    let _host = host_with(&gateway, &exporters).await;
    let facts = gateway
        .sees(|saw| match saw {
            Saw::Facts(facts) => Some(facts.clone()),
            _ => None,
        })
        .await;
    assert_eq!(
        facts.exporters,
        ["good", "moved", "page", "large", "silent", "closed"]
    );

    let (text, status, ended) = scrape(&gateway, |request| request.exporter = "good".into()).await;
    assert_eq!((text.as_str(), status), ("up 1\n# EOF\n", ScrapeStatus::Ok));
    assert_eq!(ended.format(), ScrapeFormat::OpenMetrics);
    let asked = asked.join_next().await.unwrap().unwrap();
    assert!(
        asked.starts_with("GET /metrics?a=b HTTP/1.1\r\n")
            && asked.contains("\r\nHost: 127.0.0.1:"),
        "{asked}"
    );

    for (name, expected, words) in [
        ("moved", ScrapeStatus::HttpStatus, "status 302"),
        ("page", ScrapeStatus::BadContent, "text/html"),
        ("large", ScrapeStatus::TooLarge, "larger"),
        ("silent", ScrapeStatus::TimedOut, "in time"),
        ("closed", ScrapeStatus::Unreachable, "refused"),
    ] {
        let (_, status, ended) = scrape(&gateway, |request| {
            request.exporter = name.into();
            if name == "silent" {
                request.deadline_ms = 200;
            }
        })
        .await;
        assert_eq!(status, expected, "{name}: {}", ended.message);
        let message = ended.message.to_lowercase();
        assert!(message.contains(words), "{name}: {message}");
    }
}
