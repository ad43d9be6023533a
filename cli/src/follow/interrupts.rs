//! Ctrl-C while a command runs: the first asks the gateway to cancel the command, and
//! how it ends is shown; the second leaves.
//!
//! This has a thread of its own. The rest may be waiting for a gateway, or for a reader
//! that does not take our output, and leaving must work then, too.

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use api::v1::OfCommand;
use api::v1::command::{CancelCommand, CancelCommandRuns};
use signal_hook::consts::SIGINT;
use signal_hook::iterator::Signals;

use crate::client::Client;
use crate::failure::{Failure, LEFT};
use crate::output::note;

/// Hears Ctrl-C until the process ends.
pub struct Interrupts(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    heard: u32,
    command: Option<(Arc<Client>, OfCommand)>,
}

impl Interrupts {
    /// Begins to listen, before there is a command: one that is being made when
    /// somebody changes their mind is cancelled as soon as it has an id.
    pub fn listen() -> Result<Self, Failure> {
        let state = Arc::new(Mutex::new(State::default()));
        let mut signals = Signals::new([SIGINT]).map_err(Failure::Signals)?;
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for _ in signals.forever() {
                interrupted(&shared);
            }
        });
        Ok(Self(state))
    }

    /// This is the command to cancel.
    pub fn command(&self, client: &Arc<Client>, path: OfCommand) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.command = Some((Arc::clone(client), path));
        if state.heard > 0 {
            cancel(Arc::clone(client), path);
        }
    }
}

fn interrupted(state: &Mutex<State>) {
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    state.heard += 1;
    match (&state.command, state.heard) {
        (None, 1) => say("to be cancelled as soon as it is made; Ctrl-C again leaves"),
        (Some((client, path)), 1) => {
            say("cancelling; Ctrl-C again leaves");
            cancel(Arc::clone(client), *path);
        }
        (Some((_, path)), _) => {
            say(&leaving(&path.command.to_string()));
            std::process::exit(i32::from(LEFT));
        }
        (None, _) => {
            say("left; the command may have been made: see `loopback command list`");
            std::process::exit(i32::from(LEFT));
        }
    }
}

/// What to tell whoever stops looking.
pub fn leaving(command: &str) -> String {
    format!(
        "command {command} goes on: `loopback command follow {command}` shows it, `loopback command cancel {command}` ends it"
    )
}

/// In a thread of its own, for a second Ctrl-C must be heard meanwhile.
fn cancel(client: Arc<Client>, path: OfCommand) {
    thread::spawn(move || {
        let all = CancelCommand::default();
        if let Err(error) = client.send::<CancelCommandRuns>(&path, &all) {
            say(&format!(
                "the command is not cancelled: {}",
                model::error_chain(&error)
            ));
        }
    });
}

/// A line of progress may stand there.
fn say(text: &str) {
    if io::stderr().is_terminal() {
        let _ = io::stderr().write_all(b"\r\x1b[K");
    }
    note(text);
}
