//! The program as people and scripts start it.

#![allow(clippy::unwrap_used, reason = "a panic in a test is the report")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use api::ProblemCode;
use support::shell::{AT, Ran, Shell, host, hosts};
use support::{Answer, Gateway, KEY, WORKSPACE, json, problem};

fn user(name: &str) -> String {
    format!(
        r#"{{"id":"usr_00000000000000000000000001","name":"{name}","kind":"person","display_name":"","disabled":false,"created_at":"{AT}"}}"#
    )
}

fn api_key() -> String {
    format!(
        r#"{{"id":"key_00000000000000000000000001","user":"usr_00000000000000000000000001","description":"","limits":null,"created_at":"{AT}","expires_at":null,"last_used_at":null,"revoked_at":null}}"#
    )
}

fn caller() -> String {
    format!(
        r#"{{"user":{},"api_key":{},"holdings":[{{"scope":{{"kind":"deployment"}},"rules":[{{"allow":"self"}},{{"allow":"project.workspace.host.shell_session","environments":["staging"]}}]}}]}}"#,
        user("ada"),
        api_key()
    )
}

#[test]
fn init_claims_once_and_keeps_a_context() {
    let mut shell = Shell::new();
    let claimed = format!(
        r#"{{"user":{},"key":{{"api_key":{},"secret":"{KEY}"}}}}"#,
        user("ada"),
        api_key()
    );
    shell.gateway = Some(Gateway::answering([
        json(201, claimed),
        json(200, caller()),
    ]));
    let ca = shell.file("ca.pem", &shell.gateway().ca_pem);
    let secret = shell.file("owner.secret", "once\n");
    let line = [
        "init",
        "--url",
        &shell.gateway().url,
        "--ca-file",
        path(&ca),
        "--secret-file",
        path(&secret),
        "--name",
        "ada",
    ];
    let ran = shell.run(&line).ok();
    assert!(
        ran.out.contains("you are ada") && !ran.out.contains(KEY),
        "{ran:?}"
    );
    assert_eq!(
        shell.gateway().asked()[0].body,
        r#"{"secret":"once","name":"ada"}"#
    );
    assert_eq!(
        fs::metadata(shell.config()).unwrap().permissions().mode() & 0o777,
        0o600
    );
    // The authority is kept in the context: its file may go.
    fs::remove_file(ca).unwrap();
    let ran = shell.run(&["whoami"]).ok();
    assert!(
        ran.out
            .contains("project.workspace.host.shell_session@staging in deployment"),
        "{}",
        ran.out
    );
    assert_eq!(
        shell.gateway().asked()[1].header("authorization"),
        Some(format!("Bearer {KEY}").as_str())
    );
}

#[test]
fn init_asks_nothing_when_its_answer_could_not_be_kept() {
    let mut shell = Shell::answering([]);
    let secret = shell.file("owner.secret", "once");
    let url = shell.gateway().url.clone();
    let line = [
        "init",
        "--context",
        "home",
        "--url",
        &url,
        "--secret-file",
        path(&secret),
        "--pin",
        &shell.gateway().pin.clone(),
    ];
    assert_eq!(shell.run(&line).code, 2, "there is such a context");
    fs::remove_file(shell.config()).unwrap();
    fs::create_dir(shell.config()).unwrap();
    assert_eq!(shell.run(&line).code, 1, "the file cannot be written");
    assert!(shell.asked().is_empty());
    shell.gateway = None;
}

#[test]
fn a_lost_reply_to_init_is_not_asked_for_again() {
    let mut shell = Shell::new();
    shell.gateway = Some(Gateway::answering([Answer::Silence]));
    let secret = shell.file("owner.secret", "once");
    let ran = shell.run(&[
        "init",
        "--url",
        &shell.gateway().url,
        "--pin",
        &shell.gateway().pin,
        "--secret-file",
        path(&secret),
    ]);
    assert_eq!((ran.code, shell.asked().len()), (6, 1), "{ran:?}");
}

#[test]
fn login_takes_a_key_from_input_and_keeps_it_only_when_it_works() {
    let mut shell = Shell::new();
    shell.gateway = Some(Gateway::answering([
        problem(ProblemCode::Unauthenticated),
        json(200, caller()),
    ]));
    let (url, pin) = (shell.gateway().url.clone(), shell.gateway().pin.clone());
    let line = ["login", "--url", &url, "--pin", &pin];
    let ran = shell.run_with(&line, KEY, &[]);
    assert_eq!((ran.code, shell.config().exists()), (4, false), "{ran:?}");
    assert!(
        ran.err.contains("code: unauthenticated") && !ran.err.contains("1111"),
        "{}",
        ran.err
    );
    shell.run_with(&line, &format!("{KEY}\n"), &[]).ok();
    let shown = shell.run(&["context", "list", "--output", "json"]).ok();
    let context = &shown.json()["items"][0];
    assert_eq!(
        (&context["name"], &context["trust"], &context["current"]),
        (&"default".into(), &"pin".into(), &true.into())
    );
    assert_eq!(context["api_key"], "key_00000000000000000000000001");
    assert!(!shown.out.contains("1111"));
    assert_eq!(shell.run_with(&line, "not a key", &[]).code, 2);
}

#[test]
fn contexts_are_added_used_and_removed() {
    let shell = Shell::new();
    for name in ["a", "b"] {
        shell
            .run(&["context", "add", name, "--url", &format!("https://{name}")])
            .ok();
    }
    assert_eq!(
        shell
            .run(&["context", "add", "a", "--url", "https://x"])
            .code,
        2
    );
    let table = shell.run(&["context", "list"]).ok().out;
    assert_eq!(
        table,
        "CURRENT  NAME  URL        TRUST   API KEY  WORKSPACE\n*        a     https://a  system  -        -\n-        b     https://b  system  -        -\n"
    );
    shell.run(&["context", "use", "b", "-w", "web/prod"]).ok();
    let shown = shell
        .run(&["context", "show", "--output", "json"])
        .ok()
        .json();
    assert_eq!(
        (&shown["url"], &shown["workspace"]),
        (&"https://b".into(), &"web/prod".into())
    );
    shell.run(&["context", "remove", "b"]).ok();
    assert_eq!(shell.run(&["context", "remove", "b"]).code, 3);
    assert_eq!(shell.run(&["whoami"]).code, 2, "no context is current");
}

#[test]
fn a_config_that_others_can_read_is_refused_before_any_call() {
    let shell = Shell::answering([]);
    fs::set_permissions(shell.config(), fs::Permissions::from_mode(0o644)).unwrap();
    let ran = shell.run(&["whoami"]);
    assert!(
        ran.code == 1 && ran.err.contains("chmod 600") && shell.asked().is_empty(),
        "{ran:?}"
    );
}

#[test]
fn hosts_are_listed_as_a_table_or_as_the_api_has_them() {
    let answer = hosts(&[
        host('1', "web\\u001b[2J", "connected"),
        host('2', "db", "late"),
    ]);
    let shell = Shell::answering([answer.clone(), answer.clone(), answer]);
    let table = shell
        .run(&[
            "host",
            "list",
            "-l",
            "role=web,env!=dev",
            "--summary",
            "connected",
            "--limit",
            "2",
        ])
        .ok()
        .out;
    let rows: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[0][..2], ["NAME", "STATE"]);
    assert_eq!(rows[1][..2], ["web\\u{1b}[2J", "connected"]);
    assert_eq!(rows[2][..2], ["db", "late"]);
    let query = "limit=2&selector=role%3Dweb%2Cenv%21%3Ddev&summary=connected";
    assert_eq!(
        shell.asked(),
        [format!("GET /v1/workspaces/{WORKSPACE}/hosts?{query}")]
    );
    let json = shell.run(&["host", "list", "--output", "json"]).ok().json();
    assert_eq!(
        (&json["items"][1]["name"], json.get("next")),
        (&"db".into(), None)
    );
    let bare = shell.run(&["host", "list", "--no-headers"]).ok().out;
    assert_eq!(bare.lines().count(), 2);
}

#[test]
fn a_host_is_named_by_a_unique_name_or_its_id() {
    let twins = hosts(&[
        host('1', "web", "connected"),
        host('2', "web", "late"),
        host('3', "web-3", "late"),
    ]);
    let shell = Shell::answering([
        twins,
        hosts(&[]),
        hosts(&[]),
        json(200, host('1', "web", "connected")),
    ]);
    let ran = shell.run(&["host", "show", "web"]);
    assert_eq!(ran.code, 2);
    assert!(
        ran.err.contains("2 hosts are called `web`")
            && ran.err.contains("hst_00000000000000000000000002"),
        "{}",
        ran.err
    );
    let ran = shell.run(&["host", "show", "gone"]);
    assert_eq!(
        (ran.code, ran.err.trim()),
        (3, "error: there is no host `gone`")
    );
    assert!(
        shell.asked()[2].contains("membership=retired"),
        "retired hosts are looked at last"
    );
    shell
        .run(&["host", "show", "hst_00000000000000000000000001"])
        .ok();
    assert_eq!(
        shell.asked()[3],
        format!("GET /v1/workspaces/{WORKSPACE}/hosts/hst_00000000000000000000000001")
    );
}

#[test]
fn workspaces_are_named_by_project_and_name() {
    let project = format!(
        r#"{{"items":[{{"id":"prj_00000000000000000000000001","name":"web","description":"","created_at":"{AT}"}}]}}"#
    );
    let workspace = format!(
        r#"{{"items":[{{"id":"{WORKSPACE}","project":"prj_00000000000000000000000001","name":"prod","description":"","environment":"production","thresholds":{{"heartbeat_ms":2000,"late_ms":3000,"unreachable_ms":5600}},"created_at":"{AT}"}}]}}"#
    );
    let shell = Shell::answering([json(200, project), json(200, workspace), hosts(&[])]);
    shell.run(&["host", "list", "-w", "web/prod"]).ok();
    assert_eq!(
        shell.asked()[1],
        "GET /v1/workspaces?limit=500&project=prj_00000000000000000000000001"
    );
    assert!(shell.asked()[2].starts_with(&format!("GET /v1/workspaces/{WORKSPACE}/hosts")));
}

#[test]
fn what_cannot_be_undone_needs_a_yes() {
    let id = "hst_00000000000000000000000001";
    let shell = Shell::answering([json(200, host('1', "web", "retired"))]);
    let ran = shell.run_with(&["host", "retire", id], "y\n", &[]);
    assert!(
        ran.code == 2 && ran.err.contains("--yes") && shell.asked().is_empty(),
        "{ran:?}"
    );
    shell
        .run(&[
            "host", "retire", id, "--yes", "--reason", "scrapped", "--ticket", "OPS-7",
        ])
        .ok();
    let asked = &shell.gateway().asked()[0];
    assert_eq!(
        asked.line,
        format!("POST /v1/workspaces/{WORKSPACE}/hosts/{id}/retire")
    );
    assert_eq!(
        (asked.body.as_str(), asked.header("x-loopback-ticket")),
        (r#"{"reason":"scrapped"}"#, Some("OPS-7"))
    );
}

#[test]
fn labels_and_maintenance_travel_as_the_api_wants_them() {
    let id = "hst_00000000000000000000000001";
    let shell = Shell::answering((0..3).map(|_| json(200, host('1', "web", "connected"))));
    shell.run(&["host", "label", id, "role=db", "old-"]).ok();
    shell
        .run(&[
            "host",
            "maintenance",
            id,
            "--until",
            "2027-02-01T00:00:00Z",
            "--reason",
            "disk",
        ])
        .ok();
    shell.run(&["host", "maintenance", id, "--end"]).ok();
    let asked = shell.gateway().asked();
    assert_eq!(asked[0].body, r#"{"labels":{"old":null,"role":"db"}}"#);
    assert_eq!(
        asked[1].body,
        r#"{"until":"2027-02-01T00:00:00.000Z","reason":"disk"}"#
    );
    assert!(asked[2].line.starts_with("DELETE ") && asked[2].line.ends_with("/maintenance"));
    for bad in [
        &["host", "maintenance", id][..],
        &["host", "maintenance", id, "--end", "--for", "2h"],
    ] {
        assert_eq!(shell.run(bad).code, 2);
    }
}

#[test]
fn a_new_token_comes_with_the_line_that_joins_a_host() {
    let created = format!(
        r#"{{"token":{{"id":"tok_00000000000000000000000001","workspace":"{WORKSPACE}","description":"","long_living_token":false,"state":"active","created_by":"usr_00000000000000000000000001","created_at":"{AT}","expires_at":"{AT}","revoked_at":null,"use_limit":null,"uses":0,"last_used_at":null,"recent_hosts":[],"labels":{{}},"ephemeral":false,"replaced_by":null}},"secret":"lbt_s","install":{{"url":"https://gw:1/v1/agent/install.sh","pin":"sha256//x"}}}}"#
    );
    let shell = Shell::answering([json(201, &created), json(201, &created)]);
    let line = "curl -qfsS --proto '=https' --pinnedpubkey 'sha256//x' -k 'https://gw:1/v1/agent/install.sh' | LOOPBACK_TOKEN='lbt_s' sh";
    let json = shell
        .run(&[
            "token",
            "create",
            "--use-limit",
            "3",
            "--label",
            "role=web",
            "--output",
            "json",
        ])
        .ok()
        .json();
    assert_eq!(
        (&json["secret"], &json["install_command"]),
        (&"lbt_s".into(), &line.into())
    );
    assert_eq!(json["token"]["id"], "tok_00000000000000000000000001");
    let body: serde_json::Value = serde_json::from_str(&shell.gateway().asked()[0].body).unwrap();
    assert_eq!(
        (&body["use_limit"], &body["labels"]["role"]),
        (&3.into(), &"web".into())
    );
    assert!(shell.run(&["token", "create"]).ok().out.contains(line));
}

#[test]
fn every_situation_has_its_exit_code() {
    for (code, expected) in [
        (ProblemCode::Invalid, 2),
        (ProblemCode::NotFound, 3),
        (ProblemCode::Forbidden, 4),
        (ProblemCode::NameTaken, 5),
        (ProblemCode::StorageFull, 6),
        (ProblemCode::Internal, 1),
    ] {
        let shell = Shell::answering([problem(code)]);
        assert_eq!(
            shell.run(&["project", "create", "web"]).code,
            expected,
            "{code:?}"
        );
    }
    assert_eq!(
        Shell::new().run(&["project", "create", "Not A Name"]).code,
        2
    );
    assert_eq!(Shell::new().run(&["no-such-command"]).code, 2);
    assert_eq!(
        Shell::new()
            .run_with(&["health"], "", &[("LOOPBACK_URL", "https://127.0.0.1:1")])
            .code,
        6
    );
}

#[test]
fn abuse_30_verbose_tells_every_call_and_no_secret() {
    let created = format!(r#"{{"api_key":{},"secret":"lbk_fresh"}}"#, api_key());
    let shell = Shell::answering([json(201, created)]);
    let ran = shell
        .run(&[
            "api-key",
            "create",
            "--expires",
            "30d",
            "--allow",
            "self@staging",
            "-v",
        ])
        .ok();
    assert!(
        ran.err.contains("POST ")
            && ran.err.contains("/v1/self/api-keys: 201")
            && ran.err.contains("(req_7)"),
        "{}",
        ran.err
    );
    assert!(!ran.err.contains("lbk_"), "{}", ran.err);
    assert!(ran.out.contains("lbk_fresh"));
}

#[test]
fn events_are_a_table_of_hosts_or_a_line_for_each() {
    let snapshot = format!(
        "id: 1\ndata: {{\"kind\":\"snapshot\",\"host\":{}}}\n\nid: 2\ndata: {{\"kind\":\"snapshot_end\",\"hosts\":1}}\n\n",
        host('1', "web", "late")
    );
    let stream = || Answer::Stream("text/event-stream", snapshot.clone());
    let shell = Shell::answering([stream(), stream()]);
    let table = shell.run(&["events"]).ok().out;
    assert_eq!(
        table,
        "NAME  STATE  ID\nweb   late   hst_00000000000000000000000001\n"
    );
    let lines = shell.run(&["events", "--output", "json"]).ok().out;
    let kinds: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["kind"].clone())
        .collect();
    assert_eq!(kinds, ["snapshot", "snapshot_end"]);
}

#[test]
fn following_prints_changes_across_a_lost_connection() {
    let event = |id: u8, data: String| format!("id: {id}\ndata: {data}\n\n");
    let change = |summary: &str| {
        format!(
            "{{\"kind\":\"host_changed\",\"host\":{}}}",
            host('1', "web", summary)
        )
    };
    let first = event(
        1,
        format!(
            "{{\"kind\":\"snapshot\",\"host\":{}}}",
            host('1', "web", "connected")
        ),
    ) + &event(2, "{\"kind\":\"snapshot_end\",\"hosts\":1}".to_owned())
        + &event(3, change("late"));
    let shell = Shell::answering([
        Answer::Stream("text/event-stream", first),
        Answer::Stream("text/event-stream", event(4, change("connected"))),
        problem(ProblemCode::Unauthenticated),
    ]);
    let ran = shell.run(&["events", "--follow"]);
    let changes: Vec<_> = ran
        .out
        .lines()
        .map(|line| line.split_once("  ").unwrap().1)
        .collect();
    assert_eq!(
        changes,
        ["web  connected -> late", "web  late -> connected"]
    );
    assert_eq!(ran.code, 4, "{}", ran.err);
    assert_eq!(
        shell.gateway().asked()[1].header("last-event-id"),
        Some("3")
    );
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let shell = Shell::answering([hosts(&vec![host('1', "web", "late"); 2000])]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_loopback"))
        .args(["host", "list"])
        .env_clear()
        .env("LOOPBACK_CONFIG", shell.config())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

#[test]
fn completions_and_manual_pages_need_no_configuration() {
    let shell = Shell::new();
    for name in ["bash", "zsh", "fish"] {
        assert!(
            shell
                .run(&["completions", name])
                .ok()
                .out
                .contains("loopback"),
            "{name}"
        );
    }
    assert!(shell.run(&["man"]).ok().out.starts_with(".ie"));
    let folder = shell.home.path().join("man");
    shell.run(&["man", "--dir", path(&folder)]).ok();
    assert!(folder.join("loopback-host-list.1").exists());
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}
