//! Work that a controller goes on with: a task monitor answers 202 until it is done, a task says in
//! its page how it is. Controllers give out either as `Location`. Pure.

use loopback_plugin_sdk::http::Response;
use loopback_plugin_sdk::power::{Progress, Step};
use loopback_plugin_sdk::{Error, ErrorKind};
use serde_json::Value;

use crate::place::{Origin, Place};
use crate::refusal;

/// Controllers need some seconds for nearly everything.
const POLL_MS: u32 = 3_000;

/// Not asked less often, whatever is said.
const LONGEST_POLL_MS: u64 = 60_000;

/// Work that is going on, if an answer speaks of some.
pub(crate) fn begun(answer: &Response, origin: &Origin) -> Option<Progress> {
    if answer.status != 202 {
        return None;
    }
    let page: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let location = answer.header("location");
    let named = location.or_else(|| page["TaskMonitor"].as_str());
    let named = named.or_else(|| page["@odata.id"].as_str());
    // What cannot be asked after is confirmed by looking at the machine.
    let place = origin.place(named?).ok()?;
    Some(progress(&place, answer, &page))
}

/// Where a cursor leads.
pub(crate) fn place(cursor: &[u8]) -> Result<Place, Error> {
    let refuse = |_| Error::invalid("redfish.cursor", "the cursor is none of this plugin's");
    let text = std::str::from_utf8(cursor).map_err(|_| refuse(()))?;
    Place::new(text).map_err(|_| refuse(()))
}

/// How it goes on, by what its place answers.
pub(crate) fn step(answer: Response, place: &Place, now_ms: u64) -> Result<Step, Error> {
    let page: Value = match answer.status {
        // A monitor is taken away when it has said its last word; the machine itself is looked at
        // next.
        204 | 404 | 410 => return Ok(Step::Done),
        200..=299 if answer.body.is_empty() => Value::Null,
        // What a monitor answers while it is busy need not be JSON.
        202 => serde_json::from_slice(&answer.body).unwrap_or_default(),
        200..=299 => serde_json::from_slice(&answer.body).map_err(|error| {
            Error::upstream("redfish.not_json", format!("the task is no JSON: {error}"))
        })?,
        // A monitor ends with the status that the action itself would have had.
        400 | 403 | 405 | 409 | 422 | 501 => {
            let mut error = match refusal::judge(answer, now_ms) {
                Ok(_) => return Ok(Step::Done),
                Err(error) => error,
            };
            if error.is_transient() {
                error.kind = ErrorKind::Conflict;
                error.retry_after_ms = None;
            }
            return Err(error);
        }
        _ => {
            refusal::judge(answer, now_ms)?;
            return Ok(Step::Done);
        }
    };
    let state = page["TaskState"].as_str();
    match state {
        Some("Completed") => Ok(Step::Done),
        Some("Exception" | "Killed" | "Cancelled" | "Interrupted") => Err(failed(&page)),
        Some(_) => Ok(Step::Running(progress(place, &answer, &page))),
        None if answer.status == 202 => Ok(Step::Running(progress(place, &answer, &page))),
        None => Ok(Step::Done),
    }
}

fn failed(page: &Value) -> Error {
    let state = page["TaskState"].as_str().unwrap_or_default();
    let said = refusal::messages(page);
    let said = said.iter().map(|(_, message)| message.as_str());
    let said: Vec<_> = said.filter(|message| !message.is_empty()).collect();
    let mut message = format!("the controller's task ended as {state}");
    if let Some(first) = said.first() {
        message = format!("{message}: {first}");
    }
    Error::new(ErrorKind::Conflict, "redfish.task_failed", message)
}

fn progress(place: &Place, answer: &Response, page: &Value) -> Progress {
    let asked = answer.header("retry-after");
    let asked = asked.and_then(|text| text.trim().parse::<u64>().ok());
    let ms = asked.map(|seconds| seconds.saturating_mul(1_000).clamp(1_000, LONGEST_POLL_MS));
    let percent = page["PercentComplete"].as_u64();
    let text = |key: &str| page[key].as_str().map(str::to_owned);
    Progress {
        cursor: place.as_str().as_bytes().to_vec(),
        poll_after_ms: ms.map_or(POLL_MS, |ms| u32::try_from(ms).unwrap_or(POLL_MS)),
        remote_id: text("Id").or_else(|| Some(place.as_str().to_owned())),
        percent: percent.and_then(|percent| u8::try_from(percent.min(100)).ok()),
        message: text("TaskState").unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, headers: &[(&str, &str)], body: &str) -> Response {
        let headers = headers
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Response {
            status,
            headers: headers.collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    fn stepped(status: u16, body: &str) -> Result<Step, Error> {
        let place = Place::new("/redfish/v1/TaskService/TaskMonitors/1").unwrap();
        step(answer(status, &[("retry-after", "9")], body), &place, 0)
    }

    #[test]
    fn an_answer_of_202_is_followed_where_it_leads() {
        let origin = Origin::of("https://bmc.example").unwrap();
        let to = |location: &str| {
            begun(&answer(202, &[("location", location)], ""), &origin).map(|it| it.cursor)
        };
        assert_eq!(
            to("/redfish/v1/Tasks/1"),
            Some(b"/redfish/v1/Tasks/1".to_vec())
        );
        let whole = "https://bmc.example/redfish/v1/Tasks/1";
        assert_eq!(to(whole), Some(b"/redfish/v1/Tasks/1".to_vec()));
        assert_eq!(to("https://elsewhere.example/Tasks/1"), None);
        let page = r#"{"@odata.id":"/redfish/v1/Tasks/2"}"#;
        let begun = begun(&answer(202, &[], page), &origin).unwrap();
        assert_eq!(begun.cursor, b"/redfish/v1/Tasks/2");
    }

    #[test]
    fn a_task_runs_ends_or_fails() {
        let running = |step| matches!(step, Ok(Step::Running(it)) if it.poll_after_ms == 9_000);
        assert!(running(stepped(202, "")));
        assert!(running(stepped(
            200,
            r#"{"TaskState":"Running","PercentComplete":30}"#
        )));
        assert!(running(stepped(202, r#"{"TaskState":"New"}"#)));
        for (status, body) in [(200, r#"{"TaskState":"Completed"}"#), (204, ""), (404, "")] {
            assert!(matches!(stepped(status, body), Ok(Step::Done)), "{status}");
        }
        let page = r#"{"TaskState":"Exception","Messages":[{"Message":"no power"}]}"#;
        let failed = stepped(200, page).unwrap_err();
        assert_eq!(
            (failed.kind, failed.code.as_str()),
            (ErrorKind::Conflict, "redfish.task_failed")
        );
        assert!(failed.message.ends_with("Exception: no power"));
        assert!(!stepped(409, "").unwrap_err().is_transient());
        assert!(stepped(503, "").unwrap_err().is_transient());
        assert_eq!(stepped(401, "").unwrap_err().kind, ErrorKind::Auth);
        assert_eq!(
            stepped(200, r#"{"TaskSt"#).unwrap_err().kind,
            ErrorKind::Upstream
        );
    }

    #[test]
    fn a_cursor_of_nonsense_leads_nowhere() {
        for cursor in [
            &b"\xff"[..],
            b"https://elsewhere.example/",
            b"//x",
            b"",
            b"{}",
        ] {
            assert_eq!(place(cursor).unwrap_err().code, "redfish.cursor");
        }
    }
}
