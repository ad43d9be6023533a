//! Commands: which run goes to which host when, and what is known of each.
//!
//! [`fan_out`] reads how a command spreads: batches, canaries, when to stop. [`run`]
//! is one command on one host, and what reports, timers and operators do to it, [`active`]
//! a command that is not finished. [`dispatch`] holds every command that is not finished and decides what to send.
//!
//! Two rules hold everything together:
//!
//! * *Written, then sent.* A run is `sending` in the store before its request leaves,
//!   and final in the store before the host hears that its result was taken. Whatever
//!   crashes in between, the next look finds out by asking again, because
//! * *asking again is always right.* The host's journal starts a run at most once. A
//!   run that must not start any more is asked after without its specification, and
//!   the host then promises that it never will.

pub mod active;
pub mod dispatch;
pub mod fan_out;
pub mod run;
