//! The units in `packaging/systemd`, judged by systemd's own tools where they are.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail as it does")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// What `systemd-analyze security` 252 may give a unit, times ten; 100 is no protection
/// at all.
const EXPOSURE_LIMIT: &str = "20";

#[test]
fn systemd_accepts_the_units_and_finds_them_tight() {
    if !has("systemd-analyze") {
        return;
    }
    // Together, because they name each other; verify wants their program to exist.
    let dir = tempfile::tempdir().unwrap();
    let units = units().into_iter().map(|(name, text)| {
        let path = dir.path().join(name);
        fs::write(
            &path,
            text.replace("/usr/local/bin/loopback-gateway", "/bin/true"),
        )
        .unwrap();
        path
    });
    for path in units.collect::<Vec<_>>() {
        let verify = analyze(&["verify", "--man=no"], &path);
        assert!(!verify.1.contains("loopback"), "{}", verify.1);
        if path.extension().is_some_and(|it| it == "service") {
            let args = ["security", "--no-pager", "--offline=true", "--threshold"];
            let security = analyze(&[&args[..], &[EXPOSURE_LIMIT]].concat(), &path);
            assert!(security.0, "{}", security.1);
        }
    }
}

#[test]
fn the_gateway_is_started_again_and_keeps_its_state_where_the_documents_say() {
    let units = units();
    let unit = &units.iter().find(|it| it.0 == "loopback-gateway.service");
    let unit = &unit.unwrap().1;
    for line in [
        "Type=notify",
        "Restart=on-failure",
        "StateDirectory=loopback-gateway",
        "ProtectSystem=strict",
        "DynamicUser=yes",
        "LimitNOFILE=65536",
    ] {
        assert!(unit.lines().any(|it| it == line), "{line} is missing");
    }
    assert!(unit.contains("serve --config /etc/loopback/gateway.toml"));
}

fn units() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/systemd");
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, fs::read_to_string(&path).unwrap())
    };
    let units = fs::read_dir(folder).unwrap();
    units.map(|entry| read(entry.unwrap().path())).collect()
}

fn analyze(args: &[&str], unit: &Path) -> (bool, String) {
    let mut command = Command::new("systemd-analyze");
    let output = command.args(args).arg(unit).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

fn has(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).exists())
}
