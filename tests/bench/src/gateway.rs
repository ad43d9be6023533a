//! The real gateway, as a process on a state folder of its own.
//!
//! Limits on requests and attempts are raised out of the way: they are there to slow down a
//! single client, which is what a benchmark is. Everything else is the default, logging at the
//! default level included.

use std::{
    cell::RefCell,
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use e2e::{product::Daemon, scratch::Scratch};
use model::ids::WorkspaceId;
use serde_json::{Value, json};

use crate::{
    fleet::{self, Certificates},
    http,
};

/// A first start makes keys; loading a hundred thousand hosts takes its time.
const START: Duration = Duration::from_secs(120);

/// A claimed gateway with one workspace.
#[derive(Debug)]
pub(crate) struct Gateway {
    // Stops before its folder goes.
    process: RefCell<Option<Daemon>>,
    program: PathBuf,
    more: String,
    folder: Scratch,
    quic: SocketAddr,
    http: SocketAddr,
    /// The owner's API key.
    pub(crate) key: String,
    /// The workspace that all hosts are in.
    pub(crate) workspace: String,
}

impl Gateway {
    /// Starts one on a fresh folder and claims it. Its hosts are asked for a heartbeat each
    /// `heartbeat`.
    pub(crate) fn start(program: &Path, heartbeat: Duration) -> Result<Self> {
        Self::start_with(program, heartbeat, "")
    }

    /// With more sections of its configuration.
    pub(crate) fn start_with(program: &Path, heartbeat: Duration, more: &str) -> Result<Self> {
        let mut gateway = Self {
            process: RefCell::new(None),
            program: program.to_owned(),
            more: more.to_owned(),
            folder: Scratch::new()?,
            quic: free_address()?,
            http: free_address()?,
            key: String::new(),
            workspace: String::new(),
        };
        fs::write(gateway.folder.join("gateway.toml"), gateway.settings())
            .context("write its configuration")?;
        gateway.up()?;
        let secret = fs::read_to_string(gateway.state().join("owner.secret"))?;
        let claim = json!({ "secret": secret.trim(), "name": "owner" });
        let claimed = gateway.post("/v1/first-run", &claim)?;
        gateway.key = text(&claimed["key"]["secret"])?;
        let project = gateway.post("/v1/projects", &json!({ "name": "bench" }))?;
        let path = format!("/v1/projects/{}/workspaces", text(&project["id"])?);
        let beat = u64::try_from(heartbeat.as_millis())?;
        let wanted = json!({
            "name": "bench",
            "environment": "production",
            "thresholds": {
                "heartbeat_ms": beat, "late_ms": beat / 2 * 3, "unreachable_ms": beat / 10 * 28,
            },
        });
        gateway.workspace = text(&gateway.post(&path, &wanted)?["id"])?;
        Ok(gateway)
    }

    /// Stops it, puts `count` hosts into its state, and starts it again. With certificates the
    /// answer is a file that a swarm can be them with.
    pub(crate) fn populate(&self, count: usize, certificates: Certificates) -> Result<PathBuf> {
        self.stop()?;
        let file = self.prepare(count, certificates)?;
        self.up()?;
        Ok(file)
    }

    /// [`Self::populate`] for a gateway that does not run, and leaves it so.
    pub(crate) fn prepare(&self, count: usize, certificates: Certificates) -> Result<PathBuf> {
        let file = self.folder.join("fleet");
        let workspace: WorkspaceId = self.workspace.parse().context("read the workspace's id")?;
        fleet::prepare(&self.state(), workspace, count, certificates, &file)?;
        Ok(file)
    }

    /// Starts the process and waits until it says that it is ready.
    pub(crate) fn up(&self) -> Result<()> {
        let mut daemon = self.spawn()?;
        daemon.wait_line(|line| line.starts_with("ready "), START)?;
        *self.process.borrow_mut() = Some(daemon);
        Ok(())
    }

    /// Starts the process and asks it something until it answers; the time that took.
    pub(crate) fn up_until_answer(&self) -> Result<Duration> {
        let question = http::request("GET", &self.path("/hosts?limit=1"), &self.key, "");
        let began = Instant::now();
        let daemon = self.spawn()?;
        let took = block_on(async {
            loop {
                if http::call(self.http, &question).await.is_ok() {
                    return Ok(began.elapsed());
                }
                if began.elapsed() > START {
                    bail!("the gateway does not answer: {}", daemon.tail(20));
                }
                // Its start takes tens of milliseconds; the pause is the figure's precision.
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
        })?;
        *self.process.borrow_mut() = Some(daemon);
        Ok(took)
    }

    /// Stops it as an operator would.
    pub(crate) fn stop(&self) -> Result<()> {
        let mut daemon = self.process.borrow_mut().take().context("it runs")?;
        let status = daemon.stop()?;
        anyhow::ensure!(
            status.success(),
            "the gateway stopped with {status}:\n{}",
            daemon.tail(20)
        );
        Ok(())
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&self) -> Result<()> {
        let mut daemon = self.process.borrow_mut().take().context("it runs")?;
        daemon.kill()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Result<u32> {
        let process = self.process.borrow();
        Ok(process.as_ref().context("the gateway runs")?.pid())
    }

    /// Where agents dial.
    pub(crate) fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// Where requests go, in plain text: the bare server it is compared with has no TLS either.
    pub(crate) fn http(&self) -> SocketAddr {
        self.http
    }

    /// Its state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// A folder for whatever goes with it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The URL that agents are configured with.
    pub(crate) fn url(&self) -> String {
        format!("https://localhost:{}", self.quic.port())
    }

    /// A path below the workspace.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/workspaces/{}{rest}", self.workspace)
    }

    /// Ids of up to a thousand hosts.
    pub(crate) fn hosts(&self) -> Result<Vec<String>> {
        let page = self.get(&self.path("/hosts?limit=1000"))?;
        let items = page["items"].as_array().context("a page has items")?;
        items.iter().map(|host| text(&host["id"])).collect()
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        block_on(http::call(
            self.http,
            &http::request("GET", path, &self.key, ""),
        ))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Value> {
        block_on(http::call(
            self.http,
            &http::request("PUT", path, &self.key, &body.to_string()),
        ))
    }

    /// Posts bytes.
    pub(crate) fn upload(&self, path: &str, body: &[u8]) -> Result<Value> {
        let mut request = http::head(
            "POST",
            path,
            &self.key,
            "application/octet-stream",
            body.len(),
        );
        request.extend_from_slice(body);
        block_on(http::call(self.http, &request))
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        block_on(http::call(
            self.http,
            &http::request("POST", path, &self.key, &body.to_string()),
        ))
    }

    fn spawn(&self) -> Result<Daemon> {
        let log = self.folder.join("gateway.log");
        // A new log for each life: readiness is read from it.
        if log.exists() {
            fs::rename(&log, self.folder.join("gateway.log.before"))?;
        }
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.folder.join("gateway.toml"))
            .env_remove("LOOPBACK_CONFIG");
        Daemon::start("the gateway", command, &log)
    }

    /// The paths come from the system's temporary folder: nothing in them needs escaping.
    fn settings(&self) -> String {
        format!(
            "state_dir = \"{}\"\nlisten = \"{}\"\npublic_url = \"{}\"\n\
             insecure_http_listen = \"{}\"\n\
             [limits]\nrequests_per_key_per_second = 1000000000\n\
             requests_per_key_burst = 1000000000\n\
             enrolments_per_source_per_minute = 1000000\nconnections_per_source = 100000\n{}",
            self.state().display(),
            self.quic,
            self.url(),
            self.http,
            self.more,
        )
    }
}

/// Runs one future on a small runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime")?
        .block_on(future)
}

/// A port of the loopback interface that is free for TCP and UDP alike.
pub(crate) fn free_address() -> Result<SocketAddr> {
    for _ in 0..50 {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        let address = tcp.local_addr().context("find a free port")?;
        if UdpSocket::bind(address).is_ok() {
            return Ok(address);
        }
    }
    bail!("no port is free for both TCP and UDP on the loopback interface")
}

fn text(value: &Value) -> Result<String> {
    let text = value.as_str().map(str::to_owned);
    text.with_context(|| format!("text was expected, not {value}"))
}
