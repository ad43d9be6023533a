//! A laboratory of real hosts: each boots systemd, has a network plug and a power switch.
//!
//! ```text
//!   namespace NAME-gw 10.77.0.1      NAME-h1 10.77.0.11      NAME-h2 10.77.0.12  ...
//!      gateway, CLI                     booted host              booted host
//!           |                               |                        |
//!           +------------- bridge in namespace NAME-sw --------------+
//! ```
//!
//! * A host is `systemd-nspawn --boot` over an overlay on a tmpfs: the cached [`crate::rootfs`]
//!   below, what the host writes above. It boots in about a second and costs 10 MB.
//! * Every lab has a name of its own and all its network lies in its own namespaces, so several
//!   labs run side by side with the same addresses and nothing can reach the machine or the world.
//! * Everything that runs in a lab, hosts and gateway alike, sits in the lab's control group. That
//!   is how tear-down finds each process without guessing by name or trusting an old pid.
//!
//! **Nothing is left behind.** `Drop` tears down, on panic and Ctrl-C too ([`crate::interrupt`]).
//! For a run that was killed outright: a lab holds a file lock for as long as its process lives,
//! and the next lab to start removes every lab whose lock is free. Tear-down therefore works from
//! the name and the folder alone and finds its way in a half-built lab.
//!
//! Left out: a container's own network (`--network-veth`) would need the machine's networking;
//! plain `chroot` hosts would not show units, watchdogs, reboots or boot ids.

mod host;
mod net;
mod teardown;

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use host::{Exec, Host};

use crate::{
    interrupt, rootfs, say,
    tools::{self, Missing, tool},
};

/// Labs on this machine, one folder each.
const LABS: &str = "/run/loopback-lab";

/// The gateway's address in every lab.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

/// A running lab; dropping it removes it.
#[derive(Debug)]
pub struct Lab {
    hosts: Vec<Host>,
    ground: Ground,
}

impl Lab {
    /// Whether labs can be had on this machine; installs packages that are missing.
    pub fn available() -> Result<(), Missing> {
        if !tools::is_root() {
            return Err(Missing(
                "booting hosts needs root (run it as root, for example through sudo)".into(),
            ));
        }
        tools::ensure(&[
            tool("debootstrap", "debootstrap"),
            tool("systemd-nspawn", "systemd-container"),
            tool("ip", "iproute2"),
            tool("nft", "nftables"),
            tool("nsenter", "util-linux"),
        ])
    }

    /// Boots `count` hosts and waits until systemd in each of them has settled.
    pub fn up(count: u8) -> Result<Self> {
        Self::available()?;
        interrupt::listen()?;
        let root = rootfs::fetch()?;
        let ground = Ground::claim()?;
        let mut lab = Self {
            hosts: Vec::new(),
            ground,
        };
        net::switch(lab.name()).context("set up the lab's switch")?;
        net::plug(lab.name(), "gw", GATEWAY).context("plug the gateway in")?;
        for number in 1..=count {
            let host = Host::create(&lab.ground, number, &root)
                .with_context(|| format!("make host h{number}"))?;
            lab.hosts.push(host);
        }
        for host in &lab.hosts {
            host.boot()?;
        }
        for host in &lab.hosts {
            host.wait_booted()?;
        }
        Ok(lab)
    }

    /// The lab's name, unique on this machine.
    pub fn name(&self) -> &str {
        &self.ground.name
    }

    /// All hosts, in order.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A place for files of this lab's gateway and CLI; goes with the lab.
    pub fn folder(&self) -> &Path {
        &self.ground.folder
    }

    /// Where the gateway and the CLI run: [`GATEWAY`] on the hosts' network.
    pub fn gateway_netns(&self) -> Place {
        self.netns("gw")
    }

    /// Where the gateway runs, but plugged in as a host is: for what shares a host's network, and is
    /// no part of the host.
    pub fn netns_of(&self, host: &Host) -> Place {
        self.netns(host.name())
    }

    fn netns(&self, node: &str) -> Place {
        Place::Lab {
            namespace: format!("{}-{node}", self.ground.name),
            cgroups: net::cgroups(&self.ground.name, "gw"),
        }
    }
}

/// Where a program runs.
#[derive(Debug, Clone)]
pub enum Place {
    /// On this machine, as it is.
    Here,
    /// In a network namespace of a lab.
    Lab {
        /// The namespace.
        namespace: String,
        /// Control groups the program enters.
        cgroups: Vec<PathBuf>,
    },
}

impl Place {
    /// A command that runs `program` there, under the pid that spawning it returns.
    pub fn command(&self, program: &Path) -> Command {
        match self {
            Self::Here => Command::new(program),
            Self::Lab { namespace, cgroups } => {
                let mut command = net::in_cgroups(cgroups);
                command
                    .arg("nsenter")
                    .arg(format!("--net=/run/netns/{namespace}"))
                    .arg("--")
                    .arg(program);
                command
            }
        }
    }

    /// A connection of this process to an address there.
    pub fn connect(&self, address: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        self.inside(move || TcpStream::connect_timeout(&address, limit))
    }

    /// Makes a socket there. It stays in the namespace that it was made in.
    pub fn inside<T: Send + 'static>(
        &self,
        make: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let Self::Lab { namespace, .. } = self else {
            return make();
        };
        let namespace = File::open(format!("/run/netns/{namespace}"))?;
        // The thread that goes there for it ends, so that nobody else is in the wrong one.
        let making = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            make()
        });
        let made = making.join();
        made.unwrap_or_else(|_| Err(io::Error::other("the thread that went there panicked")))
    }
}

/// A lab's name, folder and lock. Its drop is the lab's tear-down.
#[derive(Debug)]
struct Ground {
    name: String,
    folder: PathBuf,
    /// Held while the lab lives; closing it tells others that the lab is dead.
    _lock: File,
}

impl Ground {
    fn claim() -> Result<Self> {
        fs::create_dir_all(LABS).with_context(|| format!("create {LABS}"))?;
        // Claiming and sweeping exclude each other: a new lab exists before it is locked.
        let gate = File::create(Path::new(LABS).join("gate")).context("create the labs' gate")?;
        gate.lock().context("lock the labs' gate")?;
        sweep()?;
        for number in 0..=u8::MAX {
            let name = format!("lb{number:02x}");
            let folder = Path::new(LABS).join(&name);
            match fs::create_dir(&folder) {
                Ok(()) => {
                    let lock =
                        File::create(folder.join("lock")).context("create the lab's lock")?;
                    lock.lock().context("lock the lab")?;
                    return Ok(Self {
                        name,
                        folder,
                        _lock: lock,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context(format!("create {}", folder.display())),
            }
        }
        bail!("256 labs run on this machine already")
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if let Err(error) = interrupt::shielded(|| teardown::lab(&self.name, &self.folder)) {
            say::line(format_args!(
                "      lab {} is not wholly removed: {error:#}",
                self.name
            ));
        }
    }
}

/// Removes labs whose process is gone.
fn sweep() -> Result<()> {
    for entry in fs::read_dir(LABS)
        .with_context(|| format!("list {LABS}"))?
        .flatten()
    {
        let folder = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if !folder.is_dir() {
            continue;
        }
        let alive = File::open(folder.join("lock")).is_ok_and(|lock| lock.try_lock().is_err());
        if !alive {
            say::line(format_args!(
                "      removing lab {name}, which an interrupted run left behind"
            ));
            interrupt::shielded(|| teardown::lab(&name, &folder))
                .with_context(|| format!("remove the dead lab {name}"))?;
        }
    }
    Ok(())
}

/// How long a tool that only talks to the kernel may take.
const QUICK: Duration = Duration::from_secs(30);
