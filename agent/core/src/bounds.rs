//! How long a host stays away, at most, once nothing keeps it.
//!
//! From the moment from which at least one rung leads to a gateway that accepts the
//! host, and stays so, to the welcome:
//!
//! ```text
//! reconnect(b, r) = notice(b) + hold + max(wait, r) + race
//!
//! notice(b) = 3 b + 5 s   a link that is dead on the other side: two beats after the
//!                         first that got no answer, or the floor under fast beats
//! hold      = 12 s + 20 s a race that began before that moment and is lost: its dial
//!                         and its join run into their limits
//! wait      = 30 s        the longest wait after a failure on the way
//! r                       or what the gateway asked for when it said no, a tenth more
//! race      = 12 s + 2 * 6 s + 20 s
//!                         the rung that works is the second: the first runs into its
//!                         limit, each of two joins may be given up for the other rung
//!                         once, and the welcome may take the whole limit for a join
//! ```
//!
//! The longest waits that a person must end (a bad token, a retired host) are not in
//! it: there the gateway does not accept the host. A host that was *rejected* for a
//! reason that has passed waits up to [`REFUSED`] more.

use std::time::Duration;

use crate::backoff::{NETWORK, REFUSED};
use crate::race::{DIAL_LIMIT, JOIN_LIMIT, JOIN_LIMIT_ALTERNATIVE};
use crate::session::DEAD_FLOOR;

/// The formula above. `beat` is the heartbeat's interval, `retry_after` the longest
/// "come back in" that the gateway may still have to say.
pub fn reconnect(beat: Duration, retry_after: Duration) -> Duration {
    let notice = beat * 3 + DEAD_FLOOR;
    let hold = DIAL_LIMIT + JOIN_LIMIT;
    let wait = NETWORK.last.max(retry_after + retry_after / 10);
    let race = DIAL_LIMIT + JOIN_LIMIT_ALTERNATIVE * 2 + JOIN_LIMIT;
    notice + hold + wait + race
}

/// The same for a host that was told by a person's decision, or by a clock, that it is
/// not accepted, and is accepted now.
pub fn reconnect_after_refusal(beat: Duration, retry_after: Duration) -> Duration {
    reconnect(beat, retry_after) + REFUSED.last.max(retry_after + retry_after / 10)
}
