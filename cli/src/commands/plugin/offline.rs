//! What authors do with plugins is a program of its own, `loopback-plugin`: it runs components,
//! which an operator's command line has no need to be able to.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, Subcommand};

use crate::failure::Failure;

const PROGRAM: &str = "loopback-plugin";

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Begin a plugin (loopback-plugin)
    #[command(disable_help_flag = true)]
    New(Passed),
    /// Check a plugin's manifest and component (loopback-plugin)
    #[command(disable_help_flag = true)]
    Check(Passed),
    /// Build a plugin (loopback-plugin)
    #[command(disable_help_flag = true)]
    Build(Passed),
    /// Run a plugin's tests (loopback-plugin)
    #[command(disable_help_flag = true)]
    Test(Passed),
    /// Build and run a plugin whenever it changes (loopback-plugin)
    #[command(disable_help_flag = true)]
    Dev(Passed),
    /// Show what a component says of itself (loopback-plugin)
    #[command(disable_help_flag = true)]
    Inspect(Passed),
    /// Sign a component (loopback-plugin)
    #[command(disable_help_flag = true)]
    Sign(Passed),
    /// Put a component into a registry (loopback-plugin)
    #[command(disable_help_flag = true)]
    Push(Passed),
    /// Make a recorded call again (loopback-plugin)
    #[command(disable_help_flag = true)]
    Replay(Passed),
    /// Measure a plugin (loopback-plugin)
    #[command(disable_help_flag = true)]
    Bench(Passed),
}

/// Whatever comes.
#[derive(Debug, Args)]
pub(crate) struct Passed {
    /// What loopback-plugin is told
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGUMENT"
    )]
    arguments: Vec<OsString>,
}

/// Becomes `loopback-plugin`. Comes back only if that is not there.
pub(super) fn run(verb: Verb) -> Result<(), Failure> {
    let (verb, passed) = match verb {
        Verb::New(passed) => ("new", passed),
        Verb::Check(passed) => ("check", passed),
        Verb::Build(passed) => ("build", passed),
        Verb::Test(passed) => ("test", passed),
        Verb::Dev(passed) => ("dev", passed),
        Verb::Inspect(passed) => ("inspect", passed),
        Verb::Sign(passed) => ("sign", passed),
        Verb::Push(passed) => ("push", passed),
        Verb::Replay(passed) => ("replay", passed),
        Verb::Bench(passed) => ("bench", passed),
    };
    let here = std::env::current_exe().ok();
    let program = find(here.as_deref(), std::env::var_os("PATH"));
    let Some(program) = program else {
        return Err(Failure::Usage(format!(
            "`loopback plugin {verb}` is done by {PROGRAM}, which is neither beside this program nor \
             on PATH: install it from the release that loopback came from, or build it with `cargo \
             build --release -p devkit`"
        )));
    };
    let source = Command::new(&program)
        .arg(verb)
        .args(passed.arguments)
        .exec();
    Err(Failure::File {
        verb: "start",
        path: program,
        source,
    })
}

/// Beside this program first: the two are of one release then.
fn find(here: Option<&Path>, path: Option<OsString>) -> Option<PathBuf> {
    let beside = here.and_then(Path::parent).map(Path::to_owned);
    let folders = path.iter().flat_map(std::env::split_paths);
    let candidates = beside.into_iter().chain(folders);
    candidates
        .map(|folder| folder.join(PROGRAM))
        .find(|program| program.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_beside_this_one_comes_before_those_on_the_path() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str| root.path().join(name);
        for name in ["beside", "path"] {
            std::fs::create_dir(place(name)).unwrap();
        }
        let here = place("beside").join("loopback");
        let path = Some(place("path").into_os_string());
        assert_eq!(find(Some(&here), path.clone()), None);
        std::fs::write(place("path").join(PROGRAM), "").unwrap();
        let on_path = place("path").join(PROGRAM);
        assert_eq!(find(Some(&here), path.clone()), Some(on_path));
        std::fs::write(place("beside").join(PROGRAM), "").unwrap();
        let beside = place("beside").join(PROGRAM);
        assert_eq!(find(Some(&here), path), Some(beside));
    }
}
