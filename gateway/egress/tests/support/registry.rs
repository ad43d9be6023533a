//! A registry as others run it: Docker's own, on loopback.

#![allow(clippy::print_stderr, reason = "a test that is skipped says so")]
#![allow(
    dead_code,
    reason = "several tests share it, and not each needs all of it"
)]

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

pub(crate) struct Registry {
    process: Child,
    pub(crate) port: u16,
    folder: tempfile::TempDir,
}

impl Registry {
    /// One with these lines at the end of its configuration, and a file `auth` that they name as
    /// `ROOT/auth`; none where the program cannot be had, which is said.
    pub(crate) fn start(test: &str, more: &str, auth: &str) -> Option<Self> {
        let program = match program() {
            Ok(program) => program,
            Err(why) => {
                eprintln!("SKIPPED: {test} because {why}");
                return None;
            }
        };
        let folder = tempfile::tempdir().expect("a folder");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let root = folder.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n\
             http:\n  addr: 127.0.0.1:{port}\n{}",
            more.replace("ROOT", &root.to_string())
        );
        let file = folder.path().join("config.yml");
        fs::write(&file, config).expect("write the configuration");
        fs::write(folder.path().join("auth"), auth).expect("write accounts");
        let process = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.path().join("log")).expect("a log"))
            .spawn()
            .expect("start docker-registry");
        let mut registry = Self {
            process,
            port,
            folder,
        };
        registry.wait();
        Some(registry)
    }

    fn wait(&mut self) {
        let limit = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            let ended = self.process.try_wait().expect("look at it");
            assert!(ended.is_none(), "docker-registry ended: {}", log());
            assert!(
                Instant::now() < limit,
                "docker-registry does not listen: {}",
                log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where the registry keeps the bytes with this digest.
    pub(crate) fn blob(&self, hex: &str) -> PathBuf {
        self.folder
            .path()
            .join("data/docker/registry/v2/blobs/sha256")
            .join(&hex[..2])
            .join(hex)
            .join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The installed program, or the one of Debian's package, unpacked and not installed: no service
/// starts and no system file changes.
fn program() -> Result<PathBuf, String> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<PathBuf, String> {
    let installed = Path::new("/usr/bin/docker-registry");
    if installed.exists() {
        return Ok(installed.to_owned());
    }
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docker-registry");
    let program = root.join("usr/bin/docker-registry");
    if program.exists() {
        return Ok(program);
    }
    if std::env::var_os("LOOPBACK_NO_INSTALL").is_some() {
        return Err("docker-registry is missing and LOOPBACK_NO_INSTALL is set".into());
    }
    // Beside, then moved: what is half there is not found.
    let beside = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).map_err(|it| it.to_string())?;
    let run = |command: &mut Command| {
        let output = command.current_dir(beside.path()).output();
        output.is_ok_and(|output| output.status.success())
    };
    let fetched = run(Command::new("apt-get").args(["download", "-q", "docker-registry"]))
        || (run(Command::new("apt-get").args(["update", "-q"]))
            && run(Command::new("apt-get").args(["download", "-q", "docker-registry"])));
    let unpacked = fetched && run(Command::new("sh").args(["-c", "dpkg-deb -x *.deb root"]));
    if !unpacked {
        return Err(
            "the Debian package docker-registry cannot be fetched; install it by hand: \
                    apt-get install docker-registry"
                .into(),
        );
    }
    let _ = fs::rename(beside.path().join("root"), &root);
    if program.exists() {
        Ok(program)
    } else {
        Err("the package has no docker-registry".into())
    }
}
