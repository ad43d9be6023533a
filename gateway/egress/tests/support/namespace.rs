//! A machine of the test's own: its loopback, its resolver, its addresses.
//!
//! A test that needs one runs itself again inside of new namespaces. Nothing that happens there
//! reaches the real network, so that public addresses can be given to the loopback interface and
//! port 53 be served.

use std::process::Command;

const INSIDE: &str = "LOOPBACK_TEST_NAMESPACE";

/// Whether the caller is inside. Otherwise the test has been run inside, or skipped by name.
pub(crate) fn entered(test: &str, setup: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.arg("--map-root-user");
    }
    unshare.args(["--mount", "--net"]);
    let mut probe = Command::new(unshare.get_program());
    probe.args(unshare.get_args()).args(["ip", "link"]);
    if !probe.output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {test} because this user cannot make namespaces (unshare, ip)");
        return false;
    }
    let program = std::env::current_exe().expect("the test's own program");
    let output = unshare
        .args(["sh", "-ec"])
        .arg(format!(
            "ip link set lo up\n{setup}\nexec \"$0\" --exact {test} --nocapture"
        ))
        .arg(program)
        .env(INSIDE, "1")
        .output()
        .expect("unshare");
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "inside: {text}");
    assert!(text.contains("1 passed"), "inside: {text}");
    false
}
