//! Guests from changed copies of the contract: one package whose examples they are, built at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cases::{Case, File};
use crate::support::with_manifest;

const MANIFEST: &str = r#"
[package]
name = "compat"
version = "0.1.0"
edition = "2024"
publish = false

[workspace]

[dependencies]
wit-bindgen = { version = "0.57", default-features = false, features = ["macros", "realloc"] }

[profile.release]
opt-level = 1
debug = false
strip = true
"#;

/// A policy that uses everything that its world has.
const SOURCE: &str = r##"
wit_bindgen::generate!({
    path: ["FOLDER/base", "FOLDER/policy"],
    world: "loopback:policy/policy",
    generate_all,
});

use exports::loopback::base::plugin;
use exports::loopback::policy::authorizer;
use loopback::base::types::{Descriptor, Diagnostic, Error};
use loopback::base::{config, log};
use loopback::policy::types::{Reason, Request, Verdict};

struct Guest;

export!(Guest);

impl plugin::Guest for Guest {
    fn describe() -> Descriptor {
        Descriptor { config_schema: String::new(), features: Vec::new(), extra: Vec::new() }
    }

    fn check_config(_: String) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn migrate_config(_: String, json: String) -> Result<String, Error> {
        Ok(json)
    }
}

impl authorizer::Guest for Guest {
    fn decide(request: Request) -> Verdict {
        log::write(log::Level::Info, &request.action, &[]);
        let known = config::json() == r#"{"a":1}"# && config::revision() == 3;
        let code = if known { "compat.asked" } else { "compat.not_configured" };
        Verdict::Deny(Reason { code: code.into(), message: request.action })
    }
}
"##;

/// The components, in the order of the cases.
pub(crate) fn build(cases: &[Case]) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compat-guests");
    let examples = folder.join("examples");
    // What another set of cases left would be built, too.
    for entry in fs::read_dir(&examples).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !cases.iter().any(|case| format!("{}.rs", case.name) == name) {
            fs::remove_file(entry.path()).expect("remove an old guest");
        }
    }
    let mut manifest = MANIFEST.to_owned();
    for case in cases {
        manifest.push_str(&format!(
            "\n[[example]]\nname = \"{}\"\ncrate-type = [\"cdylib\"]\n",
            case.name
        ));
        let wit = folder.join("wit").join(case.name);
        let [mut base, mut policy] = [published("base"), published("policy")];
        let mut source = SOURCE.replace("FOLDER", &wit.display().to_string());
        for (file, from, to) in case.edits {
            let text = match file {
                File::Base => &mut base,
                File::Policy => &mut policy,
                File::Source => &mut source,
            };
            assert!(text.contains(from), "{}: nothing is `{from}`", case.name);
            *text = text.replace(from, to);
        }
        put(&wit.join("base/base.wit"), &base);
        put(&wit.join("policy/policy.wit"), &policy);
        put(&examples.join(format!("{}.rs", case.name)), &source);
    }
    put(&folder.join("Cargo.toml"), &manifest);
    put(&folder.join("src/lib.rs"), "");
    // The versions that the other guests are built with.
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guests/Cargo.lock");
    if !folder.join("Cargo.lock").exists() {
        put(&folder.join("Cargo.lock"), &read(&lock));
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("plugin-guests");
    let output = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args([
            "build",
            "--examples",
            "--release",
            "--target",
            "wasm32-wasip2",
        ])
        .current_dir(&folder)
        .env("CARGO_TARGET_DIR", &target)
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "guests were not built; if the target is missing: rustup target add wasm32-wasip2\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let built = target.join("wasm32-wasip2/release/examples");
    cases
        .iter()
        .map(|case| {
            let file = built.join(format!("{}.wasm", case.name));
            let bytes =
                fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            with_manifest(&bytes, "compat")
        })
        .collect()
}

/// The text of a package as it was published.
fn published(package: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    read(
        &root
            .join(package)
            .join("0.1.0")
            .join(format!("{package}.wit")),
    )
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Writes what is not there yet: cargo builds anew what is newer.
fn put(path: &PathBuf, text: &str) {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return;
    }
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("make a folder");
    fs::write(path, text).expect("write a guest");
}
