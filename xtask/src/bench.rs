//! `cargo xtask bench`: builds what is measured and what measures, then measures.
//!
//! The figures themselves are the program `bench` (`tests/bench`), built like the product:
//! optimised, with the default allocator, on its own.

use std::{process::Command, process::ExitCode};

use anyhow::{Context, Result};
use lexopt::Parser;

use crate::{
    plugins, release,
    workspace::{Workspace, program},
};

/// The command. Everything after its name is for the program `bench`.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let args: Vec<_> = args.raw_args()?.collect();
    // Apart from each other: one must not be built with features that the other asks for.
    let bench = workspace.build(&["--release", "--package", "bench"])?;
    let mut command = Command::new(program(&bench, "bench")?);
    if !args.iter().any(|arg| arg == "--list" || arg == "--help") {
        let gateway = workspace.build(&["--release", "--package", "gateway"])?;
        command
            .arg("--gateway")
            .arg(program(&gateway, "loopback-gateway")?)
            .arg("--agent")
            .arg(release::build(workspace, release::native()?)?);
        let about_plugins = |arg: &std::ffi::OsString| arg.to_string_lossy().starts_with("plugin");
        let rows_named = args
            .iter()
            .any(|arg| !arg.to_string_lossy().starts_with('-'));
        if args.iter().any(about_plugins) || !rows_named {
            command
                .arg("--plugins")
                .arg(plugins::components(workspace)?);
        }
    }
    let status = command.args(args).status().context("run the bench")?;
    Ok(if status.success() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
