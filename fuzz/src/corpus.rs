//! Where inputs lie: `corpus/TARGET/` for what a search found, one file for each.

use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// Most bytes of one target's folder: all of them together stay below a megabyte.
pub const FOLDER_LIMIT: u64 = 64 << 10;

/// Most files of one target's folder. What the search wants for itself stays below the
/// target folder; this is for the replay, and for whoever looks at it.
pub const FILES_LIMIT: usize = 96;

/// The folder of `target`.
pub fn folder(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// The committed inputs of `target` with their names, in the order of names.
pub fn committed(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let entries = match std::fs::read_dir(folder(target)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut inputs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, std::fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}
