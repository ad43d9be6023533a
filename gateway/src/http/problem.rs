//! Situations as HTTP problems. The only place where the two meet.

use api::{Problem, ProblemCode};
use axum::body::Body;
use axum::http::header::{
    CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderMap, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{Response, StatusCode};
use model::ids::RequestId;

use crate::error::Error;

/// The answer to a request that ended in `error`.
pub fn respond(error: &Error, request_id: Option<RequestId>) -> Response<Body> {
    let problem = Problem {
        field: error.field.map(str::to_owned),
        retry_after_ms: error
            .retry_after
            .map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        approval: error.approval,
        request_id,
        ..Problem::new(error.code, error.detail.clone())
    };
    let bytes = serde_json::to_vec(&problem).expect("a problem is plain text and numbers");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() =
        StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    harden(headers);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if error.code == ProblemCode::Unauthenticated {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=\"loopback\""),
        );
    }
    if let Some(after) = error.retry_after {
        // Whole seconds, rounded up: nobody should come too early.
        headers.insert(
            RETRY_AFTER,
            HeaderValue::from(after.as_millis().div_ceil(1000).max(1) as u64),
        );
    }
    response
}

/// What every answer tells browsers: it is what it says it is, and nothing in it is to be run,
/// framed or told to others. Answers hold names that hosts and people chose.
pub fn harden(headers: &mut HeaderMap) {
    let fields = [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fields {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
