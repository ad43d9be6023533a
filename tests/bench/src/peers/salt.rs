//! A Salt master with minions, from PyPI.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    product::Daemon,
    scratch::Scratch,
    sh,
    tools::Missing,
    wait::{self, Look},
};

use super::{missing, python};
use crate::gateway::free_address;

const START: Duration = Duration::from_secs(180);
const CALL: Duration = Duration::from_secs(120);

/// A master and its minions.
#[derive(Debug)]
pub(crate) struct Salt {
    // Minions end before their master, and all before their folder.
    minions: Vec<Daemon>,
    _master: Daemon,
    scratch: Scratch,
    bin: PathBuf,
}

impl Salt {
    /// Starts a master and `count` minions, whose keys it accepts.
    pub(crate) fn start(count: usize) -> Result<Self, Missing> {
        Self::begin(count).map_err(missing("salt"))
    }

    fn begin(count: usize) -> Result<Self> {
        let python = python("salt")?;
        let bin = python
            .parent()
            .context("python lies in a folder")?
            .to_owned();
        let scratch = Scratch::new()?;
        let (publish, answers) = (free_address()?.port(), free_address()?.port());
        let start = |name: &str, place: &str, settings: String| {
            let folder = scratch.join(place);
            fs::create_dir_all(&folder)?;
            let root = folder.display();
            let file = if name == "salt-master" {
                "master"
            } else {
                "minion"
            };
            fs::write(
                folder.join(file),
                format!(
                    "{settings}publish_port: {publish}\nuser: root\nroot_dir: {root}\nlog_level: warning\n"
                ),
            )?;
            let mut command = Command::new(bin.join(name));
            command.arg("-c").arg(&folder);
            Daemon::start(name, command, &scratch.join(&format!("{place}.log")))
        };
        let settings = format!("interface: 127.0.0.1\nauto_accept: True\nret_port: {answers}\n");
        let master = start("salt-master", "master", settings)?;
        let address = SocketAddr::from(([127, 0, 0, 1], answers));
        wait::until("the master to listen", START, || {
            Ok(Look::when(TcpStream::connect(address).is_ok(), || {
                master.tail(3)
            }))
        })?;
        let minions: Result<Vec<_>> = (0..count)
            .map(|number| {
                let settings =
                    format!("master: 127.0.0.1\nid: bench-{number}\nmaster_port: {answers}\n");
                start("salt-minion", &format!("minion-{number}"), settings)
            })
            .collect();
        let salt = Self {
            minions: minions?,
            _master: master,
            scratch,
            bin,
        };
        wait::until("all minions to answer", START, || {
            let said = salt.call()?;
            let answers = said.matches("bench-").count();
            Ok(Look::when(answers == count, || format!("{answers} answer")))
        })?;
        Ok(salt)
    }

    /// One minion's process.
    pub(crate) fn minion_pid(&self) -> u32 {
        self.minions.first().map_or(0, Daemon::pid)
    }

    /// `/bin/true` on every minion.
    pub(crate) fn everywhere(&self) -> Result<Duration> {
        let began = Instant::now();
        let said = self.call()?;
        let took = began.elapsed();
        let answers = said.matches("bench-").count();
        ensure!(
            answers == self.minions.len(),
            "{answers} minions answered: {said}"
        );
        Ok(took)
    }

    fn call(&self) -> Result<String> {
        let mut command = Command::new(self.bin.join("salt"));
        command.arg("-c").arg(self.scratch.join("master")).args([
            "--out=txt",
            "--timeout=15",
            "*",
            "cmd.retcode",
            "/bin/true",
        ]);
        Ok(sh::run(&mut command, CALL)?.stdout)
    }
}
