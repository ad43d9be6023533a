//! The agent's end: starts a runner when one is needed, and finds workers through it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ring::rand::{SecureRandom, SystemRandom};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::runner::{KEEP, WORK};
use super::socket;

/// What the names of a runner's sockets begin with.
const RUNNER: &str = "runner-";
/// For a runner to listen once it was started.
const START: Duration = Duration::from_secs(15);
/// Between two looks whether it does.
const LOOK: Duration = Duration::from_millis(10);
/// A runner that was not needed for this long goes.
const IDLE: Duration = Duration::from_secs(15 * 60);

/// Finds workers. Clones share the runner.
#[derive(Clone, Debug)]
pub struct Workers(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    runner: Mutex<Option<Runner>>,
}

#[derive(Debug)]
struct Runner {
    name: String,
    used: Instant,
    /// It ends when this closes.
    _keep: UnixStream,
    /// Without systemd it is a child, which must be waited for.
    child: Option<tokio::process::Child>,
}

impl Workers {
    /// With sockets in `folder`. Removes those of runners that are gone with an agent
    /// that was killed.
    pub fn new(folder: &Path) -> Self {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(RUNNER) {
                let _ = fs::remove_file(entry.path());
            }
        }
        Self(Arc::new(Inner {
            folder: folder.to_owned(),
            runner: Mutex::new(None),
        }))
    }

    /// A connection to an idle worker, on which a job is to be written.
    pub async fn connect(&self) -> io::Result<UnixStream> {
        let mut runner = self.0.runner.lock().await;
        if let Some(runner) = runner.as_mut() {
            let name = format!("{}.{WORK}", runner.name);
            match socket::connect(&self.0.folder, &name) {
                Ok(stream) => {
                    runner.used = Instant::now();
                    return Ok(stream);
                }
                Err(error) => tracing::info!(%error, "the runner is gone; starting another"),
            }
        }
        *runner = None;
        let started = Runner::start(&self.0.folder).await?;
        let stream = socket::connect(&self.0.folder, &format!("{}.{WORK}", started.name))?;
        *runner = Some(started);
        Ok(stream)
    }

    /// Lets go of a runner that nobody has needed for long.
    pub async fn tidy(&self) {
        let mut runner = self.0.runner.lock().await;
        if let Some(found) = runner.as_mut() {
            if let Some(child) = &mut found.child {
                let _ = child.try_wait();
            }
            if found.used.elapsed() > IDLE {
                *runner = None;
            }
        }
    }
}

impl Runner {
    async fn start(folder: &Path) -> io::Result<Self> {
        let mut random = [0; 8];
        SystemRandom::new()
            .fill(&mut random)
            .map_err(|_| io::Error::other("no random numbers"))?;
        let name = format!("{RUNNER}{}", data_encoding::HEXLOWER.encode(&random));
        let program = std::env::current_exe()?;
        let mut child = None;
        if by_systemd() {
            let mut command = Command::new("systemd-run");
            command
                .args(["--quiet", "--collect", "--no-ask-password"])
                .arg(format!("--unit=loopback-{name}"))
                .arg("--description=Loopback: what operators run on this host")
                .args(["--slice=loopback.slice", "-p", "Delegate=yes"])
                // Its end ends nobody: runs outlive it.
                .args(["-p", "KillMode=process", "-p", "TimeoutStopSec=5s"])
                .arg("--")
                .arg(&program)
                .args(["runner", "--folder"])
                .arg(folder)
                .args(["--name", &name]);
            let output = tokio::time::timeout(START, command.stdin(Stdio::null()).output());
            let output = output.await.map_err(|_| late("systemd-run"))??;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                let said = model::names::clean(said.trim(), 300);
                return Err(io::Error::other(format!("systemd-run: {said}")));
            }
        } else {
            let started = Command::new(&program)
                .args(["runner", "--folder"])
                .arg(folder)
                .args(["--name", &name])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                // What goes wrong there belongs into the agent's log.
                .stderr(Stdio::inherit())
                .spawn()?;
            child = Some(started);
        }
        let began = Instant::now();
        loop {
            match socket::connect(folder, &format!("{name}.{KEEP}")) {
                Ok(keep) => {
                    return Ok(Self {
                        name,
                        used: Instant::now(),
                        _keep: keep,
                        child,
                    });
                }
                Err(_) if began.elapsed() < START => tokio::time::sleep(LOOK).await,
                Err(_) => return Err(late("the runner")),
            }
        }
    }
}

/// Whether systemd can start something for this process, outside its sandbox.
fn by_systemd() -> bool {
    rustix::process::geteuid().is_root() && Path::new("/run/systemd/system").is_dir()
}

fn late(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::TimedOut,
        format!("{what} did not start within {} s", START.as_secs()),
    )
}
