//! The product as processes: a running gateway, the CLI, agents; and a [`World`] of all of them.

mod cli;
mod daemon;
mod gateway;
mod world;

use std::path::PathBuf;

pub use cli::{Cli, items};
pub use daemon::Daemon;
pub use gateway::{Gateway, Launch};
pub use world::{Agent, Token, WORKSPACE, World, is_connected};

/// The programs under test, as the build left them.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    /// `loopback-gateway`.
    pub gateway: PathBuf,
    /// `loopback-agent`, for this machine, dynamically linked.
    pub agent: PathBuf,
    /// `loopback`, the CLI.
    pub cli: PathBuf,
    /// A folder with a signed release of static agents in `stable`; empty when none was built.
    pub releases: PathBuf,
    /// The public key that verifies it.
    pub release_key: PathBuf,
    /// A folder with components of plugins; empty when none were built.
    pub plugins: PathBuf,
    /// `loopback-plugin`, what authors of plugins work with; empty when no plugins were built.
    pub kit: PathBuf,
}
