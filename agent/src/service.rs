//! What systemd is told.
//!
//! `READY=1` is said when the agent runs and has begun to dial, not when it is
//! linked: a host without network would otherwise be restarted for ever by its
//! start timeout, and other units that wait for this one would never start. Whether
//! it is linked is in the status line, in `loopback-agent status` and at the
//! gateway. The installer asks `status --wait`.
//!
//! The watchdog is fed by the engine's loop after it has done its work, so a loop
//! that hangs is restarted. Without systemd all of this does nothing.

use std::time::Duration;

use agent_core::Mono;
use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Service {
    feed_every: Option<Duration>,
    fed: Mono,
    said: String,
}

impl Service {
    /// Looks at the environment.
    pub fn new(now: Mono) -> Self {
        // Half of what is allowed is the custom; a third survives one late look.
        let feed_every = sd_notify::watchdog_enabled().map(|limit| limit / 3);
        Self {
            feed_every,
            fed: now,
            said: String::new(),
        }
    }

    /// The agent runs.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// The agent ends, and has time to say goodbye.
    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }

    /// One line for `systemctl status`; said when it changed.
    pub fn status(&mut self, line: &str) {
        if self.said != line {
            tell(&[NotifyState::Status(line)]);
            line.clone_into(&mut self.said);
        }
    }

    /// The loop has come round.
    pub fn feed(&mut self, now: Mono) {
        if let Some(every) = self.feed_every
            && now.since(self.fed) >= every
        {
            tell(&[NotifyState::Watchdog]);
            self.fed = now;
        }
    }
}

fn tell(state: &[NotifyState<'_>]) {
    // No service manager, no listener: the agent works the same.
    let _ = sd_notify::notify(state);
}
