//! Following a command: streams that break, Ctrl-C, terminals, JSON.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use rustix::process::{Pid, Signal, kill_process};
use support::command::{
    COMMAND, EVENTS, command, command_event, ending, id, output, resolved, run, run_event, stream,
};
use support::shell::Shell;
use support::{Answer, Gateway, json, problem};

#[test]
fn a_dropped_stream_is_opened_again_and_nothing_is_printed_twice() {
    let begin = command_event(1, "running") + &run_event(1, "started");
    let first = begin.clone() + &output(1, "stdout", "one\ntw");
    let shell = Shell::answering([
        resolved(1),
        json(201, command(1, "running")),
        Answer::Stream(EVENTS, first),
        Answer::Silence,
        problem(api::ProblemCode::Unavailable),
        stream(&output(1, "stdout", "one\ntwo\n"), &["exited 0"]),
    ]);
    let ran = shell.run(&["run", "--all", "--", "x"]).ok();
    assert_eq!(ran.out, "one\ntwo\n");
    assert_eq!(shell.asked().len(), 6);
}

#[test]
fn json_is_one_event_a_line_each_told_once() {
    let begin = command_event(1, "running") + &run_event(1, "started");
    let first = begin + &output(1, "stdout", "one") + "data: {\"event\":\"newer\",\"x\":1}\n\n";
    let shell = Shell::answering([
        resolved(1),
        json(201, command(1, "running")),
        Answer::Stream(EVENTS, first),
        stream(&output(1, "stdout", "onetwo"), &["exited 0"]),
    ]);
    let ran = shell.run(&["run", "--all", "--json", "--", "x"]).ok();
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<_> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "command", "run", "output", "newer", "run", "output", "run", "command"
        ]
    );
    assert_eq!(lines[2]["data"], BASE64.encode(b"one"));
    assert_eq!(lines[5]["data"], BASE64.encode(b"two"));
}

#[test]
fn a_gateway_that_stays_away_is_given_up_and_the_command_is_named() {
    let shell = Shell::answering([resolved(1), json(201, command(1, "running"))]);
    let ran = shell.run(&["run", "--all", "--reconnect-for", "0s", "--", "x"]);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert!(
        ran.err
            .contains(&format!("loopback command follow {COMMAND}")),
        "{}",
        ran.err
    );
}

/// A gateway whose stream the test feeds.
fn live(cancelled: Sender<()>) -> (Shell, Sender<String>) {
    let (sender, receiver) = channel();
    let receiver = Arc::new(Mutex::new(receiver));
    let gateway = Gateway::deciding(move |asked| {
        if asked.line.ends_with("/command-targets") {
            resolved(1)
        } else if asked.line.ends_with("/commands") {
            json(201, command(1, "running"))
        } else if asked.line.ends_with("/cancel") {
            cancelled.send(()).unwrap();
            json(200, command(1, "running"))
        } else if asked.line.ends_with(COMMAND) {
            json(200, command(1, "running"))
        } else {
            Answer::Live(EVENTS, Arc::clone(&receiver))
        }
    });
    (Shell::at(gateway), sender)
}

fn start(shell: &Shell, line: &[&str]) -> Child {
    shell
        .program(line)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Starts it and waits until its output shows that it is followed.
fn started(shell: &Shell, events: &Sender<String>, line: &[&str]) -> Child {
    let mut child = start(shell, line);
    let begin = command_event(1, "running") + &run_event(1, "started");
    events.send(begin + &output(1, "stdout", "here\n")).unwrap();
    let mut line = String::new();
    let mut out = BufReader::with_capacity(1, child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    assert_eq!(line, "here\n");
    child.stdout = Some(out.into_inner());
    child
}

fn wait(cancelled: &Receiver<()>) {
    let asked = cancelled.recv_timeout(Duration::from_secs(60));
    asked.expect("the gateway is asked to cancel");
}

fn press_ctrl_c(child: &Child) {
    let pid = Pid::from_child(child);
    kill_process(pid, Signal::INT).unwrap();
}

#[test]
fn ctrl_c_cancels_and_shows_how_it_ends() {
    let (sender, cancelled) = channel();
    let (shell, events) = live(sender);
    let child = started(&shell, &events, &["run", "--all", "--", "x"]);
    press_ctrl_c(&child);
    wait(&cancelled);
    events
        .send(output(1, "stdout", "bye\n") + &run_event(1, "cancelled -15"))
        .unwrap();
    events.send(command_event(1, "cancelled")).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(10), "{ended:?}");
    assert_eq!(ended.stdout, b"bye\n");
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(err.contains("web-1: cancelled, signal 15 (TERM)"), "{err}");
}

#[test]
fn a_second_ctrl_c_leaves_and_says_how_to_go_on() {
    let (sender, cancelled) = channel();
    let (shell, events) = live(sender);
    let child = started(&shell, &events, &["run", "--all", "--", "x"]);
    press_ctrl_c(&child);
    wait(&cancelled);
    press_ctrl_c(&child);
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(12), "{ended:?}");
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(
        err.contains(&format!("loopback command follow {COMMAND}")),
        "{err}"
    );
}

/// Runs on a terminal of its own; what it shows there.
fn on_terminal(shell: &Shell, line: &[&str], typed: &str) -> (i32, String) {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let theirs = ioctl_tiocgptpeer(&ours, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let mut child = shell
        .program(line)
        .stdin(end(&theirs))
        .stdout(end(&theirs))
        .stderr(end(&theirs))
        .spawn()
        .unwrap();
    drop(theirs);
    rustix::io::write(&ours, typed.as_bytes()).unwrap();
    let mut shown = Vec::new();
    // Ends with an error when the other side is closed.
    let _ = File::from(ours).read_to_end(&mut shown);
    let code = child.wait().unwrap().code().unwrap();
    (code, String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn abuse_28_output_of_hosts_cannot_drive_the_operators_terminal() {
    let evil = "\u{1b}]52;c;cm0gLXJm\u{7}\u{9b}2Jx\n";
    for hosts in [&["exited 0"][..], &["exited 0", "exited 0"]] {
        let shell = ending(&output(1, "stdout", evil), hosts);
        let (code, shown) = on_terminal(&shell, &["run", "--all", "--", "x"], "");
        assert_eq!(code, 0, "{shown}");
        assert!(
            shown.contains("\\u{1b}]52;c;cm0gLXJm\\u{7}\\u{9b}2Jx"),
            "{shown:?}"
        );
        assert!(
            !shown.contains("\u{1b}]") && !shown.contains('\u{9b}'),
            "{shown:?}"
        );
    }
    let shell = ending(&output(1, "stdout", evil), &["exited 0"]);
    let (_, shown) = on_terminal(&shell, &["run", "--all", "--raw", "--", "x"], "");
    assert!(shown.contains(evil.trim_end()), "{shown:?}");
}

#[test]
fn on_a_terminal_more_than_ten_hosts_are_asked_about() {
    let shell = Shell::answering([resolved(11)]);
    let (code, shown) = on_terminal(&shell, &["run", "--all", "--", "x"], "n\n");
    assert_eq!((code, shell.asked().len()), (1, 1), "{shown}");
    assert!(shown.contains("Run on 11 hosts? [y/N]"), "{shown}");
    let shell = ending("", &["exited 0"; 11]);
    shell.run(&["run", "--all", "--", "x"]).ok();
}

#[test]
fn a_reader_that_goes_away_is_no_success_of_the_command() {
    let (sender, cancelled) = channel();
    let (shell, events) = live(sender);
    let mut child = started(&shell, &events, &["run", "--all", "--", "x"]);
    drop(child.stdout.take());
    events.send(output(1, "stdout", "to nobody\n")).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(12), "{ended:?}");
    let err = String::from_utf8(ended.stderr).unwrap();
    assert!(err.contains(&format!("command {COMMAND} goes on")), "{err}");
    assert!(cancelled.try_recv().is_err());
}

#[test]
fn who_follows_a_command_leaves_with_ctrl_c_and_cancels_nothing() {
    let (sender, cancelled) = channel();
    let (shell, events) = live(sender);
    let mut child = started(&shell, &events, &["command", "follow", COMMAND]);
    press_ctrl_c(&child);
    let ended = child.wait().unwrap();
    assert_eq!(ended.signal(), Some(2), "{ended:?}");
    assert!(cancelled.try_recv().is_err());
}

#[test]
fn output_of_one_host_comes_byte_for_byte() {
    let text = "a\u{1b}[31m\r\nb";
    let dropped = run(1, "exited 0").replace("\"dropped_bytes\":0", "\"dropped_bytes\":9");
    let shell = Shell::answering([json(200, dropped), bytes(text)]);
    let ran = shell
        .run(&["command", "output", COMMAND, &id(1), "--stream", "stderr"])
        .ok();
    assert_eq!(ran.out, text);
    assert!(ran.err.contains("9 bytes were not kept"), "{}", ran.err);
    assert!(shell.asked()[1].ends_with("/output?follow=false&stream=stderr"));
}

#[test]
fn output_that_is_followed_goes_on_where_it_was_cut_until_the_run_is_final() {
    let shell = Shell::answering([
        json(200, run(1, "started")),
        bytes("one "),
        problem(api::ProblemCode::Internal),
        json(200, run(1, "exited 0")),
        bytes("two"),
    ]);
    let ran = shell
        .run(&["command", "output", COMMAND, &id(1), "--follow"])
        .ok();
    assert_eq!(ran.out, "one two");
    assert!(shell.asked()[4].ends_with("/output?follow=true&from=4"));
}

fn bytes(text: &str) -> Answer {
    Answer::Stream("application/octet-stream", text.to_owned())
}
