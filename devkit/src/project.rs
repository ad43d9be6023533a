//! An author's folder: `plugin.toml`, sources in one of three languages, and the contract.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use model::plugin::{Manifest, PluginKind};

/// What a plugin is written in, known by the file that its tools want.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Language {
    /// `Cargo.toml`.
    Rust,
    /// `package.json`.
    Js,
    /// `app.py`.
    Python,
}

/// A folder with a plugin's sources.
#[derive(Debug)]
pub(crate) struct Project {
    pub(crate) folder: PathBuf,
    pub(crate) manifest: Manifest,
    pub(crate) language: Language,
}

impl Project {
    /// Reads what is there.
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("open folder {}", folder.display()))?;
        let manifest = read_manifest(&folder.join("plugin.toml"))?;
        let has = |name: &str| folder.join(name).exists();
        let language = if has("Cargo.toml") {
            Language::Rust
        } else if has("package.json") {
            Language::Js
        } else if has("app.py") {
            Language::Python
        } else {
            bail!(
                "{} has neither Cargo.toml nor package.json nor app.py: what is the plugin written in?",
                folder.display()
            )
        };
        Ok(Self {
            folder,
            manifest,
            language,
        })
    }

    /// Where the component goes unless somebody says otherwise.
    pub(crate) fn component(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.manifest.name))
    }

    /// The kind, by the package whose text lies in the folder's `wit`.
    pub(crate) fn kind(&self) -> Result<PluginKind> {
        let folder = self.folder.join("wit");
        let entries = fs::read_dir(&folder).with_context(|| {
            format!(
                "read {}: the contract of the plugin's kind lies there",
                folder.display()
            )
        })?;
        for entry in entries {
            let path = entry.context("read the folder wit")?.path();
            if path.extension().is_none_or(|extension| extension != "wit") {
                continue;
            }
            let text =
                fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            let kind = PluginKind::ALL
                .into_iter()
                .find(|kind| text.contains(&format!("package loopback:{}@", package(*kind))));
            if let Some(kind) = kind {
                return Ok(kind);
            }
        }
        bail!("{} has the contract of no kind of plugin", folder.display())
    }
}

/// Reads and checks a `plugin.toml`.
pub(crate) fn read_manifest(path: &Path) -> Result<Manifest> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let manifest: Manifest =
        toml::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    manifest
        .check()
        .with_context(|| format!("check {}", path.display()))?;
    Ok(manifest)
}

/// The package of the contract that a kind is in.
pub(crate) fn package(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Installer => "install",
        PluginKind::Notifier => "signal",
        PluginKind::Policy => "policy",
        PluginKind::Power => "power",
    }
}

/// The world of a kind, as tools want it.
pub(crate) fn world(kind: PluginKind) -> String {
    format!("loopback:{}/{kind}", package(kind))
}
