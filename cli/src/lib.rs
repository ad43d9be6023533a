//! The operator's command line, `loopback`, and the client of the API beneath it.
pub mod audit;
pub mod client;
