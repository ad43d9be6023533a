//! A program that runs until it is told to stop, with its output in a file.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::{
    interrupt, tools,
    wait::{self, Look},
};

/// Longer than any promised drain, so that only a stuck program meets it.
const STOP: Duration = Duration::from_secs(40);

/// A running program. Dropping it stops it: politely, then not.
#[derive(Debug)]
pub struct Daemon {
    what: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts `command` with its output appended to `log`. Start it from the main thread: the
    /// program is killed when the thread that started it dies.
    pub fn start(what: &str, command: Command, log: &Path) -> Result<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("open {}", log.display()))?;
        let child = tethered(&command)
            .stdin(Stdio::null())
            .stdout(out.try_clone().context("share the log")?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {what}"))?;
        Ok(Self {
            what: what.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a line of its output satisfies `wanted`, and fails at once when it ends.
    pub fn wait_line(&mut self, wanted: impl Fn(&str) -> bool, limit: Duration) -> Result<String> {
        let what = format!("{} to be ready", self.what);
        let ended = wait::until(&what, limit, || {
            let text = self.output();
            if let Some(line) = text.lines().find(|line| wanted(line)) {
                return Ok(Look::Ready(Ok(line.to_owned())));
            }
            Ok(match self.child.try_wait()? {
                Some(status) => Look::Ready(Err(status)),
                None => Look::NotYet(text.lines().last().unwrap_or("no output").to_owned()),
            })
        })?;
        match ended {
            Ok(line) => Ok(line),
            Err(status) => bail!("{} ended with {status}:\n{}", self.what, self.tail(30)),
        }
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    pub fn wait_end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let what = format!("{} to end", self.what);
        wait::until(&what, limit, || {
            Ok(Look::some(self.child.try_wait()?, || "running".into()))
        })
    }

    /// Asks it to stop and waits until it has.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let what = format!("{} to stop", self.what);
        let stopped = interrupt::shielded(|| {
            wait::until(&what, STOP, || {
                Ok(Look::some(self.child.try_wait()?, || "running".into()))
            })
        });
        if stopped.is_err() {
            self.kill()?;
        }
        stopped
    }

    /// Ends it without a warning, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.child
            .kill()
            .and_then(|()| self.child.wait())
            .map(drop)
            .context("kill it")
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child has a pid")?;
        rustix::process::kill_process(pid, signal).with_context(|| format!("signal {}", self.what))
    }

    /// The last lines of its output.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.output();
        let skip = text.lines().count().saturating_sub(lines);
        text.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }

    fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.stop().is_err() {
            // It did not stop in time and was killed; there is nobody left to tell.
            let _ = self.kill();
        }
    }
}

/// The same command, killed by the kernel when we die without having stopped it.
fn tethered(command: &Command) -> Command {
    let mut tethered = match tools::find("setpriv") {
        Some(setpriv) => {
            let mut tethered = Command::new(setpriv);
            tethered
                .args(["--pdeathsig", "KILL", "--"])
                .arg(command.get_program());
            tethered
        }
        None => Command::new(command.get_program()),
    };
    tethered.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => tethered.env(name, value),
            None => tethered.env_remove(name),
        };
    }
    tethered
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sh;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn a_daemon_that_ends_before_it_is_ready_is_reported_with_its_output() {
        let folder = tempfile::tempdir().unwrap();
        let command = sh::command(&["sh", "-c", "echo no such thing; exit 4"]);
        let mut daemon = Daemon::start("it", command, &folder.path().join("log")).unwrap();
        let error = daemon
            .wait_line(|line| line == "ready", LIMIT)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("exit status: 4") && error.contains("no such thing"),
            "{error}"
        );
    }

    #[test]
    fn stopping_waits_for_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let script =
            "trap 'echo bye; exit 0' TERM; echo ready; while :; do read -t 1 _ <>/dev/zero; done";
        let command = sh::command(&["bash", "-c", script]);
        let mut daemon = Daemon::start("it", command, &folder.path().join("log")).unwrap();
        daemon.wait_line(|line| line == "ready", LIMIT).unwrap();
        assert!(daemon.stop().unwrap().success());
        assert!(daemon.tail(1).contains("bye"));
        assert!(!daemon.is_running());
    }
}
