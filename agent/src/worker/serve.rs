//! A worker: takes one connection from its runner's socket, does the job that comes
//! first on it, and ends.

use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use link::frame::{Deadlines, FrameReader, MAX_FRAME};
use protocol::v1::opening;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::job::{Job, ServeJob, of};
use super::runner::PARENT;
use crate::runs::watch;
use crate::{diagnose, files};

/// For the agent to say what the job is.
const WITHIN: Duration = Duration::from_secs(10);

/// Waits for a job on the socket that is standard input, and does it.
pub fn run() -> io::Result<()> {
    // Idle workers end with their runner, however and whenever that ends.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let runner = std::env::var(PARENT).ok().and_then(|pid| pid.parse().ok());
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != runner {
        return Ok(());
    }
    // Run from the kernel's link to its program, it would be called `exe`.
    let _ = rustix::thread::set_name(c"loopback-agent");
    let stdin = io::stdin().as_fd().try_clone_to_owned()?;
    let listener = UnixListener::from(stdin);
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            // Whoever came has gone, or a signal came.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    };
    set_parent_process_death_signal(None)?;
    // The listener goes at once: it belongs to workers that are idle.
    let null: OwnedFd = std::fs::File::open("/dev/null")?.into();
    rustix::stdio::dup2_stdin(&null)?;
    drop(listener);
    // The runner starts another worker. One that is gone needs none.
    let _ = io::stdout()
        .write_all(b".")
        .and_then(|()| io::stdout().flush());
    let sink: OwnedFd = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/null")?
        .into();
    rustix::stdio::dup2_stdout(&sink)?;
    let _ = rustix::process::setsid();
    stream.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async { serve(UnixStream::from_std(stream)?).await })
}

async fn serve(stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    let own = rustix::process::geteuid().as_raw();
    if peer != own && peer != 0 {
        return Err(io::Error::from(io::ErrorKind::PermissionDenied));
    }
    let (read, write) = stream.into_split();
    let deadlines = Deadlines {
        idle: WITHIN,
        frame: WITHIN,
    };
    let mut reader = FrameReader::new(read, MAX_FRAME, deadlines);
    let job: Option<Job> = reader.next().await.map_err(io::Error::other)?;
    match job.and_then(|job| job.kind) {
        Some(of::Kind::Run(run)) => watch::run(run, reader.into_inner(), write).await,
        Some(of::Kind::Serve(job)) => beside(job, reader.into_inner(), write).await,
        None => Ok(()),
    }
}

/// Serves a stream as the agent would, but for its sandbox.
async fn beside(job: ServeJob, read: OwnedReadHalf, mut write: OwnedWriteHalf) -> io::Result<()> {
    let settings = Arc::new(files::Settings {
        host: job.host,
        generation: job.generation,
        roots: job.roots.into_iter().map(PathBuf::from).collect(),
        state_dir: job.state_dir.into(),
        paused: job.paused,
        resolver: files::Resolver::Best,
    });
    let Some(opening) = job.opening else {
        files::sweep(&settings);
        return Ok(());
    };
    let served = match opening.kind {
        Some(opening::Kind::File(request)) => {
            let served = files::serve(request, read, write, settings).await;
            served.map_err(|error| model::error_chain(&error))
        }
        Some(opening::Kind::Diagnose(request)) => {
            let inputs = diagnose::Inputs {
                config: job.config.into(),
            };
            let served = diagnose::serve(&inputs, request, &mut write).await;
            served.map_err(|error| model::error_chain(&error))
        }
        _ => Ok(()),
    };
    served.map_err(io::Error::other)
}
