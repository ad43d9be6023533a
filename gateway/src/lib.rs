//! The gateway: control plane, HTTP API, QUIC listener, reconcilers, state.
//!
//! ```text
//!  people, CLI ── HTTPS ──► http ──► handlers ──┐ one batch: change + audit
//!                                               ▼
//!                                     store (redb) ──watch──► catalog (memory)
//!                                               ▲                  │
//!  agents ── QUIC ───────► link ── sessions ────┘      reads, steward, reconcilers
//! ```
//!
//! Read in this order: [`app`] is what everything shares, [`state`] what is
//! known, [`http`] and [`handlers`] how people change it, [`link`] how hosts do,
//! [`command`] what is run on them, [`diagnose`] how they are looked into, [`reconcile`] what happens by itself, [`serve`] the order of start and stop,
//! [`command`] what is run on them, [`transfer`] what is brought there and back, [`reconcile`] what happens by itself, [`serve`] the order of start and stop,
//! [`plugins`] what others add,
//! [`backup`] how a deployment survives its machine.

pub mod admin;
pub mod app;
pub mod args;
pub mod auth;
pub mod backup;
pub mod ca;
pub mod command;
pub mod commands;
pub mod config;
pub mod diagnose;
pub mod error;
pub mod events;
pub mod files;
pub mod handlers;
pub mod http;
pub mod installer;
pub mod keys;
pub mod link;
pub mod log;
pub mod metrics;
pub mod plugins;
pub mod policy;
pub mod power;
pub mod rate;
pub mod reconcile;
pub mod refusals;
pub mod releases;
pub mod scrape;
pub mod serve;
pub mod signal;
pub mod state;
pub mod tasks;
pub mod transfer;
pub mod usage;
pub mod view;
