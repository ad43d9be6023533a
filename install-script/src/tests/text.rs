//! The script as a text: golden, syntax, lint, and what a cut one does.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{env, fs};

use super::super::*;
use super::{PARAMS, has, shells};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/golden/install.sh");

fn script() -> String {
    render(&PARAMS).unwrap()
}

#[test]
fn the_rendered_script_is_the_reviewed_one() {
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(GOLDEN, script()).unwrap();
    }
    let golden = fs::read_to_string(GOLDEN).unwrap_or_default();
    assert!(
        golden == script(),
        "the installer changed: run the tests with UPDATE_GOLDEN=1, read the diff of {GOLDEN}, commit it"
    );
}

#[test]
fn abuse_29_every_shell_can_read_it() {
    for shell in shells() {
        let output = feed(
            Command::new(shell[0]).args(&shell[1..]).arg("-n"),
            &script(),
        );
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{shell:?}: {output:?}"
        );
    }
}

#[test]
fn abuse_29_shellcheck_has_nothing_to_say() {
    if !has("shellcheck") {
        return;
    }
    let output = feed(
        Command::new("shellcheck").args(["--shell=sh", "--severity=style", "-"]),
        &script(),
    );
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

#[test]
fn nothing_but_functions_stands_above_the_last_line() {
    let script = script();
    let mut lines = script.lines().peekable();
    let mut inside = false;
    while let Some(line) = lines.next() {
        let last = lines.peek().is_none();
        match line {
            "}" if inside => inside = false,
            _ if inside => {}
            _ if line.is_empty() || line.starts_with('#') => {}
            _ if last => assert_eq!(line, "{ main \"$@\"; exit; }"),
            // `name() {` opens a function, `name() { ...; }` is a whole one.
            _ => {
                assert!(line.contains("() {"), "stands outside of functions: {line}");
                inside = !line.ends_with('}');
            }
        }
    }
}

/// Every external command is replaced by one that leaves a trace; a cut script
/// may fail in any way, but it must leave none.
#[test]
fn abuse_29_a_cut_download_runs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let traps = dir.path().join("traps");
    let trace = dir.path().join("trace");
    fs::create_dir(&traps).unwrap();
    for name in [
        "awk",
        "cat",
        "chmod",
        "cp",
        "curl",
        "cut",
        "date",
        "df",
        "doas",
        "getent",
        "grep",
        "head",
        "id",
        "kill",
        "mkdir",
        "mktemp",
        "mv",
        "openssl",
        "restorecon",
        "rm",
        "rmdir",
        "sed",
        "sha256sum",
        "sudo",
        "systemctl",
        "tail",
        "timeout",
        "tr",
        "uname",
        "wc",
        "wget",
    ] {
        let path = traps.join(name);
        fs::write(
            &path,
            format!("#!/bin/sh\necho {name} >>'{}'\nexit 1\n", trace.display()),
        )
        .unwrap();
        make_executable(&path);
    }

    let script = script();
    assert!(script.is_ascii());
    let whole = script.trim_end().len();
    let cuts = (0..whole).step_by(200).chain(whole - 40..whole);
    let shells: Vec<_> = shells().into_iter().skip(1).collect();
    let run = |shell: &[&str], text: &str| {
        let program = env::split_paths(&env::var_os("PATH").unwrap())
            .map(|dir| dir.join(shell[0]))
            .find(|path| path.exists())
            .unwrap();
        let mut command = Command::new(program);
        command
            .args(&shell[1..])
            .env_clear()
            .env("PATH", &traps)
            .env("LOOPBACK_INSTALL_ROOT", dir.path());
        feed(
            command
                .env("LOOPBACK_TOKEN", "lbt_0123456789abcdef0123456789abcdef")
                .current_dir(dir.path()),
            text,
        )
    };
    for cut in cuts {
        for shell in &shells {
            let output = run(shell, &script[..cut]);
            assert!(
                !trace.exists(),
                "{shell:?} cut at {cut} ran {:?}",
                fs::read_to_string(&trace)
            );
            assert!(
                output.stdout.is_empty(),
                "{shell:?} cut at {cut} said {output:?}"
            );
            assert_eq!(
                fs::read_dir(dir.path()).unwrap().count(),
                1,
                "{shell:?} cut at {cut}"
            );
        }
    }
    // The traps work: a whole script falls into them.
    for shell in &shells {
        run(shell, &script);
        assert!(trace.exists(), "{shell:?}");
        fs::remove_file(&trace).unwrap();
    }
}

fn feed(command: &mut Command, text: &str) -> std::process::Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A shell that has seen enough closes its input: not an error here.
    let _ = child.stdin.take().unwrap().write_all(text.as_bytes());
    child.wait_with_output().unwrap()
}

pub(super) fn make_executable(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}
