//! Moto, which checks signatures and permissions as AWS does.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use super::START;
use crate::{product::Daemon, tools};

const VERSION: &str = "5.2.5";
/// Where its instances are.
pub const REGION: &str = "eu-central-1";
const ACCOUNT: &str = include_str!("ec2_account.py");
const STATE: &str = include_str!("ec2_state.py");

/// A key of the account: its id and its secret.
pub type Key = (String, String);

/// An account with two instances that run, and one that was terminated.
#[derive(Debug)]
pub struct Ec2 {
    /// Its API.
    pub url: String,
    /// On this port of the loopback interface.
    pub port: u16,
    /// The instances; the last one was terminated.
    pub ids: Vec<String>,
    /// A key that may look, start, stop and reboot.
    pub power: Key,
    /// A key that may look.
    pub looks: Key,
    folder: PathBuf,
    python: PathBuf,
    _moto: Daemon,
}

impl Ec2 {
    /// With its files in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let moto = tools::packaged("moto_server", "moto[server]", VERSION, &super::folder()?)?;
        let port = super::free_port()?;
        let mut command = Command::new(&moto);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let mut running = Daemon::start("moto", command, &folder.join("moto.log"))?;
        running.wait_line(|line| line.contains("Running on"), START)?;
        let url = format!("http://127.0.0.1:{port}");
        let script = super::written(folder, "ec2_account.py", ACCOUNT)?;
        // Its own, which has what the script needs; the system's where moto was installed into that.
        let own = moto.with_file_name("python");
        let python = if own.exists() { own } else { "python3".into() };
        let made = super::python(&python, &script, &[&url, REGION])
            .with_context(|| format!("moto's log ends with:\n{}", running.tail(20)))?;
        let made: Value = serde_json::from_str(&made)?;
        let key = |name: &str| -> Result<Key> { Ok(serde_json::from_value(made[name].clone())?) };
        Ok(Self {
            url,
            port,
            ids: serde_json::from_value(made["ids"].clone())?,
            power: key("power")?,
            looks: key("looks")?,
            folder: folder.to_owned(),
            python,
            _moto: running,
        })
    }

    /// An instance's state, as AWS's own client sees it.
    pub fn state(&self, instance: &str) -> Result<String> {
        let script = super::written(&self.folder, "ec2_state.py", STATE)?;
        let (id, secret) = &self.power;
        let said = super::python(
            &self.python,
            &script,
            &[&self.url, REGION, id, secret, instance],
        );
        Ok(said?.trim().to_owned())
    }
}
