//! For tests: the model that engines are compared with, and disks that fail.

pub mod crash;
mod memory;

pub use self::memory::MemoryStore;
pub use crate::engine::stamp_format;

/// What a test's own disk implements; see [`Disk::custom`](crate::Disk::custom).
pub use redb::{BackendError, StorageBackend, backends::FileBackend, backends::InMemoryBackend};
