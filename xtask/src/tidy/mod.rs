//! `cargo xtask tidy`: rules of the house that the compiler does not see.
//!
//! Every rule is a function from what was read to a list of complaints; reading happens here, once.
//! So each rule is tested with a deliberately bad input.

mod dependencies;
mod golden;
mod sources;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Parser;

use crate::{abuse, workspace::Workspace};

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
    let files = workspace.files()?;
    let rust = workspace.rust(&files)?;
    let golden: Vec<_> = files
        .iter()
        .map(String::as_str)
        .filter(|path| path.contains("/golden/"))
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
    findings
        .complaints
        .extend(abuse::complaints(workspace, &rust)?);
    Ok(findings)
}
