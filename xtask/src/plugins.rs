//! `cargo xtask plugins`: every component there is, built by the author's own tool, and the native
//! tests of the guests.
//!
//! Components go to `plugins/` in the target folder, where tests of the host look for them. Rust is
//! incremental by cargo. The tools of the other languages are not, so what they made stays while
//! nothing that they read is newer. Those tools come from their languages' registries, at exactly
//! one version, into a cache outside of the checkout: every clone would otherwise fetch some hundred
//! megabytes of them.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    sh,
    tools::{self, tool},
};
use lexopt::Parser;

use crate::workspace::{Workspace, program, target_folder, watch};

/// The workspace of Rust guests that come with the product.
const GUESTS: &str = "plugins";

/// What is built, and by what.
const COMPONENTS: &[(&str, Language)] = &[
    ("plugins/install-default", Language::Rust),
    ("plugins/notify-webhook", Language::Rust),
    ("plugins/policy-window", Language::Rust),
    ("plugins/power-ec2", Language::Rust),
    ("plugins/power-hetzner", Language::Rust),
    ("plugins/power-ipmi", Language::Rust),
    ("plugins/power-proxmox", Language::Rust),
    ("plugins/power-redfish", Language::Rust),
    ("plugins/power-webhook", Language::Rust),
    ("plugins/power-wol", Language::Rust),
    ("examples/plugins/rust-installer", Language::Rust),
    ("examples/plugins/rust-policy", Language::Rust),
    ("examples/plugins/js-installer", Language::Js),
    ("examples/plugins/python-notifier", Language::Python),
];

/// The version that `package.json` of the examples names.
const JCO: &str = "1.35.0";
/// The version that `requirements.txt` of the examples names.
const COMPONENTIZE_PY: &str = "0.25.1";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Language {
    Rust,
    Js,
    Python,
}

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    native_tests(workspace)?;
    components(workspace)?;
    Ok(ExitCode::SUCCESS)
}

/// The SDK's and the guests' own tests, and their lints.
pub(crate) fn native_tests(workspace: &Workspace) -> Result<()> {
    let manifest = format!("{GUESTS}/Cargo.toml");
    let folder = target_folder().join("guests");
    for words in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--workspace", "--all-targets", "--locked"],
        &["test", "--workspace", "--locked", "--quiet"],
    ] {
        let mut command = workspace.cargo(&[words[0], "--manifest-path", &manifest]);
        command.args(&words[1..]);
        if words[0] == "clippy" {
            command.args(["--", "-D", "warnings"]);
        }
        watch(command.env("CARGO_TARGET_DIR", absolute(workspace, &folder)))?;
    }
    Ok(())
}

/// Builds and tests all components. Answers the folder that they are in.
pub(crate) fn components(workspace: &Workspace) -> Result<PathBuf> {
    let all: Vec<_> = COMPONENTS.iter().map(|(folder, _)| *folder).collect();
    build(workspace, &all)
}

/// The authors' tool.
pub(crate) fn kit(workspace: &Workspace) -> Result<PathBuf> {
    let built = workspace.build(&["--package", "devkit", "--bin", "loopback-plugin"])?;
    program(&built, "loopback-plugin")
}

/// Builds and tests some of them.
pub(crate) fn build(workspace: &Workspace, wanted: &[&str]) -> Result<PathBuf> {
    tools::ensure_target("wasm32-wasip2")?;
    let kit = kit(workspace)?;
    let out = absolute(workspace, &target_folder().join("plugins"));
    fs::create_dir_all(&out).with_context(|| format!("make {}", out.display()))?;
    let wanted: Vec<_> = COMPONENTS
        .iter()
        .filter(|(folder, _)| wanted.contains(folder))
        .collect();
    // The tools of other languages are fetched when something is written in them.
    let path = if wanted
        .iter()
        .all(|(_, language)| *language == Language::Rust)
    {
        env::var_os("PATH").unwrap_or_default()
    } else {
        tool_path()?
    };
    for (folder, language) in wanted {
        let folder = workspace.root().join(folder);
        let name = folder
            .file_name()
            .context("a component's folder has a name")?;
        let component = out.join(name).with_extension("wasm");
        let sources = [folder.as_path(), &workspace.root().join("wit"), &kit];
        if *language == Language::Rust || !is_newer(&component, &sources)? {
            let mut build = Command::new(&kit);
            build.arg("build").arg(&folder).arg("--out").arg(&component);
            watch(build.env("PATH", &path).env(
                "CARGO_TARGET_DIR",
                absolute(workspace, &target_folder().join("guests")),
            ))?;
        }
        if folder.join("tests").exists() {
            let mut test = Command::new(&kit);
            test.arg("test")
                .arg(&folder)
                .arg("--component")
                .arg(&component);
            watch(&mut test)?;
        }
        if folder.join("tests/conformance.toml").exists() {
            let mut test = Command::new(&kit);
            test.args(["test", "--conformance", "power"])
                .arg(&folder)
                .arg("--component")
                .arg(&component);
            watch(&mut test)?;
        }
    }
    Ok(out)
}

fn absolute(workspace: &Workspace, folder: &Path) -> PathBuf {
    workspace.root().join(folder)
}

/// `PATH` with the tools of the other languages in front.
pub(crate) fn tool_path() -> Result<OsString> {
    let cache = tools::cache_folder();
    let python = tools::packaged(
        "componentize-py",
        "componentize-py",
        COMPONENTIZE_PY,
        &cache,
    )?;
    let folders = [jco(&cache)?, python.parent().unwrap_or(&cache).to_owned()];
    let path = env::var_os("PATH").unwrap_or_default();
    Ok(env::join_paths(
        folders.into_iter().chain(env::split_paths(&path)),
    )?)
}

/// The folder that jco is in; installs it when it is not there.
fn jco(cache: &Path) -> Result<PathBuf> {
    let home = cache.join(format!("jco-{JCO}"));
    let bin = home.join("node_modules/.bin");
    if bin.join("jco").exists() {
        return Ok(bin);
    }
    tools::ensure(&[tool("npm", "npm")])?;
    println!("      installing jco {JCO} into {}", home.display());
    // Beside its final place: an installation that was cut off is not taken for one.
    let partial = cache.join(format!("partial-jco-{}", std::process::id()));
    fs::create_dir_all(&partial).with_context(|| format!("make {}", partial.display()))?;
    fs::write(partial.join("package.json"), "{\"private\":true}\n")?;
    let package = format!("@bytecodealliance/jco@{JCO}");
    let mut npm = Command::new("npm");
    npm.current_dir(&partial).args([
        "install",
        "--no-save",
        "--no-package-lock",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        &package,
    ]);
    let output = sh::run(&mut npm, Duration::from_secs(900))?;
    ensure!(
        output.status.success(),
        "installing {package} did not work: {}",
        output.stderr.trim()
    );
    // Whoever was faster has the same.
    if fs::rename(&partial, &home).is_err() {
        let _ = fs::remove_dir_all(&partial);
    }
    Ok(bin)
}

/// Whether `file` is newer than everything beneath `sources`.
fn is_newer(file: &Path, sources: &[&Path]) -> Result<bool> {
    let Ok(made) = fs::metadata(file).and_then(|data| data.modified()) else {
        return Ok(false);
    };
    let mut latest = SystemTime::UNIX_EPOCH;
    let mut rest: Vec<PathBuf> = sources.iter().map(|&path| path.to_owned()).collect();
    while let Some(path) = rest.pop() {
        let data = fs::metadata(&path).with_context(|| format!("look at {}", path.display()))?;
        latest = latest.max(data.modified()?);
        if data.is_dir() {
            for entry in fs::read_dir(&path)? {
                rest.push(entry?.path());
            }
        }
    }
    Ok(made > latest)
}
