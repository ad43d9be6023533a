use super::*;

/// What a world imports by its own words, with what its `use` lines bring.
fn imports_in_wit(kind: PluginKind) -> Vec<String> {
    let package = match kind {
        PluginKind::Installer => "install",
        PluginKind::Notifier => "signal",
        PluginKind::Policy => "policy",
        PluginKind::Power => "power",
    };
    let path = format!(
        "{}/../../wit/{package}/{VERSION}/{package}.wit",
        env!("CARGO_MANIFEST_DIR")
    );
    let text = std::fs::read_to_string(path).expect("the contract");
    let mut found = vec![
        "loopback:base/types".to_owned(),
        format!("loopback:{package}/types"),
    ];
    for line in text.lines() {
        if let Some(import) = line.trim().strip_prefix("import ") {
            let name = import.split('@').next().unwrap_or_default();
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn each_kind_may_import_what_its_world_says() {
    for kind in PluginKind::ALL {
        assert_eq!(imports_of(kind), imports_in_wit(kind), "{kind}");
    }
}
