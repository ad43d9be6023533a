//! `cargo xtask tidy`: rules of the house that the compiler does not see.
//!
//! Every rule is a function from what was read to a list of complaints; reading happens here, once.
//! So each rule is tested with a deliberately bad input.

mod dependencies;
mod golden;
mod sources;

use std::{fs, path::Path, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use e2e::sh;
use lexopt::Parser;

use crate::workspace::Workspace;

/// A file of the checkout.
#[derive(Debug)]
struct Source {
    /// Relative to the root, with `/`.
    path: String,
    text: String,
}

/// What the rules found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Rules that are broken.
    complaints: Vec<String>,
    /// Things to look at that break no rule.
    notices: Vec<String>,
}

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    if let Some(arg) = args.next()? {
        return Err(arg.unexpected().into());
    }
    check(workspace)?;
    println!("tidy");
    Ok(ExitCode::SUCCESS)
}

/// Applies all rules; prints notices, fails with all complaints.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let findings = look(workspace)?;
    for notice in &findings.notices {
        println!("notice: {notice}");
    }
    if !findings.complaints.is_empty() {
        bail!("not tidy:\n  {}", findings.complaints.join("\n  "));
    }
    Ok(())
}

fn look(workspace: &Workspace) -> Result<Findings> {
    let root = workspace.root();
    // What is not committed yet counts too; what git ignores does not.
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
    let rust = list
        .lines()
        .filter(|path| path.ends_with(".rs") && root.join(path).exists())
        .map(|path| read(root, path))
        .collect::<Result<Vec<_>>>()?;
    let golden: Vec<_> = list
        .lines()
        .filter(|path| path.contains("/golden/") && root.join(path).exists())
        .collect();

    let mut findings = Findings::default();
    let graph = dependencies::Graph::read(root)?;
    findings
        .complaints
        .extend(dependencies::complaints(&dependencies::HOUSE, &graph));
    for source in &rust {
        sources::look(source, &mut findings);
    }
    findings
        .complaints
        .extend(golden::unreferenced(&golden, &rust));
    Ok(findings)
}

fn read(root: &Path, path: &str) -> Result<Source> {
    let text = fs::read_to_string(root.join(path)).with_context(|| format!("read {path}"))?;
    Ok(Source {
        path: path.to_owned(),
        text,
    })
}
