//! Ctrl-C as an ordinary error.
//!
//! A killed test run must not leave booted machines, mounts and namespaces behind, and in Rust the
//! way to be sure is to let `Drop` run. So the first SIGINT, SIGTERM or SIGHUP only raises a flag;
//! every wait of this crate ends in [`pause`], which then fails, and the error unwinds the stack
//! like any other. A second signal exits on the spot: whatever it leaves behind is found and
//! removed by the next lab (see [`crate::lab`]).
//!
//! Tear-down itself must keep working after the flag is up; it runs inside [`shielded`].

use std::{
    cell::Cell,
    process,
    sync::{Condvar, Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// What a wait reports after Ctrl-C.
#[derive(Debug, Clone, Copy)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From here on the first signal to stop makes waits fail instead of ending the process.
pub fn listen() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut installed = Ok(());
    ONCE.call_once(|| installed = install());
    installed
}

/// Whether someone asked this process to stop.
pub fn requested() -> bool {
    *flag()
}

/// Waits for `duration`, or less when interrupted.
pub fn pause(duration: Duration) -> Result<(), Interrupted> {
    let shielded = SHIELDED.get();
    let (raised, _) = RAISED
        .wait_timeout_while(flag(), duration, |raised| shielded || !*raised)
        .unwrap_or_else(PoisonError::into_inner);
    if *raised && !shielded {
        return Err(Interrupted);
    }
    Ok(())
}

/// Runs `work` (tear-down) with waits that ignore the interruption.
pub fn shielded<T>(work: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            SHIELDED.set(self.0);
        }
    }
    let _restore = Restore(SHIELDED.replace(true));
    work()
}

static FLAG: Mutex<bool> = Mutex::new(false);
static RAISED: Condvar = Condvar::new();

thread_local! {
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

fn flag() -> MutexGuard<'static, bool> {
    FLAG.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("install signal handlers")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                let again = std::mem::replace(&mut *flag(), true);
                if again {
                    process::exit(128 + signal);
                }
                RAISED.notify_all();
            }
        })
        .context("start the signal thread")?;
    Ok(())
}
