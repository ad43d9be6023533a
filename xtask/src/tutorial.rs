//! `cargo xtask tutorial`: does what docs/plugin-authors.md says, to the letter, as a reader would.
//!
//! The guide's blocks say which part of the tour they belong to: `sh rust`, `sh js`, `sh python` and
//! `sh gateway`, and `toml gateway` for what goes into the gateway's configuration. Each part is one
//! shell, in one fresh folder, with the built programs in its `PATH`; the gateway is a real one that
//! somebody has just claimed. Tools of JavaScript and Python come from their registries as the guide
//! has it, through npm's and pip's own caches. Where they cannot be had, the part is a row that says
//! so.
//!
//! Beside the guide stands `loopback-plugin new`: every kind is built in Rust and JavaScript, checked
//! and tested by its own first test; with `--all` in Python, too.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, Result, bail, ensure};
use e2e::{
    interrupt,
    product::{Launch, Programs, World},
    tools::{self, Missing, tool},
};
use lexopt::{Arg, Parser};

use crate::{
    plugins,
    report::Report,
    workspace::{Workspace, program, target_folder, watch},
};

const GUIDE: &str = "docs/plugin-authors.md";

/// Where the guide has the reader put the key that the gateway is to trust.
const KEY: &str = "/etc/loopback/plugin.pub";

/// What the guide needs; for a build of nothing else.
const PRODUCT: &[&str] = &[
    "--package",
    "gateway",
    "--package",
    "cli",
    "--package",
    "devkit",
];

/// Kinds of `loopback-plugin new`.
const KINDS: [&str; 4] = ["installer", "notifier", "policy", "power"];

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut languages = vec!["rust", "js"];
    while let Some(arg) = args.next()? {
        match arg {
            // Each takes a minute: CPython is in it, and is compiled anew.
            Arg::Long("all") => languages.push("python"),
            other => return Err(other.unexpected().into()),
        }
    }
    interrupt::listen()?;
    let mut report = Report::default();
    follow(workspace, PRODUCT, &languages, &mut report)?;
    Ok(report.finish())
}

/// Goes through the guide, and adds one row for each part.
pub(crate) fn check(workspace: &Workspace, packages: &[&str], report: &mut Report) -> Result<()> {
    follow(workspace, packages, &["rust", "js"], report)
}

fn follow(
    workspace: &Workspace,
    packages: &[&str],
    languages: &[&str],
    report: &mut Report,
) -> Result<()> {
    let tour = Tour::begin(workspace, packages)?;
    report.step("tutorial: rust", || tour.rust());
    report.step("tutorial: js", || tour.javascript());
    report.step("tutorial: python", || tour.python());
    report.step("tutorial: gateway", || tour.gateway());
    for language in languages {
        report.step(&format!("new plugins: {language}"), || {
            tour.beginnings(language)
        });
    }
    Ok(())
}

/// The guide, and where it is followed.
struct Tour {
    guide: String,
    folder: PathBuf,
    guests: PathBuf,
    bin: PathBuf,
    programs: Programs,
}

impl Tour {
    fn begin(workspace: &Workspace, packages: &[&str]) -> Result<Self> {
        println!("building the gateway, the CLI and the authors' tool");
        let built = workspace.build(&[packages, &["--bins"]].concat())?;
        let kit = program(&built, "loopback-plugin")?;
        let target = workspace.root().join(target_folder());
        let folder = target.join("tutorial");
        let _ = fs::remove_dir_all(&folder);
        // A checkout of its own, as authors have: plugins of one share what they depend on, and the
        // tour takes minutes less.
        let checkout = folder.join(".git");
        fs::create_dir_all(&checkout).with_context(|| format!("make {}", checkout.display()))?;
        Ok(Self {
            guide: fs::read_to_string(workspace.root().join(GUIDE))
                .with_context(|| format!("read {GUIDE}"))?,
            folder,
            guests: target.join("guests"),
            bin: kit.parent().context("a program is in a folder")?.to_owned(),
            programs: Programs {
                gateway: program(&built, "loopback-gateway")?,
                cli: program(&built, "loopback")?,
                ..Programs::default()
            },
        })
    }

    fn rust(&self) -> Result<()> {
        tools::ensure_target("wasm32-wasip2")?;
        self.follow("sh rust", &[])
    }

    fn javascript(&self) -> Result<()> {
        tools::ensure(&[tool("node", "nodejs"), tool("npm", "npm")])?;
        self.follow("sh js", &[]).map_err(|error| {
            let jco = "my-policy/node_modules/.bin/jco";
            self.or_missing(error, jco, "npm did not bring jco")
        })
    }

    fn python(&self) -> Result<()> {
        tools::ensure(&[tool("python3", "python3")])?;
        self.follow("sh python", &[]).map_err(|error| {
            let componentize = "my-installer/.venv/bin/componentize-py";
            self.or_missing(error, componentize, "pip did not bring componentize-py")
        })
    }

    /// A part failed. Did its tool fail, or was it never there?
    fn or_missing(&self, error: anyhow::Error, tool: &str, why: &str) -> anyhow::Error {
        if self.folder.join(tool).exists() {
            error
        } else {
            Missing(format!("{why}: {error:#}")).into()
        }
    }

    fn gateway(&self) -> Result<()> {
        if !self
            .folder
            .join("my-notifier/my-notifier.wasm.sig")
            .exists()
        {
            return Err(Missing("the part about Rust left no signed plugin".into()).into());
        }
        tools::ensure(&[tool("python3", "python3")])?;
        let settings = self.blocks("toml gateway")?;
        ensure!(settings.contains(KEY), "{GUIDE} does not name {KEY}");
        let key = self.folder.join("plugin.pub").display().to_string();
        let launch = Launch {
            settings: format!("\n{}", settings.replace(KEY, &key)),
            ..Launch::default()
        };
        let world = World::here_with(&self.programs, launch)?;
        let web = ["workspace", "create", "--project", "shop", "web"];
        let production = ["--environment", "production"];
        world.cli().text(&[&web[..], &production].concat())?;
        let port = free_port()?.to_string();
        let config = world.cli().config().display().to_string();
        world.step("the guide, with this gateway", || {
            self.follow(
                "sh gateway",
                &[("LOOPBACK_CONFIG", &config), ("PORT", &port)],
            )
        })?;
        // What the guide shows is what its receiver got.
        let got = fs::read_to_string(self.folder.join("received.txt"))?;
        let there = got.contains("Bearer ") && got.contains("\"text\"");
        ensure!(there, "the receiver got something else: {got}");
        let shown = world.cli().json(&["plugin", "show", "my-notifier"])?;
        ensure!(
            shown["running"]["status"] == "ready" && shown["present"]["signed_by"].is_string(),
            "it does not run as the guide says: {shown}"
        );
        Ok(())
    }

    /// Every kind of plugin in one language, as `new` makes it.
    fn beginnings(&self, language: &str) -> Result<()> {
        let path = if language == "rust" {
            tools::ensure_target("wasm32-wasip2")?;
            env::var_os("PATH").unwrap_or_default()
        } else {
            plugins::tool_path()?
        };
        let path =
            env::join_paths(std::iter::once(self.bin.clone()).chain(env::split_paths(&path)))?;
        let kit = self.bin.join("loopback-plugin");
        let verb = |folder: &Path, args: &[&str]| {
            let mut command = Command::new(&kit);
            command.args(args).current_dir(folder).env("PATH", &path);
            watch(command.env("CARGO_TARGET_DIR", &self.guests))
                .with_context(|| format!("loopback-plugin {}", args.join(" ")))
        };
        for kind in KINDS {
            let name = format!("new-{kind}-{language}");
            verb(
                &self.folder,
                &["new", &name, "--kind", kind, "--lang", language],
            )?;
            let folder = self.folder.join(&name);
            for args in [&["build"][..], &["check"], &["test"]] {
                verb(&folder, args)?;
            }
        }
        Ok(())
    }

    /// Runs the blocks of one part in one shell.
    fn follow(&self, part: &str, env: &[(&str, &str)]) -> Result<()> {
        // What the reader would stop by hand is stopped when a line before that fails, too.
        let script = format!(
            "trap 'test -z \"${{receiver:-}}\" || kill \"$receiver\" 2>/dev/null || :' EXIT\n{}",
            self.blocks(part)?
        );
        let path = env::var_os("PATH").unwrap_or_default();
        let path =
            env::join_paths(std::iter::once(self.bin.clone()).chain(env::split_paths(&path)))?;
        let mut shell = Command::new("sh");
        shell
            .args(["-eu", "-c", &script])
            .current_dir(&self.folder)
            .env("PATH", path)
            // Its own target folder would lie in what is removed each time.
            .env("CARGO_TARGET_DIR", &self.guests)
            // What is in the caches is what was asked for: versions are pinned.
            .env("npm_config_prefer_offline", "true")
            .env("npm_config_audit", "false")
            .env("npm_config_fund", "false")
            .env("npm_config_update_notifier", "false")
            .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
            .envs(env.iter().copied());
        watch(&mut shell).with_context(|| format!("the blocks `{part}` of {GUIDE}"))
    }

    /// The text of all blocks that begin with these words.
    fn blocks(&self, part: &str) -> Result<String> {
        let found = blocks(&self.guide, part);
        if found.is_empty() {
            bail!("{GUIDE} has no blocks that begin with `{part}`");
        }
        Ok(found)
    }
}

fn blocks(guide: &str, part: &str) -> String {
    let fence = format!("\n```{part}\n");
    guide
        .split(fence.as_str())
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect()
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_one_part_follow_each_other() {
        let guide = "a\n```sh js\none\n```\n```sh\nno\n```\nb\n```sh js\ntwo\n```\n";
        assert_eq!(blocks(guide, "sh js"), "one\ntwo\n");
        assert_eq!(blocks(guide, "sh"), "no\n");
        assert_eq!(blocks(guide, "sh python"), "");
    }
}
