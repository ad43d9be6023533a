//! RFC 9457 problems: `application/problem+json` with a stable code.
//!
//! The code is the promise; programs switch on it. Title and status follow from
//! the code. The detail is for the person, and says what to do.

use model::ids::{ApprovalId, RequestId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A refused or failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// `urn:loopback:problem:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The situation in a few words; the same for every problem of this code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// Stable code. Readers must expect codes that they do not know.
    pub code: String,
    /// What happened this time and what to do about it.
    pub detail: String,
    /// The field of the request that is to blame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Try again after this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// What waits for approval; repeat the same request once it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<ApprovalId>,
    /// Quote this to your operator; it is in the gateway's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<RequestId>,
}

impl Problem {
    /// A problem with nothing but code and detail.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("urn:loopback:problem:{}", code.as_str()),
            title: code.title().to_owned(),
            status: code.status(),
            code: code.as_str().to_owned(),
            detail: detail.into(),
            field: None,
            retry_after_ms: None,
            approval: None,
            request_id: None,
        }
    }
}

macro_rules! problems {
    ($($(#[$doc:meta])* $variant:ident $code:literal $status:literal $title:literal,)*) => {
        /// The stable codes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ProblemCode { $($(#[$doc])* $variant,)* }

        impl ProblemCode {
            /// All codes.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The code as it travels.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $code),* }
            }

            /// The HTTP status it travels with.
            pub fn status(self) -> u16 {
                match self { $(Self::$variant => $status),* }
            }

            /// The situation in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title),* }
            }
        }
    };
}

problems! {
    /// The request cannot be read.
    MalformedRequest "malformed_request" 400 "the request cannot be read",
    /// No credentials, or none that are valid.
    Unauthenticated "unauthenticated" 401 "valid credentials are needed",
    /// The caller may see the thing but not do this.
    Forbidden "forbidden" 403 "the caller lacks a permission",
    /// Somebody tried to give more than they have.
    ExceedsMaker "exceeds_maker" 403 "nobody can give more than they have",
    /// A policy says no.
    PolicyDenied "policy_denied" 403 "a policy does not allow this now",
    /// Somebody else must approve it first.
    ApprovalRequired "approval_required" 403 "somebody else must approve this first",
    /// A web page of another origin made a browser send it.
    ForeignOrigin "foreign_origin" 403 "web pages of other origins are not served",
    /// Absent, or invisible to the caller: the two look the same.
    NotFound "not_found" 404 "there is no such thing",
    /// The host's agent is configured with no such exporter.
    NoSuchExporter "no_such_exporter" 404 "the host has no such exporter",
    /// The path exists, the method does not.
    MethodNotAllowed "method_not_allowed" 405 "this path has other methods",
    /// The thing is not in a state that allows this.
    Conflict "conflict" 409 "the current state does not allow this",
    /// Another thing has this name.
    NameTaken "name_taken" 409 "the name is taken",
    /// The thing still holds others.
    NotEmpty "not_empty" 409 "it still holds other things",
    /// The idempotency key was used for another request.
    IdempotencyMismatch "idempotency_mismatch" 409 "the idempotency key was used for another request",
    /// The same request is being carried out.
    IdempotencyInProgress "idempotency_in_progress" 409 "the same request is being carried out",
    /// The thing existed and is gone for good.
    Gone "gone" 410 "it is gone for good",
    /// The body is larger than allowed.
    BodyTooLarge "body_too_large" 413 "the body is too large",
    /// The body is not JSON.
    UnsupportedMediaType "unsupported_media_type" 415 "the body must be application/json",
    /// It was sent to a host of another name.
    Misdirected "misdirected" 421 "the request is for another host",
    /// No byte of the range asked for exists.
    RangeNotSatisfiable "range_not_satisfiable" 416 "the content ends before the range begins",
    /// A field has a value that is not allowed.
    Invalid "invalid" 422 "a value is not allowed",
    /// A plugin is not signed by a key that is trusted here.
    BadSignature "bad_signature" 422 "the signature is missing or not good",
    /// Too many requests.
    RateLimited "rate_limited" 429 "too many requests",
    /// Header fields are larger than allowed.
    HeadersTooLarge "headers_too_large" 431 "the header fields are too large",
    /// A fault of ours.
    Internal "internal" 500 "the gateway has failed",
    /// An exporter on a host, or the host itself, gave no metrics.
    ExporterFailed "exporter_failed" 502 "the host gave no metrics",
    /// The host has no link at the moment.
    HostNotLinked "host_not_linked" 503 "the host is not connected",
    /// A policy that must be asked does not answer.
    PolicyUnavailable "policy_unavailable" 503 "a policy that must be asked does not answer",
    /// Not now.
    Unavailable "unavailable" 503 "the gateway cannot do this at the moment",
    /// The request took too long.
    Timeout "timeout" 504 "the request took too long",
    /// The disk is full.
    StorageFull "storage_full" 507 "the gateway's storage is full",
    /// The disk of a host is full.
    HostStorageFull "host_storage_full" 507 "the host's storage is full",
}
