//! What the product speaks with: emulators that others wrote and maintain, each installed at one
//! version where it is missing; and where there is none, something that is played here and says so.
//!
//! Tests of plugins and stories of the whole product meet the same ones. Starting one fails with
//! [`Missing`] where this machine cannot have it, and otherwise only for a reason to look at.

pub mod ec2;
pub mod hetzner;
pub mod ipmi;
pub mod outlet;
pub mod proxmox;
pub mod redfish;
pub mod rude;
pub mod wire;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use crate::{sh, tools::Missing};

/// Peers are programs in Python, which begin slowly on a busy machine.
const START: Duration = Duration::from_secs(90);

/// Where peers are installed to and kept: beside the programs that are built.
pub fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let home = program
        .ancestors()
        .skip(1)
        .find(|folder| !folder.ends_with("deps"))
        .context("this program lies in a folder")?;
    let folder = home.join("peers");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder)
}

/// What came of starting a peer, if this machine can have it; else why it cannot.
pub fn had<T>(started: Result<T>) -> Result<std::result::Result<T, Missing>> {
    match started {
        Ok(peer) => Ok(Ok(peer)),
        Err(error) => error.downcast::<Missing>().map(Err),
    }
}

/// A port that was free a moment ago. Whoever takes it meanwhile makes the peer end at once.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// A file of this module's folder, written to where a program can read it.
fn written(folder: &Path, name: &str, content: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, content).with_context(|| path.display().to_string())?;
    Ok(path)
}

/// What a script of Python prints.
fn python(program: &Path, script: &Path, args: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.arg(script).args(args);
    let output = sh::run(&mut command, START)?;
    ensure!(output.status.success(), "{output}");
    Ok(output.stdout)
}
