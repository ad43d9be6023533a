//! A gateway as a process, with a state folder of its own.

use std::{
    cell::RefCell,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{Daemon, Programs};
use crate::{
    lab::{GATEWAY, Place},
    sh,
};

/// A first start makes keys and certificates; on a busy machine that takes a moment.
const START: Duration = Duration::from_secs(60);

/// How a gateway is run, where that differs from how everybody runs it.
#[derive(Debug, Clone, Default)]
pub struct Launch {
    /// More lines of its configuration; tables come last in them.
    pub settings: String,
    /// What to put before its program, as `prlimit --nofile=64 --`. It must become the program,
    /// not its parent: signals go to it.
    pub wrap: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Where its state lies, unless beside its configuration.
    pub state: Option<PathBuf>,
}

impl Launch {
    /// For plugins that were built a moment ago and are signed by nobody.
    pub fn unsigned_plugins() -> Self {
        Self {
            settings: "\n[plugins]\nsigned_only = false\n".into(),
            ..Self::default()
        }
    }
}

/// A gateway that can be stopped and started again on the same state and address.
#[derive(Debug)]
pub struct Gateway {
    program: PathBuf,
    place: Place,
    state: RefCell<PathBuf>,
    config: PathBuf,
    address: SocketAddr,
    log: PathBuf,
    launch: RefCell<Launch>,
    process: RefCell<Option<Daemon>>,
}

impl Gateway {
    /// A gateway with its files in `folder`, not started. In a lab it has the lab's address and the
    /// standard port, on this machine a free port of the loopback interface.
    pub fn new(programs: &Programs, place: Place, folder: &Path, launch: Launch) -> Result<Self> {
        let address = match &place {
            Place::Here => free_address()?,
            Place::Lab { .. } => SocketAddr::new(IpAddr::V4(GATEWAY), 443),
        };
        let gateway = Self {
            program: programs.gateway.clone(),
            place,
            state: RefCell::new(
                launch
                    .state
                    .clone()
                    .unwrap_or_else(|| folder.join("gateway")),
            ),
            config: folder.join("gateway.toml"),
            address,
            log: folder.join("gateway.log"),
            launch: RefCell::new(launch),
            process: RefCell::new(None),
        };
        fs::write(&gateway.config, gateway.settings(programs))
            .context("write its configuration")?;
        Ok(gateway)
    }

    /// Its configuration. The paths come from the system's temporary folder and from the build:
    /// nothing in them needs escaping.
    fn settings(&self, programs: &Programs) -> String {
        let mut text = format!(
            "state_dir = \"{}\"\nlisten = \"{}\"\npublic_url = \"{}\"\n",
            self.state.borrow().display(),
            self.address,
            self.url(),
        );
        if !programs.releases.as_os_str().is_empty() {
            text += &format!(
                "releases_dir = \"{}\"\nrelease_keys = [\"{}\"]\n",
                programs.releases.display(),
                programs.release_key.display()
            );
        }
        text + &self.launch.borrow().settings
    }

    /// Starts the process and waits until it says that it is ready.
    pub fn up(&self) -> Result<()> {
        self.begin()?;
        let mut process = self.process.borrow_mut();
        let ready = match process.as_mut() {
            Some(daemon) => daemon.wait_line(|line| line.starts_with("ready "), START),
            None => bail!("the gateway is not running"),
        };
        if ready.is_err() {
            *process = None;
        }
        ready.map(drop)
    }

    /// Starts the process and waits for nothing.
    pub fn begin(&self) -> Result<()> {
        // A new log for each life: readiness is read from it.
        if self.log.exists() {
            fs::rename(&self.log, self.log.with_extension("log.before")).context("keep the log")?;
        }
        let launch = self.launch.borrow();
        let program = self.program.display().to_string();
        let words: Vec<String> = launch.wrap.iter().cloned().chain([program]).collect();
        let command = self.place.command(Path::new(&words[0]));
        let mut command = sh::extended(command, &words[1..]);
        command
            .arg("serve")
            .arg("--config")
            .arg(&self.config)
            // A machine's own settings must not reach the process under test.
            .env_remove("LOOPBACK_CONFIG")
            .envs(launch.env.iter().cloned());
        let daemon = Daemon::start("the gateway", command, &self.log)?;
        *self.process.borrow_mut() = Some(daemon);
        Ok(())
    }

    /// Changes how it is run from its next start on; its configuration stays.
    pub fn relaunch(&self, change: impl FnOnce(&mut Launch)) {
        change(&mut self.launch.borrow_mut());
    }

    /// Runs another command of its program on its configuration, as an operator of its machine.
    pub fn ask(&self, args: &[&str]) -> Result<sh::Output> {
        let mut command = self.place.command(&self.program);
        command
            .args(args)
            .arg("--config")
            .arg(&self.config)
            .env_remove("LOOPBACK_CONFIG");
        let what = format!("`loopback-gateway {}`", args.join(" "));
        let output = sh::run(&mut command, START).with_context(|| what.clone())?;
        Ok(sh::Output { what, ..output })
    }

    /// From now on its state lies elsewhere; all else stays as it is. It must not run.
    pub fn move_state(&self, programs: &Programs, state: PathBuf) -> Result<()> {
        *self.state.borrow_mut() = state;
        fs::write(&self.config, self.settings(programs)).context("write its configuration")
    }

    /// Waits until the process ends by itself. Its exit code, when it was no signal, and all it
    /// printed and logged.
    pub fn wait_end(&self, limit: Duration) -> Result<(Option<i32>, String)> {
        let Some(mut daemon) = self.process.borrow_mut().take() else {
            bail!("the gateway is not running");
        };
        let status = daemon.wait_end(limit)?;
        Ok((status.code(), self.log_tail(usize::MAX)))
    }

    /// Stops the process as an operator would.
    pub fn stop(&self) -> Result<()> {
        let Some(mut daemon) = self.process.borrow_mut().take() else {
            bail!("the gateway is not running");
        };
        let status = daemon.stop()?;
        anyhow::ensure!(
            status.success(),
            "the gateway stopped with {status}:\n{}",
            daemon.tail(20)
        );
        Ok(())
    }

    /// Ends the process as a crash would.
    pub fn kill(&self) -> Result<()> {
        match self.process.borrow_mut().take() {
            Some(mut daemon) => daemon.kill(),
            None => bail!("the gateway is not running"),
        }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.borrow().as_ref().map(Daemon::pid)
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        match self.process.borrow().as_ref() {
            Some(daemon) => daemon.signal(signal),
            None => bail!("the gateway is not running"),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients of it run.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Where its state lies.
    pub fn state(&self) -> PathBuf {
        self.state.borrow().clone()
    }

    /// Where clients reach it.
    pub fn url(&self) -> String {
        match self.address.port() {
            443 => format!("https://{}", self.address.ip()),
            port => format!("https://{}:{port}", self.address.ip()),
        }
    }

    /// The certificate that clients and agents trust.
    pub fn ca_file(&self) -> PathBuf {
        self.state().join("ca.pem")
    }

    /// The secret with which the first person claims the gateway.
    pub fn owner_secret(&self) -> PathBuf {
        self.state().join("owner.secret")
    }

    /// The last lines it logged.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let skip = text.lines().count().saturating_sub(lines);
        text.lines().skip(skip).collect::<Vec<_>>().join("\n")
    }
}

/// A port of the loopback interface that is free for TCP and UDP alike. Nothing reserves it until
/// the gateway binds it a moment later; the kernel hands out other ports meanwhile.
fn free_address() -> Result<SocketAddr> {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        let address = tcp.local_addr().context("find a free port")?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free for both TCP and UDP on the loopback interface")
}
