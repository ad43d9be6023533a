//! Cloudalone, a small cloud behind the same API as Hetzner's.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};

use super::START;
use crate::{
    product::Daemon,
    sh,
    tools::{self, Missing, tool},
};

const VERSION: &str = "0.2.0";
/// Who has it may do everything there.
pub const TOKEN: &str = "a-token-of-these-tests";
const SERVERS: &str = include_str!("hetzner_servers.py");

/// A cloud with servers, more than fit a page of its API.
#[derive(Debug)]
pub struct Hetzner {
    /// On this port of the loopback interface.
    pub port: u16,
    /// The servers, all of which run.
    pub ids: Vec<u64>,
    _cloud: Daemon,
}

impl Hetzner {
    /// With its files in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let program = program()?;
        let port = super::free_port()?;
        let home = folder.join("cloudalone");
        std::fs::create_dir_all(&home)?;
        let mut command = Command::new(&program);
        command
            .arg("serve")
            .env("CLOUDALONE_CONFIG", home.join("none.toml"))
            .env("CLOUDALONE_BACKEND", "stub")
            .env("CLOUDALONE_TOKEN", TOKEN)
            .env("CLOUDALONE_HOST", "127.0.0.1")
            .env("CLOUDALONE_PORT", port.to_string())
            .env("CLOUDALONE_HOME", &home)
            .env("CLOUDALONE_DB", home.join("db.sqlite"));
        let mut running = Daemon::start("cloudalone", command, &home.join("log"))?;
        running.wait_line(|line| line.contains("running on"), START)?;
        let script = super::written(folder, "hetzner_servers.py", SERVERS)?;
        let url = format!("http://127.0.0.1:{port}/v1");
        let made = super::python(
            &program.with_file_name("python"),
            &script,
            &[url.as_str(), TOKEN],
        )
        .with_context(|| format!("cloudalone's log ends with:\n{}", running.tail(20)))?;
        Ok(Self {
            port,
            ids: serde_json::from_str(&made)?,
            _cloud: running,
        })
    }

    /// A server's status, as the API tells anybody.
    pub fn status(&self, server: u64) -> Result<String> {
        tools::ensure(&[tool("curl", "curl")])?;
        let url = format!("{}/servers/{server}", self.url());
        let token = format!("Authorization: Bearer {TOKEN}");
        let said = sh::ok(
            &["curl", "-sf", "-H", &token, &url],
            Duration::from_secs(20),
        )?;
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let status = said["server"]["status"].as_str();
        Ok(status.context("a server has a status")?.to_owned())
    }

    /// Its API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v1", self.port)
    }
}

/// Cloudalone in an environment of its own. It needs a newer Python than Debian 12 has, and is
/// built against libvirt, which nobody here uses.
fn program() -> Result<PathBuf> {
    let folder = super::folder()?;
    let home = folder.join(format!("cloudalone-{VERSION}"));
    let program = home.join("bin/cloudalone");
    if program.exists() {
        return Ok(program);
    }
    let python = python()?;
    if std::env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        let why = "cloudalone is not installed, and LOOPBACK_NO_INSTALL is set";
        return Err(Missing(why.to_owned()).into());
    }
    tools::ensure(&[
        tool("pkg-config", "pkg-config"),
        tool("/usr/include/libvirt/libvirt.h", "libvirt-dev"),
    ])?;
    // Tests are processes of their own, and the second would clear away what the first installs.
    let _alone = tools::alone(&folder.join("cloudalone.lock"))?;
    if program.exists() {
        return Ok(program);
    }
    let text = home.display().to_string();
    let pip = home.join("bin/pip").display().to_string();
    let wanted = format!("cloudalone=={VERSION}");
    // With a later sqlalchemy this version does not start.
    let packages = [&pip, "install", "--quiet", &wanted, "sqlalchemy<2.1"];
    let venv = [&python, "-m", "venv", "--clear", &text];
    sh::ok(&venv, Duration::from_secs(120))
        .and_then(|_| sh::ok(&packages, Duration::from_secs(400)))
        .map_err(|error| Missing(format!("cloudalone cannot be installed: {error:#}")))?;
    Ok(program)
}

/// A Python that cloudalone runs with: the system's, or one that pyenv keeps.
fn python() -> Result<String, Missing> {
    let new = "import sys; sys.exit(sys.version_info < (3, 12)); ";
    let limit = Duration::from_secs(20);
    let kept = sh::ok(&["pyenv", "root"], limit).unwrap_or_default();
    let kept = std::fs::read_dir(PathBuf::from(kept.trim()).join("versions"));
    let kept = kept.into_iter().flatten().flatten();
    let kept = kept.map(|entry| entry.path().join("bin/python3").display().to_string());
    let mut all = ["python3", "python3.13", "python3.12"]
        .map(str::to_owned)
        .to_vec();
    all.extend(kept);
    all.into_iter()
        .find(|python| sh::ok(&[python, "-c", new], limit).is_ok())
        .ok_or_else(|| Missing("cloudalone needs Python 3.12, and there is none".to_owned()))
}
