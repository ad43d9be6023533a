//! `cargo xtask sim`: the simulation, built for speed.

use std::process::ExitCode;

use anyhow::Result;
use lexopt::Parser;

use crate::workspace::{Workspace, watch};

/// The command: everything after it is the simulation's own.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut command =
        workspace.cargo(&["run", "--release", "--locked", "--quiet", "-p", "sim", "--"]);
    command.args(args.raw_args()?);
    watch(&mut command)?;
    Ok(ExitCode::SUCCESS)
}
