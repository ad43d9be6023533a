//! Requests on behalf of plugins.
//!
//! A plugin has no sockets. It says what it wants to ask of whom, and [`Client`] asks, within the
//! plugin's grant:
//!
//! ```text
//! target   the URL, read in one way only                     http.url_invalid
//! rule     one rule covers host, scheme, port,               http.host_not_granted, ..scheme..,
//!          TLS profile and every secret                      ..port.., ..tls_profile.., ..secret..
//! head     method and headers                                http.method_not_allowed, ..header..
//! place    secrets go where the request wants them           http.placement_invalid
//! slots    a place among those who ask this server           http.target_saturated
//! route    if the plugin names one: where the next step is done
//! dial     the name is resolved once, each address judged,   http.network_not_granted, ..
//!          the one that was judged connected to
//! tls      the server proves itself as the profile says      http.tls_untrusted, http.tls_failed
//! wire     one request, one bounded answer                   http.timeout, http.response_.., ..
//! scrub    secrets are taken out of the answer
//! audit    one record for each, whatever became of it
//! ```
//!
//! What is not done, so that nothing needs to be checked about it: redirects are answers like
//! others, cookies are not kept, nothing is unpacked or cached, no proxy of the environment is
//! used, no connection is used twice.
//!
//! [`oci`] fetches packages of plugins from registries, with the same parts.

mod audit;
mod client;
mod datagram;
mod dial;
mod error;
mod framed;
mod head;
pub mod oci;
mod place;
mod pointer;
mod resolve;
mod routes;
mod rule;
pub mod scrub;
mod slots;
pub mod target;
mod tls;
mod wire;

pub use model::plugin::reach as address;

pub use audit::{Audit, NoAudit, Outcome, Record};
pub use client::{Client, Options};
pub use error::code;
pub use resolve::{Resolver, SystemResolver};
pub use routes::{NoRoutes, RouteRule, RouteTarget, Routed, Routes, Transport, Way};
pub use tls::{InvalidProfile, check_profile};
pub use wire::Stream;
