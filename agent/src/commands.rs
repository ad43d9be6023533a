//! The commands besides `run`: each answers with what to print and how to exit.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use link::verify::system_clock;
use model::error_chain;
use release::{Expect, PublicKey, verify_file_at, verify_manifest};

use crate::args::{self, Command, HELP};
use crate::config::Config;
use crate::doctor::{CHECKS, diagnose};
use crate::engine::{self, Setup};
use crate::local::{Answer, AskError, Question, ask};
use crate::log::Log;
use crate::state;
use crate::status::Status;
use crate::streams::PAUSED;
use crate::worker::{runner, serve};
use crate::{ARCH, VERSION};

/// What a command says, and how it ends.
#[derive(Debug, PartialEq, Eq)]
pub struct Output {
    /// For standard output.
    pub said: String,
    /// For standard error.
    pub complained: String,
    /// The exit status: 0 yes or done, 1 no or failed, 2 usage, 3 not running.
    pub code: u8,
}

impl Output {
    fn ok(said: impl Into<String>) -> Self {
        Self {
            said: said.into(),
            complained: String::new(),
            code: 0,
        }
    }

    fn failed(code: u8, complaint: impl Into<String>) -> Self {
        let complaint: String = complaint.into();
        let complained = format!("loopback-agent: {complaint}\n");
        Self {
            said: String::new(),
            complained,
            code,
        }
    }
}

/// Time to deregister without a running agent: both rungs, a refusal, a confirmation.
const DEREGISTER_LIMIT: Duration = Duration::from_secs(25);
/// A manifest and a signature are small; keys are lines.
const MAX_FILE: u64 = 1 << 20;

/// Runs the program. `token` was taken from the environment.
pub fn dispatch(args: impl IntoIterator<Item = OsString>, token: Option<String>) -> Output {
    let command = match args::parse(args) {
        Ok(command) => command,
        Err(error) => return Output::failed(2, error.to_string()),
    };
    match command {
        Command::Help => Output::ok(HELP),
        Command::Version => Output::ok(format!("loopback-agent {VERSION} (linux {ARCH})\n")),
        Command::Run { config } => with_config(&config, |loaded| run(&config, loaded, token)),
        Command::Status { config, json, wait } => {
            with_config(&config, |loaded| status(&loaded, json, wait))
        }
        Command::Doctor { config, json, rung } => doctor(&config, json, rung.as_deref()),
        Command::Deregister { config } => {
            with_config(&config, |loaded| deregister(&config, loaded))
        }
        Command::Reset { config, yes } => with_config(&config, |loaded| reset(&loaded, yes)),
        Command::Pause { config, paused } => {
            with_config(&config, |loaded| pause(&loaded.state_dir, paused))
        }
        Command::Runner { folder, name } => {
            inner(|| block_on(runner::run(&folder, &name)).and_then(std::convert::identity))
        }
        Command::Worker => inner(serve::run),
        Command::VerifyRelease {
            manifest,
            signature,
            key_file,
            file,
        } => match verify_release(&manifest, &signature, &key_file, &file) {
            Ok(said) => Output::ok(said),
            Err(complaint) => Output::failed(1, complaint),
        },
    }
}

fn with_config(path: &Path, then: impl FnOnce(Config) -> Output) -> Output {
    match Config::load(path, |name| std::env::var(name).ok()) {
        Ok(config) => then(config),
        Err(error) => Output::failed(2, error_chain(&error)),
    }
}

/// A process of the agent's own, which nobody reads the output of.
fn inner(run: impl FnOnce() -> io::Result<()>) -> Output {
    no_core_dumps_of_ours();
    match run() {
        Ok(()) => Output::ok(""),
        Err(error) => Output::failed(1, error_chain(&error)),
    }
}

/// Takes effect at once: the agent looks before it accepts a run.
fn pause(state_dir: &Path, paused: bool) -> Output {
    let file = state_dir.join(PAUSED);
    let (done, said) = if paused {
        let made = fs::File::create(&file).and_then(|file| file.sync_all());
        (
            made,
            "operators cannot run anything on this host until `loopback-agent resume`; what runs goes on\n",
        )
    } else {
        let gone = match fs::remove_file(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        (gone, "operators can run commands on this host\n")
    };
    match done {
        Ok(()) => Output::ok(said),
        Err(error) => Output::failed(1, format!("{}: {error}", file.display())),
    }
}

/// One thread: see the head of the crate.
fn block_on<F: Future>(future: F) -> Result<F::Output, io::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    Ok(runtime.block_on(future))
}

fn run(path: &Path, config: Config, token: Option<String>) -> Output {
    no_core_dumps();
    let log = Log::start(&config);
    let setup = Setup {
        config_path: path.to_owned(),
        config,
        token,
        log,
    };
    match block_on(engine::run(setup)) {
        Ok(Ok(())) => Output::ok(""),
        Ok(Err(error)) => {
            let why = error_chain(&error);
            tracing::error!(%why, "the agent cannot run");
            Output::failed(1, why)
        }
        Err(error) => Output::failed(1, format!("start the runtime: {error}")),
    }
}

/// A dump would hold the host's key.
fn no_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    // Lowering is always allowed; without it the unit's own limit counts.
    let _ = setrlimit(Resource::Core, none);
}

/// The same for processes that hold secrets of runs. What they start may dump: the
/// hard limit stays.
fn no_core_dumps_of_ours() {
    // Until a program is executed; a core of ours would hold what it is told.
    let _ = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

fn status(config: &Config, json: bool, wait: Option<Duration>) -> Output {
    let deadline = Instant::now() + wait.unwrap_or_default();
    loop {
        let asked = ask(&config.runtime_dirs, Question::Status);
        let settled = match &asked {
            Ok(Answer::Status(status)) => status.is_linked() || status.needs_a_person(),
            Ok(_) | Err(AskError::Denied { .. }) => true,
            Err(_) => false,
        };
        if settled || Instant::now() >= deadline {
            return say_status(config, asked, json);
        }
        // Not a test: a person or an installer waits for another process.
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn say_status(config: &Config, asked: Result<Answer, AskError>, json: bool) -> Output {
    match asked {
        Ok(Answer::Status(status)) => {
            let said = if json {
                to_json(&*status)
            } else {
                Status::to_text(&status)
            };
            let code = u8::from(!status.is_linked());
            Output {
                said,
                complained: String::new(),
                code,
            }
        }
        Ok(_) => Output::failed(1, "the running agent is of another version; restart it"),
        Err(error @ AskError::NotRunning) => {
            let identity = match state::peek(&config.state_dir) {
                Ok(Some(identity)) => format!("; this host has joined as {}", identity.host),
                Ok(None) => "; this host has not joined".to_owned(),
                Err(_) => String::new(),
            };
            let said = if json {
                "{\"state\":\"not_running\"}\n".to_owned()
            } else {
                String::new()
            };
            Output {
                said,
                ..Output::failed(3, format!("{error}{identity}"))
            }
        }
        Err(error) => Output::failed(1, error_chain(&error)),
    }
}

fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value)
        .map(|json| json + "\n")
        .unwrap_or_default()
}

fn doctor(config: &Path, json: bool, only: Option<&str>) -> Output {
    if let Some(unknown) = only.filter(|name| !CHECKS.contains(name)) {
        return Output::failed(
            2,
            format!(
                "no check is called {unknown:?}; there are {}",
                CHECKS.join(", ")
            ),
        );
    }
    match block_on(diagnose(config, only)) {
        Ok(found) => Output {
            said: if json {
                to_json(&found.checks())
            } else {
                found.to_text()
            },
            complained: String::new(),
            code: u8::from(!found.is_well()),
        },
        Err(error) => Output::failed(1, format!("start the runtime: {error}")),
    }
}

/// The running agent says it over its link. Without one, an agent is run here until it
/// has been said.
fn deregister(path: &Path, config: Config) -> Output {
    match ask(&config.runtime_dirs, Question::Deregister) {
        Ok(Answer::Deregistered {
            acknowledged: true,
            text,
        }) => return Output::ok(text + "\n"),
        Ok(Answer::Deregistered {
            acknowledged: false,
            text,
        }) => return Output::failed(1, text),
        Ok(_) => {
            return Output::failed(1, "the running agent is of another version; stop it first");
        }
        Err(AskError::NotRunning) => {}
        Err(error) => return Output::failed(1, error_chain(&error)),
    }
    match state::peek(&config.state_dir) {
        Ok(Some(_)) => {}
        Ok(None) => return Output::ok("this host has not joined: there is nothing to tell\n"),
        Err(error) => return Output::failed(1, error_chain(&error)),
    }
    let log = Log::start(&config);
    let setup = Setup {
        config_path: path.to_owned(),
        config,
        token: None,
        log,
    };
    match block_on(engine::deregister(setup, DEREGISTER_LIMIT)) {
        Ok(Ok(Ok(said))) => Output::ok(said + "\n"),
        Ok(Ok(Err(complaint))) => Output::failed(1, complaint),
        Ok(Err(error)) => Output::failed(1, error_chain(&error)),
        Err(error) => Output::failed(1, format!("start the runtime: {error}")),
    }
}

fn reset(config: &Config, yes: bool) -> Output {
    if !yes {
        return Output::failed(
            2,
            "this host would forget who it is and have to join again with a token; its place at the \
             gateway stays until it is retired there. Repeat with --yes to do it",
        );
    }
    match state::reset(&config.state_dir) {
        Ok(()) => Output::ok("this host has no identity any more\n"),
        Err(error) => Output::failed(1, error_chain(&error)),
    }
}

fn verify_release(
    manifest: &Path,
    signature: &Path,
    key_file: &Path,
    file: &Path,
) -> Result<String, String> {
    let keys = PublicKey::parse_list(&text(key_file)?)
        .map_err(|error| format!("{}: {}", key_file.display(), error_chain(&error)))?;
    let now = jiff::Timestamp::from_millisecond(system_clock()().as_millis())
        .map_err(|error| format!("read the clock: {error}"))?;
    let expect = Expect {
        now,
        min_number: 0,
        channel: None,
    };
    let manifest = verify_manifest(&read(manifest)?, &text(signature)?, &keys, expect)
        .map_err(|error| error_chain(&error))?;
    verify_file_at(&manifest, "linux", ARCH, file).map_err(|error| error_chain(&error))?;
    Ok(format!(
        "release {} is good: signature, and digest of {}\n",
        manifest.version,
        file.display()
    ))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes))
        .map_err(|error| format!("read {}: {error}", path.display()))?;
    Ok(bytes)
}

fn text(path: &Path) -> Result<String, String> {
    String::from_utf8(read(path)?).map_err(|_| format!("{} is not text", path.display()))
}
