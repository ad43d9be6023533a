//! `bench`: what the product costs, as ratios to other programs measured in the same run.
//!
//! A figure alone says little on a machine that others share, so each row runs ours and its peer
//! by turns, several rounds, and compares medians. A peer that cannot be had is reported as
//! missing; that is never a pass. `docs/benchmarks.md` says how each figure is taken.
//!
//! ```text
//!   rows/      one experiment each: starts ours and the peer, asks proc for RSS and CPU time
//!     │ uses
//!   gateway    the real release binary with a state folder of its own
//!   fleet      hosts put into that state, with certificates of its own authority
//!   peers      other people's servers, from packages
//!   load/      clients, as processes of their own: simulated agents, MQTT and NATS clients
//!   floor/     the bare libraries under ours: quinn, axum, redb
//! ```
//!
//! Clients are this same binary under another command, so that their memory and their CPU time
//! never count for anybody else.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool talks through its standard streams"
)]

mod figure;
mod fleet;
mod floor;
mod gateway;
mod http;
mod load;
mod peers;
mod process;
mod rows;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use e2e::{interrupt, say};
use lexopt::{Arg, Parser, ValueExt};
use rows::{Bench, ROWS, Row};

const HELP: &str = "\
bench --gateway FILE --agent FILE [ROW..] [options]

  --list          the rows
  --json          figures as JSON on standard output
  --rounds N      how often ours and the peer are measured by turns; 3 unless told
  --agents N      connections of the rows that compare connections; 4000 unless told
  --gateway FILE  the release build of loopback-gateway
  --agent FILE    the static loopback-agent
  --plugins DIR   the components of `cargo xtask plugins`
";

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode> {
    let mut args = Parser::from_env();
    let mut chosen: Vec<&Row> = Vec::new();
    let (mut gateway, mut agent, mut plugins) = (PathBuf::new(), PathBuf::new(), PathBuf::new());
    let (mut rounds, mut agents, mut json) = (3, 4000, false);
    process::raise_file_limit();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Value(word) => {
                let word = word.string()?;
                match word.as_str() {
                    "swarm" => return load::swarm::main(args),
                    "tls-clients" => return load::tls::main(args),
                    "serve-quic" => return floor::quic::main(args),
                    "serve-http" => return floor::http::main(args),
                    name => match ROWS.iter().find(|row| row.name == name) {
                        Some(row) => chosen.push(row),
                        None => bail!("there is no row {name:?}; --list shows them"),
                    },
                }
            }
            Arg::Long("list") => {
                for row in ROWS {
                    println!("{:16} {}", row.name, row.measures);
                }
                return Ok(ExitCode::SUCCESS);
            }
            Arg::Long("json") => json = true,
            Arg::Long("rounds") => rounds = args.value()?.parse()?,
            Arg::Long("agents") => agents = args.value()?.parse()?,
            Arg::Long("gateway") => gateway = args.value()?.into(),
            Arg::Long("agent") => agent = args.value()?.into(),
            Arg::Long("plugins") => plugins = args.value()?.into(),
            Arg::Short('h') | Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(other.unexpected().into()),
        }
    }
    interrupt::listen()?;
    say::to_stderr();
    let bench = Bench {
        gateway: gateway.canonicalize().context("--gateway FILE")?,
        agent: agent.canonicalize().context("--agent FILE")?,
        plugins,
        rounds,
        agents,
    };
    if chosen.is_empty() {
        chosen.extend(ROWS);
    }
    let mut figures = Vec::new();
    for row in chosen {
        say::line(format_args!("== {}: {}", row.name, row.measures));
        let measured = (row.run)(&bench).with_context(|| format!("measure {}", row.name))?;
        for figure in &measured {
            say::line(format_args!("{}", figure.line()));
        }
        figures.extend(measured.into_iter().map(|figure| (row.name, figure)));
    }
    if json {
        println!("{:#}", figure::to_json(&figures));
    } else {
        println!();
        for (row, figure) in &figures {
            println!("{row:14} {}", figure.line());
        }
    }
    let all_met = figures.iter().all(|(_, figure)| figure.passes());
    Ok(if all_met {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
