//! `loopback host diagnose`: a bundle in a file, or one section on the screen.

mod bundle;
mod show;

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use api::endpoint::Nothing;
use api::v1::OfHost;
use api::v1::diagnose::{BundleOptions, GetHostDiagnosticsBundle, Manifest};
use clap::Args;
use model::diagnose::{Outcome, Section};
use serde::Serialize;

use super::OneHost;
use crate::app::{App, now};
use crate::failure::{Failure, SECTIONS_FAILED};

#[derive(Debug, Args)]
pub(in super::super) struct Diagnose {
    #[command(flatten)]
    host: OneHost,
    /// Where to write the bundle [default: HOST-TIME.tar]
    #[arg(
        long = "file",
        short = 'o',
        value_name = "FILE",
        conflicts_with = "show"
    )]
    file: Option<PathBuf>,
    /// Write over a file that is there
    #[arg(long, conflicts_with = "show")]
    force: bool,
    /// Gather only this section; repeatable: system, processes, disks, sockets, units, agent, network, kernel, journal
    #[arg(long = "section", value_name = "SECTION", conflicts_with = "show")]
    sections: Vec<Section>,
    /// Print this section instead of writing a bundle
    #[arg(long, value_name = "SECTION")]
    show: Option<Section>,
    /// Of units and journal: this unit
    #[arg(long)]
    unit: Option<String>,
    /// Of journal and kernel: the latest lines [default: 1000]
    #[arg(long)]
    lines: Option<u32>,
    /// Of network: try to reach this by TCP; repeatable
    #[arg(long = "target", value_name = "HOST:PORT")]
    targets: Vec<String>,
    /// In tables of sockets and units, leave nothing out
    #[arg(long, requires = "show")]
    all: bool,
}

pub(super) fn after_help() -> String {
    format!(
        "Secrets are removed on the host, as far as they look like some.\n\nExit code: {SECTIONS_FAILED} when sections have failed and the rest is there; else those of every loopback command."
    )
}

/// What `--json` says of a bundle.
#[derive(Serialize)]
struct Written<'a> {
    file: String,
    manifest: &'a Manifest,
}

pub(super) fn run(app: &mut App, command: Diagnose) -> Result<(), Failure> {
    let targets = (!command.targets.is_empty()).then(|| command.targets.join(","));
    match command.show {
        Some(section) => show::run(app, &command, section, targets),
        None => write(app, &command, targets),
    }
}

fn write(app: &mut App, command: &Diagnose, targets: Option<String>) -> Result<(), Failure> {
    let (client, workspace, host) = app.on_host(&command.host.workspace, &command.host.host)?;
    let asked = if command.sections.is_empty() {
        Section::ALL.to_vec()
    } else {
        command.sections.clone()
    };
    let path = match &command.file {
        Some(path) => path.clone(),
        None => default_name(&command.host.host, &now().to_string()).into(),
    };
    if !command.force && path.exists() {
        return Err(exists(&path));
    }
    let names: Vec<_> = asked.iter().map(|it| it.as_str()).collect();
    let options = BundleOptions {
        sections: Some(names.join(",")),
        unit: command.unit.clone(),
        lines: command.lines,
        targets,
    };
    let mut progress = bundle::Progress::new(&asked, std::io::stderr().is_terminal());
    let stream =
        client.stream::<GetHostDiagnosticsBundle>(&OfHost { workspace, host }, &options)?;
    let manifest = bundle::to_file(stream, &path, command.force, &mut progress)?;
    let failed: Vec<_> = manifest
        .sections
        .iter()
        .filter(|it| it.outcome == Outcome::Failed)
        .map(|it| it.section.as_str())
        .collect();
    let written = Written {
        file: path.display().to_string(),
        manifest: &manifest,
    };
    app.out
        .say(&written, |it| crate::output::printable(&it.file))?;
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::SectionsFailed(failed.join(", ")))
    }
}

/// A name that can be a file's, whatever the host was called by.
fn default_name(host: &str, time: &str) -> String {
    let kept = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = host
        .chars()
        .map(|letter| if kept(letter) { letter } else { '_' })
        .collect();
    let name = name.trim_start_matches(['.', '-']);
    let time: String = time
        .split('.')
        .next()
        .unwrap_or_default()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    format!("{name}-{time}Z.tar")
}

fn exists(path: &Path) -> Failure {
    Failure::Usage(format!(
        "{} is there already; name another file with -o, or say --force",
        path.display()
    ))
}

/// For [`GetHostDiagnosticsBundle`] and its kin, which take no body.
const NOTHING: Nothing = Nothing {};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_called_after_its_host_and_the_time() {
        let time = "2026-11-27T09:45:00.123Z";
        assert_eq!(default_name("web-1", time), "web-1-20261127T094500Z.tar");
        assert_eq!(
            default_name("../../etc/x", time),
            "_.._etc_x-20261127T094500Z.tar"
        );
    }
}
