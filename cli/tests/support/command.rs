//! A command as a gateway tells of it.

use data_encoding::BASE64;

use super::shell::{AT, Shell};
use super::{Answer, Asked, WORKSPACE, json};

pub(crate) const COMMAND: &str = "cmd_00000000000000000000000001";
pub(crate) const EVENTS: &str = "text/event-stream";

pub(crate) fn id(number: u8) -> String {
    format!("hst_0000000000000000000000000{number}")
}

pub(crate) fn command(targets: usize, state: &str) -> String {
    format!(
        r#"{{"id":"{COMMAND}","workspace":"{WORKSPACE}","title":"uptime","state":"{state}","runs":{{}},"targets":{targets},"failures":0,"stopped":null,"retry_of":null,"created_by":"ada","ticket":null,"created_at":"{AT}","valid_until":"{AT}","finished_at":null}}"#
    )
}

/// A run; `end` is `state`, `state code` or `state -signal`.
pub(crate) fn run(number: u8, end: &str) -> String {
    let (state, result) = end.split_once(' ').unwrap_or((end, ""));
    let (code, signal) = match result.strip_prefix('-') {
        Some(signal) => ("null", signal),
        None if result.is_empty() => ("null", "null"),
        None => (result, "null"),
    };
    format!(
        r#"{{"host":"{}","name":"web-{number}","batch":0,"state":"{state}","code":{code},"signal":{signal},"ending":null,"reason":null,"cancelling":false,"sent_at":null,"started_at":null,"ended_at":null,"output":{{"stdout_bytes":0,"stderr_bytes":0,"dropped_bytes":0,"deleted":false}}}}"#,
        id(number)
    )
}

pub(crate) fn event(kind: &str, data: &str) -> String {
    format!("event: {kind}\ndata: {{\"event\":\"{kind}\",{data}}}\n\n")
}

pub(crate) fn run_event(number: u8, end: &str) -> String {
    event("run", &format!(r#""run":{}"#, run(number, end)))
}

pub(crate) fn command_event(targets: usize, state: &str) -> String {
    event(
        "command",
        &format!(r#""command":{}"#, command(targets, state)),
    )
}

pub(crate) fn output(number: u8, stream: &str, text: impl AsRef<[u8]>) -> String {
    let (host, data) = (id(number), BASE64.encode(text.as_ref()));
    event(
        "output",
        &format!(r#""host":"{host}","stream":"{stream}","data":"{data}""#),
    )
}

pub(crate) fn resolved(total: u8) -> Answer {
    let hosts: Vec<_> = (1..=total.min(9))
        .map(|number| {
            format!(
                r#"{{"host":"{}","name":"web-{number}","connected":{}}}"#,
                id(number),
                number != 2
            )
        })
        .collect();
    let hosts = hosts.join(",");
    json(
        200,
        format!(r#"{{"total":{total},"hosts":[{hosts}],"digest":"d1"}}"#),
    )
}

/// A whole stream: hosts with these ends, and what stands before the ends.
pub(crate) fn stream(between: &str, ends: &[&str]) -> Answer {
    let many = ends.len();
    let numbered = || (1_u8..).zip(ends);
    let mut text = command_event(many, "running");
    text.extend(numbered().map(|(number, _)| run_event(number, "queued")));
    text.push_str(between);
    text.extend(numbered().map(|(number, end)| run_event(number, end)));
    let good = ends.iter().all(|end| *end == "exited 0");
    text.push_str(&command_event(
        many,
        if good { "succeeded" } else { "failed" },
    ));
    Answer::Stream(EVENTS, text)
}

/// A gateway on which a command comes to these ends.
pub(crate) fn ending(between: &str, ends: &[&str]) -> Shell {
    Shell::answering([
        resolved(u8::try_from(ends.len()).unwrap()),
        json(201, command(ends.len(), "running")),
        stream(between, ends),
    ])
}

pub(crate) fn body(asked: &Asked) -> serde_json::Value {
    serde_json::from_str(&asked.body).unwrap()
}
