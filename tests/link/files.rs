//! Files, from a caller's request to a host's disk: the agent's own code at the far end of a
//! real link, and hosts that do not keep to anything.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use agent::files::{Resolver, Settings};
use anyhow::{Context as _, bail, ensure};
use axum::body::{Body, Bytes};
use axum::http::{Request, Response, StatusCode};
use futures_util::StreamExt as _;
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    FileData, FileEnd, FileHeld, FileMeta, FileRefusal, FileRefused, FileReply, FileRequest,
    Opening, file_reply, opening,
};
use serde_json::{Value, json};
use tests::agent::{Agent, Member};
use tests::{LIMIT, soon, until};

use super::World;

/// A linked host whose files are a folder.
struct Host {
    dir: tempfile::TempDir,
    member: Member,
    connection: quinn::Connection,
    /// Answers streams; ends with this.
    task: tokio::task::JoinSet<()>,
}

impl Host {
    async fn new(world: &World) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        for folder in ["root", "outside", "state"] {
            fs::create_dir(dir.path().join(folder))?;
        }
        let member = world.member("web").await?;
        let (agent, welcome) = world.caller.welcome(&member).await?;
        let mut host = Self {
            dir,
            connection: agent.connection.clone(),
            task: tokio::task::JoinSet::new(),
            member,
        };
        host.member.grant.counter = welcome.counter;
        host.serve(agent);
        Ok(host)
    }

    /// Answers streams as the agent does.
    fn serve(&mut self, agent: Agent) {
        let settings = Arc::new(Settings {
            host: self.member.grant.host.clone(),
            generation: self.member.grant.generation,
            roots: vec![self.dir.path().join("root")],
            state_dir: self.dir.path().join("state"),
            paused: false,
            resolver: Resolver::Best,
        });
        self.connection = agent.connection.clone();
        self.task.spawn(async move {
            // All of it: the link ends with its control stream.
            let agent = agent;
            let mut streams = tokio::task::JoinSet::new();
            while let Ok((send, receive)) = agent.connection.accept_bi().await {
                streams.spawn(answer(send, receive, settings.clone()));
            }
        });
    }

    /// Cuts the link and comes back.
    async fn relink(&mut self, world: &World) -> anyhow::Result<()> {
        self.task.abort_all();
        self.connection.close(0u32.into(), b"cut");
        let (agent, welcome) = world.caller.welcome(&self.member).await?;
        self.member.grant.counter = welcome.counter;
        self.serve(agent);
        Ok(())
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join("root").join(name)
    }

    fn parts(&self) -> usize {
        let entries = fs::read_dir(self.dir.path().join("root"))
            .into_iter()
            .flatten();
        let names = entries.filter_map(|it| it.ok()?.file_name().into_string().ok());
        names.filter(|it| it.starts_with(".loopback-")).count()
    }
}

async fn answer(send: quinn::SendStream, receive: quinn::RecvStream, settings: Arc<Settings>) {
    let deadlines = Deadlines {
        idle: LIMIT,
        frame: LIMIT,
    };
    let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
    if let Ok(Some(Opening {
        kind: Some(opening::Kind::File(request)),
    })) = reader.next().await
    {
        // A stream that is cut is what some of the tests want.
        let _ = agent::files::serve(request, reader.into_inner(), send, settings).await;
    }
}

impl World {
    fn files(&self, member: &Member, rest: &str, path: &str) -> String {
        let (workspace, host) = (self.workspace.id, &member.grant.host);
        let path = encode(path);
        format!("/v1/workspaces/{workspace}/hosts/{host}/files{rest}?path={path}")
    }

    async fn put(&self, uri: &str, body: Body) -> anyhow::Result<(StatusCode, Value)> {
        let request = Request::builder()
            .method("PUT")
            .uri(uri)
            .header("authorization", format!("Bearer {}", self.gateway.owner))
            .body(body)?;
        let response = soon(self.gateway.send_raw(request)).await??;
        let status = response.status();
        let bytes = soon(axum::body::to_bytes(response.into_body(), 1 << 20)).await??;
        Ok((status, serde_json::from_slice(&bytes)?))
    }

    async fn get(&self, uri: &str, fields: &[(&str, &str)]) -> anyhow::Result<Response<Body>> {
        let owner = &self.gateway.owner;
        soon(self.gateway.respond(owner, "GET", uri, None, fields)).await?
    }

    /// The entries about files, as text.
    async fn trail(&self) -> anyhow::Result<String> {
        let path = format!("/v1/workspaces/{}/audit?limit=1000", self.workspace.id);
        let owner = &self.gateway.owner;
        let page: Value = self.gateway.expect(owner, "GET", &path, None, 200).await?;
        let items = page["items"].as_array().context("items")?;
        let bodies = items.iter().filter_map(|item| item["body"].as_str());
        Ok(bodies
            .filter(|body| body.contains("host.file."))
            .collect::<Vec<_>>()
            .join("\n"))
    }
}

fn encode(path: &str) -> String {
    path.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The same bytes for the same number.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(length).collect()
}

async fn all(response: Response<Body>) -> anyhow::Result<Vec<u8>> {
    Ok(soon(axum::body::to_bytes(response.into_body(), 64 << 20))
        .await??
        .to_vec())
}

fn field<'a>(response: &'a Response<Body>, name: &str) -> &'a str {
    let value = response.headers().get(name);
    value.and_then(|it| it.to_str().ok()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_to_a_host_and_comes_back_and_the_trail_has_its_digest() -> anyhow::Result<()> {
    let world = World::new().await?;
    let host = Host::new(&world).await?;
    let content = bytes(1, 3_000_001);
    let place = host.at("canary-name");
    let uri = world.files(&host.member, "/content", text(&place));
    let put = format!(
        "{uri}&sha256={}&size={}&mode=0640",
        hex(&content),
        content.len()
    );
    let (status, info) = world.put(&put, content.clone().into()).await?;
    assert_eq!(status, 200, "{info}");
    assert_eq!(info["sha256"], hex(&content));
    assert_eq!(
        (&info["mode"], &info["size"]),
        (&json!("0640"), &json!(3_000_001))
    );
    assert_eq!(fs::read(&place)?, content);

    let response = world.get(&uri, &[]).await?;
    assert_eq!(response.status(), 200);
    assert_eq!(field(&response, "content-length"), "3000001");
    assert_eq!(field(&response, "content-disposition"), "attachment");
    let etag = field(&response, "etag").to_owned();
    assert_eq!(
        etag,
        format!("\"{}\"", info["version"].as_str().context("a version")?)
    );
    assert_eq!(all(response).await?, content);

    let range = [("range", "bytes=2999990-"), ("if-range", etag.as_str())];
    let response = world.get(&uri, &range).await?;
    assert_eq!(response.status(), 206);
    assert_eq!(
        field(&response, "content-range"),
        "bytes 2999990-3000000/3000001"
    );
    assert_eq!(all(response).await?, &content[2_999_990..]);
    let response = world.get(&uri, &[("range", "bytes=3000001-")]).await?;
    assert_eq!(response.status(), 416);
    let other = [
        ("range", "bytes=5-"),
        ("if-range", "\"00000000000000000000000000000000\""),
    ];
    let response = world.get(&uri, &other).await?;
    assert_eq!(
        (
            response.status().as_u16(),
            field(&response, "content-length")
        ),
        (200, "3000001")
    );
    drop(response);

    let owner = &world.gateway.owner;
    let head = soon(world.gateway.respond(owner, "HEAD", &uri, None, &[])).await??;
    assert_eq!(
        (head.status().as_u16(), field(&head, "etag")),
        (200, etag.as_str())
    );
    let about = format!(
        "{}&digest=true",
        world.files(&host.member, "", text(&place))
    );
    let about: Value = world
        .gateway
        .expect(owner, "GET", &about, None, 200)
        .await?;
    assert_eq!(about["sha256"], hex(&content));

    let (status, refused) = world.put(&put, content.clone().into()).await?;
    assert_eq!(
        (status.as_u16(), &refused["code"]),
        (409, &json!("name_taken"))
    );

    // The ends of the downloads are written by their tasks.
    until("the tasks end", || {
        world.gateway.app.tasks.running("file") == 0
    })
    .await?;
    let text = world.trail().await?;
    for part in [
        "host.file.write.begin",
        "host.file.read.begin",
        "host.file.stat",
        "canary-name",
        &hex(&content),
        &hex(&content[2_999_990..]),
        "there is a file of that name",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    world.gateway.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_23_no_way_of_writing_a_path_leads_out() -> anyhow::Result<()> {
    let world = World::new().await?;
    let host = Host::new(&world).await?;
    let outside = host.dir.path().join("outside");
    fs::write(outside.join("secret"), "canary")?;
    std::os::unix::fs::symlink(&outside, host.at("link"))?;
    let root = text(&host.dir.path().join("root")).to_owned();
    let mut raw: Vec<String> = vec![
        format!("{root}/../outside/secret"),
        format!("{root}/%2e%2e/outside/secret"),
        format!("{root}/..%2foutside%2fsecret"),
        format!("{root}/%252e%252e/outside/secret"),
        format!("{root}/..%5coutside%5csecret"),
        format!("{root}/link/secret"),
        format!("{root}%00/../outside/secret"),
        format!("{root}/%c0%ae%c0%ae/outside/secret"),
        "C:%5CWindows%5Cwin.ini".to_owned(),
        "%5C%5Cserver%5Cshare".to_owned(),
        "etc/passwd".to_owned(),
        "/etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
        "//etc/passwd".to_owned(),
        "~root".to_owned(),
        String::new(),
    ];
    raw.push(text(&outside.join("secret")).to_owned());
    let base = world.files(&host.member, "/content", "");
    for path in raw {
        let uri = format!("{base}{path}");
        let response = world.get(&uri, &[]).await?;
        let status = response.status().as_u16();
        assert!([400, 404, 422].contains(&status), "GET {path}: {status}");
        let said = all(response).await?;
        assert!(!String::from_utf8_lossy(&said).contains("canary"), "{path}");
        let put = format!("{uri}&sha256={}&size=1&overwrite=true", hex(b"x"));
        let (status, _) = world.put(&put, "x".into()).await?;
        // There a backslash is a letter like any other.
        let letter = path.contains("%5c") && status == 200;
        let fine = letter || [400, 404, 422].contains(&status.as_u16());
        assert!(fine, "PUT {path}: {status}");
    }
    assert_eq!(fs::read(outside.join("secret"))?, b"canary");
    assert_eq!(fs::read_dir(&outside)?.count(), 1);
    world.gateway.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_clients_links_and_gateways() -> anyhow::Result<()> {
    let mut world = World::new().await?;
    let mut host = Host::new(&world).await?;
    let content = bytes(3, 2_500_000);
    let place = host.at("f");
    let rest = format!("&sha256={}&size={}", hex(&content), content.len());
    let uri = world.files(&host.member, "/content", text(&place)) + &rest;
    let state = world.files(&host.member, "/upload", text(&place)) + &rest;
    let held = async |world: &World| {
        let owner = &world.gateway.owner;
        let said: Value = world
            .gateway
            .expect(owner, "GET", &state, None, 200)
            .await?;
        let held = said["held"].as_u64().context("a number")?;
        anyhow::Ok(usize::try_from(held)?)
    };
    assert_eq!(held(&world).await?, 0);
    let mut from = 0;
    for (round, cut) in bytes(4, 9).into_iter().enumerate() {
        let until = from + (content.len() - from) * usize::from(cut) / 400;
        let mut pieces: Vec<io::Result<Bytes>> = content[from..until]
            .chunks(50_000)
            .map(|piece| Ok(Bytes::copy_from_slice(piece)))
            .collect();
        pieces.push(Err(io::ErrorKind::ConnectionReset.into()));
        let body = Body::from_stream(futures_util::stream::iter(pieces));
        let (status, said) = world.put(&format!("{uri}&from={from}"), body).await?;
        assert_eq!(status, 400, "{said}");
        match round % 3 {
            0 => host.relink(&world).await?,
            1 => {
                world.gateway.restart().await?;
                world.caller = tests::agent::Caller::of(&world.gateway)?;
                host.relink(&world).await?;
            }
            _ => {}
        }
        // What was on its way when the stream ended counts once it is there.
        let wait = async {
            while held(&world).await? < until {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        if round % 3 == 2 {
            soon(wait).await??;
        }
        from = held(&world).await?;
        assert!(from <= until && !place.exists());
    }
    let (status, said) = world
        .put(&format!("{uri}&from={}", from + 1), Body::empty())
        .await?;
    assert_eq!(status, 409, "{said}");
    let body = content[from..].to_vec();
    let (status, said) = world
        .put(&format!("{uri}&from={from}"), body.into())
        .await?;
    assert_eq!(status, 200, "{said}");
    assert!(fs::read(&place)? == content);
    assert_eq!(host.parts(), 0);
    world.gateway.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_cut_in_the_middle_of_a_download_shows_and_the_rest_is_fetched() -> anyhow::Result<()>
{
    let world = World::new().await?;
    let mut host = Host::new(&world).await?;
    // More than all windows and queues on the way hold.
    let content = bytes(5, 40 << 20);
    fs::write(host.at("f"), &content)?;
    let uri = world.files(&host.member, "/content", text(&host.at("f")));
    let response = world.get(&uri, &[]).await?;
    let etag = field(&response, "etag").to_owned();
    let mut body = response.into_body().into_data_stream();
    let mut got = Vec::new();
    while got.len() < 1 << 20 {
        got.extend(soon(body.next()).await?.context("a piece")??);
    }
    host.relink(&world).await?;
    let mut broken = false;
    while let Some(piece) = soon(body.next()).await? {
        match piece {
            Ok(piece) => got.extend(piece),
            Err(_) => broken = true,
        }
    }
    assert!(
        broken && got.len() < content.len(),
        "{} bytes, whole",
        got.len()
    );
    let range = format!("bytes={}-", got.len());
    let fields = [("range", range.as_str()), ("if-range", etag.as_str())];
    let response = world.get(&uri, &fields).await?;
    assert_eq!(response.status(), 206);
    got.extend(all(response).await?);
    assert!(got == content);
    world.gateway.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_and_bodies_of_another_length_are_refused() -> anyhow::Result<()> {
    let world = World::new().await?;
    let host = Host::new(&world).await?;
    let place = host.at("f");
    let uri = world.files(&host.member, "/content", text(&place));
    let put = format!("{uri}&sha256={}&size=5", hex(b"right"));
    let (status, said) = world.put(&put, "wrong".into()).await?;
    assert_eq!(
        (status.as_u16(), &said["field"]),
        (422, &json!("sha256")),
        "{said}"
    );
    let endless = || {
        let piece = futures_util::stream::repeat_with(|| {
            Ok::<_, io::Error>(Bytes::from_static(&[0; 4096]))
        });
        Body::from_stream(piece)
    };
    let (status, said) = world.put(&put, endless()).await?;
    assert_eq!(
        (status.as_u16(), &said["field"]),
        (422, &json!("size")),
        "{said}"
    );
    let (status, _) = world
        .put(&format!("{uri}&sha256=x&size=5"), "right".into())
        .await?;
    assert_eq!(status, 400);
    let (status, said) = world
        .put(&format!("{put}&mode=4755"), "right".into())
        .await?;
    assert_eq!(
        (status.as_u16(), &said["field"]),
        (422, &json!("mode")),
        "{said}"
    );
    let (status, said) = world
        .put(
            &format!("{uri}&sha256={}&size=5368709120", hex(b"")),
            endless(),
        )
        .await?;
    assert_eq!(
        (status.as_u16(), &said["code"]),
        (413, &json!("body_too_large")),
        "{said}"
    );
    assert!(!place.exists());
    world.gateway.stop().await
}

/// A stream about a file at the end of a host that a test plays.
struct Played {
    send: quinn::SendStream,
    request: FileRequest,
    _reader: FrameReader<quinn::RecvStream>,
}

impl Played {
    async fn next(agent: &Agent) -> anyhow::Result<Self> {
        let (send, receive) = soon(agent.connection.accept_bi()).await??;
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        let mut reader = FrameReader::new(receive, MAX_FRAME, deadlines);
        let opening: Option<Opening> = reader.next().await?;
        let Some(opening::Kind::File(request)) = opening.and_then(|it| it.kind) else {
            bail!("a stream for something else");
        };
        Ok(Self {
            send,
            request,
            _reader: reader,
        })
    }

    async fn say(&mut self, body: file_reply::Body) -> anyhow::Result<()> {
        let reply = FileReply { body: Some(body) };
        Ok(write_message(&mut self.send, &reply, MAX_FRAME, LIMIT).await?)
    }
}

fn meta(size: u64) -> FileMeta {
    FileMeta {
        size,
        length: size,
        version: vec![1; 16],
        ..FileMeta::default()
    }
}

fn data(length: usize) -> file_reply::Body {
    let bytes = vec![b'x'; length];
    file_reply::Body::Data(FileData { bytes })
}

fn end() -> file_reply::Body {
    let sha256 = vec![0; 32];
    file_reply::Body::End(FileEnd { sha256 })
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_15_20_a_host_that_keeps_to_nothing_is_cut_and_not_believed() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let uri = world.files(&member, "/content", "/etc/x");
    let meta_of = |change: fn(&mut FileMeta)| {
        let mut meta = meta(10);
        change(&mut meta);
        file_reply::Body::Meta(meta)
    };
    // Before the head of the answer is out: a problem.
    let first = [
        end(),
        data(10),
        file_reply::Body::Held(FileHeld { bytes: 5 }),
        meta_of(|it| it.length = 11),
        meta_of(|it| (it.offset, it.length) = (u64::MAX, 2)),
        meta_of(|it| it.version = b"\r\nx: y".to_vec()),
        meta_of(|it| it.is_directory = true),
    ];
    for body in first {
        let host = async {
            let mut played = Played::next(&agent).await?;
            ensure!(played.request.path == "/etc/x");
            played.say(body.clone()).await?;
            anyhow::Ok(played)
        };
        let (response, played) = tokio::join!(world.get(&uri, &[]), host);
        assert_eq!(response?.status(), 409, "{body:?}");
        drop(played?);
    }
    // After it: the body breaks off.
    let then: [&[file_reply::Body]; 6] = [
        &[data(11)],
        &[data(5), data(6)],
        &[data(5), end()],
        &[data(10), end()],
        &[data(5), meta_of(|_| {})],
        &[data(0)],
    ];
    for bodies in then {
        let host = async {
            let mut played = Played::next(&agent).await?;
            played.say(meta_of(|_| {})).await?;
            for body in bodies {
                // The gateway may have cut it by then.
                let _ = played.say(body.clone()).await;
            }
            anyhow::Ok(played)
        };
        let (response, played) = tokio::join!(world.get(&uri, &[]), host);
        let response = response?;
        assert_eq!(response.status(), 200);
        assert!(all(response).await.is_err(), "{bodies:?}");
        drop(played?);
    }
    // What is no frame at all, and text that drives terminals.
    for (raw, status) in [(&[0xff; 64][..], 409), (&[0, 0, 0, 2, 0xff, 0xff][..], 409)] {
        let host = async {
            let mut played = Played::next(&agent).await?;
            played.send.write_all(raw).await?;
            anyhow::Ok(played)
        };
        let (response, played) = tokio::join!(world.get(&uri, &[]), host);
        assert_eq!(response?.status(), status);
        drop(played?);
    }
    let host = async {
        let mut played = Played::next(&agent).await?;
        let refused = FileRefused {
            code: FileRefusal::Permission.into(),
            message: format!("\u{1b}]0;x\u{7}{}", "a".repeat(10_000)),
        };
        played.say(file_reply::Body::Refused(refused)).await?;
        anyhow::Ok(played)
    };
    let (response, played) = tokio::join!(world.get(&uri, &[]), host);
    let said = String::from_utf8(all(response?).await?)?;
    assert!(said.len() < 1000 && !said.contains("\\u001b"), "{said}");
    drop(played?);
    until("the tasks end", || {
        world.gateway.app.tasks.running("file") == 0
    })
    .await?;
    assert!(world.host(&member.grant.host).await?["connectivity"] == "connected");
    world.gateway.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_has_some_files_at_a_time_and_a_revoked_key_ends_them() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let (agent, _) = world.caller.welcome(&member).await?;
    let uri = world.files(&member, "/content", "/etc/x");
    let body = json!({ "limits": { "workspace": world.workspace.id, "rules": [{ "allow": "project.workspace.host.file.read" }] } });
    let owner = &world.gateway.owner;
    let key: Value = world
        .gateway
        .expect(owner, "POST", "/v1/self/api-keys", Some(body), 201)
        .await?;
    let secret = key["secret"].as_str().context("a secret")?;
    let mut open = Vec::new();
    for _ in 0..4 {
        let host = async {
            let mut played = Played::next(&agent).await?;
            played.say(file_reply::Body::Meta(meta(1 << 20))).await?;
            played.say(data(1000)).await?;
            anyhow::Ok(played)
        };
        let asked = world.gateway.respond(secret, "GET", &uri, None, &[]);
        let (response, played) = tokio::join!(soon(asked), host);
        open.push((response??, played?));
    }
    let refused = world.get(&uri, &[]).await?;
    assert_eq!(refused.status(), 503);
    let id = key["api_key"]["id"]
        .as_str()
        .or(key["id"].as_str())
        .context("an id")?;
    let path = format!("/v1/self/api-keys/{id}");
    let gone = world.gateway.call(owner, "DELETE", &path, None).await?;
    assert_eq!(gone.status, 204, "{gone:?}");
    for (response, _played) in open {
        assert!(all(response).await.is_err(), "it went on");
    }
    until("the seats are free", || {
        world.gateway.app.tasks.running("file") == 0
    })
    .await?;
    let trail = world.trail().await?;
    assert!(trail.contains("the caller lost access"), "{trail}");
    world.gateway.stop().await
}

#[tokio::test]
async fn a_host_that_is_away_or_too_old_is_told_apart() -> anyhow::Result<()> {
    let world = World::new().await?;
    let member = world.member("web").await?;
    let uri = world.files(&member, "", "/etc/x");
    assert_eq!(world.get(&uri, &[]).await?.status(), 503);
    let (agent, _) = world.caller.welcome(&member).await?;
    let host = async {
        let (mut send, receive) = soon(agent.connection.accept_bi()).await??;
        send.reset(1u32.into())?;
        anyhow::Ok(receive)
    };
    let (response, kept) = tokio::join!(world.get(&uri, &[]), host);
    let response = response?;
    assert_eq!(response.status(), 409);
    let said = String::from_utf8(all(response).await?)?;
    assert!(said.contains("update it"), "{said}");
    drop(kept?);
    world.gateway.stop().await
}
