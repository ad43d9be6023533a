//! Sushy-emulator, which OpenStack tests its own client with: a management controller that speaks
//! Redfish over TLS, with a certificate that only its key vouches for, and with basic
//! authentication. It applies what it was told some seconds later, as controllers do.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::START;
use crate::{
    lab::Place,
    product::Daemon,
    sh,
    tools::{self, tool},
};

const VERSION: &str = "2.2.0";
/// Whose password it is.
pub const USER: &str = "admin";
/// Of that user.
pub const PASSWORD: &str = "correct-horse-7";
/// Of that password: four rounds, since every request is checked.
const HTPASSWD: &str = "admin:$2b$04$VpEUZ9FnqtDm636WQl.SquN5NhGEzxyFyRTdhoBfFKmjq/WW.NxiG\n";

/// A system of a controller.
#[derive(Debug, Clone, Copy)]
pub struct System {
    /// Its UUID, which is its serial number too.
    pub uuid: &'static str,
    /// Its name.
    pub name: &'static str,
    /// `On` or `Off`.
    pub state: &'static str,
    /// Of its network card.
    pub mac: &'static str,
}

/// Whose it is and how it is run.
#[derive(Debug)]
pub struct Setup<'a> {
    /// For its files.
    pub folder: &'a Path,
    /// From where it is reached.
    pub place: &'a Place,
    /// Where it listens there; a free port without one.
    pub address: (Ipv4Addr, Option<u16>),
    /// What it controls.
    pub systems: &'a [System],
    /// Who is told of changes.
    pub notices: Option<String>,
}

/// A controller that runs.
#[derive(Debug)]
pub struct Redfish {
    /// Where it listens.
    pub address: Ipv4Addr,
    /// And on which port.
    pub port: u16,
    /// SHA-256 of its public key.
    pub pin: String,
    folder: PathBuf,
    place: Place,
    _daemon: Daemon,
}

impl Redfish {
    /// Starts one.
    pub fn start(setup: Setup<'_>) -> Result<Self> {
        let program = tools::packaged("sushy-emulator", "sushy-tools", VERSION, &super::folder()?)?;
        tools::ensure(&[tool("openssl", "openssl"), tool("curl", "curl")])?;
        let (address, port) = setup.address;
        let port = port.map_or_else(super::free_port, Ok)?;
        let folder = setup.folder.to_owned();
        fs::create_dir_all(folder.join("state"))?;
        let at = |name: &str| folder.join(name).display().to_string();
        let pin = key(&folder)?;
        fs::write(folder.join("htpasswd"), HTPASSWD)?;
        let told = setup.notices.as_deref().unwrap_or("http://127.0.0.1:9/");
        let tells = if setup.notices.is_some() {
            "True"
        } else {
            "False"
        };
        let systems = setup.systems.iter().map(|system| {
            format!(
                "{{'uuid': '{}', 'name': '{}', 'power_state': '{}', 'external_notifier': {tells}, \
                 'nics': [{{'mac': '{}', 'ip': '192.0.2.7'}}]}}",
                system.uuid, system.name, system.state, system.mac
            )
        });
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{address}'\n\
             SUSHY_EMULATOR_LISTEN_PORT = {port}\n\
             SUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_AUTH_FILE = '{}'\n\
             SUSHY_EMULATOR_STATE_DIR = '{}'\n\
             SUSHY_EMULATOR_SSL_CERT = '{}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{}'\n\
             EXTERNAL_NOTIFICATION_URL = '{told}'\n\
             SUSHY_EMULATOR_FAKE_SYSTEMS = [{}]\n",
            at("htpasswd"),
            at("state"),
            at("cert.pem"),
            at("key.pem"),
            systems.collect::<Vec<_>>().join(", "),
        );
        fs::write(folder.join("config.py"), config)?;
        let mut command = setup.place.command(&program);
        command.args(["--config", &at("config.py")]);
        let mut daemon = Daemon::start("sushy-emulator", command, &folder.join("log"))?;
        daemon.wait_line(|line| line.contains("Running on"), START)?;
        Ok(Self {
            address,
            port,
            pin,
            folder,
            place: setup.place.clone(),
            _daemon: daemon,
        })
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.port)
    }

    /// How often it was told to do something.
    pub fn resets(&self) -> Result<usize> {
        let log = fs::read_to_string(self.folder.join("log"))?;
        let told = log
            .lines()
            .filter(|line| line.contains("POST") && line.contains("ComputerSystem.Reset"));
        Ok(told.count())
    }

    /// What its own page says of a system, by another client.
    pub fn says(&self, system: &str) -> Result<Value> {
        let said = self.curl(&[&format!("{}/redfish/v1/Systems/{system}", self.url())])?;
        serde_json::from_str(&said).context("read a page")
    }

    /// Has somebody else tell it to cut a system's power.
    pub fn tell_off(&self, system: &str) -> Result<()> {
        let reset = format!(
            "{}/redfish/v1/Systems/{system}/Actions/ComputerSystem.Reset",
            self.url()
        );
        self.curl(&["--json", "{\"ResetType\":\"ForceOff\"}", &reset])
            .map(drop)
    }

    fn curl(&self, args: &[&str]) -> Result<String> {
        let curl = tools::find("curl").context("curl is not installed")?;
        let mut command = self.place.command(&curl);
        command
            .args(["--silent", "--fail", "--insecure", "--user"])
            .arg(format!("{USER}:{PASSWORD}"))
            .args(args);
        let output = sh::run(&mut command, START)?;
        ensure!(
            output.status.success(),
            "the controller does not listen: {output}"
        );
        Ok(output.stdout)
    }
}

/// Makes a key and a certificate of its own; the SHA-256 of the public key.
fn key(folder: &Path) -> Result<String> {
    let at = |name: &str| folder.join(name).display().to_string();
    let make = format!(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=bmc \
         -keyout {} -out {} 2>/dev/null && openssl x509 -in {} -pubkey -noout \
         | openssl pkey -pubin -outform der | sha256sum",
        at("key.pem"),
        at("cert.pem"),
        at("cert.pem")
    );
    let pin = sh::ok(&["sh", "-c", &make], Duration::from_secs(60))?;
    let pin = pin.split_whitespace().next().context("a digest")?;
    Ok(pin.to_owned())
}
