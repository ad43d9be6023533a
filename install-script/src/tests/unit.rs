//! The systemd unit, judged by systemd's own tools.

use std::fs;
use std::process::Command;

use super::super::UNIT;
use super::has;

/// What `systemd-analyze security` 252 gives the unit, times ten; 100 is no
/// protection at all. Raise it only with a reason in the unit.
const EXPOSURE_LIMIT: &str = "27";

#[test]
fn abuse_30_the_unit_names_no_secret_and_stops_as_documented() {
    for line in [
        "Type=notify",
        "Restart=always",
        "KillMode=mixed",
        // The uninstaller stops it by this name.
        "Slice=loopback.slice",
        "StartLimitIntervalSec=0",
        "OOMScoreAdjust=-500",
        "Wants=network-online.target",
    ] {
        assert!(UNIT.lines().any(|l| l == line), "{line} is missing");
    }
    let assignments = UNIT.lines().filter(|line| !line.starts_with('#'));
    assert!(
        !assignments
            .clone()
            .any(|line| line.to_lowercase().contains("token"))
    );
    let environment: Vec<_> = assignments
        .clone()
        .filter(|line| line.starts_with("Environment="))
        .collect();
    assert_eq!(environment, ["Environment=LOOPBACK_BOOT_ID=%b"]);
}

#[test]
fn systemd_accepts_the_unit_and_finds_it_tight() {
    if !has("systemd-analyze") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("loopback-agent.service");
    // verify wants the program to exist on this machine.
    fs::write(
        &path,
        UNIT.replace("/usr/local/bin/loopback-agent", "/bin/true"),
    )
    .unwrap();
    let verify = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&verify.stderr);
    assert!(
        verify.status.success() && !said.contains("loopback-agent"),
        "{said}"
    );

    let security = Command::new("systemd-analyze")
        .args([
            "security",
            "--no-pager",
            "--offline=true",
            "--threshold",
            EXPOSURE_LIMIT,
        ])
        .arg(&path)
        .output()
        .unwrap();
    assert!(
        security.status.success(),
        "{}",
        String::from_utf8_lossy(&security.stdout)
    );
}
