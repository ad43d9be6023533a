//! One host: power, plug, files and programs.
//!
//! The process tree is `supervisor (sh) -> systemd-nspawn -> leader`, the leader being the host's
//! pid 1. The supervisor stands for the mainboard: it starts nspawn again when the host asked for a
//! reboot (exit code 133) and stops when it was switched off.
//!
//! Programs run as transient units of the host's own systemd, never through a bare `nsenter`: that
//! would keep this machine's capabilities, with which a `date -s` sets this machine's clock.

use std::{
    fs::{self, File},
    io::Read,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use super::{Ground, QUICK, net, teardown};
use crate::{
    sh::{self, Output},
    wait::{self, Look},
};

/// How long a host may take to boot on a busy machine; alone it takes one second.
const BOOT: Duration = Duration::from_secs(60);

/// A booted (or switched-off) host of a lab.
#[derive(Debug)]
pub struct Host {
    lab: String,
    name: String,
    address: Ipv4Addr,
    folder: PathBuf,
    rootfs: PathBuf,
}

impl Host {
    /// Gives a host its disk, its plug and its identity, without booting it.
    pub(super) fn create(ground: &Ground, number: u8, rootfs: &Path) -> Result<Self> {
        let name = format!("h{number}");
        let address = number
            .checked_add(10)
            .context("a lab has at most 245 hosts")?;
        let host = Self {
            lab: ground.name.clone(),
            address: Ipv4Addr::new(10, 77, 0, address),
            folder: ground.folder.join(&name),
            rootfs: rootfs.to_owned(),
            name,
        };
        net::plug(&host.lab, &host.name, host.address)?;
        host.mount_disk()?;
        let root = host.root();
        fs::write(root.join("etc/machine-id"), random_id()? + "\n").context("write machine-id")?;
        fs::write(root.join("etc/hostname"), format!("{}\n", host.name))
            .context("write hostname")?;
        Ok(host)
    }

    /// `h1`, `h2`, ...; also its hostname.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on the lab's network.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its root file system seen from this machine; also usable while it is off. `/run` and `/tmp`
    /// of a running host are its own and not seen here.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Every path that was made, changed or removed since the first boot, relative to the root;
    /// of folders only those that were made.
    pub fn written_files(&self) -> Result<Vec<String>> {
        let upper = self.folder.join("upper");
        let upper = upper.to_str().context("the lab's folder is UTF-8")?;
        let list = sh::ok(
            &["find", upper, "-mindepth", "1", "-printf", "%y %P\n"],
            QUICK,
        )?;
        // The overlay keeps a copy of each folder in which something was written.
        let written = |line: &&str| match line.split_once(' ') {
            Some(("d", path)) => !self.rootfs.join(path).is_dir(),
            _ => true,
        };
        Ok(list
            .lines()
            .filter(written)
            .filter_map(|line| line.split_once(' '))
            .map(|(_, path)| path.to_owned())
            .collect())
    }

    /// A program to run on the host.
    pub fn exec<'a, S: AsRef<str>>(&'a self, argv: &[S]) -> Exec<'a> {
        Exec {
            host: self,
            argv: argv.iter().map(|word| word.as_ref().to_owned()).collect(),
            env: Vec::new(),
            user: None,
            input: Vec::new(),
            limit: Duration::from_secs(60),
        }
    }

    /// Runs a shell script on the host and insists on success; its standard output.
    pub fn sh(&self, script: &str) -> Result<String> {
        self.exec(&["sh", "-c", script]).ok()
    }

    /// Writes a file on the host, with its folders.
    pub fn write_file(&self, path: &str, bytes: &[u8]) -> Result<()> {
        self.exec(&[
            "sh",
            "-c",
            "mkdir -p \"${1%/*}\" && cat >\"$1\"",
            "write",
            path,
        ])
        .input(bytes)
        .ok()
        .map(drop)
        .with_context(|| format!("write {path} on {}", self.name))
    }

    /// Reads a text file on the host.
    pub fn read_file(&self, path: &str) -> Result<String> {
        self.exec(&["cat", path])
            .ok()
            .with_context(|| format!("read {path} on {}", self.name))
    }

    /// Copies a file of this machine onto the host, mode included.
    pub fn copy_in(&self, from: &Path, to: &str) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(from)
            .with_context(|| format!("look at {}", from.display()))?
            .permissions()
            .mode();
        let bytes = fs::read(from).with_context(|| format!("read {}", from.display()))?;
        self.write_file(to, &bytes)?;
        self.exec(&["chmod", &format!("{:o}", mode & 0o7777), to])
            .ok()
            .map(drop)
    }

    /// `systemctl reboot`, and waits until the host is back.
    pub fn reboot(&self) -> Result<()> {
        let before = self.leader()?;
        // The answer may be lost with the connection to a system that goes down.
        self.exec(&["systemctl", "--no-block", "reboot"]).run()?;
        wait::until("the host to go down", BOOT, || {
            let gone = self.leader().map_or(true, |now| now != before);
            Ok(Look::when(gone, || "still the same boot".into()))
        })?;
        self.wait_booted()
    }

    /// Makes the switch lose this many percent of its packets in each direction; 0 ends it.
    pub fn lose_packets(&self, percent: u8) -> Result<()> {
        net::lose(&self.lab, &self.name, percent)
    }

    /// Pulls the mains: no goodbye on the network, no unit stopped, nothing flushed.
    pub fn power_loss(&self) -> Result<()> {
        // The cable goes first. The kernel would otherwise close the dead host's TCP connections
        // politely, which no host without power ever did.
        self.link_down()?;
        teardown::end_processes(&self.cgroups())
    }

    /// Whether anything of it runs.
    pub fn is_running(&self) -> bool {
        !teardown::processes(&self.cgroups()).is_empty()
    }

    /// Switches the host on and waits until it has booted.
    pub fn power_on(&self) -> Result<()> {
        self.link_up()?;
        self.boot()?;
        self.wait_booted()
    }

    /// Shuts the host down properly and waits until it is off.
    pub fn shutdown(&self) -> Result<()> {
        self.exec(&["systemctl", "--no-block", "poweroff"]).run()?;
        wait::until("the host to switch off", BOOT, || {
            let left = teardown::processes(&self.cgroups());
            Ok(Look::when(left.is_empty(), || {
                format!("{} processes alive", left.len())
            }))
        })?;
        self.link_down()
    }

    /// Drops all UDP between the host and the switch, or lets it pass again.
    pub fn drop_udp(&self, dropped: bool) -> Result<()> {
        net::drop_udp(&self.lab, &self.name, dropped)
    }

    /// Pulls the network cable.
    pub fn link_down(&self) -> Result<()> {
        net::cable(&self.lab, &self.name, false)
    }

    /// Puts the network cable back.
    pub fn link_up(&self) -> Result<()> {
        net::cable(&self.lab, &self.name, true)
    }

    /// The kernel's id of the current boot, as programs on the host see it.
    pub fn boot_id(&self) -> Result<String> {
        Ok(self
            .read_file("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned())
    }

    /// What the host's console printed, the last `lines` of it.
    pub fn console(&self, lines: usize) -> String {
        let text = fs::read(self.folder.join("console.log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut last: Vec<_> = text.lines().rev().take(lines).collect();
        last.reverse();
        last.join("\n")
    }

    pub(super) fn boot(&self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.join("console.log"))
            .context("open the console's log")?;
        let mut command = net::in_cgroups(&self.cgroups());
        command
            .args(["sh", "-c"])
            .arg("while :; do code=0; \"$@\" || code=$?; echo \"[lab] nspawn exit $code\"; [ $code = 133 ] || exit $code; done")
            .args(["lab", "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"])
            .arg(format!("--directory={}", self.root().display()))
            .arg(format!("--machine={}-{}", self.lab, self.name))
            .arg(format!("--hostname={}", self.name))
            .arg(format!("--network-namespace-path=/run/netns/{}-{}", self.lab, self.name))
            .args(["--capability=CAP_NET_ADMIN", "--resolv-conf=off", "--timezone=off"])
            .arg("--console=read-only");
        if Path::new("/dev/net/tun").exists() {
            command.arg("--bind=/dev/net/tun");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the console's log")?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("boot {}", self.name))?;
        // Somebody has to collect the exit code, or the dead supervisor stays as a zombie.
        std::thread::spawn(move || child.wait());
        Ok(())
    }

    pub(super) fn wait_booted(&self) -> Result<()> {
        let what = format!("{} to boot", self.name);
        wait::until(&what, BOOT, || {
            let mut ask = sh::command(&[
                "nsenter",
                "-t",
                &self.leader()?.as_raw_nonzero().to_string(),
                "-a",
                "systemctl",
                "is-system-running",
                "--wait",
            ]);
            let state = sh::run(&mut ask, BOOT)?.stdout;
            // "degraded" has booted too: a failed unit is the scenario's business.
            let booted = matches!(state.trim(), "running" | "degraded");
            Ok(Look::when(booted, || format!("systemd says {state:?}")))
        })
        .with_context(|| format!("the console's end:\n{}", self.console(15)))
    }

    /// The host's pid 1, by its pid on this machine.
    fn leader(&self) -> Result<Pid> {
        for pid in teardown::processes(&self.cgroups()) {
            let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
            let inner = status
                .as_deref()
                .unwrap_or("")
                .lines()
                .find_map(|line| line.strip_prefix("NSpid:"));
            let mut levels = inner.unwrap_or("").split_whitespace().rev();
            if levels.next() == Some("1") && levels.next().is_some() {
                return Ok(pid);
            }
        }
        bail!("{} is off", self.name)
    }

    fn cgroups(&self) -> Vec<PathBuf> {
        net::cgroups(&self.lab, &self.name)
    }

    fn mount_disk(&self) -> Result<()> {
        let mount = |argv: &[&str]| sh::ok(argv, QUICK).map(drop);
        fs::create_dir(&self.folder)
            .with_context(|| format!("create {}", self.folder.display()))?;
        let at = self.folder.to_str().context("the lab's folder is UTF-8")?;
        // A host that writes without end fills its own half gigabyte, not the machine.
        mount(&[
            "mount",
            "-t",
            "tmpfs",
            "-o",
            "size=512m,mode=755",
            "loopback-lab",
            at,
        ])?;
        for folder in ["upper", "work", "root"] {
            fs::create_dir(self.folder.join(folder)).context("create the disk's folders")?;
        }
        let layers = format!(
            "lowerdir={},upperdir={at}/upper,workdir={at}/work",
            self.rootfs.display()
        );
        mount(&[
            "mount",
            "-t",
            "overlay",
            "-o",
            &layers,
            "overlay",
            &format!("{at}/root"),
        ])
    }
}

/// A program to run on a host, with what it needs.
#[derive(Debug)]
#[must_use = "nothing runs until run() or ok()"]
pub struct Exec<'a> {
    host: &'a Host,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    user: Option<String>,
    input: Vec<u8>,
    limit: Duration,
}

impl Exec<'_> {
    /// Adds an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Runs as this user instead of root.
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.into());
        self
    }

    /// Puts bytes on the standard input.
    pub fn input(mut self, bytes: &[u8]) -> Self {
        self.input = bytes.to_vec();
        self
    }

    /// Ends the program after this long; a minute otherwise.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Runs the program to its end.
    pub fn run(self) -> Result<Output> {
        let leader = self.host.leader()?.as_raw_nonzero().to_string();
        let mut argv: Vec<String> = ["nsenter", "-t", &leader, "-a", "systemd-run"]
            .map(Into::into)
            .into();
        argv.extend(["--quiet", "--wait", "--pipe", "--collect"].map(Into::into));
        // Killing our end of the pipe does not end the unit; this does.
        argv.push(format!(
            "--property=RuntimeMaxSec={}",
            self.limit.as_secs() + 1
        ));
        argv.extend(
            self.env
                .iter()
                .map(|(name, value)| format!("--setenv={name}={value}")),
        );
        argv.extend(self.user.map(|user| format!("--uid={user}")));
        argv.push("--".into());
        // systemd would put environment variables in the place of `$NAME`; only the argument
        // vector's own program may expand anything.
        argv.extend(self.argv.iter().map(|word| word.replace('$', "$$")));
        let output = sh::run_with_input(&mut sh::command(&argv), &self.input, self.limit);
        let what = format!("`{}` on {}", self.argv.join(" "), self.host.name);
        output
            .map(|output| Output {
                what: what.clone(),
                ..output
            })
            .with_context(|| format!("run {what}"))
    }

    /// Runs the program and insists on success; its standard output.
    pub fn ok(self) -> Result<String> {
        self.run()?.ok()
    }
}

fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .context("read randomness")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
