//! What a worker is told: the first frame on its connection. Both ends are the same
//! program, so this is no promise.

use prost::{Message, Oneof};
use protocol::v1::{Opening, RunRequest};

/// One piece of work.
#[derive(Clone, PartialEq, Message)]
pub struct Job {
    /// What it is.
    #[prost(oneof = "of::Kind", tags = "1, 2")]
    pub kind: Option<of::Kind>,
}

/// Parts of [`Job`].
pub mod of {
    use super::*;

    /// What to do.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// Start a program and watch it.
        #[prost(message, tag = "1")]
        Run(RunJob),
        /// Serve a stream of the gateway's that needs the whole host.
        #[prost(message, tag = "2")]
        Serve(ServeJob),
    }
}

/// A program to start and to watch.
#[derive(Clone, PartialEq, Message)]
pub struct RunJob {
    /// The run's folder.
    #[prost(string, tag = "1")]
    pub folder: String,
    /// What the gateway asked for.
    #[prost(message, optional, tag = "2")]
    pub request: Option<RunRequest>,
    /// Not to be started when more than this has passed since.
    #[prost(uint64, tag = "3")]
    pub start_within_ms: u64,
    /// The name of this boot.
    #[prost(string, tag = "4")]
    pub boot_id: String,
}

/// A stream to serve.
#[derive(Clone, PartialEq, Message)]
pub struct ServeJob {
    /// Its first frame. None: remove what was left of uploads, and that is all.
    #[prost(message, optional, tag = "1")]
    pub opening: Option<Opening>,
    /// Path of the agent's configuration, as it was started.
    #[prost(string, tag = "2")]
    pub config: String,
    /// Id of this host.
    #[prost(string, tag = "3")]
    pub host: String,
    /// Generation of its identity.
    #[prost(uint64, tag = "4")]
    pub generation: u64,
    /// Places whose files are given out.
    #[prost(string, repeated, tag = "5")]
    pub roots: Vec<String>,
    /// The agent's state folder.
    #[prost(string, tag = "6")]
    pub state_dir: String,
    /// Whether the host's owner wants no work from the gateway.
    #[prost(bool, tag = "7")]
    pub paused: bool,
}
