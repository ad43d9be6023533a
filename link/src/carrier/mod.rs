//! QUIC packets inside a WebSocket, for networks that let no UDP through.
//!
//! ```text
//!  quinn endpoint ── Hub ──┬── queue ── pump ── WebSocket ── agent A
//!   (AsyncUdpSocket)       └── queue ── pump ── WebSocket ── agent B
//! ```
//!
//! A [`Hub`] is the socket of one quinn endpoint and stands for any number of
//! WebSockets; the gateway attaches one per agent, the agent exactly one. A [`pump()`]
//! moves messages between a WebSocket and its place in the hub; it knows no WebSocket
//! library, so that the gateway's HTTP server and the agent's client share it.
//!
//! Nothing in here is trusted or needs to be. The outer TLS of the WebSocket is only
//! a carrier: the QUIC connection inside is encrypted and mutually authenticated with
//! the deployment's own authority, and no secret travels outside it. A proxy that
//! opens the outer TLS (many companies run one) sees what an observer of UDP packets
//! would see, and can do what one could do: delay, drop, count. So the agent accepts
//! any outer certificate, which is what makes such proxies harmless instead of fatal.
//!
//! A message is one or several datagrams, see [`message`]. It is lost or it arrives
//! in order, never altered; QUIC copes with the first and profits from the second.

mod hub;
pub mod message;
mod pump;

pub use hub::{Attached, Hub, is_synthetic};
pub use pump::{PumpEnd, PumpLimits, WsMessage, pump};

/// Path of the WebSocket on the gateway's HTTPS port.
pub const PATH: &str = "/v1/agent/link";
/// The WebSocket's subprotocol.
pub const SUBPROTOCOL: &str = "loopback-link.1";
