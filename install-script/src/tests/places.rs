//! Hosts that are not the usual one: images, no systemd, nothing but busybox; and leaving.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::has;
use super::host::{Host, TOKEN, agent};

#[test]
fn golden_images_need_neither_token_nor_network() {
    let mut host = Host::new();
    host.unset_env("LOOPBACK_TOKEN");
    fs::remove_dir_all(host.root("run")).unwrap();
    let bundle = host.dir.path().join("bundle");
    fs::create_dir(&bundle).unwrap();
    for (name, bytes) in [
        ("manifest.json", b"m".to_vec()),
        ("manifest.json.sig", b"s".to_vec()),
        ("loopback-agent", agent("1.2.3")),
    ] {
        fs::write(bundle.join(name), bytes).unwrap();
    }
    let script = host.publish_with("1.2.3", |params| {
        params.base_url = "https://gateway.invalid"
    });
    let bundle = bundle.to_str().unwrap();
    host.pipe(&script, &["--bundle", bundle, "--no-start"])
        .expect(0, "starts at the next boot");
    assert_eq!(host.server.asked(), [""; 0]);
    let calls = host.calls();
    assert!(
        calls.contains("enable loopback-agent.service") && !calls.contains("restart"),
        "{calls}"
    );
    assert!(!host.root("etc/loopback-agent/token").exists());
    host.pipe(&script, &["--bundle", bundle, "--no-start"])
        .expect(0, "nothing to do");

    fs::write(format!("{bundle}/loopback-agent"), agent("1.2.4")).unwrap();
    let mut host = Host::new();
    host.unset_env("LOOPBACK_TOKEN");
    host.pipe(&script, &["--bundle", bundle, "--no-start"])
        .expect(1, "digest");
    host.pipe(&script, &["--bundle", "/nonexistent"])
        .expect(2, "no such folder");
}

#[test]
fn without_systemd_the_files_alone_can_be_installed() {
    let host = Host::new();
    fs::remove_dir_all(host.root("run")).unwrap();
    host.pipe(&host.publish("1.2.3"), &["--no-service"])
        .expect(0, "start (or restart) it with");
    assert!(
        !host
            .root("etc/systemd/system/loopback-agent.service")
            .exists()
    );
    assert_eq!(host.read("etc/loopback-agent/token"), format!("{TOKEN}\n"));
    assert_eq!(host.mode("etc/loopback-agent/token"), 0o600);
    assert!(!host.calls().contains("systemctl"));
}

#[test]
fn uninstalling_tells_the_gateway_and_leaves_nothing() {
    let mut host = Host::installed("1.2.3");
    host.unset_env("LOOPBACK_TOKEN");
    fs::create_dir_all(host.root("etc/systemd/system/loopback-agent.service.d")).unwrap();
    fs::create_dir_all(host.root("var/log/loopback-agent")).unwrap();
    let script = host.publish("1.2.3");
    host.server.clear(); // uninstalling needs no release
    host.pipe(&script, &["--uninstall", "--dry-run"])
        .expect(0, "would deregister");
    host.pipe(&script, &["--uninstall", "--keep-logs"])
        .expect(0, "the gateway has retired this host");
    assert_eq!(
        host.left().into_keys().collect::<Vec<_>>(),
        ["var/log/loopback-agent"]
    );
    let calls = host.calls();
    assert!(
        calls.find("deregister") < calls.find("systemctl disable --now"),
        "{calls}"
    );
    assert!(calls.contains("systemctl daemon-reload"));

    host.pipe(&script, &["--uninstall"]).expect(0, "removed");
    assert_eq!(host.left(), BTreeMap::new());
    host.pipe(&script, &["--uninstall"])
        .expect(0, "nothing is installed");
}

#[test]
fn uninstalling_works_without_the_gateway_and_with_a_broken_agent() {
    let host = Host::installed("1.2.3");
    host.mark("gateway-gone");
    host.pipe(&host.publish("1.2.3"), &["--uninstall", "--verbose"])
        .expect(0, "no route to the gateway")
        .expect(0, "the gateway could not be told");
    let mut rest = host.left();
    rest.remove("run");
    assert_eq!(rest, BTreeMap::new());

    let host = Host::installed("1.2.3");
    fs::remove_file(host.root("usr/local/bin/loopback-agent")).unwrap();
    host.pipe(&host.publish("1.2.3"), &["--uninstall"])
        .expect(0, "the gateway could not be told");
    assert_eq!(host.left(), BTreeMap::new());
}

#[test]
fn a_host_with_nothing_but_busybox_is_installed() {
    if !has("busybox") {
        return;
    }
    // Its `sh` is the first in the PATH below.
    let mut host = Host::new();
    let tools = host.dir.path().join("busybox");
    fs::create_dir(&tools).unwrap();
    let made = Command::new("busybox")
        .args(["--install", "-s"])
        .arg(&tools)
        .status()
        .unwrap();
    assert!(made.success());
    host.set_path(tools.to_str().unwrap());
    // The fakes say /bin/sh; everything they and the script call is busybox.
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(0, "download with plain-wget")
        .expect(0, "the gateway has seen this host");
    host.pipe(&host.publish("1.3.0"), &[]).expect(0, "upgrade");
    host.pipe(&host.publish("1.3.0"), &["--uninstall"])
        .expect(0, "removed");
    assert_eq!(host.left(), BTreeMap::new());
}
