//! Real shells running the script on folder hosts.

use std::collections::BTreeMap;
use std::fs;

use super::host::{Host, agent};
use super::serve::Server;
use super::shells;

#[test]
fn a_fresh_host_is_installed_under_every_shell() {
    for shell in shells() {
        let host = Host::with(Server::start(None), shell);
        let outcome = host.pipe(&host.publish("1.2.3"), &[]);
        outcome.expect(0, "done: version 1.2.3, and the gateway has seen this host");

        let files: Vec<_> = host.left().into_keys().collect();
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
    let mut host = Host::installed("1.2.3");
    let before = host.tree();
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(0, "already installed, nothing to do");
    // A host that has joined needs no token.
    host.unset_env("LOOPBACK_TOKEN");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(0, "already installed, nothing to do");
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
    let mut host = Host::installed("1.2.3");
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
fn abuse_52_an_upgrade_trusts_the_keys_the_host_has_and_not_those_of_the_script() {
    let host = Host::installed("1.2.3");
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
    let host = Host::installed("1.2.3");
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
fn abuse_49_a_changed_or_cut_binary_is_refused_with_nothing_left() {
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
        assert_eq!(host.left(), BTreeMap::new(), "{why}");
        assert!(!host.calls().contains("agent-"), "an unchecked binary ran");
    }

    // An installed host keeps what it has.
    let host = Host::installed("1.0.0");
    let before = host.tree();
    let script = host.publish("1.2.3");
    host.server.put(path, &changed);
    host.pipe(&script, &[])
        .expect(1, "it was changed; nothing was installed");
    assert_eq!(host.tree(), before);
}

#[test]
fn abuse_49_a_bad_signature_is_refused_with_nothing_left() {
    let host = Host::new();
    host.mark("bad-signature");
    host.pipe(&host.publish("1.2.3"), &[])
        .expect(1, "signature of the release does not hold");
    assert_eq!(host.left(), BTreeMap::new());

    let host = Host::installed("1.0.0");
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
        assert_eq!(host.left(), BTreeMap::new());
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
                "error: the agent could not join\nput back: this host is as it was before",
            );
        let mut left = host.left();
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
    let host = Host::installed("1.2.3");
    let before = host.tree();
    host.mark("unlinked-1.3.0");
    host.pipe(&host.publish("1.3.0"), &[])
        .expect(1, "this host is as it was before");
    assert_eq!(host.tree(), before);
    let calls = host.calls();
    assert_eq!(calls.matches("systemctl restart").count(), 2, "{calls}");
}

#[test]
fn abuse_50_a_full_disk_or_any_failing_step_restores_the_host() {
    // Lets the n-th mv fail, for every n that there is.
    for n in 1..20 {
        let host = Host::installed("1.2.3");
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
