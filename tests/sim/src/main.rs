//! `cargo xtask sim`: many worlds, and one again.
#![expect(
    clippy::print_stdout,
    reason = "a command line tool talks through its standard output"
)]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use lexopt::{Arg, Parser, ValueExt as _};
use sim::{Break, Options, Violation, World};

const HELP: &str = "\
cargo xtask sim [--seeds N] [--first S] [--hosts H] [--hours T] [--break KIND]
cargo xtask sim --seed S [--trace] [--hosts H] [--hours T] [--break KIND]
";

fn main() -> Result<ExitCode> {
    let mut options = Options {
        hosts: 20,
        hours: 50,
        broken: None,
    };
    let (mut seeds, mut first, mut one, mut trace) = (64u64, 1u64, None, false);
    let mut args = Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("seeds") => seeds = args.value()?.parse()?,
            Arg::Long("first") => first = args.value()?.parse()?,
            Arg::Long("seed") => one = Some(args.value()?.parse()?),
            Arg::Long("hosts") => options.hosts = args.value()?.parse()?,
            Arg::Long("hours") => options.hours = args.value()?.parse()?,
            Arg::Long("trace") => trace = true,
            Arg::Long("break") => {
                let word = args.value()?.string()?;
                let found = Break::ALL.iter().find(|(_, known)| *known == word);
                options.broken = Some(
                    found
                        .with_context(|| format!("nothing to break is called {word:?}"))?
                        .0,
                );
            }
            Arg::Short('h') | Arg::Long("help") => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => bail!("{}\n\n{HELP}", other.unexpected()),
        }
    }
    if options.hosts == 0 {
        bail!("a world has at least one host");
    }
    if let Some(seed) = one {
        return Ok(match World::new(seed, &options, true).run() {
            Ok((events, frames)) => {
                println!("seed {seed}: {events} events, {frames} frames, every invariant held");
                ExitCode::SUCCESS
            }
            Err(broken) => {
                report(
                    seed,
                    &options,
                    &broken.0,
                    if trace { &broken.1 } else { &[] },
                );
                ExitCode::FAILURE
            }
        });
    }
    let (begun, next, events) = (Instant::now(), AtomicU64::new(first), AtomicU64::new(0));
    let worker = || {
        let mut failed = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return failed;
            }
            match World::new(seed, &options, false).run() {
                Ok((count, _)) => drop(events.fetch_add(count, Ordering::Relaxed)),
                Err(broken) => failed.push((seed, broken.0)),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut failed: Vec<(u64, Violation)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers
            .into_iter()
            .filter_map(|worker| worker.join().ok())
            .flatten()
            .collect()
    });
    failed.sort_by_key(|(seed, _)| *seed);
    let taken = begun.elapsed().as_secs_f64();
    let hours = seeds * u64::from(options.hosts) * u64::from(options.hours);
    let events = events.into_inner();
    println!(
        "{seeds} seeds, {hours} host-hours in {taken:.1} s; {events} events, {:.0} a second; {} broken",
        events as f64 / taken,
        failed.len()
    );
    if let Some((seed, _)) = failed.first() {
        // Once more, now written down: the same seed makes the same world.
        if let Err(broken) = World::new(*seed, &options, true).run() {
            report(*seed, &options, &broken.0, &broken.1);
        }
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn report(seed: u64, options: &Options, broken: &Violation, trace: &[String]) {
    println!(
        "seed {seed}, step {}, {:.3} s: broken: {}",
        broken.step,
        broken.at as f64 / 1000.0,
        broken.invariant
    );
    println!("  {}", broken.detail);
    for line in trace {
        println!("  {line}");
    }
    let word = Break::ALL
        .iter()
        .find(|(kind, _)| Some(*kind) == options.broken);
    let flag = word
        .map(|(_, word)| format!(" --break {word}"))
        .unwrap_or_default();
    println!(
        "again: cargo xtask sim --seed {seed} --trace --hosts {} --hours {}{flag}",
        options.hosts, options.hours
    );
}
