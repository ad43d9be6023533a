//! A management controller that speaks Redfish over TLS: sushy-emulator, which OpenStack tests its
//! own client with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use crate::{product::Daemon, sh, tools};

const SUSHY_TOOLS: &str = "2.2.0";
pub(super) const SYSTEM: &str = "5d1f8f1e-0000-4000-8000-000000000001";
pub(super) const PASSWORD: &str = "correct-horse-7";
/// Of that password: four rounds, since every request is checked.
const HTPASSWD: &str = "admin:$2b$04$VpEUZ9FnqtDm636WQl.SquN5NhGEzxyFyRTdhoBfFKmjq/WW.NxiG\n";
pub(super) const PORT: u16 = 18443;
pub(super) const START: Duration = Duration::from_secs(60);

/// One that runs.
#[derive(Debug)]
pub(super) struct Emulator {
    /// Its files.
    pub(super) folder: PathBuf,
    /// SHA-256 of its public key.
    pub(super) pin: String,
    _daemon: Daemon,
}

/// Whose it is and how it is run.
pub(super) struct Setup<'a> {
    /// For its files.
    pub(super) folder: PathBuf,
    /// Where it listens.
    pub(super) address: String,
    /// `On` or `Off`.
    pub(super) state: &'a str,
    /// Who is told of changes.
    pub(super) notices: Option<String>,
    /// A command that runs a program where the controller is.
    pub(super) place: &'a dyn Fn(&Path) -> Command,
}

impl Emulator {
    pub(super) fn start(setup: Setup<'_>) -> Result<Self> {
        let folder = setup.folder;
        fs::create_dir_all(folder.join("state"))?;
        let home = std::env::current_exe()?;
        let home = home.parent().context("this program lies in a folder")?;
        let peers = home.join("peers");
        let program = tools::packaged("sushy-emulator", "sushy-tools", SUSHY_TOOLS, &peers)?;
        let at = |name: &str| folder.join(name).display().to_string();
        let make = format!(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bmc \
             -keyout {} -out {} 2>/dev/null && openssl x509 -in {} -pubkey -noout \
             | openssl pkey -pubin -outform der | sha256sum",
            at("key.pem"),
            at("cert.pem"),
            at("cert.pem")
        );
        let pin = sh::ok(&["sh", "-c", &make], START)?;
        let pin = pin
            .split_whitespace()
            .next()
            .context("a digest")?
            .to_owned();
        fs::write(folder.join("htpasswd"), HTPASSWD)?;
        let told = setup.notices.as_deref().unwrap_or("http://127.0.0.1:9/");
        let tells = if setup.notices.is_some() {
            "True"
        } else {
            "False"
        };
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{}'\n\
             SUSHY_EMULATOR_LISTEN_PORT = {PORT}\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_AUTH_FILE = '{}'\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\n\
             SUSHY_EMULATOR_SSL_CERT = '{}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{}'\n\
             EXTERNAL_NOTIFICATION_URL = '{told}'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{SYSTEM}', 'name': 'h1', 'power_state': '{}', \
             'external_notifier': {tells}, 'nics': [{{'mac': '52:54:00:AB:00:01', 'ip': '192.0.2.7'}}]}}]\n",
            setup.address,
            at("htpasswd"),
            at("state"),
            at("cert.pem"),
            at("key.pem"),
            setup.state,
        );
        fs::write(folder.join("config.py"), config)?;
        let mut command = (setup.place)(&program);
        command.args(["--config", &at("config.py")]);
        let mut daemon = Daemon::start("sushy-emulator", command, &folder.join("log"))?;
        daemon.wait_line(|line| line.contains("Running on"), START)?;
        Ok(Self {
            folder,
            pin,
            _daemon: daemon,
        })
    }

    /// How often it was told to do something.
    pub(super) fn resets(&self) -> Result<usize> {
        let log = fs::read_to_string(self.folder.join("log"))?;
        let told = log
            .lines()
            .filter(|line| line.contains("POST") && line.contains("ComputerSystem.Reset"));
        Ok(told.count())
    }
}
