//! The product as processes: where its programs lie, a running gateway, the CLI, agents.

use std::path::PathBuf;

/// The programs under test, as the build left them.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// `loopback-gateway`.
    pub gateway: PathBuf,
    /// `loopback-agent`, for this machine, dynamically linked.
    pub agent: PathBuf,
    /// `loopback`, the CLI.
    pub cli: PathBuf,
    /// The folder of a signed release with static agents.
    pub release: PathBuf,
    /// The public key that verifies it.
    pub release_key: PathBuf,
}
