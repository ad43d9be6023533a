//! What the two ends of an agent's connection share.
//!
//! An agent dials out to its gateway over QUIC with mutual TLS 1.3. Where UDP
//! does not get through, the same QUIC packets travel inside a WebSocket on the
//! gateway's HTTPS port. Identity, encryption and flow control are QUIC's in both
//! cases; the WebSocket is only a way to carry datagrams, so there is one security
//! story and one transport to reason about.
//!
//! In reading order:
//! * [`identity`]: what a certificate says about its holder;
//! * [`trust`]: which authorities are believed, replaceable while running;
//! * [`verify`]: the one function that judges a certificate, in both directions;
//! * [`tls`]: that function behind rustls, and who is at the other end of a
//!   connection;
//! * `server_tls`: TLS of the gateway's connections, which forgets its handshakes;
//! * [`transport`], [`socket`], [`accept`]: QUIC's limits, UDP sockets, admission of
//!   new connections;
//! * [`frame`]: messages on streams;
//! * [`carrier`]: QUIC packets inside a WebSocket, for both ends;
//! * [`dial`]: the agent's ways to a gateway, with errors that name the step that
//!   failed.
//!
//! Nothing here keeps state on disk or decides what a peer may do: that is the
//! agent's and the gateway's business.

pub mod accept;
pub mod carrier;
mod der;
pub mod dial;
pub mod frame;
pub mod identity;
mod server_tls;
pub mod socket;
#[cfg(feature = "testing")]
pub mod testing;
pub mod tls;
pub mod transport;
pub mod trust;
pub mod verify;
