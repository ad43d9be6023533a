//! The real agent, as a process, and a gateway of its own on loopback: real QUIC over
//! UDP and inside a WebSocket, real certificates, and answers as a test wants them.

pub(crate) mod authority;
pub(crate) mod gateway;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use agent::status::Status;
use model::Timestamp;
use model::ids::AgentTokenId;
use model::token::Secret;
use tempfile::TempDir;

pub(crate) use gateway::Gateway;

/// For what takes a moment; only a fault reaches it.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// One host: its folder, its configuration, its agent.
pub(crate) struct Host {
    pub(crate) dir: TempDir,
    agent: Option<Child>,
}

impl Host {
    /// A host that may join `gateway`.
    pub(crate) fn new(gateway: &Gateway) -> Self {
        let host = Self {
            dir: tempfile::tempdir().unwrap(),
            agent: None,
        };
        host.write("token", &format!("{}\n", token()));
        host.write("ca.pem", &gateway.authority.pem());
        host.configure(&gateway.address());
        host
    }

    /// A host that has joined `gateway` and is linked to it.
    pub(crate) async fn linked(gateway: &Gateway) -> Self {
        let mut host = Self::new(gateway);
        host.start();
        host.status_when("linked", |status| status.is_linked())
            .await;
        host
    }

    pub(crate) fn configure(&self, gateway: &str) {
        let at = |name: &str| self.path(name).display().to_string();
        self.write(
            "agent.toml",
            &format!(
                "gateway = 'https://{gateway}'\nstate_dir = '{}'\ntoken_file = '{}'\nca_file = '{}'\nverbose = true\n",
                at("state"), at("token"), at("ca.pem"),
            ),
        );
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    fn program(&self, command: &str) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_loopback-agent"));
        program
            .arg(command)
            .arg("--config")
            .arg(self.path("agent.toml"));
        for variable in [
            "HTTPS_PROXY",
            "https_proxy",
            "ALL_PROXY",
            "all_proxy",
            "HTTP_PROXY",
            "http_proxy",
        ] {
            program.env_remove(variable);
        }
        program
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    pub(crate) fn start_with(&mut self, env: &[(&str, String)]) {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.path("log"))
            .unwrap();
        let child = self
            .program("run")
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.agent = Some(child);
    }

    /// Runs another command to its end.
    pub(crate) fn run(&self, command: &str, args: &[&str]) -> Output {
        self.program(command).args(args).output().unwrap()
    }

    pub(crate) fn status(&self) -> Option<Status> {
        serde_json::from_slice(&self.run("status", &["--json"]).stdout).ok()
    }

    pub(crate) async fn status_when(&self, what: &str, good: impl Fn(&Status) -> bool) -> Status {
        let started = Instant::now();
        loop {
            if let Some(status) = self.status().filter(|status| good(status)) {
                return status;
            }
            assert!(
                started.elapsed() < LIMIT,
                "{what}: {:?}\n{}",
                self.status(),
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let child = self.agent.as_ref().unwrap();
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM, and the exit code.
    pub(crate) async fn stop(&mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.exit().await
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.agent.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub(crate) async fn exit(&mut self) -> Option<i32> {
        let mut child = self.agent.take().unwrap();
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            assert!(
                started.elapsed() < LIMIT,
                "the agent does not end:\n{}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub(crate) async fn log_when(&self, what: &str, text: &str) {
        let started = Instant::now();
        while !self.log().contains(text) {
            assert!(started.elapsed() < LIMIT, "{what}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn keys(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.state()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut keys: Vec<_> = names.filter(|name| name.starts_with("key-")).collect();
        keys.sort();
        keys
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(child) = &mut self.agent {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn token() -> String {
    Secret::new(
        AgentTokenId::new(Timestamp::from_millis(5), [5; 10]),
        [5; 32],
    )
    .reveal()
}

pub(crate) fn said(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
