//! What an agent decides, and nothing it does.
//!
//! [`Agent`] is a state machine without sockets, disk, clock or randomness: it takes
//! an [`Event`], the time and a seed for its dice, and answers with [`Action`]s. The
//! crate `agent` performs them and reports back as further events. So hours of
//! network weather are tested in milliseconds, and a property test can drive every
//! order of events that a real network would produce once a year.
//!
//! In reading order:
//! * [`io`]: the events and actions, the whole face of the machine;
//! * [`agent`]: who is tried when, and what an answer means;
//! * `race`: the ladder, one attempt over both rungs;
//! * `session`: one link that the gateway has welcomed;
//! * [`backoff`], [`refusal`]: how long to wait, after what;
//! * [`bounds`]: how long a host stays away, at most;
//! * [`held`]: the counter of an identity that replaces another one;
//! * [`runs`]: whether a command may be started here, and what of its output is hidden;
//! * [`facts`]: parsers of what the kernel says about a host;
//! * [`metrics`]: what a host measures, as text for Prometheus;
//! * [`exporter`]: other programs on the host that measure, and how they are asked;
//! * [`forward`]: what may be reached through the host;
//! * [`diagnose`]: what a diagnosis shows, and what it does not.

pub mod agent;
pub mod backoff;
pub mod bounds;
pub mod diagnose;
pub mod exporter;
pub mod facts;
pub mod forward;
pub mod held;
pub mod io;
pub mod metrics;
mod race;
pub mod refusal;
pub mod runs;
mod session;
pub mod time;

pub use agent::{Agent, Standing, Waiting};
pub use io::{Action, Conn, DialFailure, Event, Identity, KeyChoice, Purpose, Rung};
pub use race::DIAL_LIMIT;
pub use session::KEEP_ALIVE;
pub use time::{Dice, Mono, Now};
