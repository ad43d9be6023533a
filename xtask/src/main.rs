//! `cargo xtask`: everything one does with this repository beyond `cargo build`.
//!
//! One program instead of a folder of scripts: it is type-checked, runs wherever the toolchain
//! does, and a person and continuous integration type the same words. Each command is a module;
//! [`workspace`] and [`report`] hold what they share.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks through its standard streams"
)]

mod abuse;
mod bench;
mod checks;
mod demo;
mod faults;
mod fuzz;
mod openapi;
mod play;
mod plugins;
mod release;
mod report;
mod schemathesis;
mod sim;
mod tidy;
mod tutorial;
mod workspace;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::{Arg, Parser, ValueExt};
use workspace::Workspace;

const HELP: &str = "\
cargo xtask COMMAND

  demo [--hosts N] [--exit]   the whole product on this machine; --hosts: on N booted hosts (root)
  test                        everything continuous integration checks; ends with a table
  ci                          the same, under the name other tools look for
  plugins                     build and test every plugin and example; components in target/plugins
  tutorial [--all]            follow docs/plugin-authors.md to the letter, on a real gateway;
                              --all: new plugins in Python too, which take a minute each
  tidy                        rules of the house: who may use whom, module heads, golden files
  openapi [--check]           write docs/openapi.json, or see whether it is current
  release [--arch ARCH].. [--channel stable|unstable] [--out DIR] [--key FILE]
                              build static agents and write a signed release folder
  e2e [SCENARIO.. | --list]   end-to-end scenarios on real systemd hosts (root)
  abuse [--tests] [--run]     docs/abuse.md case by case: covered, not yet, missing; --run: its tests
  faults [CASE.. | --list] [--rounds N] [--short] [--release] [--json]
                              kill, cut, fill and break the gateway; prints the fault table
  schemathesis [--long] [--role NAME] [--seed N] [--examples N]
                              requests made from the OpenAPI document, as each built-in role and as nobody
  sim [--seeds N] [--hosts H] [--hours T] [--break KIND] | --seed S [--trace]
                              gateway and agents on virtual time; docs/simulation.md
  fuzz [TARGET.. | --list] [--seconds N] [--keep]
                              search for inputs that break a reader; --keep: let the corpus grow
  bench [ROW.. | --list] [--json] [--rounds N] [--agents N]
                              measure beside peers in the same run, and hold against the goals
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut args = Parser::from_env();
    let command = match args.next()? {
        Some(Arg::Value(command)) => command.string()?,
        Some(Arg::Short('h') | Arg::Long("help")) | None => {
            print!("{HELP}");
            return Ok(ExitCode::SUCCESS);
        }
        Some(other) => bail!("{}\n\n{HELP}", other.unexpected()),
    };
    let workspace = Workspace::find()?;
    match command.as_str() {
        "demo" => demo::run(&workspace, args),
        "test" | "ci" => checks::run(&workspace, args),
        "plugins" => plugins::run(&workspace, args),
        "tutorial" => tutorial::run(&workspace, args),
        "tidy" => tidy::run(&workspace, args),
        "openapi" => openapi::run(&workspace, args),
        "release" => release::run(&workspace, args),
        "e2e" => play::run(&workspace, args),
        "abuse" => abuse::run(&workspace, args),
        "faults" => faults::run(&workspace, args),
        "bench" => bench::run(&workspace, args),
        "fuzz" => fuzz::run(&workspace, args),
        "schemathesis" => schemathesis::run(&workspace, args),
        "sim" => sim::run(&workspace, args),
        "help" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        other => bail!("there is no command {other:?}\n\n{HELP}"),
    }
}
