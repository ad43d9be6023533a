//! What the renderer accepts, what it refuses, and what its script does when
//! real shells run it. Hosts here are folders (LOOPBACK_INSTALL_ROOT) with a fake
//! agent and a fake systemctl; real systemd hosts are the e2e suite's.

mod host;
mod places;
mod preflight;
mod refusal;
mod runs;
mod secrets;
mod serve;
mod text;
mod tls;
mod unit;

use std::process::Command;

use super::*;

/// Something like the gateway's CA; only the script's tests over TLS need a real one.
const CA_PEM: &str = "-----BEGIN CERTIFICATE-----\n\
    MIIBszCCAVmgAwIBAgIUZm9yIHRoZSBpbnN0YWxsZXIncyB0ZXN0czAKBggqhkjO\n\
    PQQDAjAVMRMwEQYDVQQDDApsb29wYmFjayBjYTAgFw0=\n\
    -----END CERTIFICATE-----\n";
const PIN: &str = "sha256//47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const KEY: &str =
    "loopback-release-1:0f1e2d3c4b5a6978:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const BINARIES: &[Binary<'static>] = &[
    Binary {
        arch: "x86_64",
        name: "loopback-agent-linux-x86_64",
        sha256: SHA256,
        size: 3_141_592,
    },
    Binary {
        arch: "aarch64",
        name: "loopback-agent-linux-aarch64",
        sha256: SHA256,
        size: 2_718_281,
    },
];

const PARAMS: InstallParams<'static> = InstallParams {
    base_url: "https://gateway.example:8443",
    channel: "stable",
    verbose: false,
    production: true,
    script_path: SCRIPT_PATH,
    version: "1.2.3",
    binaries: BINARIES,
    ca_pem: CA_PEM,
    https_pin: Some(PIN),
    release_keys: &[KEY],
};

/// The shells that are here: `sh` first, then by name.
fn shells() -> Vec<&'static [&'static str]> {
    let known: [&[&str]; 4] = [&["sh"], &["dash"], &["bash"], &["busybox", "sh"]];
    known.into_iter().filter(|shell| has(shell[0])).collect()
}

/// Whether a program is on this machine; a test that does without says so aloud.
fn has(program: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .output()
        .is_ok_and(|output| output.status.success());
    if !found {
        eprintln!("SKIPPED: {program} is not installed here, what needs it was not checked");
    }
    found
}
