//! Running programs: argument vectors only, always with a limit, output always captured.

use std::{
    fmt,
    io::{Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal};

use crate::interrupt;

/// How a program ended and what it said. Bytes that are not UTF-8 are replaced.
#[derive(Debug, Clone)]
pub struct Output {
    /// What was run, for messages.
    pub what: String,
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// Exit code, when it was not a signal that ended the program.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The standard output of a program that succeeded; otherwise an error with all it said.
    pub fn ok(self) -> Result<String> {
        if self.status.success() {
            Ok(self.stdout)
        } else {
            bail!("{self}")
        }
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with ", self.what)?;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => write!(f, "exit code {code}")?,
            (None, Some(signal)) => write!(f, "signal {signal}")?,
            (None, None) => write!(f, "{}", self.status)?,
        }
        for (name, text) in [("stdout", &self.stdout), ("stderr", &self.stderr)] {
            if !text.trim().is_empty() {
                write!(
                    f,
                    "\n  {name}: {}",
                    text.trim().replace('\n', "\n          ")
                )?;
            }
        }
        Ok(())
    }
}

/// A command from an argument vector.
pub fn command<S: AsRef<str>>(argv: &[S]) -> Command {
    let mut words = argv.iter().map(AsRef::as_ref);
    let mut command = Command::new(words.next().unwrap_or("true"));
    command.args(words);
    command
}

/// `command` with more arguments.
pub fn extended<S: AsRef<str>>(mut command: Command, more: &[S]) -> Command {
    command.args(more.iter().map(AsRef::as_ref));
    command
}

/// Runs `command` with nothing on its standard input.
pub fn run(command: &mut Command, limit: Duration) -> Result<Output> {
    run_with_input(command, &[], limit)
}

/// Runs `command` and insists on success; its standard output.
pub fn ok<S: AsRef<str>>(argv: &[S], limit: Duration) -> Result<String> {
    run(&mut command(argv), limit)?.ok()
}

/// Runs `command` with `input` on its standard input. A program that outlives `limit`, or the
/// person's patience, is killed together with its process group.
pub fn run_with_input(command: &mut Command, input: &[u8], limit: Duration) -> Result<Output> {
    let what = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a terminal's Ctrl-C reaches us alone, and we decide who ends when.
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {what}"))?;
    let feeder = child.stdin.take().map(|mut stdin| {
        let input = input.to_vec();
        // A program that does not read its input closes the pipe; that is its right.
        thread::spawn(move || drop(stdin.write_all(&input)))
    });
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let status = wait_child(&mut child, limit).with_context(|| format!("run {what}"));
    let output = Output {
        what,
        status: status?,
        stdout: received(&stdout),
        stderr: received(&stderr),
    };
    if let Some(feeder) = feeder
        && feeder.is_finished()
    {
        drop(feeder.join());
    }
    Ok(output)
}

/// Runs `command` with its output going where ours goes, for programs a person wants to watch.
pub fn watch(command: &mut Command, limit: Duration) -> Result<ExitStatus> {
    let what = describe(command);
    let mut child = command
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .with_context(|| format!("start {what}"))?;
    wait_child(&mut child, limit).with_context(|| format!("run {what}"))
}

/// Waits for `child`; kills its group when `limit` passes or the run is interrupted.
fn wait_child(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let start = Instant::now();
    let mut step = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        let verdict = if start.elapsed() > limit {
            Err(anyhow::anyhow!("no end after {:.0} s", limit.as_secs_f32()))
        } else {
            interrupt::pause(step).map_err(Into::into)
        };
        if verdict.is_err() {
            if let Some(pid) = Pid::from_raw(i32::try_from(child.id())?) {
                // Gone already is as good as killed.
                let _ = rustix::process::kill_process_group(pid, Signal::KILL);
            }
            child.wait()?;
            verdict?;
        }
        step = (step * 2).min(Duration::from_millis(20));
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (send, receive) = mpsc::channel();
    if let Some(mut pipe) = pipe {
        thread::spawn(move || {
            let mut chunk = [0; 8192];
            while let Ok(count @ 1..) = pipe.read(&mut chunk) {
                if send.send(chunk[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
    }
    receive
}

/// All that came until the pipe closed. A grandchild that keeps the pipe open for itself does not
/// hold us up: what has not come a moment after the program's end is not the program's.
fn received(chunks: &mpsc::Receiver<Vec<u8>>) -> String {
    let mut bytes = Vec::new();
    while let Ok(chunk) = chunks.recv_timeout(Duration::from_millis(500)) {
        bytes.extend(chunk);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    let line = line.join(" ");
    let short: String = line.chars().take(160).collect();
    let cut = if short.len() < line.len() { "..." } else { "" };
    format!("`{short}{cut}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn output_and_exit_code_are_kept_apart() {
        let output = run(
            &mut command(&["sh", "-c", "echo out; echo err >&2; exit 3"]),
            LIMIT,
        )
        .unwrap();
        assert_eq!(
            (output.code(), &*output.stdout, &*output.stderr),
            (Some(3), "out\n", "err\n")
        );
        assert!(output.ok().unwrap_err().to_string().contains("exit code 3"));
    }

    #[test]
    fn input_larger_than_a_pipe_passes_through() {
        let input = vec![b'x'; 300_000];
        let output = run_with_input(&mut command(&["cat"]), &input, LIMIT).unwrap();
        assert_eq!(output.stdout.len(), input.len());
    }

    #[test]
    fn a_program_that_hangs_is_killed_at_the_limit() {
        let error = run(&mut command(&["sleep", "60"]), Duration::from_millis(50)).unwrap_err();
        assert!(format!("{error:#}").contains("no end after"), "{error:#}");
    }

    #[test]
    fn a_grandchild_holding_the_pipe_does_not_hold_us() {
        let start = Instant::now();
        let output = ok(&["sh", "-c", "sleep 5 & echo done"], LIMIT).unwrap();
        assert_eq!(output, "done\n");
        assert!(start.elapsed() < Duration::from_secs(4));
    }
}
