//! A host in a folder: a root, a fake systemctl, a fake agent, and a gateway to
//! install from. The fakes are steered by marker files in `fake/` and note how
//! they were called in `calls`.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use tempfile::TempDir;

use super::super::*;
use super::serve::Server;
use super::text::make_executable;
use super::{CA_PEM, KEY};

pub(super) const TOKEN: &str =
    "lbt_0123456789abcdefghjkmnpqrs_0123456789abcdefghjkmnpqrstvwxyz0123456789abcdefghjk";

/// Joins like the real one: a started agent with a token gets an identity and
/// deletes the token.
const SYSTEMCTL: &str = r#"#!/bin/sh
echo "systemctl $*" >>"$FAKE/../calls"
root=$LOOPBACK_INSTALL_ROOT
case "$*" in
  *is-active*) [ -e "$FAKE/active" ] ;;
  restart*)
    [ ! -e "$FAKE/does-not-start" ] || exit 1
    touch "$FAKE/active"
    mkdir -p "$root/var/lib/loopback-agent" "$root/run/loopback-agent"
    if [ -s "$root/etc/loopback-agent/token" ] && [ ! -e "$FAKE/does-not-join" ]; then
      echo '{}' >"$root/var/lib/loopback-agent/identity.json"
      rm "$root/etc/loopback-agent/token"
    fi
    ;;
  *--now*) rm -f "$FAKE/active" ;;
  stop*) rm -f "$FAKE/active" ;;
esac
"#;

const AGENT: &str = r#"#!/bin/sh
# padding so that a changed byte does not change the program: xxxxxxxxxxxxxxxx
echo "agent-VERSION $*" >>"$FAKE/../calls"
case $1 in
  --version) echo 'loopback-agent VERSION (linux)' ;;
  verify-release) echo "verified by VERSION with $(cat "$7")" >>"$FAKE/../verified"; [ ! -e "$FAKE/bad-signature" ] ;;
  status) [ -e "$FAKE/active" ] && [ ! -e "$FAKE/unlinked" ] && [ ! -e "$FAKE/unlinked-VERSION" ] ;;
  doctor) echo 'https ok, udp blocked, link down'; [ "${2:-}" = --rung ] ;;
  deregister) [ ! -e "$FAKE/gateway-gone" ] || { echo 'no route to the gateway'; exit 1; } ;;
esac
"#;

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

pub(super) struct Host {
    pub(super) dir: TempDir,
    pub(super) server: Server,
    pub(super) shell: &'static [&'static str],
    path: String,
    env: Vec<(String, String)>,
}

pub(super) struct Outcome {
    pub(super) code: i32,
    pub(super) text: String,
}

impl Host {
    pub(super) fn new() -> Self {
        Self::with(Server::start(None), &["sh"])
    }

    /// A host that has joined, with what led there forgotten.
    pub(super) fn installed(version: &str) -> Self {
        let host = Self::new();
        host.pipe(&host.publish(version), &[])
            .expect(0, "the gateway has seen this host");
        host.calls();
        host.verified();
        host.server.asked();
        host
    }

    pub(super) fn with(server: Server, shell: &'static [&'static str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["root/run/systemd/system", "shims", "fake", "tmp", "home"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        let path = format!(
            "{}:{}",
            dir.path().join("shims").display(),
            env::var("PATH").unwrap()
        );
        let mut host = Self {
            dir,
            server,
            shell,
            path,
            env: Vec::new(),
        };
        host.shim("systemctl", SYSTEMCTL);
        host.set_env("LOOPBACK_TOKEN", TOKEN);
        host
    }

    /// A program that stands before the machine's own.
    pub(super) fn shim(&self, name: &str, text: &str) {
        let path = self.dir.path().join("shims").join(name);
        fs::write(&path, text).unwrap();
        make_executable(&path);
    }

    pub(super) fn set_path(&mut self, path: &str) {
        self.path = format!("{}:{path}", self.dir.path().join("shims").display());
    }

    pub(super) fn set_env(&mut self, name: &str, value: &str) {
        self.unset_env(name);
        self.env.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn unset_env(&mut self, name: &str) {
        self.env.retain(|(n, _)| n != name);
    }

    pub(super) fn mark(&self, name: &str) {
        fs::write(self.dir.path().join("fake").join(name), "").unwrap();
    }

    pub(super) fn unmark(&self, name: &str) {
        fs::remove_file(self.dir.path().join("fake").join(name)).unwrap();
    }

    pub(super) fn root(&self, path: &str) -> PathBuf {
        self.dir.path().join("root").join(path)
    }

    pub(super) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.root(path)).unwrap()
    }

    pub(super) fn mode(&self, path: &str) -> u32 {
        fs::metadata(self.root(path)).unwrap().permissions().mode() & 0o777
    }

    /// How the fakes were called since the last time.
    pub(super) fn calls(&self) -> String {
        let path = self.dir.path().join("calls");
        let calls = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        calls
    }

    /// Which agent verified with which keys, since the last time.
    pub(super) fn verified(&self) -> String {
        let path = self.dir.path().join("verified");
        let verified = fs::read_to_string(&path).unwrap_or_default();
        let _ = fs::remove_file(path);
        verified
    }

    /// Every file and folder of the host that the machine itself did not make,
    /// with the files' contents.
    pub(super) fn tree(&self) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        walk(&self.root(""), &self.root(""), &mut found);
        found.retain(|path, _| !path.starts_with("run/systemd") && path != "run");
        found
    }

    /// The same without the folders that every system has.
    pub(super) fn left(&self) -> BTreeMap<String, String> {
        let mut tree = self.tree();
        tree.retain(|path, _| !COMMON.contains(&path.as_str()));
        tree
    }

    /// Hides programs: PATH becomes a folder of links to all the others.
    pub(super) fn hide(&mut self, programs: &[&str]) {
        let tools = self.dir.path().join("tools");
        fs::create_dir(&tools).unwrap();
        for dir in ["/usr/sbin", "/usr/bin", "/sbin", "/bin"] {
            for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
                let name = entry.file_name();
                if !programs.iter().any(|hidden| name == *hidden) {
                    // The same program in a later folder: the first one counts.
                    let _ = std::os::unix::fs::symlink(entry.path(), tools.join(&name));
                }
            }
        }
        self.set_path(tools.to_str().unwrap());
    }

    /// Serves a release and gives the script for it.
    pub(super) fn publish(&self, version: &str) -> String {
        self.publish_with(version, |_| {})
    }

    pub(super) fn publish_with(
        &self,
        version: &str,
        change: impl FnOnce(&mut InstallParams<'_>),
    ) -> String {
        let agent = agent(version);
        self.server.clear();
        let base = format!("{RELEASES_PATH}/stable/{version}");
        self.server.put(
            &format!("{base}/manifest.json"),
            format!("manifest of {version}").as_bytes(),
        );
        self.server
            .put(&format!("{base}/manifest.json.sig"), b"signature");
        self.server.put(&format!("{base}/loopback-agent"), &agent);
        let (sha256, url) = (sha256_hex(&agent), self.server.url());
        let binary = |arch| Binary {
            arch,
            name: "loopback-agent",
            sha256: &sha256,
            size: agent.len() as u64,
        };
        let binaries = [binary("x86_64"), binary("aarch64")];
        let mut params = InstallParams {
            base_url: &url,
            channel: "stable",
            verbose: false,
            production: true,
            script_path: SCRIPT_PATH,
            version,
            binaries: &binaries,
            ca_pem: CA_PEM,
            https_pin: None,
            release_keys: &[KEY],
        };
        change(&mut params);
        render(&params).unwrap()
    }

    /// `curl … | sh -s -- ARGS`.
    pub(super) fn pipe(&self, script: &str, args: &[&str]) -> Outcome {
        self.finish(self.shell_command().args(["-s", "--"]).args(args), script)
    }

    /// `sh install.sh ARGS`, with something on standard input.
    pub(super) fn run_file(&self, script: &str, args: &[&str], input: &str) -> Outcome {
        let path = self.dir.path().join("install.sh");
        fs::write(&path, script).unwrap();
        self.finish(self.shell_command().arg(path).args(args), input)
    }

    fn shell_command(&self) -> Command {
        let mut command = Command::new(self.shell[0]);
        command
            .args(&self.shell[1..])
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", self.dir.path().join("home"))
            .env("TMPDIR", self.dir.path().join("tmp"))
            .env("FAKE", self.dir.path().join("fake"))
            .env("LOOPBACK_INSTALL_ROOT", self.dir.path().join("root"))
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .current_dir(self.dir.path().join("tmp"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn finish(&self, command: &mut Command, input: &str) -> Outcome {
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        let writer = std::thread::spawn(move || {
            let _ = stdin.write_all(input.as_bytes());
        });
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap();
        let left: Vec<_> = fs::read_dir(self.dir.path().join("tmp"))
            .unwrap()
            .flatten()
            .collect();
        assert!(left.is_empty(), "the script left {left:?} in TMPDIR");
        Outcome {
            code: output.status.code().unwrap_or(-1),
            text: format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            ),
        }
    }
}

impl Outcome {
    #[track_caller]
    pub(super) fn expect(&self, code: i32, text: &str) -> &Self {
        assert!(
            self.code == code && self.text.contains(text),
            "wanted {code} and {text:?}, got {}:\n{}",
            self.code,
            self.text
        );
        self
    }
}

pub(super) fn agent(version: &str) -> Vec<u8> {
    AGENT.replace("VERSION", version).into_bytes()
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn walk(root: &Path, dir: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let name = path
            .strip_prefix(root)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        if path.is_dir() {
            walk(root, &path, found);
            found.insert(name, "folder".to_owned());
        } else {
            found.insert(
                name,
                String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned(),
            );
        }
    }
}
