//! Errors between the contract and [`crate::ports`].

use std::time::Duration;

use model::names::clean;

use crate::contract::base::words::loopback::base::types;
use crate::ports::{ErrorKind, GuestError};

/// What is kept of what a plugin says: as the contract promises, and a little for details.
const MESSAGE_BYTES: usize = 1_024;
const CODE_BYTES: usize = 64;
const DETAILS: usize = 32;
/// The latest that is heard of "not before". Whoever adds it to a time need not fear the end of
/// time, and nothing waits for longer anyway.
const RETRY_AFTER_MOST: Duration = Duration::from_secs(24 * 3600);

/// At most `most` bytes of a text for people, harmless to show.
pub(crate) fn line(text: impl AsRef<str>, most: usize) -> String {
    let mut kept = clean(text.as_ref(), most);
    let mut end = most.min(kept.len());
    while !kept.is_char_boundary(end) {
        end -= 1;
    }
    kept.truncate(end);
    kept
}

/// As a plugin reads it.
pub(crate) fn to_words(error: GuestError) -> types::Error {
    types::Error {
        kind: match error.kind {
            ErrorKind::Invalid => types::ErrorKind::Invalid,
            ErrorKind::Auth => types::ErrorKind::Auth,
            ErrorKind::Forbidden => types::ErrorKind::Forbidden,
            ErrorKind::NotFound => types::ErrorKind::NotFound,
            ErrorKind::Unsupported => types::ErrorKind::Unsupported,
            ErrorKind::Conflict => types::ErrorKind::Conflict,
            ErrorKind::Busy => types::ErrorKind::Busy,
            ErrorKind::Throttled => types::ErrorKind::Throttled,
            ErrorKind::Unreachable => types::ErrorKind::Unreachable,
            ErrorKind::Timeout => types::ErrorKind::Timeout,
            ErrorKind::Upstream => types::ErrorKind::Upstream,
            ErrorKind::Denied => types::ErrorKind::Denied,
            ErrorKind::Cancelled => types::ErrorKind::Cancelled,
            ErrorKind::Internal => types::ErrorKind::Internal,
            ErrorKind::Other => types::ErrorKind::Other,
        },
        code: error.code,
        message: error.message,
        retry_after_ms: error
            .retry_after
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        outcome_unknown: error.outcome_unknown,
        details: error
            .details
            .into_iter()
            .map(|(key, value)| types::Kv { key, value })
            .collect(),
    }
}

/// As a plugin said it, within bounds and harmless to show.
pub(crate) fn from_words(error: types::Error) -> GuestError {
    GuestError {
        kind: match error.kind {
            types::ErrorKind::Invalid => ErrorKind::Invalid,
            types::ErrorKind::Auth => ErrorKind::Auth,
            types::ErrorKind::Forbidden => ErrorKind::Forbidden,
            types::ErrorKind::NotFound => ErrorKind::NotFound,
            types::ErrorKind::Unsupported => ErrorKind::Unsupported,
            types::ErrorKind::Conflict => ErrorKind::Conflict,
            types::ErrorKind::Busy => ErrorKind::Busy,
            types::ErrorKind::Throttled => ErrorKind::Throttled,
            types::ErrorKind::Unreachable => ErrorKind::Unreachable,
            types::ErrorKind::Timeout => ErrorKind::Timeout,
            types::ErrorKind::Upstream => ErrorKind::Upstream,
            types::ErrorKind::Denied => ErrorKind::Denied,
            types::ErrorKind::Cancelled => ErrorKind::Cancelled,
            types::ErrorKind::Internal => ErrorKind::Internal,
            types::ErrorKind::Other => ErrorKind::Other,
        },
        code: code(&error.code),
        message: line(&error.message, MESSAGE_BYTES),
        retry_after: error
            .retry_after_ms
            .map(|after| Duration::from_millis(after).min(RETRY_AFTER_MOST)),
        outcome_unknown: error.outcome_unknown,
        details: error
            .details
            .iter()
            .take(DETAILS)
            .map(|kv| (line(&kv.key, CODE_BYTES), line(&kv.value, MESSAGE_BYTES)))
            .collect(),
    }
}

/// A code that keeps to the contract's alphabet, or the word for one that does not.
fn code(text: &str) -> String {
    let fits = !text.is_empty()
        && text.len() <= CODE_BYTES
        && text.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.".contains(&byte)
        });
    if fits {
        text.to_owned()
    } else {
        "invalid_code".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_plugin_says_is_bounded_and_harmless() {
        let mut error = to_words(GuestError::new(ErrorKind::Upstream, "x.y", "m"));
        error.code = "Bad Code\n".into();
        error.message = format!("\x1b[2J{}", "é".repeat(9_000));
        error.retry_after_ms = Some(u64::MAX);
        let kv = types::Kv {
            key: "k".into(),
            value: "v".into(),
        };
        error.details = vec![kv; 100];
        let heard = from_words(error);
        assert_eq!(heard.code, "invalid_code");
        // In bytes, and no half of the last letter: the escape's place takes three, `[2J` as many.
        assert_eq!(heard.message.len(), MESSAGE_BYTES);
        assert_eq!(line("aé", 2), "a");
        assert_eq!(heard.retry_after, Some(RETRY_AFTER_MOST));
        assert!(!heard.message.contains('\x1b'));
        assert_eq!(heard.details.len(), DETAILS);
    }
}
