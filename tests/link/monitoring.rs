//! Scrapes, met by agents that a test plays: what they are asked, what of their text is
//! passed on, and what is not.

use anyhow::{Context as _, bail, ensure};
use axum::body::to_bytes;
use axum::http::StatusCode;
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    Facts, Opening, ScrapeEnded, ScrapeFormat, ScrapeReply, ScrapeRequest, ScrapeStatus,
    ScrapeText, agent_frame, opening, scrape_reply,
};
use serde_json::{Value, json};
use tests::agent::{Agent, Member};
use tests::{LIMIT, soon};

use super::World;

/// A scrape's stream at the host's end.
struct Stream(quinn::SendStream);

impl Stream {
    /// The next stream that the gateway opens, with what it asks for.
    async fn next(connection: &quinn::Connection) -> anyhow::Result<(Self, ScrapeRequest)> {
        let (send, receive) = soon(connection.accept_bi()).await??;
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
        let opening: Option<Opening> = reader.next().await?;
        match opening.and_then(|opening| opening.kind) {
            Some(opening::Kind::Scrape(request)) => Ok((Self(send), request)),
            other => bail!("no scrape: {other:?}"),
        }
    }

    async fn say(&mut self, body: scrape_reply::Body) -> anyhow::Result<()> {
        let reply = ScrapeReply { body: Some(body) };
        Ok(write_message(&mut self.0, &reply, MAX_FRAME, LIMIT).await?)
    }

    async fn text(&mut self, data: &[u8]) -> anyhow::Result<()> {
        let data = data.to_vec();
        self.say(scrape_reply::Body::Text(ScrapeText { data }))
            .await
    }

    async fn end(&mut self, status: ScrapeStatus, message: &str) -> anyhow::Result<()> {
        self.say(scrape_reply::Body::Ended(ScrapeEnded {
            status: status.into(),
            message: message.to_owned(),
            format: ScrapeFormat::Prometheus.into(),
        }))
        .await
    }
}

struct Answered {
    status: StatusCode,
    kind: String,
    text: String,
}

impl Answered {
    fn code(&self) -> String {
        let problem: Value = serde_json::from_str(&self.text).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl World {
    async fn scrape(&self, member: &Member, query: &str, within: &str) -> anyhow::Result<Answered> {
        let (workspace, host) = (self.workspace.id, &member.grant.host);
        let path = format!("/v1/workspaces/{workspace}/hosts/{host}/metrics{query}");
        let headers = [("x-prometheus-scrape-timeout-seconds", within)];
        let response = self
            .gateway
            .respond(&self.gateway.owner, "GET", &path, None, &headers)
            .await?;
        let kind = response.headers().get("content-type");
        let kind = kind.map_or("", |kind| kind.to_str().unwrap_or_default());
        Ok(Answered {
            status: response.status(),
            kind: kind.to_owned(),
            text: String::from_utf8(to_bytes(response.into_body(), 64 << 20).await?.to_vec())?,
        })
    }

    async fn targets(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!(
            "/v1/workspaces/{}/metrics/targets{query}",
            self.workspace.id
        );
        let owner = &self.gateway.owner;
        self.gateway.expect(owner, "GET", &path, None, 200).await
    }

    fn scrapes(&self, outcome: &str) -> u64 {
        let series = format!("loopback_scrapes_total{{outcome=\"{outcome}\"}}");
        self.gateway.metric(&series)
    }
}

async fn linked(world: &World, hostname: &str) -> anyhow::Result<(Member, Agent)> {
    let member = world.member(hostname).await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    Ok((member, agent))
}

#[tokio::test]
async fn a_scrape_is_answered_through_the_link() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "web-1").await?;
    let host = async {
        let (mut stream, request) = Stream::next(&agent.connection).await?;
        stream.text(b"node_load1 0.5\nnode_lo").await?;
        stream.text(b"ad5 1\n").await?;
        stream.end(ScrapeStatus::Ok, "").await?;
        anyhow::Ok(request)
    };
    let (answered, request) = tokio::join!(world.scrape(&member, "?exporter=node", "5"), host);
    let (answered, request) = (answered?, request?);
    ensure!(
        answered.text == "node_load1 0.5\nnode_load5 1\n",
        "{}",
        answered.text
    );
    ensure!(
        answered.kind == "text/plain; version=0.0.4; charset=utf-8",
        "{}",
        answered.kind
    );
    ensure!(request.host == member.grant.host && request.exporter == "node");
    ensure!(request.generation == member.grant.generation && request.max_bytes == 4 << 20);
    // Less than the asker has, so that the host's own words arrive in time.
    ensure!(
        (1..4750).contains(&request.deadline_ms),
        "{}",
        request.deadline_ms
    );
    ensure!(world.scrapes("ok") == 1);
    world.gateway.stop().await
}

#[tokio::test]
async fn what_is_no_answer_is_a_problem_with_a_code() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, agent) = linked(&world, "web-1").await?;
    let large = vec![b'x'; 1 << 19];
    for (pieces, status, http, code) in [
        (
            &[][..],
            ScrapeStatus::NoSuchExporter,
            404,
            "no_such_exporter",
        ),
        (
            &[&b"half"[..]],
            ScrapeStatus::Unreachable,
            502,
            "exporter_failed",
        ),
        (
            &[&b"up \xff\n"[..]],
            ScrapeStatus::Ok,
            502,
            "exporter_failed",
        ),
        (
            &[&b"up\x1b[2J 1\n"[..]],
            ScrapeStatus::Ok,
            502,
            "exporter_failed",
        ),
        // More than was asked for, and no end to it.
        (&[&large[..]; 9], ScrapeStatus::Ok, 502, "exporter_failed"),
        (&[], ScrapeStatus::TimedOut, 504, "timeout"),
        (&[], ScrapeStatus::Busy, 503, "unavailable"),
    ] {
        let host = async {
            let (mut stream, _) = Stream::next(&agent.connection).await?;
            for piece in pieces {
                // The gateway stops listening when it has heard too much.
                if stream.text(piece).await.is_err() {
                    return Ok(());
                }
            }
            let _ = stream.end(status, "because \x1b[31m").await;
            anyhow::Ok(())
        };
        let (answered, host) = tokio::join!(world.scrape(&member, "", "20"), host);
        host?;
        let answered = answered?;
        ensure!(
            answered.status == http && answered.code() == code,
            "{status:?}: {} {}",
            answered.status,
            answered.text
        );
        ensure!(!answered.text.contains("u001b") && !answered.text.contains("half"));
    }

    // An agent that knows no scrapes resets the stream.
    let host = async {
        let (mut stream, _) = Stream::next(&agent.connection).await?;
        anyhow::Ok(stream.0.reset(1u32.into())?)
    };
    let (answered, host) = tokio::join!(world.scrape(&member, "", "20"), host);
    host?;
    ensure!(answered?.code() == "exporter_failed");

    // One that says nothing is given up when its asker would.
    let answered = world.scrape(&member, "", "0.3").await?;
    ensure!(answered.code() == "timeout", "{}", answered.text);
    let answered = world.scrape(&member, "?exporter=a%20b", "1").await?;
    ensure!(answered.code() == "invalid", "{}", answered.text);

    agent.connection.close(0u32.into(), b"gone");
    let host = member.host()?;
    tests::until("the link to be gone", || {
        !world.gateway.app.links.is_linked(host)
    })
    .await?;
    let answered = world.scrape(&member, "", "5").await?;
    ensure!(answered.status == 503 && answered.code() == "host_not_linked");
    world.gateway.stop().await
}

#[tokio::test]
async fn a_host_that_holds_its_answers_back_holds_up_itself_alone() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (slow, slow_agent) = linked(&world, "slow").await?;
    let (caller, quick_agent) = {
        let caller = tests::agent::Caller::of(&world.gateway)?;
        let quick = world.member("quick").await?;
        let (agent, _) = caller.welcome(&quick).await?;
        ((caller, quick), agent)
    };
    let held = async {
        let scrapes = (0..4).map(|_| world.scrape(&slow, "", "20"));
        futures_util::future::join_all(scrapes).await
    };
    let others = async {
        // All four have reached the host: a fifth is refused, and another host answers.
        let mut streams = Vec::new();
        for _ in 0..4 {
            streams.push(Stream::next(&slow_agent.connection).await?.0);
        }
        let fifth = world.scrape(&slow, "", "20").await?;
        ensure!(fifth.code() == "unavailable", "{}", fifth.text);
        let quick = async {
            let (mut stream, _) = Stream::next(&quick_agent.connection).await?;
            stream.end(ScrapeStatus::Ok, "").await
        };
        let (answered, quick) = tokio::join!(world.scrape(&caller.1, "", "20"), quick);
        quick?;
        ensure!(answered?.status == 200);
        for stream in &mut streams {
            stream.end(ScrapeStatus::Ok, "").await?;
        }
        anyhow::Ok(())
    };
    let (held, others) = tokio::join!(held, others);
    others?;
    for answered in held {
        ensure!(answered?.status == 200);
    }
    world.gateway.stop().await
}

#[tokio::test]
async fn targets_name_managed_hosts_and_their_exporters() -> anyhow::Result<()> {
    let world = World::new().await?;
    let (member, mut agent) = linked(&world, "web-1").await?;
    let facts = Facts {
        hostname: "web-1".to_owned(),
        exporters: vec![
            "node".to_owned(),
            "agent".to_owned(),
            "../etc".to_owned(),
            "a\"b".to_owned(),
        ],
        ..Facts::default()
    };
    agent.say(agent_frame::Body::Facts(Box::new(facts))).await?;
    agent.beat().await?;
    let path = format!(
        "/v1/workspaces/{}/hosts/{}",
        world.workspace.id, member.grant.host
    );
    let labels = json!({ "labels": { "example.com/role": "web" } });
    let owner = &world.gateway.owner;
    let _: Value = world
        .gateway
        .expect(owner, "PATCH", &path, Some(labels), 200)
        .await?;
    let unknown = json!({ "hostname": "later" });
    let hosts = format!("/v1/workspaces/{}/hosts", world.workspace.id);
    let _: Value = world
        .gateway
        .expect(owner, "POST", &hosts, Some(unknown), 201)
        .await?;

    let targets = world.targets("").await?;
    ensure!(targets.len() == 2, "{targets:?}");
    for (group, exporter, parameter) in [
        (&targets[0], "agent", Value::Null),
        (&targets[1], "node", json!("node")),
    ] {
        let address = world.gateway.app.public_url.strip_prefix("https://");
        let address = address.context("a URL")?;
        ensure!(group["targets"] == json!([address]), "{group}");
        let labels = &group["labels"];
        for (label, expected) in [
            ("__scheme__", json!("https")),
            ("__metrics_path__", json!(format!("{path}/metrics"))),
            ("__param_exporter", parameter),
            ("instance", json!("web-1")),
            ("loopback_host", json!(member.grant.host)),
            ("loopback_exporter", json!(exporter)),
            ("loopback_workspace", json!("main")),
            ("loopback_project", json!("fleet")),
            ("loopback_environment", json!("production")),
            ("__meta_loopback_host_name", json!("web-1")),
            ("__meta_loopback_maintenance", json!("false")),
            ("__meta_loopback_label_example_com_role", json!("web")),
        ] {
            ensure!(labels[label] == expected, "{label} in {labels}");
        }
    }
    ensure!(
        world
            .targets("?selector=example.com/role%3Ddb")
            .await?
            .is_empty()
    );
    ensure!(
        world
            .targets("?selector=example.com/role%3Dweb")
            .await?
            .len()
            == 2
    );

    let _: Value = world
        .gateway
        .expect(
            owner,
            "POST",
            &format!("{path}/retire"),
            Some(json!({ "reason": "" })),
            200,
        )
        .await?;
    ensure!(world.targets("").await?.is_empty());
    let answered = world.scrape(&member, "", "5").await?;
    ensure!(answered.code() == "conflict", "{}", answered.text);
    world.gateway.stop().await
}
