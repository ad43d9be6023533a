//! Doing what may never come back.
//!
//! A thread that waits for a dead file server cannot be ended, only left behind. So what
//! it finds goes where it can be taken from meanwhile, and there are only so many that
//! may hang at a time: who asks again and again must not fill the host with them.

use std::io::Read;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

/// Threads at work, hanging ones included.
static THREADS: AtomicUsize = AtomicUsize::new(0);
const MOST_THREADS: usize = 32;
const STACK: usize = 512 << 10;
/// What a program complains is shown up to here.
const COMPLAINT: usize = 512;

/// What a thread has found so far.
#[derive(Debug, Default)]
pub(super) struct Found<T>(Mutex<T>);

impl<T> Found<T> {
    /// Changes it.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct Counted;

impl Drop for Counted {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread of its own and answers what it has found when it ends or the
/// time is up, and whether it has ended.
pub(super) async fn on_thread<T>(
    within: Duration,
    work: impl FnOnce(&Found<T>) + Send + 'static,
) -> (T, bool)
where
    T: Default + Clone + Send + 'static,
{
    let found = Arc::new(Found::<T>::default());
    if THREADS.fetch_add(1, Ordering::Relaxed) >= MOST_THREADS {
        THREADS.fetch_sub(1, Ordering::Relaxed);
        return (T::default(), false);
    }
    let counted = Counted;
    let (done, ended) = oneshot::channel::<()>();
    let for_thread = Arc::clone(&found);
    let thread = std::thread::Builder::new()
        .name("diagnose".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let _counted = counted;
            work(&for_thread);
            let _ = done.send(());
        });
    let ended = match thread {
        Ok(_) => matches!(tokio::time::timeout(within, ended).await, Ok(Ok(()))),
        Err(_) => false,
    };
    (found.update(|it| it.clone()), ended)
}

/// The first bytes of a file, up to `most`; nothing when it cannot be read.
pub(super) fn read(path: impl AsRef<std::path::Path>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = std::fs::File::open(path) {
        // What was read before an error is worth having.
        let _ = file.take(most).read_to_end(&mut bytes);
    }
    bytes
}

/// The same as text.
pub(super) fn read_text(path: impl AsRef<std::path::Path>, most: u64) -> String {
    String::from_utf8_lossy(&read(path, most)).into_owned()
}

/// What a program said.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Its output.
    pub(super) output: Vec<u8>,
    /// Why that is not all, if it is not.
    pub(super) trouble: Option<String>,
}

/// Runs a program of the system and takes up to `most` bytes of its output. It is ended
/// when it says more, or is not done in time.
pub(super) async fn run(program: &str, args: &[&str], most: usize, within: Duration) -> Said {
    let due = Instant::now() + within;
    let child = Command::new(program)
        .args(args)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(error) => {
            return Said {
                output: Vec::new(),
                trouble: Some(format!("run {program}: {error}")),
            };
        }
    };
    let (mut output, mut complaint) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async {
        tokio::join!(
            take(stdout, &mut output, most),
            // Read to its end, so that the program does not wait for us.
            take(stderr, &mut complaint, usize::MAX),
        )
    };
    let trouble = match timeout_at(due, reading).await {
        Err(_) => Some(format!("{program} did not end within {within:?}")),
        Ok((false, _)) => Some(format!("{program} said more than {most} bytes")),
        Ok((true, _)) => match timeout_at(due, child.wait()).await {
            Err(_) => Some(format!("{program} did not end within {within:?}")),
            Ok(Ok(status)) if status.success() => None,
            Ok(Ok(_)) | Ok(Err(_)) => {
                complaint.truncate(COMPLAINT);
                let said = String::from_utf8_lossy(&complaint);
                let said: Vec<_> = said.trim().lines().collect();
                Some(format!("{program}: {}", said.join(" ")))
            }
        },
    };
    Said { output, trouble }
}

/// Reads until the end, or `most` bytes: whether it was the end. Of a complaint only the
/// beginning is kept.
async fn take(stream: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, most: usize) -> bool {
    let Some(mut stream) = stream else {
        return true;
    };
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return true,
            Ok(count) if most == usize::MAX => {
                let room = COMPLAINT.saturating_sub(into.len());
                into.extend_from_slice(&buffer[..count.min(room)]);
            }
            Ok(count) => {
                let room = most - into.len();
                into.extend_from_slice(&buffer[..count.min(room)]);
                if count > room {
                    return false;
                }
            }
        }
    }
}
