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
mod keys;
mod project;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use project::Project;

/// Writes, builds and tests plugins.
#[derive(Debug, Parser)]
#[command(name = "loopback-plugin", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build a component: one file, with the manifest in it
    Build {
        /// The plugin's folder
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Where the component goes; the folder, under the plugin's name
        #[arg(long, short)]
        out: Option<PathBuf>,
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
        Command::Build { folder, out } => {
            let project = Project::open(&folder)?;
            let out = out.unwrap_or_else(|| project.component());
            build::build(&project, &out).map(drop)
        }
        Command::Keygen { file } => keys::keygen(&file),
        Command::Sign { file, key } => keys::sign(&file, &key),
        Command::Verify { file, keys } => keys::verify(&file, &keys),
    }
}

/// Tells the author what happens. Not on standard output, which is for results.
fn say(text: &str) {
    if !text.is_empty() {
        eprintln!("{text}");
    }
}
