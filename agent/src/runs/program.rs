//! Starting the program of a run: as whom, where, with what around it.
//!
//! Nothing passes through a shell. What the program finds: a session of its own without
//! a terminal, the usual mask and signals, standard input from memory (nothing unless
//! given), and this environment: PATH, HOME, USER, LOGNAME, SHELL, LANG, which command
//! it is, on which host, who asked and under which ticket, how many reboots it has asked
//! for, then the command's variables.
//! Secrets are there too, and nowhere else: not in arguments, not on disk.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, PipeReader, Seek, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use agent_core::runs::accounts::Account;
use protocol::v1::{RunRequest, RunSpec};
use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::process::{Resource, Rlimit, chdir, setpriority_process, setrlimit, setsid, umask};
use rustix::thread::{Gid, Uid, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::cgroup::Group;

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where scripts lie that other users than root run: the state folder is closed to them.
const SCRIPTS: &str = "/run/loopback-scripts";
/// Killed before the agent when memory runs out, and before most of the host.
const OOM_SCORE: &[u8] = b"300";
/// Bytes that a pipe holds: fewer turns for programs that write much.
const PIPE: usize = 1 << 20;

/// A program that runs.
#[derive(Debug)]
pub struct Started {
    /// Its process.
    pub pid: i32,
    /// Its standard output.
    pub stdout: PipeReader,
    /// Its standard error.
    pub stderr: PipeReader,
}

/// Everything about a program but its start.
#[derive(Debug)]
pub struct Program {
    command: Command,
    name: String,
    directory: CString,
    script: Option<PathBuf>,
}

impl Program {
    /// Prepares a program; says why it cannot be started, for people.
    pub fn prepare(
        request: &RunRequest,
        spec: &RunSpec,
        folder: &Path,
        group: Option<&Group>,
        reboots: u32,
    ) -> Result<Self, String> {
        let own = rustix::process::geteuid().as_raw();
        let account = account(&spec.user, own)?;
        let switch = account.uid != own;
        if switch && own != 0 {
            return Err(format!(
                "the agent of this host does not run as root and cannot start programs as {}",
                account.name
            ));
        }
        let directory = match spec.directory.as_str() {
            "" if Path::new(&account.home).is_dir() => account.home.clone(),
            "" => "/".to_owned(),
            directory if Path::new(directory).is_dir() => directory.to_owned(),
            directory => return Err(format!("there is no directory {directory}")),
        };
        let script = match spec.script.is_empty() {
            true => None,
            false => Some(write_script(
                spec,
                &request.command,
                folder,
                &account,
                switch,
            )?),
        };
        let mut words = match &script {
            None => spec.argv.clone(),
            Some(path) => {
                let mut words = match spec.interpreter.is_empty() {
                    true => interpreter(&spec.script),
                    false => spec.interpreter.clone(),
                };
                words.push(path.display().to_string());
                words
            }
        }
        .into_iter();
        let name = words.next().ok_or("there is no program to start")?;
        let mut command = Command::new(&name);
        command.args(words);
        environment(&mut command, request, spec, &account, reboots);
        command.stdin(stdin(&spec.stdin)?);
        let groups = if switch { groups(&account) } else { Vec::new() };
        let inside = Inside {
            entrance: group
                .map(Group::entrance)
                .transpose()
                .map_err(|error| format!("open the control group: {error}"))?,
            nice: spec.limits.map_or(0, |limits| limits.nice),
            open_files: spec.limits.map_or(0, |limits| limits.open_files),
            switch: switch.then_some((Uid::from_raw(account.uid), Gid::from_raw(account.gid))),
            groups,
            directory: CString::new(directory.clone()).map_err(|_| "the directory has a NUL")?,
        };
        let directory = inside.directory.clone();
        #[expect(unsafe_code, reason = "there is no other way between fork and exec")]
        // SAFETY: `Inside::enter` makes system calls and nothing else: it neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || inside.enter());
        }
        Ok(Self {
            command,
            name,
            directory,
            script,
        })
    }

    /// Starts it; says why that failed, for people.
    pub fn start(mut self) -> Result<Started, String> {
        let pipe = || io::pipe().map_err(|error| format!("make a pipe: {error}"));
        let ((stdout, out), (stderr, err)) = (pipe()?, pipe()?);
        for end in [&out, &err] {
            // A wish: users have a quota.
            let _ = rustix::pipe::fcntl_setpipe_size(end, PIPE);
        }
        self.command.stdout(out).stderr(err);
        match self.command.spawn() {
            Ok(child) => Ok(Started {
                pid: i32::try_from(child.id()).unwrap_or(0),
                stdout,
                stderr,
            }),
            Err(error) => {
                if let Some(script) = &self.script {
                    let _ = fs::remove_file(script);
                }
                Err(self.explain(&error))
            }
        }
    }

    fn explain(&self, error: &io::Error) -> String {
        let name = &self.name;
        match error.kind() {
            io::ErrorKind::NotFound if name.contains('/') => format!("there is no program {name}"),
            io::ErrorKind::NotFound => format!("there is no program {name} in the PATH"),
            io::ErrorKind::PermissionDenied => format!(
                "not permitted: {name} is not executable, or the directory {} is closed to its user",
                self.directory.to_string_lossy()
            ),
            _ => format!("cannot start {name}: {error}"),
        }
    }
}

/// Deletes the script of a run that is over.
pub fn forget_script(command: &str) {
    let _ = fs::remove_file(Path::new(SCRIPTS).join(command));
}

/// What the new process does before it becomes the program.
struct Inside {
    entrance: Option<File>,
    nice: i32,
    open_files: u64,
    switch: Option<(Uid, Gid)>,
    groups: Vec<Gid>,
    directory: CString,
}

impl Inside {
    fn enter(&self) -> io::Result<()> {
        setsid()?;
        if let Some(entrance) = &self.entrance {
            rustix::io::write(entrance, b"0")?;
        }
        let score = rustix::fs::open(
            c"/proc/self/oom_score_adj",
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CLOEXEC,
            Mode::empty(),
        );
        if let Ok(score) = score {
            // Containers may forbid it.
            let _ = rustix::io::write(&score, OOM_SCORE);
        }
        if self.nice != 0 {
            setpriority_process(None, self.nice)?;
        }
        if self.open_files > 0 {
            let limit = Rlimit {
                current: Some(self.open_files),
                maximum: Some(self.open_files),
            };
            setrlimit(Resource::Nofile, limit)?;
        }
        if let Some((uid, gid)) = self.switch {
            set_thread_groups(&self.groups)?;
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
        }
        umask(Mode::from_raw_mode(0o022));
        chdir(&*self.directory)?;
        Ok(())
    }
}

/// What a script's first line asks for, as the kernel reads it: a program and at most
/// one argument. A shell where it asks for nothing.
fn interpreter(script: &[u8]) -> Vec<String> {
    let line = script
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let asked = line
        .strip_prefix(b"#!")
        .and_then(|line| std::str::from_utf8(line).ok())
        .map(str::trim)
        .filter(|line| !line.is_empty());
    let Some(asked) = asked else {
        return vec!["/bin/sh".to_owned()];
    };
    match asked.split_once([' ', '\t']) {
        Some((program, argument)) => vec![program.to_owned(), argument.trim().to_owned()],
        None => vec![asked.to_owned()],
    }
}

fn account(name: &str, own: u32) -> Result<Account, String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    if name.is_empty() {
        // A user without an entry is a user all the same.
        return Ok(Account::of_uid(own, &passwd).unwrap_or(Account {
            name: own.to_string(),
            uid: own,
            gid: rustix::process::getegid().as_raw(),
            home: std::env::var("HOME").unwrap_or_else(|_| "/".to_owned()),
            shell: "/bin/sh".to_owned(),
        }));
    }
    // Accounts of a directory service are known to the host's own tools only.
    Account::named(name, &passwd)
        .or_else(|| ask(&["getent", "passwd", name]).and_then(|line| Account::parse(&line)))
        .filter(|account| account.name == name)
        .ok_or_else(|| format!("there is no user {name}"))
}

fn groups(account: &Account) -> Vec<Gid> {
    let ids = match ask(&["id", "-G", &account.name]) {
        Some(ids) => ids
            .split_whitespace()
            .filter_map(|id| id.parse().ok())
            .collect(),
        None => account.groups(&fs::read_to_string("/etc/group").unwrap_or_default()),
    };
    ids.into_iter().map(Gid::from_raw).collect()
}

/// Asks one of the host's tools; nothing where there is none.
fn ask(argv: &[&str]) -> Option<String> {
    let (name, args) = argv.split_first()?;
    let output = Command::new(name)
        .args(args)
        .env("PATH", PATH)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn environment(
    command: &mut Command,
    request: &RunRequest,
    spec: &RunSpec,
    account: &Account,
    reboots: u32,
) {
    command.env_clear();
    let path = if account.uid == 0 {
        PATH
    } else {
        &PATH.replace("/usr/local/sbin:", "")
    };
    for (name, value) in [
        ("PATH", path),
        ("HOME", &account.home),
        ("USER", &account.name),
        ("LOGNAME", &account.name),
        ("SHELL", &account.shell),
        ("LANG", "C.UTF-8"),
        ("LOOPBACK_COMMAND_ID", &request.command),
        ("LOOPBACK_HOST_ID", &request.host),
        ("LOOPBACK_ACTOR", &spec.actor),
        ("LOOPBACK_TICKET", &spec.ticket),
        ("LOOPBACK_REBOOTS", &reboots.to_string()),
    ] {
        command.env(name, value);
    }
    command.envs(spec.environment.iter().map(|it| (&it.name, &it.value)));
    command.envs(spec.secrets.iter().map(|it| (&it.name, &it.value)));
}

fn stdin(bytes: &[u8]) -> Result<Stdio, String> {
    if bytes.is_empty() {
        return Ok(Stdio::null());
    }
    let error = |error: io::Error| format!("keep the standard input: {error}");
    let memory: OwnedFd =
        memfd_create("input", MemfdFlags::CLOEXEC).map_err(|it| error(it.into()))?;
    let mut file = File::from(memory);
    file.write_all(bytes)
        .and_then(|()| file.rewind())
        .map_err(error)?;
    Ok(file.into())
}

/// A file rather than a descriptor: interpreters, and `sudo` before them, want a path.
fn write_script(
    spec: &RunSpec,
    command: &str,
    folder: &Path,
    account: &Account,
    switch: bool,
) -> Result<PathBuf, String> {
    let error = |error: io::Error| format!("write the script: {error}");
    let path = if switch {
        match fs::DirBuilder::new().mode(0o711).create(SCRIPTS) {
            Err(it) if it.kind() != io::ErrorKind::AlreadyExists => return Err(error(it)),
            _ => {}
        }
        Path::new(SCRIPTS).join(command)
    } else {
        folder.join("script")
    };
    let _ = fs::remove_file(&path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o500)
        .open(&path)
        .map_err(error)?;
    file.write_all(&spec.script).map_err(error)?;
    if switch {
        fchown(&file, Some(account.uid), Some(account.gid)).map_err(error)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::interpreter;

    #[test]
    fn a_script_is_run_by_what_its_first_line_names() {
        for (script, words) in [
            ("echo hi", &["/bin/sh"][..]),
            ("#!/bin/bash\necho", &["/bin/bash"]),
            (
                "#! /usr/bin/env -S python3 -u\n",
                &["/usr/bin/env", "-S python3 -u"],
            ),
            ("#!\n", &["/bin/sh"]),
            ("#!/bin/sh -e\r\n", &["/bin/sh", "-e"]),
        ] {
            assert_eq!(interpreter(script.as_bytes()), words, "{script:?}");
        }
    }
}
