//! Waiting for one key, Ctrl-C, or the end of standard input.

use std::{
    io::{self, IsTerminal, Read},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::Result;
use e2e::interrupt;

/// Returns after a key, or when standard input ends; Ctrl-C is an error like in every wait.
pub(super) fn wait() -> Result<()> {
    let _raw = OneKey::begin();
    let (send, receive) = mpsc::channel();
    // It may wait for ever in a read; the process does not wait for it.
    thread::spawn(move || {
        let mut byte = [0];
        // A key, an end and an error all mean the same here.
        let _ = io::stdin().read(&mut byte);
        // The receiver is gone when Ctrl-C came first.
        let _ = send.send(());
    });
    while receive.try_recv().is_err() {
        interrupt::pause(Duration::from_millis(50))?;
    }
    Ok(())
}

/// A terminal that hands over each key at once; restored on drop.
struct OneKey {
    before: String,
}

impl OneKey {
    fn begin() -> Option<Self> {
        if !io::stdin().is_terminal() {
            return None;
        }
        let before = stty(&["-g"])?;
        stty(&["-icanon", "-echo", "min", "1"])?;
        Some(Self {
            before: before.trim().to_owned(),
        })
    }
}

impl Drop for OneKey {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = stty(&[&self.before]);
    }
}

/// `stty` on our own standard input, which is the terminal.
fn stty(args: &[&str]) -> Option<String> {
    let output = Command::new("stty")
        .args(args)
        .stdin(Stdio::inherit())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}
