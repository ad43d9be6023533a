use wasm_encoder::{
    Component, ComponentExportKind, ComponentExportSection, ComponentImportSection,
    ComponentTypeRef, ComponentTypeSection, CustomSection, InstanceType,
};

use super::*;

const MANIFEST: &str = r#"{"format":1,"name":"x","version":"1.0.0","description":"d"}"#;

/// A component of empty interfaces.
fn component(imports: &[&str], exports: &[&str], manifests: &[&str]) -> Vec<u8> {
    let mut types = ComponentTypeSection::new();
    types.instance(&InstanceType::new());
    let mut import_section = ComponentImportSection::new();
    // Something to export.
    import_section.import("loopback:base/types@0.1.0", ComponentTypeRef::Instance(0));
    for import in imports {
        import_section.import(*import, ComponentTypeRef::Instance(0));
    }
    let mut export_section = ComponentExportSection::new();
    for export in exports {
        export_section.export(*export, ComponentExportKind::Instance, 0, None);
    }
    let mut component = Component::new();
    component
        .section(&types)
        .section(&import_section)
        .section(&export_section);
    for manifest in manifests {
        component.section(&CustomSection {
            name: MANIFEST_SECTION.into(),
            data: manifest.as_bytes().into(),
        });
    }
    component.finish()
}

const INSTALLER: [&str; 2] = [
    "loopback:base/plugin@0.1.0",
    "loopback:install/renderer@0.1.0",
];

#[track_caller]
fn refused(bytes: &[u8]) -> (&'static str, String) {
    let error = inspect(bytes).expect_err("refused");
    (error.code(), error.to_string())
}

#[test]
fn kind_manifest_and_names_are_found() {
    let bytes = component(
        &["loopback:base/log@0.1.0", "wasi:cli/stderr@0.2.6"],
        &INSTALLER,
        &[MANIFEST],
    );
    let found = inspect(&bytes).expect("a plugin");
    assert_eq!(found.kind, PluginKind::Installer);
    assert_eq!(found.manifest.name.as_str(), "x");
    assert_eq!(found.imports.len(), 3);
    assert_eq!(found.exports, INSTALLER);
    assert_eq!(found.digest, PluginDigest::of(&bytes));
    assert_eq!(found.size_bytes, bytes.len() as u64);
}

#[test]
fn imports_outside_the_world_are_refused_and_named() {
    for import in [
        "loopback:base/http@0.1.0",
        "loopback:base/reveal@0.1.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:cli/environment@0.3.0",
        "evil:host/shell@1.0.0",
        "shell",
    ] {
        let (code, text) = refused(&component(&[import], &INSTALLER, &[MANIFEST]));
        assert_eq!(code, "import_outside_world", "{import}");
        assert!(
            text.contains(import) && text.contains("installer"),
            "{text}"
        );
    }
}

#[test]
fn another_version_of_the_contract_is_named() {
    let newer = [
        "loopback:base/plugin@0.2.0",
        "loopback:install/renderer@0.2.0",
    ];
    assert_eq!(
        refused(&component(&[], &newer, &[MANIFEST])).0,
        "contract_version"
    );
    let bytes = component(&["loopback:base/log@0.2.0"], &INSTALLER, &[MANIFEST]);
    assert_eq!(refused(&bytes).0, "contract_version");
}

#[test]
fn what_is_exported_must_make_it_one_plugin() {
    assert_eq!(refused(&component(&[], &[], &[MANIFEST])).0, "no_kind");
    assert_eq!(
        refused(&component(&[], &INSTALLER[1..], &[MANIFEST])).0,
        "no_plugin_export"
    );
    let both = [INSTALLER[0], INSTALLER[1], "loopback:signal/sink@0.1.0"];
    assert_eq!(refused(&component(&[], &both, &[MANIFEST])).0, "two_kinds");
}

#[test]
fn there_is_one_manifest_and_it_holds() {
    let large = "x".repeat(MANIFEST_BYTES + 1);
    let format = MANIFEST.replace("1,", "2,");
    for (manifests, expected) in [
        (&[][..], "no_manifest"),
        (&[MANIFEST, MANIFEST][..], "two_manifests"),
        (&["{}"][..], "unreadable_manifest"),
        (&[large.as_str()][..], "large_manifest"),
        (&[format.as_str()][..], "invalid_manifest"),
    ] {
        assert_eq!(refused(&component(&[], &INSTALLER, manifests)).0, expected);
    }
}

#[test]
fn no_bytes_make_it_panic() {
    let good = component(&["loopback:base/log@0.1.0"], &INSTALLER, &[MANIFEST]);
    for at in 0..good.len() {
        let _ = inspect(&good[..at]);
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[at] ^= 1 << bit;
            let _ = inspect(&bad);
        }
    }
}

#[test]
fn size_is_looked_at_first() {
    let good = component(&[], &INSTALLER, &[MANIFEST]);
    let limit = good.len() as u64 - 1;
    assert_eq!(
        inspect_within(&good, limit).expect_err("large").code(),
        "too_large"
    );
}
