//! `full`: no room for another byte, wherever the gateway writes.

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    interrupt,
    lab::Place,
    product::{Gateway, Launch},
    scratch::Scratch,
    wait::{self, Look},
};
use gateway_store::{ObjectError, Objects};
use serde_json::{Value, json};

use super::{
    pause::set_heartbeat,
    support::{JOIN, join, verify_audit, world},
};
use crate::{Plan, api::Api, ledger::Book, mount::Mount, table::Finding};

const LIMIT: Duration = Duration::from_secs(30);
const MIB: u64 = 1024 * 1024;

pub(super) fn abuse_41_disk_full(plan: &Plan) -> Result<Finding> {
    let folder = Scratch::new()?;
    let mut finding = Finding::default();
    let starts = first_start(plan, &folder)?;
    let disk = Mount::tmpfs(&folder.join("disk"), 24 * MIB)?;
    let log = disk.path().join("log");
    let launch = Launch {
        state: Some(disk.path().join("state")),
        // The log goes to the same disk, as a redirected standard error would.
        wrap: [
            "sh",
            "-c",
            &format!("exec \"$@\" 2>>{}", log.display()),
            "sh",
        ]
        .map(str::to_owned)
        .into(),
        ..Launch::default()
    };
    let world = world(plan, launch)?;
    let mut api = Api::of(&world)?;
    let mut book = Book::open(&world)?;
    set_heartbeat(&mut api, &book, 1_000)?;
    let agent = join(&world, "full")?;
    book.write_while(4, || Ok(interrupt::pause(Duration::from_millis(500))?))?;
    book.check()?;
    let before = api.read("/v1/certificate-authority")?;

    // Made while there is room; used when there is none.
    let token = world.token(&["--description", "late"])?;
    let filler = disk.fill()?;
    let refused = world.step("every write is refused with 507", || {
        refuse_all(&mut api, &book)
    })?;
    let late = world.step("an agent that comes now is told to wait", || {
        world.agent("late", &token)
    })?;
    world.step("reads and links stay", || {
        let until = std::time::Instant::now() + Duration::from_secs(4);
        while std::time::Instant::now() < until {
            api.read("/v1/projects?limit=5")?;
            let host = world.host(&agent.host)?;
            ensure!(host["connectivity"] == "connected", "{host}");
            interrupt::pause(Duration::from_millis(200))?;
        }
        let after = api.read("/v1/certificate-authority")?;
        ensure!(after == before, "the authority was half rotated: {after}");
        ensure!(
            world
                .listed()?
                .iter()
                .filter(|it| it["membership"] == "managed")
                .count()
                == 1
        );
        Ok(())
    })?;
    world.step("a gateway starts on the full disk", || {
        world.gateway().kill()?;
        world.gateway().up()?;
        api.disconnect();
        api.read("/v1/projects?limit=5")?;
        world.wait_labelled("case", "full", JOIN).map(drop)
    })?;
    let restarted = world.gateway().pid();
    fs::remove_file(&filler)?;
    world.step("with room again it writes, without a restart", || {
        wait::until("a write to be taken", LIMIT, || {
            let body = json!({ "description": "room" });
            let answer = api.send("POST", "/v1/self/api-keys", Some(&body), None)?;
            Ok(Look::when(answer.status == 201, || answer.to_string()))
        })?;
        wait::until("the late agent to join", JOIN + LIMIT, || {
            let hosts = world.listed()?;
            let joined = hosts.iter().filter(|it| it["membership"] == "managed");
            Ok(Look::when(joined.count() == 2, || "one host".into()))
        })?;
        ensure!(world.gateway().pid() == restarted, "it was restarted");
        let step = json!({ "step": "stage" });
        let rotated = api.send(
            "POST",
            "/v1/certificate-authority/rotate",
            Some(&step),
            None,
        )?;
        ensure!(rotated.status == 200, "{rotated}");
        book.check_all()?;
        verify_audit(&world)
    })?;
    drop(late);
    world.step("objects", || objects(&disk))?;
    finding.lost = format!(
        "nothing: {} acknowledged changes are there, the authority is whole",
        book.acknowledged()
    );
    finding
        .saw("writes: 507 application/problem+json `storage_full`; reads and links go on; with room again writes work, without a restart")
        .saw("first start: exit code 1 with the file's name; the next start begins again where it was")
        .measured(format!(
            "507 for {}; {starts} first starts cut short, all of them completed later; the log on the \
             same disk",
            refused.join(", ")
        ));
    drop(agent);
    drop(world);
    Ok(finding)
}

/// Every kind of change, each until it is refused: the store may have room left in its own file.
fn refuse_all(api: &mut Api, book: &Book) -> Result<Vec<String>> {
    let workspace = book.workspace().to_owned();
    let hosts = format!("/v1/workspaces/{workspace}/hosts");
    let tokens = format!("/v1/workspaces/{workspace}/agent-tokens");
    let host = first(api, &hosts)?;
    let big = "x".repeat(200);
    let changes: [(&str, &str, String, Value); 6] = [
        (
            "tokens",
            "POST",
            tokens.clone(),
            json!({ "description": big }),
        ),
        (
            "hosts",
            "POST",
            hosts.clone(),
            json!({ "hostname": "h", "labels": { "a": "b" } }),
        ),
        (
            "labels",
            "PATCH",
            format!("{hosts}/{host}"),
            json!({ "labels": { "full": "yes" } }),
        ),
        (
            "API keys",
            "POST",
            "/v1/self/api-keys".into(),
            json!({ "description": big }),
        ),
        (
            "projects",
            "POST",
            "/v1/projects".into(),
            json!({ "name": "one-more" }),
        ),
        (
            "the certificate authority",
            "POST",
            "/v1/certificate-authority/rotate".into(),
            json!({ "step": "stage" }),
        ),
    ];
    let mut refused = Vec::new();
    for (what, method, path, body) in changes {
        let body = Some(&body).filter(|body| !body.is_null());
        let found = wait::until(&format!("{what} to be refused"), LIMIT, || {
            let answer = api.send(method, &path, body, None)?;
            Ok(match answer.status {
                507 => Look::Ready(answer),
                // There was room for this one.
                200 | 201 | 204 | 404 | 409 => Look::NotYet(answer.to_string()),
                _ => bail!("{answer}"),
            })
        })?;
        ensure!(
            found.code() == "storage_full" && found.kind == "application/problem+json",
            "{what}: {} {found}",
            found.kind
        );
        refused.push(what.to_owned());
    }
    // Revoking twice changes nothing, so each is tried on a token of its own.
    let listed = api.read(&tokens)?;
    let spare = listed["items"].as_array().into_iter().flatten();
    for token in spare.filter(|token| token["description"] != "late") {
        let path = format!("{tokens}/{}", token["id"].as_str().unwrap_or_default());
        let answer = api.send("DELETE", &path, None, None)?;
        ensure!(matches!(answer.status, 204 | 507), "{answer}");
        if answer.status == 507 {
            refused.push("revocations".to_owned());
            break;
        }
    }
    Ok(refused)
}

fn first(api: &mut Api, path: &str) -> Result<String> {
    let page = api.read(path)?;
    let id = page["items"][0]["id"].as_str();
    Ok(id
        .with_context(|| format!("{path} lists nothing"))?
        .to_owned())
}

/// First starts with less and less room: each ends with a text, and the next one with room works.
fn first_start(plan: &Plan, folder: &Scratch) -> Result<usize> {
    let rooms = [0, 4, 8, 12, 16, 24, 32, 64, 256, 1024, 1536, 2048];
    let mut cut_short = 0;
    for (number, room) in rooms.into_iter().enumerate() {
        let home = folder.join(&format!("first-{number}"));
        fs::create_dir_all(&home)?;
        let disk = Mount::tmpfs(&home.join("disk"), 16 * MIB)?;
        let filler = disk.fill_but(room * 1024)?;
        let launch = Launch {
            state: Some(disk.path().join("state")),
            ..Launch::default()
        };
        let gateway = Gateway::new(&plan.programs, Place::Here, &home, launch)?;
        gateway.begin()?;
        let ended = wait::until("it to serve or end", LIMIT, || {
            let text = gateway.log_tail(usize::MAX);
            let found = match text.lines().any(|line| line.starts_with("ready ")) {
                true => Some(false),
                false => text.contains("loopback-gateway: ").then_some(true),
            };
            Ok(Look::some(found, || text))
        })?;
        if ended {
            cut_short += 1;
            let (code, log) = gateway.wait_end(LIMIT)?;
            ensure!(
                code == Some(1) && (log.contains("No space left") || log.contains("disk is full")),
                "with {room} KiB it ended with {code:?}:\n{log}"
            );
        } else {
            gateway.kill()?;
        }
        fs::remove_file(filler)?;
        gateway
            .up()
            .with_context(|| format!("after a first start with {room} KiB"))?;
        ensure!(
            gateway.owner_secret().exists(),
            "there is no owner's secret"
        );
        gateway.stop()?;
    }
    ensure!(
        cut_short > 3,
        "only {cut_short} first starts met the full disk"
    );
    Ok(cut_short)
}

/// Large bytes lie beside the store, and meet the same full disk.
fn objects(disk: &Mount) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .context("start a runtime for the objects")?;
    runtime.block_on(async {
        let objects = Objects::local(disk.path().join("objects")).await?;
        let small = objects.put(vec![1; 1000].into()).await?;
        let filler = disk.fill()?;
        let large = objects.put(vec![2; MIB as usize].into()).await;
        ensure!(
            matches!(large, Err(ObjectError::StorageFull { .. })),
            "a large object: {large:?}"
        );
        ensure!(objects.get(&small.digest, 1000).await?.len() == 1000);
        fs::remove_file(filler)?;
        objects.put(vec![2; MIB as usize].into()).await?;
        Ok(())
    })
}
