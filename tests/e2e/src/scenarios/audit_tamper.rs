//! `audit-tamper`: an export that was touched does not verify, however little was touched.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail, ensure};

use super::support::JOIN;
use crate::{
    product::{Programs, WORKSPACE, World},
    say,
};

/// The CLI's exit code for an export that is not whole and unchanged.
const TAMPERED: i32 = 7;

pub(super) fn run(programs: &Programs) -> Result<()> {
    let world = World::here(programs)?;
    let (export, key) = (
        world.folder().join("audit.ndjson"),
        world.folder().join("audit.key"),
    );
    world.step("do things that are audited", || {
        let token = world.token(&["--label", "kind=process"])?;
        let _agent = world.agent("agent", &token)?;
        world.wait_labelled("kind", "process", JOIN)?;
        world
            .cli()
            .text(&["token", "delete", "-w", WORKSPACE, &token.id, "--yes"])
            .map(drop)
    })?;
    world.step("export the trail and fetch its key", || {
        let text = world.cli().text(&["audit", "export", "-w", WORKSPACE])?;
        ensure!(text.lines().count() >= 5, "the trail is short:\n{text}");
        fs::write(&export, text).context("write the export")?;
        let file = key.display().to_string();
        world
            .cli()
            .text(&["audit", "key", "-w", WORKSPACE, "-o", &file])
            .map(drop)
    })?;
    let whole = fs::read_to_string(&export).context("read the export")?;
    let lines: Vec<_> = whole.lines().collect();

    world.step("untouched it verifies, without a gateway", || {
        world.gateway().stop()?;
        verify(&world, &export, &key)?
            .context("it is refused")
            .map(drop)
    })?;
    let check = |what: &str, text: String| {
        world.step(&format!("{what}: found"), || {
            ensure!(text != whole, "nothing was changed");
            fs::write(&export, text).context("write the export")?;
            let said = verify(&world, &export, &key)?;
            ensure!(said.is_none(), "it verifies: {}", said.unwrap_or_default());
            Ok(())
        })
    };
    let flipped = {
        let mut bytes = whole.clone().into_bytes();
        let middle = bytes.len() / 2;
        // A letter stays a letter, so that only the seal can tell.
        let at = (middle..bytes.len())
            .find(|&at| bytes[at].is_ascii_lowercase())
            .context("a letter")?;
        bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
        String::from_utf8(bytes).context("letters are text")?
    };
    check("one flipped byte", flipped)?;
    let without = |skip: usize| {
        let kept = lines
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != skip);
        kept.map(|(_, line)| format!("{line}\n"))
            .collect::<String>()
    };
    check("one deleted entry", without(lines.len() / 2))?;
    check("a cut tail", without(lines.len() - 1))
}

/// What the CLI says of a good export; nothing when it refuses it.
fn verify(world: &World, export: &Path, key: &Path) -> Result<Option<String>> {
    let (export, key) = (export.display().to_string(), key.display().to_string());
    let output = world
        .cli()
        .run(&["audit", "verify", &export, "--key-file", &key])?;
    if !output.status.success() {
        say::line(format_args!(
            "              {}",
            output.stderr.trim().lines().last().unwrap_or_default()
        ));
    }
    match output.code() {
        Some(0) => Ok(Some(output.stdout)),
        Some(TAMPERED) => Ok(None),
        _ => bail!("neither good nor tampered with: {output}"),
    }
}
