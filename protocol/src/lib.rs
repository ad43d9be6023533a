//! What gateway and agent say to each other, and nothing about how it travels.
//!
//! Messages are protobuf: numbered fields that either side may not know yet, so
//! that an agent and a gateway two releases apart still talk. They grow only by
//! adding; a number is never used again. [`frame`] puts a length before each
//! message and refuses a length that is too large before anything is allocated.
//!
//! A connection is one of two kinds, told by its ALPN:
//!
//! * [`ENROL_ALPN`]: no client certificate. The agent opens one stream, sends an
//!   [`v1::EnrolRequest`], reads an [`v1::EnrolReply`], and the connection ends.
//! * [`LINK_ALPN`]: with the host's certificate. The agent opens the control
//!   stream, sends [`v1::Hello`] first, and reads [`v1::Welcome`] or
//!   [`v1::Refusal`] first. After that both sides send frames as they please.
//!   Every later kind of work (a command, a shell, a file) gets a stream of its
//!   own, opened by the gateway; its first frame, [`v1::Opening`], says what it is
//!   for.
//!
//! ```text
//! agent                                gateway
//!   Hello{boot, instance, counter}  ─►   who is it (certificate), is it a clone?
//!                                  ◄─   Welcome{counter+1, beat, bundle…}
//!   CounterStored{counter+1}        ─►   both sides have moved on
//!   Heartbeat{sequence}             ─►   receive time is what counts
//!                                  ◄─   HeartbeatAck{sequence, server time}
//!   Renew{csr}                      ─►   before half the certificate's life is over
//!                                  ◄─   Renewed{certificate}
//! ```
//!
//! A run of a command on its stream:
//!
//! ```text
//! gateway                              agent
//!   Opening{run: command, spec…}    ─►   journal, fsynced: known for good
//!                                  ◄─   Accepted, or Refused
//!                                  ◄─   Started
//!                                  ◄─   Output{sequence…} …
//!   OutputStored{sequence}          ─►   may be dropped on the host
//!   Cancel                          ─►   TERM, grace, KILL
//!                                  ◄─   Ended{how}
//!   ResultStored                    ─►   the host keeps no more than that it knows the id
//! ```
//!
//! The gateway opens it again after every lost link, with the same command and the
//! output it still wants; the agent answers from its journal where things stand. The
//! journal, not the stream, is why a command runs once.
//!
//! A scrape of metrics is one question and one answer: `Opening{scrape: exporter,
//! deadline, size}`, then pieces of text, then how it ended.
//!
//! A forward is a way through the host: `Opening{forward: with whom, rules, deadline}`,
//! then whether it is open, then bytes of the connection or datagrams, both ways.
//!
//! The *generation counter* finds clones. Each side stores the last value before
//! it relies on it; two disks with one past cannot both hold the newest value
//! (`gateway-core` decides what a mismatch means). `Reidentify` asks an agent to
//! make a new key and take whatever identity the gateway then signs: quarantine
//! and its three repairs are all that one step.

pub mod facts;
pub mod frame;
pub mod v1;

/// ALPN of the enrolment connection.
pub const ENROL_ALPN: &[u8] = b"loopback-enrol/1";
/// ALPN of the link.
pub const LINK_ALPN: &[u8] = b"loopback-agent/1";
/// Newest version of the messages this build speaks.
pub const VERSION: u32 = 1;
/// Oldest version of the messages this build speaks.
pub const VERSION_MIN: u32 = 1;
