//! The words everybody in Loopback shares: ids, names, states, permissions.
//!
//! This crate has no I/O, no clock, no randomness and no async; it builds for
//! `wasm32-unknown-unknown` so that nothing of the kind can leak in. What it
//! decides, it decides from its arguments.
//!
//! Read in this order: [`ids`] and [`names`] say how things are called,
//! [`tenancy`] and [`host`] what they are, [`permission`] and [`access`] who may
//! touch them, [`selector`] how many are picked at once, [`command`] what is run on
//! them, [`mod@file`] what is brought there and back, [`power`] how they are turned
//! on and off, [`diagnose`] what they show of themselves, [`audit`] and
//! [`audit_chain`] how it is remembered.

#[macro_use]
mod words;

pub mod access;
pub mod audit;
pub mod audit_chain;
pub mod command;
pub mod diagnose;
pub mod error_chain;
pub mod facts;
pub mod file;
pub mod host;
pub mod ids;
pub mod labels;
pub mod names;
pub mod permission;
pub mod plugin;
pub mod power;
pub mod selector;
pub mod tenancy;
pub mod time;
pub mod token;

pub use error_chain::error_chain;
pub use time::Timestamp;
