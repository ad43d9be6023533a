//! Diagnoses, met by agents that a test plays: what becomes of what they say, and what
//! they cannot make of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};
use api::tar::{self, BLOCK, Head};
use axum::http::StatusCode;
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use model::diagnose::{MAX_SECTION, Section};
use protocol::v1::{
    DiagnoseDone, DiagnoseRefusal, DiagnoseRefused, DiagnoseReport, DiagnoseRequest, Opening,
    SectionBegun, SectionEnded, SectionOutcome, SectionPiece, diagnose_report, opening,
};
use serde_json::Value;
use tests::agent::{Agent, Member};
use tests::{LIMIT, soon};

use super::World;
use diagnose_report::Body;

/// A diagnosis' stream at the host's end.
struct Stream {
    send: quinn::SendStream,
    request: DiagnoseRequest,
}

impl Stream {
    async fn next(agent: &Agent) -> anyhow::Result<Self> {
        let (send, receive) = soon(agent.connection.accept_bi()).await??;
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
        let opening: Option<Opening> = reader.next().await?;
        match opening.and_then(|opening| opening.kind) {
            Some(opening::Kind::Diagnose(request)) => Ok(Self { send, request }),
            other => bail!("a stream for {other:?}"),
        }
    }

    async fn say(&mut self, body: Body) -> anyhow::Result<()> {
        let report = DiagnoseReport { body: Some(body) };
        Ok(write_message(&mut self.send, &report, MAX_FRAME, LIMIT).await?)
    }

    async fn tell(&mut self, name: &str, content: &str) -> anyhow::Result<()> {
        self.say(begun(name)).await?;
        for piece in content.as_bytes().chunks(7) {
            self.say(self::piece(piece)).await?;
        }
        self.say(ended(SectionOutcome::Ok, "")).await
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.send.finish()?;
        let _ = soon(self.send.stopped()).await?;
        Ok(())
    }
}

fn begun(name: &str) -> Body {
    Body::Begun(SectionBegun {
        name: name.to_owned(),
    })
}

fn piece(data: &[u8]) -> Body {
    Body::Piece(SectionPiece {
        data: data.to_vec(),
    })
}

fn ended(outcome: SectionOutcome, reason: &str) -> Body {
    Body::Ended(SectionEnded {
        outcome: outcome.into(),
        reason: reason.to_owned(),
        duration_ms: 12,
    })
}

impl World {
    fn diagnostics(&self, member: &Member) -> String {
        let host = &member.grant.host;
        format!(
            "/v1/workspaces/{}/hosts/{host}/diagnostics",
            self.workspace.id
        )
    }

    async fn bundle(
        &self,
        member: &Member,
        query: &str,
    ) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        let path = format!("{}-bundle{query}", self.diagnostics(member));
        let owner = &self.gateway.owner;
        let response = self.gateway.respond(owner, "GET", &path, None, &[]).await?;
        ensure!(response.status() == StatusCode::OK, "{response:?}");
        let bytes = soon(axum::body::to_bytes(response.into_body(), 64 << 20)).await??;
        files(&bytes)
    }

    async fn ask(&self, member: &Member, section: &str) -> anyhow::Result<tests::Answer> {
        let path = format!("{}/{section}", self.diagnostics(member));
        self.gateway
            .call(&self.gateway.owner, "GET", &path, None)
            .await
    }
}

/// The files of a whole archive.
fn files(bytes: &[u8]) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut rest = bytes;
    loop {
        let (block, after) = rest.split_first_chunk::<BLOCK>().context("a block")?;
        match tar::read(block)? {
            Head::End => {
                ensure!(after == [0; BLOCK], "something after the end");
                return Ok(found);
            }
            Head::File { name, size } => {
                let whole = usize::try_from(size)?;
                let content = after.get(..whole).context("the content")?;
                ensure!(found.insert(name, content.to_vec()).is_none());
                rest = &after[whole + tar::padding(size)..];
            }
        }
    }
}

fn outcomes(files: &BTreeMap<String, Vec<u8>>) -> anyhow::Result<BTreeMap<String, String>> {
    let manifest = files.get("manifest.json").context("a manifest")?;
    let manifest: Value = serde_json::from_slice(manifest)?;
    let sections = manifest["sections"].as_array().context("sections")?;
    let one = |it: &Value| {
        let text = |name: &str| it[name].as_str().unwrap_or_default().to_owned();
        let what = format!("{} {}", text("outcome"), text("reason"));
        (text("section"), what.trim().to_owned())
    };
    Ok(sections.iter().map(one).collect())
}

#[tokio::test]
async fn a_bundle_has_what_the_host_tells_and_says_what_it_leaves_out() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let host = async {
        let mut stream = Stream::next(&agent).await?;
        let request = &stream.request;
        assert_eq!(request.host, member.grant.host);
        assert_eq!(request.generation, member.grant.generation);
        let names: Vec<_> = request.sections.iter().map(|it| it.name.as_str()).collect();
        let all: Vec<_> = Section::ALL.iter().map(|it| it.as_str()).collect();
        assert_eq!(names, all);
        let journal = request.sections.last().context("a section")?;
        assert_eq!((journal.unit.as_str(), journal.lines), ("a.service", 5));
        assert_eq!(request.sections[0].unit, "");
        stream.tell("system", "{\"cpus\": 2}").await?;
        stream.say(begun("journal")).await?;
        stream.say(piece(b"one line\n")).await?;
        let reason = "earlier \u{1b}[31mlines had no room";
        stream.say(ended(SectionOutcome::Partial, reason)).await?;
        stream.tell("disks", "{ not json").await?;
        stream.say(begun("units")).await?;
        stream
            .say(ended(SectionOutcome::Failed, "no systemd"))
            .await?;
        stream.say(Body::Done(DiagnoseDone {})).await?;
        stream.end().await
    };
    let (files, told) = tokio::join!(world.bundle(&member, "?unit=a.service&lines=5"), host);
    told?;
    let files = files?;
    assert_eq!(files["system.json"], b"{\"cpus\": 2}");
    assert_eq!(files["journal.txt"], b"one line\n");
    assert!(!files.contains_key("disks.json") && !files.contains_key("units.json"));
    let outcomes = outcomes(&files)?;
    assert_eq!(outcomes.len(), Section::ALL.len());
    assert_eq!(outcomes["system"], "ok");
    assert!(
        outcomes["journal"].starts_with("partial earlier")
            && !outcomes["journal"].contains('\u{1b}')
    );
    assert_eq!(outcomes["disks"], "failed what the host sent is not JSON");
    assert_eq!(outcomes["units"], "failed no systemd");
    assert_eq!(outcomes["kernel"], "failed the host has left it out");
    let path = format!("/v1/workspaces/{}/audit", world.workspace.id);
    let owner = &world.gateway.owner;
    let finish = async {
        loop {
            let audit: Value = world.gateway.expect(owner, "GET", &path, None, 200).await?;
            let text = audit.to_string();
            if text.contains("host.diagnose.finish") {
                return anyhow::Ok(text);
            }
        }
    };
    let audit = soon(finish).await??;
    assert!(audit.contains("system processes disks"), "{audit}");
    assert!(!audit.contains("one line"));
    Ok(())
}

#[tokio::test]
async fn one_section_is_answered_with_its_document_or_text() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    for (section, content) in [("disks", "{\"disks\": []}"), ("journal", "a\nb\n")] {
        let host = async {
            let mut stream = Stream::next(&agent).await?;
            assert_eq!(stream.request.sections.len(), 1);
            stream.tell(section, content).await?;
            stream.say(Body::Done(DiagnoseDone {})).await?;
            stream.end().await
        };
        let (answer, told) = tokio::join!(world.ask(&member, section), host);
        told?;
        let answer = answer?;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(answer.body["report"]["bytes"], content.len());
        match section {
            "disks" => assert_eq!(answer.body["document"]["disks"], serde_json::json!([])),
            _ => assert_eq!(answer.body["text"], content),
        }
    }
    for (path, status) in [
        ("environment", 404),
        ("journal?unit=--vacuum-time%3D1s", 422),
        ("journal?lines=0", 422),
        ("network?targets=a%20b:1", 422),
    ] {
        let answer = world.ask(&member, path).await?;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    Ok(())
}

#[tokio::test]
async fn a_host_that_talks_nonsense_ends_its_own_diagnosis_and_nothing_else() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (mut agent, _) = world.caller.welcome(&member).await?;
    let flood = vec![b'x'; 512 << 10];
    for (said, floods, why) in [
        (vec![begun("../../etc/passwd")], 0, "was not due"),
        (vec![begun("journal")], 0, "was not due"),
        (vec![piece(b"x")], 0, "outside a section"),
        (vec![begun("disks")], 0, "without an end"),
        // 10 GiB, as far as they are taken.
        (vec![begun("disks")], 20 * 1024, "more than a section"),
    ] {
        let host = async {
            let mut stream = Stream::next(&agent).await?;
            stream.tell("system", "{}").await?;
            let said = said.into_iter().chain((0..floods).map(|_| piece(&flood)));
            for (taken, body) in said.enumerate() {
                if stream.say(body).await.is_err() {
                    // The gateway does not listen any more.
                    ensure!(taken < 4 * MAX_SECTION / flood.len(), "{taken} pieces");
                    return Ok(());
                }
            }
            let _ = stream.say(Body::Done(DiagnoseDone {})).await;
            stream.end().await
        };
        let (files, told) =
            tokio::join!(world.bundle(&member, "?sections=system,disks,units"), host);
        told.with_context(|| why.to_owned())?;
        let files = files?;
        let outcomes = outcomes(&files)?;
        assert_eq!(outcomes["system"], "ok");
        for section in ["disks", "units"] {
            let outcome = &outcomes[section];
            assert!(
                outcome.starts_with("failed") && outcome.contains(why),
                "{why}: {outcome}"
            );
        }
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        let expected = [
            "manifest.json",
            "results/disks.json",
            "results/system.json",
            "results/units.json",
            "system.json",
        ];
        assert_eq!(names, expected);
        agent.beat().await?;
    }
    Ok(())
}

#[tokio::test]
async fn who_cannot_be_diagnosed_is_told_from_who_is_busy() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let away = world.ask(&member, "system").await?;
    assert_eq!(
        (away.status.as_u16(), away.code()),
        (409, "host_not_linked")
    );
    let (agent, _) = world.caller.welcome(&member).await?;
    let decline = async {
        let mut stream = Stream::next(&agent).await?;
        let refused = DiagnoseRefused {
            code: DiagnoseRefusal::NotMine.into(),
            message: "another host is meant".to_owned(),
        };
        stream.say(Body::Refused(refused)).await?;
        stream.end().await
    };
    let (answer, told) = tokio::join!(world.ask(&member, "system"), decline);
    told?;
    let answer = answer?;
    assert_eq!((answer.status.as_u16(), answer.code()), (409, "conflict"));
    assert!(answer.detail().contains("another host is meant"));
    let old = async {
        let mut stream = Stream::next(&agent).await?;
        stream.send.reset(1u32.into())?;
        anyhow::Ok(())
    };
    let (answer, told) = tokio::join!(world.ask(&member, "system"), old);
    told?;
    assert!(answer?.detail().contains("update it"));
    // While one is under way there is no second.
    let host = async {
        let mut stream = Stream::next(&agent).await?;
        let second = world.ask(&member, "system").await?;
        assert_eq!(
            (second.status.as_u16(), second.code()),
            (503, "unavailable")
        );
        stream.tell("system", "{}").await?;
        stream.say(Body::Done(DiagnoseDone {})).await?;
        stream.end().await
    };
    let (first, told) = tokio::join!(world.ask(&member, "system"), host);
    told?;
    assert_eq!(first?.status, 200);
    // Whether its first word still came or not, a lost host has told nothing.
    let lost = async {
        let mut stream = Stream::next(&agent).await?;
        stream.say(begun("system")).await?;
        agent.connection.close(0u32.into(), b"cut");
        anyhow::Ok(())
    };
    let (answer, told) = tokio::join!(world.ask(&member, "system"), lost);
    told?;
    let answer = answer?;
    let told = answer.status == 200 && answer.body["report"]["outcome"] == "failed";
    assert!(told || answer.code() == "unavailable", "{}", answer.body);
    Ok(())
}

#[tokio::test]
async fn a_host_that_never_ends_is_given_up() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let host = async {
        let mut stream = Stream::next(&agent).await?;
        stream.say(begun("system")).await?;
        let mut rest = tokio::time::interval(std::time::Duration::from_millis(200));
        while stream.say(piece(b" ")).await.is_ok() {
            rest.tick().await;
        }
        anyhow::Ok(())
    };
    let (answer, told) = tokio::join!(world.ask(&member, "system"), host);
    told?;
    let answer = answer?;
    assert_eq!(
        answer.body["report"]["reason"],
        "the host did not answer in time"
    );
    Ok(())
}
