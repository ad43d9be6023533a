//! `cargo xtask openapi`: the committed description of the HTTP API.
//!
//! The document comes from the types and routes of the `api` crate and is committed so that a
//! change of the API is a diff somebody reads. `--check` is what continuous integration runs.

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use e2e::sh;
use lexopt::{Arg, Parser};

use crate::workspace::Workspace;

const FILE: &str = "docs/openapi.json";

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut only_check = false;
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("check") => only_check = true,
            other => return Err(other.unexpected().into()),
        }
    }
    if only_check {
        check(workspace)?;
        println!("{FILE} is current");
    } else {
        fs::write(workspace.root().join(FILE), generate(workspace)?)
            .with_context(|| format!("write {FILE}"))?;
        println!("wrote {FILE}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails when the committed document is not what the code says.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let generated = generate(workspace)?;
    let committed = fs::read_to_string(workspace.root().join(FILE))
        .with_context(|| format!("read {FILE} (cargo xtask openapi writes it)"))?;
    let mut lines = (1..).zip(committed.lines().zip(generated.lines()));
    if committed == generated {
        return Ok(());
    }
    let where_ = lines.find(|(_, (old, new))| old != new).map_or_else(
        || "one is longer than the other".to_owned(),
        |(number, (old, new))| format!("line {number}: committed {old:?}, the code says {new:?}"),
    );
    bail!("{FILE} is not current ({where_}); run cargo xtask openapi and read the diff");
}

fn generate(workspace: &Workspace) -> Result<String> {
    let mut command = workspace.cargo(&[
        "run",
        "--quiet",
        "--locked",
        "--package",
        "api",
        "--example",
        "openapi",
    ]);
    let text = sh::run(&mut command, Duration::from_secs(1800))?.ok()?;
    let _: serde_json::Value =
        serde_json::from_str(&text).context("parse the generated document")?;
    Ok(text.trim_end().to_owned() + "\n")
}
