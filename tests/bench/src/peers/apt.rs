//! Programs out of Debian packages, without installing the packages: no service starts, no
//! system file changes, and root is not needed.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result};
use e2e::{say, sh};

const DOWNLOAD: Duration = Duration::from_secs(300);

/// An unpacked program.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    libraries: OsString,
}

impl Program {
    /// A command that runs it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env("LD_LIBRARY_PATH", &self.libraries);
        command
    }
}

/// The program at `path` (within the packages) of `packages`; libraries it needs that a minimal
/// system lacks are packages of the list, too.
pub(super) fn program(path: &str, packages: &[&str]) -> Result<Program> {
    let root = super::folder("apt")?;
    let file = root.join(path);
    if !file.exists() {
        say::line(format_args!("      unpacking {}", packages.join(" ")));
        let fetch = |()| {
            let mut command = Command::new("apt-get");
            command.arg("download").args(packages).current_dir(&root);
            sh::run(&mut command, DOWNLOAD)?.ok()
        };
        // Usually the lists are only old, or absent as in a fresh container.
        fetch(()).or_else(|_| {
            sh::ok(&["apt-get", "update", "-q"], DOWNLOAD)?;
            fetch(())
        })?;
        for entry in fs::read_dir(&root).context("look at what came")? {
            let package = entry?.path();
            if package.extension().is_some_and(|it| it == "deb") {
                let mut unpack = Command::new("dpkg-deb");
                unpack.arg("-x").arg(&package).arg(&root);
                sh::run(&mut unpack, DOWNLOAD)?.ok()?;
                fs::remove_file(&package)?;
            }
        }
    }
    anyhow::ensure!(file.exists(), "the packages have no {path}");
    Ok(Program {
        path: file,
        libraries: libraries(&root),
    })
}

fn libraries(root: &Path) -> OsString {
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = ["lib", "usr/lib"].map(|lib| root.join(lib).join(&triplet));
    // Neither folder's name holds a colon.
    std::env::join_paths(folders).unwrap_or_default()
}
