//! Unix sockets in folders whose paths may be long.
//!
//! The kernel takes 108 bytes of a socket's path; a folder that is open is reached by a
//! short one.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

fn short(folder: &File, name: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))
}

/// Listens at `folder/name`, in place of whoever did.
pub(crate) fn listen(folder: &Path, name: &str) -> io::Result<UnixListener> {
    let open = File::open(folder)?;
    match std::fs::remove_file(folder.join(name)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    UnixListener::bind(short(&open, name))
}

/// Connects to `folder/name`.
pub(crate) fn connect(folder: &Path, name: &str) -> io::Result<tokio::net::UnixStream> {
    let open = File::open(folder)?;
    let stream = UnixStream::connect(short(&open, name))?;
    stream.set_nonblocking(true)?;
    tokio::net::UnixStream::from_std(stream)
}
