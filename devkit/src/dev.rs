//! `dev`: builds and tests whenever a file has changed.
//!
//! By looking at the times of files twice a second. The system's own notices would be quicker by
//! less than anybody sees, and need a list of what to listen to that editors outwit.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use crate::project::Project;
use crate::{build, say, test, wait};

const LOOK: Duration = Duration::from_millis(500);

/// Folders that tools write.
const MADE: [&str; 6] = [
    "target",
    "node_modules",
    ".venv",
    ".git",
    "__pycache__",
    "wit_world",
];

/// Goes on until it is stopped.
pub(crate) fn watch(folder: &Path) -> Result<()> {
    let mut seen = None;
    loop {
        let latest = latest(folder);
        if seen != Some(latest) {
            seen = Some(latest);
            let done = Project::open(folder).and_then(|project| {
                let component = project.component();
                build::build(&project, &component)?;
                wait(test::run(folder, &component))
            });
            match done {
                Ok(()) => say("waiting for changes"),
                Err(error) => say(&format!("error: {error:#}\nwaiting for changes")),
            }
        }
        thread::sleep(LOOK);
    }
}

/// When something an author writes was last changed, and how many files there are.
fn latest(folder: &Path) -> (SystemTime, usize) {
    let mut latest = (SystemTime::UNIX_EPOCH, 0);
    let mut rest: Vec<PathBuf> = vec![folder.to_owned()];
    while let Some(path) = rest.pop() {
        // A file may vanish while an editor saves it.
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            let made = MADE.iter().any(|made| name == *made)
                || path
                    .extension()
                    .is_some_and(|end| end == "wasm" || end == "new");
            let Ok(data) = entry.metadata() else { continue };
            if made || name == "Cargo.lock" {
                continue;
            }
            if data.is_dir() {
                rest.push(path);
            } else if let Ok(time) = data.modified() {
                latest = (latest.0.max(time), latest.1 + 1);
            }
        }
    }
    latest
}
