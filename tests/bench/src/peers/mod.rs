//! Other people's servers, installed and run by the bench itself.
//!
//! Nothing is installed into the system: Debian packages are downloaded and unpacked, Python and
//! npm packages go into folders, all below `target/bench-peers`, where the next run finds them.
//! What cannot be had is an [`e2e::tools::Missing`], which a figure shows as "peer missing".

mod apt;
mod brokers;
mod idle;
pub(crate) mod salt;
pub(crate) mod ssh;

use std::{path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use e2e::{say, sh, tools::Missing};

pub(crate) use brokers::{Broker, Kind};
pub(crate) use idle::{Idle, look, mesh_central, node_exporter, salt_minion};

/// Where peers are kept.
fn folder(name: &str) -> Result<PathBuf> {
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    let folder = target.join("bench-peers").join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    folder.canonicalize().context("find the peers' folder")
}

/// Python with a package of PyPI.
fn python(package: &str) -> Result<PathBuf> {
    const INSTALL: Duration = Duration::from_secs(600);
    let home = folder(package)?;
    let (python, done) = (home.join("bin/python"), home.join("installed"));
    if !done.exists() {
        say::line(format_args!("      installing {package} from PyPI"));
        let home = home.display().to_string();
        sh::ok(&["python3", "-m", "venv", &home], INSTALL)?;
        let python = python.display().to_string();
        sh::ok(&[&python, "-m", "pip", "install", "-q", package], INSTALL)?;
        std::fs::write(&done, "")?;
    }
    Ok(python)
}

fn missing(what: &str) -> impl Fn(anyhow::Error) -> Missing {
    let what = what.to_owned();
    move |error| Missing(format!("{what}: {error:#}"))
}
