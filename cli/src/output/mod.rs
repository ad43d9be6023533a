//! How answers look: aligned columns for people, the API's own types as JSON
//! for programs.
//!
//! Whatever came from elsewhere is made printable first: a hostname must not
//! move the cursor of whoever lists hosts. Colours are for terminals only, and
//! not where `NO_COLOR` is set. Times are UTC, everywhere: operators compare
//! them with logs and with each other.

mod table;
mod text;

use std::io::{self, IsTerminal as _, Write};

use model::Timestamp;
use serde::Serialize;

use crate::app::now;
use crate::failure::Failure;

pub use table::{Cell, Table, Tone};
pub use text::{age, bytes_text, drives_terminal, duration_text, printable, time_text};

/// In which form answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    #[default]
    Table,
    /// The API's own types as JSON.
    Json,
}

/// Where answers go.
pub struct Output {
    format: Format,
    headers: bool,
    colours: bool,
    sink: Box<dyn Write>,
}

impl Output {
    /// Answers on standard output.
    pub fn stdout(format: Format, headers: bool) -> Self {
        let colours = io::stdout().is_terminal() && colours_wanted();
        Self {
            format,
            headers,
            colours,
            sink: Box::new(io::stdout()),
        }
    }

    /// The form asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Writes one value: as JSON, or as the table that `table` makes of it.
    pub fn write<T: Serialize>(
        &mut self,
        value: &T,
        table: impl FnOnce(&T, Timestamp) -> Table,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => {
                let text = table(value, now()).render(self.headers, self.colours);
                self.sink
                    .write_all(text.as_bytes())
                    .map_err(Failure::Output)
            }
        }
    }

    /// Writes a value that is done with a word: as JSON, or as that word.
    pub fn say<T: Serialize>(
        &mut self,
        value: &T,
        words: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Json => self.json(value),
            Format::Table => self.line(&words(value)),
        }
    }

    /// Writes `value` as JSON over several lines.
    pub fn json<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(Failure::Json)?;
        self.line(&text)
    }

    /// Writes a line as it is and hands it on at once, for who follows.
    pub fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.sink, "{text}")
            .and_then(|()| self.sink.flush())
            .map_err(Failure::Output)
    }

    /// Writes bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink
            .write_all(bytes)
            .and_then(|()| self.sink.flush())
            .map_err(Failure::Output)
    }

    /// `text` in the colour of `tone`, where colours are shown.
    pub fn paint(&self, text: &str, tone: Tone) -> String {
        if self.colours {
            tone.paint(text)
        } else {
            text.to_owned()
        }
    }
}

/// Whether the environment lets a terminal have colours.
pub fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    !set("NO_COLOR") && !dumb
}

/// A remark beside the answer, on standard error. It is not worth failing for.
pub fn note(text: &str) {
    for line in text.lines() {
        let _ = writeln!(io::stderr(), "{}", printable(line));
    }
}
