//! How far a copy is, on one line of a terminal.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use crate::output::{bytes_text, printable};

const EVERY: Duration = Duration::from_millis(200);

/// Silent where standard error is no terminal.
pub(super) struct Progress {
    name: String,
    total: u64,
    began: Instant,
    first: Option<u64>,
    told: Option<Instant>,
    shown: bool,
}

impl Progress {
    pub(super) fn of(name: &str, total: u64) -> Self {
        Self {
            name: printable(name),
            total,
            began: Instant::now(),
            first: None,
            told: None,
            shown: std::io::stderr().is_terminal(),
        }
    }

    /// `at` bytes are there.
    pub(super) fn at(&mut self, at: u64) {
        let first = *self.first.get_or_insert(at);
        if !self.shown || self.told.is_some_and(|told| told.elapsed() < EVERY) {
            return;
        }
        self.told = Some(Instant::now());
        let percent = at
            .saturating_mul(100)
            .checked_div(self.total)
            .unwrap_or(100);
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let rate = at.saturating_sub(first).saturating_mul(1000) / millis.max(1);
        // A terminal that is gone is no reason to stop copying.
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{}  {percent}% of {}  {}/s",
            self.name,
            bytes_text(self.total),
            bytes_text(rate)
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown && self.told.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
