//! What reads bytes of strangers, as functions of bytes.
//!
//! Every target is a plain `fn(&[u8])` that panics when something is wrong: not only
//! when the code under it panics, but also when what it answers breaks a promise (what
//! was read and written again reads the same; what was accepted was signed). So one
//! function serves three uses:
//!
//! * `cargo test -p fuzz` replays the seeds and the committed corpus, in seconds;
//! * `cargo xtask fuzz` searches for more, guided by coverage (libFuzzer);
//! * a find is a file, and its replay is a test from then on.
//!
//! libFuzzer is linked as a library and driven by one program for all targets
//! (`src/bin/fuzz-target.rs`). cargo-fuzz would add an installed tool, a nightly
//! compiler and a crate outside the workspace for what are five compiler flags; bolero
//! would wrap the same engine. Its address sanitizer is left out: it needs a nightly
//! compiler, and all code here denies `unsafe`.
//!
//! Seeds are made in code from the same constructors that the product uses, so they
//! stay valid when a format grows; only what a search found lies in `corpus/`.
#![expect(clippy::unwrap_used, reason = "a panic is the finding")]

pub mod corpus;
mod targets;
mod values;

/// Something that reads bytes of strangers.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and of its folder.
    pub name: &'static str,
    /// What it reads, and what must hold.
    pub about: &'static str,
    /// Reads `input`; panics when something is wrong.
    pub run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Longest input worth trying, in bytes.
    pub longest: usize,
}

/// All targets.
pub const ALL: &[Target] = &[
    targets::frame::TARGET,
    targets::enrolment::TARGET,
    targets::token::TARGET,
    targets::certificate::TARGET,
    targets::identity::TARGET,
    targets::quic::TARGET,
    targets::carrier::TARGET,
    targets::selector::TARGET,
    targets::gateway_config::TARGET,
    targets::agent_config::TARGET,
    targets::address::TARGET,
    targets::release::TARGET,
    targets::problem::TARGET,
    targets::sse::TARGET,
    targets::audit_export::TARGET,
    targets::exporter::TARGET,
    targets::diagnose::TARGET,
    targets::inspect::TARGET,
    targets::guest_values::TARGET,
];

/// The target of this name.
pub fn find(name: &str) -> Option<&'static Target> {
    ALL.iter().find(|target| target.name == name)
}
