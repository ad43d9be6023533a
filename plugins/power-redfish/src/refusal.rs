//! What a controller says when it does not do something.
//!
//! The status comes first, and where it is vague the message id of the standard registry, whose
//! prefix and version differ from maker to maker (`Base.1.8.ActionNotSupported`,
//! `iLO.2.14.InvalidOperationForSystemState`): the last word is what counts.

use loopback_plugin_sdk::http::Response;
use loopback_plugin_sdk::{Error, ErrorKind};
use serde_json::Value;

use crate::connection::SETTLING_MS;

/// The answer, if it is good; else what it means.
pub(crate) fn judge(answer: Response, now_ms: u64) -> Result<Response, Error> {
    let status = answer.status;
    let said = said(&answer.body);
    let mut error = match answer.success("redfish", now_ms) {
        Ok(answer) => return Ok(answer),
        Err(error) => error,
    };
    match status {
        409 | 412 => {
            error.kind = ErrorKind::Busy;
            error.retry_after_ms = Some(SETTLING_MS);
        }
        405 | 501 => error.kind = ErrorKind::Unsupported,
        _ => {}
    }
    let id = said.iter().find_map(|(id, _)| known(id));
    if let Some((code, kind)) = id.filter(|_| matches!(status, 400 | 403 | 409 | 422 | 503)) {
        error.code = format!("redfish.{code}");
        error.kind = kind;
        error.retry_after_ms = match kind {
            ErrorKind::Busy => error.retry_after_ms.or(Some(SETTLING_MS)),
            _ => None,
        };
    }
    if let Some((_, message)) = said.iter().find(|(_, message)| !message.is_empty()) {
        error.message = format!("{}: {message}", error.message);
        error.details.retain(|detail| detail.key != "answer");
    }
    Err(error)
}

/// Message ids and messages.
fn said(body: &[u8]) -> Vec<(String, String)> {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    messages(&body["error"])
}

/// Those of an error, or of a task.
pub(crate) fn messages(within: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| {
        let text = value.as_str().unwrap_or_default().trim();
        text.chars().take(300).collect::<String>()
    };
    let list = [&within["@Message.ExtendedInfo"], &within["Messages"]];
    let list = list
        .into_iter()
        .filter_map(Value::as_array)
        .flatten()
        .take(10);
    let mut found: Vec<_> = list
        .map(|entry| (text(&entry["MessageId"]), text(&entry["Message"])))
        .collect();
    found.push((text(&within["code"]), text(&within["message"])));
    found
}

fn known(id: &str) -> Option<(&'static str, ErrorKind)> {
    Some(match id.rsplit('.').next().unwrap_or_default() {
        "ActionNotSupported"
        | "ActionParameterNotSupported"
        | "ActionParameterValueNotInList"
        | "ActionParameterValueFormatError"
        | "PropertyNotWritable"
        | "PropertyValueNotInList"
        | "PropertyUnknown" => ("not_supported", ErrorKind::Unsupported),
        "InvalidOperationForSystemState" | "UnableToModifyDuringSystemPOST" => {
            ("wrong_state", ErrorKind::Busy)
        }
        "ResourceInUse" | "ServiceTemporarilyUnavailable" | "ServiceInUnknownState" => {
            ("settling", ErrorKind::Busy)
        }
        "SessionLimitExceeded" => ("session_limit", ErrorKind::Busy),
        "InsufficientPrivilege" => ("privilege", ErrorKind::Forbidden),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(status: u16, body: &str) -> Error {
        let answer = Response {
            status,
            headers: vec![("retry-after".into(), "7".into())],
            body: body.as_bytes().to_vec(),
        };
        judge(answer, 0).unwrap_err()
    }

    #[test]
    fn the_status_decides_and_where_it_is_vague_the_message() {
        let with = |id: &str| {
            format!(
                r#"{{"error":{{"@Message.ExtendedInfo":[{{"MessageId":"{id}","Message":"so"}}]}}}}"#
            )
        };
        for (status, id, kind) in [
            (400, "Base.1.8.GeneralError", ErrorKind::Invalid),
            (
                400,
                "Base.1.8.ActionParameterValueNotInList",
                ErrorKind::Unsupported,
            ),
            (
                400,
                "iLO.2.14.InvalidOperationForSystemState",
                ErrorKind::Busy,
            ),
            (400, "Base.1.0.SessionLimitExceeded", ErrorKind::Busy),
            (401, "Base.1.8.ActionNotSupported", ErrorKind::Auth),
            (403, "Base.1.8.InsufficientPrivilege", ErrorKind::Forbidden),
            (404, "Base.1.8.ResourceMissingAtURI", ErrorKind::NotFound),
            (405, "", ErrorKind::Unsupported),
            (409, "", ErrorKind::Busy),
            (429, "", ErrorKind::Throttled),
            (500, "Base.1.8.InternalError", ErrorKind::Upstream),
            (501, "", ErrorKind::Unsupported),
            (
                503,
                "Base.1.8.ServiceTemporarilyUnavailable",
                ErrorKind::Busy,
            ),
        ] {
            let error = judged(status, &with(id));
            assert_eq!(error.kind, kind, "{status} {id}");
            assert!(error.message.ends_with(": so"), "{}", error.message);
        }
        assert_eq!(judged(503, "").retry_after_ms, Some(7_000));
        assert_eq!(judged(409, "").retry_after_ms, Some(SETTLING_MS));
    }

    #[test]
    fn a_body_of_nonsense_is_shown_in_part() {
        let error = judged(500, "<html>oops");
        assert_eq!(error.kind, ErrorKind::Upstream);
        assert_eq!(error.details[0].value, "<html>oops");
    }
}
