//! What a component says of itself, without compiling or running any of it.
//!
//! These bytes come from strangers. The parser is bounded by the size of the file and by its own
//! limits; bodies of functions are not looked at here, since the process that compiles checks each
//! of them. What follows from this look: the kind (by the interface that is exported), whether
//! everything that is imported belongs to the kind's world, and the author's manifest.

use model::plugin::{InvalidManifest, MANIFEST_SECTION, Manifest, PluginDigest, PluginKind};
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};

use crate::contract::{self, PLUGIN, VERSION};

/// The largest component that is looked at, unless said otherwise.
pub const COMPONENT_BYTES: u64 = 64 << 20;

/// A manifest is a page of text.
const MANIFEST_BYTES: usize = 64 << 10;

/// Imports and exports that are looked at.
const MAX_NAMES: usize = 1_000;

/// Packages of WASI 0.2 that are there, and inert.
const WASI: [&str; 6] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Of the bytes.
    pub digest: PluginDigest,
    /// By what is exported.
    pub kind: PluginKind,
    /// What the author says.
    pub manifest: Manifest,
    /// As in `loopback:base/log@0.1.0`.
    pub imports: Vec<String>,
    /// As in `loopback:install/renderer@0.1.0`.
    pub exports: Vec<String>,
    /// Of the file.
    pub size_bytes: u64,
}

/// Why a file is no plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InspectError {
    /// Larger than allowed.
    #[error("the file has {size} bytes, and {limit} are allowed")]
    TooLarge {
        /// Of the file.
        size: u64,
        /// The most.
        limit: u64,
    },
    /// Not WebAssembly at all.
    #[error("the file is not WebAssembly")]
    NotWasm,
    /// A module and no component.
    #[error("the file is a core module; a plugin is a component: build for wasm32-wasip2")]
    Module,
    /// The bytes contradict themselves.
    #[error("the component is not valid: {0}")]
    Invalid(String),
    /// No section with a manifest.
    #[error("there is no manifest in it (custom section `{MANIFEST_SECTION}`)")]
    NoManifest,
    /// Which of them would hold?
    #[error("there is more than one manifest in it")]
    TwoManifests,
    /// Larger than any manifest.
    #[error("the manifest is larger than {MANIFEST_BYTES} bytes")]
    LargeManifest,
    /// Not the JSON of a manifest.
    #[error("the manifest cannot be read: {0}")]
    ManifestText(String),
    /// Read, and does not hold.
    #[error("the manifest does not hold: {0}")]
    Manifest(InvalidManifest),
    /// Exports nothing that a gateway calls.
    #[error(
        "it exports no interface by which a gateway could use it, as `loopback:install/renderer`"
    )]
    NoKind,
    /// Exports what makes it two kinds of plugin.
    #[error("it is a plugin of two kinds, {0} and {1}")]
    TwoKinds(PluginKind, PluginKind),
    /// Lacks what all plugins export.
    #[error("it does not export `{PLUGIN}`")]
    NoPlugin,
    /// Another version of the contract.
    #[error("it is written for `{0}`, and this gateway speaks {VERSION}")]
    Version(String),
    /// Imports what its world does not offer.
    #[error("it imports `{import}`, which is not offered to plugins of kind {kind}")]
    Import {
        /// What it imports.
        import: String,
        /// What it is.
        kind: PluginKind,
    },
}

impl InspectError {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::NotWasm => "not_wasm",
            Self::Module => "not_a_component",
            Self::Invalid(_) => "invalid_component",
            Self::NoManifest => "no_manifest",
            Self::TwoManifests => "two_manifests",
            Self::LargeManifest => "large_manifest",
            Self::ManifestText(_) => "unreadable_manifest",
            Self::Manifest(_) => "invalid_manifest",
            Self::NoKind => "no_kind",
            Self::TwoKinds(..) => "two_kinds",
            Self::NoPlugin => "no_plugin_export",
            Self::Version(_) => "contract_version",
            Self::Import { .. } => "import_outside_world",
        }
    }
}

/// Looks at a component of at most [`COMPONENT_BYTES`].
pub fn inspect(bytes: &[u8]) -> Result<Inspected, InspectError> {
    inspect_within(bytes, COMPONENT_BYTES)
}

/// Looks at a component of at most `limit` bytes.
pub fn inspect_within(bytes: &[u8], limit: u64) -> Result<Inspected, InspectError> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if size > limit {
        return Err(InspectError::TooLarge { size, limit });
    }
    let outside = read(bytes)?;
    let kind = kind_of(&outside.exports)?;
    for import in &outside.imports {
        allowed(kind, import)?;
    }
    let manifest = outside.manifest.ok_or(InspectError::NoManifest)?;
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| InspectError::ManifestText(short(error)))?;
    manifest.check().map_err(InspectError::Manifest)?;
    Ok(Inspected {
        digest: PluginDigest::of(bytes),
        kind,
        manifest,
        imports: outside.imports,
        exports: outside.exports,
        size_bytes: size,
    })
}

/// What is seen from outside.
#[derive(Default)]
struct Outside<'a> {
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Option<&'a [u8]>,
}

fn read(bytes: &[u8]) -> Result<Outside<'_>, InspectError> {
    match bytes {
        [b'\0', b'a', b's', b'm', _, _, _, _, ..] => {}
        _ => return Err(InspectError::NotWasm),
    }
    let invalid = |error: wasmparser::BinaryReaderError| InspectError::Invalid(short(error));
    let mut validator = Validator::new_with_features(WasmFeatures::default());
    let mut outside = Outside::default();
    // How many modules and components are around what is being read.
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(bytes) {
        let payload = payload.map_err(invalid)?;
        if let Payload::Version { encoding, .. } = &payload
            && depth == 0
            && *encoding == Encoding::Module
        {
            return Err(InspectError::Module);
        }
        validator.payload(&payload).map_err(invalid)?;
        match payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    let import = import.map_err(invalid)?;
                    outside.imports.push(short(import.name.name));
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    let export = export.map_err(invalid)?;
                    outside.exports.push(short(export.name.name));
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == MANIFEST_SECTION => {
                if outside.manifest.is_some() {
                    return Err(InspectError::TwoManifests);
                }
                if section.data().len() > MANIFEST_BYTES {
                    return Err(InspectError::LargeManifest);
                }
                outside.manifest = Some(section.data());
            }
            _ => {}
        }
        if outside.imports.len() + outside.exports.len() > MAX_NAMES {
            let what = format!("more than {MAX_NAMES} imports and exports");
            return Err(InspectError::Invalid(what));
        }
    }
    Ok(outside)
}

fn kind_of(exports: &[String]) -> Result<PluginKind, InspectError> {
    let mut found = None;
    let mut plugin = false;
    for export in exports {
        let Some((interface, version)) = export.split_once('@') else {
            continue;
        };
        let kind = PluginKind::ALL
            .into_iter()
            .find(|kind| contract::export_of(*kind) == interface);
        if (kind.is_some() || interface == PLUGIN) && version != VERSION {
            return Err(InspectError::Version(export.clone()));
        }
        plugin |= interface == PLUGIN;
        match (found, kind) {
            (Some(one), Some(two)) => return Err(InspectError::TwoKinds(one, two)),
            (None, Some(kind)) => found = Some(kind),
            (_, None) => {}
        }
    }
    let kind = found.ok_or(InspectError::NoKind)?;
    if plugin {
        Ok(kind)
    } else {
        Err(InspectError::NoPlugin)
    }
}

fn allowed(kind: PluginKind, import: &str) -> Result<(), InspectError> {
    let (interface, version) = import.split_once('@').unwrap_or((import, ""));
    if contract::imports_of(kind).contains(&interface) {
        return if version == VERSION {
            Ok(())
        } else {
            Err(InspectError::Version(import.to_owned()))
        };
    }
    let wasi = WASI.iter().any(|package| interface.starts_with(package));
    if wasi && version.starts_with("0.2.") {
        return Ok(());
    }
    let import = import.to_owned();
    Err(InspectError::Import { import, kind })
}

fn short(text: impl ToString) -> String {
    model::names::clean(&text.to_string(), 300)
}

#[cfg(test)]
mod tests;
