//! The operator's command line, `loopback`, and the client of the API beneath it.
//!
//! Read in this order: [`client`] calls a gateway, any operation of [`api`]
//! alike; [`audit`] checks exports without one; [`contexts`] and [`connection`]
//! say which gateway and as whom; [`commands`] is what people type; [`output`]
//! is what they see, and [`follow`] what they see of commands on hosts; [`failure`] is why not, and the exit codes.
//!
//! The library part exists for tests that call a gateway the way the command
//! line does.

pub mod app;
pub mod audit;
pub mod client;
pub mod commands;
pub mod connection;
pub mod contexts;
pub mod failure;
pub mod follow;
pub mod lookup;
pub mod output;
pub mod parse;
