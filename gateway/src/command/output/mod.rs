//! The output of runs: taken from hosts, kept within bounds, read while it grows.
//!
//! ```text
//! a piece ─► memory, up to 16 KiB ─► segments on disk, 4 MiB each ─► finished:
//!            (most runs end here)    the first 32 MiB and the last    short: into the
//!                                    16 MiB stay, between them a gap  record; long: an
//!                                                                     object
//! ```
//!
//! One writer, the stream of the run; any number of readers, each with its own place.
//! A reader that stops costs nothing: it reads from memory or disk when it comes back,
//! and is told of a gap when what it wanted is gone by then. A full disk costs output
//! and not results: pieces that cannot be written count as dropped.

pub mod frame;
mod log;
mod read;

pub use log::Writer;
pub use log::{Folder, OutputLog};
pub use read::{News, OutputError, Reader};

#[cfg(test)]
mod tests;
