//! From sources to the one file that is installed: the language's own tool makes a component, the
//! manifest is put into it, and what only debuggers read is taken out.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use model::plugin::PluginDigest;

use crate::component;
use crate::project::{Language, Project, world};
use crate::say;

/// The target of Rust plugins: cargo makes components of it by itself.
const TARGET: &str = "wasm32-wasip2";

/// A component that was built.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) path: PathBuf,
    pub(crate) digest: PluginDigest,
    pub(crate) size: usize,
}

/// Builds a project into `out`.
pub(crate) fn build(project: &Project, out: &Path) -> Result<Built> {
    let begun = Instant::now();
    let raw = match project.language {
        Language::Rust => rust(project)?,
        Language::Js => javascript(project)?,
        Language::Python => python(project)?,
    };
    let packed = component::pack(&raw, &project.manifest).context("put the manifest in")?;
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    }
    // Whoever watches the file sees the old one or the new one, whole.
    let aside = out.with_extension("wasm.new");
    fs::write(&aside, &packed).with_context(|| format!("write {}", aside.display()))?;
    fs::rename(&aside, out).with_context(|| format!("write {}", out.display()))?;
    let built = Built {
        path: out.to_owned(),
        digest: PluginDigest::of(&packed),
        size: packed.len(),
    };
    say(&format!(
        "{}  {} kB  {}  ({:.1} s)",
        built.path.display(),
        built.size.div_ceil(1000),
        built.digest,
        begun.elapsed().as_secs_f32()
    ));
    Ok(built)
}

fn rust(project: &Project) -> Result<Vec<u8>> {
    say(&format!("cargo build --release --target {TARGET}"));
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(&project.folder)
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        // The paths of this machine are nobody's business, and would make the digest differ from
        // that of a build elsewhere.
        .env("CARGO_ENCODED_RUSTFLAGS", remap(&project.folder));
    // A tool that cargo runs is told things about its own build, which are not this one's.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_MANIFEST_PATH", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output()
        .context("run cargo: install Rust with rustup")?;
    if !output.status.success() {
        ensure!(
            has_target(),
            "the target {TARGET} is not installed: rustup target add {TARGET}"
        );
        bail!("cargo build did not succeed");
    }
    let manifest = project.folder.join("Cargo.toml");
    let artifact = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["manifest_path"].as_str().map(Path::new) == Some(&manifest))
        .flat_map(|message| message["filenames"].as_array().cloned().unwrap_or_default())
        .filter_map(|name| name.as_str().map(PathBuf::from))
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .context(
            "cargo made no component: Cargo.toml needs `[lib]` with `crate-type = [\"cdylib\"]`",
        )?;
    fs::read(&artifact).with_context(|| format!("read {}", artifact.display()))
}

/// Has the compiler write short paths instead of this machine's. The same for all plugins of a
/// checkout, so that cargo builds what they share once.
fn remap(folder: &Path) -> OsString {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")));
    let checkout = folder
        .ancestors()
        .find(|folder| folder.join(".git").exists());
    let mut flags = OsString::new();
    let places = [
        (home.as_deref(), "cargo"),
        (Some(checkout.unwrap_or(folder)), "plugin"),
    ];
    for (from, to) in places {
        let Some(from) = from else { continue };
        if !flags.is_empty() {
            flags.push("\u{1f}");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push(format!("=/{to}"));
    }
    flags
}

fn has_target() -> bool {
    let list = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    list.is_ok_and(|output| {
        let path = String::from_utf8_lossy(&output.stdout);
        output.status.success() && Path::new(path.trim()).exists()
    })
}

fn javascript(project: &Project) -> Result<Vec<u8>> {
    let folder = &project.folder;
    let text = fs::read_to_string(folder.join("package.json")).context("read package.json")?;
    let package: serde_json::Value =
        serde_json::from_str(&text).context("understand package.json")?;
    let source = package["main"]
        .as_str()
        .context("package.json must name the source as `main`")?;
    let jco = tool(folder, "jco", "node_modules/.bin/jco").context(
        "jco is not here: npm install, in the plugin's folder (package.json names its version)",
    )?;
    let out = scratch(project)?;
    // QuickJS: 1.6 MB that compile in a second, where the other engine makes 12 MB. Without async,
    // which the contract has not, and without WASI, which answers nothing here.
    let mut command = Command::new(jco);
    command
        .current_dir(folder)
        .args(["componentize", source, "--wit", "wit", "--world-name"])
        .arg(world(project.kind()?))
        .args(["--backend", "quickjs"])
        .args(["--backend-qjs-disable-async", "--backend-qjs-stub-wasi"])
        .arg("--out")
        .arg(&*out);
    run("jco componentize", &mut command)?;
    fs::read(&*out).context("read what jco made")
}

fn python(project: &Project) -> Result<Vec<u8>> {
    let folder = &project.folder;
    let name = "componentize-py";
    let componentize = tool(folder, name, ".venv/bin/componentize-py").context(
        "componentize-py is not here: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt, \
         in the plugin's folder",
    )?;
    let out = scratch(project)?;
    let mut command = Command::new(componentize);
    command
        .current_dir(folder)
        .args(["--wit-path", "wit", "--world"])
        .arg(world(project.kind()?))
        .args(["componentize", "app", "--output"])
        .arg(&*out);
    run(name, &mut command)?;
    fs::read(&*out).context("read what componentize-py made")
}

/// The project's own tool before any other, so that the version is the one that it names.
fn tool(folder: &Path, name: &str, beneath: &str) -> Option<PathBuf> {
    let own = folder.ancestors().map(|folder| folder.join(beneath));
    let path = env::var_os("PATH").unwrap_or_default();
    let others: Vec<_> = env::split_paths(&path)
        .map(|folder| folder.join(name))
        .collect();
    own.chain(others).find(|path| path.is_file())
}

/// A place for what a tool writes, gone when dropped.
fn scratch(project: &Project) -> Result<tempfile::TempPath> {
    let file = tempfile::Builder::new()
        .prefix(project.manifest.name.as_str())
        .suffix(".wasm")
        .tempfile()
        .context("make a temporary file")?;
    Ok(file.into_temp_path())
}

fn run(what: &str, command: &mut Command) -> Result<()> {
    say(what);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {what}"))?;
    if !output.status.success() {
        say(String::from_utf8_lossy(&output.stdout).trim());
        say(String::from_utf8_lossy(&output.stderr).trim());
        bail!("{what} did not succeed");
    }
    Ok(())
}
