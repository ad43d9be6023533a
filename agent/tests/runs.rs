//! Runs on a real host: the agent as a process, its worker, real programs, and a gateway
//! that asks what a test wants to know.

#![allow(dead_code, reason = "the helpers serve more than one test")]
#![allow(clippy::unwrap_used, reason = "a panic here is the report")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::authority::now;
use common::{Gateway, Host, LIMIT};
use link::frame::{Deadlines, FrameReader, MAX_FRAME, write_message};
use protocol::v1::{
    EndKind, Opening, RunCancel, RunEnded, RunOrder, RunRefusal, RunRefused, RunReport, RunRequest,
    RunResultStored, RunSpec, Secret, Variable, opening, run_order, run_report,
};

/// A host that is linked, and how to ask it.
struct World {
    gateway: Gateway,
    host: Host,
    id: String,
    next: u32,
}

impl World {
    async fn new() -> Self {
        let gateway = Gateway::start();
        let host = Host::linked(&gateway).await;
        let id = host.status().unwrap().identity.unwrap().host;
        Self {
            gateway,
            host,
            id,
            next: 0,
        }
    }

    fn request(&mut self, spec: RunSpec) -> RunRequest {
        self.next += 1;
        RunRequest {
            command: format!("cmd_01jd00000000000000000000{:02}", self.next),
            host: self.id.clone(),
            generation: 1,
            life: 1,
            start_before_ms: now().as_millis() + 60_000,
            server_time_ms: now().as_millis(),
            spec: Some(spec),
            output_from: 0,
            cancel: false,
        }
    }

    async fn ask(&self, request: &RunRequest) -> Run {
        let (link, _) = self
            .gateway
            .manners(|manners| manners.link.clone())
            .unwrap();
        let (mut send, receive) = link.open_bi().await.unwrap();
        let opening = Opening {
            kind: Some(opening::Kind::Run(request.clone())),
        };
        write_message(&mut send, &opening, MAX_FRAME, LIMIT)
            .await
            .unwrap();
        let deadlines = Deadlines {
            idle: LIMIT,
            frame: LIMIT,
        };
        Run {
            send,
            reader: FrameReader::new(receive, MAX_FRAME, deadlines),
            heard: Heard::default(),
        }
    }

    /// Asks until there is an end: as a gateway does whose streams end before.
    async fn settle(&self, request: &RunRequest) -> Heard {
        let started = Instant::now();
        loop {
            let mut run = self.ask(request).await;
            run.hear_the_end().await;
            if run.heard.ended.is_some() || run.heard.refused.is_some() {
                return run.heard;
            }
            assert!(started.elapsed() < LIMIT, "no end: {:?}", run.heard);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs something and takes its result.
    async fn run(&mut self, spec: RunSpec) -> Heard {
        let request = self.request(spec);
        let mut run = self.ask(&request).await;
        run.hear_the_end().await;
        assert!(
            run.heard.ended.is_some(),
            "{:?}\n{}",
            run.heard,
            self.host.log()
        );
        run.taken().await;
        run.heard
    }

    fn folder(&self, request: &RunRequest) -> std::path::PathBuf {
        self.host.state().join("runs").join(&request.command)
    }

    /// Waits until the link is another one.
    async fn relinked(&self, before: usize) {
        let started = Instant::now();
        while self.stable_id() == Some(before) {
            assert!(started.elapsed() < LIMIT, "no new link");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn stable_id(&self) -> Option<usize> {
        self.gateway
            .manners(|manners| manners.link.as_ref().map(|(link, _)| link.stable_id()))
    }
}

#[derive(Debug, Default)]
struct Heard {
    accepted: bool,
    pid: u32,
    out: Vec<u8>,
    err: Vec<u8>,
    next: u64,
    gaps: u64,
    ended: Option<RunEnded>,
    refused: Option<RunRefused>,
}

impl Heard {
    fn ended(&self) -> &RunEnded {
        self.ended.as_ref().unwrap_or_else(|| panic!("{self:?}"))
    }

    fn out(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    fn code(&self) -> Option<i32> {
        assert_eq!(self.ended().kind(), EndKind::Itself, "{self:?}");
        self.ended().code
    }

    fn refusal(&self) -> RunRefusal {
        self.refused
            .as_ref()
            .unwrap_or_else(|| panic!("{self:?}"))
            .code()
    }
}

struct Run {
    send: quinn::SendStream,
    reader: FrameReader<quinn::RecvStream>,
    heard: Heard,
}

impl Run {
    /// Hears one report; false at the end of the stream.
    async fn hear(&mut self) -> bool {
        let Ok(Some(report)) = self.reader.next::<RunReport>().await else {
            return false;
        };
        let heard = &mut self.heard;
        match report.body.unwrap() {
            run_report::Body::Accepted(_) => heard.accepted = true,
            run_report::Body::Started(started) => heard.pid = started.pid,
            run_report::Body::Output(piece) => {
                if heard.next > 0 || heard.gaps > 0 {
                    assert_eq!(piece.sequence, heard.next, "pieces are in order");
                }
                heard.next = piece.sequence + 1;
                match piece.stream {
                    1 => heard.out.extend(piece.data),
                    _ => heard.err.extend(piece.data),
                }
            }
            run_report::Body::Gap(gap) => {
                heard.gaps += gap.bytes;
                heard.next = gap.resumes_at;
            }
            run_report::Body::Ended(ended) => heard.ended = Some(ended),
            run_report::Body::Refused(refused) => heard.refused = Some(refused),
            // The tests' host is somebody's machine: nothing here asks for a reboot.
            run_report::Body::Rebooting(reboot) | run_report::Body::Rebooted(reboot) => {
                panic!("reboot {}", reboot.count)
            }
        }
        true
    }

    async fn until(&mut self, what: impl Fn(&Heard) -> bool) {
        let wait = async {
            while !what(&self.heard) {
                assert!(self.hear().await, "the stream ended: {:?}", self.heard);
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("in time");
    }

    /// Until an end is told, or the stream ends.
    async fn hear_the_end(&mut self) {
        let wait = async {
            while self.heard.ended.is_none() && self.heard.refused.is_none() {
                if !self.hear().await {
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT * 2, wait)
            .await
            .expect("in time");
    }

    async fn order(&mut self, body: run_order::Body) {
        let order = RunOrder { body: Some(body) };
        write_message(&mut self.send, &order, MAX_FRAME, LIMIT)
            .await
            .unwrap();
    }

    async fn cancel(&mut self) {
        self.order(run_order::Body::Cancel(RunCancel {})).await;
    }

    /// Tells that the result is stored, and waits until the host has heard it.
    async fn taken(&mut self) {
        self.order(run_order::Body::ResultStored(RunResultStored {}))
            .await;
        let _ = self.send.finish();
        let wait = async { while self.hear().await {} };
        tokio::time::timeout(LIMIT, wait)
            .await
            .expect("the host ends the stream");
    }
}

fn argv(words: &[&str]) -> RunSpec {
    RunSpec {
        argv: words.iter().map(|&word| word.to_owned()).collect(),
        grace_ms: 500,
        ..RunSpec::default()
    }
}

fn sh(script: &str) -> RunSpec {
    argv(&["sh", "-c", script])
}

async fn eventually(what: &str, good: impl Fn() -> bool) {
    let started = Instant::now();
    while !good() {
        assert!(started.elapsed() < LIMIT, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn is_alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_runs_with_what_it_was_given() {
    let mut world = World::new().await;
    let mut spec = sh(
        "printf '%s|' \"$A\" \"$S\" \"$LOOPBACK_ACTOR\" \"$LOOPBACK_TICKET\" \"$HOME\" \"$PWD\"; umask; cat; echo bad >&2; printf '\\377'; exit 3",
    );
    spec.environment = vec![Variable {
        name: "A".into(),
        value: "$(id) 'x'".into(),
    }];
    spec.secrets = vec![Secret {
        name: "S".into(),
        value: "hunter2".into(),
    }];
    spec.actor = "owner".into();
    spec.ticket = "OPS-1".into();
    spec.directory = "/usr".into();
    spec.stdin = b"input\n".to_vec();
    let heard = world.run(spec).await;
    assert!(heard.accepted && heard.pid > 0);
    let home = std::env::var("HOME").unwrap();
    let shown = format!("$(id) 'x'|***|owner|OPS-1|{home}|/usr|0022\ninput\n");
    let (text, last) = heard.out.split_at(heard.out.len() - 1);
    assert_eq!(String::from_utf8_lossy(text), shown);
    assert_eq!(last, [255]);
    assert_eq!(heard.err, b"bad\n");
    assert_eq!(heard.code(), Some(3));
    assert_eq!((heard.ended().left, heard.ended().others), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn different_ends_are_different_results() {
    let mut world = World::new().await;
    let heard = world.run(sh("kill -9 $$")).await;
    assert_eq!(
        (heard.ended().kind(), heard.ended().signal),
        (EndKind::Itself, Some(9))
    );
    let heard = world.run(argv(&["no-such-program-here"])).await;
    assert_eq!(heard.ended().kind(), EndKind::NotStarted);
    assert!(
        heard
            .ended()
            .reason
            .contains("no program no-such-program-here"),
        "{heard:?}"
    );
    let heard = world.run(argv(&["/etc/passwd"])).await;
    assert_eq!(heard.ended().kind(), EndKind::NotStarted);
    let mut spec = sh("true");
    spec.user = "no-such-user".into();
    assert!(
        world
            .run(spec)
            .await
            .ended()
            .reason
            .contains("no user no-such-user")
    );
    let mut spec = sh("true");
    spec.directory = "/no/such/place".into();
    assert!(
        world
            .run(spec)
            .await
            .ended()
            .reason
            .contains("no directory /no/such/place")
    );
    let mut spec = sh("sleep 60");
    spec.run_timeout_ms = 200;
    let heard = world.run(spec).await;
    assert_eq!(
        (heard.ended().kind(), heard.ended().signal),
        (EndKind::TimedOut, Some(15))
    );
    assert!(!heard.ended().killed);
    let heard = world.run(RunSpec {
        script: b"#!/bin/sh -e\necho \"$# $0\"\nfalse\necho never\n".to_vec(),
        ..RunSpec::default()
    });
    let heard = heard.await;
    assert_eq!(heard.code(), Some(1));
    assert!(
        heard.out().starts_with("0 /") && !heard.out().contains("never"),
        "{heard:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_leaves_nobody_alive_whatever_they_tried() {
    let mut world = World::new().await;
    let pids = world.host.path("pids");
    // Double forks, sessions of their own, TERM ignored, and more of them meanwhile.
    let script = format!(
        "trap '' TERM; echo $$ >>{0}\n\
         (setsid sh -c 'trap \"\" TERM; echo $$ >>{0}; (setsid sh -c \"trap : TERM; echo \\$\\$ >>{0}; while :; do sleep 0.05; done\" &) ; sleep 600' &)\n\
         (nohup sleep 601 >/dev/null 2>&1 & echo $! >>{0})\n\
         while :; do sleep 0.05 & wait; done",
        pids.display()
    );
    let request = world.request(sh(&script));
    let mut run = world.ask(&request).await;
    run.until(|heard| heard.pid > 0).await;
    let read = || -> Vec<u32> {
        let text = std::fs::read_to_string(&pids).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    eventually("four processes", || read().len() == 4).await;
    run.cancel().await;
    run.hear_the_end().await;
    let ended = run.heard.ended().clone();
    for pid in read() {
        assert!(!is_alive(pid), "{pid} lives: {ended:?}");
    }
    assert_eq!(ended.kind(), EndKind::Cancelled);
    assert!(
        ended.killed && ended.left == 0 && ended.others >= 3,
        "{ended:?}"
    );
    assert_eq!(ended.signal, Some(9));
    run.taken().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_ends_by_itself_may_leave_a_daemon() {
    let mut world = World::new().await;
    let heard = world
        .run(sh("setsid sleep 300 >/dev/null 2>&1 & echo $!"))
        .await;
    assert_eq!((heard.code(), heard.ended().left), (Some(0), 1));
    let daemon: u32 = heard.out().trim().parse().unwrap();
    assert!(is_alive(daemon));
    let pid = rustix::process::Pid::from_raw(daemon.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // One that keeps the pipes is waited for a moment, not for ever.
    let begun = Instant::now();
    let heard = world.run(sh("sleep 30 & echo $!")).await;
    assert_eq!(heard.ended().left, 1);
    assert!(begun.elapsed() < Duration::from_secs(15));
    let pid: i32 = heard.out().trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_without_agent_and_link_and_is_told_whole() {
    let mut world = World::new().await;
    let go = world.host.path("go");
    let script = format!(
        "echo one; while [ ! -e {} ]; do sleep 0.05; done; echo two",
        go.display()
    );
    let request = world.request(sh(&script));
    let mut run = world.ask(&request).await;
    run.until(|heard| heard.out == b"one\n").await;
    let before = world.stable_id().unwrap();
    world.host.kill();
    world.host.start();
    world.relinked(before).await;
    // It is watched still: asked again, it goes on from where the gateway is.
    let again = RunRequest {
        output_from: run.heard.next,
        ..request.clone()
    };
    let mut run = world.ask(&again).await;
    run.until(|heard| heard.pid > 0).await;
    let before = world.stable_id().unwrap();
    world.host.kill();
    std::fs::write(&go, "").unwrap();
    eventually("the end is on disk", || {
        world.folder(&request).join("ended").exists()
    })
    .await;
    world.host.start();
    world.relinked(before).await;
    let mut run = world.ask(&again).await;
    run.hear_the_end().await;
    assert_eq!(
        (run.heard.out(), run.heard.code()),
        ("two\n".to_owned(), Some(0))
    );
    assert!(world.folder(&request).join("output-0-0").exists());
    run.taken().await;
    eventually("output is deleted", || {
        !world.folder(&request).join("output-0-0").exists()
    })
    .await;
    // Whoever asks once more is told the same, and nothing runs.
    let heard = world.settle(&request).await;
    assert_eq!(
        (heard.code(), heard.out().as_str(), heard.next),
        (Some(0), "", 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_twice_runs_once() {
    let mut world = World::new().await;
    let file = world.host.path("count");
    let request = world.request(sh(&format!("echo x >>{}; sleep 0.3", file.display())));
    let asked = (0..8).map(|_| world.settle(&request));
    for heard in futures_util::future::join_all(asked).await {
        assert_eq!(heard.code(), Some(0));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_watcher_is_told_as_lost_and_nothing_runs_again() {
    let mut world = World::new().await;
    let request = world.request(sh("echo $PPID; sleep 300"));
    let mut run = world.ask(&request).await;
    run.until(|heard| heard.out.ends_with(b"\n")).await;
    let watcher: i32 = run.heard.out().trim().parse().unwrap();
    let kill = |pid: i32| {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    kill(watcher);
    let heard = world.settle(&request).await;
    kill(run.heard.pid.cast_signed());
    assert_eq!(heard.ended().kind(), EndKind::Lost);
    assert!(heard.ended().reason.contains("was killed"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn abuse_12_requests_of_others_and_of_the_past_start_nothing() {
    let mut world = World::new().await;
    let file = world.host.path("ran");
    let spec = sh(&format!("echo x >>{}", file.display()));
    let good = world.request(spec.clone());
    let fresh = |world: &mut World| world.request(spec.clone());
    let mut cases = Vec::new();
    let mut other = fresh(&mut world);
    other.host = "hst_01jd0000000000000000000077".into();
    cases.push((other, RunRefusal::NotMine));
    let mut older = fresh(&mut world);
    older.generation = 0;
    cases.push((older, RunRefusal::NotMine));
    let mut late = fresh(&mut world);
    late.start_before_ms = late.server_time_ms;
    cases.push((late, RunRefusal::Expired));
    let mut nothing = fresh(&mut world);
    nothing.spec = Some(RunSpec::default());
    cases.push((nothing, RunRefusal::Invalid));
    let mut path = fresh(&mut world);
    path.command = "../../x".into();
    cases.push((path, RunRefusal::Invalid));
    let mut unknown = fresh(&mut world);
    unknown.spec = None;
    cases.push((unknown.clone(), RunRefusal::NeverStarted));
    // That was a promise.
    unknown.spec = Some(spec.clone());
    cases.push((unknown, RunRefusal::NeverStarted));
    for (request, refusal) in cases {
        assert_eq!(
            world.settle(&request).await.refusal(),
            refusal,
            "{request:?}"
        );
    }
    // A gateway that was restored over: the host has heard of a later life.
    let mut later = fresh(&mut world);
    later.life = 2;
    assert_eq!(world.settle(&later).await.code(), Some(0));
    assert_eq!(world.settle(&good).await.refusal(), RunRefusal::NotMine);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_of_a_host_can_pause_commands() {
    let mut world = World::new().await;
    assert!(world.host.run("pause", &[]).status.success());
    assert_eq!(world.run_refused(sh("true")).await, RunRefusal::Paused);
    let warnings = world.host.status().unwrap().warnings;
    assert!(
        warnings.iter().any(|it| it.contains("paused")),
        "{warnings:?}"
    );
    assert!(world.host.run("resume", &[]).status.success());
    assert_eq!(world.run(sh("true")).await.code(), Some(0));
}

impl World {
    async fn run_refused(&mut self, spec: RunSpec) -> RunRefusal {
        let request = self.request(spec);
        self.settle(&request).await.refusal()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn much_output_waits_for_its_reader_in_the_program_and_not_in_memory() {
    let mut world = World::new().await;
    // A hundred megabytes, and a reader that does not read.
    let request = world.request(sh("head -c 100000000 /dev/zero; echo end >&2"));
    let mut run = world.ask(&request).await;
    run.until(|heard| heard.pid > 0).await;
    let pid = run.heard.pid;
    let stat = || {
        let io = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        io.contains("State:\tS")
    };
    eventually("the program waits", stat).await;
    assert!(is_alive(pid));
    let mut bytes = 0;
    let read = async {
        loop {
            assert!(
                run.hear().await,
                "the stream ended after {bytes} bytes, at {}:\n{}",
                run.heard.next,
                world.host.log()
            );
            bytes += run.heard.out.len();
            run.heard.out.clear();
            if run.heard.ended.is_some() {
                return;
            }
            if run.heard.next.is_multiple_of(16) {
                let sequence = run.heard.next;
                run.order(run_order::Body::OutputStored(
                    protocol::v1::RunOutputStored { sequence },
                ))
                .await;
            }
        }
    };
    tokio::time::timeout(LIMIT * 4, read)
        .await
        .expect("all of it in time");
    assert_eq!(
        (bytes, run.heard.code(), run.heard.gaps),
        (100_000_000, Some(0), 0)
    );
    run.taken().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_nobody_takes_is_bounded_on_disk_with_its_gap_told() {
    let mut world = World::new().await;
    let request = world.request(sh("head -c 80000000 /dev/zero; echo end"));
    let mut run = world.ask(&request).await;
    run.until(|heard| heard.pid > 0).await;
    world.host.kill();
    eventually("the end is on disk", || {
        world.folder(&request).join("ended").exists()
    })
    .await;
    assert!(size_of(&world.folder(&request)) < 40 << 20);
    let before = world.stable_id().unwrap();
    world.host.start();
    world.relinked(before).await;
    let heard = world.settle(&request).await;
    assert!(
        heard.out.ends_with(b"end\n") && heard.gaps > 0,
        "{} gap",
        heard.gaps
    );
    assert_eq!(heard.out.len() as u64 + heard.gaps, 80_000_004);
}

fn size_of(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_killed_is_replaced() {
    let mut world = World::new().await;
    assert_eq!(world.run(sh("true")).await.code(), Some(0));
    let folder = world.host.dir.path().display().to_string();
    let runners = || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("\0runner\0") && line.contains(&folder) {
                found.push(entry.file_name().to_str().unwrap().parse::<i32>().unwrap());
            }
        }
        found
    };
    // As root on a machine with systemd it is a unit; here it is found by its arguments.
    let found = runners();
    assert_eq!(found.len(), 1, "{found:?}");
    let pid = rustix::process::Pid::from_raw(found[0]).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    eventually("the runner is dead", || runners() != found).await;
    assert_eq!(world.run(sh("true")).await.code(), Some(0));
    // And it goes with the agent.
    assert_eq!(world.host.stop().await, Some(0));
    eventually("no runner is left", || runners().is_empty()).await;
}

/// Free space is what a small file system of its own has; only root can make one.
#[tokio::test(flavor = "multi_thread")]
async fn abuse_41_a_host_whose_disk_is_full_declines_and_stays_linked() {
    let gateway = Gateway::start();
    let host = Host::new(&gateway);
    let state = host.state();
    std::fs::create_dir(&state).unwrap();
    let mount = |args: &[&str]| {
        let status = std::process::Command::new("mount").args(args).status();
        status.is_ok_and(|status| status.success())
    };
    let place = state.display().to_string();
    if !mount(&[
        "-t",
        "tmpfs",
        "-o",
        "size=2m,mode=700",
        "loopback-test",
        &place,
    ]) {
        eprintln!("SKIPPED: a file system cannot be mounted here, which needs root");
        return;
    }
    let _mounted = Mounted(place);
    let mut host = host;
    host.start();
    host.status_when("linked", |status| status.is_linked())
        .await;
    let id = host.status().unwrap().identity.unwrap().host;
    let mut world = World {
        gateway,
        host,
        id,
        next: 0,
    };
    assert_eq!(world.run_refused(sh("true")).await, RunRefusal::DiskFull);
    assert!(world.host.status().unwrap().is_linked());
    world.host.stop().await;
}

struct Mounted(String);

impl Drop for Mounted {
    fn drop(&mut self) {
        // Lazily: after a failed assertion the agent is still there.
        let _ = std::process::Command::new("umount")
            .args(["-l", &self.0])
            .status();
    }
}
