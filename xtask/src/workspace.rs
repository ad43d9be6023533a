//! The checkout and what cargo builds from it.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use e2e::sh;

/// Builds on a small busy machine take their time; nothing takes this long.
const BUILD: Duration = Duration::from_secs(3600);

/// A file of the checkout.
#[derive(Debug)]
pub(crate) struct Source {
    /// Relative to the root, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// The checkout this program was built from.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the checkout and makes its root the working directory.
    pub(crate) fn find() -> Result<Self> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here
            .parent()
            .context("xtask lies in the checkout")?
            .to_owned();
        ensure!(
            root.join("Cargo.toml").exists(),
            "the checkout {} is gone; build xtask again where it is now",
            root.display()
        );
        env::set_current_dir(&root).context("enter the checkout")?;
        Ok(Self { root })
    }

    /// The checkout's root.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What the checkout has, relative to its root. What is not committed yet counts too; what
    /// git ignores does not.
    pub(crate) fn files(&self) -> Result<Vec<String>> {
        let list = sh::ok(
            &[
                "git",
                "ls-files",
                "--cached",
                "--others",
                "--exclude-standard",
            ],
            Duration::from_secs(30),
        )
        .context("list the checkout's files")?;
        let there = list.lines().filter(|path| self.root.join(path).exists());
        Ok(there.map(str::to_owned).collect())
    }

    /// The Rust files among `files`.
    pub(crate) fn rust(&self, files: &[String]) -> Result<Vec<Source>> {
        let rust = files.iter().filter(|path| path.ends_with(".rs"));
        rust.map(|path| {
            let text =
                fs::read_to_string(self.root.join(path)).with_context(|| format!("read {path}"))?;
            Ok(Source {
                path: path.clone(),
                text,
            })
        })
        .collect()
    }

    /// A cargo command in the checkout.
    pub(crate) fn cargo(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).args(args);
        command
    }

    /// Runs cargo with its output shown, and insists on success.
    pub(crate) fn cargo_ok(&self, args: &[&str]) -> Result<()> {
        watch(&mut self.cargo(args))
    }

    /// Builds programs and tells where they lie, by name. `args` say which and how.
    pub(crate) fn build(&self, args: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
        self.build_with(args, &[])
    }

    /// [`Self::build`] with environment variables for the build.
    pub(crate) fn build_with(
        &self,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> Result<BTreeMap<String, PathBuf>> {
        let mut command = self.cargo(&["build", "--locked", "--message-format=json"]);
        command.args(args).envs(env.iter().copied());
        let output = sh::run(&mut command, BUILD)?;
        let mut programs = BTreeMap::new();
        for line in output.stdout.lines() {
            let message: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
            if let Some(text) = message["message"]["rendered"].as_str() {
                eprint!("{text}");
            }
            if let (Some(name), Some(path)) = (
                message["target"]["name"].as_str(),
                message["executable"].as_str(),
            ) {
                programs.insert(name.to_owned(), path.into());
            }
        }
        if !output.status.success() {
            bail!(
                "cargo build {} did not succeed:\n{}",
                args.join(" "),
                output.stderr.trim()
            );
        }
        Ok(programs)
    }
}

/// Where builds and what goes with them lie, seen from the checkout's root.
pub(crate) fn target_folder() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from)
}

/// Runs a command with its output shown, and insists on success.
pub(crate) fn watch(command: &mut Command) -> Result<()> {
    let status = sh::watch(command, BUILD)?;
    ensure!(
        status.success(),
        "{} ended with {status}",
        command.get_program().display()
    );
    Ok(())
}

/// The program `name` of a build.
pub(crate) fn program(programs: &BTreeMap<String, PathBuf>, name: &str) -> Result<PathBuf> {
    programs
        .get(name)
        .cloned()
        .with_context(|| format!("the build has no program {name}"))
}
