//! Refusals as the gateway words them.
//!
//! Code and "come back in" decide what an agent does next, so they are part of the
//! decision and stand here; the text is for the person who reads the agent's status
//! and says what to do.

use std::time::Duration;

use model::Timestamp;
use protocol::v1::{Refusal, RefusalCode};

/// Somebody must decide before this host can come back.
pub const LONG: Duration = Duration::from_secs(300);
/// A wrong token does not become right by asking again soon.
pub const ASK_AGAIN: Duration = Duration::from_secs(60);
/// A step of a longer exchange that failed; the other end has others to do first.
pub const SHORTLY: Duration = Duration::from_secs(5);
/// A store that hiccups, a race that was lost.
pub const SOON: Duration = Duration::from_secs(2);
/// A reconnect that follows from a decision.
pub const AT_ONCE: Duration = Duration::from_millis(100);

/// A refusal with the gateway's time, so that a host can tell a wrong clock.
pub fn refusal(
    code: RefusalCode,
    message: impl Into<String>,
    retry_after: Duration,
    now: Timestamp,
) -> Refusal {
    Refusal {
        code: code.into(),
        message: message.into(),
        retry_after_ms: u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX),
        server_time_ms: now.as_millis(),
    }
}

/// The host left the fleet.
pub fn retired(now: Timestamp) -> Refusal {
    let text = "this host was retired; to bring it back, reset the agent and join with a new token";
    refusal(RefusalCode::HostRetired, text, LONG, now)
}

/// Another identity of this host is in force.
pub fn superseded(now: Timestamp) -> Refusal {
    let text = "another machine holds this host's identity by an operator's decision; reset this agent and join again if it should be a host of its own";
    refusal(RefusalCode::Superseded, text, LONG, now)
}

/// Agent and gateway have no version of the messages in common.
pub fn version(retry_after: Duration, now: Timestamp) -> Refusal {
    let text = "agent and gateway have no protocol version in common; upgrade the older one";
    refusal(RefusalCode::VersionUnsupported, text, retry_after, now)
}

/// The store took no change.
pub fn cannot_store(now: Timestamp) -> Refusal {
    let text = "the gateway cannot store this at the moment";
    refusal(RefusalCode::Unavailable, text, SOON, now)
}

/// Something changed under the gateway's hands.
pub fn try_again(retry_after: Duration, now: Timestamp) -> Refusal {
    refusal(RefusalCode::Unavailable, "try again", retry_after, now)
}
