//! Methods and headers that a plugin may send.
//!
//! What frames a message or speaks to proxies is the gateway's alone: with `Content-Length`,
//! `Transfer-Encoding` or a line break in its hands, a plugin could write a second request into
//! the first, past the check of whom it speaks with.

use hyper::header::{HeaderName, HeaderValue};
use hyper::{HeaderMap, Method};
use plugin_host::ports::GuestError;

use crate::error::{code, denied, invalid};

/// Most headers of a request.
const MAX_HEADERS: usize = 64;
/// Most bytes of a request's headers, as a plugin gives them.
const MAX_HEAD: usize = 16 << 10;

/// `CONNECT` and `TRACE` make a server something else than a server; what else there is, nobody
/// has asked for yet.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::OPTIONS,
];

const FORBIDDEN: [&str; 11] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "upgrade",
    "te",
    "trailer",
    // Would have the server wait for us, and us for the server.
    "expect",
    "http2-settings",
    "via",
];

/// Reads a method.
pub(crate) fn method(text: &str) -> Result<Method, GuestError> {
    METHODS
        .into_iter()
        .find(|method| method.as_str() == text)
        .ok_or_else(|| {
            denied(
                code::METHOD_NOT_ALLOWED,
                "the method is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
            )
        })
}

/// Reads the name of a header that a plugin may set.
pub(crate) fn name(text: &str) -> Result<HeaderName, GuestError> {
    let name = HeaderName::from_bytes(text.as_bytes()).map_err(|_| {
        invalid(
            code::HEADER_INVALID,
            "a header's name contains what no header's name may",
        )
    })?;
    if FORBIDDEN.contains(&name.as_str()) || name.as_str().starts_with("proxy-") {
        return Err(denied(
            code::HEADER_NOT_ALLOWED,
            format!("the header {name} is set by the gateway alone"),
        ));
    }
    Ok(name)
}

/// Reads a header's value.
pub(crate) fn value(bytes: &[u8]) -> Option<HeaderValue> {
    // Blanks at the ends are no part of a value to any receiver; with a secret they are a slip.
    let blank = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_whitespace);
    if blank(bytes.first()) || blank(bytes.last()) {
        return None;
    }
    HeaderValue::from_bytes(bytes).ok()
}

/// Reads the headers of a request.
pub(crate) fn headers(given: &[(String, String)]) -> Result<HeaderMap, GuestError> {
    let size: usize = given
        .iter()
        .map(|(name, value)| name.len() + value.len())
        .sum();
    if given.len() > MAX_HEADERS || size > MAX_HEAD {
        return Err(invalid(
            code::HEADER_INVALID,
            format!("the headers are more than {MAX_HEADERS} or longer than {MAX_HEAD} bytes"),
        ));
    }
    let mut headers = HeaderMap::new();
    for (given_name, given_value) in given {
        let name = name(given_name)?;
        let value = value(given_value.as_bytes()).ok_or_else(|| {
            invalid(
                code::HEADER_INVALID,
                format!("the value of the header {name} contains a control character or begins or ends with a blank"),
            )
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, value: &str) -> Result<HeaderMap, String> {
        headers(&[(name.into(), value.into())]).map_err(|error| error.code)
    }

    #[test]
    fn what_frames_a_message_is_not_a_plugins() {
        for name in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "CONNECTION",
            "Proxy-Authorization",
            "proxy-connection",
            "Upgrade",
            "TE",
            "Trailer",
            "Expect",
        ] {
            assert_eq!(
                one(name, "x"),
                Err(code::HEADER_NOT_ALLOWED.into()),
                "{name}"
            );
        }
        assert!(one("X-Request-Id", "a b").is_ok());
    }

    #[test]
    fn a_line_break_does_not_get_through() {
        for (name, value) in [
            ("x", "a\r\nHost: b"),
            ("x", "a\n"),
            ("x", "a\0"),
            ("x", " a"),
            ("x\r\ny", "a"),
            ("x y", "a"),
            ("x:", "a"),
            ("", "a"),
        ] {
            assert_eq!(
                one(name, value),
                Err(code::HEADER_INVALID.into()),
                "{name:?} {value:?}"
            );
        }
        let many = vec![("x".to_owned(), "y".to_owned()); MAX_HEADERS + 1];
        assert!(headers(&many).is_err());
        assert!(one("x", &"y".repeat(MAX_HEAD)).is_err());
    }

    #[test]
    fn methods_are_those_of_the_list_as_they_are_written() {
        assert_eq!(
            method("PATCH").map_err(|error| error.code),
            Ok(Method::PATCH)
        );
        for text in [
            "CONNECT",
            "TRACE",
            "get",
            "GET ",
            "PRI",
            "",
            "GET / HTTP/1.1\r\n",
        ] {
            assert_eq!(
                method(text).map_err(|error| error.code),
                Err(code::METHOD_NOT_ALLOWED.into()),
                "{text:?}"
            );
        }
    }
}
