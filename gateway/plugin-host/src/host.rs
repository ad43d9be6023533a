//! What the gateway offers to plugins: one implementation of each interface of `loopback:base`.
//!
//! Here are handles, quotas and what a plugin is told; what may be reached, and how, is decided
//! behind the traits of [`crate::ports`]. Each function begins by counting itself, and answers
//! what the plugin may not do as an error that it can read: a trap is for limits only.

mod config;
mod convert;
#[allow(
    dead_code,
    reason = "no kind's world imports it yet; those of power will"
)]
mod datagram;
mod http;
mod log;
mod secrets;
mod sign;
mod state;
mod task;

pub(crate) use convert::{from_words, line, to_words};
#[expect(unreachable_pub, reason = "the generated code exports it again")]
pub use datagram::Channel;

use crate::contract::base::words::loopback::base::types;
use crate::ports::{ErrorKind, GuestError};
use crate::store::CallState;

impl types::Host for CallState {}

/// What a host function answers: traps outside, what the plugin reads within.
type Answer<T> = wasmtime::Result<Result<T, types::Error>>;

impl CallState {
    /// An answer as the plugin reads it: without secrets.
    fn tell<T>(&self, answer: Result<T, GuestError>) -> Answer<T> {
        Ok(answer.map_err(|error| to_words(scrubbed(error, &self.scrubber))))
    }
}

/// An error without values of secrets.
pub(crate) fn scrubbed(mut error: GuestError, scrubber: &crate::scrub::Scrubber) -> GuestError {
    if scrubber.is_empty() {
        return error;
    }
    error.code = scrubber.text(error.code);
    error.message = scrubber.text(error.message);
    for (key, value) in &mut error.details {
        *key = scrubber.text(std::mem::take(key));
        *value = scrubber.text(std::mem::take(value));
    }
    error
}

/// What a plugin says, without values of secrets.
pub(crate) fn words_scrubbed(
    mut error: types::Error,
    scrubber: &crate::scrub::Scrubber,
) -> types::Error {
    if scrubber.is_empty() {
        return error;
    }
    error.code = scrubber.text(error.code);
    error.message = scrubber.text(error.message);
    for kv in &mut error.details {
        kv.key = scrubber.text(std::mem::take(&mut kv.key));
        kv.value = scrubber.text(std::mem::take(&mut kv.value));
    }
    error
}

fn denied(code: &str, message: impl Into<String>) -> GuestError {
    GuestError::new(ErrorKind::Denied, code, message)
}

fn invalid(code: &str, message: impl Into<String>) -> GuestError {
    GuestError::new(ErrorKind::Invalid, code, message)
}
