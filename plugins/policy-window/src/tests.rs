use loopback_plugin_sdk::policy::{Subject, Target};

use super::*;

/// Monday, 2026-11-30 00:00 UTC.
const MONDAY: u64 = 1_795_996_800_000;
const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

const NIGHTS: &str = r#"{
    "windows": [{ "days": ["mon", "thu"], "from": "22:00", "to": "02:00" }],
    "actions": ["project.workspace.host.command"],
    "environments": ["production"]
}"#;

fn config(json: &str) -> Config {
    serde_json::from_str(json).unwrap()
}

fn request(now_ms: u64) -> Request {
    let subject = Subject {
        id: "usr_ada".into(),
        name: "ada".into(),
        roles: vec![],
    };
    Request {
        action: "project.workspace.host.command.run".into(),
        subject,
        targets: vec![Target {
            kind: "host".into(),
            id: "hst_1".into(),
            name: "web-1".into(),
            workspace: Some("web".into()),
            environment: Some("production".into()),
            labels: vec![],
        }],
        target_count: 1,
        ticket: None,
        now_ms,
        approvals: vec![],
        break_glass: false,
        extra: vec![],
    }
}

fn decide(json: &str, now_ms: u64) -> Verdict {
    WindowPolicy::decide(&config(json), request(now_ms))
}

fn message(verdict: Verdict) -> String {
    match verdict {
        Verdict::Deny(reason) => format!("deny {}: {}", reason.code, reason.message),
        Verdict::RequireApproval(approval) => {
            format!(
                "{} must approve: {}",
                approval.approvers, approval.reason.message
            )
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn a_window_over_midnight_is_open_until_its_end_on_the_next_day() {
    let end = Verdict::PermitUntil(MONDAY + 26 * HOUR);
    for (at, open) in [
        (MONDAY + 22 * HOUR - 1, false),
        (MONDAY + 22 * HOUR, true),
        (MONDAY + 24 * HOUR, true),
        (MONDAY + 26 * HOUR - 1, true),
        (MONDAY + 26 * HOUR, false),
        (MONDAY + 10 * HOUR, false),
    ] {
        assert_eq!(decide(NIGHTS, at) == end, open, "{at}");
    }
}

#[test]
fn a_refusal_tells_when_the_next_window_opens() {
    assert_eq!(
        message(decide(NIGHTS, MONDAY + 12 * HOUR)),
        "deny window.closed: project.workspace.host.command.run is allowed in maintenance windows \
         only; the next window opens Mon 2026-11-30 22:00 UTC"
    );
    let next = message(decide(NIGHTS, MONDAY + 4 * DAY + 3 * HOUR));
    assert!(next.ends_with("opens Mon 2026-12-07 22:00 UTC"), "{next}");
}

#[test]
fn an_offset_moves_the_windows_and_is_shown() {
    let east = NIGHTS.replace("\"actions\"", "\"utc_offset\": \"+05:30\", \"actions\"");
    let open = decide(&east, MONDAY + 17 * HOUR);
    assert_eq!(open, Verdict::PermitUntil(MONDAY + 20 * HOUR + HOUR / 2));
    let closed = message(decide(&east, MONDAY + 16 * HOUR));
    assert!(
        closed.ends_with("opens Mon 2026-11-30 22:00 +05:30"),
        "{closed}"
    );
    let west = NIGHTS.replace("\"actions\"", "\"utc_offset\": \"-08:00\", \"actions\"");
    let open = decide(&west, MONDAY + DAY + 7 * HOUR);
    assert_eq!(open, Verdict::PermitUntil(MONDAY + DAY + 10 * HOUR));
}

#[test]
fn other_actions_and_environments_are_not_judged() {
    let config = config(NIGHTS);
    let mut other = request(MONDAY);
    other.action = "project.workspace.host.commands".into();
    assert_eq!(WindowPolicy::decide(&config, other), Verdict::Abstain);
    let mut exact = request(MONDAY);
    exact.action = "project.workspace.host.command".into();
    assert_ne!(WindowPolicy::decide(&config, exact), Verdict::Abstain);
    let mut staging = request(MONDAY);
    staging.targets[0].environment = Some("staging".into());
    assert_eq!(
        WindowPolicy::decide(&config, staging.clone()),
        Verdict::Abstain
    );
    // One in production is enough, also if it may be among those that are not shown.
    staging.target_count = 101;
    assert_ne!(WindowPolicy::decide(&config, staging), Verdict::Abstain);
}

#[test]
fn approvals_of_others_count_once_each() {
    let config = config(&NIGHTS.replace(
        "\"environments\"",
        "\"outside\": { \"require_approval\": 2 }, \"environments\"",
    ));
    let mut asked = request(MONDAY);
    let said = message(WindowPolicy::decide(&config, asked.clone()));
    assert!(said.starts_with("2 must approve: "), "{said}");
    let approve = |asked: &mut Request, id: &str| {
        let mut subject = asked.subject.clone();
        subject.id = id.into();
        asked.approvals.push(subject);
    };
    for id in ["usr_ada", "usr_bob", "usr_bob"] {
        approve(&mut asked, id);
        let verdict = WindowPolicy::decide(&config, asked.clone());
        assert!(matches!(verdict, Verdict::RequireApproval(_)), "{id}");
    }
    approve(&mut asked, "usr_eve");
    assert_eq!(WindowPolicy::decide(&config, asked), Verdict::Abstain);
}

#[test]
fn windows_that_touch_are_one_and_a_week_without_a_gap_says_nothing() {
    let two = r#"{ "windows": [
        { "days": ["sun"], "from": "20:00", "to": "24:00" },
        { "days": ["mon"], "from": "00:00", "to": "03:00" }
    ], "actions": ["project"] }"#;
    let end = Verdict::PermitUntil(MONDAY + 3 * HOUR);
    assert_eq!(decide(two, MONDAY - HOUR), end);
    assert_eq!(decide(two, MONDAY + HOUR), end);
    let whole = r#"{ "windows": [{ "from": "00:00", "to": "24:00" }], "actions": ["project"] }"#;
    assert_eq!(decide(whole, MONDAY), Verdict::Abstain);
    assert_eq!(WindowPolicy::check(&config(whole))[0].path, "/windows");
}

#[test]
fn configurations_that_mean_nothing_are_found() {
    for (json, path) in [
        (r#"{ "windows": [], "actions": ["project"] }"#, "/windows"),
        (
            r#"{ "windows": [{ "from": "01:00", "to": "02:00" }], "actions": [] }"#,
            "/actions",
        ),
        (
            r#"{ "windows": [{ "from": "01:00", "to": "02:00" }], "actions": ["p"],
                 "outside": { "require_approval": 0 } }"#,
            "/outside/require_approval",
        ),
    ] {
        assert_eq!(WindowPolicy::check(&config(json))[0].path, path, "{json}");
    }
    for (from, to) in [
        ("1:00", "02:00"),
        ("24:01", "02:00"),
        ("01:60", "02:00"),
        ("-1:00", "02:00"),
    ] {
        let json = format!(r#"{{"windows":[{{"from":"{from}","to":"{to}"}}],"actions":["p"]}}"#);
        assert!(serde_json::from_str::<Config>(&json).is_err(), "{json}");
    }
}

#[test]
fn a_day_and_its_name_come_out_right_in_any_year() {
    let utc = Offset::default();
    for (ms, text) in [
        (0, "Thu 1970-01-01 00:00 UTC"),
        (951_868_740_000, "Tue 2000-02-29 23:59 UTC"),
        (4_107_575_280_000, "Mon 2100-03-01 09:08 UTC"),
    ] {
        assert_eq!(utc.show(ms), text);
    }
}
