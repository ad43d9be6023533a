//! A controller that somebody wrote in an afternoon: it checks signatures with their time, does an
//! action once for each key, and finishes jobs when it is asked.

use std::{path::Path, process::Command};

use anyhow::Result;
use serde_json::{Value, json};

use super::START;
use crate::{
    product::Daemon,
    tools::{self, tool},
};

/// What requests are signed with.
pub const KEY: &str = "a-key-that-both-know";
/// The outlet that it has.
pub const ADDRESS: &str = "rack 1/7";
const PROGRAM: &str = include_str!("outlet.py");

/// A controller with one outlet, which is off.
#[derive(Debug)]
pub struct Outlet {
    /// On this port of the loopback interface.
    pub port: u16,
    _program: Daemon,
}

impl Outlet {
    /// With its files in `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        tools::ensure(&[tool("python3", "python3")])?;
        let script = super::written(folder, "outlet.py", PROGRAM)?;
        let mut command = Command::new("python3");
        command.arg("-u").arg(script).arg(KEY);
        let mut running = Daemon::start(
            "the outlet's controller",
            command,
            &folder.join("outlet.log"),
        )?;
        let line = running.wait_line(|line| line.starts_with("port "), START)?;
        Ok(Self {
            port: line.trim_start_matches("port ").parse()?,
            _program: running,
        })
    }

    /// How `power-webhook` is configured for it.
    pub fn configuration(&self) -> Value {
        let action = |path: &str| json!({ "path": path });
        json!({
            "url": format!("http://127.0.0.1:{}", self.port),
            "sign": true,
            "actions": {
                "on": { "path": "/outlets/{address}/power", "method": "PUT" },
                "off": { "path": "/outlets/{address}/power", "method": "PUT" },
                "cycle": action("/outlets/{address}/cycle"),
            },
            "observe": {
                "path": "/outlets/{address}", "state": "/relay/closed",
                "boot_mark": "/relay/changes", "states": { "true": "on", "false": "off" },
            },
            "poll": {
                "job": "/job", "path": "/jobs/{job}", "state": "/is",
                "running": ["busy"], "done": ["done"], "failed": ["failed"],
            },
        })
    }
}
