//! Real shells running the script on folder hosts.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use super::host::{Host, TOKEN, agent};
use super::serve::Server;
use super::text::make_executable;
use super::{has, shells};

/// Folders that every system has and that the installer may make.
const COMMON: [&str; 9] = [
    "usr",
    "usr/local",
    "usr/local/bin",
    "etc",
    "etc/systemd",
    "etc/systemd/system",
    "var",
    "var/lib",
    "var/log",
];

fn left(host: &Host) -> BTreeMap<String, String> {
    let mut tree = host.tree();
    tree.retain(|path, _| !COMMON.contains(&path.as_str()));
    tree
}

fn installed(version: &str) -> Host {
    let host = Host::new();
    host.pipe(&host.publish(version), &[])
        .expect(0, "the gateway has seen this host");
    host.calls();
    host.verified();
    host.server.asked();
    host
}

#[test]
fn a_fresh_host_is_installed_under_every_shell() {
    for shell in shells() {
        let host = Host::with(Server::start(None), shell);
        let outcome = host.pipe(&host.publish("1.2.3"), &[]);
        outcome.expect(0, "done: version 1.2.3, and the gateway has seen this host");

        let files: Vec<_> = left(&host).into_keys().collect();
        assert_eq!(
            files,
            [
                "etc/loopback-agent",
                "etc/loopback-agent/agent.toml",
                "etc/loopback-agent/ca.pem",
                "etc/loopback-agent/release.pub",
                "etc/systemd/system/loopback-agent.service",
                "run/loopback-agent",
                "usr/local/bin/loopback-agent",
                "var/lib/loopback-agent",
                "var/lib/loopback-agent/identity.json",
            ],
            "{shell:?}"
        );
        assert_eq!(
            host.read("etc/loopback-agent/agent.toml"),
            format!(
                "# Written by the Loopback installer, and again at each installation.\n\
                 gateway = \"{}\"\n\
                 state_dir = \"/var/lib/loopback-agent\"\n\
                 token_file = \"/etc/loopback-agent/token\"\n\
                 ca_file = \"/etc/loopback-agent/ca.pem\"\n\
                 channel = \"stable\"\n\
                 verbose = false\n",
                host.server.url()
            )
        );
        assert_eq!(host.read("etc/loopback-agent/ca.pem"), super::CA_PEM);
        assert_eq!(
            host.read("etc/systemd/system/loopback-agent.service"),
            super::UNIT
        );
        assert_eq!(host.mode("usr/local/bin/loopback-agent"), 0o755);
        assert_eq!(host.mode("etc/loopback-agent/agent.toml"), 0o600);
        assert_eq!(host.mode("etc/loopback-agent"), 0o700);
        assert_eq!(host.mode("etc"), 0o755);
        // Nobody else was there to check the signature of a first installation.
        assert_eq!(
            host.verified(),
            format!("verified by 1.2.3 with {}\n", super::KEY)
        );
    }
}

#[test]
fn the_same_version_again_is_a_no_op() {
    let host = installed("1.2.3");
    let before = host.tree();
    for token in [true, false] {
        if !token {
            // A host that has joined needs none.
            let mut host = Host::new();
            host.unset_env("LOOPBACK_TOKEN");
        }
        host.pipe(&host.publish("1.2.3"), &[])
            .expect(0, "already installed, nothing to do");
    }
    assert_eq!(host.tree(), before);
    let calls = host.calls();
    assert!(
        !calls.contains("restart") && !calls.contains("enable"),
        "{calls}"
    );
    assert!(
        !host
            .server
            .asked()
            .iter()
            .any(|path| path.ends_with("/loopback-agent"))
    );
}

#[test]
fn another_version_is_an_upgrade_that_the_installed_agent_verifies() {
    let mut host = installed("1.2.3");
    host.unset_env("LOOPBACK_TOKEN");
    host.pipe(&host.publish("1.3.0"), &[])
        .expect(0, "upgrade: fetching agent 1.3.0");
    assert_eq!(
        host.read("usr/local/bin/loopback-agent").into_bytes(),
        agent("1.3.0")
    );
    assert_eq!(
        host.verified(),
        format!("verified by 1.2.3 with {}\n", super::KEY)
    );
    assert!(
        host.calls()
            .contains("systemctl restart loopback-agent.service")
    );
}

#[test]
fn an_upgrade_trusts_the_keys_the_host_has_and_not_those_of_the_script() {
    let host = installed("1.2.3");
    let new_key = super::KEY.replace("0f1e", "ffff");
    let script = host.publish_with("1.3.0", |params| {
        // The lifetime of the slice is the closure's, so it is leaked: this is a test.
        params.release_keys = Box::leak(Box::new([&*Box::leak(new_key.clone().into_boxed_str())]));
    });
    host.pipe(&script, &[]).expect(0, "done");
    assert_eq!(
        host.verified(),
        format!("verified by 1.2.3 with {}\n", super::KEY)
    );
    // Accepted under the old key: so the new list may take over.
    assert_eq!(
        host.read("etc/loopback-agent/release.pub"),
        format!("{new_key}\n")
    );
}

#[test]
fn damage_is_repaired() {
    let host = installed("1.2.3");
    let good = host.tree();
    let script = host.publish("1.2.3");
    for (path, damage) in [
        ("usr/local/bin/loopback-agent", Some("")),
        ("usr/local/bin/loopback-agent", Some("#!/bin/sh\nexit 1\n")),
        ("usr/local/bin/loopback-agent", None),
        (
            "etc/systemd/system/loopback-agent.service",
            Some("[Service]\n"),
        ),
        ("etc/systemd/system/loopback-agent.service", None),
        (
            "etc/loopback-agent/agent.toml",
            Some("gateway = \"https://elsewhere\"\n"),
        ),
        ("etc/loopback-agent/ca.pem", None),
        ("etc/loopback-agent/release.pub", None),
    ] {
        match damage {
            Some(text) => fs::write(host.root(path), text).unwrap(),
            None => fs::remove_file(host.root(path)).unwrap(),
        }
        host.pipe(&script, &[])
            .expect(0, "the gateway has seen this host");
        assert_eq!(host.tree(), good, "{path} {damage:?}");
    }
    // Stopped by hand: started again.
    host.unmark("active");
    host.calls();
    host.pipe(&script, &[])
        .expect(0, "the gateway has seen this host");
    assert!(host.calls().contains("systemctl restart"));
}

#[test]
fn without_token_or_identity_nothing_is_touched() {
    let mut host = Host::new();
    host.unset_env("LOOPBACK_TOKEN");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "fail  token     none: set LOOPBACK_TOKEN");
    assert_eq!(left(&host), BTreeMap::new());
}

#[test]
fn a_changed_or_cut_binary_is_refused_with_nothing_left() {
    let path = "/v1/agent/releases/stable/1.2.3/loopback-agent";
    let mut changed = agent("1.2.3");
    let x = changed.iter().rposition(|byte| *byte == b'x').unwrap();
    changed[x] = b'y';
    let mut long = agent("1.2.3");
    long.push(b'\n');
    let half = &agent("1.2.3")[..200];
    for (bytes, why) in [
        (&changed[..], "digest"),
        (half, "bytes, not"),
        (&long, "fetch loopback-agent"),
        (b"", "bytes, not"),
    ] {
        let host = Host::new();
        let script = host.publish("1.2.3");
        host.server.put(path, bytes);
        host.pipe(&script, &[]).expect(1, why);
        assert_eq!(left(&host), BTreeMap::new(), "{why}");
        assert!(!host.calls().contains("agent-"), "an unchecked binary ran");
    }

    // An installed host keeps what it has.
    let host = installed("1.0.0");
    let before = host.tree();
    let script = host.publish("1.2.3");
    host.server.put(path, &changed);
    host.pipe(&script, &[])
        .expect(1, "it was changed; nothing was installed");
    assert_eq!(host.tree(), before);
}

#[test]
fn a_bad_signature_is_refused_with_nothing_left() {
    let host = Host::new();
    host.mark("bad-signature");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "signature of the release does not hold");
    assert_eq!(left(&host), BTreeMap::new());

    let host = installed("1.0.0");
    let before = host.tree();
    host.mark("bad-signature");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "signature of the release does not hold");
    assert_eq!(host.tree(), before);
}

#[test]
fn a_release_without_manifest_or_signature_is_refused() {
    for missing in ["manifest.json", "manifest.json.sig"] {
        let host = Host::new();
        let script = host.publish("1.2.3");
        host.server.clear();
        for name in ["manifest.json", "manifest.json.sig", "loopback-agent"]
            .iter()
            .filter(|name| **name != missing)
        {
            host.server.put(
                &format!("/v1/agent/releases/stable/1.2.3/{name}"),
                &agent("1.2.3"),
            );
        }
        host.pipe(&script, &[]).expect(1, "");
        assert_eq!(left(&host), BTreeMap::new());
    }
}

#[test]
fn a_first_installation_that_cannot_join_leaves_nothing() {
    for trouble in ["does-not-join", "does-not-start"] {
        let host = Host::new();
        host.mark(trouble);
        host.mark("unlinked");
        host.pipe(&host.publish("1.2.3"), &[])
            .expect(1, "https ok, udp blocked, link down")
            .expect(
                1,
                "error: the agent could not join; this host is as it was before",
            );
        let mut left = left(&host);
        left.remove("run/loopback-agent"); // systemd's to remove, and the fake does not
        assert_eq!(left, BTreeMap::new(), "{trouble}");
        assert!(
            host.calls()
                .contains("systemctl disable --now loopback-agent.service")
        );
    }
}

#[test]
fn an_enrolled_host_that_is_not_linked_yet_stays_and_says_so() {
    let host = Host::new();
    host.mark("unlinked");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(3, "installed and enrolled, but not linked");
    assert!(host.root("var/lib/loopback-agent/identity.json").exists());
    assert!(host.root("usr/local/bin/loopback-agent").exists());
    host.unmark("unlinked");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(0, "already installed, nothing to do");
}

#[test]
fn an_upgrade_that_does_not_link_goes_back() {
    let host = installed("1.2.3");
    let before = host.tree();
    host.mark("unlinked-1.3.0");
    host.pipe(&host.publish("1.3.0"), &[])
        .expect(1, "this host is as it was before");
    assert_eq!(host.tree(), before);
    let calls = host.calls();
    assert_eq!(calls.matches("systemctl restart").count(), 2, "{calls}");
}

#[test]
fn a_full_disk_or_any_failing_step_restores_the_host() {
    // Lets the n-th mv fail, for every n that there is.
    for n in 1..20 {
        let host = installed("1.2.3");
        let before = host.tree();
        host.shim(
            "mv",
            &format!(
                "#!/bin/sh\necho x >>\"$FAKE/moves\"\n[ \"$(wc -l <\"$FAKE/moves\")\" -ne {n} ] || exit 1\nexec /bin/mv \"$@\"\n"
            ),
        );
        fs::write(
            host.root("etc/systemd/system/loopback-agent.service"),
            "old unit\n",
        )
        .unwrap();
        let before = {
            let mut before = before;
            before.insert(
                "etc/systemd/system/loopback-agent.service".to_owned(),
                "old unit\n".to_owned(),
            );
            before
        };
        let outcome = host.pipe(&host.publish("1.3.0"), &[]);
        if outcome.code == 0 {
            assert!(n > 4, "only {n} moves");
            return;
        }
        assert_eq!(host.tree(), before, "move {n}: {}", outcome.text);
    }
    panic!("the installation never got through");
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

    let host = installed("1.2.3");
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
    assert_eq!(left(&host), BTreeMap::new());
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
fn what_is_no_agent_token_is_refused_without_repeating_it() {
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
fn the_token_is_in_no_argument_no_environment_no_output_and_no_file_afterwards() {
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
fn proxies_are_stored_for_the_agent_and_never_shown_with_their_password() {
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

#[test]
fn uninstalling_tells_the_gateway_and_leaves_nothing() {
    let mut host = installed("1.2.3");
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
        left(&host).into_keys().collect::<Vec<_>>(),
        ["var/log/loopback-agent"]
    );
    let calls = host.calls();
    assert!(
        calls.find("deregister") < calls.find("systemctl disable --now"),
        "{calls}"
    );
    assert!(calls.contains("systemctl daemon-reload"));

    host.pipe(&script, &["--uninstall"]).expect(0, "removed");
    assert_eq!(left(&host), BTreeMap::new());
    host.pipe(&script, &["--uninstall"])
        .expect(0, "nothing is installed");
}

#[test]
fn uninstalling_works_without_the_gateway_and_with_a_broken_agent() {
    let host = installed("1.2.3");
    host.mark("gateway-gone");
    host.pipe(&host.publish("1.2.3"), &["--uninstall", "--verbose"])
        .expect(0, "no route to the gateway")
        .expect(0, "the gateway could not be told");
    let mut rest = left(&host);
    rest.remove("run");
    assert_eq!(rest, BTreeMap::new());

    let host = installed("1.2.3");
    fs::remove_file(host.root("usr/local/bin/loopback-agent")).unwrap();
    host.pipe(&host.publish("1.2.3"), &["--uninstall"])
        .expect(0, "the gateway could not be told");
    assert_eq!(left(&host), BTreeMap::new());
}

#[test]
fn ordinary_users_go_through_sudo_without_showing_the_token() {
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
            let tools = tools_without(&host, &["sudo"]);
            host.set_path(&tools);
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
    assert_eq!(left(&host), BTreeMap::new());
}

/// A folder with links to the machine's programs, but for some.
pub(super) fn tools_without(host: &Host, without: &[&str]) -> String {
    let tools = host.dir.path().join("tools");
    fs::create_dir_all(&tools).unwrap();
    for dir in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let link = tools.join(&name);
            if !without.iter().any(|hidden| name == *hidden) && !link.exists() {
                let _ = std::os::unix::fs::symlink(entry.path(), link);
            }
        }
    }
    for hidden in without {
        assert!(!tools.join(hidden).exists());
    }
    make_executable(&tools);
    tools.to_str().unwrap().to_owned()
}
