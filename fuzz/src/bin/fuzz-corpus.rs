//! What `cargo xtask fuzz` asks about targets, without the instrumented build:
//!
//! * `list`: name, longest input and description of each target, a line each;
//! * `seeds TARGET FOLDER`: writes the target's seeds;
//! * `keep TARGET FOLDER`: makes files of FOLDER, small and large ones, as many as fit,
//!   the target's committed corpus. Finds (`find-...`) that are in it stay.
#![expect(clippy::print_stdout, reason = "the answer of a command")]

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use fuzz::{ALL, Target, corpus};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["list"] => {
            for target in ALL {
                println!("{}\t{}\t{}", target.name, target.longest, target.about);
            }
            Ok(())
        }
        ["seeds", name, folder] => seeds(find(name)?, folder.as_ref()),
        ["keep", name, folder] => keep(find(name)?, folder.as_ref()),
        _ => bail!("usage: fuzz-corpus list | seeds TARGET FOLDER | keep TARGET FOLDER"),
    }
}

fn find(name: &str) -> Result<&'static Target> {
    fuzz::find(name).with_context(|| format!("there is no target {name:?}"))
}

fn seeds(target: &Target, folder: &Path) -> Result<()> {
    for (number, seed) in (target.seeds)().iter().enumerate() {
        let path = folder.join(format!("seed-{number:03}"));
        fs::write(&path, seed).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}

fn keep(target: &Target, folder: &Path) -> Result<()> {
    let home = corpus::folder(target);
    fs::create_dir_all(&home).with_context(|| format!("make {}", home.display()))?;
    let mut room = corpus::FOLDER_LIMIT;
    for (name, input) in corpus::committed(target)? {
        if name.starts_with("find-") {
            room = room.saturating_sub(input.len() as u64);
        } else {
            fs::remove_file(home.join(name))?;
        }
    }
    let seeds = (target.seeds)();
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let input = fs::read(entry.path())?;
        if !seeds.contains(&input) {
            inputs.push((input.len() as u64, entry.file_name(), input));
        }
    }
    inputs.sort();
    let stride = inputs.len().div_ceil(corpus::FILES_LIMIT).max(1);
    for (length, name, input) in inputs.into_iter().step_by(stride) {
        if length <= room {
            room -= length;
            fs::write(home.join(name), input)?;
        }
    }
    Ok(())
}
