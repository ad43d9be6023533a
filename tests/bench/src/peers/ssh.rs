//! OpenSSH's server on a port of its own, its client, and asyncssh for a connection that
//! stays open.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use e2e::{
    product::Daemon,
    scratch::Scratch,
    sh,
    tools::{self, Missing, tool},
    wait::{self, Look},
};

use super::{missing, python};
use crate::gateway::free_address;

const LIMIT: Duration = Duration::from_secs(300);

/// A server, and keys to enter it with.
#[derive(Debug)]
pub(crate) struct Ssh {
    address: SocketAddr,
    folder: Scratch,
    user: String,
    _server: Daemon,
}

/// Times one program after the other on one connection; prints the median in milliseconds.
const WARM: &str = "
import asyncio, asyncssh, statistics, sys, time
async def main(port, user, key, times):
    async with asyncssh.connect('127.0.0.1', port=port, username=user, client_keys=[key], known_hosts=None) as conn:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            await conn.run('/bin/true', check=True)
            took.append(time.perf_counter() - began)
        print(statistics.median(took) * 1000)
asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
";

impl Ssh {
    /// Starts a server.
    pub(crate) fn start() -> Result<Self, Missing> {
        // The server refuses to run without its account and folder, which its package makes.
        tools::ensure(&[
            tool("sshd", "openssh-server"),
            tool("ssh", "openssh-client"),
        ])?;
        Self::begin().map_err(missing("openssh"))
    }

    fn begin() -> Result<Self> {
        let (folder, address) = (Scratch::new()?, free_address()?);
        let at = |name: &str| folder.join(name).display().to_string();
        for name in ["host", "user"] {
            sh::ok(
                &[
                    "ssh-keygen",
                    "-q",
                    "-t",
                    "ed25519",
                    "-N",
                    "",
                    "-f",
                    &at(name),
                ],
                LIMIT,
            )?;
        }
        fs::copy(folder.join("user.pub"), folder.join("allowed"))?;
        fs::set_permissions(folder.join("allowed"), fs::Permissions::from_mode(0o600))?;
        fs::create_dir_all("/run/sshd")?;
        // Bash reads the user's settings for what comes by ssh, unless it is not the first
        // shell: they are not what is measured.
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PermitRootLogin yes\nUsePAM no\nPasswordAuthentication no\nMaxStartups 500\nMaxSessions 500\n\
             LogLevel ERROR\nSetEnv SHLVL=5\n",
            at("host"),
            at("allowed")
        );
        fs::write(folder.join("sshd_config"), config)?;
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f", &at("sshd_config")]);
        let server = Daemon::start("sshd", command, &folder.join("log"))?;
        let user = sh::ok(&["id", "-un"], LIMIT)?.trim().to_owned();
        let ssh = Self {
            address,
            folder,
            user,
            _server: server,
        };
        wait::until("sshd to let us in", LIMIT, || {
            let status = ssh.client("/bin/true").stderr(Stdio::null()).status()?;
            Ok(Look::when(status.success(), || status.to_string()))
        })?;
        Ok(ssh)
    }

    fn client(&self, remote: &str) -> Command {
        let mut command = Command::new("ssh");
        command
            .args([
                "-F",
                "/dev/null",
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=no",
            ])
            .args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"])
            .args([
                "-p",
                &self.address.port().to_string(),
                "-l",
                &self.user,
                "-i",
            ])
            .arg(self.folder.join("user"))
            .args(["127.0.0.1", remote])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command
    }

    /// `/bin/true` by this many clients at once; until the last has ended.
    pub(crate) fn many(&self, count: usize) -> Result<Duration> {
        let began = Instant::now();
        let clients: Result<Vec<Child>> = (0..count)
            .map(|_| self.client("/bin/true").spawn().context("start ssh"))
            .collect();
        for mut client in clients? {
            ensure!(client.wait()?.success(), "a client of ssh failed");
        }
        Ok(began.elapsed())
    }

    /// `cat` of a file.
    pub(crate) fn cat(&self, path: &str) -> Result<Duration> {
        let began = Instant::now();
        let status = self.client(&format!("cat {path}")).status()?;
        ensure!(status.success(), "ssh cat: {status}");
        Ok(began.elapsed())
    }

    /// `/bin/true` over and over on one connection; the median.
    pub(crate) fn warm_exec(&self, times: usize) -> Result<Duration> {
        let python = python("asyncssh")?;
        let mut command = Command::new(python);
        command
            .args(["-c", WARM, &self.address.port().to_string(), &self.user])
            .arg(self.folder.join("user"))
            .arg(times.to_string());
        let said = sh::run(&mut command, LIMIT)?.ok()?;
        let millis: f64 = said.trim().parse().context("a time")?;
        Ok(Duration::from_secs_f64(millis / 1000.0))
    }
}
