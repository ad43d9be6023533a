//! `cargo xtask faults`: breaks the gateway in every way that [`faults`] knows, and prints the fault
//! table.

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{interrupt, say, scenario::Needs};
use faults::{Plan, cases, table::Case};
use lexopt::{Arg, Parser, ValueExt};

use crate::{
    play::{Built, PRODUCT},
    report::Report,
    workspace::Workspace,
};

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut chosen: Vec<&'static Case> = Vec::new();
    let (mut plan, mut json, mut build) = (Plan::default(), false, PRODUCT.to_vec());
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("list") => {
                for case in cases::ALL {
                    println!("{:14} {:10} {}", case.name, numbers(case), case.injects);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Arg::Long("rounds") => {
                let rounds = args.value()?.parse()?;
                ensure!(rounds > 0, "--rounds is at least 1");
                plan.rounds = Some(rounds);
            }
            Arg::Long("json") => json = true,
            Arg::Long("short") => plan.short = true,
            Arg::Long("release") => build.push("--release"),
            Arg::Value(name) => {
                let name = name.string()?;
                match cases::ALL.iter().find(|case| case.name == name) {
                    Some(case) => chosen.push(case),
                    None => bail!("there is no case {name:?}; --list shows them"),
                }
            }
            other => return Err(other.unexpected().into()),
        }
    }
    if chosen.is_empty() {
        chosen.extend(cases::ALL);
    }
    if json {
        say::to_stderr();
    }
    let built = Built::build(workspace, &build, needs(&chosen))?;
    plan.programs = built.programs.clone();
    let mut report = Report::default();
    let mut rows = Vec::new();
    for case in chosen {
        let (row, verdict, took) = case.play(&plan);
        report.add(case.name, verdict, took);
        rows.push(row);
        if interrupt::requested() {
            break;
        }
    }
    if json {
        println!(
            "{}",
            serde_json::to_string_pretty(&rows).context("write the table")?
        );
        let failed = rows.iter().any(|row| row.verdict.starts_with("FAIL"));
        return Ok(ExitCode::from(u8::from(failed)));
    }
    println!("\n##### fault table");
    for row in &rows {
        println!("{}", row.text());
    }
    Ok(report.finish())
}

/// The short version of every case, as a part of all checks.
pub(crate) fn check(workspace: &Workspace, packages: &[&str], report: &mut Report) -> Result<()> {
    let all: Vec<_> = cases::ALL.iter().collect();
    let built = Built::build(workspace, packages, needs(&all))?;
    let plan = Plan {
        programs: built.programs.clone(),
        short: true,
        ..Plan::default()
    };
    for case in cases::ALL {
        let (_, verdict, took) = case.play(&plan);
        report.add(&format!("fault {}", case.name), verdict, took);
        if interrupt::requested() {
            break;
        }
    }
    Ok(())
}

/// What has to be built. What cannot be had here need not be.
fn needs(chosen: &[&Case]) -> Needs {
    let all = chosen.iter().map(|case| case.needs);
    let met = all.filter(|needs| needs.met().is_ok());
    met.fold(Needs::NOTHING, Needs::and)
}

fn numbers(case: &Case) -> String {
    let numbers: Vec<_> = case.abuse.iter().map(u8::to_string).collect();
    format!("abuse {}", numbers.join(","))
}
