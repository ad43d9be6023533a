//! `loopback-plugin`: what an author of plugins works with.
//!
//! A program of its own, because it carries the runtime of plugins, which the operator's `loopback`
//! does without: that one hands `loopback plugin new|build|…` on to this.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks through its standard streams"
)]

mod build;
mod component;
mod conformance;
mod datagrams;
mod dev;
mod fixture;
mod keys;
mod look;
mod new;
mod project;
mod push;
mod runtime;
mod surroundings;
mod test;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use model::names::Name;
use model::plugin::PluginKind;
use project::{Language, Project};

/// Writes, builds and tests plugins.
#[derive(Debug, Parser)]
#[command(name = "loopback-plugin", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Begin a plugin: a folder with sources, the contract, a manifest and a test
    New {
        /// The plugin's name; the folder is called like it
        name: Name,
        /// installer, notifier or policy
        #[arg(long, value_parser = kind)]
        kind: PluginKind,
        /// The language
        #[arg(long, value_enum, default_value = "rust")]
        lang: Language,
    },
    /// Build a component: one file, with the manifest in it
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where the component goes; the folder, under the plugin's name
        #[arg(long, short)]
        out: Option<PathBuf>,
    },
    /// Check that a component is a plugin that a gateway would take
    Check {
        /// The component, or the plugin's folder
        #[arg(default_value = ".")]
        path: PathBuf,
    },
    /// Show what a component is and wants
    Inspect {
        /// The component, or the plugin's folder
        #[arg(default_value = ".")]
        path: PathBuf,
    },
    /// Run the tests in the folder `tests`
    Test {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// The component; by default the one that `build` makes
        #[arg(long)]
        component: Option<PathBuf>,
        /// Instead, hold the plugin against what its kind promises: power
        #[arg(long, value_name = "KIND", value_parser = kind)]
        conformance: Option<PluginKind>,
    },
    /// Build and test again whenever a file changes
    Dev {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Measure the call of the first test
    Bench {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// How many calls
        #[arg(long, default_value_t = 200)]
        calls: u32,
    },
    /// Make a recorded call again and compare
    Replay {
        /// The component
        file: PathBuf,
        /// The recorded call, JSON
        call: PathBuf,
    },
    /// Make a key to sign components with
    Keygen {
        /// The file for the secret half; it must not be there yet
        file: PathBuf,
    },
    /// Sign a component, into FILE.sig
    Sign {
        /// The component
        file: PathBuf,
        /// The secret key
        #[arg(long)]
        key: PathBuf,
    },
    /// Put a component, and FILE.sig if it is there, into a registry
    Push(push::Push),
    /// Check a component against FILE.sig
    Verify {
        /// The component
        file: PathBuf,
        /// A file with public keys, one a line
        #[arg(long)]
        keys: PathBuf,
    },
}

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1);
    if args.next().is_some_and(|arg| arg == runtime::COMPILER) {
        return plugin_host::compile_main(args);
    }
    match run(Args::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::New { name, kind, lang } => new::new(&name, kind, lang),
        Command::Check { path } => wait(look::check(&component_of(&path)?)),
        Command::Inspect { path } => look::inspect(&component_of(&path)?),
        Command::Test {
            folder,
            component,
            conformance,
        } => {
            let component = component.map_or_else(|| component_of(&folder), Ok)?;
            match conformance {
                None => wait(test::run(&folder, &component)),
                Some(PluginKind::Power) => wait(conformance::run(&folder, &component)),
                Some(other) => bail!("there is no conformance suite for kind {}", other.as_str()),
            }
        }
        Command::Dev { folder } => dev::watch(&folder),
        Command::Bench { folder, calls } => {
            wait(test::bench(&folder, &component_of(&folder)?, calls))
        }
        Command::Replay { file, call } => wait(test::replay(&file, &call)),
        Command::Build { folder, out } => {
            let project = Project::open(&folder)?;
            let out = out.unwrap_or_else(|| project.component());
            build::build(&project, &out).map(drop)
        }
        Command::Keygen { file } => keys::keygen(&file),
        Command::Sign { file, key } => keys::sign(&file, &key),
        Command::Push(push) => wait(push.run()),
        Command::Verify { file, keys } => keys::verify(&file, &keys),
    }
}

fn kind(text: &str) -> Result<PluginKind, String> {
    PluginKind::ALL
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| "a kind is installer, notifier, policy or power".to_owned())
}

/// A component, given by itself or by the folder that it was built in.
fn component_of(path: &Path) -> Result<PathBuf> {
    if path.is_dir() {
        Ok(Project::open(path)?.component())
    } else {
        Ok(path.to_owned())
    }
}

fn wait<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(work)
}

/// Tells the author what happens. Not on standard output, which is for results.
fn say(text: &str) {
    if !text.is_empty() {
        eprintln!("{text}");
    }
}
