//! `inspect` and `check`: what a component is, without running it, and whether a gateway takes it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::runtime;

/// Shows what a component is and wants.
pub(crate) fn inspect(file: &Path) -> Result<()> {
    let bytes = read(file)?;
    let found = plugin_host::inspect(&bytes)?;
    let manifest = &found.manifest;
    println!(
        "{} {}, {}: {}",
        manifest.name, manifest.version, found.kind, manifest.description
    );
    println!("digest   {}", found.digest);
    println!("size     {} kB", found.size_bytes.div_ceil(1000));
    for (word, names) in [("imports", &found.imports), ("exports", &found.exports)] {
        // WASI is there for language runtimes, answers nothing, and tells nothing.
        for name in names.iter().filter(|name| !name.starts_with("wasi:")) {
            println!("{word}  {name}");
        }
    }
    println!(
        "needs    {}",
        serde_json::to_string_pretty(&manifest.needs)?
    );
    Ok(())
}

/// Loads a component as a gateway does when it is installed.
pub(crate) async fn check(file: &Path) -> Result<()> {
    plugin_host::inspect(&read(file)?).with_context(|| format!("check {}", file.display()))?;
    let ready = runtime::load(file).await?;
    let schema = &ready.loaded.descriptor.config_schema;
    if !schema.is_empty() && serde_json::from_str::<serde_json::Value>(schema).is_err() {
        bail!("the schema of the configuration is not JSON");
    }
    for line in &ready.loaded.lines {
        println!("logged   {}", line.message);
    }
    println!(
        "ok: {} {}, {}",
        ready.loaded.manifest.name, ready.loaded.manifest.version, ready.loaded.kind
    );
    Ok(())
}

fn read(file: &Path) -> Result<Vec<u8>> {
    fs::read(file)
        .with_context(|| format!("read {}: `loopback-plugin build` makes it", file.display()))
}
