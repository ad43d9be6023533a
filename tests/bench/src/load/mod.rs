//! Clients as processes of their own, steered over their standard input and output.
//!
//! ```text
//!   we            the clients
//!   status   ──►
//!            ◄──  {"up":3999,"attempts":4003,...}   one line for each line
//!   mark     ──►                                    from now on, count who comes (back) when
//!   (closed) ──►  end
//! ```

pub(crate) mod swarm;
pub(crate) mod tls;

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use e2e::wait::{self, Look};
use serde::{Deserialize, Serialize};

/// What clients say of themselves.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Connected and welcomed at this moment.
    pub(crate) up: u64,
    /// Attempts to connect so far.
    pub(crate) attempts: u64,
    /// Attempts that failed.
    pub(crate) failures: u64,
    /// Connections lost.
    pub(crate) lost: u64,
    /// What went wrong last.
    pub(crate) trouble: String,
    /// How many became connected since the mark, each counted once.
    pub(crate) back: u64,
    /// When half, 99 % and all of those had, in milliseconds after the mark.
    pub(crate) back_ms: [u64; 3],
}

/// Clients that run.
#[derive(Debug)]
pub(crate) struct Clients {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Clients {
    /// Starts this binary as clients. They end with this value, or with this process.
    ///
    /// They run at a lower priority: in real life they are other machines, and what is measured
    /// must not wait for them.
    pub(crate) fn start(args: &[&str]) -> Result<Self> {
        let own = std::env::current_exe().context("find this program")?;
        let mut child = Command::new("nice")
            .args(["-n", "5"])
            .arg(own)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("start clients")?;
        let stdin = child.stdin.take().context("clients have an input")?;
        let stdout = child.stdout.take().context("clients have an output")?;
        Ok(Self {
            child,
            stdin,
            stdout: BufReader::new(stdout),
        })
    }

    /// How they are.
    pub(crate) fn status(&mut self) -> Result<Status> {
        self.ask("status")
    }

    /// From now on count who comes back when.
    pub(crate) fn mark(&mut self) -> Result<Status> {
        self.ask("mark")
    }

    /// Waits until `count` are connected.
    pub(crate) fn wait_up(&mut self, count: usize, limit: Duration) -> Result<Status> {
        wait::until(&format!("{count} clients to be connected"), limit, || {
            let status = self.status()?;
            let up = usize::try_from(status.up)?;
            Ok(Look::some((up >= count).then(|| status.clone()), || {
                format!("{status:?}")
            }))
        })
    }

    fn ask(&mut self, word: &str) -> Result<Status> {
        writeln!(self.stdin, "{word}").context("ask the clients")?;
        let mut line = String::new();
        self.stdout
            .read_line(&mut line)
            .context("hear the clients")?;
        serde_json::from_str(&line).context("the clients have ended")
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // Nothing of theirs is worth an orderly end, and the servers should see a crowd vanish.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Counts, shared by all clients of a process.
#[derive(Debug)]
struct Counters {
    up: AtomicU64,
    attempts: AtomicU64,
    failures: AtomicU64,
    lost: AtomicU64,
    trouble: Mutex<String>,
    mark: Mutex<Mark>,
}

#[derive(Debug)]
struct Mark {
    number: u64,
    at: Instant,
    back: Vec<Duration>,
}

impl Counters {
    fn new() -> Self {
        Self {
            up: AtomicU64::new(0),
            attempts: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            trouble: Mutex::default(),
            mark: Mutex::new(Mark {
                number: 1,
                at: Instant::now(),
                back: Vec::new(),
            }),
        }
    }

    /// A client is connected; it was last counted under `mark`.
    fn came(&self, mark: &mut u64) {
        self.up.fetch_add(1, Ordering::Relaxed);
        let mut current = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
        if *mark != current.number {
            *mark = current.number;
            let after = current.at.elapsed();
            current.back.push(after);
        }
    }

    fn went(&self, why: String) {
        self.up.fetch_sub(1, Ordering::Relaxed);
        self.lost.fetch_add(1, Ordering::Relaxed);
        self.note(why);
    }

    fn failed(&self, why: String) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.note(why);
    }

    fn note(&self, why: String) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    fn status(&self) -> Status {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut times = {
            let mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
            mark.back.clone()
        };
        let mut at = |q| {
            let time = crate::http::quantile(&mut times, q);
            u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
        };
        let back_ms = [at(0.5), at(0.99), at(1.0)];
        Status {
            up: of(&self.up),
            attempts: of(&self.attempts),
            failures: of(&self.failures),
            lost: of(&self.lost),
            trouble: self
                .trouble
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone(),
            back: times.len() as u64,
            back_ms,
        }
    }

    /// Answers until nobody asks any more.
    fn answer(&self) -> Result<()> {
        for line in std::io::stdin().lines() {
            if line? == "mark" {
                let mut mark = self.mark.lock().unwrap_or_else(PoisonError::into_inner);
                mark.number += 1;
                mark.at = Instant::now();
                mark.back.clear();
            }
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &self.status())?;
            writeln!(out)?;
            out.flush()?;
        }
        Ok(())
    }
}
