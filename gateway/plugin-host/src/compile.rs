//! Compiling, in a process of its own.
//!
//! A compiler that is fed by strangers can take all the time and memory there is, and no promise
//! says that it does not crash. So it runs as a child that bounds itself before it reads a byte,
//! and that its parent ends when it takes too long. What it is given comes through its standard
//! input; what it makes is a file; what it has to say is on its standard error.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What compiling one component may take.
#[derive(Clone, Copy, Debug)]
pub struct CompileLimits {
    /// Of address space.
    pub memory_bytes: u64,
    /// Computing.
    pub cpu: Duration,
    /// From start to end.
    pub wall: Duration,
    /// Of what comes out: about three times of what goes in.
    pub output_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self {
            memory_bytes: 3 << 30,
            cpu: Duration::from_secs(120),
            wall: Duration::from_secs(180),
            output_bytes: 512 << 20,
        }
    }
}

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The compiler could not be started, fed or read.
    #[error("run the compiler")]
    Run(#[source] std::io::Error),
    /// It took too long.
    #[error("compiling took more than {} s", .0.as_secs())]
    Time(Duration),
    /// It took too much memory.
    #[error("compiling took more than {0} bytes of memory")]
    Memory(u64),
    /// It made too much.
    #[error("what was compiled has more than {0} bytes")]
    Output(u64),
    /// It found something wrong.
    #[error("the component was refused: {0}")]
    Refused(String),
    /// It ended in a way that nobody foresaw.
    #[error("the compiler ended with {0}")]
    Crashed(ExitStatus),
}

impl CompileError {
    /// A stable word.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Run(_) => "compiler_not_run",
            Self::Time(_) => "compile_time",
            Self::Memory(_) => "compile_memory",
            Self::Output(_) => "compile_output",
            Self::Refused(_) => "compile_refused",
            Self::Crashed(_) => "compile_crashed",
        }
    }
}

/// The child says by this status that the component is to blame.
const REFUSED: u8 = 3;

/// What is read of what the child says.
const WORDS_BYTES: u64 = 2_048;

/// Compiles a component and answers what came out.
pub(crate) async fn compile(
    argv: &[OsString],
    limits: &CompileLimits,
    component: &[u8],
    out: &Path,
) -> Result<Vec<u8>, CompileError> {
    let status = match tokio::time::timeout(limits.wall, run(argv, limits, component, out)).await {
        // The child is killed as it is dropped.
        Err(_) => return Err(CompileError::Time(limits.wall)),
        Ok(ran) => ran.map_err(CompileError::Run)?,
    };
    let (status, words) = status;
    if status.success() {
        return tokio::fs::read(out).await.map_err(CompileError::Run);
    }
    let said = |word: &str| words.contains(word);
    Err(match (status.code(), status.signal()) {
        (Some(code), _) if code == i32::from(REFUSED) => CompileError::Refused(words),
        (_, Some(SIGXCPU | SIGKILL)) => CompileError::Time(limits.cpu),
        (_, Some(SIGXFSZ)) => CompileError::Output(limits.output_bytes),
        _ if said("memory allocation of") || said("Cannot allocate memory") => {
            CompileError::Memory(limits.memory_bytes)
        }
        _ => CompileError::Crashed(status),
    })
}

// Their numbers are the same on every Linux that we build for.
const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;
const SIGXFSZ: i32 = 25;

async fn run(
    argv: &[OsString],
    limits: &CompileLimits,
    component: &[u8],
    out: &Path,
) -> std::io::Result<(ExitStatus, String)> {
    let [program, args @ ..] = argv else {
        return Err(std::io::Error::other("no compiler is configured"));
    };
    let mut child = tokio::process::Command::new(program)
        .args(args)
        .arg(limits.memory_bytes.to_string())
        .arg(limits.cpu.as_secs().max(1).to_string())
        .arg(limits.output_bytes.to_string())
        .arg(out)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let stderr = child.stderr.take();
    let feed = async move {
        if let Some(mut stdin) = stdin {
            // A child that refuses early closes its end; how it ends says more than that.
            let _ = stdin.write_all(component).await;
        }
    };
    let listen = async move {
        let mut words = Vec::new();
        if let Some(mut stderr) = stderr {
            let _ = (&mut stderr)
                .take(WORDS_BYTES)
                .read_to_end(&mut words)
                .await;
            // The rest, so that the child is not stuck with it.
            let _ = tokio::io::copy(&mut stderr, &mut tokio::io::sink()).await;
        }
        words
    };
    let (status, (), words) = tokio::join!(child.wait(), feed, listen);
    let words = String::from_utf8_lossy(&words);
    Ok((status?, model::names::clean(words.trim(), 500)))
}

/// The whole life of the process that compiles. `args` are those behind the ones in
/// [`crate::Options::compiler`].
pub fn compile_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (code, words) = match child(args) {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failed::Refused(words)) => (REFUSED, words),
        Err(Failed::Broken(words)) => (1, words),
    };
    let _ = writeln!(std::io::stderr(), "{words}");
    ExitCode::from(code)
}

enum Failed {
    Refused(String),
    Broken(String),
}

fn child(args: impl IntoIterator<Item = OsString>) -> Result<(), Failed> {
    let broken =
        |what: &str, error: &dyn std::fmt::Display| Failed::Broken(format!("{what}: {error}"));
    let mut args = args.into_iter();
    let mut number = |name: &str| {
        args.next()
            .and_then(|arg| arg.to_str().and_then(|text| text.parse::<u64>().ok()))
            .ok_or_else(|| Failed::Broken(format!("{name} is missing")))
    };
    let memory = number("memory")?;
    let cpu = number("cpu")?;
    let output = number("output")?;
    let out = args
        .next()
        .map(PathBuf::from)
        .ok_or_else(|| Failed::Broken("the file to write is missing".into()))?;

    for (resource, limit) in [
        (Resource::As, memory),
        (Resource::Cpu, cpu),
        (Resource::Fsize, output),
        (Resource::Core, 0),
    ] {
        let limit = Rlimit {
            current: Some(limit),
            maximum: Some(limit),
        };
        setrlimit(resource, limit).map_err(|error| broken("bound itself", &error))?;
    }

    let mut component = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut component)
        .map_err(|error| broken("read the component", &error))?;
    let engine = crate::engine::for_compiling().map_err(|error| broken("engine", &error))?;
    let compiled = engine
        .precompile_component(&component)
        .map_err(|error| Failed::Refused(format!("{error:#}")))?;
    File::options()
        .write(true)
        .create_new(true)
        .open(&out)
        .and_then(|mut file| file.write_all(&compiled))
        .map_err(|error| broken("write what was compiled", &error))
}
