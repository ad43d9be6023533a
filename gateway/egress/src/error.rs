//! What goes wrong, in words that stay the same.
//!
//! No text here contains a path, a query, a header or a body: those may hold secrets. What a
//! server says of itself (in a certificate, say) is cleaned and cut.

use plugin_host::ports::{ErrorKind, GuestError};

use crate::audit::Progress;

/// The codes of errors, for programs and for documents.
pub mod code {
    /// The URL makes no sense, or could be read in two ways.
    pub const URL_INVALID: &str = "http.url_invalid";
    /// Without TLS, where no rule has `plain`.
    pub const SCHEME_NOT_GRANTED: &str = "http.scheme_not_granted";
    /// No rule has the host.
    pub const HOST_NOT_GRANTED: &str = "http.host_not_granted";
    /// No rule with the host has the port.
    pub const PORT_NOT_GRANTED: &str = "http.port_not_granted";
    /// The host's addresses are in no network of the rule.
    pub const NETWORK_NOT_GRANTED: &str = "http.network_not_granted";
    /// No rule with the host has the TLS profile.
    pub const TLS_PROFILE_NOT_GRANTED: &str = "http.tls_profile_not_granted";
    /// No rule with the host has the secret.
    pub const SECRET_NOT_GRANTED: &str = "http.secret_not_granted";
    /// The route does not exist.
    pub const ROUTE_UNSUPPORTED: &str = "http.route_unsupported";
    /// A method that no plugin may use.
    pub const METHOD_NOT_ALLOWED: &str = "http.method_not_allowed";
    /// A header that the gateway sets itself.
    pub const HEADER_NOT_ALLOWED: &str = "http.header_not_allowed";
    /// A header that makes no sense.
    pub const HEADER_INVALID: &str = "http.header_invalid";
    /// More than 4 MiB to send.
    pub const BODY_TOO_LARGE: &str = "http.body_too_large";
    /// A credential does not fit where it is to go.
    pub const PLACEMENT_INVALID: &str = "http.placement_invalid";
    /// The grant's TLS profile cannot be used.
    pub const TLS_PROFILE_INVALID: &str = "http.tls_profile_invalid";
    /// The name has no address.
    pub const NAME_NOT_RESOLVED: &str = "http.name_not_resolved";
    /// Nothing accepts a connection.
    pub const CONNECT_FAILED: &str = "http.connect_failed";
    /// TLS was not agreed on.
    pub const TLS_FAILED: &str = "http.tls_failed";
    /// The server did not prove itself.
    pub const TLS_UNTRUSTED: &str = "http.tls_untrusted";
    /// The connection ended before the answer did.
    pub const CONNECTION_LOST: &str = "http.connection_lost";
    /// Too slow.
    pub const TIMEOUT: &str = "http.timeout";
    /// As many requests as allowed are at this server already.
    pub const TARGET_SATURATED: &str = "http.target_saturated";
    /// The answer is not HTTP.
    pub const RESPONSE_MALFORMED: &str = "http.response_malformed";
    /// Too many or too long headers.
    pub const RESPONSE_HEAD_TOO_LARGE: &str = "http.response_head_too_large";
    /// The body is longer than asked for.
    pub const RESPONSE_TOO_LARGE: &str = "http.response_too_large";
    /// The call ended before the request did.
    pub const ABANDONED: &str = "http.abandoned";
    /// Not `host:port`.
    pub const ENDPOINT_INVALID: &str = "datagram.endpoint_invalid";
    /// No rule has the peer's address and port.
    pub const PEER_NOT_GRANTED: &str = "datagram.peer_not_granted";
    /// Longer than 1,472 bytes.
    pub const DATAGRAM_TOO_LONG: &str = "datagram.too_long";
    /// The peer's name has no address.
    pub const PEER_NOT_RESOLVED: &str = "datagram.name_not_resolved";
    /// The socket could not be used.
    pub const DATAGRAM_FAILED: &str = "datagram.failed";
    /// No datagram came.
    pub const DATAGRAM_TIMEOUT: &str = "datagram.timeout";
    /// The route does not exist.
    pub const DATAGRAM_ROUTE_UNSUPPORTED: &str = "datagram.route_unsupported";
    /// The grant, or the rule that covers the rest, does not have the route.
    pub const ROUTE_NOT_GRANTED: &str = "route.not_granted";
    /// No host of the route is linked.
    pub const ROUTE_NOT_LINKED: &str = "route.not_linked";
    /// The host's owner does not let this be reached through it.
    pub const ROUTE_REFUSED_BY_HOST: &str = "route.refused_by_host";
    /// The host's agent is too old.
    pub const ROUTE_UNSUPPORTED_BY_AGENT: &str = "route.unsupported_by_agent";
    /// The target's addresses, as the host sees them, are in no network of the rule.
    pub const ROUTE_NETWORK_NOT_GRANTED: &str = "route.network_not_granted";
    /// The host serves as many as it does at a time.
    pub const ROUTE_BUSY: &str = "route.busy";
    /// The host knows no address of the name.
    pub const ROUTE_NAME_NOT_RESOLVED: &str = "route.name_not_resolved";
    /// Nothing accepts a connection from the host.
    pub const ROUTE_CONNECT_FAILED: &str = "route.connect_failed";
    /// The host, or the target there, did not answer in time.
    pub const ROUTE_TIMEOUT: &str = "route.timeout";
    /// Not a hardware address.
    pub const MAC_INVALID: &str = "datagram.mac_invalid";

    /// All of them.
    pub const ALL: &[&str] = &[
        URL_INVALID,
        SCHEME_NOT_GRANTED,
        HOST_NOT_GRANTED,
        PORT_NOT_GRANTED,
        NETWORK_NOT_GRANTED,
        TLS_PROFILE_NOT_GRANTED,
        SECRET_NOT_GRANTED,
        ROUTE_UNSUPPORTED,
        METHOD_NOT_ALLOWED,
        HEADER_NOT_ALLOWED,
        HEADER_INVALID,
        BODY_TOO_LARGE,
        PLACEMENT_INVALID,
        TLS_PROFILE_INVALID,
        NAME_NOT_RESOLVED,
        CONNECT_FAILED,
        TLS_FAILED,
        TLS_UNTRUSTED,
        CONNECTION_LOST,
        TIMEOUT,
        TARGET_SATURATED,
        RESPONSE_MALFORMED,
        RESPONSE_HEAD_TOO_LARGE,
        RESPONSE_TOO_LARGE,
        ABANDONED,
        ENDPOINT_INVALID,
        PEER_NOT_GRANTED,
        DATAGRAM_TOO_LONG,
        PEER_NOT_RESOLVED,
        DATAGRAM_FAILED,
        DATAGRAM_TIMEOUT,
        DATAGRAM_ROUTE_UNSUPPORTED,
        MAC_INVALID,
        ROUTE_NOT_GRANTED,
        ROUTE_NOT_LINKED,
        ROUTE_REFUSED_BY_HOST,
        ROUTE_UNSUPPORTED_BY_AGENT,
        ROUTE_NETWORK_NOT_GRANTED,
        ROUTE_BUSY,
        ROUTE_NAME_NOT_RESOLVED,
        ROUTE_CONNECT_FAILED,
        ROUTE_TIMEOUT,
    ];
}

/// The grant does not cover it.
pub(crate) fn denied(code: &str, message: impl Into<String>) -> GuestError {
    GuestError::new(ErrorKind::Denied, code, message)
}

/// It makes no sense.
pub(crate) fn invalid(code: &str, message: impl Into<String>) -> GuestError {
    GuestError::new(ErrorKind::Invalid, code, message)
}

/// Something happened on the way: whether the request may have been acted on depends on whether
/// any of it was sent.
pub(crate) fn failed(
    kind: ErrorKind,
    code: &str,
    message: impl Into<String>,
    progress: &Progress,
) -> GuestError {
    let mut error = GuestError::new(kind, code, message);
    error.outcome_unknown = progress.bytes_out() > 0;
    error
}

/// A stranger's text, for a person: one line of printable ASCII, cut.
pub(crate) fn cleaned(text: &str) -> String {
    text.chars()
        .map(|char| {
            if (' '..='~').contains(&char) {
                char
            } else {
                '?'
            }
        })
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_documents() {
        let document = include_str!("../../../docs/egress.md");
        for code in code::ALL {
            assert!(document.contains(&format!("| `{code}` |")), "{code}");
        }
    }

    #[test]
    fn a_strangers_text_is_one_line() {
        assert_eq!(cleaned("a\u{1b}[31m\r\nb\u{e9}"), "a?[31m??b?");
        assert_eq!(cleaned(&"x".repeat(500)).len(), 200);
    }
}
