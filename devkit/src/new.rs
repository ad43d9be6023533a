//! `new`: a folder to begin with. Everything in it is carried by this program, the contract and the
//! Rust SDK too, so it needs neither a checkout nor a network.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use model::names::Name;
use model::plugin::PluginKind;

use crate::project::Language;
use crate::say;

macro_rules! template {
    ($path:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/templates/", $path))
    };
}

macro_rules! contract {
    ($path:literal) => {
        (
            $path,
            include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit/", $path)),
        )
    };
}

/// The contract, as it lies in the SDK.
const CONTRACT: [(&str, &str); 5] = [
    contract!("base/0.1.0/base.wit"),
    contract!("install/0.1.0/install.wit"),
    contract!("signal/0.1.0/signal.wit"),
    contract!("policy/0.1.0/policy.wit"),
    contract!("power/0.1.0/power.wit"),
];

macro_rules! sdk {
    ($($path:literal),* $(,)?) => {
        [$(($path, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/sdk/", $path)))),*]
    };
}

/// The Rust SDK without its contract.
const SDK: [(&str, &str); 16] = sdk![
    "Cargo.toml",
    "src/bindings.rs",
    "src/config.rs",
    "src/error.rs",
    "src/glue.rs",
    "src/health.rs",
    "src/host.rs",
    "src/http.rs",
    "src/installer.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/notifier.rs",
    "src/plugin.rs",
    "src/policy.rs",
    "src/power.rs",
    "src/testing.rs",
];

/// Makes the folder `name`.
pub(crate) fn new(name: &Name, kind: PluginKind, language: Language) -> Result<()> {
    let folder = Path::new(name.as_str());
    ensure!(!folder.exists(), "{name} is there already");
    for (path, text) in files(name, kind, language) {
        let path = folder.join(path);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    }
    say(&format!(
        "{name}: a plugin of the kind {kind}. Go on with\n  cd {name} && {}loopback-plugin build && loopback-plugin test",
        setup(language)
    ));
    Ok(())
}

/// What is to be done once before the first build.
fn setup(language: Language) -> &'static str {
    match language {
        Language::Rust => "rustup target add wasm32-wasip2 && ",
        Language::Js => "npm install && ",
        Language::Python => {
            "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && "
        }
    }
}

fn files(name: &Name, kind: PluginKind, language: Language) -> Vec<(String, String)> {
    let fill = |text: &str| {
        text.replace("{{name}}", name.as_str())
            .replace("{{kind}}", kind.as_str())
            .replace("{{setup}}", &setup(language).replace(" && ", "\n"))
    };
    let test = match kind {
        PluginKind::Installer => template!("installer.toml"),
        PluginKind::Notifier => template!("notifier.toml"),
        PluginKind::Policy => template!("policy.toml"),
        PluginKind::Power => template!("power.toml"),
    };
    let mut files = vec![
        ("plugin.toml".to_owned(), manifest(name, kind)),
        ("tests/first.toml".to_owned(), test.to_owned()),
        ("README.md".to_owned(), fill(template!("README.md"))),
        (
            ".gitignore".to_owned(),
            "/target\n/node_modules\n/.venv\n__pycache__\n*.wasm\n".to_owned(),
        ),
    ];
    if kind == PluginKind::Power {
        files.push((
            "tests/conformance.toml".to_owned(),
            template!("power-conformance.toml").to_owned(),
        ));
    }
    let mut add = |path: &str, text: &str| files.push((path.to_owned(), fill(text)));
    let (source, text) = match (language, kind) {
        (Language::Rust, PluginKind::Installer) => ("src/lib.rs", template!("rust/installer.rs")),
        (Language::Rust, PluginKind::Notifier) => ("src/lib.rs", template!("rust/notifier.rs")),
        (Language::Rust, PluginKind::Policy) => ("src/lib.rs", template!("rust/policy.rs")),
        (Language::Rust, PluginKind::Power) => ("src/lib.rs", template!("rust/power.rs")),
        (Language::Js, PluginKind::Installer) => ("plugin.js", template!("js/installer.js")),
        (Language::Js, PluginKind::Notifier) => ("plugin.js", template!("js/notifier.js")),
        (Language::Js, PluginKind::Policy) => ("plugin.js", template!("js/policy.js")),
        (Language::Js, PluginKind::Power) => ("plugin.js", template!("js/power.js")),
        (Language::Python, PluginKind::Installer) => ("app.py", template!("python/installer.py")),
        (Language::Python, PluginKind::Notifier) => ("app.py", template!("python/notifier.py")),
        (Language::Python, PluginKind::Policy) => ("app.py", template!("python/policy.py")),
        (Language::Python, PluginKind::Power) => ("app.py", template!("python/power.py")),
    };
    add(source, text);
    match language {
        Language::Rust => add("Cargo.toml", template!("rust/Cargo.toml.txt")),
        Language::Js => add("package.json", template!("js/package.json.txt")),
        Language::Python => add("requirements.txt", template!("requirements.txt")),
    }
    // Texts of ours are taken as they are: what looks like a place to fill in is none.
    if language == Language::Rust {
        let sdk = SDK
            .iter()
            .map(|(path, text)| (format!("sdk/{path}"), (*text).to_owned()));
        files.extend(sdk);
        let wit = CONTRACT
            .iter()
            .map(|(path, text)| (format!("sdk/wit/{path}"), (*text).to_owned()));
        files.extend(wit);
    } else {
        let package = crate::project::package(kind);
        for (path, text) in CONTRACT {
            if path.starts_with("base/") {
                files.push(("wit/deps/base.wit".to_owned(), text.to_owned()));
            } else if path.starts_with(package) {
                files.push((format!("wit/{package}.wit"), text.to_owned()));
            }
        }
    }
    files
}

fn manifest(name: &Name, kind: PluginKind) -> String {
    let mut text = format!(
        "format = 1\nname = \"{name}\"\nversion = \"0.1.0\"\n\
         description = \"What it does, in a line\"\n"
    );
    if kind == PluginKind::Notifier {
        text.push_str(
            "\n[[needs.http]]\nname = \"target\"\npurpose = \"where events go\"\n\n\
             [[needs.secrets]]\nname = \"token\"\npurpose = \"shown to the target as a bearer token\"\n",
        );
    }
    if kind == PluginKind::Power {
        text.push_str(
            "\n[[needs.http]]\nname = \"controllers\"\npurpose = \"what turns the machines on and off\"\n\n\
             [[needs.secrets]]\nname = \"token\"\npurpose = \"shown to each machine's controller\"\nper_target = true\n",
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;
    use crate::project::Project;

    #[test]
    fn the_sdk_is_carried_whole() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/sdk/src");
        let mut there: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| format!("src/{}", entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        there.push("Cargo.toml".into());
        there.sort();
        let mut carried: Vec<_> = SDK.iter().map(|(path, _)| *path).collect();
        carried.sort_unstable();
        assert_eq!(carried, there);
    }

    /// To you whose build failed here: a published version of the contract is never edited, because
    /// components that are out there were made from it. Copy the folder to the next version and
    /// change that; docs/contract.md says what is compatible with what. A new folder gets its line
    /// in wit/frozen.txt (`sha256sum`) when it is published.
    #[test]
    fn published_contracts_do_not_change() {
        let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../wit"));
        let frozen = fs::read_to_string(folder.join("frozen.txt")).unwrap();
        let mut there = Vec::new();
        let mut rest = vec![folder.to_owned()];
        while let Some(path) = rest.pop() {
            if path.is_dir() {
                rest.extend(
                    fs::read_dir(path)
                        .unwrap()
                        .map(|entry| entry.unwrap().path()),
                );
            } else if path.extension().is_some_and(|extension| extension == "wit") {
                let digest = model::plugin::PluginDigest::of(&fs::read(&path).unwrap());
                let name = path.strip_prefix(folder).unwrap().display();
                there.push(format!("{digest}  {name}"));
            }
        }
        there.sort_by_key(|line| line.split("  ").last().map(str::to_owned));
        assert_eq!(there, frozen.lines().collect::<Vec<_>>());
    }

    #[test]
    fn every_beginning_is_a_project_with_a_test() {
        let home = tempfile::tempdir().unwrap();
        for kind in PluginKind::ALL {
            for language in [Language::Rust, Language::Js, Language::Python] {
                let name: Name = format!("{kind}-{language:?}")
                    .to_lowercase()
                    .parse()
                    .unwrap();
                for (path, text) in files(&name, kind, language) {
                    for place in ["{{name}}", "{{kind}}", "{{setup}}"] {
                        assert!(!text.contains(place), "{path} has {place}");
                    }
                    let path = home.path().join(name.as_str()).join(path);
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, text).unwrap();
                }
                let project = Project::open(&home.path().join(name.as_str())).unwrap();
                assert_eq!(
                    (project.language, &project.manifest.name),
                    (language, &name)
                );
                if language != Language::Rust {
                    assert_eq!(project.kind().unwrap(), kind);
                }
                Fixture::read(&project.folder.join("tests/first.toml")).unwrap();
            }
        }
    }
}
