//! Forwarding: the gateway reaches, through a host, what only the host's network reaches.
//!
//! ```text
//! gateway: Opening{Forward(tcp)}  ──►    ForwardReply{opened}   then bytes, both ways, unframed
//! gateway: Opening{Forward(udp)}  ──►    ForwardReply{opened}   then datagrams, both ways
//! gateway: Opening{Forward(wake)} ──►    ForwardReply{opened}   it was sent; the stream ends
//!                                        ForwardReply{refused}  in place of each
//! ```
//!
//! Of TCP, the end of a direction is the end of that direction of the stream, and a connection
//! that broke is a stream that is reset. A datagram is its length (two bytes, the larger first)
//! and its bytes. Nothing is sent before `opened` has come, so what was refused had no effect.
//!
//! The rules that a plugin's grant has for the request come with it, and the host holds the
//! address against them again: only the host knows what a name of its network resolves to.

use prost::{Enumeration, Message, Oneof};

/// Asks for a way to somewhere.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardRequest {
    /// Id of the host that is meant. Another one refuses.
    #[prost(string, tag = "1")]
    pub host: String,
    /// Generation of the host's identity that is meant.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
    /// What is wanted. Nothing is a kind that this version does not know: refuse it.
    #[prost(oneof = "forward_request::Kind", tags = "3, 4, 5")]
    pub kind: Option<forward_request::Kind>,
    /// One of these must cover the address and the port that are used.
    #[prost(message, repeated, tag = "6")]
    pub rules: Vec<ForwardRule>,
    /// Answer within this time.
    #[prost(uint32, tag = "7")]
    pub deadline_ms: u32,
    /// The plugin for which it is asked, for the host's log.
    #[prost(string, tag = "8")]
    pub plugin: String,
}

/// Parts of [`ForwardRequest`].
pub mod forward_request {
    use super::*;

    /// What is wanted.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// A TCP connection.
        #[prost(message, tag = "3")]
        Tcp(ForwardTarget),
        /// A UDP socket that speaks with one address.
        #[prost(message, tag = "4")]
        Udp(ForwardTarget),
        /// One Wake-on-LAN packet as a broadcast.
        #[prost(message, tag = "5")]
        Wake(ForwardWake),
    }
}

/// With whom to speak.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardTarget {
    /// A name, which the host resolves once, or an address.
    #[prost(string, tag = "1")]
    pub host: String,
    /// The port.
    #[prost(uint32, tag = "2")]
    pub port: u32,
}

/// Whom to wake.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardWake {
    /// The hardware address: six bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub mac: Vec<u8>,
}

/// What a rule of the grant permits.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardRule {
    /// Networks, as `10.0.0.0/8`. None: public addresses.
    #[prost(string, repeated, tag = "1")]
    pub networks: Vec<String>,
    /// Ports.
    #[prost(uint32, repeated, tag = "2")]
    pub ports: Vec<u32>,
}

/// The only frame from the agent.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardReply {
    /// What it says.
    #[prost(oneof = "forward_reply::Body", tags = "1, 2")]
    pub body: Option<forward_reply::Body>,
}

/// Parts of [`ForwardReply`].
pub mod forward_reply {
    use super::*;

    /// What an agent says.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Body {
        /// The way is open.
        #[prost(message, tag = "1")]
        Opened(ForwardOpened),
        /// There is none, and nothing was sent to anybody.
        #[prost(message, tag = "2")]
        Refused(ForwardRefused),
    }
}

/// The way is open.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardOpened {
    /// With which address and port, as `10.0.0.1:443` or `[fd00::1]:443`.
    #[prost(string, tag = "1")]
    pub address: String,
}

/// There is no way.
#[derive(Clone, PartialEq, Message)]
pub struct ForwardRefused {
    /// Why.
    #[prost(enumeration = "ForwardRefusal", tag = "1")]
    pub reason: i32,
    /// Why, in words.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// Why there is no way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Enumeration)]
#[repr(i32)]
pub enum ForwardRefusal {
    /// For no reason that this version knows.
    Unspecified = 0,
    /// It is for another host or an older identity.
    NotMine = 1,
    /// The host's owner has paused what operators may do there.
    Paused = 2,
    /// As many as the host takes are under way.
    Busy = 3,
    /// The host's configuration does not allow the address or the port.
    NotAllowed = 4,
    /// The rules that came with the request do not cover the address or the port.
    NotGranted = 5,
    /// The request makes no sense to the host.
    Malformed = 6,
    /// The name has no address there.
    NotResolved = 7,
    /// Nothing accepts a connection there, or nothing can be sent.
    Unreachable = 8,
    /// Nothing answered in time.
    TimedOut = 9,
}
