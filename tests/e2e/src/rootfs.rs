//! The root file system all lab hosts share as their lower layer: Debian, small, with systemd.
//!
//! It is built once (about a minute) and cached outside the checkout under a key made of the
//! package list, the suite and `RECIPE`, so that a change of any of them builds a new one beside
//! the old. The build happens under a file lock in a folder of its own and is renamed into place
//! at the end: who sees it sees all of it. Packages come from the archive that this machine's own
//! package manager is configured for; no host name is written here.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    say, sh,
    tools::{self, tool},
};

/// What a host of the lab can run from the start.
const PACKAGES: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "dbus",
    "iproute2",
    "curl",
    "ca-certificates",
    "iputils-ping",
    "procps",
    "nftables",
];

/// Counts up when [`slim`] changes.
const RECIPE: u32 = 1;

/// The folder with the finished root file system; builds it when it is not cached.
pub fn fetch() -> Result<PathBuf> {
    ensure!(tools::is_root(), "building a root file system needs root");
    let source = Source::of_this_machine()?;
    let cache = cache_folder();
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let ready = cache.join(format!("rootfs-{}", source.key()));
    if ready.exists() {
        return Ok(ready);
    }
    let lock = File::create(cache.join("lock")).context("create the cache's lock")?;
    lock.lock().context("lock the cache")?;
    if ready.exists() {
        return Ok(ready);
    }
    build(&source, &ready)?;
    Ok(ready)
}

fn cache_folder() -> PathBuf {
    std::env::var_os("LOOPBACK_LAB_CACHE")
        .map_or_else(|| "/var/cache/loopback-lab".into(), Into::into)
}

/// Where packages come from, as `debootstrap` wants to be told.
struct Source {
    uri: String,
    suite: String,
}

impl Source {
    fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("read /etc/os-release")?;
        let suite = release
            .lines()
            .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
            .map(|name| name.trim_matches('"').to_owned())
            .context("find VERSION_CODENAME in /etc/os-release")?;
        // The package manager parses its own configuration best.
        let targets = sh::ok(
            &[
                "apt-get",
                "indextargets",
                "--format",
                "$(RELEASE) $(COMPONENT) $(REPO_URI)",
                "Created-By: Packages",
            ],
            Duration::from_secs(30),
        )
        .context("ask the package manager for its archive")?;
        let uri = archive(&targets, &suite).with_context(|| {
            format!("find an archive of {suite} in the package manager's configuration")
        })?;
        Ok(Self { uri, suite })
    }

    fn key(&self) -> String {
        let text = format!("{RECIPE} {} {}", self.suite, PACKAGES.join(" "));
        // FNV-1a: the same in every build of this crate, which the standard hasher does not promise.
        let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{}-{hash:016x}", self.suite)
    }
}

/// The archive that carries the main component of `suite`.
fn archive(targets: &str, suite: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let fits = words.next() == Some(suite) && words.next() == Some("main");
        words.next().filter(|_| fits).map(str::to_owned)
    })
}

fn build(source: &Source, ready: &Path) -> Result<()> {
    tools::ensure(&[tool("debootstrap", "debootstrap")])?;
    let cache = ready.parent().context("the cache has a folder")?;
    // We hold the lock, so every unfinished build lost its builder.
    for entry in fs::read_dir(cache)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with("partial-") {
            discard(&entry.path())?;
        }
    }
    say::line(format_args!(
        "      building the hosts' root file system ({}, cached afterwards)",
        source.suite
    ));
    let start = Instant::now();
    let partial = cache.join(format!("partial-{}", std::process::id()));
    let mut debootstrap = Command::new("debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(&source.suite)
        .arg(&partial)
        .arg(&source.uri);
    if let Some(proxy) = apt_proxy() {
        debootstrap.env("http_proxy", proxy);
    }
    let made = sh::run(&mut debootstrap, Duration::from_secs(900))
        .and_then(|output| {
            output.ok().map_err(|error| {
                let log = fs::read_to_string(partial.join("debootstrap/debootstrap.log"));
                let tail: Vec<_> = log.as_deref().unwrap_or("").lines().rev().take(5).collect();
                error.context(format!("debootstrap's log ends: {}", tail.join(" < ")))
            })
        })
        .and_then(|_| slim(&partial));
    if let Err(error) = made {
        crate::interrupt::shielded(|| discard(&partial))?;
        return Err(error.context("build the hosts' root file system"));
    }
    fs::rename(&partial, ready).context("move the root file system into place")?;
    say::line(format_args!(
        "      root file system built in {:.0} s",
        start.elapsed().as_secs_f32()
    ));
    Ok(())
}

/// Takes out what a test host never looks at, and units that only slow its boot.
fn slim(root: &Path) -> Result<()> {
    for folder in [
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "usr/share/info",
        "var/cache/apt",
        "var/lib/apt/lists",
        "var/log/apt",
    ] {
        let folder = root.join(folder);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
            fs::create_dir_all(&folder)?;
        }
    }
    let units = root.join("etc/systemd/system");
    for unit in [
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "console-getty.service",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
        "fstrim.timer",
        "getty.target",
        "systemd-ask-password-console.path",
        "systemd-ask-password-wall.path",
    ] {
        let link = units.join(unit);
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("/dev/null", &link)
                .with_context(|| format!("mask {unit}"))?;
        }
    }
    let default = units.join("default.target");
    if default.symlink_metadata().is_err() {
        std::os::unix::fs::symlink("/lib/systemd/system/multi-user.target", default)?;
    }
    Ok(())
}

/// Removes an unfinished build without following mounts that an interrupted one left in it.
fn discard(partial: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let prefix = format!("{}/", partial.display());
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        if point.starts_with(&prefix) {
            sh::ok(&["umount", "-l", point], Duration::from_secs(30))?;
        }
    }
    let path = partial.to_str().context("the cache's path is UTF-8")?;
    sh::ok(
        &["rm", "-rf", "--one-file-system", "--", path],
        Duration::from_secs(120),
    )
    .map(drop)
}

fn apt_proxy() -> Option<String> {
    let dump = sh::ok(
        &["apt-config", "dump", "Acquire::http::Proxy"],
        Duration::from_secs(10),
    )
    .ok()?;
    let (_, value) = dump.trim().split_once('"')?;
    Some(value.trim_end_matches("\";").to_owned()).filter(|proxy| !proxy.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_of_the_running_suite_is_chosen() {
        let targets = "nodistro main https://other.example/\n\
                       bookworm-security main http://security.example/\n\
                       bookworm contrib http://wrong.example/\n\
                       bookworm main http://mirror.example/debian/\n";
        assert_eq!(
            archive(targets, "bookworm").as_deref(),
            Some("http://mirror.example/debian/")
        );
        assert_eq!(archive(targets, "trixie"), None);
    }

    #[test]
    fn another_suite_is_another_cache_entry() {
        let key = |suite: &str| {
            Source {
                uri: String::new(),
                suite: suite.into(),
            }
            .key()
        };
        assert_ne!(key("bookworm"), key("trixie"));
        assert_eq!(key("bookworm"), key("bookworm"));
    }
}
