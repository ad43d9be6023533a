//! `loopback run` and `loopback command` as people and scripts start them.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use support::command::{COMMAND, body, command, ending, id, output, resolved, run, stream};
use support::shell::{Shell, host, hosts};
use support::{WORKSPACE, json};

#[test]
fn a_command_is_made_as_it_was_typed_for_the_targets_that_were_shown() {
    let shell = ending("", &["exited 0", "exited 0"]);
    let ran = shell
        .run_with(
            &[
                "run",
                "-l",
                "role=web",
                "--user",
                "www",
                "--dir",
                "/srv",
                "--env",
                "A=b=c",
                "--secret",
                "TOKEN",
                "--timeout",
                "5m",
                "--grace",
                "1s",
                "--deliver-within",
                "1h",
                "--concurrency",
                "5",
                "--batch",
                "1",
                "--batch",
                "10%",
                "--stop-after",
                "5%",
                "--priority",
                "high",
                "--memory",
                "1G",
                "--cpus",
                "0.5",
                "--nice",
                "-5",
                "--stdin",
                "-",
                "--",
                "sh",
                "-c",
                "echo $HOME *; -x",
            ],
            "typed\n",
            &[("TOKEN", "hunter2")],
        )
        .ok();
    assert!(
        ran.err.contains("2 hosts: web-1, web-2 (no link now)"),
        "{ran:?}"
    );
    assert!(ran.err.contains("2 of 2 hosts succeeded"), "{ran:?}");
    let asked = shell.gateway().asked();
    assert_eq!(body(&asked[0])["selector"], "role=web");
    let made = body(&asked[1]);
    assert_eq!(
        made["argv"],
        serde_json::json!(["sh", "-c", "echo $HOME *; -x"])
    );
    for (field, value) in [
        ("/targets_digest", serde_json::json!("d1")),
        ("/stdin", "typed\n".into()),
        ("/user", "www".into()),
        ("/directory", "/srv".into()),
        ("/environment/A", "b=c".into()),
        ("/secrets/TOKEN", "hunter2".into()),
        ("/timers/run_ms", 300_000.into()),
        ("/timers/grace_ms", 1000.into()),
        ("/timers/delivery_ms", 3_600_000.into()),
        ("/fan_out/concurrency", 5.into()),
        ("/fan_out/batches", serde_json::json!(["1", "10%"])),
        ("/fan_out/stop_after", "5%".into()),
        ("/fan_out/priority", "high".into()),
        ("/limits/memory_bytes", (1_u64 << 30).into()),
        ("/limits/cpu_millis", 500.into()),
        ("/limits/nice", (-5).into()),
    ] {
        assert_eq!(made.pointer(field), Some(&value), "{field}");
    }
    assert!(asked[1].header("idempotency-key").is_some());
    assert!(!format!("{}{}", ran.out, ran.err).contains("hunter2"));
}

#[test]
fn what_cannot_be_meant_is_refused_before_anything_is_asked() {
    let shell = Shell::answering([]);
    let script = shell.file("script", "true");
    let script = script.to_str().unwrap();
    for (line, expected) in [
        (&["run", "--", "true"][..], "--selector"),
        (
            &["run", "--all", "-l", "a=b", "--", "true"],
            "cannot be used with",
        ),
        (
            &["run", "--all"],
            "say -- PROGRAM ARGS..., or --script FILE",
        ),
        (&["run", "--all", "true"], "[-- <PROGRAM>...]"),
        (
            &["run", "--all", "--script", script, "--", "x"],
            "a script takes no program",
        ),
        (
            &["run", "--all", "--script", "-", "--stdin", "-"],
            "--script and --stdin cannot both be standard input",
        ),
        (
            &["run", "--all", "--interpreter", "sh", "--", "x"],
            "--script",
        ),
        (&["run", "--all", "--batch", "101%", "--", "x"], "3 or 10%"),
        (&["run", "--all", "--nice", "20", "--", "x"], "20"),
        (
            &["run", "--all", "--env", "A=1", "--secret", "A", "--", "x"],
            "`A` is given by --env and by --secret",
        ),
        (&["command", "show", "latest"], "latest"),
        (&["command", "retry", COMMAND], "--failed"),
    ] {
        let ran = shell.run_with(line, "", &[("A", "1")]);
        assert_eq!(ran.code, 2, "{line:?}: {ran:?}");
        assert!(ran.err.contains(expected), "{line:?}: {}", ran.err);
    }
    assert!(shell.asked().is_empty(), "{:?}", shell.asked());
}

#[test]
fn abuse_30_a_secret_in_an_argument_is_refused_and_repeated_nowhere() {
    let shell = Shell::answering([]);
    let ran = shell.run(&["run", "--all", "--secret", "TOKEN=hunter2", "--", "true"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("--secret TOKEN=@FILE"), "{}", ran.err);
    assert!(!ran.err.contains("hunter2"), "{}", ran.err);
    assert!(shell.asked().is_empty());
}

#[test]
fn abuse_30_secrets_are_in_no_output_of_a_verbose_run() {
    let shell = ending("", &["exited 0"]);
    let file = shell.file("token", "hunter2\n");
    let secret = format!("TOKEN=@{}", file.display());
    let ran = shell
        .run(&[
            "run",
            "--all",
            "--verbose",
            "--json",
            "--secret",
            &secret,
            "--",
            "x",
        ])
        .ok();
    assert_eq!(
        body(&shell.gateway().asked()[1])["secrets"]["TOKEN"],
        "hunter2"
    );
    assert!(!format!("{}{}", ran.out, ran.err).contains("hunter2"));
}

#[test]
fn no_host_selected_is_an_error_and_nothing_is_made() {
    let shell = Shell::answering([resolved(0)]);
    let ran = shell.run(&["run", "-l", "role=none", "--", "true"]);
    assert_eq!((ran.code, shell.asked().len()), (3, 1), "{ran:?}");
    assert!(ran.err.contains("no host is selected"), "{}", ran.err);
}

#[test]
fn one_host_answers_with_its_bytes_and_its_code() {
    let bytes = "\u{1b}[1mbold\u{1b}[0m without end";
    let between = output(1, "stdout", bytes) + &output(1, "stderr", "oops\n");
    let shell = Shell::answering([
        hosts(&[host('1', "web-1", "connected")]),
        resolved(1),
        json(201, command(1, "running")),
        stream(&between, &["exited 7"]),
    ]);
    let ran = shell.run(&["run", "--host", "web-1", "--", "x"]);
    assert_eq!((ran.code, ran.out.as_str()), (7, bytes));
    assert_eq!(ran.err, "oops\nweb-1: exited, code 7\n");
    assert_eq!(
        body(&shell.gateway().asked()[1])["hosts"],
        serde_json::json!([id(1)])
    );
}

#[test]
fn exit_codes_say_how_it_went() {
    for (ends, code) in [
        (&["exited 0"][..], 0),
        (&["signalled -9"], 137),
        (&["expired"], 9),
        (&["timed_out"], 8),
        (&["exited 0", "exited 0"], 0),
        (&["exited 0", "exited 3"], 8),
        (&["exited 0", "expired"], 9),
        (&["cancelled", "expired"], 10),
        (&["lost", "exited 3", "cancelled"], 11),
    ] {
        let ran = ending("", ends).run(&["run", "--all", "--", "x"]);
        assert_eq!(ran.code, code, "{ends:?}: {ran:?}");
    }
}

#[test]
fn lines_of_many_hosts_stand_behind_their_names_and_the_end_names_who_failed() {
    let between = output(1, "stdout", "a\nb")
        + &output(2, "stdout", b"\xff\n")
        + &output(1, "stdout", "c\n")
        + &output(2, "stderr", "oops\n");
    let ran = ending(&between, &["exited 0", "signalled -15"]).run(&["run", "--all", "--", "x"]);
    assert_eq!(ran.out, "web-1 | a\nweb-2 | \u{fffd}\nweb-1 | bc\n");
    assert!(ran.err.contains("web-2 | oops\n"), "{}", ran.err);
    assert!(ran.err.contains("1 of 2 hosts succeeded"), "{}", ran.err);
    assert!(
        ran.err.contains("web-2  signalled  signal 15 (TERM)"),
        "{}",
        ran.err
    );
    assert!(
        ran.err
            .contains(&format!("loopback command retry {COMMAND} --failed")),
        "{}",
        ran.err
    );
    assert_eq!(ran.code, 8);
}

#[test]
fn detached_the_id_is_all() {
    let shell = Shell::answering([resolved(1), json(201, command(1, "running"))]);
    let ran = shell.run(&["run", "--all", "--detach", "--", "x"]).ok();
    assert_eq!((ran.out.trim(), shell.asked().len()), (COMMAND, 2));
}

#[test]
fn commands_are_listed_shown_and_cancelled() {
    let definition = r#"{"argv":["uptime","-p"],"script":null,"interpreter":[],"user":null,"directory":null,"environment":{"A":"b\u001b[2J"},"secrets":["TOKEN"],"limits":{"memory_bytes":1048576},"timers":{"start_ms":60000,"run_ms":0,"grace_ms":10000},"fan_out":{"concurrency":5,"batches":["1"],"stop_after":null,"priority":"low"}}"#;
    let page = |item: &str| json(200, format!(r#"{{"items":[{item}]}}"#));
    let shell = Shell::answering([
        page(&command(2, "failed")),
        json(200, command(2, "failed")),
        json(200, definition),
        page(&run(1, "exited 3")),
        hosts(&[host('1', "web-1", "connected")]),
        json(200, command(2, "running")),
    ]);
    let listed = shell
        .run(&["command", "list", "--state", "failed"])
        .ok()
        .out;
    assert!(
        listed.contains(COMMAND) && listed.contains("uptime"),
        "{listed}"
    );
    let shown = shell
        .run(&["command", "show", COMMAND, "--state", "exited"])
        .ok()
        .out;
    for expected in [
        "TOKEN",
        "A=b\\u{1b}[2J",
        "code 3",
        "as long as it likes",
        "1 MiB",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    shell
        .run(&["command", "cancel", COMMAND, "--host", "web-1"])
        .ok();
    let asked = shell.gateway().asked();
    let base = format!("/v1/workspaces/{WORKSPACE}/commands");
    assert_eq!(asked[0].line, format!("GET {base}?limit=100&state=failed"));
    assert_eq!(
        asked[3].line,
        format!("GET {base}/{COMMAND}/runs?limit=500&state=exited")
    );
    assert_eq!(asked[5].line, format!("POST {base}/{COMMAND}/cancel"));
    assert_eq!(body(&asked[5])["hosts"], serde_json::json!([id(1)]));
}

#[test]
fn a_retry_is_one_call_and_is_followed() {
    let shell = Shell::answering([json(201, command(1, "running")), stream("", &["exited 4"])]);
    let ran = shell.run(&["command", "retry", COMMAND, "--not-reached"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert_eq!(
        body(&shell.gateway().asked()[0]),
        serde_json::json!({"which": "not_reached"})
    );
}
