//! What a foreign web page can make a browser send here, and what of it is let in.
//!
//! Nothing is authorised by being in a browser: keys travel in a field that no page can add without
//! being asked first, and nobody is told that they may. What a page *can* do is send plain requests
//! and open WebSockets blindly, and, where its own name leads to our address (DNS rebinding), read
//! what everybody may read. Neither is of use to anybody, so both are refused before a handler runs:
//!
//! * a request whose `Origin` is neither the public URL nor the host it is sent to;
//! * on the plain door, a `Host` that is not ours. There is no certificate there that a browser
//!   could hold against the name; over TLS it does so itself. Addresses are fine: no name leads to
//!   them. A trusted proxy says what it likes.

use std::net::IpAddr;

use api::ProblemCode;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, Request};

use crate::config::PublicUrl;
use crate::error::Error;

/// How a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The client checked our name.
    Encrypted,
    /// It did not.
    Plain,
    /// A proxy of the operator's did whatever it does.
    Proxied,
}

/// Why a browser's request is not answered.
pub(super) fn refusal<B>(
    request: &Request<B>,
    way: Way,
    public: Option<&PublicUrl>,
) -> Option<Error> {
    let authority = request
        .uri()
        .authority()
        .map(|authority| authority.as_str());
    let named = || only(request.headers(), HOST)?.to_str().ok();
    let authority = authority.or_else(named);
    if let Some(authority) = authority
        && way == Way::Plain
        && !is_ours(authority, public)
    {
        let detail = "the request is for a host of another name; set `public_url` to the name that \
                      people use, or call it by its address";
        return Some(Error::new(ProblemCode::Misdirected, detail));
    }
    if !request.headers().contains_key(ORIGIN) {
        return None;
    }
    let origin = only(request.headers(), ORIGIN).and_then(|value| value.to_str().ok());
    let welcome = origin.is_some_and(|origin| {
        let same = ["https://", "http://"].iter().any(|scheme| {
            let page = strip(origin, scheme);
            page.is_some()
                && page.map(str::to_ascii_lowercase) == authority.map(str::to_ascii_lowercase)
        });
        same || public.is_some_and(|public| public.origin().eq_ignore_ascii_case(origin))
    });
    if welcome {
        return None;
    }
    let detail = "web pages of other origins are not served; call the API from a program";
    Some(Error::new(ProblemCode::ForeignOrigin, detail))
}

/// The value of a field that must not be there twice.
fn only(headers: &HeaderMap, name: axum::http::HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).iter();
    values.next().filter(|_| values.next().is_none())
}

/// Whether no stranger's name can be in `authority`.
fn is_ours(authority: &str, public: Option<&PublicUrl>) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    address.unwrap_or(&host).parse::<IpAddr>().is_ok()
        || host == "localhost"
        || host.ends_with(".localhost")
        || public.is_some_and(|public| public.host().eq_ignore_ascii_case(&host))
}

fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let head = text.get(..prefix.len())?;
    head.eq_ignore_ascii_case(prefix)
        .then(|| &text[prefix.len()..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(way: Way, host: &str, origins: &[&str]) -> Option<&'static str> {
        let mut request = Request::get("/v1/health").header(HOST, host);
        for origin in origins {
            request = request.header(ORIGIN, *origin);
        }
        let public = "https://gateway.example.com".parse().unwrap();
        let error = refusal(&request.body(()).unwrap(), way, Some(&public));
        error.map(|error| error.code.as_str())
    }

    #[test]
    fn abuse_25_a_page_of_another_origin_gets_no_answer() {
        for (host, origins, expected) in [
            ("gateway.example.com", &[][..], None),
            (
                "gateway.example.com",
                &["https://gateway.example.com"],
                None,
            ),
            (
                "gateway.example.com",
                &["HTTPS://Gateway.Example.com"],
                None,
            ),
            ("127.0.0.1:8443", &["https://127.0.0.1:8443"], None),
            ("localhost:8443", &["https://localhost:8443"], None),
            // A proxy may call us by another name than people do.
            ("upstream:8080", &["https://gateway.example.com"], None),
            (
                "gateway.example.com",
                &["https://evil.example"],
                Some("foreign_origin"),
            ),
            (
                "gateway.example.com",
                &["https://gateway.example.com.evil.example"],
                Some("foreign_origin"),
            ),
            (
                "gateway.example.com",
                &["https://gateway.example.com:444"],
                Some("foreign_origin"),
            ),
            (
                "gateway.example.com",
                &["https://evil.example/https://gateway.example.com"],
                Some("foreign_origin"),
            ),
            ("gateway.example.com", &["null"], Some("foreign_origin")),
            ("gateway.example.com", &[""], Some("foreign_origin")),
            (
                "gateway.example.com",
                &["gateway.example.com"],
                Some("foreign_origin"),
            ),
            (
                "localhost:8443",
                &["https://localhost:3000"],
                Some("foreign_origin"),
            ),
            (
                "gateway.example.com",
                &["https://gateway.example.com", "https://evil.example"],
                Some("foreign_origin"),
            ),
        ] {
            let judged = judge(Way::Encrypted, host, origins);
            assert_eq!(judged, expected, "{host} {origins:?}");
        }
    }

    #[test]
    fn abuse_25_a_name_that_was_bent_to_our_address_gets_no_answer_in_the_clear() {
        for (host, expected) in [
            ("localhost:8080", None),
            ("LOCALHOST", None),
            ("gateway.localhost:8080", None),
            ("127.0.0.1:8080", None),
            ("[::1]:8080", None),
            ("[::1]", None),
            ("gateway.example.com", None),
            ("gateway.example.com.:8080", None),
            ("evil.example", Some("misdirected")),
            ("evil.example:8080", Some("misdirected")),
            ("127.0.0.1.evil.example", Some("misdirected")),
            ("localhost.evil.example", Some("misdirected")),
            ("notlocalhost", Some("misdirected")),
            ("", Some("misdirected")),
            ("0x7f000001", Some("misdirected")),
        ] {
            assert_eq!(judge(Way::Plain, host, &[]), expected, "{host}");
            assert_eq!(judge(Way::Encrypted, host, &[]), None, "{host}");
            assert_eq!(judge(Way::Proxied, host, &[]), None, "{host}");
        }
        // Its own page is of its own origin, so that only the name gives it away.
        let page = judge(
            Way::Plain,
            "evil.example:8080",
            &["http://evil.example:8080"],
        );
        assert_eq!(page, Some("misdirected"));
    }
}
