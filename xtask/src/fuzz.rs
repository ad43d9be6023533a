//! `cargo xtask fuzz`: searches for inputs that break a target of the crate `fuzz`, guided by
//! coverage.
//!
//! ```text
//! seeds ┐
//! corpus ┼─► libFuzzer, for the time given ─┬─► broken: made small, fuzz/corpus/TARGET/find-...
//! earlier searches ┘                        └─► --keep: the least that covers as much
//! ```
//!
//! The compiler on this machine does it all: coverage is an LLVM pass that stable rustc runs when
//! asked by flags, and libFuzzer is a library. What earlier searches found stays below the target
//! folder, so a search goes on where the last one ended.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use e2e::{interrupt, sh};
use lexopt::{Arg, Parser, ValueExt};

use crate::{
    report::Report,
    workspace::{Workspace, program, target_folder},
};

/// What cargo-fuzz passes, without its sanitizers: they need a nightly compiler, and there is no
/// `unsafe` in what is searched.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    // Counters of one crate lie in one section.
    "-Ccodegen-units=1",
];
/// An input that takes longer is a finding.
const SLOW: Duration = Duration::from_secs(10);
/// Memory that no input of a few kilobytes may need.
const MEMORY_MB: u32 = 1024;
/// For making a find small, and for the merge.
const AFTERWARDS: Duration = Duration::from_secs(120);

/// A target, as the crate describes itself.
#[derive(Debug)]
struct Target {
    name: String,
    longest: String,
    about: String,
}

/// The command.
pub(crate) fn run(workspace: &Workspace, mut args: Parser) -> Result<ExitCode> {
    let mut seconds = 60;
    let (mut list, mut keep) = (false, false);
    let mut wanted = Vec::new();
    while let Some(arg) = args.next()? {
        match arg {
            Arg::Long("list") => list = true,
            Arg::Long("keep") => keep = true,
            Arg::Long("seconds") => seconds = args.value()?.parse()?,
            Arg::Value(name) => wanted.push(name.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    let corpus = Corpus::build(workspace)?;
    let targets = corpus.targets()?;
    if list {
        for target in &targets {
            println!("{:16} {}", target.name, target.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = wanted
        .iter()
        .find(|name| !targets.iter().any(|target| target.name == **name))
    {
        bail!("there is no target {unknown:?}; --list shows them");
    }
    interrupt::listen()?;
    let search = Search {
        workspace,
        corpus: &corpus,
        program: build(workspace)?,
        home: target_folder().join("fuzz"),
        limit: Duration::from_secs(seconds),
        keep,
    };
    let mut report = Report::default();
    for target in &targets {
        if wanted.is_empty() || wanted.contains(&target.name) {
            report.step(&format!("fuzz {}", target.name), || search.run(target));
        }
    }
    Ok(report.finish())
}

/// The crate's own view of its targets, from a build like any other.
#[derive(Debug)]
struct Corpus(PathBuf);

impl Corpus {
    fn build(workspace: &Workspace) -> Result<Self> {
        let built = workspace.build(&["--package", "fuzz", "--bin", "fuzz-corpus"])?;
        program(&built, "fuzz-corpus").map(Self)
    }

    fn targets(&self) -> Result<Vec<Target>> {
        let said = self.ask(&["list"])?;
        let targets = said.lines().filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            Some(Target {
                name: fields.next()?,
                longest: fields.next()?,
                about: fields.next()?,
            })
        });
        Ok(targets.collect())
    }

    fn ask(&self, args: &[&str]) -> Result<String> {
        let output = sh::run(Command::new(&self.0).args(args), AFTERWARDS)?;
        if !output.status.success() {
            bail!("fuzz-corpus {}: {}", args.join(" "), output.stderr.trim());
        }
        Ok(output.stdout)
    }
}

/// The instrumented program. Its own target folder, because its flags are no other build's; an
/// explicit target, so that build scripts and macros stay as they are.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    println!("building the targets with coverage; from nothing this takes some minutes");
    let folder = target_folder().join("fuzz/build");
    let flags = COVERAGE.join("\x1f");
    let built: BTreeMap<_, _> = workspace.build_with(
        &[
            "--package",
            "fuzz",
            "--features",
            "coverage",
            "--bin",
            "fuzz-target",
            "--profile",
            "fuzz",
            "--target",
            &format!("{}-unknown-linux-gnu", std::env::consts::ARCH),
        ],
        &[
            ("CARGO_ENCODED_RUSTFLAGS", &flags),
            ("CARGO_TARGET_DIR", &folder.to_string_lossy()),
        ],
    )?;
    program(&built, "fuzz-target")
}

#[derive(Debug)]
struct Search<'a> {
    workspace: &'a Workspace,
    corpus: &'a Corpus,
    program: PathBuf,
    home: PathBuf,
    limit: Duration,
    keep: bool,
}

impl Search<'_> {
    fn run(&self, target: &Target) -> Result<()> {
        let found = self.home.join("corpus").join(&target.name);
        let broken = self.home.join("broken").join(&target.name);
        let committed = self.workspace.root().join("fuzz/corpus").join(&target.name);
        for folder in [&found, &committed] {
            fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let _ = fs::remove_dir_all(&broken);
        fs::create_dir_all(&broken)?;
        self.corpus
            .ask(&["seeds", &target.name, &found.to_string_lossy()])?;

        let mut command = self.libfuzzer(target);
        command
            .arg(format!("-max_total_time={}", self.limit.as_secs()))
            .arg(format!("-max_len={}", target.longest))
            .arg(format!("-timeout={}", SLOW.as_secs()))
            .arg(format!("-rss_limit_mb={MEMORY_MB}"))
            .arg(format!("-artifact_prefix={}/", broken.display()))
            .arg("-print_final_stats=1")
            .args([&found, &committed]);
        let output = sh::run(&mut command, self.limit + AFTERWARDS)?;
        println!("{}", summary(&output.stderr));
        if !output.status.success() {
            self.report_find(target, &broken, &committed, &output.stderr)?;
        }
        if self.keep {
            self.keep(target, &found, &committed)?;
        }
        Ok(())
    }

    fn libfuzzer(&self, target: &Target) -> Command {
        let mut command = Command::new(&self.program);
        command.env("FUZZ_TARGET", &target.name);
        command
    }

    /// Makes what broke the target small and puts it where its replay is a test.
    fn report_find(
        &self,
        target: &Target,
        broken: &Path,
        committed: &Path,
        said: &str,
    ) -> Result<()> {
        for entry in fs::read_dir(broken)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let place = committed.join(format!("find-{name}"));
            let mut command = self.libfuzzer(target);
            command
                .arg("-minimize_crash=1")
                .arg(format!("-max_total_time={}", AFTERWARDS.as_secs() / 4))
                .arg(format!("-exact_artifact_path={}", place.display()))
                .arg(&path);
            let _ = sh::run(&mut command, AFTERWARDS);
            if !place.exists() {
                fs::copy(&path, &place)?;
            }
            println!("broken by {}", place.display());
        }
        let panic = said.lines().skip_while(|line| !line.contains("panicked"));
        let shown: Vec<_> = panic.take(12).collect();
        bail!("an input breaks it:\n{}", shown.join("\n"))
    }

    /// The least that covers as much becomes the committed corpus, as far as there is room.
    fn keep(&self, target: &Target, found: &Path, committed: &Path) -> Result<()> {
        let least = self.home.join("least").join(&target.name);
        let _ = fs::remove_dir_all(&least);
        fs::create_dir_all(&least)?;
        let mut command = self.libfuzzer(target);
        command
            .arg("-merge=1")
            .arg(format!("-max_len={}", target.longest))
            .args([&least, &committed.to_owned(), &found.to_owned()]);
        let output = sh::run(&mut command, AFTERWARDS)?;
        if !output.status.success() {
            bail!("the merge did not end well:\n{}", output.stderr.trim());
        }
        self.corpus
            .ask(&["keep", &target.name, &least.to_string_lossy()])?;
        Ok(())
    }
}

/// Executions, coverage and speed, from what libFuzzer said last.
fn summary(said: &str) -> String {
    let stat = |name: &str| {
        let line = said.lines().rev().find(|line| line.contains(name));
        let value = line.and_then(|line| line.split_whitespace().last());
        value.unwrap_or("?").to_owned()
    };
    let coverage = said
        .lines()
        .rev()
        .find_map(|line| line.split("cov: ").nth(1)?.split(' ').next());
    format!(
        "{} executions, {} a second, {} edges, {} MiB at most",
        stat("stat::number_of_executed_units"),
        stat("stat::average_exec_per_sec"),
        coverage.unwrap_or("?"),
        stat("stat::peak_rss_mb"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libfuzzers_last_words_become_a_line() {
        let said = "#8\tNEW cov: 12 ft: 3 corp: 1/1b\n#9\tDONE   cov: 345 ft: 6 corp: 2/3b\n\
                    stat::number_of_executed_units: 9000\nstat::average_exec_per_sec:     300\n\
                    stat::peak_rss_mb:              41\n";
        assert_eq!(
            summary(said),
            "9000 executions, 300 a second, 345 edges, 41 MiB at most"
        );
    }
}
