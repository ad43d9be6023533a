//! The program in a home of its own.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::{Answer, Gateway, KEY, WORKSPACE, json};

pub(crate) const AT: &str = "2027-01-15T08:00:00.000Z";

/// A home of its own, and perhaps a gateway.
pub(crate) struct Shell {
    pub(crate) home: tempfile::TempDir,
    pub(crate) gateway: Option<Gateway>,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
            gateway: None,
        }
    }

    /// With a context for a gateway that answers in this order.
    pub(crate) fn answering(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self::at(Gateway::answering(answers))
    }

    /// With a context for this gateway.
    pub(crate) fn at(gateway: Gateway) -> Self {
        let shell = Self {
            gateway: Some(gateway),
            ..Self::new()
        };
        let gateway = shell.gateway();
        let context = format!(
            "current = \"home\"\n[contexts.home]\nurl = \"{}\"\nca_pem = '''\n{}'''\napi_key = \"{KEY}\"\nworkspace = \"{WORKSPACE}\"\n",
            gateway.url, gateway.ca_pem
        );
        fs::write(shell.config(), context).unwrap();
        fs::set_permissions(shell.config(), fs::Permissions::from_mode(0o600)).unwrap();
        shell
    }

    pub(crate) fn gateway(&self) -> &Gateway {
        self.gateway.as_ref().unwrap()
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.home.path().join("config.toml")
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.home.path().join(name);
        fs::write(&path, content).unwrap();
        path
    }

    pub(crate) fn run(&self, line: &[&str]) -> Ran {
        self.run_with(line, "", &[])
    }

    pub(crate) fn run_with(&self, line: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        let mut child = self
            .program(line)
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that reads no input may be gone before it is written.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran::from(child.wait_with_output().unwrap())
    }

    /// The program with this command line, to be started.
    pub(crate) fn program(&self, line: &[&str]) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_loopback"));
        program
            .args(line)
            .env_clear()
            .env("LOOPBACK_CONFIG", self.config());
        program
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.gateway().lines()
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            // Output of hosts need not be text.
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap()
    }
}

pub(crate) fn host(id: char, name: &str, summary: &str) -> String {
    format!(
        r#"{{"id":"hst_0000000000000000000000000{id}","workspace":"{WORKSPACE}","name":"{name}","display_name":null,"summary":"{summary}","membership":"managed","connectivity":"connected","connectivity_since":"{AT}","last_seen_at":null,"maintenance":null,"labels":{{"role":"web"}},"ephemeral":false,"clone_of":null,"carrier":"udp","address":"192.0.2.1","boot_id":null,"agent_version":"0.1.0","clock_skew_ms":-20,"certificate":null,"facts":null,"created_at":"{AT}","enrolled_at":null,"retired_at":null}}"#
    )
}

pub(crate) fn hosts(hosts: &[String]) -> Answer {
    json(200, format!(r#"{{"items":[{}]}}"#, hosts.join(",")))
}
