//! Where tokens and proxy passwords come from, and where they never show up.

use std::collections::BTreeMap;
use std::fs;

use super::host::{Host, TOKEN};

#[test]
fn the_token_comes_from_a_file_or_standard_input_too() {
    let mut host = Host::new();
    host.unset_env("LOOPBACK_TOKEN");
    let file = host.dir.path().join("my token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    host.set_env("LOOPBACK_TOKEN_FILE", file.to_str().unwrap());
    host.pipe(&host.publish("1.2.3"), &[]).expect(0, "done");

    let mut host = Host::new();
    host.unset_env("LOOPBACK_TOKEN");
    host.set_env("LOOPBACK_TOKEN_FILE", "-");
    host.run_file(&host.publish("1.2.3"), &[], &format!("{TOKEN}\n"))
        .expect(0, "done");
    let mut host = host;
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(2, "standard input is empty");
    host.set_env("LOOPBACK_TOKEN_FILE", "/nonexistent");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(2, "cannot read /nonexistent");
}

#[test]
fn abuse_29_what_is_no_agent_token_is_refused_without_repeating_it() {
    let mut host = Host::new();
    let script = host.publish("1.2.3");
    for token in [
        "lbk_0123456789abcdefghjkmnpqrs_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk",
        "canary",
        "lbt_canary",
        "lbt_canary$(reboot)0123456789abcdef0123456789abcdef",
        "lbt_canary\n0123456789abcdef0123456789abcdef",
        &format!("lbt_{}", "0".repeat(5000)),
    ] {
        host.set_env("LOOPBACK_TOKEN", token);
        let outcome = host.pipe(&script, &[]);
        outcome.expect(2, "token");
        assert!(
            !outcome.text.contains("canary") && !outcome.text.contains("0123456789"),
            "{}",
            outcome.text
        );
        assert_eq!(host.tree(), BTreeMap::new());
    }
    for args in [&["--token", TOKEN][..], &["--token=x"], &[TOKEN]] {
        let outcome = host.pipe(&script, args);
        outcome.expect(2, "does not belong on the command line");
        assert!(!outcome.text.contains(TOKEN));
    }
}

/// Every external program is wrapped in one that writes down its arguments and
/// its environment: what `ps` could have shown at any moment.
#[test]
fn abuse_29_30_the_token_is_in_no_argument_no_environment_no_output_and_no_file_afterwards() {
    let host = Host::new();
    for name in [
        "awk",
        "cat",
        "chmod",
        "cp",
        "curl",
        "cut",
        "date",
        "df",
        "getent",
        "grep",
        "head",
        "id",
        "mkdir",
        "mktemp",
        "mv",
        "rm",
        "rmdir",
        "sed",
        "sha256sum",
        "tail",
        "timeout",
        "tr",
        "uname",
        "wc",
    ] {
        let real = format!("/usr/bin/{name}");
        host.shim(
            name,
            &format!("#!/bin/sh\n/usr/bin/printf '%s\\n' \"{name} $*\" >>\"$FAKE/../seen\"\n/usr/bin/env >>\"$FAKE/../seen\"\nexec {real} \"$@\"\n"),
        );
    }
    let outcome = host.pipe(&host.publish("1.2.3"), &["--verbose"]);
    outcome.expect(0, "done");
    let seen = fs::read_to_string(host.dir.path().join("seen")).unwrap();
    assert!(seen.contains("\ncurl -q "), "the wrappers were not used");
    for (place, text) in [
        ("a process", &seen),
        ("the output", &outcome.text),
        ("the calls", &host.calls()),
    ] {
        assert!(!text.contains(TOKEN), "the token was seen in {place}");
    }
    for (path, text) in host.tree() {
        assert!(!text.contains(TOKEN), "the token stayed in {path}");
    }
}

#[test]
fn abuse_30_proxies_are_stored_for_the_agent_and_never_shown_with_their_password() {
    let mut host = Host::new();
    host.set_env("https_proxy", "http://user:hunter2@proxy.example:3128");
    host.set_env("NO_PROXY", "127.0.0.1,localhost");
    let outcome = host.pipe(&host.publish("1.2.3"), &["--verbose"]);
    outcome.expect(0, "ok    proxy     http://***@proxy.example:3128");
    assert!(!outcome.text.contains("hunter2"));
    assert_eq!(
        host.read("etc/loopback-agent/environment"),
        "HTTPS_PROXY=http://user:hunter2@proxy.example:3128\nNO_PROXY=127.0.0.1,localhost\n"
    );
    assert_eq!(host.mode("etc/loopback-agent/environment"), 0o600);

    // A later run without the variables keeps what was stored.
    host.unset_env("https_proxy");
    host.unset_env("NO_PROXY");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(0, "nothing to do");
    assert!(host.root("etc/loopback-agent/environment").exists());

    let mut host = Host::new();
    host.set_env("https_proxy", "http://user:a'b\"c@proxy.example");
    host.set_env("no_proxy", "127.0.0.1");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(0, "warn  proxy     has characters");
    assert!(!host.root("etc/loopback-agent/environment").exists());
}

#[test]
fn abuse_30_ordinary_users_go_through_sudo_without_showing_the_token() {
    for (name, from_file) in [("sudo", true), ("sudo", false), ("doas", false)] {
        let mut host = Host::new();
        // An ordinary user, until sudo.
        host.shim(
            "id",
            "#!/bin/sh\n[ -z \"${AS_ROOT:-}\" ] && echo 1000 || echo 0\n",
        );
        let become_root = "#!/bin/sh\necho \"become $*\" >>\"$FAKE/../calls\"\nenv >>\"$FAKE/../seen\"\n\
            AS_ROOT=1 LOOPBACK_INSTALL_ROOT=$HIDDEN_ROOT exec env -u https_proxy \"$@\"\n";
        host.shim(name, become_root);
        if name == "doas" {
            // No sudo on this host: a PATH without it.
            host.hide(&["sudo"]);
        }
        let hidden = host.root("").to_str().unwrap().to_owned();
        host.set_env("HIDDEN_ROOT", hidden.trim_end_matches('/'));
        host.set_env("LOOPBACK_INSTALL_ROOT", "");
        host.set_env("no_proxy", "127.0.0.1");
        host.set_env("https_proxy", "http://user:hunter2@proxy.example:3128");
        let script = host.publish("1.2.3");
        host.server
            .put("/v1/agent/install.sh?channel=stable", script.as_bytes());
        let outcome = if from_file {
            host.run_file(&script, &["--verbose"], "")
        } else {
            host.pipe(&script, &["--verbose"])
        };
        outcome
            .expect(0, &format!("not root: going on with {name}"))
            .expect(0, "the gateway has seen this host");
        assert!(host.root("usr/local/bin/loopback-agent").exists());
        let calls = host.calls();
        let line = calls
            .lines()
            .find(|line| line.starts_with("become "))
            .unwrap();
        assert!(!line.contains(TOKEN) && !line.contains("hunter2"), "{line}");
        assert!(
            !fs::read_to_string(host.dir.path().join("seen"))
                .unwrap()
                .contains(TOKEN)
        );
        assert!(
            host.read("etc/loopback-agent/environment")
                .contains("hunter2")
        );
    }
}
