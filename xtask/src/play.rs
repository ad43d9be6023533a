//! `cargo xtask e2e`: builds what the chosen scenarios need and plays them.

use std::{fs, process::ExitCode};

use ::release::{Channel, SigningKey};
use anyhow::{Context, Result, bail};
use e2e::{
    product::Programs,
    scenario::{Needs, Scenario, Verdict},
    scenarios,
    scratch::Scratch,
};
use lexopt::{Arg, Parser, ValueExt};

use crate::{
    plugins,
    release::{self, Arch},
    report::Report,
    workspace::{Workspace, program},
};

/// Cargo's arguments for the programs of the product and nothing else: the quickest build from
/// nothing. After a build of the whole workspace that whole is quicker, because a selection of
/// packages turns on other features of what they depend on.
pub(crate) const PRODUCT: &[&str] = &[
    "--package",
    "gateway",
    "--package",
    "agent",
    "--package",
    "cli",
];

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut chosen: Vec<&'static Scenario> = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("list") => {
                for scenario in scenarios::ALL {
                    println!("{:16} {}", scenario.name, scenario.shows);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Arg::Value(name) => {
                let name = name.string()?;
                match scenarios::ALL.iter().find(|scenario| scenario.name == name) {
                    Some(scenario) => chosen.push(scenario),
                    None => bail!("there is no scenario {name:?}; --list shows them"),
                }
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.is_empty() {
        chosen.extend(scenarios::ALL);
    }
    let mut report = Report::default();
    play(workspace, PRODUCT, &chosen, &mut report)?;
    Ok(report.finish())
}

/// Builds, plays, and adds one row for each scenario.
pub(crate) fn play(
    workspace: &Workspace,
    packages: &[&str],
    chosen: &[&'static Scenario],
    report: &mut Report,
) -> Result<()> {
    // What cannot be had here need not be built for.
    let met: Vec<_> = chosen
        .iter()
        .map(|scenario| (scenario, scenario.needs.met()))
        .collect();
    let needs = met
        .iter()
        .filter(|(_, met)| met.is_ok())
        .fold(Needs::NOTHING, |all, (scenario, _)| all.and(scenario.needs));
    let built = Built::build(workspace, packages, needs)?;
    for (scenario, met) in met {
        let (verdict, took) = match met {
            Ok(()) => scenario.play(&built.programs),
            Err(missing) => {
                println!(
                    "\n=== {}\nSKIPPED: {}, because {missing}",
                    scenario.name, scenario.name
                );
                (
                    Verdict::Skipped(missing.to_string()),
                    std::time::Duration::ZERO,
                )
            }
        };
        report.add(&format!("e2e {}", scenario.name), verdict, took);
        if e2e::interrupt::requested() {
            break;
        }
    }
    Ok(())
}

/// Programs under test; the release folder lives as long as this.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) programs: Programs,
    _folder: Scratch,
}

impl Built {
    pub(crate) fn build(workspace: &Workspace, packages: &[&str], needs: Needs) -> Result<Self> {
        let folder = Scratch::new()?;
        let mut programs = Programs::default();
        if needs.product {
            println!("building the gateway, the agent and the CLI");
            let built = workspace.build(&[packages, &["--bins"]].concat())?;
            programs.gateway = program(&built, "loopback-gateway")?;
            programs.agent = program(&built, "loopback-agent")?;
            programs.cli = program(&built, "loopback")?;
        }
        if needs.release {
            // A key of this run alone: what it signs, nobody else trusts.
            let key = SigningKey::generate()?;
            let native = release::native()?;
            let arches: Vec<&Arch> = release::ARCHES
                .iter()
                .filter(|&arch| arch == native || needs.emulator)
                .collect();
            programs.releases = folder.join("releases");
            let stable = programs.releases.join("stable");
            release::write(workspace, &arches, Channel::Stable, &stable, &key)?;
            programs.release_key = folder.join("release.pub");
            fs::write(&programs.release_key, format!("{}\n", key.public()))
                .context("write the release's public key")?;
        }
        if needs.plugins {
            programs.plugins = plugins::components(workspace)?;
        } else if needs.registry {
            programs.plugins = plugins::build(
                workspace,
                &["plugins/policy-window", "plugins/install-default"],
            )?;
        }
        if needs.plugins || needs.registry {
            programs.kit = plugins::kit(workspace)?;
        }
        Ok(Self {
            programs,
            _folder: folder,
        })
    }
}
