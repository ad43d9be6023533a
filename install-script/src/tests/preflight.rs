//! What the script says before it touches anything.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::host::Host;
use super::serve::Server;
use super::shells;

#[test]
fn without_token_or_identity_nothing_is_touched() {
    let mut host = Host::new();
    host.unset_env("LOOPBACK_TOKEN");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "fail  token     none: set LOOPBACK_TOKEN");
    assert_eq!(host.left(), BTreeMap::new());
}

#[test]
fn a_dry_run_tells_and_changes_nothing() {
    let host = Host::new();
    let outcome = host.pipe(&host.publish("1.2.3"), &["--dry-run"]);
    outcome.expect(0, "would do: install, version 1.2.3 from channel stable");
    for word in [
        "system", "tools", "root", "systemd", "disk", "proxy", "dns", "https", "clock", "udp",
        "token",
    ] {
        assert!(
            outcome.text.contains(&format!("ok    {word:8}")),
            "{word}: {}",
            outcome.text
        );
    }
    assert_eq!(host.tree(), BTreeMap::new());

    let host = Host::installed("1.2.3");
    host.pipe(&host.publish("1.3.0"), &["--dry-run"])
        .expect(0, "would do: upgrade (here: 1.2.3), version 1.3.0");
    host.pipe(&host.publish("1.2.3"), &["--dry-run"])
        .expect(0, "would do: nothing");
}

#[test]
fn obstacles_are_named_before_anything_is_touched() {
    let host = Host::new();
    let script = host.publish("1.2.3");
    host.server.clear();
    host.pipe(&script, &[])
        .expect(1, "fail  https     the gateway refused");

    let host = Host::new();
    fs::remove_dir_all(host.root("run")).unwrap();
    host.pipe(&host.publish("1.2.3"), &[]).expect(
        1,
        "fail  systemd   installed but not running: use --no-start",
    );

    let host = Host::new();
    host.shim(
        "uname",
        "#!/bin/sh\ncase $1 in -m) echo riscv64 ;; *) echo Linux ;; esac\n",
    );
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "fail  system    there is no agent for riscv64");

    let host = Host::new();
    host.shim("df", "#!/bin/sh\necho head\necho fs 100 90 1000 90% /\n");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "0 MiB free, 16 MiB needed");

    let host = Host::new();
    let script = host.publish_with("1.2.3", |params| {
        params.base_url = "https://gateway.invalid:8443"
    });
    host.pipe(&script, &[])
        .expect(1, "fail  dns       gateway.invalid is not known here");
    assert_eq!(host.left(), BTreeMap::new());
}

#[test]
fn a_wrong_clock_is_shown_with_both_times() {
    let host = Host::new();
    let script = host.publish("1.2.3");
    for (date, text) in [
        (
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "GMT here, Sun, 06 Nov 1994 08:49:37 GMT at the gateway",
        ),
        (
            "Thu, 29 Feb 2096 09:08:09 GMT",
            "GMT here, Thu, 29 Feb 2096 09:08:09 GMT at the gateway",
        ),
        ("garbage $(reboot)", "the gateway told no time"),
        ("", "the gateway told no time"),
    ] {
        host.server.set_date(date);
        host.pipe(&script, &["--dry-run"]).expect(0, text);
    }
    let now = Command::new("date")
        .args(["-u", "+%a, %d %b %Y %H:%M:%S GMT"])
        .env("LC_ALL", "C")
        .output();
    host.server
        .set_date(String::from_utf8(now.unwrap().stdout).unwrap().trim());
    host.pipe(&script, &["--dry-run"])
        .expect(0, "ok    clock     within 5 minutes");
}

#[test]
fn http_dates_become_the_right_seconds() {
    let script = Host::new().publish("1.2.3").replace(
        "{ main \"$@\"; exit; }",
        "for d; do http_epoch \"$d\" && echo $EPOCH; done",
    );
    for shell in shells() {
        let host = Host::with(Server::start(None), shell);
        let text = host.pipe(
            &script,
            &[
                "Thu, 01 Jan 1970 00:00:00 GMT",
                "Sun, 06 Nov 1994 08:49:37 GMT",
                "Tue, 29 Feb 2000 23:59:59 GMT",
                "Wed, 01 Mar 2000 00:00:00 GMT",
                "Mon, 01 Mar 2100 09:08:00 GMT",
            ],
        );
        assert_eq!(
            text.text, "0\n784111777\n951868799\n951868800\n4107575280\n",
            "{shell:?}"
        );
    }
}

#[test]
fn another_version_or_channel_than_the_served_one_is_refused() {
    let host = Host::new();
    let script = host.publish("1.2.3");
    host.pipe(&script, &["--version", "1.2.2"])
        .expect(2, "this script installs version 1.2.3, not 1.2.2");
    host.pipe(&script, &["--channel", "unstable"])
        .expect(2, "/v1/agent/install.sh?channel=unstable");
    host.pipe(&script, &["--version"])
        .expect(2, "--version needs a value");
    host.pipe(&script, &["--frobnicate"])
        .expect(2, "unknown option --frobnicate");
    host.pipe(&script, &["--help"]).expect(0, "--dry-run");
    assert_eq!(host.tree(), BTreeMap::new());
    host.pipe(&script, &["--version", "1.2.3", "--channel", "stable"])
        .expect(0, "done");
}

#[test]
fn a_second_installer_at_the_same_time_is_told_so() {
    let host = Host::new();
    let lock = host.root("run/loopback-agent-install.lock");
    fs::create_dir(&lock).unwrap();
    fs::write(lock.join("pid"), std::process::id().to_string()).unwrap();
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "another installation is running");
    assert!(lock.exists());
    // One that was killed does not stand in the way.
    fs::write(lock.join("pid"), "999999999").unwrap();
    host.pipe(&host.publish("1.2.3"), &[]).expect(0, "done");
    assert!(!lock.exists());
}
