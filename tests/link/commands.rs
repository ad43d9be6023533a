//! Commands, met by agents that a test plays: what they are asked, what becomes of what
//! they say, and what they cannot make of it.

use anyhow::{Context as _, bail, ensure};
use axum::http::StatusCode;
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    EndKind, Opening, RunAccepted, RunEnded, RunGap, RunOrder, RunOutput, RunRefusal, RunRefused,
    RunReport, RunRequest, RunStarted, opening, run_order, run_report,
};
use serde_json::{Value, json};
use tests::agent::{Agent, Caller, Member};
use tests::{LIMIT, soon};

use super::World;

/// A run's stream at the host's end.
struct Stream {
    send: quinn::SendStream,
    reader: FrameReader<quinn::RecvStream>,
}

impl Stream {
    /// The next stream that the gateway opens, with what it asks for.
    async fn next(agent: &Agent) -> anyhow::Result<(Self, RunRequest)> {
        let (send, receive) = soon(agent.connection.accept_bi()).await??;
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
        let opening: Option<Opening> = reader.next().await?;
        match opening.and_then(|opening| opening.kind) {
            Some(opening::Kind::Run(request)) => Ok((Self { send, reader }, request)),
            _ => bail!("a stream for something else"),
        }
    }

    async fn say(&mut self, body: run_report::Body) -> anyhow::Result<()> {
        let report = RunReport { body: Some(body) };
        Ok(write_message(&mut self.send, &report, MAX_FRAME, LIMIT).await?)
    }

    async fn begin(&mut self) -> anyhow::Result<()> {
        self.say(run_report::Body::Accepted(RunAccepted {})).await?;
        let at_ms = 1_700_000_000_000;
        self.say(run_report::Body::Started(RunStarted { at_ms, pid: 7 }))
            .await
    }

    async fn write(&mut self, sequence: u64, stream: u32, data: &[u8]) -> anyhow::Result<()> {
        let data = data.to_vec();
        self.say(run_report::Body::Output(RunOutput {
            sequence,
            stream,
            data,
        }))
        .await
    }

    async fn end(&mut self, ended: RunEnded) -> anyhow::Result<()> {
        self.say(run_report::Body::Ended(ended)).await
    }

    /// The next order that is not about output.
    async fn order(&mut self) -> anyhow::Result<run_order::Body> {
        loop {
            let order: Option<RunOrder> = self.reader.next().await?;
            match order.context("the gateway ended the stream")?.body {
                Some(run_order::Body::OutputStored(_)) | None => {}
                Some(body) => return Ok(body),
            }
        }
    }

    async fn taken(&mut self) -> anyhow::Result<()> {
        match self.order().await? {
            run_order::Body::ResultStored(_) => Ok(()),
            other => bail!("not taken: {other:?}"),
        }
    }
}

fn exited(code: i32, pieces: u64) -> RunEnded {
    RunEnded {
        kind: EndKind::Itself.into(),
        code: Some(code),
        started_at_ms: Some(1_700_000_000_000),
        ended_at_ms: 1_700_000_000_500,
        pieces,
        ..RunEnded::default()
    }
}

impl World {
    fn commands(&self) -> String {
        format!("/v1/workspaces/{}/commands", self.workspace.id)
    }

    async fn run(&self, body: Value) -> anyhow::Result<String> {
        let owner = &self.gateway.owner;
        let made: Value = self
            .gateway
            .expect(owner, "POST", &self.commands(), Some(body), 201)
            .await?;
        Ok(made["id"].as_str().context("an id")?.to_owned())
    }

    async fn run_on(&self, member: &Member) -> anyhow::Result<String> {
        let targets = json!({ "hosts": [member.grant.host] });
        self.run(json!({ "targets": targets, "argv": ["uptime"] }))
            .await
    }

    async fn show(&self, path: &str) -> anyhow::Result<Value> {
        let path = format!("{}/{path}", self.commands());
        self.gateway
            .expect(&self.gateway.owner, "GET", &path, None, 200)
            .await
    }

    async fn run_of(&self, command: &str, member: &Member) -> anyhow::Result<Value> {
        self.show(&format!("{command}/runs/{}", member.grant.host))
            .await
    }

    /// Waits until the run is in a state.
    async fn until_run(
        &self,
        command: &str,
        member: &Member,
        state: &str,
    ) -> anyhow::Result<Value> {
        let mut last = Value::Null;
        let wait = async {
            loop {
                last = self.run_of(command, member).await?;
                if last["state"] == state {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        soon(wait)
            .await
            .with_context(|| format!("waiting for {state}"))??;
        Ok(last)
    }

    async fn output(&self, command: &str, member: &Member, query: &str) -> anyhow::Result<Vec<u8>> {
        let host = &member.grant.host;
        let path = format!("{}/{command}/runs/{host}/output{query}", self.commands());
        let owner = &self.gateway.owner;
        let response = self.gateway.respond(owner, "GET", &path, None, &[]).await?;
        ensure!(response.status() == StatusCode::OK, "{response:?}");
        Ok(soon(axum::body::to_bytes(response.into_body(), 128 << 20))
            .await??
            .to_vec())
    }

    async fn follow(&self, command: &str) -> anyhow::Result<String> {
        let path = format!("{}/{command}/events", self.commands());
        let owner = &self.gateway.owner;
        let response = self.gateway.respond(owner, "GET", &path, None, &[]).await?;
        let bytes = soon(axum::body::to_bytes(response.into_body(), 128 << 20)).await??;
        Ok(String::from_utf8(bytes.to_vec())?)
    }
}

#[tokio::test]
async fn a_run_goes_all_the_way_and_is_told_as_it_was() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let command = world
        .run(json!({
            "targets": { "selector": "" },
            "argv": ["sh", "-c", "echo hi"],
            "user": "nobody",
            "environment": { "A": "1" },
            "secrets": { "B": "canary-secret" },
        }))
        .await?;
    let follower = world.follow(&command);
    let host = async {
        let (mut stream, request) = Stream::next(&agent).await?;
        assert_eq!(request.command, command);
        assert_eq!(request.host, member.grant.host);
        assert_eq!(request.generation, member.grant.generation);
        assert!(request.start_before_ms > request.server_time_ms);
        let spec = request.spec.context("a specification")?;
        assert_eq!(spec.argv, ["sh", "-c", "echo hi"]);
        assert_eq!(spec.user, "nobody");
        assert_eq!(spec.environment[0].value, "1");
        assert_eq!(spec.secrets[0].value, "canary-secret");
        assert_eq!(spec.actor, "owner");
        stream.begin().await?;
        world.until_run(&command, &member, "started").await?;
        stream.write(0, 1, b"hi\xff\n").await?;
        stream.write(1, 2, b"oh\n").await?;
        stream.end(exited(0, 2)).await?;
        stream.taken().await
    };
    let (told, done) = tokio::join!(follower, host);
    done?;
    let told = told?;
    for part in [
        "\"state\":\"started\"",
        "aGn/Cg==",
        "b2gK",
        "\"state\":\"exited\"",
        "\"code\":0",
    ] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    assert!(told.trim_end().ends_with('}'), "{told}");
    let last = told.rsplit("event: ").next().context("an event")?;
    assert!(
        last.starts_with("command") && last.contains("\"state\":\"succeeded\""),
        "{last}"
    );
    let shown = world.show(&command).await?;
    assert_eq!(shown["state"], "succeeded");
    assert_eq!(shown["runs"], json!({ "exited": 1 }));
    assert_eq!(world.output(&command, &member, "").await?, b"hi\xff\noh\n");
    assert_eq!(
        world
            .output(&command, &member, "?stream=stderr&from=1")
            .await?,
        b"h\n"
    );
    let definition = world.show(&format!("{command}/definition")).await?;
    assert_eq!(definition["secrets"], json!(["B"]));
    let audit: Value = world
        .gateway
        .expect(
            &world.gateway.owner,
            "GET",
            &format!("/v1/workspaces/{}/audit", world.workspace.id),
            None,
            200,
        )
        .await?;
    let text = audit.to_string();
    assert!(
        text.contains("command.run") && text.contains("command.finish"),
        "{text}"
    );
    assert!(!format!("{text}{told}{definition}{shown}").contains("canary-secret"));
    Ok(())
}

#[tokio::test]
async fn a_link_cut_in_the_middle_loses_and_repeats_nothing() -> anyhow::Result<()> {
    let world = World::new().await?;
    let mut member = world.member("web").await?;
    let (agent, welcome) = world.caller.welcome(&member).await?;
    let command = world.run_on(&member).await?;
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.begin().await?;
    stream.write(0, 1, b"one ").await?;
    let arrived = async {
        while world.run_of(&command, &member).await?["output"]["stdout_bytes"] != 4 {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        anyhow::Ok(())
    };
    soon(arrived).await??;
    agent.connection.close(0u32.into(), b"cut");
    member.grant.counter = welcome.counter;
    let (agent, _) = world.caller.welcome(&member).await?;
    let (mut stream, request) = Stream::next(&agent).await?;
    assert_eq!(request.output_from, 1);
    assert!(request.spec.is_some());
    stream.begin().await?;
    // What the host is not sure about it says again.
    stream.write(0, 1, b"one ").await?;
    stream.write(1, 1, b"two").await?;
    stream.end(exited(3, 2)).await?;
    stream.taken().await?;
    assert_eq!(world.output(&command, &member, "").await?, b"one two");
    let run = world.run_of(&command, &member).await?;
    assert_eq!((&run["state"], &run["code"]), (&json!("exited"), &json!(3)));
    assert_eq!(world.show(&command).await?["state"], "failed");
    Ok(())
}

#[tokio::test]
async fn a_host_without_link_expires_and_one_that_comes_in_time_runs() -> anyhow::Result<()> {
    let world = World::new().await?;
    let early = world.member("early").await?;
    let never = world.member("never").await?;
    let command = world
        .run(json!({
            "targets": { "selector": "" },
            "argv": ["true"],
            "timers": { "delivery_ms": 2000 },
        }))
        .await?;
    let (agent, _) = world.caller.welcome(&early).await?;
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.end(exited(0, 0)).await?;
    stream.taken().await?;
    let run = world.until_run(&command, &never, "expired").await?;
    assert!(
        run["reason"]
            .as_str()
            .is_some_and(|it| it.contains("not reached"))
    );
    let told = world.follow(&command).await?;
    assert!(told.contains("\"state\":\"failed\""), "{told}");
    let again = format!("{}/{command}/retry", world.commands());
    let body = json!({ "which": "not_reached" });
    let again: Value = world
        .gateway
        .expect(&world.gateway.owner, "POST", &again, Some(body), 201)
        .await?;
    assert_eq!(again["targets"], 1);
    assert_eq!(again["retry_of"], json!(command));
    Ok(())
}

#[tokio::test]
async fn a_cancelled_run_says_how_it_died() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let command = world.run_on(&member).await?;
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.begin().await?;
    world.until_run(&command, &member, "started").await?;
    let cancel = format!("{}/{command}/cancel", world.commands());
    let shown: Value = world
        .gateway
        .expect(&world.gateway.owner, "POST", &cancel, Some(json!({})), 200)
        .await?;
    assert_eq!(shown["state"], "running");
    assert!(matches!(stream.order().await?, run_order::Body::Cancel(_)));
    stream
        .end(RunEnded {
            kind: EndKind::Cancelled.into(),
            signal: Some(9),
            killed: true,
            others: 2,
            ..RunEnded::default()
        })
        .await?;
    stream.taken().await?;
    let run = world.run_of(&command, &member).await?;
    assert_eq!(run["state"], "cancelled");
    assert_eq!(
        run["ending"],
        json!({ "killed": true, "others": 2, "left": 0 })
    );
    assert_eq!(world.show(&command).await?["state"], "cancelled");
    Ok(())
}

#[tokio::test]
async fn long_output_becomes_an_object_and_very_long_output_loses_its_middle() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    for (mib, kept_whole) in [(6u64, true), (60, false)] {
        let command = world.run_on(&member).await?;
        let (mut stream, _) = Stream::next(&agent).await?;
        stream.begin().await?;
        let pieces = mib << 5;
        for sequence in 0..pieces {
            let data = sequence.to_be_bytes().repeat(4096);
            stream.write(sequence, 1, &data).await?;
        }
        stream.end(exited(0, pieces)).await?;
        stream.taken().await?;
        let run = world.run_of(&command, &member).await?;
        let output = world.output(&command, &member, "").await?;
        assert_eq!(run["output"]["stdout_bytes"], mib << 20);
        let dropped = run["output"]["dropped_bytes"]
            .as_u64()
            .context("a number")?;
        assert_eq!(dropped == 0, kept_whole);
        assert_eq!(output.len() as u64 + dropped, mib << 20);
        assert_eq!(output[..8], 0u64.to_be_bytes());
        assert_eq!(output[output.len() - 8..], (pieces - 1).to_be_bytes());
        if !kept_whole {
            let told = world.follow(&command).await?;
            assert!(
                told.contains(&format!("\"bytes\":{dropped}}}")),
                "no gap of {dropped}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_old_command_is_forgotten_with_its_output() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let [old, kept] = [world.run_on(&member).await?, world.run_on(&member).await?];
    for _ in 0..2 {
        let (mut stream, _) = Stream::next(&agent).await?;
        // The same from both: neither may take the other's away.
        for sequence in 0..8 {
            stream.write(sequence, 1, &[b'x'; 32 << 10]).await?;
        }
        stream.end(exited(0, 8)).await?;
        stream.taken().await?;
    }
    for command in [&old, &kept] {
        world.follow(command).await?;
    }
    gateway::command::retention::forget(&world.gateway.app, old.parse()?).await?;
    let path = format!("{}/{old}", world.commands());
    let owner = &world.gateway.owner;
    let answer = world.gateway.call(owner, "GET", &path, None).await?;
    assert_eq!(answer.code(), "not_found");
    assert_eq!(
        world.output(&kept, &member, "").await?.len(),
        8 * (32 << 10)
    );
    Ok(())
}

#[tokio::test]
async fn a_host_that_cannot_say_what_it_lost_says_how_much() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let command = world.run_on(&member).await?;
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.write(0, 1, b"head").await?;
    stream
        .say(run_report::Body::Gap(RunGap {
            sequence: 1,
            resumes_at: 9,
            bytes: 1000,
        }))
        .await?;
    stream.write(9, 1, b"tail").await?;
    stream.end(exited(0, 10)).await?;
    stream.taken().await?;
    assert_eq!(world.output(&command, &member, "").await?, b"headtail");
    let run = world.run_of(&command, &member).await?;
    assert_eq!(run["output"]["dropped_bytes"], 1000);
    Ok(())
}

#[tokio::test]
async fn nonsense_ends_the_stream_and_the_host_is_asked_again() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let command = world.run_on(&member).await?;
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.write(5, 1, b"from nowhere").await?;
    assert!(stream.order().await.is_err());
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.write(0, 3, b"of no stream").await?;
    assert!(stream.order().await.is_err());
    let (mut stream, request) = Stream::next(&agent).await?;
    assert_eq!(request.output_from, 0);
    stream
        .say(run_report::Body::Refused(RunRefused {
            code: RunRefusal::DiskFull.into(),
            message: "no space left\u{1b}[31m".to_owned(),
        }))
        .await?;
    stream.taken().await?;
    let run = world.run_of(&command, &member).await?;
    assert_eq!(run["state"], "refused");
    assert!(
        !run["reason"]
            .as_str()
            .context("a reason")?
            .contains('\u{1b}')
    );
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_run_is_refused_before_anything_is_written() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let targets = json!({ "hosts": [member.grant.host] });
    for (body, field) in [
        (json!({ "targets": {}, "argv": ["true"] }), "targets"),
        (
            json!({ "targets": { "selector": "role=none" }, "argv": ["true"] }),
            "targets",
        ),
        (json!({ "targets": targets }), "argv"),
        (
            json!({ "targets": targets, "argv": ["true"], "script": "true" }),
            "argv",
        ),
        (json!({ "targets": targets, "argv": [""] }), "argv"),
        (json!({ "targets": targets, "argv": ["a\u{0}b"] }), "argv"),
        (
            json!({ "targets": targets, "argv": ["true"], "directory": "tmp" }),
            "directory",
        ),
        (
            json!({ "targets": targets, "argv": ["true"], "user": "-x" }),
            "user",
        ),
        (
            json!({ "targets": targets, "argv": ["true"], "environment": { "LOOPBACK_X": "" } }),
            "environment",
        ),
        (
            json!({ "targets": targets, "argv": ["true"], "secrets": { "A": "" } }),
            "secrets",
        ),
        (
            json!({ "targets": targets, "argv": ["true"], "fan_out": { "batches": ["0%"] } }),
            "fan_out",
        ),
        (
            json!({ "targets": targets, "argv": ["true"], "timers": { "valid_until": "2020-01-01T00:00:00Z" } }),
            "timers.valid_until",
        ),
    ] {
        let owner = &world.gateway.owner;
        let answer = world
            .gateway
            .call(owner, "POST", &world.commands(), Some(body.clone()))
            .await?;
        assert_eq!(answer.code(), "invalid", "{body} {}", answer.body);
        assert_eq!(answer.body["field"], field, "{body}");
    }
    let body = json!({ "targets": targets, "argv": ["true"], "targets_digest": "sha256:0" });
    let owner = &world.gateway.owner;
    let answer = world
        .gateway
        .call(owner, "POST", &world.commands(), Some(body))
        .await?;
    assert_eq!(answer.code(), "conflict");
    let listed: Value = world
        .gateway
        .expect(owner, "GET", &world.commands(), None, 200)
        .await?;
    assert_eq!(listed["items"], json!([]));
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_comes_back_goes_on_where_it_was() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let mut running = world.member("running").await?;
    let waiting = world.member("waiting").await?;
    let (agent, welcome) = world.caller.welcome(&running).await?;
    let command = world
        .run(json!({
            "targets": { "selector": "" },
            "argv": ["sleep"],
            "secrets": { "B": "sealed" },
            "timers": { "valid_until": model::Timestamp::from_millis(
                world.gateway.app.now().as_millis() + 3_600_000,
            ) },
        }))
        .await?;
    let (mut stream, _) = Stream::next(&agent).await?;
    stream.begin().await?;
    // Enough to be on disk, of which the last part may be lost.
    for sequence in 0..64 {
        stream.write(sequence, 1, &[b'x'; 32 << 10]).await?;
    }
    world.until_run(&command, &running, "started").await?;
    world.gateway.restart().await?;
    world.caller = Caller::of(&world.gateway)?;
    let shown = world.run_of(&command, &running).await?;
    assert_eq!(shown["state"], "sending");
    assert_eq!(world.run_of(&command, &waiting).await?["state"], "queued");

    running.grant.counter = welcome.counter;
    let (agent, _) = world.caller.welcome(&running).await?;
    let (mut stream, request) = Stream::next(&agent).await?;
    assert_eq!(request.command, command);
    assert!(
        (1..=64).contains(&request.output_from),
        "{}",
        request.output_from
    );
    stream.begin().await?;
    for sequence in request.output_from..64 {
        stream.write(sequence, 1, &[b'x'; 32 << 10]).await?;
    }
    stream.end(exited(0, 64)).await?;
    stream.taken().await?;
    assert_eq!(
        world.output(&command, &running, "").await?.len(),
        64 * (32 << 10)
    );

    let (agent, _) = world.caller.welcome(&waiting).await?;
    let (mut stream, request) = Stream::next(&agent).await?;
    assert_eq!(
        request.spec.context("a specification")?.secrets[0].value,
        "sealed"
    );
    stream.end(exited(0, 0)).await?;
    stream.taken().await?;
    let told = world.follow(&command).await?;
    assert!(told.contains("\"state\":\"succeeded\""), "{}", told.len());
    Ok(())
}
