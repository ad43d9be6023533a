//! The runner: listens, and keeps idle workers that do.
//!
//! It ends when the agent does (the agent holds a connection to it), when it is told to,
//! or when no agent comes. Its idle workers end with it; those at work do not.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::socket;
use crate::runs::cgroup;

/// What the names of its sockets end with.
pub(super) const WORK: &str = "work";
pub(super) const KEEP: &str = "keep";
/// Tells a worker who its runner is.
pub(super) const PARENT: &str = "LOOPBACK_RUNNER";
/// Workers that wait for a job. The second is there while the first is replaced.
const IDLE: usize = 2;
/// Before one is replaced while another is there: what the job starts comes first. On a
/// host with few processors, to start a worker took as long as a short command.
const LATER: Duration = Duration::from_millis(20);
/// For the agent that started this to come.
const ALONE: Duration = Duration::from_secs(30);
/// Before a worker that could not be started is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Runs until the agent is gone.
pub async fn run(folder: &Path, name: &str) -> io::Result<()> {
    // A session of its own: what ends the agent's terminal does not end runs.
    let _ = rustix::process::setsid();
    let group = cgroup::settle();
    let work: OwnedFd = socket::listen(folder, &format!("{name}.{WORK}"))?.into();
    let keep = socket::listen(folder, &format!("{name}.{KEEP}"))?;
    keep.set_nonblocking(true)?;
    let keep = UnixListener::from_std(keep)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut workers = Workers {
        work,
        group,
        taken: JoinSet::new(),
        all: JoinSet::new(),
    };
    for _ in 0..IDLE {
        workers.start()?;
    }
    let accepted = tokio::select! {
        biased;
        _ = terminate.recv() => return Ok(()),
        accepted = tokio::time::timeout(ALONE, keep.accept()) => accepted,
    };
    let (mut agent, _) = accepted.map_err(|_| io::Error::other("no agent came"))??;
    let (mut nothing, mut seen) = ([0; 1], BTreeMap::new());
    // How many are missing, and since when.
    let mut missing: Option<(usize, Instant)> = None;
    loop {
        let replace = missing.map(|(count, since)| match count {
            0..IDLE => since + LATER,
            _ => since,
        });
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = agent.read(&mut nothing) => break,
            Some(_) = workers.taken.join_next() => {
                let (count, since) = missing.unwrap_or((0, Instant::now()));
                missing = Some((count + 1, since));
            }
            () = until(replace) => {
                for _ in 0..missing.take().map_or(0, |(count, _)| count) {
                    while let Err(error) = workers.start() {
                        tracing::warn!(%error, "cannot start a worker");
                        tokio::time::sleep(AGAIN_AFTER).await;
                    }
                }
                if let Some(group) = &workers.group {
                    group.tidy(&mut seen);
                }
            }
            Some(_) = workers.all.join_next() => {}
        }
    }
    for name in [format!("{name}.{WORK}"), format!("{name}.{KEEP}")] {
        let _ = std::fs::remove_file(folder.join(name));
    }
    // Children are not waited for: idle ones end with this process, others go on.
    workers.taken.detach_all();
    workers.all.detach_all();
    Ok(())
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

struct Workers {
    work: OwnedFd,
    group: Option<cgroup::Base>,
    /// Each ends when its worker has taken a job, or has ended.
    taken: JoinSet<()>,
    /// Each ends with its worker.
    all: JoinSet<()>,
}

impl Workers {
    fn start(&mut self) -> io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("loopback-agent")
            .arg("worker")
            .env(PARENT, std::process::id().to_string())
            .stdin(Stdio::from(self.work.try_clone()?))
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        if let Some(group) = &self.group {
            command.env(cgroup::VARIABLE, group.to_text());
        }
        let mut child: Child = command.spawn()?;
        let taken = child.stdout.take();
        self.taken.spawn(async move {
            if let Some(mut taken) = taken {
                // One byte or the end: this worker is idle no more.
                let _ = taken.read(&mut [0; 1]).await;
            }
        });
        self.all.spawn(async move {
            let _ = child.wait().await;
        });
        Ok(())
    }
}
