//! `loopback`: see the library for everything but the exit.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use cli::commands::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => ExitCode::from(code),
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "{}", failure.describe());
            ExitCode::from(failure.exit_code())
        }
    }
}
