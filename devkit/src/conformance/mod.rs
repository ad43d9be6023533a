//! `test --conformance power`: what `wit/power` promises, held against a provider whose peer answers
//! whatever a peer may answer.
//!
//! An author describes the peer once (`tests/conformance.toml`: which request asks, which submits,
//! and what each is answered), and the suite does to it what goes wrong in the field: refuses the
//! credential, is busy, breaks, loses the answer, sends half of one, sends elsewhere. Promises are
//! the same for all providers, so the judgement is here, in code, and nothing of it in the file: a
//! file could only say that what a provider does is right. What a file can do is to pass a case
//! over, with a reason that is shown.
//!
//! Fixtures (`tests/*.toml`) stay what they are: requests in their order, for what is a provider's
//! own. Here requests are known by what they are, so that the suite need not be rewritten when a
//! provider asks one thing more.

mod beginning;
mod bench;
mod following;
mod observing;
mod peer;
mod script;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use model::plugin::PluginKind;

use crate::runtime;
use bench::Bench;
use script::Script;

/// Whether a file of `tests/` is for this suite, and no fixture.
pub(crate) fn is_script(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == "conformance.toml" || (name.starts_with("conformance-") && name.ends_with(".toml"))
}

/// Runs the suite with each script of a folder.
pub(crate) async fn run(folder: &Path, component: &Path) -> Result<()> {
    let scripts = scripts(&folder.join("tests"))?;
    let ready = runtime::load(component).await?;
    ensure!(
        ready.loaded.kind == PluginKind::Power,
        "{} is no power provider",
        component.display()
    );
    let mut failed = 0;
    for path in &scripts {
        let script = Script::read(path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        println!("{name}");
        if let Some(why) = &script.skip_all {
            println!("skip  everything: {why}");
            continue;
        }
        let mut bench = Bench::new(&ready, script)?;
        if let Some(support) = observing::inspect(&mut bench).await? {
            observing::run(&mut bench, &support).await?;
            beginning::run(&mut bench, &support).await?;
            following::run(&mut bench, &support).await?;
        }
        bench.end();
        let tally = &bench.tally;
        println!(
            "{} passed, {} failed, {} skipped",
            tally.passed, tally.failed, tally.skipped
        );
        failed += tally.failed;
    }
    if failed > 0 {
        bail!("{failed} promises are not kept");
    }
    Ok(())
}

fn scripts(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("read {}", folder.display()))?;
        if is_script(&path.path()) {
            paths.push(path.path());
        }
    }
    ensure!(
        !paths.is_empty(),
        "{} has no conformance.toml, which says what the provider's peer is asked and answers",
        folder.display()
    );
    paths.sort();
    Ok(paths)
}
